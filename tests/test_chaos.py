"""Killed at random moments, again and again: the class ends up as if nothing had happened, to the byte.

SIGKILL goes to the coordinator, its workers, their zygotes and the database server, in an order and at moments that a
seed decides. Whoever killed the coordinator starts the same command again, as an instructor would.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import open_gradebook
from autograder.books.journal import journal_of
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from tests.plain_course import GOOD, make_course, released, submit
from tests.postgres import Server
from tests.test_store import set_config

pytestmark = [pytest.mark.linux, pytest.mark.slow]

CLASS = 200
LOOP = "def mean(numbers):\n    while True:\n        pass"
KINDS: tuple[dict[str, str], ...] = (
    GOOD,
    {**GOOD, "primes": "def primes(n):\n    return [2, 3, 5, 7] if n == 10 else []"},
    {**GOOD, "mean": "def mean(numbers):\n    return sum(numbers) / len(numbers)"},
    {**GOOD, "population": "def population(path):\n    raise KeyError(path)"},
    {},
)
# By number of the student: work that costs a process, or the time limit.
CRASHES, LOOPS = range(7, CLASS, 40), range(11, CLASS, 90)
CONFIG = """
c.FourbitGrade.cell_seconds = 4
c.FourbitGrade.database_patience = 60
c.AssignLatePenalties.plugin_class = "autograder.late.LateDays"
c.LateDays.percent_per_day = 7.3
"""
COMMAND = "from fourbit.cli import main; main()"


def answers(number: int) -> dict[str, str]:
    if number in CRASHES:
        return {**GOOD, "mean": "import os\nos.kill(os.getpid(), 9)"}
    if number in LOOPS:
        return {**GOOD, "mean": LOOP}
    return KINDS[number % len(KINDS)]


def make_class(folder: Path, size: int, url: str = "") -> tuple[NbgraderCourse, Template]:
    """A course with a due date, a class of which every third is late, and one that a human has begun to grade."""
    course, template = make_course(folder)
    course = set_config(course.root, CONFIG + (f'c.CourseDirectory.db_url = "{url}"' if url else ""))
    for number in range(size):
        path = submit(course, student(number), released(template, answers(number)))
        day = 4 if number % 3 == 0 else 1
        (path / "timestamp.txt").write_text(f"2026-03-0{day} 08:00:00.0 UTC\n")
    gradebook = open_gradebook(course)
    gradebook.update_or_create_assignment("ps1", duedate="2026-03-01 12:00 UTC")
    gradebook.close()
    return course, template


def by_hand(course: NbgraderCourse) -> None:
    """Scores, comments and extra credit of a human's for some students, before everything is graded again."""
    gradebook = open_gradebook(course)
    for number in (0, 1, 2, 4):
        grade = gradebook.find_grade("why", "ps1", "ps1", student(number))
        grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 1.1 + number / 7, 0.1, False
        gradebook.find_comment("why", "ps1", "ps1", student(number)).manual_comment = f"Because of {number}."
    gradebook.db.commit()
    gradebook.close()


def student(number: int) -> str:
    return f"s{number:03d}"


@dataclass
class Coordinator:
    """`fourbit grade` in a process of its own."""

    course: NbgraderCourse
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self, *options: str) -> None:
        command = [sys.executable, "-c", COMMAND, "grade", "ps1", "--course", str(self.course.root), "--jobs", "2"]
        with open(self.course.root / "said", "ab") as said:
            self._process = subprocess.Popen([*command, *options], stdout=said, stderr=said, stdin=subprocess.DEVNULL)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def code(self) -> int:
        assert self._process is not None
        return self._process.wait(300)

    def said(self) -> str:
        return (self.course.root / "said").read_text(errors="replace")[-3000:]

    def find(self, kind: str) -> list[psutil.Process]:
        """Its processes of a kind: itself, its workers, or the zygotes that submissions are forked from."""
        assert self._process is not None
        try:
            whole = psutil.Process(self._process.pid)
            if kind == "coordinator":
                return [whole]
            below = whole.children(recursive=True)
            servers = {p.pid for p in below if p.ppid() == whole.pid and "forkserver" in " ".join(p.cmdline())}
            workers = [p for p in below if p.ppid() in servers]
            if kind == "worker":
                return workers
            return [p for p in below if p.ppid() in {worker.pid for worker in workers}]
        except psutil.Error:
            return []


def havoc(coordinator: Coordinator, kills: Sequence[str], seed: int, server: Server | None = None) -> dict[str, int]:
    """Grade while things are killed; returns how many of each were."""
    chance = random.Random(seed)
    order, done = list(kills), dict.fromkeys(kills, 0)
    chance.shuffle(order)
    coordinator.start()
    while order:
        time.sleep(chance.uniform(0.1, 0.9))
        kind = order[0]
        if kind == "server":
            assert server is not None
            server.kill()
            time.sleep(chance.uniform(0.0, 0.5))
            server.start()
        elif not strike(coordinator, kind, chance):
            if not coordinator.running:
                # Done before its time, or ended by a server that was away as it started: everything once more.
                coordinator.start(*(["--force"] if coordinator.code() == 0 else []))
            continue
        order.pop(0)
        done[kind] += 1
        if kind == "coordinator":
            coordinator.start()
    for _ in range(5):
        if coordinator.code() == 0:
            break
        coordinator.start()
    coordinator.start()  # what a killer gave up on is tried again; the rest stays as it is
    assert coordinator.code() == 0, coordinator.said()
    return done


