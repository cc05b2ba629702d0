"""What collecting is asked for, and what it says that it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.collect.receipts import Receipt
from autograder.collect.sorting import Left


@dataclass(frozen=True)
class Options:
    """How to collect.

    Attributes:
        roster: CSV files that say who is who.
        pattern: a regular expression with named groups, for names that no system here gives.
        deadline: a time that overrides the gradebook's date.
        received: when everything was handed in whose time nothing else tells; "now" is a time too.
        zone: name of the time zone of times without one.
        new_students: take ids that neither gradebook nor roster knows.
        dry_run: only say what would be done.
    """

    roster: tuple[Path, ...] = ()
    pattern: str = ""
    deadline: str = ""
    received: str = ""
    zone: str | None = None
    new_students: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Taken:
    """One attempt that was told to be a student's.

    Attributes:
        how: by what it was told.
        new: False when it had been collected before.
        counts: whether it lies in ``submitted/`` now.
        late: whether it is known to be late.
    """

    student: str
    origin: str
    how: str
    receipt: Receipt
    new: bool
    files: int
    counts: bool = False
    late: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collected:
    """What collecting found and did.

    Attributes:
        missing: students of the gradebook or roster of whom nothing has been collected.
        notes: what concerns the whole class.
    """

    course: Path
    assignment: str
    taken: tuple[Taken, ...]
    left: tuple[Left, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    dry_run: bool
