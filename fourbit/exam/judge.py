"""Judging the outcomes of an exercise's cases: pure, the same in the notebook and in the examiner.

Points are `max_points` times the weighted share of the properties that hold on every case they apply to, and 0
when a gate fails. Changing an input in place costs as much as one property; leaving it alone earns nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from fourbit.exam.author import Partial, Property, Raised, Trial
from fourbit.exam.call import Outcome
from fourbit.exam.compare import coincide, describe, form_mismatch
from fourbit.exam.fixtures import resolve
from fourbit.exam.pack import PackedCase, PackedExercise
from fourbit.exam.verdict import Finding, NamedMistake, Verdict

UNCHANGED = "leaves its inputs unchanged"
_WORDS = {"timeout": "timeout", "crashed": "crashed", "out of memory": "out of memory"}


def judge(exercise: PackedExercise, outcomes: Sequence[Outcome], raced: Finding | None = None) -> Verdict:
    """Return the verdict on `outcomes`, one for each case of `exercise`, in order.

    Args:
        raced: what a race found, where there was one; it counts beside the properties with the race's weight.
    """
    seconds = sum(o.seconds for o in outcomes)
    for outcome in outcomes:
        if outcome.status in ("missing", "unstarted"):
            message = outcome.message if outcome.status == "missing" else "not written yet"
            return Verdict(exercise.name, 0.0, exercise.points, "missing", message=message, seconds=seconds)
    findings = [_finding(p, exercise, outcomes) for p in exercise.properties]
    points = _points(exercise, findings, outcomes, raced)
    if raced is not None:
        findings.append(raced)
    if not exercise.may_change_inputs:
        findings.append(_unchanged(exercise, outcomes))
    full = points >= exercise.points
    return Verdict(
        exercise.name,
        points,
        exercise.points,
        "passed" if full else _status(points, outcomes),
        tuple(findings),
        "" if full else _message(outcomes),
        None if full else diagnose(exercise, outcomes),
        next((o.printed for o in outcomes if o.printed), ""),
        seconds,
    )


def diagnose(exercise: PackedExercise, outcomes: Sequence[Outcome]) -> NamedMistake | None:
    """The first mistake whose recorded outcomes coincide with all of `outcomes`, if any."""
    for mistake in exercise.mistakes:
        pairs = list(zip(exercise.cases, outcomes, strict=True))
        # A mistake that no case tells from the reference names nothing.
        if any(case.shows(mistake.id) for case, _ in pairs) and all(
            _same(case.recorded(mistake.id), case.changed_by(mistake.id), o) for case, o in pairs
        ):
            return mistake
    return None


def _same(recorded: Any, changed: bool, outcome: Outcome) -> bool:
    return bool(outcome.changed) == changed and coincide(recorded, as_output(outcome))


def as_output(outcome: Outcome) -> Any:
    """The output, or the exception that stands for it."""
    if outcome.status == "returned":
        return outcome.value
    return Raised(outcome.error if outcome.status == "raised" else outcome.status, outcome.message)


def _finding(prop: Property, exercise: PackedExercise, outcomes: Sequence[Outcome]) -> Finding:
    """Hold `prop` against every case it applies to; keep the worst, and of equals the first."""
    worst = Finding(prop.name, 1.0)
    for case, outcome in zip(exercise.cases, outcomes, strict=True):
        if _applies(prop, case):
            earned, message = _evaluate(prop, exercise, case, outcome)
            if earned < worst.earned:
                worst = Finding(prop.name, earned, message, case.name)
    return worst


def _applies(prop: Property, case: PackedCase) -> bool:
    # Only a property that names a refusal by tag can speak of a case that the reference refuses.
    if isinstance(case.expected, Raised):
        return prop.tags is not None and prop.applies(case.tags)
    return prop.applies(case.tags)


def _evaluate(prop: Property, exercise: PackedExercise, case: PackedCase, outcome: Outcome) -> tuple[float, str]:
    output = as_output(outcome)
    if isinstance(output, Raised) and not isinstance(case.expected, Raised):
        return 0.0, _told(outcome)
    if exercise.same_form and not isinstance(case.expected, Raised):
        mismatch = form_mismatch(output, case.expected)
        if mismatch:
            return 0.0, mismatch
    # Each property gets its own copies: one that runs a model in another mode must not disturb the next.
    args, kwargs, ours, expected = copy.deepcopy((case.args, dict(case.kwargs), output, case.expected))
    trial = Trial(resolve(args), resolve(kwargs), ours, expected, case.name)
    try:
        result = prop.holds(trial)
    except Exception as error:  # a property meets whatever a student returns
        return 0.0, f"could not be judged: {describe(output)} ({type(error).__name__}: {error})"
    if isinstance(result, Partial):
        return min(max(float(result.fraction), 0.0), 1.0), result.message
    return (1.0, "") if result is None else (0.0, result)


def _told(outcome: Outcome) -> str:
    if outcome.status == "raised":
        line = f" (line {outcome.line} of the cell)" if outcome.line else ""
        return f"raised {outcome.error}: {outcome.message}{line}"
    return outcome.message or outcome.status


def _unchanged(exercise: PackedExercise, outcomes: Sequence[Outcome]) -> Finding:
    for case, outcome in zip(exercise.cases, outcomes, strict=True):
        if outcome.changed:
            message = f"the call changed {', '.join(outcome.changed)} in place; work on a copy"
            return Finding(UNCHANGED, 0.0, message, case.name)
    return Finding(UNCHANGED, 1.0)


def _points(
    exercise: PackedExercise, findings: Sequence[Finding], outcomes: Sequence[Outcome], raced: Finding | None
) -> float:
    properties = exercise.properties
    total = sum(p.weight for p in properties)
    earned = sum(p.weight * f.earned for p, f in zip(properties, findings, strict=True))
    gates = all(f.held for p, f in zip(properties, findings, strict=True) if p.gate)
    if not gates or earned <= 0:
        return 0.0
    if raced is not None and exercise.race is not None:
        total, earned = total + exercise.race.weight, earned + exercise.race.weight * raced.earned
    share = earned / total
    if not exercise.may_change_inputs and not _unchanged(exercise, outcomes).held:
        share -= 1 / sum(p.weight > 0 for p in properties)
    return round(exercise.points * max(share, 0.0), 2)


def _status(points: float, outcomes: Sequence[Outcome]) -> str:
    if points > 0:
        return "partly"
    for outcome in outcomes:
        if outcome.status in _WORDS:
            return _WORDS[outcome.status]
    return "error" if any(o.status in ("raised", "unusable") for o in outcomes) else "failed"


def _message(outcomes: Sequence[Outcome]) -> str:
    return next((_told(o) for o in outcomes if o.status not in ("returned", "raised")), "")
