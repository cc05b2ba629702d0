"""When a submission came in, and who says so: a receipt of this course's own, or the student's side.

nbgrader reads ``timestamp.txt``, which lies among the files that the student hands in. A receipt, written when the
submission was collected, is trusted before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from autograder.nbgrader_course import NbgraderCourse
from autograder.results import files_hash

if TYPE_CHECKING:
    from autograder.collect.receipts import Receipt

TIMESTAMP = "timestamp.txt"
_LATE = "the learning management system calls this late, but not by how much: no penalty was decided"
_OTHER_FILES = "the receipt is of other files than those in submitted/; collect the submission again"
_UNTRUSTED = f"the time of submission is from {TIMESTAMP}, which the student's side wrote"
_UNKNOWN = "the time of submission is unknown: there is no receipt of it, and no late penalty was decided"


@dataclass(frozen=True)
class Arrival:
    """When work came in.

    Attributes:
        at: in UTC without a zone, as nbgrader stores it; None = unknown.
        text: the time as nbgrader writes it into ``timestamp.txt``; "" = unknown.
        note: what a person should know about it.
        strict: a time that only the gradebook knows does not count.
    """

    at: datetime | None = None
    source: Literal["receipt", "timestamp.txt", "gradebook", ""] = ""
    text: str = ""
    note: str = ""
    strict: bool = False

    def known(self, stored: datetime | None) -> Arrival:
        """Return this, or where it tells no time what the gradebook holds already: nbgrader leaves that as well."""
        if self.at is not None or self.strict or stored is None:
            return self
        return replace(self, at=stored, source="gradebook")


@dataclass(frozen=True)
class Receipts:
    """What the course knows about when work came in; `strict`: only receipts count."""

    by_student: Mapping[str, Receipt]
    strict: bool = False

    def arrival(self, student: str, files: Mapping[str, bytes]) -> Arrival:
        """Return when `files`, a submission as it was read, came in."""
        receipt = self.by_student.get(student)
        note = ""
        if receipt is not None and receipt.sha256 != files_hash(files):
            note = _OTHER_FILES
        elif receipt is not None and (at := parse_time(receipt.at)) is not None:
            ignored = f"{TIMESTAMP} was ignored: the receipt tells the time" if _differs(files, at) else ""
            return Arrival(at, "receipt", f"{at.isoformat(sep=' ')} UTC", ignored)
        elif receipt is not None and receipt.late:
            note = _LATE
        if self.strict:
            return Arrival(note=note or _UNKNOWN, strict=True)
        text = files.get(TIMESTAMP, b"")[:100].decode("utf-8", "replace").strip()
        at = parse_time(text)
        if at is None:
            return Arrival(note=note)
        return Arrival(at, "timestamp.txt", text, f"{_UNTRUSTED}; {note}" if note else _UNTRUSTED)


def receipts_of(course: NbgraderCourse, assignment: str, strict: bool = False) -> Receipts:
    """Return the receipts of an assignment that was collected; none for one that was put there by other means."""
    from autograder.collect.receipts import received

    return Receipts(received(course, assignment), strict)


def parse_time(text: str) -> datetime | None:
    """Return a time in UTC without its zone, as nbgrader stores it; None when it is none, or has not come yet."""
    from nbgrader.utils import parse_utc

    if not text.strip():
        return None
    try:
        moment: datetime = parse_utc(text.strip())
    except (ValueError, OverflowError, TypeError):
        return None
    return moment if moment.year > 1970 and moment <= datetime.now(UTC).replace(tzinfo=None) else None


def _differs(files: Mapping[str, bytes], at: datetime) -> bool:
    """Whether the files come with a time that is not the receipt's."""
    text = files.get(TIMESTAMP, b"")[:100].decode("utf-8", "replace").strip()
    return bool(text) and parse_time(text) != at
