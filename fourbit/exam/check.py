"""`check` for students, `examine` for graders: one examination, two sets of cases."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fourbit import progress
from fourbit.errors import ExamError
from fourbit.exam.call import Outcome, answer, read_outcome
from fourbit.exam.judge import judge
from fourbit.exam.pack import Pack, PackedExercise, load_pack
from fourbit.exam.verdict import Verdict


def check(name: str) -> Verdict:
    """Examine the notebook's `name` on the visible cases and show the panel; its number is the points.

    Run it in a notebook of the lab's folder, which holds the exam pack in `exam/`.

    Example:
        >>> check("magnitude_mask")  # doctest: +SKIP

    Raises:
        ExamError: when the pack is missing or has no such exercise; never for a missing or wrong answer.
    """
    pack = load_pack(Path("exam"))
    verdict = examination(pack[name], sys._getframe(1).f_globals)
    _remember(pack, verdict)
    return verdict


def examine(name: str) -> Verdict:
    """Examine the notebook's `name` on the hidden cases; for `nbgrader autograde` in a course folder.

    The hidden packs lie in the folder that the environment variable FOURBIT_EXAMS names.

    Raises:
        ExamError: when there is no hidden pack of this lab.
    """
    exams = os.environ.get("FOURBIT_EXAMS")
    if not exams:
        raise ExamError("FOURBIT_EXAMS is not set; grade in a course folder made by `fourbit course`")
    pack = load_pack(Path(exams) / load_pack(Path("exam")).lab)
    return examination(pack[name], sys._getframe(1).f_globals)


def examination(exercise: PackedExercise, namespace: Mapping[str, Any]) -> Verdict:
    """Examine the objects of this process."""
    return judge(exercise, ask(exercise, lambda data: _answer(namespace, exercise, data)))


def _answer(namespace: Mapping[str, Any], exercise: PackedExercise, inputs: bytes) -> Outcome:
    return read_outcome(answer(namespace, exercise.entry, inputs, exercise.seconds))


def ask(exercise: PackedExercise, call: Callable[[bytes], Outcome]) -> list[Outcome]:
    """The outcomes of all cases of an exercise, where `call` takes encoded inputs to an outcome.

    What is missing for one case is missing for all, and a loop would cost its limit once a case: after such an
    outcome the other cases count as the same.
    """
    outcomes: list[Outcome] = []
    for case in exercise.cases:
        outcomes.append(call(case.inputs))
        if outcomes[-1].status in ("missing", "unstarted", "timeout"):
            return outcomes + [outcomes[-1]] * (len(exercise.cases) - len(outcomes))
    return outcomes


def _remember(pack: Pack, verdict: Verdict) -> None:
    entry = {"points": verdict.points, "max_points": verdict.max_points, "status": verdict.status}
    progress.record(f"lab {pack.lab}", verdict.exercise, entry)
    listener = os.environ.get("FOURBIT_VERDICTS")
    if listener:
        line = {"lab": pack.lab, "exercise": verdict.exercise, **entry, "text": verdict.text()}
        with open(listener, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
