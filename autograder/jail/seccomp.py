"""The system call filter: a classic BPF program, written here instruction by instruction (no libseccomp).

Everything is allowed except a list: the filter's part is to keep a jailed process from widening its world (namespaces,
mounts, kernel keys, tracing, other address families) and from reaching the processes that guard it.
See seccomp(2) and the kernel's userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from autograder.jail import libc
from autograder.jail.syscalls import AUDIT_ARCH, numbers

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_X32_BIT = 0x40000000
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_NEW_NAMESPACES = (
    libc.CLONE_NEWNS | libc.CLONE_NEWCGROUP | libc.CLONE_NEWUTS | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUSER | libc.CLONE_NEWPID | libc.CLONE_NEWNET
)  # fmt: skip
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # put keystrokes into a terminal
_AF_UNIX, _SOCK_DGRAM, _SOCKET_TYPE = 1, 2, 0xF

_DENIED = [
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "unshare",
    "setns",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "kcmp",
    "pidfd_getfd",
    "pidfd_send_signal",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "keyctl",
    "add_key",
    "request_key",
    "swapon",
    "swapoff",
    "reboot",
    "acct",
    "quotactl",
    "quotactl_fd",
    "name_to_handle_at",
    "open_by_handle_at",
    "lookup_dcookie",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "syslog",
    "vhangup",
    "uselib",
    "iopl",
    "ioperm",
    "modify_ldt",
    "migrate_pages",
    "move_pages",
    "fanotify_init",
    "memfd_secret",
]

# Not there at all, so that libraries take their older way: clone3 hides its flags behind a pointer, and the memory of
# memfd files and System V objects is counted by no limit.
_ABSENT = ("clone3", "memfd_create", "shmget", "semget", "msgget")


@dataclass(frozen=True)
class _If:
    """Deny when argument ``index`` (its low or high 32 bits, after ``mask``) compares so with ``value``."""

    index: int
    compare: Literal["==", "!=", "&"]
    value: int
    mask: int = 0xFFFFFFFF
    high: bool = False


_OTHERS = (_If(0, "!=", 0),)  # only on itself: limits and scheduling of the guard are not the student's
_CONDITIONS: dict[str, tuple[_If, ...]] = {
    "socket": (_If(0, "!=", _AF_UNIX),),
    "socketpair": (_If(0, "!=", _AF_UNIX),),
    "clone": (_If(0, "&", _NEW_NAMESPACES),),
    "ioctl": (_If(1, "==", _TIOCSTI), _If(1, "==", _TIOCLINUX)),
    "prlimit64": _OTHERS,
    "sched_setparam": _OTHERS,
    # The class that every process has may be set, on anyone: ZeroMQ does so on its threads, and ends where it cannot.
    "sched_setscheduler": (_If(1, "!=", 0),),
    "sched_setattr": _OTHERS,
    "sched_setaffinity": _OTHERS,
    "ioprio_set": (_If(1, "!=", 0),),
}

# Without a private root, unix sockets with a path lead out of the jail (a container engine, the desktop's bus).
_NO_UNIX_PATHS: dict[str, tuple[_If, ...]] = {
    "socketpair": (_If(0, "!=", _AF_UNIX), _If(1, "==", _SOCK_DGRAM, _SOCKET_TYPE)),
    "sendto": (_If(4, "!=", 0), _If(4, "!=", 0, high=True)),
}


def install(*, private_root: bool) -> None:
    """Filter the system calls of this process and of all that it starts, for good; ``no_new_privs`` must be set.

    Denied calls fail with EPERM. ``private_root``: the file system shows nothing of the machine, so unix sockets may
    stay.
    """
    denied = dict.fromkeys(_DENIED, errno.EPERM) | dict.fromkeys(_ABSENT, errno.ENOSYS)
    conditions = dict(_CONDITIONS)
    if not private_root:
        denied |= {"socket": errno.EPERM, "connect": errno.EPERM}
        conditions |= _NO_UNIX_PATHS
        del conditions["socket"]
    _load(denied, conditions)


def shield(pids: Iterable[int]) -> None:
    """From here on this process and its descendants cannot signal ``pids``, their process groups, or everyone at
    once, and have a say in their own priority only, which the guard may lower."""
    everyone = -1
    values = [everyone, *(value for pid in pids for value in (pid, -pid))]
    calls = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open")
    for start in range(0, len(values), 64):  # a jump of the filter reaches 255 instructions
        tests = tuple(_If(0, "==", value & 0xFFFFFFFF) for value in values[start : start + 64])
        _load({}, {**dict.fromkeys(calls, tests), "setpriority": (_If(1, "!=", 0),)})


def _load(denied: dict[str, int], conditions: dict[str, tuple[_If, ...]]) -> None:
    program = _program(libc.machine(), denied, conditions)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    number = numbers(libc.machine())["seccomp"]
    libc.syscall("seccomp", number, 1, 0, ctypes.create_string_buffer(head, len(head)))


def _program(machine: str, denied: dict[str, int], conditions: dict[str, tuple[_If, ...]]) -> bytes:
    known = numbers(machine)
    lines = [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        lines += [_instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _instruction(_RETURN, _ERRNO | errno.EPERM)]
    for name, number in denied.items():
        if name in known:
            lines += [_instruction(_JUMP_EQUAL, known[name], 0, 1), _instruction(_RETURN, _ERRNO | number)]
    for name, tests in conditions.items():
        body = [line for test in tests for line in _test(test)] + [_instruction(_RETURN, _ALLOW)]
        lines += [_instruction(_JUMP_EQUAL, known[name], 0, len(body)), *body]
    return b"".join([*lines, _instruction(_RETURN, _ALLOW)])


def _test(test: _If) -> list[bytes]:
    offset = _ARGUMENTS_OFFSET + 8 * test.index + (4 if test.high else 0)
    lines = [_instruction(_LOAD, offset)]
    if test.mask != 0xFFFFFFFF:
        lines.append(_instruction(_AND, test.mask))
    if test.compare == "&":
        lines.append(_instruction(_JUMP_SET, test.value, 0, 1))
    else:
        hit, miss = (0, 1) if test.compare == "==" else (1, 0)
        lines.append(_instruction(_JUMP_EQUAL, test.value, hit, miss))
    return [*lines, _instruction(_RETURN, _ERRNO | errno.EPERM)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    if if_false > 255:
        raise libc.JailError("A rule of the system call filter is too long for one jump.")
    return struct.pack("=HBBI", code, if_true, if_false, value)
