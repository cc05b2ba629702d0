"""A log for each submission, ``.autograder/ASSIGNMENT/logs/STUDENT.log``: what an instructor reads to find out why.

Plain text, written anew each time the submission is graded. It names hidden cases' verdicts and is not for students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autograder.books.journal import Journal
from autograder.books.regrade import Change
from autograder.engine import CellOutcome
from autograder.results import QuestionRecord, SubmissionRecord, plain

_MOST_LINES = 2_000


def logs_folder(journal: Journal) -> Path:
    """The folder that holds the logs of an assignment."""
    return journal.folder / "logs"


def log_path(journal: Journal, student: str) -> Path:
    """The log of one student's submission."""
    return logs_folder(journal) / f"{journal.file_name(student)}.log"


def write_log(
    journal: Journal,
    record: SubmissionRecord,
    cells: Sequence[str] = (),
    reason: str = "",
    change: Change | None = None,
) -> None:
    """Write the log of one submission.

    Args:
        cells: how each cell ran, as :func:`cell_lines` tells it.
        reason: why it was graded again; "" = for the first time.
        change: what grading it again has changed.
    """
    lines = [
        f"{record.assignment}, {record.student}: {record.outcome}, {record.points:g} of {record.max_points:g} points",
        f"graded in {record.seconds:.2f} s; isolation: {record.jail or 'none, nothing was run'}",
        f"why: {reason} (graded before)" if reason else "why: for the first time",
    ]
    lines += [f"reason: {record.message}"] if record.message else []
    lines += _section("noticed", record.notes)
    lines += _section("cells", cells)
    lines += _section("questions", [line for question in record.questions for line in _question(question)])
    if change is not None:
        lines += _section(f"points were {change.old:g}, are {change.new:g}", change_lines(change))
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], "(cut)"]
    path = log_path(journal, record.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{plain(line)}\n" for line in lines), encoding="utf-8")


def cell_lines(notebook: str, outcomes: Mapping[int, CellOutcome]) -> tuple[str, ...]:
    """One line for each cell that ran: its number from 1, how it ended, seconds, and why it did not end well."""
    lines = []
    for position, outcome in sorted(outcomes.items()):
        message = f"  {_one_line(outcome.message)}" if outcome.message else ""
        limit = f"  [{outcome.limit}]" if outcome.limit else ""
        lines.append(f"{notebook} cell {position + 1}: {outcome.status}, {outcome.seconds:.3f} s{limit}{message}")
    return tuple(lines)


def change_lines(change: Change) -> list[str]:
    """One line for each question whose points differ: old and new points."""
    return [f"{q.label}: {_points(q.old)} -> {_points(q.new)}" for q in change.questions]


def _question(question: QuestionRecord) -> list[str]:
    where = f", cell {question.cell}" if question.cell else ""
    limit = f", limit {question.limit}" if question.limit else ""
    lines = [
        f"{question.label}: {question.status}, {_points(question.points)} of {question.max_points:g} "
        f"({question.mode}{where}{limit}, {question.seconds:.3f} s)"
    ]
    lines += [f"    {_one_line(question.message)}"] if question.message else []
    lines += [f"    looks like: {question.mistake.name}"] if question.mistake else []
    lines += [
        f"    failed: {found.name}: {_one_line(found.message)}" for found in question.properties if not found.passed
    ]
    return lines


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _points(points: float | None) -> str:
    return "waits for a person" if points is None else f"{points:g}"


def _one_line(text: str) -> str:
    return plain(" ".join(text.split()), 400)
