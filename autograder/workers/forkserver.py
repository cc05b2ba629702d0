"""A process that has imported the grader and forks workers from itself, so that the imports are paid for once.

As in multiprocessing, but nothing of it outlives the coordinator: the server ends when its socket closes, its workers
end with it, and neither has a file or a socket with a name.
"""

from __future__ import annotations

import atexit
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import NoReturn

from autograder.jail import libc

Serve = Callable[[Connection], None]


@dataclass(frozen=True)
class Worker:
    """A forked process: the pipe to it, and a descriptor that names it for as long as it is open."""

    pipe: Connection
    handle: int

    def kill(self) -> None:
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def close(self, seconds: float) -> None:
        """Hang up, wait until the process is gone, and kill it after `seconds`."""
        self.pipe.close()
        if not select.select([self.handle], [], [], seconds)[0]:
            self.kill()
            select.select([self.handle], [], [])
        os.close(self.handle)


class ForkServer:
    """The server of this process; started when first needed, and again when it died.

    Args:
        serve: the function that a worker runs, as "package.module:function"; it gets the worker's end of the pipe.
    """

    def __init__(self, serve: str) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        atexit.register(self.close)

    def start(self, modules: Sequence[str] = ()) -> None:
        """Start the server, and let it import `modules` while the caller goes on."""
        with self._lock:
            if self._process is None:
                self._start(modules)

    def fork(self) -> Worker:
        """Return a new worker.

        Raises:
            OSError: when there can be none.
        """
        ours, theirs = Pipe()
        with self._lock, theirs:
            try:
                return Worker(ours, self._ask(theirs))
            except OSError:
                self._end()  # it died; the next one may live
                return Worker(ours, self._ask(theirs))

    def close(self) -> None:
        """End the server and its workers."""
        with self._lock:
            self._end()

    def _ask(self, theirs: Connection) -> int:
        if self._control is None:
            self._start(())
        assert self._control is not None
        try:
            socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
            said, handles, _, _ = socket.recv_fds(self._control, 64, 1)
        except ConnectionError:
            said, handles = b"it has ended", []
        if not handles:
            raise OSError(f"the fork server gave no worker: {said.decode('utf-8', 'replace')}")
        return handles[0]

    def _start(self, modules: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from autograder.workers.forkserver import main; "
            f"main({theirs.fileno()}, {self._serve!r}, {list(modules)!r})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )
        self._control = ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


def main(descriptor: int, serve: str, modules: Sequence[str]) -> NoReturn:
    """The server: import, then fork on request, until the coordinator hangs up or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator ends its workers
    control = socket.socket(fileno=descriptor)
    package, function = serve.split(":")
    for name in modules:
        importlib.import_module(name)
    run: Serve = getattr(importlib.import_module(package), function)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets workers that ended
    with suppress(ConnectionError):
        while True:
            said, pipes, _, _ = socket.recv_fds(control, 64, 1)
            if not said:
                break
            _fork(control, pipes[0], run)
    os._exit(0)


def _fork(control: socket.socket, pipe: int, run: Serve) -> None:
    server = os.getpid()
    try:
        worker = os.fork()
    except OSError as error:
        os.close(pipe)
        control.send(str(error).encode()[:64])
        return
    if worker == 0:
        code = 1
        try:
            libc.die_with_parent(parent=server)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            run(Connection(pipe))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(pipe)
    try:
        handle = os.pidfd_open(worker)
    except ProcessLookupError:
        control.send(b"it ended at once")
        return
    socket.send_fds(control, [b"here"], [handle])
    os.close(handle)
