"""Grading a Fourbit lab by data: the exam stays outside the student's process, whatever that process does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import read_standings
from autograder.builder import build_lab
from autograder.course import create_course
from autograder.engine import Runner
from autograder.exams import load_lab
from autograder.grade import ClassResult, grade_assignment
from autograder.jail import Limits
from autograder.nbgrader_course import open_course
from autograder.reports import class_rows, common_mistakes, write_feedback
from autograder.results import GradingError, SubmissionRecord
from autograder.workers.slots import close_slots
from tests.plain_course import nbgrader

pytestmark = pytest.mark.linux
MINI = Path(__file__).resolve().parent / "fixtures" / "00-mini"
LIMITS = Limits(cell_seconds=10.0, memory_bytes=2**31)
LOOK = """
import gc, sys
SECRETS = ("expected", "mistakes", "counts unsigned")
def scale(w, bits):
    found = []
    frame = sys._getframe()
    while frame:
        found += [k for k in frame.f_locals if k in SECRETS]
        frame = frame.f_back
    found += [str(o)[:40] for o in gc.get_objects() if isinstance(o, dict) and ("expected" in o or "mistakes" in o)]
    raise RuntimeError("found " + repr(found))
"""
LIES = "class L(float):\n    __eq__ = lambda *a: True\ndef scale(w, bits):\n    return L(0)"
KEEPS = "KEPT = []\n" + "def scale(w, bits):\n    KEPT.append(w)\n    return abs(w).max() / 7"
PRETENDS = "def check(name):\n    return 2.0\nfrom fourbit.exam import judge\ndef scale(w, bits):\n    return 0.5"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ClassResult, Executor]]:
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(MINI, root / "solutions" / "00-mini")
    source = root / "solutions" / "00-mini" / "00-mini.py"
    text = source.read_text()
    if "import check" not in text:
        source.write_text('# %% role="setup"\nfrom fourbit.exam import check\n\n' + text)
    build_lab("00-mini", root)
    create_course(root / "course", ["00-mini"], build=root / "build")
    for student, answers in students(root).items():
        hand_in(root, student, answers)
    with ThreadPoolExecutor(1) as here:
        yield root, grade_assignment(root / "course", "00-mini", executor=here, limits=LIMITS), here
        here.submit(close_slots).result()


def students(root: Path) -> dict[str, dict[str, str]]:
    lab = load_lab(root / "solutions" / "00-mini")
    right = {e.name: lab.source(e.name) for e in lab.exam.exercises}
    slip = lab.exam["scale"].mistakes[0].apply(right["scale"])
    return {
        "right": right,
        "stub": {},
        "slip": right | {"scale": slip},
        "exits": right | {"scale": "import os\n" + right["scale"] + "\nos._exit(0)"},
        "exits-later": right | {"scale": "def scale(w, bits):\n    import os\n    os._exit(0)"},
        "deletes": {"quantize": right["quantize"], "scale": "del scale"},
        "lies": right | {"scale": LIES},
        "looks": right | {"scale": LOOK},
        "pretends": right | {"scale": PRETENDS},
        "keeps": {"scale": KEEPS, "quantize": "print('kept', KEPT)\n" + right["quantize"]},
    }  # fmt: skip


def hand_in(root: Path, student: str, answers: Mapping[str, str]) -> None:
    notebook: dict[str, Any] = json.loads((root / "labs" / "00-mini" / "00-mini.ipynb").read_text())
    for cell in notebook["cells"]:
        fourbit = cell["metadata"].get("fourbit", {})
        if fourbit.get("role") == "exercise" and fourbit["exercise"] in answers:
            cell["source"] = answers[fourbit["exercise"]]
    folder = root / "course" / "submitted" / student / "00-mini"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00-mini.ipynb").write_text(json.dumps(notebook))


def record(result: ClassResult, student: str) -> SubmissionRecord:
    return next(r for r in result.records if r.student == student)


def test_every_student_gets_what_they_earned(graded: tuple[Path, ClassResult, Executor]) -> None:
    wanted = {
        "right": ("passed", "passed"), "stub": ("missing", "missing"), "slip": ("failed", "passed"),
        "exits": ("crashed", "passed"), "exits-later": ("crashed", "passed"), "deletes": ("error", "passed"),
        "lies": ("failed", "passed"), "looks": ("error", "passed"), "pretends": ("failed", "passed"),
    }  # fmt: skip
    for student, statuses in wanted.items():
        questions = record(graded[1], student).questions
        assert tuple(q.status for q in questions) == statuses, (student, questions)
        assert [q.points for q in questions] == [2.0 * (statuses[0] == "passed"), 3.0 * (statuses[1] == "passed")]
        assert {q.mode for q in questions} == {"exam"}


def test_a_mistake_is_named_in_record_table_and_feedback(graded: tuple[Path, ClassResult, Executor]) -> None:
    root, result, _ = graded
    mistake = record(result, "slip").questions[0].mistake
    assert mistake is not None
    assert (mistake.name, 1) in [(name, count) for _, name, _, count in common_mistakes(result.records)]
    course = open_course(root / "course")
    rows = class_rows(course, "00-mini", [record(result, "slip")])
    page = Path(write_feedback(course, rows)[0]).read_text()
    assert mistake.name in page
    assert "2" in page
    assert "examine(" not in page


def test_nothing_of_the_exam_is_within_the_students_reach(graded: tuple[Path, ClassResult, Executor]) -> None:
    questions = record(graded[1], "looks").questions
    told = " ".join(p.message for p in questions[0].properties)
    assert "found []" in told


def test_no_cell_can_show_what_an_earlier_exercise_was_asked(graded: tuple[Path, ClassResult, Executor]) -> None:
    root, result, _ = graded
    assert record(result, "keeps").questions[1].status == "passed"
    text = (root / "course" / "autograded" / "keeps" / "00-mini" / "00-mini.ipynb").read_text()
    assert "kept []" in text


def test_who_is_examined_after_the_last_cell_gets_what_they_would_get_in_place(
    graded: tuple[Path, ClassResult, Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, result, here = graded
    asked: list[str] = []
    in_one_go = Runner.ask
    monkeypatch.setattr(Runner, "ask", lambda *args, **more: asked.append(args[1]) or in_one_go(*args, **more))
    shutil.copytree(root / "course", tmp_path / "course")
    grade_assignment(tmp_path / "course", "00-mini", executor=here, limits=LIMITS, force=True, students=["right"])
    assert asked
    asked.clear()
    monkeypatch.setattr("autograder.judging.examiner.only_definitions", lambda cells: False)
    again = grade_assignment(tmp_path / "course", "00-mini", executor=here, limits=LIMITS, force=True)
    assert not asked
    for before, after in zip(result.records, again.records, strict=True):
        same = [[replace(question, seconds=0.0) for question in one.questions] for one in (before, after)]
        assert same[0] == same[1], before.student


def test_without_its_exam_a_lab_is_not_graded(
    graded: tuple[Path, ClassResult, Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _, here = graded
    hidden = root / "course" / "exams"
    hidden.rename(root / "away")
    monkeypatch.delenv("FOURBIT_EXAMS", raising=False)
    with pytest.raises(GradingError, match="hidden exam of 00-mini is missing"):
        grade_assignment(root / "course", "00-mini", executor=here)
    (root / "away").rename(hidden)


@pytest.mark.slow
def test_stock_nbgrader_gives_the_same_points(graded: tuple[Path, ClassResult, Executor]) -> None:
    """`check` examines in the kernel there, on the same hidden cases."""
    root, result, _ = graded
    create_course(root / "stock", ["00-mini"], build=root / "build")
    for student in ("right", "slip"):
        shutil.copytree(root / "course" / "submitted" / student, root / "stock" / "submitted" / student)
    nbgrader(root / "stock", "generate_assignment", "00-mini")
    nbgrader(root / "stock", "autograde", "00-mini")
    theirs = read_standings(open_course(root / "stock"), "00-mini")
    ours = read_standings(open_course(root / "course"), "00-mini")
    assert record(result, "slip").points == 3
    for student, standing in theirs.items():
        scores = {question: found.auto_score for question, found in standing.questions.items()}
        assert scores == {question: found.auto_score for question, found in ours[student].questions.items()}
