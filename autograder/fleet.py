"""Many submissions over many slots: any `concurrent.futures.Executor`, local processes by default.

A worker's death loses nothing: what was in flight is tried once more, each alone in a fresh process, so that only
the submission that really kills its worker is given up. Memory stays flat: submissions are read as slots get free.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver

from autograder.results import GradingError
from autograder.slots import install, work
from autograder.worker import Bundle, Graded, Task, decode

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Finished:
    """One submission's result; `graded` is None when its worker died twice, and `reason` says so."""

    task: Task
    graded: Graded | None
    reason: str = ""


@dataclass
class Fleet:
    """Slots for one bundle.

    Attributes:
        jobs: how many slots; each uses one thread.
        executor: where to run; None makes local processes. One that is given is left open.
        patience: seconds without any result after which local workers count as dead.
    """

    bundle: Bundle
    jobs: int = 1
    executor: Executor | None = None
    patience: float = 0.0
    _pool: ProcessPoolExecutor | None = field(default=None, init=False)

    def run(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """Yield the results as they come.

        Raises:
            Exception: what kept the grader itself from working (an `EngineError` says what to do).
        """
        waiting = iter(tasks)
        flying: dict[Future[str], Task] = {}
        with one_thread_each():
            try:
                while True:
                    self._fill(waiting, flying)
                    if not flying:
                        return
                    lost: list[Task] = []
                    done = wait(flying, self._patience(), FIRST_COMPLETED).done
                    if not done:
                        self._kill()
                        lost = list(flying.values())
                        flying.clear()
                    for future in done:
                        task = flying.pop(future)
                        try:
                            answer = future.result() or self._submit(task, self.bundle).result()
                        except BrokenExecutor:
                            lost.append(task)
                            continue
                        yield Finished(task, decode(answer))
                    if lost:
                        yield from self._again([*lost, *flying.values()])
                        flying.clear()
            finally:
                self._close(kill=bool(flying))

    def _fill(self, waiting: Iterator[Task], flying: dict[Future[str], Task]) -> None:
        """Keep twice as many submissions in flight as there are slots."""
        while len(flying) < 2 * self.jobs:
            task = next(waiting, None)
            if task is None:
                return
            try:
                flying[self._submit(task)] = task
            except BrokenExecutor:
                broken: Future[str] = Future()
                broken.set_exception(BrokenExecutor("the worker died before it was asked"))
                flying[broken] = task
                return

    def _submit(self, task: Task, bundle: Bundle | None = None) -> Future[str]:
        if self.executor is not None:
            return self.executor.submit(work, self.bundle.key, task, bundle)
        if self._pool is None:
            self._pool = self._new_pool(self.jobs)
        return self._pool.submit(work, self.bundle.key, task, bundle)

    def _again(self, tasks: list[Task]) -> Iterator[Finished]:
        """Try the submissions that a dead worker may have held, one at a time."""
        self._close()
        for task in tasks:
            pool: Executor = self.executor or self._new_pool(1)
            kill = True
            try:
                future = pool.submit(work, self.bundle.key, task, self.bundle)
                graded = decode(future.result(self._patience()))
                kill = False
                yield Finished(task, graded)
            except (BrokenExecutor, TimeoutError) as error:
                kill = isinstance(error, TimeoutError)
                yield Finished(task, None, "the grading process died twice on this submission; nothing could be graded")
            finally:
                if isinstance(pool, ProcessPoolExecutor) and pool is not self.executor:
                    _end(pool, kill)

    def _new_pool(self, jobs: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(jobs, mp_context=context, initializer=install, initargs=(self.bundle,))

    def _patience(self) -> float:
        """How long a whole submission may take at the very most, with the slot's own start."""
        return self.patience or 600.0 + 3 * self.bundle.limits.notebook_seconds

    def _kill(self) -> None:
        if self._pool is not None:
            _end(self._pool, kill=True)
            self._pool = None
        elif self.executor is not None:
            raise GradingError(f"no worker answered for {self._patience():.0f} s; are the cluster's workers running?")

    def _close(self, kill: bool = False) -> None:
        if self._pool is not None:
            _end(self._pool, kill)
            self._pool = None


def preheat(modules: Sequence[str]) -> None:
    """Start the server that local workers are forked from, and let it import `modules` while the caller goes on."""
    with one_thread_each():
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Have processes started meanwhile use one thread: slots side by side would wait for each other otherwise."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end(pool: ProcessPoolExecutor, kill: bool = False) -> None:
    processes = list((getattr(pool, "_processes", None) or {}).values())
    if kill:
        for process in processes:
            process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
