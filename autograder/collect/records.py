"""What collecting says that it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.collect.receipts import Receipt
from autograder.collect.sorting import Left


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
