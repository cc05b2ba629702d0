"""A private world: own process table, network, IPC, host name, and a root directory built from read-only pieces.

With CAP_SYS_ADMIN (root) the namespaces are made directly and the submission runs under a user id of its own; an
ordinary user makes a user namespace first. The layout is the one of bubblewrap (github.com/containers/bubblewrap).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from autograder.jail import libc
from autograder.jail.limits import INODES
from autograder.jail.policy import DEVICES, SYSTEM_FILES, SYSTEM_FOLDERS, JailPolicy

_CAP_SYS_ADMIN = 21
# Above every range that systemd or a directory service assigns: no account has these ids.
_FIRST_OWN_ID = 0x70000000


def own_id(warden: int) -> int:
    """The user id for a submission that process ``warden`` (run by root) watches over."""
    return _FIRST_OWN_ID + warden


def privileged() -> bool:
    """Whether namespaces can be made without a user namespace."""
    return os.geteuid() == 0 and libc.holds_capability(_CAP_SYS_ADMIN)


def prepare_children() -> None:
    """Make the next child of this process the first one of a new pid namespace (and user namespace where needed)."""
    if privileged():
        libc.unshare(libc.CLONE_NEWPID)
        return
    user, group = os.geteuid(), os.getegid()
    libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWPID)
    try:
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError as error:
        raise libc.JailError(f"The user namespace cannot map user {user}: {error}") from error


def build_world(policy: JailPolicy, owner: int) -> None:
    """In the first process of the new pid namespace: leave the other namespaces and move into a private root.

    ``owner`` is the user id that will own the work folder. Afterwards only ``policy.readable``, the system's libraries
    and programs, an own /proc, five devices and an empty writable /tmp (with the work folder) exist.
    """
    os.umask(0o022)  # the grader's own may hide from the submission what is built for it
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS)
    with contextlib.suppress(OSError):
        socket.sethostname("jail")
    libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    # Links are followed while the machine's root is still the root.
    sources = {path: os.path.realpath(path) for path in (*SYSTEM_FOLDERS, *policy.readable)}
    _step_aside()
    flags = libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("tmpfs", "/new", "tmpfs", flags, "mode=755,size=8m,nr_inodes=8k")
    _writable(policy, owner)
    for path, source in sources.items():
        _show(path, source)
    _etc(owner)
    _devices()
    os.mkdir("/new/proc")
    _proc()
    libc.mount("", "/new", "", libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY | flags)
    libc.pivot_to("/new")
    os.chdir(policy.work)


def _step_aside() -> None:
    """Swap in an empty root with the machine's one at /old, so that nothing hides a path that is to be shown."""
    base = next(place for place in ("/tmp", "/mnt", "/run", "/var") if os.path.isdir(place))
    libc.mount("tmpfs", base, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755,size=1m")
    os.chdir(base)
    os.mkdir("old")
    os.mkdir("new")
    libc.pivot_root(".", "old")
    os.chdir("/")


def _writable(policy: JailPolicy, owner: int) -> None:
    """One tmpfs holds all that can be written (/tmp, /dev/shm, the work folder), so that one size bounds it."""
    for folder in ("/new/tmp", "/new/dev"):
        os.mkdir(folder)
    options = f"mode=1777,size={policy.limits.disk_bytes},nr_inodes={INODES}"
    libc.mount("tmpfs", "/new/tmp", "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, options)
    for name, place in ((".shm", "/dev/shm"), (".work", policy.work)):
        if place.startswith("/tmp/"):
            os.makedirs("/new" + place)
            os.chown("/new" + place, owner, -1)
            continue
        os.mkdir(f"/new/tmp/{name}")
        os.chown(f"/new/tmp/{name}", owner, -1)
        os.makedirs("/new" + place, exist_ok=True)
        libc.mount(f"/new/tmp/{name}", "/new" + place, "", libc.MS_BIND)


def _show(path: str, source: str) -> None:
    source, target = "/old" + source, "/new" + path
    if not os.path.exists(source) or os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    link = "/old" + path
    if path in SYSTEM_FOLDERS and os.path.islink(link):
        os.symlink(os.readlink(link), target)  # /lib -> usr/lib
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        Path(target).touch()
    libc.bind_read_only(source, target)


def _etc(owner: int) -> None:
    os.makedirs("/new/etc", exist_ok=True)
    for path in SYSTEM_FILES:
        source = "/old" + path
        if os.path.islink(source):
            os.symlink(os.readlink(source), "/new" + path)
        elif os.path.isfile(source):
            Path("/new" + path).write_bytes(Path(source).read_bytes())
    for folder in ("/etc/alternatives", "/etc/fonts"):
        _show(folder, folder)
    Path("/new/etc/passwd").write_text(f"student:x:{owner}:{owner}:student:/tmp:/bin/sh\n")
    Path("/new/etc/group").write_text(f"student:x:{owner}:\n")
    Path("/new/etc/hosts").write_text("127.0.0.1 localhost jail\n")


def _devices() -> None:
    for path in DEVICES:
        if os.path.exists("/old" + path):
            Path("/new" + path).touch()
            libc.mount("/old" + path, "/new" + path, "", libc.MS_BIND)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink("/proc/self/fd" + target, f"/new/dev/{name}")


def _proc() -> None:
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    try:
        libc.mount("proc", "/new/proc", "proc", flags)
    except libc.JailError:
        # Where parts of the machine's /proc are masked (containers), the kernel allows only the processes' part.
        libc.mount("proc", "/new/proc", "proc", flags, "subset=pid")
