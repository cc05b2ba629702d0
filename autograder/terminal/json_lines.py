"""What `fourbit grade --json` writes to stdout: one JSON object a line, for programs.

Names and meanings stay as they are; new names may be added. Points are numbers, or null where a person still has to
grade. Every text is plain: control characters of a submission are gone.

``{"type": "submission", ...}`` for each submission when it is settled, in that order:
    assignment, student, outcome ("graded", "unreadable", "no submission", "refused", "crashed"), message, points,
    max_points, waiting (questions that wait for a person), changed (false: an earlier result still held), reason (why
    it was graded again, "" for the first time), seconds, jail, notes (texts), done and total (of the class so far), and
    questions: objects with notebook, name, title, status, points, max_points, mode, limit, mistake (the id of a named
    mistake, or null), message, seconds, cell.

``{"type": "summary", ...}`` last, also after Ctrl-C:
    schema (1), assignment, course, complete (false: stopped before the end), total, graded (run now), unchanged, failed
    (without a grade: unreadable, refused, crashed, not handed in), added (students new in the gradebook), jail, jobs,
    seconds, logs (folder), and changes: objects with student, reason, old, new, questions (notebook, name, old, new).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from autograder.books.regrade import Change
from autograder.class_run import Progress
from autograder.grade import ClassResult
from autograder.results import GradingError, QuestionRecord

SCHEMA = 1


@dataclass
class JsonLines:
    """Writes the lines; call it with each submission that is settled, then :meth:`summary` once."""

    stream: TextIO
    last: Progress | None = None
    graded: int = 0
    unchanged: int = 0

    def __call__(self, settled: Progress) -> None:
        self.last = settled
        self.unchanged += not settled.changed
        self.graded += settled.changed and settled.record.outcome not in ("refused", "no submission")
        self._write(submission_object(settled))

    def summary(self, assignment: str, course: Path, logs: Path, result: ClassResult | None) -> None:
        """Write the last line; without a `result`, grading was stopped before its end."""
        last = self.last
        found: dict[str, Any] = {
            "type": "summary",
            "schema": SCHEMA,
            "assignment": assignment,
            "course": str(course),
            "complete": result is not None,
            "total": last.total if last else 0,
            "graded": self.graded,
            "unchanged": self.unchanged,
            "failed": last.failed if last else 0,
            "added": list(result.added) if result else [],
            "jail": result.jail if result else "",
            "jobs": result.jobs if result else 0,
            "seconds": round(result.seconds if result else last.seconds if last else 0.0, 3),
            "logs": str(logs),
            "changes": [change_object(change) for change in result.changes] if result else [],
        }
        self._write(found)

    def _write(self, item: dict[str, Any]) -> None:
        try:
            self.stream.write(json.dumps(item, allow_nan=False) + "\n")
            self.stream.flush()
        except BrokenPipeError:
            raise GradingError(
                "whoever read the JSON lines went away, so grading stopped; what is graded is kept, and the same "
                "command goes on"
            ) from None


def submission_object(settled: Progress) -> dict[str, Any]:
    """The object of one settled submission."""
    record = settled.record
    return {
        "type": "submission",
        "assignment": record.assignment,
        "student": record.student,
        "outcome": record.outcome,
        "message": record.message,
        "points": record.points,
        "max_points": record.max_points,
        "waiting": len(record.waiting),
        "changed": settled.changed,
        "reason": settled.reason,
        "seconds": round(record.seconds, 3),
        "jail": record.jail,
        "notes": list(record.notes),
        "questions": [_question(question) for question in record.questions],
        "done": settled.done,
        "total": settled.total,
    }


def change_object(change: Change) -> dict[str, Any]:
    """The object of a submission whose points changed."""
    questions = [{"notebook": q.notebook, "name": q.name, "old": q.old, "new": q.new} for q in change.questions]
    return {
        "student": change.student, "reason": change.reason, "old": change.old, "new": change.new,
        "questions": questions,
    }  # fmt: skip


def _question(question: QuestionRecord) -> dict[str, Any]:
    plain = ("notebook", "name", "title", "status", "points", "max_points", "mode", "limit", "message", "cell")
    return {
        **{name: getattr(question, name) for name in plain},
        "mistake": question.mistake.id if question.mistake else None,
        "seconds": round(question.seconds, 3),
    }
