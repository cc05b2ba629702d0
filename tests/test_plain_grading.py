"""Plain test cells in a process of their own: honest answers earn what nbgrader gives them, cheats earn nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.books.gradebook import read_standings
from autograder.jail import Limits
from autograder.judging.worker import Bundle, Slot, Task
from autograder.nbgrader_course import open_course
from autograder.plain.plan import Plan
from autograder.reading.template import Template
from autograder.reading.untrusted import RawSubmission
from autograder.results import QuestionRecord
from tests.plain_cases import (
    CASES,
    CHEATS,
    CREDIT,
    HELPERS,
    SCORES,
    SETUP,
    TARGET,
    Case,
    notebook_of,
    template_of,
)
from tests.plain_course import nbgrader

pytestmark = pytest.mark.linux

LIMITS = Limits(cell_seconds=5.0, memory_bytes=2**30)
OTHER = Case("other", "def other(x):\n    return x", "assert other(5) == 5")
ANSWERS = [(case, place) for case in CASES for place in range(len(case.honest))]


class Room:
    """A grading slot for an assignment, and the same without a second process."""

    def __init__(self, template: Template, limits: Limits = LIMITS) -> None:
        self.template = template
        self.slot = Slot(Bundle("key", template.to_bytes(), limits=limits))
        self.plan = self.slot._plan(template.notebooks[0])

    def grade(self, answers: Mapping[str, str], plan: Plan | None = None) -> dict[str, QuestionRecord]:
        self.slot.bench.plans["cases"] = self.plan if plan is None else plan
        raw = RawSubmission({"cases.ipynb": notebook_of(self.template, answers)})
        record = self.slot.grade(Task("student", "key", raw)).record
        self.notes = record.notes
        assert record.outcome == "graded", record.message
        return {question.name.removeprefix("test_"): question for question in record.questions}

    def in_process(self, answers: Mapping[str, str]) -> dict[str, QuestionRecord]:
        return self.grade(answers, Plan({}))


def rounds_of_answers() -> list[dict[str, str]]:
    """No answers but the instructor's own; then the first other answer of every question, the second, and so on."""
    others = range(max(len(case.honest) for case in CASES))
    return [{}, *({c.name: list(c.honest)[i] for c in CASES if i < len(c.honest)} for i in others)]


Found = list[tuple[dict[str, QuestionRecord], dict[str, QuestionRecord]]]


@pytest.fixture(scope="module")
def honest() -> Iterator[tuple[Room, Found]]:
    """The instructor's own solution, then the other answers round by round; isolated, and in process."""
    room = Room(template_of(CASES, {"text.txt": b"one two three"}, SETUP))
    yield room, [(room.grade(answers), room.in_process(answers)) for answers in rounds_of_answers()]
    room.slot.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_solution_earns_everything_where_it_was_planned(honest: tuple[Room, Found], case: Case) -> None:
    room, found = honest
    isolated, in_process = found[0][0][case.name], found[0][1][case.name]
    assert (isolated.points, in_process.points) == (4, 4), isolated.message
    assert isolated.mode == ("in process" if case.inside else "isolated"), str(room.notes)


@pytest.mark.parametrize(("case", "place"), ANSWERS, ids=lambda value: getattr(value, "name", str(value)))
def test_other_answers_earn_what_stock_nbgrader_gives(honest: tuple[Room, Found], case: Case, place: int) -> None:
    isolated, in_process = (run[case.name] for run in honest[1][place + 1])
    wanted = list(case.honest.values())[place]
    assert (isolated.points, in_process.points) == (wanted, wanted), (isolated.message, in_process.message)


def test_a_cell_that_cannot_leave_is_told_with_the_reason(honest: tuple[Room, Found]) -> None:
    room, _ = honest
    room.grade({})
    for case in CASES:
        note = next((note for note in room.notes if f"'test_{case.name}'" in note), "")
        assert bool(note) == bool(case.inside)
        assert case.inside in note


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    made = Room(
        template_of((TARGET, OTHER, CREDIT), HELPERS, SETUP), replace(LIMITS, cell_seconds=1.5, memory_bytes=2**28)
    )
    yield made
    made.slot.close()


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_earn_nothing_and_learn_nothing(room: Room, name: str) -> None:
    questions = room.grade({"total": CHEATS[name]})
    assert questions["total"].points == 0
    assert questions["total"].mode == "isolated"
    assert "got " not in questions["total"].message
    assert questions["total"].message
    if name not in ("blanked cells", "cells that always succeed"):  # these spoil the later answer cells themselves
        assert questions["other"].points == 4, questions["other"].message


@pytest.mark.parametrize("name", SCORES)
def test_nobody_writes_their_own_score(room: Room, name: str) -> None:
    question = room.grade({"credit": SCORES[name]})["credit"]
    assert (question.points, question.mode) == (0, "isolated"), question


def test_a_test_cells_variables_stay_its_own() -> None:
    """A name that the solution binds too, and the test cell for something else."""
    case = Case("mine", "expected = 0\ndef mine():\n    return 42", "expected = 42\nassert mine() == expected")
    made = Room(template_of((case, OTHER)))
    try:
        looks = "def mine():\n    return globals().get('expected', 0)"
        writes = "def mine():\n    global expected\n    expected = 1\n    return 1"
        for answer in (looks, writes, "expected = 7\n" + looks):
            assert made.grade({"mine": answer})["mine"].points == 0
        assert made.grade({})["mine"].points == 4
    finally:
        made.slot.close()


