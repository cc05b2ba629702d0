"""The account of what was collected: who, when by whose clock, and exactly which files.

One JSON line for each event in ``.autograder/<assignment>/receipts.jsonl``, never rewritten; the last line of a student
that counts is the submission that lies in ``submitted/``. Its hash tells grading whether that is still so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autograder.books.journal import FOLDER
from autograder.nbgrader_course import NbgraderCourse


@dataclass(frozen=True)
class Receipt:
    """One attempt of one student, as it was collected.

    Attributes:
        at: when it was handed in (UTC, ISO 8601), by a clock that is not the student's; "" = nobody can tell.
        sha256: `autograder.results.files_hash` of the folder as `autograder.reading.untrusted.read_folder` reads it.
        source: where it came from, and where `at` is from, in words.
        attempt: number of the folder that keeps it, counted from 1 for each student.
        late: what the learning management system says itself; None where it says nothing.
        counts: whether it was put into ``submitted/``.
        content: hash of the student's own files alone, without the time stamp that goes with them.
        seen: a time that only orders attempts (an archive's entry, a file's date), ISO 8601 or "".
        collected: when this line was written.
        readable: there is a notebook in it that can be read; an attempt without one takes no other's place.
        found: it lay in ``submitted/`` already; nothing is known about how it came there.
    """

    student: str
    at: str
    sha256: str
    source: str
    attempt: int
    late: bool | None = None
    counts: bool = True
    content: str = ""
    seen: str = ""
    collected: str = ""
    found: bool = False
    readable: bool = True

    @property
    def when(self) -> datetime | None:
        """The time of submission in UTC, or None when it is not known."""
        return parse_iso(self.at)


def receipts_path(course: NbgraderCourse, assignment: str) -> Path:
    """Return where the receipts of `assignment` are kept."""
    return course.root / FOLDER / assignment / "receipts.jsonl"


def received(course: NbgraderCourse, assignment: str) -> dict[str, Receipt]:
    """Return the receipt that counts for each student whose submission was collected.

    Whether it holds for what lies in ``submitted/`` now is told by its `sha256`.
    """
    last = {receipt.student: receipt for receipt in read_receipts(receipts_path(course, assignment)) if receipt.counts}
    return {student: receipt for student, receipt in last.items() if not receipt.found}


def read_receipts(path: Path) -> list[Receipt]:
    """Return all receipts in the order they were written; a line that a crash cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [receipt for line in lines if (receipt := _parse(line)) is not None]


def append_receipts(path: Path, receipts: Iterable[Receipt]) -> None:
    """Add `receipts` to the account, on disk when this returns."""
    text = "".join(json.dumps(asdict(receipt), ensure_ascii=True) + "\n" for receipt in receipts)
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        if stream.tell() and _last_byte(stream) != b"\n":
            stream.write(b"\n")
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def iso(moment: datetime | None) -> str:
    """Return `moment` in UTC as ISO 8601 to the second; "" for None."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def parse_iso(text: str) -> datetime | None:
    """Return the aware time that `text` holds, or None; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


_FIELDS = {field.name: field.type for field in fields(Receipt)}


def _parse(line: str) -> Receipt | None:
    try:
        entry = json.loads(line)
        known: dict[str, Any] = {name: entry[name] for name in _FIELDS if name in entry}
        receipt = Receipt(**known)
    except (ValueError, TypeError):
        return None
    texts = (receipt.student, receipt.at, receipt.sha256, receipt.source, receipt.content, receipt.seen)
    return receipt if all(isinstance(text, str) for text in texts) and isinstance(receipt.attempt, int) else None


def _last_byte(stream: Any) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return bytes(stream.read(1))
