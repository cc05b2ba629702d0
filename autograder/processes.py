"""Worker processes of this machine. Each grades one submission at a time and answers with text over its pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from autograder.fleet import WorkerLostError, one_thread_each
from autograder.jail import libc
from autograder.slots import answer, install
from autograder.worker import Bundle, Task

_GROWTH = 512 * 2**20  # bytes that a worker may gain over what it had after its first submission
_CLOSE_SECONDS = 20.0


@dataclass
class Processes:
    """Up to `limit` worker processes, started as work comes.

    Attributes:
        growth: bytes of memory that a worker may gain before a fresh one takes its place.
    """

    bundle: Bundle
    limit: int
    growth: int = _GROWTH
    _made: int = field(default=0, init=False)

    def more(self, wanted: int) -> Sequence[ProcessSeat]:
        new = max(0, min(wanted, self.limit - self._made))
        self._made += new
        return [ProcessSeat(self.bundle, self.growth) for _ in range(new)]

    def close(self) -> None:
        """Nothing is left: each seat ends its own process."""


class ProcessSeat:
    """One worker process, started when it is first needed and again after it died."""

    gone = False

    def __init__(self, bundle: Bundle, growth: int) -> None:
        self.host: object = self
        self._bundle, self._growth = bundle, growth
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stopped = False

    def grade(self, task: Task, seconds: float) -> str:
        """Return the worker's answer.

        Raises:
            WorkerLostError: when the process died, or gave no answer in `seconds` and was ended for that.
        """
        try:
            pipe = self._started()
            if self._stopped:
                raise EOFError
            pipe.send(task)
            if not pipe.poll(seconds):
                raise WorkerLostError(f"no answer in {seconds:.0f} s", stuck=True)
            text = pipe.recv_bytes().decode()  # text only: nothing that comes back is unpickled
        except (WorkerLostError, EOFError, OSError) as error:
            self._kill()
            self.close()
            raise error if isinstance(error, WorkerLostError) else WorkerLostError("killed or crashed") from error
        if text[0] == _LEAVING:
            self.close()
        return text[1:]

    def stop(self) -> None:
        """End the process now; may be called from another thread."""
        self._stopped = True
        self._kill()

    def close(self) -> None:
        """Let the process end in order."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(_CLOSE_SECONDS)
            self._process.kill()
            self._process.join()
            self._process.close()
        self._pipe = self._process = None

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            with suppress(ValueError):  # the seat's own thread has closed it meanwhile
                process.kill()

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("forkserver")
            self._pipe, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, self._bundle, self._growth), daemon=True)
            process.start()
            theirs.close()
            self._process = process
        return self._pipe


_STAYING, _LEAVING = "=", "."


def serve(pipe: Connection, bundle: Bundle, growth: int) -> None:
    """What a worker process does until its pipe closes: grade one task after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator ends its workers
    libc.die_with_parent(parent=os.getppid())
    install(bundle)
    first = 0
    with suppress(EOFError, BrokenPipeError):
        while True:
            text = answer(bundle.key, pipe.recv())
            first = first or _memory()
            leaving = _memory() - first > growth
            pipe.send_bytes(((_LEAVING if leaving else _STAYING) + text).encode())
            if leaving:
                return


def preheat(modules: Sequence[str]) -> None:
    """Start the server that workers are forked from, and let it import `modules` while the caller goes on."""
    with one_thread_each():
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def _memory() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