def test_cheats_pay_in_the_students_process(room: Room) -> None:
    """Otherwise the test above would show nothing."""
    names = ("always equal", "equal float", "equal int", "equal string", "equal list", "rewritten tests", "thread")
    assert {name: room.in_process({"total": CHEATS[name]})["total"].points for name in names} == dict.fromkeys(names, 4)


def test_what_stopped_a_call_is_named_and_costs_one_question(room: Room) -> None:
    ends = "import os\ndef total(x):\n    os._exit(3)"
    eats = "def total(x):\n    return [bytearray(2**26) for _ in range(8)]"
    stubborn = (
        "import signal\ndef total(x):\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True:\n        pass"
    )
    for answer, status, words in (
        (CHEATS["hangs"], "timeout", "longer than 1.5 s"),
        (stubborn, "timeout", "longer than 1.5 s"),
        (ends, "crashed", "exit code 3"),
        (eats, "out of memory", ""),
    ):
        questions = room.grade({"total": answer})
        assert (questions["total"].status, questions["total"].points) == (status, 0), questions["total"]
        assert words in questions["total"].message
        assert questions["other"].points == 4


def test_a_refusal_says_what_to_return(room: Room) -> None:
    message = room.grade({"total": CHEATS["always equal"]})["total"].message
    assert "a Liar cannot leave the submission; return numbers, strings, lists or arrays" in message


def test_the_students_own_names_change_nothing(room: Room) -> None:
    """Names that are not the answer's: another `np`, another helper, a global that the test binds too."""
    answer = "np = math = close = isinstance = None\n" + TARGET.solution
    assert room.grade({"total": answer})["total"].points == 4


def test_a_solution_that_fails_its_own_test_stays_where_nbgrader_ran_it() -> None:
    broken = Case("broken", "def broken():\n    return 1", "assert broken() == 2")
    made = Room(template_of((broken, OTHER)))
    try:
        questions = made.grade({"broken": "def broken():\n    return 2"})
        assert (questions["broken"].mode, questions["broken"].points) == ("in process", 4)
        assert (questions["other"].mode, questions["other"].points) == ("isolated", 4)
        assert any("own solution" in note for note in made.notes)
    finally:
        made.slot.close()


def test_later_tests_see_what_earlier_cells_did() -> None:
    """State of the student's and of the test cells lives on, and an in-process test keeps both consistent."""
    cases = (
        Case("box", "box = []\ndef put(x):\n    box.append(x)", "put(1)\nseen = len(box)\nassert seen == 1"),
        Case("more", "def take():\n    return box.pop()", "assert take() == 1 and seen == 1\nassert box == []"),
        Case("inside", "def inside():\n    return 1", "exec('y = inside()')\nmade = y", inside="exec"),
        Case("after", "def after():\n    return 2", "assert made == 1 and after() == 2", inside="made"),
    )
    made = Room(template_of(cases))
    try:
        questions = made.grade({})
        assert {name: q.points for name, q in questions.items()} == dict.fromkeys(("box", "more", "inside", "after"), 4)
        assert [q.mode for q in questions.values()] == ["isolated", "isolated", "in process", "in process"]
    finally:
        made.slot.close()


@pytest.mark.slow
def test_stock_nbgrader_gives_the_same_points(honest: tuple[Room, Found], tmp_path: Path) -> None:
    """The same notebooks through `nbgrader autograde`: the solution, and the other answers round by round."""
    room, found = honest
    source = tmp_path / "source" / "cases"
    source.mkdir(parents=True)
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()  # noqa: F821\n")
    (source / "text.txt").write_bytes(room.template.files["text.txt"])
    notebook = json.loads(notebook_of(room.template, {}))
    for cell, ours in zip(notebook["cells"], room.template.notebooks[0].cells, strict=True):
        cell["metadata"]["nbgrader"] |= {"points": ours.points} if ours.role == "test" else {}
        if ours.role == "answer":
            cell["source"] = f"### BEGIN SOLUTION\n{ours.solved}\n### END SOLUTION"
    (source / "cases.ipynb").write_text(json.dumps(notebook))
    for number, answers in enumerate(rounds_of_answers()):
        folder = tmp_path / "submitted" / f"s{number}" / "cases"
        folder.mkdir(parents=True)
        handed_in = json.loads(notebook_of(room.template, answers))
        for cell, theirs in zip(handed_in["cells"], notebook["cells"], strict=True):
            cell["metadata"] = theirs["metadata"]
        (folder / "cases.ipynb").write_text(json.dumps(handed_in))
    nbgrader(tmp_path, "generate_assignment", "cases")
    nbgrader(tmp_path, "autograde", "cases")
    theirs = read_standings(open_course(tmp_path), "cases")
    for number, (isolated, _) in enumerate(found):
        questions = theirs[f"s{number}"].questions
        stock = {name.removeprefix("test_"): standing.auto_score for (_, name), standing in questions.items()}
        assert {name: q.points for name, q in isolated.items()} == stock
