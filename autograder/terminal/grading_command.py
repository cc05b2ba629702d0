"""`fourbit grade`: what it prints, how it is stopped, and what it says to whoever called it.

Exit status: 0 = everybody has a grade; 1 = grading could not begin or go on (no such course, no isolation, a gradebook
that cannot be used); 2 = a flag that does not exist; 3 = done, but some submissions could not be graded; 130 = stopped
by Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from autograder.books.journal import journal_of
from autograder.class_run import Listener, Progress
from autograder.grade import ClassResult, grade_assignment
from autograder.jail import JailMode, Limits
from autograder.nbgrader_course import open_course
from autograder.reports.publish import show_class
from autograder.terminal.json_lines import JsonLines
from autograder.terminal.live import changes_table, grading_progress
from autograder.terminal.log import logs_folder

ALL_GRADED, SOME_FAILED, INTERRUPTED = 0, 3, 130


@dataclass(frozen=True)
class Asked:
    """What the command line asked for; fields as in :func:`autograder.grade.grade_assignment`.

    Attributes:
        each: a line for every student, however large the class.
        as_json: JSON lines on stdout, everything for people on stderr.
    """

    jobs: int | None = None
    students: Sequence[str] | None = None
    force: bool = False
    limits: Limits | None = None
    jail: JailMode | None = None
    cluster: str | None = None
    each: bool = False
    as_json: bool = False


def run(folder: Path, assignment: str, asked: Asked) -> int:
    """Grade, show and write what an instructor gets; return the exit status."""
    console = Console(stderr=asked.as_json)
    lines = JsonLines(sys.stdout) if asked.as_json else None
    course = open_course(folder)
    logs = logs_folder(journal_of(course.root, assignment))
    seen: list[Progress] = []
    result: ClassResult | None = None
    try:
        with polite_stop(console), grading_progress(console, f"Grading {assignment}", each=asked.each) as shown:
            result = _grade(folder, assignment, asked, _all_of(shown, lines, seen), console)
    except KeyboardInterrupt:
        _stopped(console, assignment, seen)
    if lines is not None and (result is not None or seen):
        lines.summary(assignment, course.root, logs, result)
    if result is None:
        return INTERRUPTED
    _tell(result, logs, console)
    show_class(folder, assignment, result.records, console)
    return SOME_FAILED if any(record.outcome != "graded" for record in result.records) else ALL_GRADED


def _grade(folder: Path, assignment: str, asked: Asked, listener: Listener, console: Console) -> ClassResult:
    def notice(text: str) -> None:
        console.print(text, style="yellow", markup=False, highlight=False)

    return grade_assignment(
        folder, assignment, jobs=asked.jobs, students=asked.students, force=asked.force, limits=asked.limits,
        jail=asked.jail, cluster=asked.cluster, on_progress=listener, on_notice=notice,
    )  # fmt: skip


def _all_of(shown: Listener, lines: JsonLines | None, seen: list[Progress]) -> Listener:
    def settled(progress: Progress) -> None:
        seen[:] = [progress]
        if lines is not None:
            lines(progress)
        shown(progress)

    return settled


def summary(result: ClassResult) -> str:
    """A line about a run: counts that add up to the class, and where something was run, how and how fast."""
    with_grade = {record.student for record in result.records if record.outcome == "graded"}
    now, before = with_grade.intersection(result.graded), with_grade.intersection(result.unchanged)
    retimed = len(before.intersection(result.retimed))
    other = f" ({retimed} with another time or late penalty)" if retimed else ""
    counts = (
        (len(now), "graded"),
        (len(before), f"as before{other}"),
        (len(result.records) - len(with_grade), "without a grade"),
    )
    said = [", ".join(f"{count} {what}" for count, what in counts if count)]
    if result.graded:
        said.append(f"{result.jobs} at a time, isolation: {result.jail}")
    rate = f", {len(result.graded) * 60 / result.seconds:.0f} a minute" if result.graded and result.seconds else ""
    return "; ".join((*said, f"{result.seconds:.1f} s{rate}"))


def _tell(result: ClassResult, logs: Path, console: Console) -> None:
    """Say what was run, what changed by it, and where the logs are."""
    table = changes_table(result.changes)
    if table is not None:
        console.print(table)
    console.print(summary(result), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{'Logs':<10} {logs}{os.sep}STUDENT.log", soft_wrap=True, highlight=False, markup=False)


def _stopped(console: Console, assignment: str, seen: Sequence[Progress]) -> None:
    done = f"{seen[-1].done} of {seen[-1].total} submissions are settled and kept" if seen else "nothing was graded yet"
    text = f"Stopped: {done}. The same command goes on where this one ended: fourbit grade {assignment}"
    console.print(text, style="yellow", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def polite_stop(console: Console) -> Iterator[None]:
    """The first Ctrl-C ends workers in order and keeps what is graded; a second one ends at once."""

    after: Any = signal.getsignal(signal.SIGINT)

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal after
        after = signal.SIG_IGN  # what is left to do then takes milliseconds, and says how to go on
        signal.signal(signal.SIGINT, second)
        console.print(
            "\nStopping: workers are ended, what is graded is kept. Ctrl-C again ends at once.", style="yellow"
        )
        raise KeyboardInterrupt

    def second(number: int, frame: FrameType | None) -> None:
        os._exit(INTERRUPTED)  # workers and zygotes notice that nobody is there, and end themselves

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, after)
