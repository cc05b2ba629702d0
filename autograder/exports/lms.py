"""Canvas and Moodle: their own files come in, and go out again with the grades filled in.

Tested against sample files in the forms that both describe in their manuals, not against a running Canvas or Moodle.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.exports.people import Matched, match
from autograder.exports.sheet import Sheet
from autograder.reports.rows import Row
from autograder.reports.wide import number
from autograder.results import GradingError, QuestionRecord

_CANVAS_IDS = ("ID", "SIS User ID", "SIS Login ID", "Integration ID")
_MOODLE_IDS = ("ID number", "Email address", "Username", "Identifier")


@dataclass(frozen=True)
class Filled:
    """A file with grades filled in.

    Attributes:
        filled: how many rows got a grade.
        notes: everybody who did not, and what else a person should know, in words.
    """

    data: bytes
    filled: int
    notes: tuple[str, ...]


def ready(row: Row) -> bool:
    """Whether a row has a grade to give out: its work was graded, or a person has set points."""
    by_hand = row.standing is not None and any(q.manual_score is not None for q in row.standing.questions.values())
    return row.record.outcome == "graded" or by_hand


def canvas(sheet: Sheet, rows: Sequence[Row], assignment: str, column: str = "") -> Filled:
    """Fill the assignment's column of a gradebook that was exported from Canvas; nothing else changes.

    Args:
        column: title of the column, with or without Canvas's number; "" = the assignment's name.

    Raises:
        GradingError: when the file has no such column, or no column of ids.
    """
    target = _canvas_column(sheet, column or assignment)
    ids = _columns(sheet, _CANVAS_IDS)
    body = [i for i in range(1, len(sheet.rows)) if any(sheet.value(i, place).strip() for place in ids)]
    found = match(rows, {i: (sheet.value(i, 0).strip(), [sheet.value(i, place) for place in ids]) for i in body})
    notes = _canvas_points(sheet, target, rows)
    filled = 0
    for line, row in found.rows.items():
        if ready(row):
            sheet.put(line, target, number(row.score))
            filled += 1
    return Filled(sheet.to_bytes(), filled, (*notes, *_told(found)))


def moodle_worksheet(sheet: Sheet, rows: Sequence[Row]) -> Filled:
    """Fill grades and feedback into the offline grading worksheet that was downloaded from a Moodle assignment.

    A comment that is there already stays, unless it is ours from a time when more answers waited for a person. A grade
    stays that Moodle says cannot be changed.

    Raises:
        GradingError: when the file is no such worksheet.
    """
    grade, comment = sheet.column("Grade"), sheet.column("Feedback comments")
    if grade is None or sheet.column("Identifier") is None:
        raise GradingError(
            "this is no grading worksheet: it needs the columns Identifier and Grade. In Moodle's assignment, switch "
            "on the feedback type 'Offline grading worksheet', then take 'Download grading worksheet'"
        )
    ids, name, locked = _columns(sheet, _MOODLE_IDS), sheet.column("Full name"), sheet.column("Grade can be changed")
    lines = {}
    for i in range(1, len(sheet.rows)):
        names = [sheet.value(i, place) for place in ids]
        names += [named[1] for text in names if (named := re.fullmatch(r"\D+ (\d+)", text))]
        if any(names):
            lines[i] = (sheet.value(i, name) or names[0], names)
    found = match(rows, lines)
    notes, filled = [], 0
    for line, row in found.rows.items():
        if not ready(row):
            continue
        if sheet.value(line, locked).casefold() == "no":
            notes.append(f"{row.student}: Moodle says that this grade cannot be changed; it stays")
            continue
        sheet.put(line, grade, _local(sheet, line, number(row.score)))
        filled += 1
        if comment is not None and _is_ours(sheet.value(line, comment), row):
            sheet.put(line, comment, _feedback(row))
        elif comment is not None and sheet.value(line, comment) != _feedback(row):
            notes.append(f"{row.student}: has a feedback comment already; it stays")
    return Filled(sheet.to_bytes(), filled, (*notes, *_told(found)))


def _canvas_column(sheet: Sheet, name: str) -> int:
    bare = [re.sub(r"\s*\(\d+\)$", "", title).casefold().strip() for title in sheet.titles]
    full = [title.casefold().strip() for title in sheet.titles]
    wanted = name.casefold().strip()
    places = [i for i, titles in enumerate(zip(bare, full, strict=True)) if wanted in titles]
    if len(places) == 1:
        return places[0]
    numbered = [title for title in sheet.titles if re.search(r"\(\d+\)$", title)]
    listed = ", ".join(repr(title) for title in numbered) or "none"
    what = "several columns are" if places else "no column is"
    raise GradingError(f"{what} called {name!r}. Name one with --column. The assignments of this file: {listed}")


def _canvas_points(sheet: Sheet, target: int, rows: Sequence[Row]) -> list[str]:
    """Return a note when Canvas counts in other points than the gradebook."""
    most = max((row.max_score for row in rows), default=0.0)
    for line in range(1, min(4, len(sheet.rows))):
        if sheet.value(line, 0).strip().casefold() == "points possible":
            text = sheet.value(line, target).strip()
            if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) != most:
                return [
                    f"Canvas has {text} points possible, the gradebook {number(most)}; points are written as they are"
                ]
    return []


def _columns(sheet: Sheet, names: Sequence[str]) -> list[int]:
    places = [place for name in names if (place := sheet.column(name)) is not None]
    if not places:
        titles = ", ".join(repr(title) for title in sheet.titles[:12])
        raise GradingError(f"no column to know students by; one of {', '.join(names)} is needed. The file has {titles}")
    return places


def _told(found: Matched) -> list[str]:
    waiting = [row.student for row in found.rows.values() if ready(row) and row.waiting()]
    ungraded = [f"{row.student} ({row.record.outcome})" for row in found.rows.values() if not ready(row)]
    groups = (
        ("in the file, but nobody here; left as they were", found.strangers),
        ("graded here, but not in the file", found.missing),
        ("not graded; left as they were", ungraded),
        ("written, but with answers that still wait for a person", waiting),
    )
    return [f"{len(names)} {words}: {', '.join(sorted(names))}" for words, names in groups if names]


def _local(sheet: Sheet, line: int, points: str) -> str:
    """Return points with the decimal mark of the worksheet."""
    most = sheet.value(line, sheet.column("Maximum Grade"))
    return points.replace(".", ",") if re.fullmatch(r"\d+,\d+", most) else points


def _feedback(row: Row) -> str:
    """Return points and named mistakes of each question; Moodle reads it as HTML."""
    parts = [_waiting(row, q) if row.of(q).waits else _points(row, q) for q in row.record.questions]
    return "; ".join((*parts, *_late(row)))


def _is_ours(comment: str, row: Row) -> bool:
    """Whether a comment is empty, or says what `_feedback` does except that some answers wait for a person."""
    parts = [f"(?:{re.escape(_points(row, q))}|{re.escape(_waiting(row, q))})" for q in row.record.questions]
    return not comment.strip() or bool(re.fullmatch("; ".join((*parts, *map(re.escape, _late(row)))), comment.strip()))


def _points(row: Row, question: QuestionRecord) -> str:
    standing = row.of(question)
    named = f" ({question.mistake.name})" if question.mistake else ""
    text = f"{question.label}: {number(standing.score)} / {number(standing.max_score)}{named}"
    return html.escape(text, quote=False)


def _waiting(row: Row, question: QuestionRecord) -> str:
    text = f"{question.label}: ? / {number(row.of(question).max_score)}, waits for grading"
    return html.escape(text, quote=False)


def _late(row: Row) -> list[str]:
    penalty = row.standing.late_penalty if row.standing else 0.0
    return [f"late: -{number(penalty)}"] if penalty else []
