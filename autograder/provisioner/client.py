"""The client's side of its jailed kernels: one zygote for all of them, a folder of sockets, a handle for each."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autograder.engine import Zygote
from autograder.engine.frames import DeadlineError, HungUp, ProtocolError
from autograder.engine.runner import Jailed
from autograder.jail import JailError, JailMode, Limits
from autograder.jail.warden import SOCKET_PREFIX, remove_tree

_LONGEST_SOCKET = 107
_SIGNAL_SECONDS = 1.0


class KernelProcess(Jailed):
    """One kernel. ``poll`` and ``signal`` return at once; ``close`` waits until nothing of it is left."""

    code: int | None = None
    why = words = ""

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and the commands that it runs; nothing when it has ended."""
        with contextlib.suppress(HungUp, DeadlineError, OSError):
            self._wire.send({"signal": number}, deadline=time.monotonic() + _SIGNAL_SECONDS)

    def poll(self) -> int | None:
        """The exit code once the kernel has ended; ``why`` then names the limit that it hit, if any, and ``words``
        holds the end of what it wrote past its outputs."""
        if self.code is not None:
            return self.code
        try:
            for frame in self._wire.receive_ready():
                code = frame.header.get("code")
                self.code = code if type(code) is int else 1
                self.why = str(frame.header.get("why") or frame.header.get("message") or "")
                self.words = str(frame.header.get("words", "")).strip()
        except (HungUp, ProtocolError, OSError):
            self.code = -9
            self.why = self.why or "all its processes ended"
        return self.code


class KernelZygote(Zygote):
    """The zygote of this process's kernels; ``launch`` may be called from any thread."""

    module = "autograder.provisioner.zygote"

    def __init__(self, preload: tuple[str, ...], readable: tuple[Path, ...], mode: JailMode | None) -> None:
        super().__init__(preload, mode=mode, packages=("fourbit", "autograder"), readable=readable)
        self._lock = threading.Lock()
        self._number = 0
        self.sockets = _make_folder()

    def _settings(self, folder: str) -> dict[str, Any]:
        return {**super()._settings(folder), "sockets": self.sockets}

    def address(self) -> str:
        """The path of a new kernel's sockets but for their number, as Jupyter builds it: ADDRESS-1, ADDRESS-2, ..."""
        with self._lock:
            self._number += 1
            return os.path.join(self.sockets, f"k{self._number}")

    def launch(
        self, limits: Limits, files: Mapping[str, bytes], kernel: dict[str, Any], paths: list[str]
    ) -> KernelProcess:
        """Fork a kernel that answers on ``paths``. Raises :class:`~autograder.engine.EngineError` when the jail
        cannot be built."""

        def spawn() -> KernelProcess:
            _make_private(self.sockets)  # a zygote that ended took it along
            with contextlib.ExitStack() as stack:
                channels = [stack.enter_context(_listen(path)) for path in paths]
                header = {"do": "spawn", "limits": asdict(limits), "kernel": kernel}
                ends = self._ask_for_fork(header, tuple(channel.fileno() for channel in channels))
            return self._settle(KernelProcess(*ends, limits, self.mode), files, None)

        with self._lock:
            return self._with_restart(spawn)


def _listen(path: str) -> socket.socket:
    """A socket that clients can connect to before the kernel runs."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.setblocking(False)  # a client that is gone again must not block the kernel
    channel.bind(path)
    channel.listen(64)
    return channel


def _make_folder() -> str:
    prefix = f"{SOCKET_PREFIX}{os.getpid()}-"
    longest = len(os.path.join(tempfile.gettempdir(), prefix + "12345678", "k99999-9"))
    return tempfile.mkdtemp(prefix=prefix, dir=None if longest <= _LONGEST_SOCKET else "/tmp")


def _make_private(folder: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if os.lstat(folder).st_uid != os.geteuid():
        raise JailError(f"{folder}, where this process keeps its kernels' sockets, was taken by another user.")


_zygotes: dict[tuple[object, ...], KernelZygote] = {}
_lock = threading.Lock()


def zygote_for(preload: tuple[str, ...], readable: tuple[Path, ...], mode: JailMode | None) -> KernelZygote:
    """This process's zygote with these settings; it starts with its first kernel."""
    key = (os.getpid(), preload, readable, mode)
    with _lock:
        if not _zygotes:
            atexit.register(_close_all)
        if key not in _zygotes:
            _zygotes[key] = KernelZygote(preload, readable, mode)
        return _zygotes[key]


def _close_all() -> None:
    for (owner, *_), zygote in _zygotes.items():
        if owner == os.getpid():  # a forked copy of the client must not end the client's kernels
            zygote.close()
            remove_tree(zygote.sockets)
