"""The fleet loses nothing: workers die, executors break, and only the submission that really kills is given up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("nbgrader")

from autograder.fleet import Finished, Fleet
from autograder.grade import Progress, grade_assignment
from autograder.gradebook import read_standings
from autograder.jail import Limits
from autograder.journal import journal_of
from autograder.results import SubmissionRecord
from autograder.scoring import probe, score_cell
from autograder.untrusted import RawSubmission
from autograder.worker import Bundle, Graded, Task, encode
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
