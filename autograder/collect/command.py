"""What `fourbit collect` prints: what was taken for whom, what was left, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    """Return the table of what was taken for whom; what holds for all of it stands in the title."""
    verb = "would be taken" if found.dry_run else "taken"
    archive = _only_archive([taken.origin for taken in found.taken])
    title = f"{found.assignment}: {verb}" + (f" from {archive}" if archive else "")
    told = sorted({taken.how for taken in found.taken})
    title += f", told by {told[0]}" if len(told) == 1 else ""
    table = _table(title)
    table.add_column("Student", overflow="fold", max_width=20)
    table.add_column("From", overflow="fold", ratio=1)
    table.add_column("Handed in (UTC)", overflow="fold", max_width=19)
    table.add_column("Counts", overflow="fold", max_width=6)
    if len(told) > 1:
        table.add_column("Told by", overflow="fold", max_width=10)
    for taken in found.taken:
        origin = Text(shown_all(taken.origin.removeprefix(f"{archive}: ")))
        for note in _notes(taken):
            origin.append(f"\n{shown_all(note)}", style="yellow")
        cells = (_time(taken), _verdict(taken), *((taken.how,) if len(told) > 1 else ()))
        table.add_row(Text(shown_all(taken.student)), origin, *(Text(shown_all(cell)) for cell in cells))
    return table


def _table(title: str) -> Table:
    """Return a table without lines between columns, so that names of files have the room."""
    return Table(
        title=Text(shown_all(title)), title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0), header_style="bold", expand=True,
    )  # fmt: skip


def _only_archive(origins: Sequence[str]) -> str:
    """Return the archive that all files come from, or "" where they come from several or lie in folders."""
    archives = {origin.partition(": ")[0] if ": " in origin else "" for origin in origins}
    return archives.pop() if len(archives) == 1 else ""


def left_table(found: Collected) -> Table:
    """Return the table of what was not taken, and why."""
    table = _table(f"{found.assignment}: left")
    table.add_column("What", overflow="fold", ratio=2)
    table.add_column("Why, and what to do", overflow="fold", ratio=3)
    for left in found.left:
        table.add_row(Text(shown_all(left.origin)), Text(shown_all(left.reason)))
    return table


def shown_all(text: str) -> str:
    """Return text for one cell of a table."""
    return "\n".join(shown(line) if len(line) <= 120 else line for line in text.splitlines())


def _time(taken: Taken) -> str:
    when = taken.receipt.when
    if when is not None:
        return f"{when:%Y-%m-%d %H:%M:%S}"
    return {True: "late by its name", False: "on time by its name", None: "unknown"}[taken.receipt.late]


def _verdict(taken: Taken) -> str:
    late = "late" if taken.late else ""
    if taken.counts:
        return f"yes, {late}" if late else "yes"
    return f"kept, {late}" if late else "kept"


def _notes(taken: Taken) -> list[str]:
    notes = ([f"{taken.files} files"] if taken.files > 1 else []) + list(taken.notes)
    if not taken.new:
        notes.insert(0, f"the files of attempt {taken.receipt.attempt}, kept before")
    return notes


def _summary(found: Collected) -> list[str]:
    students = {taken.student for taken in found.taken}
    new = sum(taken.new for taken in found.taken)
    attempts = _counted(len(found.taken), "attempt")
    lines = [f"{_counted(len(students), 'student')}, {attempts} ({new} new), {len(found.left)} left."]
    unknown = sum(taken.counts and taken.receipt.when is None for taken in found.taken)
    if unknown:
        lines.append(
            f"Of {unknown} that count nobody says when they were handed in: --received TIME, or a --roster with times."
        )
    if found.missing:
        listed = ", ".join(found.missing[:10]) + (", ..." if len(found.missing) > 10 else "")
        lines.append(f"Nothing from {_counted(len(found.missing), 'listed student')}: {listed}")
    if found.dry_run:
        lines.append("Nothing was written. Without --dry-run it is.")
    elif students:
        lines.append(f"Next: fourbit grade {found.assignment} --course {found.course}")
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
