"""Grading a class again: what is run, why, and what that changed, from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import read_standings
from autograder.books.journal import journal_of
from autograder.collect.receipts import Receipt, append_receipts, receipts_path
from autograder.grade import ClassResult, Progress, grade_assignment
from autograder.jail import Limits
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from autograder.reading.untrusted import read_folder
from autograder.results import files_hash
from autograder.workers.slots import close_slots
from tests.plain_course import GOOD, make_course, released, submit
from tests.test_store import due, set_config

pytestmark = pytest.mark.linux

LIMITS = Limits(cell_seconds=20.0, notebook_seconds=120.0, memory_bytes=2**30, output_bytes=2**18)
WORSE = {**GOOD, "mean": "def mean(numbers):\n    return 0"}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NbgraderCourse, Template, Executor]]:
    """A class of two; the tests below go on from what the one before has left."""
    course, template = make_course(tmp_path_factory.mktemp("regrade") / "plain")
    for student in ("ada", "bob"):
        folder = submit(course, student, released(template, GOOD))
        (folder / "timestamp.txt").write_text("2026-03-03 12:00:00 UTC\n")
    with ThreadPoolExecutor(1) as here:
        grade_assignment(course.root, "ps1", executor=here, limits=LIMITS)
        yield course, template, here
        here.submit(close_slots).result()


def again(
    graded: tuple[NbgraderCourse, Template, Executor], force: bool = False, limits: Limits = LIMITS
) -> tuple[ClassResult, dict[str, str]]:
    """Grade once more; returns the result, and the reason given for everybody who was run."""
    events: list[Progress] = []
    result = grade_assignment(
        graded[0].root, "ps1", executor=graded[2], limits=limits, force=force, on_progress=events.append
    )
    return result, {event.record.student: event.reason for event in events if event.changed}


def test_nothing_changed(graded: tuple[NbgraderCourse, Template, Executor]) -> None:
    result, reasons = again(graded)
    assert (reasons, result.changes, result.retimed) == ({}, (), ())
    assert result.unchanged == ("ada", "bob")


def test_another_submission(graded: tuple[NbgraderCourse, Template, Executor]) -> None:
    submit(graded[0], "ada", released(graded[1], WORSE))
    result, reasons = again(graded)
    assert reasons == {"ada": "submission"}
    (change,) = result.changes
    assert (change.student, change.old, change.new) == ("ada", 9, 7)
    assert [(q.name, q.old, q.new) for q in change.questions] == [("test_mean", 2, 0)]


def test_another_source_and_limit(graded: tuple[NbgraderCourse, Template, Executor]) -> None:
    path = graded[0].root / "source" / "ps1" / "ps1.ipynb"
    path.write_text(path.read_text().replace("close(mean([-1, 1]), 0)", "close(mean([-2, 2]), 0)"))
    result, reasons = again(graded, limits=replace(LIMITS, open_files=300))
    assert reasons == {"ada": "source, limits", "bob": "source, limits"}
    assert result.changes == ()
    assert again(graded)[1] == {"ada": "limits", "bob": "limits"}


def test_asked_for_and_lost(graded: tuple[NbgraderCourse, Template, Executor]) -> None:
    assert again(graded, force=True)[1] == {"ada": "forced", "bob": "forced"}
    (graded[0].path("autograded", "bob", "ps1") / "ps1.ipynb").unlink()
    assert again(graded)[1] == {"bob": "lost"}
    history = journal_of(graded[0].root, "ps1").history()
    assert [(change.student, change.reason) for _, change in history[-3:]] == [
        ("ada", "forced"), ("bob", "forced"), ("bob", "lost"),
    ]  # fmt: skip


def test_a_due_date_a_receipt_and_the_strict_setting_run_nothing(
    graded: tuple[NbgraderCourse, Template, Executor],
) -> None:
    course = graded[0]
    set_config(course.root, 'c.AssignLatePenalties.plugin_class = "autograder.late.LateDays"')
    due(course, "2026-03-01 12:00 UTC")
    result, reasons = again(graded)
    assert (reasons, result.retimed) == ({}, ("ada", "bob"))
    assert _late(course) == {"ada": pytest.approx(1.4), "bob": pytest.approx(1.8)}
    raw = read_folder(course.path("submitted", "bob", "ps1"))
    receipt = Receipt("bob", "2026-03-02T10:00:00+00:00", files_hash(raw.files), "by hand", 1)
    append_receipts(receipts_path(course, "ps1"), [receipt])
    assert again(graded)[0].retimed == ("bob",)
    assert _late(course)["bob"] == pytest.approx(0.9)
    set_config(course.root, 'c.FourbitGrade.timestamps = "receipts"')
    result, reasons = again(graded)
    assert (reasons, result.retimed) == ({}, ("ada",))
    assert _late(course) == {"ada": 0, "bob": pytest.approx(0.9)}
    ada = next(record for record in result.records if record.student == "ada")
    assert any("unknown" in note for note in ada.notes)
    assert json.loads(journal_of(course.root, "ps1").path.read_text().splitlines()[-1])["parts"]["submission"]


def _late(course: NbgraderCourse) -> dict[str, float]:
    return {student: standing.late_penalty for student, standing in read_standings(course, "ps1").items()}