def strike(coordinator: Coordinator, kind: str, chance: random.Random) -> bool:
    found = coordinator.find(kind)
    if not found or (kind == "coordinator" and not coordinator.running):
        return False
    try:
        chance.choice(found).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    if kind == "coordinator":
        coordinator.code()
    return True


def dump(course: NbgraderCourse, size: int) -> dict[str, object]:
    """Everything that the gradebook and the graded notebooks say, in one order and to the last digit."""
    gradebook = open_gradebook(course)
    try:
        found: dict[str, object] = {}
        for submission in gradebook.assignment_submissions("ps1"):
            if int(submission.student_id[1:]) >= size:
                continue
            for notebook in submission.notebooks:
                found[submission.student_id] = [
                    str(submission.timestamp), repr(notebook.late_submission_penalty), repr(float(notebook.score)),
                    sorted((g.name, *map(repr, (g.auto_score, g.manual_score, g.extra_credit)), g.needs_manual_grade)
                           for g in notebook.grades),
                    sorted((c.name, c.auto_comment, c.manual_comment) for c in notebook.comments),
                    graded_cells(course, submission.student_id),
                ]  # fmt: skip
        return dict(sorted(found.items()))
    finally:
        gradebook.close()


def graded_cells(course: NbgraderCourse, who: str) -> str:
    folder = course.path("autograded", who, "ps1")
    assert sorted(path.name for path in folder.iterdir()) == ["ps1.ipynb", "timestamp.txt"]
    return (folder / "ps1.ipynb").read_text()


def records(course: NbgraderCourse, size: int) -> dict[str, object]:
    """What was found out about every question, but for the time that it took."""
    journal = journal_of(course.root, "ps1")
    found: dict[str, object] = {}
    for number in range(size):
        record = journal.record(student(number))
        assert record is not None
        questions = [(q.name, q.status, q.points, q.mode, q.mistake) for q in record.questions]
        found[record.student] = [
            record.outcome,
            questions,
            record.late,
            journal.finished()[record.student] == record.key,
        ]
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process of ours and no temporary file outlives a run, a killed one included."""
    place = Path(tempfile.mkdtemp(prefix="chaos-"))  # not under pytest's folder: names of sockets are short
    monkeypatch.setenv("TMPDIR", str(place))
    started = time.time()
    yield
    deadline = time.monotonic() + 15
    while (left := ours(started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == [], left
    place.rmdir()  # an error when there is something in it


def ours(since: float) -> list[str]:
    """Command lines of processes that grading started and that have lost their parent, or are the test's."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time", "ppid"]):
        line = " ".join(process.info["cmdline"] or [])
        grader = any(word in line for word in ("autograder", COMMAND))
        if grader and process.info["create_time"] > since and process.info["ppid"] in (1, os.getpid()):
            found.append(f"{process.pid} {line[:200]}")
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> NbgraderCourse:
    course, _ = make_class(tmp_path_factory.mktemp("calm") / "plain", CLASS)
    coordinator = Coordinator(course)
    coordinator.start()
    assert coordinator.code() == 0, coordinator.said()
    return course


def assert_same(ours: dict[str, object], theirs: dict[str, object]) -> None:
    assert list(ours) == list(theirs)
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert not different, json.dumps(dict(list(different.items())[:3]), indent=1, default=str)[:6000]


def test_a_class_of_200_on_a_server_that_dies_too(
    undisturbed: NbgraderCourse, postgres: Server, tmp_path: Path
) -> None:
    url = postgres.url(postgres.new_database())
    course, _ = make_class(tmp_path / "plain", CLASS, url)
    kills = {"coordinator": 3, "worker": 5, "zygote": 5, "server": 4}
    coordinator = Coordinator(course)
    done = havoc(coordinator, [kind for kind, times in kills.items() for _ in range(times)], 2026, postgres)
    assert done == kills
    assert_same(dump(course, CLASS), dump(undisturbed, CLASS))
    assert_same(records(course, CLASS), records(undisturbed, CLASS))
    assert "hunter2" not in coordinator.said()


def test_a_class_on_sqlite_with_a_humans_work_in_it(tmp_path: Path) -> None:
    """Half-way through, a human grades; then everything is run again while things are killed."""
    size = 25
    course, _ = make_class(tmp_path / "plain", size)
    coordinator = Coordinator(course)
    coordinator.start()
    assert coordinator.code() == 0, coordinator.said()
    by_hand(course)
    coordinator.start()  # nothing is run again, but late penalties follow the scores
    assert coordinator.code() == 0, coordinator.said()
    wanted, found = dump(course, size), records(course, size)
    kills = {"coordinator": 2, "worker": 2, "zygote": 2}
    assert havoc(coordinator, [kind for kind, times in kills.items() for _ in range(times)], 7) == kills
    assert_same(dump(course, size), wanted)
    assert_same(records(course, size), found)
