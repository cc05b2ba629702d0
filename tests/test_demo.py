"""The demonstration's class table is right for every student.

What each should have earned is found out here in another way than the grader finds it out: their cells run in this
process, one after the other, and are examined on the hidden cases where they stand. Tricks are replaced by what should
be left of them.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from autograder.demo import LAB, run_demo
from autograder.demo_class import CLASS, Classroom, Student
from autograder.exams import Lab, load_lab, load_pack
from autograder.grade import ClassResult, grade_assignment
from autograder.nbgrader_course import open_course
from autograder.reports import class_rows, class_table, common_mistakes, mistakes_table
from autograder.results import QuestionRecord, SubmissionRecord
from fourbit.exam.check import examination
from fourbit.exam.reference import run_cell
from fourbit.exam.verdict import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.linux]

RAISES = "def {entry}(*args, **kwargs):\n    raise FileNotFoundError\n"
# What should be left of a student's trick: (number of the exercise, its source here or None for no cell, status).
TRICKS: dict[str, tuple[int, str | None, str]] = {
    "kofi": (1, RAISES, "timeout"),
    "lena": (0, RAISES, "error"),
    "mateo": (2, None, "crashed"),
    "oskar": (2, None, "missing"),
    "rosa": (2, None, "error"),
}


@dataclass(frozen=True)
class Class:
    """The graded class and what is needed to judge it."""

    root: Path
    lab: Lab
    result: ClassResult
    output: str

    @property
    def course(self) -> Path:
        return self.result.course

    def record(self, student: str) -> SubmissionRecord:
        (found,) = [record for record in self.result.records if record.student == student]
        return found

    def question(self, student: str, exercise: str) -> QuestionRecord:
        (found,) = [q for q in self.record(student).questions if q.name.endswith(exercise) and q.mode != "by hand"]
        return found


@pytest.fixture(scope="module")
def graded(root, tmp_path_factory) -> Class:
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(root / "solutions" / LAB, folder / "solutions" / LAB)
    output = io.StringIO()
    demo = run_demo(folder, Console(file=output, width=140))
    return Class(folder, load_lab(folder / "solutions" / LAB), demo.result, output.getvalue())


@pytest.fixture(scope="module")
def oracle(graded):
    """Verdicts of one student's cells on the hidden exam, in this process; the reference's are found once."""
    pack = load_pack(graded.root / "build" / "exams" / LAB)
    room = Classroom(graded.lab, graded.course)
    solved = room.solved()
    reference: dict[str, Verdict] = {}

    def verdicts(student: Student) -> dict[str, Verdict]:
        answers: dict[str, str | None] = {**student.answers(room)}
        if student.id in TRICKS:
            number, source, _ = TRICKS[student.id]
            name = room.exercises[number]
            answers[name] = source and source.format(entry=pack[name].entry)
        if student.id in ("priya", "tara"):  # what they print has no part in what they earn
            answers = {**solved}
        namespace: dict[str, Any] = {}
        found: dict[str, Verdict] = {}
        untouched = True
        for name, source in graded.lab.cells:
            if not name:
                run_cell(source, namespace, "<setup>")
                continue
            text = answers.get(name)
            untouched = untouched and text == solved[name]
            if text is not None:
                run_cell(text, namespace, f"<cell {name}>")
            if untouched and name in reference:
                found[name] = reference[name]
                continue
            found[name] = examination(pack[name], namespace)
            if untouched:
                reference[name] = found[name]
        return found

    return verdicts


def test_the_class_is_the_one_that_was_asked_for():
    assert len(CLASS) >= 12
    assert len({student.id for student in CLASS}) == len(CLASS)


@pytest.mark.parametrize("student", [s for s in CLASS if s.id != "nadia"], ids=lambda s: s.id)
def test_points_are_right_in_every_exercise(graded, oracle, student):
    record = graded.record(student.id)
    assert record.outcome == "graded"
    right = {name: verdict.points for name, verdict in oracle(student).items()}
    assert {name: graded.question(student.id, name).points for name in right} == pytest.approx(right)


@pytest.mark.parametrize(("student", "trick"), TRICKS.items())
def test_a_trick_or_accident_costs_its_own_exercise_and_is_called_by_its_name(graded, student, trick):
    number, _, status = trick
    question = graded.question(student, Classroom(graded.lab, graded.course).exercises[number])
    assert (question.points, question.status) == (0, status)


def test_the_reference_earns_everything_but_what_a_person_grades(graded):
    record = graded.record("amara")
    assert {q.status for q in record.questions} == {"passed", "manual"}
    assert record.points == pytest.approx(sum(q.max_points for q in record.questions if q.mode == "exam"))


def test_an_untouched_notebook_earns_nothing(graded):
    record = graded.record("bruno")
    assert record.points == 0
    assert {q.status for q in record.questions} == {"missing"}


def test_another_way_to_write_it_earns_everything(graded):
    assert graded.record("jonas").points == pytest.approx(graded.record("amara").points)


def test_a_file_that_is_cut_off_is_told_and_earns_nothing(graded):
    record = graded.record("nadia")
    assert record.outcome == "unreadable"
    assert "not JSON" in record.message
    assert record.points == 0


def test_the_last_copy_of_a_duplicated_cell_counts_and_is_told(graded):
    assert graded.record("samir").points == pytest.approx(graded.record("amara").points)
    assert any("2 times" in note for note in graded.record("samir").notes)


def test_the_deleted_cell_is_told(graded):
    assert any("deleted" in note for note in graded.record("oskar").notes)


def test_nan_earns_nothing_for_what_it_stands_for(graded):
    question = graded.question("quinn", Classroom(graded.lab, graded.course).exercises[5])
    assert question.points < question.max_points / 2


def test_without_walls_the_neighbours_work_would_have_been_copied(graded):
    """The attack is a real one: outside the sandbox, it returns what some neighbour's function returns."""
    room = Classroom(graded.lab, graded.course)
    (thief,) = [student for student in CLASS if student.id == "lena"]
    name = room.exercises[0]
    stolen: dict[str, Any] = {}
    for cell, source in graded.lab.cells:
        if not cell:
            run_cell(source, stolen, "<setup>")
    run_cell(thief.answers(room)[name], stolen, "<theft>")
    case = load_pack(graded.root / "build" / "exams" / LAB)[name].cases[0]
    assert isinstance(stolen[name](*case.args), torch.Tensor)


