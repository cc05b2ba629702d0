"""Entering the jail: one process stays outside as the warden, the other goes in and returns.

The warden never runs a line of a submission. It waits for the jailed process to end or for its lifeline (a socket
held by the grader) to hang up, ends everything that is left, removes the work folder and reports how it went.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from autograder.jail import landlock, libc, limits, namespaces, processes, seccomp
from autograder.jail.policy import DEVICES, SYSTEM_FILES, SYSTEM_FOLDERS, JailMode, JailPolicy

# The name of a temporary folder goes on with the id of the process that removes it, and a dash.
WORK_PREFIX, IMAGE_PREFIX, SOCKET_PREFIX = "fourbit-run-", "fourbit-image-", "fourbit-kernel-"
# The parts of /proc that numerical libraries ask for; the rest of it tells about other processes.
_HARMLESS_PROC = tuple(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "version", "filesystems"))


def enter(policy: JailPolicy, lifeline: socket.socket, inside: Iterable[int] = ()) -> None:
    """Go into the jail that ``policy`` describes; call it in a freshly forked process that has one thread.

    Forks: returns only in the jailed process, with the work folder as current folder. The caller's process becomes the
    warden and never returns. ``inside``: file descriptors that are the jailed process's alone; the warden closes them.
    When a wall cannot be built, the reason goes out on ``lifeline`` as ``{"refused": ...}`` and nothing runs.
    """
    try:
        owner = _owner(policy.mode)
        work = policy.work if policy.mode is JailMode.NAMESPACES else _make_work(owner)
        if policy.mode is JailMode.NAMESPACES:
            namespaces.prepare_children()
        libc.set_subreaper()
        pid = os.fork()
        if pid:
            _stand_guard(pid, lifeline, inside, None if policy.mode is JailMode.NAMESPACES else work)
        _go_in(policy, owner, work)
    except BaseException as error:
        _report(lifeline, {"refused": str(error) or type(error).__name__})
        os._exit(1)
    lifeline.close()


def _owner(mode: JailMode) -> int:
    """For root a user id that no account has, as far as root may hand one out; otherwise the user's own."""
    may = namespaces.privileged() if mode is JailMode.NAMESPACES else os.geteuid() == 0
    return namespaces.own_id(os.getpid()) if may and mode is not JailMode.PLAIN else os.geteuid()


def confine(policy: JailPolicy, guards: Iterable[int]) -> None:
    """In the process that will run a submission's code: the last walls, between it and the guard inside the jail."""
    libc.set_dumpable(True)
    if policy.mode is JailMode.PLAIN:
        return
    if policy.mode is JailMode.LANDLOCK:
        landlock.restrict(_readable(policy, _HARMLESS_PROC), (os.getcwd(),), devices=DEVICES)
    elif landlock.abi():
        # The private root holds nothing that may not be read; what is left is writing, TCP, signals, abstract sockets.
        landlock.restrict(("/",), ("/tmp", "/dev/shm", policy.work), devices=DEVICES)
    seccomp.shield(guards)


def _readable(policy: JailPolicy, proc: tuple[str, ...]) -> tuple[str, ...]:
    return (*SYSTEM_FOLDERS, *policy.readable, *SYSTEM_FILES, "/etc/alternatives", "/etc/fonts", *proc)


def _go_in(policy: JailPolicy, owner: int, work: str) -> None:
    alone = policy.mode is JailMode.NAMESPACES or owner != os.geteuid()
    if policy.mode is JailMode.NAMESPACES:
        namespaces.build_world(policy, owner)
        os.environ.update(HOME="/tmp", TMPDIR="/tmp")
    else:
        os.chdir(work)
        os.environ.update(HOME=work, TMPDIR=work)
    tempfile.tempdir = None
    limits.apply(policy.limits, alone=alone)
    if policy.mode is not JailMode.PLAIN:
        _give_up_rights(policy, owner, work)
    _check_readable(policy)
    libc.set_subreaper()
    libc.die_with_parent(parent=0 if policy.mode is JailMode.NAMESPACES else os.getppid())
    libc.set_dumpable(False)
    os.umask(0o077)


def _check_readable(policy: JailPolicy) -> None:
    for path in policy.readable:
        if not os.access(path, os.R_OK):
            raise libc.JailError(
                f"{path} cannot be read by user {os.getuid()}, as whom the submission runs: install Python and the "
                "packages where every user may read them, or grade as the user who owns them"
            )


def _give_up_rights(policy: JailPolicy, owner: int, work: str) -> None:
    libc.set_no_new_privs()
    libc.drop_bounding_capabilities()
    if owner != os.geteuid():
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    libc.clear_capabilities()
    if policy.mode is JailMode.LANDLOCK:
        landlock.restrict(_readable(policy, ("/proc",)), (work,), devices=DEVICES)
    seccomp.install(private_root=policy.mode is JailMode.NAMESPACES)


def _make_work(owner: int) -> str:
    work = tempfile.mkdtemp(prefix=f"{WORK_PREFIX}{os.getpid()}-")
    if owner != os.geteuid():
        os.chown(work, owner, owner)
    return work


class _ToldToStop(BaseException):
    pass


def _on_signal(number: int, frame: FrameType | None) -> None:
    raise _ToldToStop


def _stand_guard(pid: int, lifeline: socket.socket, inside: Iterable[int], work: str | None) -> None:
    """Wait outside; never returns."""
    code = -1
    try:
        signal.signal(signal.SIGTERM, _on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        libc.die_with_parent(signal.SIGTERM, parent=os.getppid())
        for descriptor in inside:
            os.close(descriptor)
        code = _wait(pid, lifeline)
    except BaseException:
        pass  # whatever happened, what follows must be done
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = _end(pid, code)
    if work is not None:  # no pid namespace that took everything with it
        processes.kill_descendants(os.getpid(), seconds=30.0)
        remove_tree(work)
    _report(lifeline, {"ended": code})
    os._exit(0)


def _wait(pid: int, lifeline: socket.socket) -> int:
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(lifeline, select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll()}
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if handle in ready else -1


def _end(pid: int, code: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code


def _report(lifeline: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        lifeline.settimeout(1.0)
        lifeline.sendall(json.dumps(message).encode() + b"\n")


def remove_tree(folder: str) -> None:
    """Remove a folder that a submission filled, whatever modes it gave to what is in it; never follows a link."""
    for path, names, _ in os.walk(folder):
        for name in names:
            place = os.path.join(path, name)
            if not os.path.islink(place):
                with contextlib.suppress(OSError):
                    os.chmod(place, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove temporary folders whose keeper was itself killed (only what this user owns, only when that process is
    gone)."""
    root = os.geteuid() == 0
    for place in Path(tempfile.gettempdir()).glob("fourbit-*-*-*"):
        prefix, _, keeper = place.name.rpartition("-")[0].rpartition("-")
        if prefix + "-" not in (WORK_PREFIX, IMAGE_PREFIX, SOCKET_PREFIX) or not keeper.isdigit():
            continue
        owners = {os.geteuid()} | ({namespaces.own_id(int(keeper))} if root else set())
        with contextlib.suppress(OSError):
            if place.lstat().st_uid in owners and not place.is_symlink() and not os.path.exists(f"/proc/{keeper}"):
                remove_tree(str(place))
