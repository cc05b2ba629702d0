"""A late policy for nbgrader: a grace time, a budget of free days over the course, and a percentage for each day more.

    c.AssignLatePenalties.plugin_class = "autograder.late.LateDays"
    c.LateDays.grace_minutes = 15
    c.LateDays.free_days = 5
    c.LateDays.percent_per_day = 10
    c.LateDays.max_days = 7

Works in ``nbgrader autograde`` and in ``fourbit grade``. Due dates and extensions are the gradebook's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from nbgrader.plugins import LateSubmissionPlugin
from traitlets import Float, Int

_DAY = 86_400.0


def days_late(seconds: float, grace_minutes: float = 0.0) -> int:
    """Return how many days, each begun one counted, work is late; within the grace time it is not late at all."""
    return 0 if seconds <= grace_minutes * 60 else math.ceil(seconds / _DAY)


def free_days_left(budget: int, earlier: Iterable[int], max_days: int = 0) -> int:
    """Return what the days late of `earlier` assignments leave of a budget.

    Work that is later than `max_days` earns nothing anyway, so it uses up no free day.
    """
    used = sum(days for days in earlier if not max_days or days <= max_days)
    return max(0, budget - used)


def penalty(score: float, days: int, free: int, percent_per_day: float, max_days: int = 0) -> float:
    """Return the points that work `days` late loses, `free` days being forgiven; never more than its score."""
    if score <= 0 or days <= 0:
        return 0.0
    if max_days and days > max_days:
        return score
    return score * (min(100.0, max(0, days - free) * percent_per_day) / 100.0)


class LateDays(LateSubmissionPlugin):
    """Takes a percentage of the score off for each day late that neither grace nor the free days forgive.

    The free days are one budget for the whole course, spent in the order of the due dates, whatever the order in
    which assignments are graded. After a change of an earlier assignment's times, grade the later ones again.
    """

    grace_minutes = Float(0.0, min=0.0, help="Work that is late by no more than this counts as in time.").tag(
        config=True
    )
    free_days = Int(0, min=0, help="Days late that each student may use over the whole course.").tag(config=True)
    percent_per_day = Float(10.0, min=0.0, max=100.0, help="Percent of the score taken off for each day late.").tag(
        config=True
    )
    max_days = Int(0, min=0, help="Work that is later than this earns nothing; 0 = no such end.").tag(config=True)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float | None:
        """Return the points to take off one notebook, or None; nbgrader calls this."""
        days = days_late(total_seconds_late, self.grace_minutes)
        if days == 0:
            return None
        free = self._free(student_id) if self.free_days else 0
        return penalty(float(score), days, free, self.percent_per_day, self.max_days)

    def _free(self, student: str) -> int:
        """Return how many free days the assignments due before this one have left the student."""
        gradebook, assignment = getattr(self.parent, "gradebook", None), getattr(self.parent, "assignment_id", None)
        if gradebook is None or assignment is None:
            return self.free_days
        rows = _submission_times(gradebook.db, student)
        order = [(due, name) for name, due, _, _ in rows]
        this = next((key for key in order if key[1] == assignment), None)
        earlier = [
            days_late((at - due - (extension or timedelta())).total_seconds(), self.grace_minutes)
            for (name, due, extension, at), key in zip(rows, order, strict=True)
            if at is not None and this is not None and key < this
        ]
        return free_days_left(self.free_days, earlier, self.max_days)


def _submission_times(db: Any, student: str) -> list[tuple[str, datetime, timedelta | None, datetime | None]]:
    """Return (assignment, due date, extension, time handed in) of all that a student handed in and that was due."""
    from nbgrader.api import Assignment, SubmittedAssignment
    from sqlalchemy import select

    whole, work = Assignment.__table__, SubmittedAssignment.__table__
    query = (
        select(whole.c.name, whole.c.duedate, work.c.extension, work.c.timestamp)
        .select_from(work.join(whole, whole.c.id == work.c.assignment_id))
        .where(work.c.student_id == student, whole.c.duedate.is_not(None))
    )
    return [tuple(row) for row in db.execute(query)]
