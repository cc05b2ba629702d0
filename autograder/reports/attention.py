"""Which submissions a person should look at, and why: what no statistic settles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autograder.reports.rows import Row
from autograder.reports.statistics import Item
from autograder.results import QuestionRecord

_ALARMS = {
    "tampered": "did not run as it should",
    "crashed": "ended its process",
    "out of memory": "ran out of memory",
    "timeout": "ran out of time",
}
_WORDS = {
    "cell_seconds": "the time for a cell",
    "notebook_seconds": "the time for the notebook",
    "cpu_seconds": "processor time",
    "memory_bytes": "memory",
    "processes": "processes",
    "open_files": "open files",
    "disk_bytes": "disk",
    "output_bytes": "output",
    "exam_seconds": "the time that an exam gives an answer",
}


@dataclass(frozen=True)
class Look:
    """One submission that needs a look; the gravest reasons come first."""

    row: Row
    reasons: tuple[str, ...]


def limit_name(limit: str) -> str:
    """Return a limit in words."""
    return _WORDS.get(limit, limit.replace("_", " "))


def used_up(question: QuestionRecord) -> str:
    """Return which limit an answer hit, or ""; an exam has a time of its own, shorter than the sandbox's."""
    return question.limit or ("exam_seconds" if question.status == "timeout" else "")


def needs_a_look(rows: Sequence[Row], items: Sequence[Item]) -> list[Look]:
    """Return the submissions with at least one reason, those with an outcome other than "graded" first.

    Answers that wait for points by hand are no reason: formgrader lists them, and in many courses everybody has some.
    """
    usual = {(item.notebook, item.name): item.modes[0][0] for item in items if item.modes}
    found = [Look(row, tuple(_reasons(row, usual))) for row in rows]
    return sorted((look for look in found if look.reasons), key=_gravity)


def _gravity(look: Look) -> tuple[bool, str]:
    return look.row.record.outcome == "graded", look.row.student


def _reasons(row: Row, usual: Mapping[tuple[str, str], str]) -> list[str]:
    record = row.record
    if record.outcome != "graded":
        return [f"{record.outcome}: {record.message}"]
    reasons = []
    for status, words in _ALARMS.items():
        names = [q.label for q in record.questions if q.status == status and not q.limit]
        if names:
            reasons.append(f"{words}: {_listed(names)}")
    limits = dict.fromkeys(q.limit for q in record.questions if q.limit)
    for limit in limits:
        names = [q.label for q in record.questions if q.limit == limit]
        reasons.append(f"used up {limit_name(limit)}: {_listed(names)}")
    inside = [q.label for q in record.questions if _is_odd(q, usual)]
    if inside:
        reasons.append(f"judged inside its own process, unlike the class: {_listed(inside)}")
    if record.late is not None and record.late.note and not record.late.at:
        reasons.append(f"time of submission unknown: {record.late.note}")
    return reasons


def _is_odd(question: QuestionRecord, usual: Mapping[tuple[str, str], str]) -> bool:
    return question.mode == "in process" and usual.get((question.notebook, question.name)) not in ("in process", None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} questions"
