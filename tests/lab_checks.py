"""What the tests of the labs share: an author's lab, its reference answers, and checks that every exam must pass."""

from __future__ import annotations

import doctest
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fourbit.exam.matrix import Row
from fourbit.exam.reference import PUBLIC_SEED, Lab
from tests.scripts import load_script

KILL_MATRIX = Path(__file__).resolve().parent.parent / "site" / "kill_matrix.py"


def assert_complete(lab: Lab, mistakes: int = 6) -> None:
    """Each exercise has enough mistakes, all of different names, and an equivalent alternative."""
    for exercise in lab.exam.exercises:
        assert len(exercise.mistakes) >= mistakes, exercise.name
        assert exercise.alternatives, exercise.name
        assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes), exercise.name
        assert len({m.id for m in exercise.mistakes}) == len(exercise.mistakes), exercise.name


def assert_other_cases(lab: Lab) -> None:
    """No hidden case asks what a visible one asks."""
    for exercise in lab.exam.exercises:
        visible, hidden = exercise.cases(PUBLIC_SEED, True), exercise.cases(PUBLIC_SEED, False)
        shown = {repr((case.args, dict(case.kwargs))) for case in visible}
        assert not shown & {repr((case.args, dict(case.kwargs))) for case in hidden}, exercise.name


def assert_example_runs(reference: Mapping[str, Any], exercise: str) -> None:
    """The docstring's worked example gives what it says."""
    document = inspect.getdoc(reference[exercise])
    assert document is not None
    examples = doctest.DocTestParser().get_doctest(document, dict(reference), exercise, None, 0)
    assert examples.examples
    assert doctest.DocTestRunner().run(examples).failed == 0


def assert_judge_is_silent(lab: Lab) -> None:
    """No statement of a reference stands in the file that students get; the head of a loop may."""
    judge = (lab.folder / "properties.py").read_text(encoding="utf-8")
    shared = {line.strip() for line in judge.splitlines()}
    for exercise in lab.exam.exercises:
        stub = {line.strip() for line in lab.stub(exercise.name).splitlines()}
        secret = {line.strip() for line in lab.source(exercise.name).splitlines()} - stub
        assert not {line for line in secret & shared if len(line) > 24 and not line.endswith(":")}, exercise.name


def assert_published(lab: Lab, rows: Sequence[Row], seed: int) -> None:
    """The kill matrix on the site is the one that was computed just now; only the public seed's is there."""
    if seed != PUBLIC_SEED:
        return
    module = load_script(KILL_MATRIX, "site_kill_matrix")
    shown = json.loads(module.PUBLISHED.read_text(encoding="utf-8"))[lab.exam.lab]
    found = module.published(lab, rows)
    said = f"run: python site/kill_matrix.py {lab.exam.lab}"
    assert _without_points(shown) == _without_points(found), said
    # Another processor rounds other sums, which may move a share of a property's points.
    assert _points(found) == pytest.approx(_points(shown), abs=0.1), said


def _without_points(entries: list[dict[str, Any]]) -> list[Any]:
    about = ("id", "name", "link", "named")
    counts = ("exercise", "points", "alternatives", "impostors")
    return [
        ({key: entry[key] for key in counts}, [{key: row[key] for key in about} for row in entry["mistakes"]])
        for entry in entries
    ]


def _points(entries: list[dict[str, Any]]) -> list[float]:
    return [number for e in entries for number in (e["impostors_at_most"], *(row["lost"] for row in e["mistakes"]))]
