"""``grades.csv``: one row per student, one column per question, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from autograder.books.journal import write_atomically
from autograder.reports.rows import Row

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write `rows` to `path`; points are the gradebook's."""
    write_atomically(path, to_csv(rows).encode("utf-8"))


def to_csv(rows: Sequence[Row]) -> str:
    """Return the class as CSV text; an answer that waits for a person has no points yet."""
    questions = list(dict.fromkeys((q.notebook, q.name) for row in rows for q in row.record.questions))
    several = len({notebook for notebook, _ in questions}) > 1
    titles = [f"{notebook}/{name}" if several else name for notebook, name in questions]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["assignment", "student_id", "last_name", "first_name", "email", "outcome", "score", "max_score"]
    writer.writerow([*head, "late_penalty", "waiting_for_a_human", *map(as_text, titles), "message"])
    for row in rows:
        standing = row.standing
        names = (standing.last_name, standing.first_name, standing.email) if standing else ("", "", "")
        standings = {(q.notebook, q.name): row.of(q) for q in row.record.questions}
        found = {key: number(of.score) for key, of in standings.items() if not of.waits}
        penalty = standing.late_penalty if standing else 0.0
        writer.writerow([
            as_text(row.record.assignment), as_text(row.student), *map(as_text, names), row.record.outcome,
            number(row.score), number(row.max_score), number(penalty), row.waiting(),
            *(found.get(key, "") for key in questions), as_text(row.record.message),
        ])  # fmt: skip
    return stream.getvalue()


def as_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe before what could start one."""
    return "'" + text if text.lstrip(" \u00a0\ufeff").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def number(value: float) -> str:
    """Return points without a trailing ".0"."""
    return f"{round(value, 6):g}" if abs(value) < 1e6 else repr(value)
