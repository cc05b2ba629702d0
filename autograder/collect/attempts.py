"""Every attempt is kept; the last one that was on time lies in ``submitted/``.

``.autograder/<assignment>/attempts/<student>/<number>/`` holds the files of each attempt as they were collected. What
lay in ``submitted/`` before, put there by whatever means, becomes an attempt too before anything takes its place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from autograder.books.journal import FOLDER, write_atomically
from autograder.collect.receipts import Receipt, append_receipts, iso, parse_iso, read_receipts, receipts_path
from autograder.collect.unpack import TIMESTAMP
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.notebook_files import holds_notebook
from autograder.reading.untrusted import Caps, read_folder
from autograder.results import GradingError, files_hash, plain


@dataclass(frozen=True)
class Attempt:
    """One attempt of a student, ready to be kept.

    Attributes:
        at: time of submission (UTC) by a clock that is not the student's; None = unknown.
        source: where the files and `at` are from.
        seen: a weak time (UTC) that only orders attempts.
        readable: there is a notebook in it that can be read.
        stated: the instructor said `at`, which is then believed over what was said before.
        bound: a time (UTC) by which it was certainly there, with its source; used for a new attempt whose time nothing
            tells, because a later run would know a later one only.
    """

    student: str
    files: Mapping[str, bytes]
    source: str
    at: datetime | None = None
    late: bool | None = None
    seen: datetime | None = None
    readable: bool = True
    stated: bool = False
    bound: tuple[datetime, str] | None = None


class Attempts:
    """The attempts of one assignment.

    Args:
        dry: change nothing on disk.
    """

    def __init__(self, course: NbgraderCourse, assignment: str, caps: Caps, *, dry: bool = False) -> None:
        self.course, self.assignment, self.caps, self.dry = course, assignment, caps, dry
        self.path = receipts_path(course, assignment)
        self.folder = course.root / FOLDER / assignment / "attempts"
        self._of: dict[str, list[Receipt]] = {}
        self._now: dict[str, Receipt] = {}
        for receipt in read_receipts(self.path):
            self._of.setdefault(receipt.student, []).append(receipt)
            if receipt.counts:
                self._now[receipt.student] = receipt

    def of(self, student: str) -> list[Receipt]:
        """Return what is known about each attempt of `student`: the last line about it."""
        return list({receipt.attempt: receipt for receipt in self._of.get(student, [])}.values())

    def keep(self, attempt: Attempt) -> tuple[Receipt, bool]:
        """Keep an attempt; return its receipt and whether it is new."""
        content = files_hash(attempt.files)
        known = self._known(attempt, content)
        if known is not None:
            better = attempt.at is not None and (not known.at or attempt.stated) and iso(attempt.at) != known.at
            if not better:
                return known, False
        elif attempt.at is None and attempt.bound is not None:
            attempt = replace(attempt, at=attempt.bound[0], source=f"{attempt.source}; {attempt.bound[1]}")
        number = known.attempt if known else 1 + max((r.attempt for r in self.of(attempt.student)), default=0)
        files = dict(attempt.files)
        if attempt.at is not None:
            files[TIMESTAMP] = f"{attempt.at:%Y-%m-%d %H:%M:%S} UTC\n".encode()
        receipt = Receipt(
            attempt.student, iso(attempt.at), files_hash(files), attempt.source, number, attempt.late, False, content,
            iso(attempt.seen), iso(datetime.now(UTC)), False, attempt.readable,
        )  # fmt: skip
        if not self.dry:
            folder = self._attempt_folder(receipt)
            if known:  # the same files with a better time
                write_atomically(folder / TIMESTAMP, files[TIMESTAMP])
            else:
                _store(folder, files)
            receipt = replace(receipt, sha256=files_hash(read_folder(folder, self.caps).files))
        self._add(receipt)
        return receipt, known is None

    def keep_found(self, student: str) -> Receipt | None:
        """Keep what lies in ``submitted/`` without a receipt; return it, or None when there is nothing of the kind.

        Raises:
            GradingError: when a link lies there, or something else that must not be replaced.
            OSError: when it cannot be copied.
        """
        place = self._place(student)
        if not place.exists():
            return None
        raw = read_folder(place, self.caps)
        digest = files_hash(raw.files)
        if digest in {receipt.sha256 for receipt in self._of.get(student, [])}:
            return None
        number = 1 + max((r.attempt for r in self.of(student)), default=0)
        content = files_hash({name: data for name, data in raw.files.items() if name != TIMESTAMP})
        source = "found in submitted/, put there by other means"
        now, readable = iso(datetime.now(UTC)), holds_notebook(raw.files, self.caps)
        receipt = Receipt(student, "", digest, source, number, None, True, content, "", now, True, readable)
        if not self.dry:
            target = self._attempt_folder(receipt)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(place, target, symlinks=True, ignore=_special)
        self._add(receipt)
        return receipt

    def choose(self, student: str, deadline: datetime | None) -> Receipt | None:
        """Return the attempt that counts: the last of those not known to be late, else the last of all.

        One in which no notebook can be read counts only when that is so for all: a broken upload undoes no work.
        """
        attempts = self.of(student)
        attempts = [receipt for receipt in attempts if receipt.readable] or attempts
        on_time = [receipt for receipt in attempts if not is_late(receipt, deadline)]
        return max(on_time or attempts, key=_order, default=None)

    def counting(self, student: str) -> Receipt | None:
        """Return the receipt of what was last put into ``submitted/``."""
        return self._now.get(student)

    def put(self, receipt: Receipt) -> bool:
        """Make `receipt` the one that counts: its files take the place in ``submitted/``. Return whether that changed.

        What lies there must have been kept before.
        """
        place = self._place(receipt.student)
        if place.exists() and files_hash(read_folder(place, self.caps).files) == receipt.sha256:
            if self._now.get(receipt.student) != receipt:
                self._count(receipt)
            return False
        if not self.dry:
            self._replace(place, self._attempt_folder(receipt))
        self._count(receipt)
        return True

    def _known(self, attempt: Attempt, content: str) -> Receipt | None:
        """Return the receipt of the same files handed in at the same time, as far as times are known."""
        for receipt in self.of(attempt.student):
            same_time = not receipt.at or attempt.at is None or attempt.stated or receipt.at == iso(attempt.at)
            if receipt.content == content and not receipt.found and same_time:
                return receipt
        return None

    def _count(self, receipt: Receipt) -> None:
        self._add(replace(receipt, counts=True, collected=iso(datetime.now(UTC))))

    def _add(self, receipt: Receipt) -> None:
        if not self.dry:
            append_receipts(self.path, [receipt])
        self._of.setdefault(receipt.student, []).append(receipt)
        if receipt.counts:
            self._now[receipt.student] = receipt

    def _attempt_folder(self, receipt: Receipt) -> Path:
        return self.folder / quote(receipt.student, safe="@ ") / f"{receipt.attempt:03d}"

    def _place(self, student: str) -> Path:
        """Return the student's place in ``submitted/``.

        Raises:
            GradingError: when what is there leads elsewhere.
        """
        place = self.course.path("submitted", student, self.assignment)
        for path in (place, place.parent):
            if path.is_symlink() and student in path.parts:
                raise GradingError(f"{plain(path)} is a link, so nothing is written there; put a folder in its place")
        if place.exists() and not place.is_dir():
            raise GradingError(f"{plain(place)} is not a folder; move it away")
        return place

    def _replace(self, place: Path, source: Path) -> None:
        """Put a copy of `source` at `place`; what was there has been kept."""
        place.parent.mkdir(parents=True, exist_ok=True)
        spare, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
        shutil.rmtree(spare, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(source, spare, symlinks=True)
        if place.exists():
            os.replace(place, old)
        os.replace(spare, place)
        shutil.rmtree(old, ignore_errors=True)


def _store(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an attempt so that its folder is there complete or not at all."""
    spare = folder.with_name(f".{folder.name}.new")
    for path in (folder, spare):  # of a run that was ended before it wrote the receipt
        shutil.rmtree(path, ignore_errors=True)
    spare.mkdir(parents=True)
    for name, data in files.items():
        path = spare / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(spare, folder)


def is_late(receipt: Receipt, deadline: datetime | None) -> bool:
    """Whether an attempt is known to be late: by its time, else by what the learning management system said."""
    when = receipt.when
    if when is not None and deadline is not None:
        return when > deadline
    return when is None and receipt.late is True


def _order(receipt: Receipt) -> tuple[bool, datetime, int]:
    """Sort by the time of submission, as well as it is known; what was found in ``submitted/`` comes first."""
    moment = receipt.when or parse_iso(receipt.seen) or parse_iso(receipt.collected)
    return (not receipt.found, moment or datetime.min.replace(tzinfo=UTC), receipt.attempt)


def _special(folder: str, names: list[str]) -> set[str]:
    """Return what cannot be copied: pipes, sockets and devices."""
    paths = {name: os.path.join(folder, name) for name in names}
    return {
        name
        for name, path in paths.items()
        if not (os.path.islink(path) or os.path.isfile(path) or os.path.isdir(path))
    }
