"""Which limit a submission hit: how each is said, and how it shows in what Python raises.

The kernel tells a process that it may have no more with an error number or none at all; a student who reads
"Resource temporarily unavailable" learns nothing from it.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import fields

from autograder.jail.limits import INODES, Limits

_NUMBERS = {
    errno.ENOMEM: "memory_bytes",
    errno.EMFILE: "open_files",
    errno.ENFILE: "open_files",
    errno.ENOSPC: "disk_bytes",
    errno.EDQUOT: "disk_bytes",
    errno.EFBIG: "disk_bytes",
}
# What libraries put into words instead of an error number.
_WORDS = {
    "can't allocate memory": "memory_bytes",
    "not enough memory": "memory_bytes",
    "Cannot allocate memory": "memory_bytes",
    "std::bad_alloc": "memory_bytes",
    "Too many open files": "open_files",
    "No space left on device": "disk_bytes",
    "disk is full": "disk_bytes",
    "File too large": "disk_bytes",
    "can't start new thread": "processes",
}
_LONGEST_CHAIN = 8

LIMITS = frozenset(field.name for field in fields(Limits))


def exceeded(limit: str, limits: Limits) -> str:
    """What a submission did that hit the limit of that name, as the end of a sentence: "used more than 4 GiB of …"."""
    said = {
        "cell_seconds": f"ran longer than {limits.cell_seconds:g} s",
        "notebook_seconds": f"the notebook ran longer than {limits.notebook_seconds:g} s",
        "cpu_seconds": f"used more than {limits.cpu_seconds} s of CPU time",
        "memory_bytes": f"used more than {in_bytes(limits.memory_bytes)} of memory",
        "processes": f"had more than {limits.processes} processes and threads at the same time",
        "open_files": f"had more than {limits.open_files} files open at the same time",
        "disk_bytes": f"wrote more than {in_bytes(limits.disk_bytes)} or {INODES:,} files",
        "output_bytes": f"showed more than {in_bytes(limits.output_bytes)} of output",
    }
    return said[limit]


def in_bytes(number: float) -> str:
    """A size in the largest unit that it fills: "4 GiB", "256 MiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} bytes"


def limit_of(error: BaseException) -> str:
    """The name of the limit that `error` comes from, judged by its kind, number and words; "" when from none.

    The error may be of a hostile class: whatever asking it raises goes to the caller.
    """
    for link in _chain(error):
        if isinstance(link, MemoryError):
            return "memory_bytes"
        number = getattr(link, "errno", None)
        if isinstance(link, OSError) and isinstance(number, int):
            if found := _NUMBERS.get(number, ""):
                return found
            if number == errno.EAGAIN and _starts_a_process(link):
                return "processes"
        text = str(link)
        for words, name in _WORDS.items():
            if words in text:
                return name
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it."""
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _starts_a_process(error: OSError) -> bool:
    """Whether the error was raised where a process is started: the same number stands for a pipe with nothing in it."""
    where = [f"{frame.name} {frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
    return any("fork" in place or "spawn" in place for place in where)
