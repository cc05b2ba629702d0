"""What made a submission be graded again, and which points that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autograder.results import SubmissionRecord

# What a result depends on, in the order in which a reason names it.
PARTS = ("submission", "source", "exam", "limits", "engine")


@dataclass(frozen=True)
class QuestionChange:
    """Points of one question before and after; None = it waits for a human, or was not there."""

    notebook: str
    name: str
    label: str
    old: float | None
    new: float | None


@dataclass(frozen=True)
class Change:
    """A submission that was graded again with another outcome.

    Attributes:
        reason: what had changed, of `PARTS`, separated by commas; or "forced", "lost" (the earlier result was no
            longer there), "crashed" (the earlier grading had failed).
        old, new: points of the whole submission, late penalty not taken off.
        questions: those whose points differ.
    """

    student: str
    reason: str
    old: float
    new: float
    questions: tuple[QuestionChange, ...]


def reason_for(before: Mapping[str, str] | None, key: str, now: Mapping[str, str], force: bool) -> str:
    """Return why a submission is graded again; "" when it has not been graded before.

    Args:
        before: parts of the key of the last grading; None = there was none.
        key: its key; "" = it failed.
        now: parts of the key of this grading.
    """
    if before is None:
        return ""
    changed = [part for part in PARTS if part in before and before[part] != now.get(part)]
    if not before or (not changed and set(before) != set(now)):
        changed = ["engine"]  # an earlier version of the grader did not say
    if not key:
        return "crashed"
    return ", ".join(changed) or ("forced" if force else "lost")


def compare(before: SubmissionRecord | None, after: SubmissionRecord, reason: str) -> Change | None:
    """Return what grading again has changed; None when it is the first time."""
    if before is None or not reason:
        return None
    old = {(q.notebook, q.name): q for q in before.questions}
    new = {(q.notebook, q.name): q for q in after.questions}
    questions = []
    for key in [*new, *(key for key in old if key not in new)]:
        was, now = old.get(key), new.get(key)
        points = (was.points if was else None, now.points if now else None)
        shown = now or was
        if shown is not None and points[0] != points[1]:
            questions.append(QuestionChange(*key, shown.label, *points))
    return Change(after.student, reason, before.points, after.points, tuple(questions))
