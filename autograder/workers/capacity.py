"""How many submissions this machine can grade at the same time: its processors and its free memory.

What the process may use is what counts, not what the machine has: the processors it is bound to, and the quotas of
the control groups (containers, SLURM jobs, systemd units) that it is in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from autograder.jail import Limits

# Memory of one slot without what a submission adds: the worker, its zygote and their forks, pages in common once.
# Measured: 60 MiB and 300 MiB; a course that imports pandas or scikit-learn needs more than the bare one.
PLAIN_IMAGE = 150 * 2**20
EXAM_IMAGE = 400 * 2**20
# A limit is a cap and no need. A slot counts with a quarter of it, so four slots can hold one submission at its limit.
_SHARE = 0.25


@dataclass(frozen=True)
class Capacity:
    """What this process may use: `cores` (at least 1) and `memory` in bytes, free or easily freed."""

    cores: int
    memory: int

    def slots(self, limits: Limits, *, exam: bool) -> int:
        """How many slots fit: one for each core, fewer where memory is short, at least one.

        Args:
            exam: whether a slot holds a hidden exam, and torch with it.
        """
        one = (EXAM_IMAGE if exam else PLAIN_IMAGE) + _SHARE * limits.memory_bytes
        return max(1, min(self.cores, int(self.memory // one)))


def capacity(root: Path = Path("/")) -> Capacity:
    """Find out what this process may use.

    Args:
        root: where /proc and /sys are found.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _cpu_quotas(root)]
    room = [psutil.virtual_memory().available, *_memory_rooms(root)]
    return Capacity(max(1, min([bound, *quotas])), max(0, min(room)))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of the control group that this process is in, and those above it; version 2, then version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path is often that of the host, and the group's files are those of the top folder.
        own = top / path.lstrip("/")
        yield from (place for place in (own, *own.parents) if place.is_relative_to(top) and place.is_dir())


def _cpu_quotas(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        words = _text(group / "cpu.max").split() or [
            _text(group / "cpu.cfs_quota_us").strip(),
            _text(group / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
            yield int(words[0]) / int(words[1])


def _memory_rooms(root: Path) -> Iterator[int]:
    """Yield the memory that each control group has left; cached files do not count, the kernel drops them."""
    for group in _groups(root, "memory"):
        for cap, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, usage = _text(group / cap).strip(), _text(group / used).strip()
            if limit.isdecimal() and usage.isdecimal():
                counts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
                yield int(limit) - int(usage) + int(counts.get(cached, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
