"""Grading as it goes: a bar with what runs, what got no grade, the rate and the time left; in a log, a line at times.

A small class gets a line for each student. In a large one only what needs attention does, so that 3,000 submissions
stay readable.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import shorten

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from autograder.books.regrade import Change
from autograder.class_run import Listener
from autograder.class_run import Progress as Settled
from autograder.results import SubmissionRecord
from autograder.terminal.log import change_lines

STYLES = {
    "passed": "green", "partly": "yellow", "manual": "cyan", "missing": "dim", "graded": "",
}  # fmt: skip
# In a class of up to so many, every student has a line.
SMALL_CLASS = 60
_ATTENTION = ("timeout", "crashed", "out of memory", "tampered")
_SECONDS_BETWEEN_LINES = 10.0
_MOST_CHANGES = 20


@dataclass
class Pace:
    """How fast submissions are graded: those that ran, not those whose earlier result still held."""

    started: float | None = None
    graded: int = 0
    settled: int = 0

    def count(self, settled: Settled) -> None:
        self.settled += 1
        if settled.changed:
            self.graded += 1
            if self.started is None:  # the first includes the start of the workers
                self.started, self.graded = time.monotonic(), 0

    def per_minute(self) -> float:
        """Submissions graded in a minute; 0 = not known yet."""
        seconds = time.monotonic() - self.started if self.started is not None else 0.0
        return self.graded * 60 / seconds if seconds > 0.5 else 0.0

    def left(self, total: int) -> float | None:
        """Seconds until all are settled, if the rest has to be run as well; None = not known yet."""
        rate = self.per_minute()
        return (total - self.settled) * 60 / rate if rate else None


@dataclass
class Display:
    """What is told while a class is graded; call it with each submission that is settled.

    Attributes:
        console: where to; a terminal gets a bar, anything else plain lines.
        each: a line for every student, however large the class.
    """

    console: Console
    title: str
    each: bool = False
    pace: Pace = field(default_factory=Pace)
    bar: Progress | None = None
    _last_line: float = field(default_factory=time.monotonic)

    def __call__(self, settled: Settled) -> None:
        self.pace.count(settled)
        if self.each or settled.total <= SMALL_CLASS or needs_attention(settled.record):
            line = student_line(settled.record, settled.changed, settled.reason)
            self.console.print(line, soft_wrap=True)
        if self.bar is not None:
            state = state_line(settled, self.pace)
            self.bar.update(self.bar.task_ids[0], completed=settled.done, total=settled.total, state=state)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES and settled.done < settled.total:
            self._last_line = time.monotonic()
            where = f"{self.title}: {settled.done} / {settled.total} done, {state_line(settled, self.pace)}"
            self.console.print(where, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def grading_progress(console: Console, title: str, *, each: bool = False) -> Iterator[Listener]:
    """Show how grading goes; yields the function that :func:`autograder.grade.grade_assignment` calls."""
    display = Display(console, title, each)
    if not console.is_terminal:
        yield display
        return
    # In a narrow terminal the state gives way, from its end; ids in it are text and no markup.
    state = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=16),
        MofNCompleteColumn(), TextColumn("{task.fields[state]}", markup=False, table_column=state),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, refresh_per_second=4, expand=True) as bar:
        bar.add_task(title, total=None, state="starting workers")
        display.bar = bar
        yield display


def state_line(settled: Settled, pace: Pace) -> str:
    """In a few words, what matters most first: the time left, how many got no grade, the rate, what runs."""
    parts = []
    rate, left = pace.per_minute(), pace.left(settled.total)
    if left is not None:
        parts.append(f"{duration(left)} left")
    if settled.failed:
        parts.append(f"{settled.failed} without a grade")
    if rate:
        parts.append(f"{rate:.0f} a minute" if rate >= 10 else f"{rate:.1f} a minute")
    names = ", ".join(settled.flying[:2]) + (", ..." if len(settled.flying) > 2 else "")
    running = " " + shorten(f"({names})", 44, placeholder=" ...)") if names else ""
    parts.append(f"{settled.running} running{running}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Minutes and seconds, hours and minutes above an hour."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60}:{whole % 60:02}"


def needs_attention(record: SubmissionRecord) -> bool:
    """Whether a person should look: nothing could be graded, or something stopped or was tampered with."""
    return record.outcome != "graded" or any(question.status in _ATTENTION for question in record.questions)


def student_line(record: SubmissionRecord, changed: bool = True, reason: str = "") -> Text:
    """One line for one student: points, in a few words what kept them from more, and why it was graded again."""
    line = Text(f"  {record.student:<12} ")
    if record.outcome != "graded":
        return line.append(shorten(f"{record.outcome}: {record.message}", 110, placeholder=" ..."), style="red")
    line.append(f"{record.points:6.1f} / {record.max_points:g}", style="bold")
    troubles: dict[str, int] = {}
    for question in record.questions:
        if question.status not in ("passed", "manual"):
            troubles[question.status] = troubles.get(question.status, 0) + 1
    for status, count in troubles.items():
        line.append(f"  {count} {status}", style=STYLES.get(status, "red"))
    if not changed:
        line.append("  as before", style="dim")
    elif reason:
        line.append(f"  again: {reason}", style="dim")
    return line


def changes_table(changes: Sequence[Change]) -> Table | None:
    """Old and new points of those whose points changed, the largest differences first; None = nobody's did."""
    if not changes:
        return None
    table = Table(title="Graded again with other points", title_justify="left", title_style="bold")
    for title, justify in (("Student", "left"), ("Why", "left"), ("Before", "right"), ("Now", "right")):
        table.add_column(title, justify=justify, no_wrap=title != "Why")  # type: ignore[arg-type]
    table.add_column("Questions")
    ordered = sorted(changes, key=lambda change: (-abs(change.new - change.old), change.student))
    for change in ordered[:_MOST_CHANGES]:
        questions = Text("; ".join(change_lines(change)))
        table.add_row(Text(change.student), change.reason, f"{change.old:g}", f"{change.new:g}", questions)
    if len(ordered) > _MOST_CHANGES:
        table.caption = f"and {len(ordered) - _MOST_CHANGES} more: see history.jsonl beside the logs"
    return table
