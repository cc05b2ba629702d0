"""Landlock: file access by allow-list, no TCP, no signals and abstract sockets across the jail's border.

Needs no rights at all; Linux 5.13 has files, 6.7 TCP, 6.12 the scopes. See the kernel's userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from autograder.jail import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_QUERY_VERSION, _RULE_PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FIRST_RIGHTS = (1 << 13) - 1  # ABI 1; ABI 2 adds REFER, 3 TRUNCATE, 5 IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 0b11
_SCOPES = 0b11  # abstract unix sockets, signals


def abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    try:
        return libc.syscall("landlock", _CREATE_RULESET, None, 0, _QUERY_VERSION)
    except libc.JailError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str], *, devices: Iterable[str] = ()) -> None:
    """Confine this process, for good, to reading ``readable`` and writing ``writable`` (folders or files).

    ``devices`` may be read and written but nothing may be made beside them. Paths that do not exist are passed over.
    Raises :class:`~autograder.jail.libc.JailError` where the kernel has no Landlock. ``no_new_privs`` must be set.
    """
    version = abi()
    if version == 0:
        raise libc.JailError("Landlock is not available: this kernel is older than 5.13 or has it switched off.")
    rights = _FIRST_RIGHTS | (1 << 13 if version >= 2 else 0)
    rights |= (_TRUNCATE if version >= 3 else 0) | (_IOCTL_DEV if version >= 5 else 0)
    attributes = struct.pack("=QQQ", rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall("landlock_create_ruleset", _CREATE_RULESET, _buffer(attributes), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, rights & _READ)
        for path in writable:
            _allow(ruleset, path, rights)
        for path in devices:
            _allow(ruleset, path, rights & (_READ | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV))
        libc.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, handle)
        libc.syscall(f"landlock rule for {path}", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, _buffer(rule), 0)
    finally:
        os.close(handle)


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))
