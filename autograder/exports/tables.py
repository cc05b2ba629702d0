"""Grades as plain tables: one row per student, one row per question, or what Moodle's grade import maps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from autograder.exports.lms import ready
from autograder.reports.rows import Row
from autograder.reports.wide import as_text, number


def long(rows: Sequence[Row]) -> str:
    """Return a row for each question of each student, as CSV; an answer that waits for a person has no points yet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([
        "assignment", "student_id", "notebook", "question", "title", "status", "points", "max_points", "automatic",
        "by_hand", "extra_credit", "waits_for_a_human", "mistake", "limit", "judged", "seconds", "message",
    ])  # fmt: skip
    for row in rows:
        for question in row.record.questions:
            standing = row.of(question)
            mistake = question.mistake.name if question.mistake else ""
            parts = (standing.auto_score, standing.manual_score, standing.extra_credit)
            writer.writerow([
                *map(as_text, (row.record.assignment, row.student, question.notebook, question.name, question.title)),
                question.status, "" if standing.waits else number(standing.score), number(standing.max_score),
                *("" if value is None else number(value) for value in parts), int(standing.needs_manual_grade),
                as_text(mistake), question.limit, question.mode, f"{question.seconds:.3f}", as_text(question.message),
            ])  # fmt: skip
    return stream.getvalue()


def moodle(rows: Sequence[Row]) -> tuple[str, tuple[str, ...]]:
    """Return a CSV for Moodle's grade import, mapped by ID number or address, and who is not in it and why."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    assignment = rows[0].record.assignment if rows else "assignment"
    writer.writerow(["ID number", "Email address", "First name", "Last name", as_text(assignment)])
    left_out = []
    for row in rows:
        if not ready(row):
            left_out.append(f"{row.student} ({row.record.outcome})")
            continue
        standing = row.standing
        known = (standing.lms_id or row.student, standing.email) if standing else (row.student, "")
        names = (standing.first_name, standing.last_name) if standing else ("", "")
        writer.writerow([*map(as_text, (*known, *names)), number(row.score)])
    waiting = [row.student for row in rows if ready(row) and row.waiting()]
    notes = [f"{len(left_out)} not graded and left out: {', '.join(left_out)}"] if left_out else []
    if waiting:
        notes.append(f"{len(waiting)} written, but with answers that still wait for a person: {', '.join(waiting)}")
    return stream.getvalue(), tuple(notes)