def test_the_named_mistakes_are_counted(graded):
    first = graded.lab.exam.exercises[0]
    mistakes = common_mistakes(graded.result.records)
    counts = {name: count for question, name, _, count in mistakes if question.endswith(first.name)}
    assert counts[first.mistakes[0].name] == 3  # farid, greta, hiro


def test_every_mistake_that_a_student_made_is_named(graded):
    room = Classroom(graded.lab, graded.course)
    for student, exercise, mistake in (("farid", 0, 0), ("greta", 2, 1), ("ines", 3, 2), ("hiro", 4, 0)):
        named = graded.question(student, room.exercises[exercise]).mistake
        assert named is not None
        assert named.id == graded.lab.exam.exercises[exercise].mistakes[mistake].id


def test_the_table_shows_every_student_and_the_mistakes(graded):
    rows = class_rows(open_course(graded.course), LAB, graded.result.records)
    text = io.StringIO()
    console = Console(file=text, width=180)
    console.print(class_table(rows, LAB))
    console.print(mistakes_table(rows))
    for student in CLASS:
        assert student.id in text.getvalue()
        assert student.id in graded.output
    assert graded.lab.exam.exercises[0].mistakes[0].name in text.getvalue()


def test_the_gradebook_agrees_with_the_table(graded):
    from nbgrader.api import Gradebook

    with Gradebook(open_course(graded.course).db_url, "fourbit-demo") as gradebook:
        scores = {s.student.id: s.score for s in gradebook.assignment_submissions(LAB)}
        names = {s.id: (s.first_name, s.last_name) for s in gradebook.students}
    assert scores == pytest.approx({record.student: record.points for record in graded.result.records})
    assert names["tara"] == ("Tara", "O'Brien")


def test_a_second_run_grades_nothing_again(graded):
    again = grade_assignment(graded.course, LAB)
    assert again.graded == ()
    assert [r.points for r in again.records] == [r.points for r in graded.result.records]


def test_the_report_command_writes_feedback_and_grades(graded, monkeypatch, capsys):
    from fourbit import cli

    monkeypatch.setattr("sys.argv", ["fourbit", "report", LAB, "--course", str(graded.course)])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "amara" in capsys.readouterr().out
    grades = csv.DictReader(io.StringIO((graded.course / "grades.csv").read_text(encoding="utf-8")))
    assert {row["student_id"] for row in grades} == {student.id for student in CLASS}
    for student in CLASS:
        pages = list((graded.course / "feedback" / student.id / LAB).glob("*.html"))
        assert len(pages) == 1, student.id
