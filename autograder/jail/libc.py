"""The few system calls that Python 3.11 has no name for, by ctypes, with errors that say which call failed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

from fourbit.errors import FourbitError


class JailError(FourbitError):
    """A part of the jail that this machine refuses, with the system call and the reason."""


CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x00000080

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_MADV_COLLAPSE, _HUGE_PAGE = 25, 2 * 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000

# Numbers that differ between the two machine types that Linux courses run on.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

# Elsewhere this module can be imported (``describe`` says why nothing works), not used.
_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def machine() -> str:
    """``x86_64`` or ``aarch64``; raises :class:`JailError` on a machine type whose system calls are not known here."""
    name = platform.machine()
    if name not in _PIVOT_ROOT:
        raise JailError(f"The jail knows the system calls of x86_64 and aarch64, not of {name}. Grade on one of these.")
    return name


def syscall(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call ``number``; raise :class:`JailError` naming ``what`` when it fails."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    _libc.syscall.restype = ctypes.c_long
    return _checked(what, _libc.syscall(ctypes.c_long(number), *values))


def _checked(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise JailError(f"{what} failed: {os.strerror(number)} (errno {number})")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by the ``CLONE_NEW*`` flags for new ones."""
    _checked(f"unshare({flags:#x})", _libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount; ``kind`` is the file system's name, empty for a bind or remount."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(f"mounting {source or kind} on {target}", result)


def bind_read_only(source: str, target: str) -> None:
    """Show ``source`` (with the mounts below it) at ``target``, read-only, without devices and set-uid."""
    mount(source, target, "", MS_BIND | MS_REC)
    # struct mount_attr {attr_set, attr_clr, propagation, userns_fd}: RDONLY | NOSUID | NODEV for the whole tree.
    attributes = ctypes.create_string_buffer((0x1 | 0x2 | 0x4).to_bytes(8, "little") + bytes(24), 32)
    try:
        syscall("mount_setattr", _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, 32)
    except JailError:
        # Linux before 5.12: this mount alone; the flags that it already has are locked in a user namespace.
        kept = os.statvfs(target).f_flag & (MS_NOEXEC | 1024 | 2048 | 4096)
        times = {1024: 1024, 2048: 2048, 4096: 1 << 21}
        extra = sum(times[bit] for bit in times if kept & bit) | (kept & MS_NOEXEC)
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | extra)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make the mount ``new_root`` the root directory, with the old one mounted on ``put_old`` inside it."""
    syscall("pivot_root", _PIVOT_ROOT[machine()], os.fsencode(new_root), os.fsencode(put_old))


def pivot_to(new_root: str) -> None:
    """Make ``new_root`` (a mount point) the root directory and let go of the old one."""
    os.chdir(new_root)
    pivot_root(".", ".")
    _checked("unmounting the old root", _libc.umount2(b".", ctypes.c_int(MNT_DETACH)))
    os.chdir("/")


def _prctl(what: str, option: int, value: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _checked(what, _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def set_no_new_privs() -> None:
    """From here on no program file can raise this process's rights."""
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same user may look into this one through /proc and ptrace."""
    _prctl("dumpable", _PR_SET_DUMPABLE, int(dumpable))


def set_subreaper() -> None:
    """Orphans among the descendants become children of this process."""
    _prctl("child subreaper", _PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sig: int = 9, *, parent: int) -> None:
    """Get ``sig`` when the parent ends. ``parent`` is its id (0 when it is in an outer pid namespace)."""
    _prctl("parent death signal", _PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os._exit(1)


def drop_bounding_capabilities() -> None:
    """No program started from here on can gain a capability. Needs CAP_SETPCAP, without which nothing is to be
    dropped."""
    _prctl("clearing ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # past the last capability of this kernel, or an ordinary user


def clear_capabilities() -> None:
    """Give up the capabilities that this process holds, in every set, for good."""
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    _checked("capset", _libc.capset(header, bytes(24)))


def holds_capability(number: int) -> bool:
    """Whether capability ``number`` (21 is CAP_SYS_ADMIN) is effective in this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what is freed: to get a page again and again costs as much as to work on it. Nothing
    depends on it."""
    with contextlib.suppress(AttributeError):  # no glibc
        _libc.mallopt(_M_TRIM_THRESHOLD, 2**30)
        _libc.mallopt(_M_MMAP_THRESHOLD, 2**25)


def use_huge_pages() -> None:
    """Put this process's own memory on huge pages, where the kernel can (Linux 6.1): a fork then copies 512 times
    fewer page table entries. Nothing depends on it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, _, *name = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in place.split("-"))
        start, end = -(-start // _HUGE_PAGE) * _HUGE_PAGE, end // _HUGE_PAGE * _HUGE_PAGE
        if rights == "rw-p" and name in ([], ["[heap]"]) and start < end:
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(_MADV_COLLAPSE))
