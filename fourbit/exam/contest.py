"""A race between a student's function and ours, judged by the grader's own clock.

Kernel contests are lost to patched timers, kept outputs and lazy results, all of which act inside of the contestant's
process. So nothing of that process is believed: a call is timed from outside, from the bytes that go in to the bytes
that come out, the inputs are fresh in every round, and each output is compared with ours. Both sides do the
same with the bytes, so what does not belong to the function costs both the same. The quickest
call of either side counts: a grader that is busy has quiet moments, and a contestant who loads the machine cannot slow
the call of ours that came before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fourbit.codec import Ref, decode, encode
from fourbit.exam.call import Outcome, fingerprints
from fourbit.exam.compare import describe
from fourbit.exam.fixtures import resolve
from fourbit.exam.pack import PackedExercise, PackedRace
from fourbit.exam.verdict import Finding

ROUNDS, BATCHES = 5, 3
Timed = Callable[[bytes], tuple[Outcome, float]]
Ours = Callable[[bytes], tuple[list[Any], float]]


def contest(exercise: PackedExercise, theirs: Timed, clock: Callable[[], float] = time.monotonic) -> Finding | None:
    """Let both sides take turns; None where there is no race, or where ours does not run on this machine.

    Args:
        theirs: encoded inputs -> the outcome of the student's call, and the seconds that it took as seen from outside.
        clock: for our side's calls.
    """
    race = exercise.race
    if race is None:
        return None
    try:
        ours = _ours(exercise, clock)
        ours(_inputs(race, 0))  # compiles
    except Exception:
        return None  # a grader that lacks a tool must not cost anybody points
    best = [ours(_inputs(race, 0))[1], math.inf]
    fault = _round(race, 0, ours, theirs, [math.inf, math.inf])  # the student's function may have to be compiled
    for number in range(1, 1 + ROUNDS * BATCHES):
        fault = fault or _round(race, number, ours, theirs, best)
        if fault:
            return Finding(race.name, 0.0, fault, "the race")
        if number % ROUNDS == 0 and best[1] <= race.times * best[0]:
            break
    return _finding(race, *best)


def _finding(race: PackedRace, ours: float, theirs: float) -> Finding:
    ratio = theirs / max(ours, 1e-9)
    earned = min(max(1 - math.log2(ratio / race.times), 0.0), 1.0)
    message = "" if earned >= 1 else f"{ratio:.1f} times our time, up to {race.times:g} times earn all points"
    return Finding(race.name, earned, message, "the race")


def _round(race: PackedRace, number: int, ours: Ours, theirs: Timed, best: list[float]) -> str:
    """Both sides once on the same fresh inputs; keeps the quickest, and says what is wrong with their output."""
    inputs = _inputs(race, number)
    right, seconds = ours(inputs)
    best[0] = min(best[0], seconds)
    outcome, seconds = theirs(inputs)
    best[1] = min(best[1], seconds)
    if outcome.status != "returned":
        return f"the call was not finished: {outcome.message or outcome.error or outcome.status}"
    if outcome.changed:
        return f"the call changed {', '.join(outcome.changed)} in place"
    return _apart(outcome.value, right, race.apart)


def _apart(theirs: Any, ours: list[Any], bound: float) -> str:
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return f"the result is a {describe(theirs)}"
    for one, right in zip(theirs, ours, strict=True):
        if not isinstance(one, np.ndarray) or one.shape != right.shape:
            return f"a result is a {describe(one)}; a {describe(right)} was expected"
        if not (np.abs(one.astype(np.float64) - right) <= bound * np.abs(right).max()).all():
            return "a result is wrong: on inputs that no earlier call had, it differs from ours"
    return ""


def _inputs(race: PackedRace, number: int) -> bytes:
    args = tuple(_reseeded(value, number) for value in race.args)
    return encode({"args": args, "kwargs": {}, "each": race.each, "seed": number})


def _reseeded(value: Any, number: int) -> Any:
    if isinstance(value, Ref) and "seed" in value.kwargs:
        return Ref(value.name, {**value.kwargs, "seed": value.kwargs["seed"] + 7919 * number})
    return value


def _ours(exercise: PackedExercise, clock: Callable[[], float]) -> Ours:
    """Our side: what :func:`fourbit.exam.call.answer` does with the bytes, without its guards for strangers."""
    assert exercise.race is not None
    function = _namespace(tuple(map(tuple, exercise.race.cells)))[exercise.entry]

    def call(inputs: bytes) -> tuple[list[Any], float]:
        start = clock()
        given = decode(inputs)
        args = resolve(given["args"])
        before = fingerprints(args, {})
        outputs = [function(*args, *more) for more in given["each"]]
        assert fingerprints(args, {}) == before
        data = encode({"value": outputs})
        seconds = clock() - start
        return decode(data)["value"], seconds

    return call


@lru_cache(maxsize=8)
def _namespace(cells: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Our side's functions; the cells are the author's own, from the grader's pack."""
    namespace: dict[str, Any] = {"__name__": "fourbit_contest"}
    for name, source in cells:
        exec(compile(source, name, "exec"), namespace)
    return namespace
