"""Looking after a tree of processes through /proc: who is in it, what memory it uses, how to end all of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path


def children_of(parent: int) -> set[int]:
    """Process ids of the living children of ``parent`` (zombies are not counted)."""
    states = {int(entry): _state_and_parent(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    return {pid for pid, (state, above) in states.items() if above == parent and state not in ("Z", "X", "")}


def descendants(root: int) -> set[int]:
    """Process ids of all living descendants of ``root`` (zombies are not counted)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state, parent = _state_and_parent(int(entry))
            if state not in ("Z", "X", ""):
                children.setdefault(parent, []).append(int(entry))
            elif state == "Z":
                children.setdefault(parent, [])
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "", 0
    state, parent = text[text.rindex(b")") + 2 :].split()[:2]  # the name in parentheses may hold anything
    return state.decode(), int(parent)


def kill_descendants(root: int, *, spare: Collection[int] = (), seconds: float = 5.0) -> bool:
    """Kill every descendant of ``root`` but those in ``spare``; True when none is left.

    Stopped first and killed then: a stopped process holds its place under the process limit, so a tree that forks as
    fast as it can runs out of places instead of outrunning its hunter. The first process of a process table of its own
    stops all others in it with one call.
    """
    if root == os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGSTOP)
        _signal(descendants(root) - set(spare), signal.SIGKILL)
        _signal(spare, signal.SIGCONT)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        while (found := descendants(root) - set(spare) - stopped) and time.monotonic() < deadline:
            _signal(found, signal.SIGSTOP)
            stopped |= found
        _signal(stopped, signal.SIGKILL)
        reap(spare=spare)
        if not stopped:
            return True
        time.sleep(0.002)
    return False


def kill_trees(parent: int, *, spare: Collection[int], seconds: float = 5.0) -> None:
    """Kill every child of ``parent`` but those in ``spare``, with all that is below it.

    What is below a spared child is left alone, however much it forks meanwhile.
    """
    deadline = time.monotonic() + seconds
    while (found := children_of(parent) - set(spare)) and time.monotonic() < deadline:
        for pid in found:
            _signal((pid,), signal.SIGSTOP)
            kill_descendants(pid, seconds=1.0)
        _signal(found, signal.SIGKILL)
        reap(spare=spare)


def _signal(pids: Collection[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(*, spare: Collection[int] = ()) -> None:
    """Collect the exit status of every child that ended, except those in ``spare``, which others wait for."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in spare:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def cpu_seconds_of(pid: int) -> float:
    """CPU time that a process has used, also one that has ended and is not waited for yet; 0 where that is unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    user, system = text[text.rindex(b")") + 2 :].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_of(pids: Collection[int]) -> int:
    """Anonymous and shared memory in bytes, each page counted once per process that maps it (an upper bound)."""
    return sum(_fields(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) for pid in pids)


def proportional_memory_of(pids: Collection[int]) -> int:
    """The same with shared pages divided among their users; slower, and falls back where /proc does not tell."""
    return sum(_fields(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) or memory_of((pid,)) for pid in pids)


def tasks_of(pids: Collection[int]) -> int:
    """How many threads the processes have together."""
    return sum(_tasks(pid) for pid in pids)


def _tasks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text[text.rindex(b")") + 2 :].split()[17])


def hold_more_than(limit: int, pids: Collection[int] | None = None) -> bool:
    """Whether the descendants of this process, a guard, together hold more than ``limit`` bytes of their own."""
    pids = descendants(os.getpid()) if pids is None else pids
    limit += memory_of((os.getpid(),))  # the guard holds the image that they were forked from, nothing else
    if memory_of(pids) < limit:
        return False
    # The kernel tells a process's share only while that neither forks nor maps, which a fork bomb always does.
    _signal(pids, signal.SIGSTOP)
    try:
        return proportional_memory_of(pids) > limit
    finally:
        _signal(pids, signal.SIGCONT)


def _fields(path: str, names: tuple[bytes, ...]) -> int:
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
