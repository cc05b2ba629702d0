"""An append-only account of what was graded, so that a rerun does only what is left or has changed.

One JSON line per event; a line cut off by a crash is ignored. A result counts once its line is there: the line
is the last thing written, after the gradebook and the notebook.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from autograder.results import GradingError, SubmissionRecord, from_json

FOLDER = ".autograder"


@dataclass(frozen=True)
class Journal:
    """The journal of one assignment, in ``.autograder/<assignment>/`` of the course."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "journal.jsonl"

    def finished(self) -> dict[str, str]:
        """Return the content key of each student's last finished grading."""
        keys: dict[str, str] = {}
        for line in self._lines():
            try:
                entry = json.loads(line)
                keys[str(entry["student"])] = str(entry["key"])
            except (ValueError, KeyError, TypeError):
                continue
        return keys

    def record(self, student: str) -> SubmissionRecord | None:
        """Return the last record of `student`, or None when there is none that this version can read."""
        try:
            return from_json(self._record_path(student).read_bytes())
        except (OSError, GradingError):
            return None

    def keep(self, record: SubmissionRecord) -> None:
        """Put a record aside; it takes the place of the last one with :meth:`finish`."""
        write_atomically(self._next_path(record.student), record.to_json().encode())

    def finish(self, record: SubmissionRecord) -> None:
        """Make the record that was kept count: it becomes the student's last one, and the journal gets its line."""
        os.replace(self._next_path(record.student), self._record_path(record.student))
        entry = {
            "student": record.student,
            "key": record.key,
            "outcome": record.outcome,
            "points": record.points,
            "max_points": record.max_points,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with open(self.path, "ab") as stream:
            if stream.tell() and not self._ends_in_newline():
                stream.write(b"\n")
            stream.write(json.dumps(entry).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _ends_in_newline(self) -> bool:
        with open(self.path, "rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"

    def _next_path(self, student: str) -> Path:
        return self._record_path(student).with_suffix(".next")

    def _record_path(self, student: str) -> Path:
        name = quote(student.encode("utf-8", "surrogateescape"), safe="")
        return self.folder / "records" / f"{name or '%'}.json"


def journal_of(root: Path, assignment: str) -> Journal:
    """Return the journal of an assignment in the course at `root`."""
    return Journal(root / FOLDER / assignment)


def write_atomically(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace `path` by `data`: at every moment it holds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_name(f".{path.name[:100]}.new")
    with open(spare, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    if mode is not None:
        spare.chmod(mode)
    os.replace(spare, path)
