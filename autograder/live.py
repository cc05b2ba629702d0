"""Grading as it goes, on a terminal: a bar, the time left, and a line for each student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from autograder.grade import Listener
from autograder.grade import Progress as Settled
from autograder.results import SubmissionRecord

STYLES = {
    "passed": "green", "partly": "yellow", "manual": "cyan", "missing": "dim", "graded": "",
}  # fmt: skip


@contextmanager
def grading_progress(console: Console, title: str) -> Iterator[Listener]:
    """Show a bar while grading runs; yields the function that :func:`autograder.grade.grade_assignment` calls."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def settled(progress: Settled) -> None:
            bar.update(task, completed=progress.done, total=progress.total)
            bar.console.print(student_line(progress.record, progress.changed), soft_wrap=True)

        yield settled


def student_line(record: SubmissionRecord, changed: bool = True) -> Text:
    """One line for one student: points, and in a few words what kept them from more."""
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
    return line
