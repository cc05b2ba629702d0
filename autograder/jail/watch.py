"""What the kernel bounds for one process only, looked after for all processes of a submission: by its guard, a few
times a second."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from autograder.jail import processes
from autograder.jail.limits import INODES, OWN_PROCESSES, Limits
from autograder.jail.policy import JailMode

_TICK_SECONDS = 0.25
# Not the lowest: who holds a lock that the guard waits for must come to its turn on a busy machine.
_LOW_PRIORITY = 10


@dataclass
class Watch:
    """One cell's or one call's watch over the descendants of this process, whose current folder is the work folder.

    ``members``: processes that hold the notebook's state. Others are put behind everything else on the machine: what
    a submission starts beside itself must not take the time of the one that is graded next to it.
    """

    limits: Limits
    mode: JailMode
    members: Collection[int] = ()
    _next: float = field(default_factory=lambda: time.monotonic() + _TICK_SECONDS)
    _written: tuple[int, int] = field(init=False)
    _moved_back: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._written = self._disk()

    def exceeded(self) -> str:
        """The name of the limit that the processes together are above, at most one look each quarter of a second."""
        if time.monotonic() < self._next:
            return ""
        pids = processes.descendants(os.getpid())
        found = self._found(pids)
        if not found and processes.hold_more_than(self.limits.memory_bytes, pids):
            found = "memory_bytes"
        self._move_back(pids - self._moved_back)
        self._next = time.monotonic() + _TICK_SECONDS
        return found

    def exceeded_at_the_end(self) -> str:
        """The same when the work is done, for what can be left behind, where the kernel does not bound it."""
        if self.mode is JailMode.NAMESPACES:
            return ""
        return self._found(processes.descendants(os.getpid()) if self._unbounded_processes else set())

    @property
    def _unbounded_processes(self) -> bool:
        return os.geteuid() == 0  # the kernel's process limit does not hold for root, whom plain mode leaves as it is

    def _found(self, pids: Collection[int]) -> str:
        if self._unbounded_processes and processes.tasks_of(pids) > self.limits.processes + OWN_PROCESSES:
            return "processes"
        written = self._disk()
        # What an earlier cell left is not this one's doing.
        above = written[0] > max(self.limits.disk_bytes, self._written[0]) or written[1] > max(INODES, self._written[1])
        return "disk_bytes" if above else ""

    def _disk(self) -> tuple[int, int]:
        """Bytes and entries in the work folder; zeros where the kernel bounds them."""
        return (0, 0) if self.mode is JailMode.NAMESPACES else folder_size(".")

    def _move_back(self, pids: Collection[int]) -> None:
        for pid in pids:
            if pid not in self.members:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, pid, max(_LOW_PRIORITY, os.getpriority(os.PRIO_PROCESS, pid)))
                self._moved_back.add(pid)


def folder_size(folder: str) -> tuple[int, int]:
    """Bytes and entries below a folder; links are not followed, and what goes away meanwhile is not counted."""
    size = entries = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            size += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return size, entries
