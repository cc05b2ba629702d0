"""Worker processes of this machine. Each grades one submission at a time and answers with text over its pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from autograder.judging.worker import Bundle, Task
from autograder.results import GradingError
from autograder.workers.fleet import WorkerLostError, one_thread_each
from autograder.workers.forkserver import ForkServer, Worker
from autograder.workers.slots import answer, close_slots, install

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
        self._worker: Worker | None = None
        self._stopped = False

    def grade(self, task: Task, seconds: float) -> str:
        """Return the worker's answer.

        Raises:
            WorkerLostError: when the process died, or gave no answer in `seconds` and was ended for that.
            GradingError: when no process can be started.
        """
        try:
            pipe = self._pipe()
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
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(_CLOSE_SECONDS)

    def _kill(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _pipe(self) -> Connection:
        if self._worker is None:
            try:
                worker = _SERVER.fork()
            except OSError as error:
                raise GradingError(f"this machine cannot start a grading process: {error}") from error
            self._worker = worker
            worker.pipe.send((self._bundle, self._growth))
        if self._stopped:
            raise EOFError
        return self._worker.pipe


_STAYING, _LEAVING = "=", "."


def serve(pipe: Connection) -> None:
    """What a worker process does until its pipe closes: grade one task after another."""
    with suppress(EOFError, ConnectionError):
        try:
            _serve(pipe)
        finally:
            close_slots()
            sys.stderr.flush()


def _serve(pipe: Connection) -> None:
    bundle, growth = pipe.recv()
    install(bundle)
    first = 0
    while True:
        text = answer(bundle.key, pipe.recv())
        first = first or _memory()
        leaving = _memory() - first > growth
        pipe.send_bytes(((_LEAVING if leaving else _STAYING) + text).encode())
        if leaving:
            return


_SERVER = ForkServer("autograder.workers.processes:serve")


def preheat(modules: Sequence[str]) -> None:
    """Start the server that workers are forked from, and let it import `modules` while the caller goes on."""
    with one_thread_each():
        _SERVER.start(modules)


def _memory() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
