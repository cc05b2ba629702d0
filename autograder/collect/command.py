"""What `fourbit collect` prints: what was taken for whom, what was left, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autograder.collect.collector import collect
from autograder.collect.options import Options
from autograder.collect.paths import shown
from autograder.collect.records import Collected, Taken


def run(course: Path, assignment: str, places: Sequence[Path], options: Options, console: Console) -> None:
    """Collect, and say what was done.

    Raises:
        GradingError: when nothing can be collected as asked.
    """
    with console.status(f"Collecting {assignment}"):
        found = collect(course, assignment, places, options)
    if found.taken:
        console.print(taken_table(found))
    if found.left:
        console.print(left_table(found))
    for note in found.notes:
        console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
    for line in _summary(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def taken_table(found: Collected) -> Table:
    """Return the table of what was taken for whom."""
    verb = "would be taken" if found.dry_run else "taken"
    table = Table(title=f"{found.assignment}: {verb}", title_justify="left", show_lines=False)
    for head in ("Student", "From", "Told by", "Handed in (UTC)", "Counts", "Files", "Notes"):
        table.add_column(head, justify="right" if head == "Files" else "left", overflow="fold")
    for taken in found.taken:
        cells = (taken.student, taken.origin, taken.how, _time(taken), _verdict(taken), str(taken.files), _notes(taken))
        table.add_row(*(escape(shown_all(cell)) for cell in cells))
    return table


def left_table(found: Collected) -> Table:
    """Return the table of what was not taken, and why."""
    table = Table(title=f"{found.assignment}: left", title_justify="left")
    for head in ("What", "Why, and what to do"):
        table.add_column(head, overflow="fold")
    for left in found.left:
        table.add_row(escape(shown_all(left.origin)), escape(shown_all(left.reason)))
    return table


def shown_all(text: str) -> str:
    """Return text for one cell of a table."""
    return "\n".join(shown(line) if len(line) <= 120 else line for line in text.splitlines())


def _time(taken: Taken) -> str:
    when = taken.receipt.when
    if when is not None:
        return f"{when:%Y-%m-%d %H:%M:%S}"
    said = {True: ", late by its name", False: ", on time by its name", None: ""}[taken.receipt.late]
    return f"unknown{said}"


def _verdict(taken: Taken) -> str:
    late = "late" if taken.late else ""
    if taken.counts:
        return f"yes, {late}" if late else "yes"
    return f"kept, {late}" if late else "kept"


def _notes(taken: Taken) -> str:
    notes = list(taken.notes)
    if not taken.new:
        notes.insert(0, f"the files of attempt {taken.receipt.attempt}, kept before")
    return "\n".join(notes)


def _summary(found: Collected) -> list[str]:
    students = {taken.student for taken in found.taken}
    new = sum(taken.new for taken in found.taken)
    lines = [f"{len(students)} students, {len(found.taken)} attempts ({new} new), {len(found.left)} left."]
    unknown = sum(taken.counts and taken.receipt.when is None for taken in found.taken)
    if unknown:
        lines.append(
            f"Of {unknown} that count nobody says when they were handed in: --received TIME, or a --roster with times."
        )
    if found.missing:
        listed = ", ".join(found.missing[:10]) + (", ..." if len(found.missing) > 10 else "")
        lines.append(f"Nothing from {len(found.missing)} students who are listed: {listed}")
    if found.dry_run:
        lines.append("Nothing was written. Without --dry-run it is.")
    elif students:
        lines.append(f"Next: fourbit grade {found.assignment} --course {found.course}")
    return lines
