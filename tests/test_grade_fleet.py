"""The fleet loses nothing: workers die, executors break, and only the submission that really kills is given up."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import read_standings
from autograder.books.journal import journal_of
from autograder.grade import Progress, grade_assignment
from autograder.jail import Limits
from autograder.judging.scoring import probe, score_cell
from autograder.judging.worker import Bundle, Graded, Task, encode
from autograder.reading.untrusted import RawSubmission, read_folder
from autograder.results import SubmissionRecord
from autograder.workers.fleet import Finished, Fleet
from autograder.workers.forkserver import ForkServer
from autograder.workers.processes import ProcessSeat
from autograder.workers.slots import read_answer
from tests.plain_course import GOOD, make_course, released, submit

pytestmark = pytest.mark.linux


class Slots(Executor):
    """An executor in this process that breaks on some students, for the first time or always."""

    def __init__(self, once: set[str], always: set[str]) -> None:
        self.once, self.always = set(once), always
        self.asked: list[tuple[str, bool]] = []
        self.known = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        _, task, bundle = args
        self.asked.append((task.student, bundle is not None))
        future: Future[Any] = Future()
        self.known = self.known or bundle is not None
        if task.student in self.always or task.student in self.once:
            self.once.discard(task.student)
            future.set_exception(BrokenExecutor("died"))
        elif not self.known:
            future.set_result("")
        else:
            future.set_result(encode(Graded(SubmissionRecord("lab", task.student, "graded"), {}, ())))
        return future


def run(slots: Slots, students: str) -> list[Finished]:
    tasks: Iterator[Task] = (Task(name, name, RawSubmission({})) for name in students)
    return list(Fleet(Bundle("key", b""), jobs=2, executor=slots).run(tasks))


def test_every_task_is_answered_once_and_the_bundle_travels_when_asked_for() -> None:
    slots = Slots(set(), set())
    found = run(slots, "abcdef")
    assert sorted(f.task.student for f in found) == list("abcdef")
    assert all(f.graded and f.graded.record.student == f.task.student for f in found)
    assert 1 <= sum(with_bundle for _, with_bundle in slots.asked) <= 4


def test_a_worker_that_dies_once_costs_nothing() -> None:
    found = run(Slots({"b", "e"}, set()), "abcdef")
    assert sorted(f.task.student for f in found) == list("abcdef")
    assert all(f.graded for f in found)


def test_only_the_submission_that_kills_is_given_up() -> None:
    found = run(Slots({"c"}, {"b"}), "abcdef")
    assert sorted(f.task.student for f in found) == list("abcdef")
    assert [f.task.student for f in found if f.graded is None] == ["b"]
    assert "died 3 times" in next(f.reason for f in found if f.graded is None)


def test_real_workers_killed_in_the_middle_change_no_grade(tmp_path: Path) -> None:
    course, template = make_course(tmp_path / "plain")
    for number in range(5):
        submit(course, f"s{number}", released(template, GOOD if number % 2 else {}))
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed:
            alive = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
            served = [p for p in alive if "forkserver" in " ".join(p.cmdline())]
            workers = [p for p in served if p.ppid() != os.getpid()]
            killed.extend(p.pid for p in workers)
            for worker in workers:
                worker.kill()

    result = grade_assignment(course.root, "ps1", jobs=1, limits=Limits(memory_bytes=2**30), on_progress=kill)
    assert killed
    assert [r.points for r in result.records] == [0, 9, 0, 9, 0]
    assert [s.score for _, s in sorted(read_standings(course, "ps1").items())] == [0, 9, 0, 9, 0]
    assert len(journal_of(course.root, "ps1").finished()) == 5
    left = [
        p
        for p in psutil.Process().children(recursive=True)
        if p.pid != os.getpid() and "zygote" in " ".join(p.cmdline())
    ]
    assert not left


COORDINATOR = """
import sys
from autograder.grade import grade_assignment
if __name__ == "__main__":
    grade_assignment(sys.argv[1], "ps1", jobs=2, on_progress=lambda progress: print("settled", flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_coordinator_that_is_ended(tmp_path: Path, root: Path, number: signal.Signals) -> None:
    course, template = make_course(tmp_path / "plain")
    submit(course, "s0", released(template, GOOD))
    for name in ("s1", "s2"):
        submit(course, name, released(template, {"mean": "while True: pass"}))
    coordinator = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(course.root)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert coordinator.stdout is not None
    assert coordinator.stdout.readline() == b"settled\n"  # the other two loop now
    family = psutil.Process(coordinator.pid).children(recursive=True)
    assert len(family) > 4
    if number == signal.SIGINT:
        os.killpg(coordinator.pid, number)  # as a terminal does for Ctrl-C
    else:
        coordinator.send_signal(number)
    coordinator.wait()
    coordinator.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


@pytest.mark.parametrize("growth", [-1, 2**40])
def test_a_worker_that_has_grown_makes_room_for_a_fresh_one(tmp_path: Path, growth: int) -> None:
    course, template = make_course(tmp_path / "plain")
    raw = read_folder(submit(course, "s0", released(template, GOOD)))
    seat = ProcessSeat(Bundle("key", template.to_bytes(), limits=Limits(memory_bytes=2**30)), growth)
    try:
        workers = []
        for _ in range(2):
            graded = read_answer(seat.grade(Task("s0", "s0", raw), 600.0))
            assert graded is not None
            assert graded.record.points == 9
            workers.append([p.pid for p in psutil.Process().children(recursive=True) if is_worker(p)])
        assert [len(alive) for alive in workers] == ([0, 0] if growth < 0 else [1, 1])
        assert workers[0] == workers[1]
    finally:
        seat.close()


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.ppid() != os.getpid() and "forkserver" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_never_answers_is_given_up(tmp_path: Path) -> None:
    course, template = make_course(tmp_path / "plain")
    raw = read_folder(submit(course, "slow", released(template, {"mean": "while True: pass"})))
    fleet = Fleet(Bundle("key", template.to_bytes()), patience=1.0)
    (found,) = fleet.run([Task("slow", "slow", raw)])
    assert found.graded is None
    assert "gave no answer" in found.reason


def test_little_is_read_ahead_and_what_runs_is_known() -> None:
    read: list[str] = []

    def tasks() -> Iterator[Task]:
        for number in range(100):
            read.append(f"s{number}")
            yield Task(read[-1], read[-1], RawSubmission({}))

    fleet = Fleet(Bundle("key", b""), jobs=3, executor=Slots(set(), set()))
    assert fleet.running == ()
    for back, _ in enumerate(fleet.run(tasks())):
        assert len(read) - back <= 2 * 3
        assert len(fleet.running) <= 3
        assert set(fleet.running) <= set(read)
    assert len(read) == 100
    assert fleet.running == ()


def test_where_nothing_changed_no_worker_starts(tmp_path: Path) -> None:
    course, template = make_course(tmp_path / "plain")
    for number in range(3):
        submit(course, f"s{number}", released(template, GOOD))
    grade_assignment(course.root, "ps1", jobs=2)
    workers: list[psutil.Process] = []

    def look(progress: Progress) -> None:
        workers.extend(p for p in psutil.Process().children(recursive=True) if is_worker(p))

    assert len(grade_assignment(course.root, "ps1", jobs=2, on_progress=look).unchanged) == 3
    assert not workers


def test_a_killed_server_takes_its_workers_along_and_another_takes_its_place() -> None:
    before = set(psutil.Process().children())
    server = ForkServer("autograder.workers.processes:serve")
    try:
        first = server.fork()
        (process,) = set(psutil.Process().children()) - before
        process.kill()
        assert select.select([first.handle], [], [], 60)[0]  # it has ended
        first.close(0)
        second = server.fork()
        assert not select.select([second.handle], [], [], 0.5)[0]
        second.close(60)
    finally:
        server.close()
    assert set(psutil.Process().children()) <= before


def test_a_server_that_cannot_start_is_an_error() -> None:
    server = ForkServer("autograder.no_such_module:serve")
    with pytest.raises(OSError, match="gave no worker"):
        server.fork()
    server.close()


class Ended:
    """How a cell ended, for scoring."""

    def __init__(self, status: str = "ok", value: str | None = None, error: str = "", message: str = "") -> None:
        self.status, self.message, self.seconds, self.limit = status, message, 0.1, ""
        self.outputs: list[dict[str, Any]] = [{"output_type": "stream", "name": "stderr", "text": "a warning"}]
        if error:
            self.outputs.append({"output_type": "error", "ename": error, "evalue": "why"})
        if value is not None:
            self.outputs.append({"output_type": "execute_result", "data": {"text/plain": value}})


@pytest.mark.parametrize(
    ("ended", "points", "status"),
    [
        (Ended(), 4, "passed"),
        (Ended(value="2.5"), 2.5, "partly"),
        (Ended(value="4"), 4, "passed"),
        (Ended(value="0"), 0, "failed"),
        (Ended(value="True"), 4, "passed"),
        (Ended(value="'fine'"), 4, "passed"),
        (Ended(value="np.float64(1.0)"), 1, "partly"),
        (Ended(value="nan"), 0, "failed"),
        (Ended(value="inf"), 4, "passed"),
        (Ended(value="-inf"), 0, "failed"),
        (Ended(value="-1"), 0, "failed"),
        (Ended(value="1e9"), 4, "passed"),
        (Ended("error", error="AssertionError", message="AssertionError: why"), 0, "failed"),
        (Ended("error", error="NameError", message="NameError: x"), 0, "error"),
        (Ended("timeout", message="stopped"), 0, "timeout"),
        (Ended("crashed"), 0, "crashed"),
        (Ended("out of memory"), 0, "out of memory"),
        (Ended("output limit"), 0, "failed"),
        (Ended("output limit", value="3"), 3, "partly"),
    ],
)
def test_scores_of_plain_test_cells(ended: Ended, points: float, status: str) -> None:
    score = score_cell(ended, 4.0, ran=True)
    assert (score.points, score.status) == (points, status)


def test_a_cell_that_did_not_run_earns_nothing() -> None:
    assert score_cell(Ended(), 4.0, ran=False).status == "tampered"


@pytest.mark.parametrize(
    "source",
    [
        "assert f(1) == 1",
        "x = 1\nf(x)",
        "f(\n  1,\n)",
        "(f(1)\n + 1)",
        "a = 1; f(a)",
        "é = 1; f(é)",
        "f(1);",
        "if True:\n    f(1)",
    ],
)
def test_the_mark_changes_neither_the_lines_nor_the_value_of_a_test(source: str) -> None:
    import ast

    marked = probe(source)
    tree = ast.parse(marked.source)
    assert marked.name
    assert len(marked.source.split("\n")) <= len(source.split("\n")) + (not marked.has_value)
    scope: dict[str, Any] = {"f": lambda x: x}
    exec(compile(tree, "cell", "exec"), scope)
    assert scope[marked.name] is True
    if marked.has_value:
        assert ast.dump(tree.body[-1]) == ast.dump(ast.parse(source).body[-1])


@pytest.mark.parametrize("source", ["%timeit f(1)", "!ls", "", "# only a comment", "def ("])
def test_cells_that_cannot_be_marked_run_as_they_are(source: str) -> None:
    assert probe(source).source == source
    assert not probe(source).name
