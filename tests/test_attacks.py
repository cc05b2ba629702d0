"""A class of hostile and broken submissions, graded in one run among honest ones: what each gets, and what none gets.

The same tests run as an ordinary user and in Landlock mode: see test_attacks_user.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import open_gradebook, read_standings
from autograder.grade import ClassResult, grade_assignment
from autograder.jail import JailMode, Limits, describe, detect
from autograder.nbgrader_course import NbgraderCourse, load_template, open_course
from autograder.results import SubmissionRecord
from tests.attacks import cheats, folders, limits, notebooks, walls
from tests.attacks.canaries import CANARIES, Planted, add_hidden_tests, leaks, planted
from tests.attacks.model import FULL, QUESTIONS, Attack
from tests.plain_course import GOOD, make_course, released, submit

if sys.platform != "linux":
    pytest.skip("grading needs the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

MODE = JailMode(os.environ.get("FOURBIT_TEST_JAIL") or detect())
if MODE is JailMode.PLAIN:
    pytest.skip("no jail works here: " + " ".join(describe().details), allow_module_level=True)

LIMITS = Limits(
    cell_seconds=4, notebook_seconds=120, memory_bytes=512 * 2**20, processes=32, open_files=128,
    disk_bytes=32 * 2**20, output_bytes=2**18,
)  # fmt: skip
# What depends on the jail; the rest is the same in every mode.
JAILED = (limits, walls)
FAMILIES = (*JAILED, cheats, notebooks, folders) if MODE is JailMode.NAMESPACES else JAILED
ATTACKS = [attack for family in FAMILIES for attack in family.ATTACKS]
HONEST = [f"{letter}-honest" for letter in "abcdefghijklmnopqrstuvwxyz"]
NEIGHBOR = "neighbor"


@dataclass(frozen=True)
class Class:
    """The class after grading."""

    course: NbgraderCourse
    result: ClassResult
    planted: Planted
    before: dict[str, bytes]  # what no submission may change, as it was

    def record(self, student: str) -> SubmissionRecord:
        return next(record for record in self.result.records if record.student == student)

    def outputs(self, student: str) -> str:
        """Everything that a student's code displays in the graded notebook (it is the instructor's, and holds the
        hidden tests)."""
        place = self.course.path("autograded", student, "ps1") / "ps1.ipynb"
        cells = json.loads(place.read_text())["cells"]
        own = [cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id") not in QUESTIONS]
        return json.dumps([cell.get("outputs", []) for cell in own], ensure_ascii=False)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    folder = tmp_path_factory.mktemp("attacks") / "plain"
    course, _ = make_course(folder)
    add_hidden_tests(folder / "source" / "ps1" / "ps1.ipynb")
    course = open_course(folder)
    template = load_template(course, "ps1")
    _add_neighbor(course)
    with planted(folder) as found:
        for student in (*HONEST, NEIGHBOR):
            submit(course, student, released(template, GOOD))
        for attack in ATTACKS:
            attack.hand_in(course, template, found.fill)
        before = _untouchable(folder)
        result = grade_assignment(folder, "ps1", jobs=2, limits=LIMITS, jail=MODE)
        yield Class(course, result, found, before)
    for shut in folder.glob("submitted/a-shut-folder/ps1/shut"):
        shut.chmod(0o700)


def _add_neighbor(course: NbgraderCourse) -> None:
    gradebook = open_gradebook(course)
    gradebook.update_or_create_student(NEIGHBOR, first_name=CANARIES["gradebook"])
    gradebook.close()


def _untouchable(folder: Path) -> dict[str, bytes]:
    """Every file of the source, the exams and the submissions."""
    found = {}
    for name in ("source", "exams", "submitted"):
        for place in (folder / name).rglob("*"):
            if place.is_file() and not place.is_symlink() and place.stat().st_size < 2**26:
                found[str(place.relative_to(folder))] = place.read_bytes()
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_gets_what_its_honest_parts_earn(graded: Class, attack: Attack) -> None:
    record = graded.record(attack.name)
    by_name = {question.name: question for question in record.questions}
    if attack.points is None:
        assert record.outcome == "unreadable"
        assert re.search(attack.says, record.message), record.message
        assert record.points == 0
        return
    assert record.outcome == "graded", record.message
    first = by_name[QUESTIONS[0]]
    said = [(q.name, q.status, q.points, q.message, q.limit) for q in record.questions]
    assert tuple(by_name[name].points for name in QUESTIONS) == attack.points, said
    assert not attack.status or first.status in attack.status.split("|"), said
    assert not attack.limit or first.limit == attack.limit, said
    assert re.search(attack.says, first.message), said
    assert attack.shows in graded.outputs(attack.name)
    assert any(re.search(attack.notes, note) for note in record.notes) or not attack.notes, record.notes
    assert "ESCAPED" not in graded.outputs(attack.name)
    assert "WROTE" not in graded.outputs(attack.name)


@pytest.mark.parametrize("student", [*HONEST, NEIGHBOR])
def test_everybody_else_keeps_their_points(graded: Class, student: str) -> None:
    by_name = {question.name: question.points for question in graded.record(student).questions}
    assert tuple(by_name[name] for name in QUESTIONS) == FULL


def test_no_test_ran_beside_a_students_code(graded: Class) -> None:
    modes = {q.mode for r in graded.result.records if r.outcome == "graded" for q in r.questions if q.name in QUESTIONS}
    assert modes == {"isolated"}


def test_no_secret_comes_out(graded: Class) -> None:
    from autograder.reports import class_rows, write_feedback

    write_feedback(graded.course, class_rows(graded.course, "ps1", graded.result.records))
    found = []
    for attack in ATTACKS:
        told = graded.record(attack.name).to_json() + graded.outputs(attack.name)
        pages = (graded.course.root / "feedback" / attack.name).rglob("*.html")
        told += "".join(page.read_text(encoding="utf-8") for page in pages)
        logs = (graded.course.root / ".autograder").rglob(f"{attack.name}.*")
        told += "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs if log.is_file())
        found += [(attack.name, leak) for leak in leaks(told)]
        found += [(attack.name, word) for word in ("root:$", "root:*:") if word in told]
    assert found == []
    assert "canary-note" not in graded.outputs("reads-the-note")


def test_nothing_is_written_outside_the_jail(graded: Class) -> None:
    assert _untouchable(graded.course.root) == graded.before
    assert sorted(os.listdir(graded.planted.outside)) == ["engine.sock", "note.txt"]
    known = {"source", "exams", "submitted", "autograded", "feedback", "gradebook.db", "nbgrader_config.py"}
    assert {name for name in os.listdir(graded.course.root) if not name.startswith(".")} <= known
    for name in ("shared-note", "canary-pickle", "written"):
        assert not any(Path(place, name).exists() for place in ("/tmp", "/dev/shm", "/var/tmp", "/usr", "/etc", "/"))


def test_nobody_called_the_listening_sockets(graded: Class) -> None:
    assert graded.planted.calls == 0


def test_the_gradebook_holds_what_the_records_say(graded: Class) -> None:
    standings = read_standings(graded.course, "ps1")
    wanted = {attack.name: list(attack.points or (0, 0, 0)) for attack in ATTACKS} | {name: [*FULL] for name in HONEST}
    held = {
        student: [standings[student].questions["ps1", name].score for name in QUESTIONS]
        for student in wanted
        if student in standings
    }
    assert held == wanted


def test_no_process_and_no_folder_is_left(graded: Class) -> None:
    left = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                environment = Path(entry.path, "environ").read_bytes()
                command = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if b"USER=student" in environment and f"attacks{os.getpid()}".encode() in environment:
                left.append((entry.name, command))
    assert left == []
