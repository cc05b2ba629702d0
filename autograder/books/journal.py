"""An append-only account of what was graded, so that a rerun does only what is left or has changed.

One JSON line per event; a line cut off by a crash is ignored. A result counts once its line is there: the line
is the last thing written, after the gradebook and the notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from autograder.books.regrade import Change, QuestionChange
from autograder.results import GradingError, SubmissionRecord, from_json

FOLDER = ".autograder"
_LONGEST_NAME = 200  # a quoted name can be longer than a file system takes


@dataclass(frozen=True)
class Entry:
    """A finished grading: its content key, and the hashes of what went into the key, by name (see `regrade.PARTS`)."""

    key: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Journal:
    """The journal of one assignment, in ``.autograder/<assignment>/`` of the course."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def history_path(self) -> Path:
        return self.folder / "history.jsonl"

    def entries(self) -> dict[str, Entry]:
        """Return each student's last finished grading."""
        found: dict[str, Entry] = {}
        for line in _lines(self.path):
            try:
                parts = {str(name): str(value) for name, value in line.get("parts", {}).items()}
                found[str(line["student"])] = Entry(str(line["key"]), parts)
            except (KeyError, TypeError, AttributeError):
                continue
        return found

    def finished(self) -> dict[str, str]:
        """Return the content key of each student's last finished grading."""
        return {student: entry.key for student, entry in self.entries().items()}

    def record(self, student: str) -> SubmissionRecord | None:
        """Return the last record of `student`, or None when there is none that this version can read."""
        return _read(self._record_path(student))

    def kept(self, student: str) -> SubmissionRecord | None:
        """Return the record that was put aside for `student` and not finished; None when there is none."""
        return _read(self._next_path(student))

    def keep(self, record: SubmissionRecord) -> None:
        """Put a record aside; it takes the place of the last one with :meth:`finish`."""
        write_atomically(self._next_path(record.student), record.to_json().encode())

    def finish(self, record: SubmissionRecord, parts: Mapping[str, str] | None = None) -> None:
        """Make the record that was kept count: it becomes the student's last one, and the journal gets its line."""
        # A power cut may undo the renaming; the old record then has not the key of the journal's line.
        os.replace(self._next_path(record.student), self._record_path(record.student))
        entry = {
            "student": record.student,
            "key": record.key,
            "outcome": record.outcome,
            "points": record.points,
            "max_points": record.max_points,
            "at": _now(),
            "parts": dict(parts or {}),
        }
        _append(self.path, entry)

    def note(self, change: Change) -> None:
        """Add a regrade to the history."""
        _append(self.history_path, asdict(change) | {"at": _now()})

    def history(self) -> list[tuple[str, Change]]:
        """Return every regrade, with the time it happened (UTC, ISO 8601), the oldest first."""
        found = []
        for line in _lines(self.history_path):
            try:
                at = str(line.pop("at"))
                questions = tuple(QuestionChange(**question) for question in line.pop("questions"))
                found.append((at, Change(**line, questions=questions)))
            except (KeyError, TypeError, AttributeError):
                continue
        return found

    def sweep(self) -> None:
        """Remove half-written files that a killed run has left."""
        for path in (self.folder / "records").glob(".*.new"):
            path.unlink(missing_ok=True)

    def _next_path(self, student: str) -> Path:
        return self._record_path(student).with_suffix(".next")

    def _record_path(self, student: str) -> Path:
        return self.folder / "records" / f"{self.file_name(student)}.json"

    def file_name(self, student: str) -> str:
        """Return the name, without a suffix, of a file about `student`: any id makes one that a file system takes."""
        data = student.encode("utf-8", "surrogateescape")
        name = quote(data, safe="")
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME // 2]}%{hashlib.sha256(data).hexdigest()}"
        return name or "%"


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


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on disk when this returns: a rename alone may be lost in a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> SubmissionRecord | None:
    try:
        return from_json(path.read_bytes())
    except (OSError, GradingError):
        return None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a file of JSON lines; what a crash cut off is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines, on disk when this returns."""
    new = not path.exists()
    with open(path, "a+b") as stream:
        if stream.tell() and not _ends_in_newline(path):
            stream.write(b"\n")
        stream.write(json.dumps(entry).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(path.parent)


def _ends_in_newline(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
