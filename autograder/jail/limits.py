"""What a submission may use, and the part of it that the kernel enforces per process (``setrlimit``)."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from autograder.jail.libc import JailError


@dataclass(frozen=True)
class Limits:
    """Caps for one submission.

    ``cell_seconds``, ``notebook_seconds``: wall time of one cell and of the whole run. ``cpu_seconds``: CPU time of
    one process. ``memory_bytes``: private data of one process, and memory of all its processes together beyond what the
    preloaded image holds. ``processes``: processes and threads at the same time. ``open_files``: per process.
    ``disk_bytes``: everything written to the work folder, /tmp and /dev/shm together (in landlock and plain mode
    looked at a few times a second, and by the kernel for each file). ``output_bytes``: output kept of one cell; a
    notebook keeps eight times as much.
    """

    cell_seconds: float = 60.0
    notebook_seconds: float = 600.0
    cpu_seconds: int = 600
    memory_bytes: int = 4 * 2**30
    processes: int = 64
    open_files: int = 512
    disk_bytes: int = 256 * 2**20
    output_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise JailError(f"The limit {field.name} is {value!r}: give a number above 0.")


# The guard, its restore points and the session templates are processes too; they are not the student's.
OWN_PROCESSES = 24
# Files and folders in all that can be written.
INODES = 32_768


def apply(limits: Limits, *, alone: bool) -> None:
    """Set the kernel's limits on this process and all that it starts.

    ``alone``: the user id (or the user namespace) is this submission's own, so its processes are counted from zero;
    otherwise the processes that the user runs now are added to the allowance.
    """
    import resource  # POSIX only, and this module is imported by `describe` everywhere

    taken = 0 if alone else _processes_of_user()
    caps = {
        # Not 0: a core pattern that pipes to a program ignores 0, and takes 1 for "never".
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_CPU: int(limits.cpu_seconds),
        resource.RLIMIT_DATA: _data_size() + limits.memory_bytes,
        # Shared mappings count only here; the generous factor leaves room for reserved but unused addresses.
        resource.RLIMIT_AS: _virtual_size() + 2 * limits.memory_bytes + 4 * 2**30,
        resource.RLIMIT_NPROC: taken + limits.processes + OWN_PROCESSES,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.disk_bytes,
        resource.RLIMIT_MEMLOCK: 2**20,
        resource.RLIMIT_MSGQUEUE: 2**16,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }
    for kind, cap in caps.items():
        _, hard = resource.getrlimit(kind)
        value = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        # One second between the signals of the soft and the hard CPU limit names the cause in the exit status.
        above = value + 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else value
        resource.setrlimit(kind, (value, above))


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _virtual_size() -> int:
    return _status_bytes("VmSize")


def _data_size() -> int:
    return _status_bytes("VmData")


def _processes_of_user() -> int:
    user = os.getuid()
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == user:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
            except OSError:
                continue
    return count
