"""Rows of made-up students, as the gradebook and the journal would give them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from autograder.books.standings import Standing, StudentStanding
from autograder.reports.rows import Row
from autograder.results import MistakeRecord, QuestionRecord, SubmissionRecord


def made_row(
    student: str,
    points: dict[str, float | None],
    *,
    most: float = 4.0,
    outcome: Any = "graded",
    email: str = "",
    lms_id: str = "",
    name: tuple[str, str] = ("", ""),
    penalty: float = 0.0,
    by_hand: float | None = None,
    mistakes: dict[str, str] | None = None,
    **question: Any,
) -> Row:
    """A student's row: points by question, None = waits for a person.

    Args:
        by_hand: points that a person gave for every waiting question.
        mistakes: names of mistakes by question.
    """
    questions, standings = [], {}
    for label, earned in points.items():
        status = "manual" if earned is None else "passed" if earned == most else "failed"
        named = (mistakes or {}).get(label)
        record: dict[str, Any] = {"status": status, "mode": "by hand" if earned is None else "exam", "seconds": 0.2}
        mistake = MistakeRecord(named, named, f"why {named}") if named else None
        fields = record | ({} if earned is None else question)
        questions.append(QuestionRecord("lab", label, points=earned, max_points=most, mistake=mistake, **fields))
        waits = earned is None and by_hand is None
        score = by_hand if earned is None and by_hand is not None else earned or 0.0
        manual = by_hand if earned is None else None
        standings["lab", label] = Standing(score, most, earned, manual, None, waits)
    record_ = SubmissionRecord("lab", student, outcome, tuple(questions), seconds=1.5, jail="namespaces")
    when = datetime(2026, 3, 1, 12)
    return Row(record_, StudentStanding(student, *name, email, penalty, standings, lms_id, when))
