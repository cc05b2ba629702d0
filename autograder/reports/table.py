"""The class on a terminal: one line per student in words, and the mistakes that were made most often."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from autograder.reports.attention import needs_a_look
from autograder.reports.rows import Row, common_mistakes
from autograder.reports.statistics import items
from autograder.reports.wide import number
from autograder.results import plain

_MOST = 200
_MOST_MISTAKES = 4
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_ORDER = ("tampered", "crashed", "out of memory", "timeout", "error", "failed", "partly", "missing")
_STYLES = {"passed": "green", "partly": "yellow", "manual": "blue", "missing": "dim"}


def class_table(rows: Sequence[Row], title: str = "") -> Table:
    """Return the class as a rich table; everything that a submission can influence is shown as plain text.

    Of a large class it shows those who need a look, and counts the others.
    """
    shown, rest = _worth_showing(rows)
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold", pad_edge=False)
    table.add_column("Student", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("What happened", overflow="fold", ratio=3)
    table.add_column("Named mistakes", overflow="fold", ratio=2)
    for row in shown:
        points = Text(f"{number(row.score)} / {number(row.max_score)}" if row.record.questions else "-")
        mistakes = list(dict.fromkeys(q.mistake.name for q in row.record.questions if q.mistake))
        table.add_row(Text(plain(row.student, 60)), points, _happened(row), Text(_few(mistakes)))
    if rest:
        table.add_row(
            Text("..."), Text(""), Text(f"{rest} more, in grades.csv and in the report", style="dim"), Text("")
        )
    return table


def _worth_showing(rows: Sequence[Row]) -> tuple[Sequence[Row], int]:
    """Return the rows to show, at most `_MOST`, and how many are left out."""
    if len(rows) <= _MOST:
        return rows, 0
    shown = [look.row for look in needs_a_look(rows, items(rows))][:_MOST]
    return shown, len(rows) - len(shown)


def mistakes_table(rows: Sequence[Row], most: int = 10) -> Table | None:
    """Return the named mistakes made most often, each with the first sentence of why it is one; None for none."""
    found = common_mistakes(row.record for row in rows)[:most]
    if not found:
        return None
    table = Table(title=Text("Most common mistakes"), title_justify="left", header_style="bold", pad_edge=False)
    table.add_column("Students", justify="right")
    table.add_column("Question", no_wrap=True)
    table.add_column("Mistake, and why it is one", overflow="fold", ratio=1)
    for question, name, why, count in found:
        first = _BETWEEN_SENTENCES.split(why, maxsplit=1)[0]
        table.add_row(Text(str(count)), Text(question), Text.assemble(name, "\n", (first, "dim")))
    return table


def _few(names: Sequence[str]) -> str:
    """Return names in words, of many the first and how many more there are."""
    if len(names) <= _MOST_MISTAKES:
        return ", ".join(names)
    return ", ".join(names[: _MOST_MISTAKES - 1]) + f" and {len(names) - _MOST_MISTAKES + 1} more"


def _happened(row: Row) -> Text:
    """Say in words what became of a submission: the outcome, else the questions by status."""
    if row.record.outcome != "graded":
        return Text(f"{row.record.outcome}: {row.record.message}", style="red")
    text = Text()
    if row.record.questions and all(q.status in ("passed", "manual") for q in row.record.questions):
        text.append("all passed", style="green")
    for status in _ORDER:
        names = [q.label for q in row.record.questions if q.status == status]
        if names:
            listed = ", ".join(names) if len(names) <= 4 else f"{len(names)} questions"
            text.append("; " if text else "").append(f"{status}: ", style=_STYLES.get(status, "red")).append(listed)
    waiting = row.waiting()
    if waiting:
        text.append("; " if text else "").append(f"{waiting} to grade by hand", style="blue")
    if row.record.notes:
        text.append("; " if text else "").append(_notes(len(row.record.notes)), style="dim")
    return text


def _notes(count: int) -> str:
    return "1 note" if count == 1 else f"{count} notes"
