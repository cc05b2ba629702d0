"""Many submissions over many seats: processes of this machine, a cluster's workers, or any Executor.

A seat grades one submission at a time. Each has a thread here that waits for its answers, so a submission is bound to
a worker only while that worker grades it, and only the one that was being graded is in doubt when a worker dies. Such
a submission is tried again, alone on its worker, and given up after three deaths; nothing else notices. Memory stays
flat: at most two submissions for each seat are read, under way or waiting to be written.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from autograder.judging.worker import Bundle, Graded, Task
from autograder.results import GradingError
from autograder.workers.slots import read_answer, work

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_TRIES = 3
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Finished:
    """One submission's result; `graded` is None when its worker died every time, and `reason` says so."""

    task: Task
    graded: Graded | None
    reason: str = ""


class WorkerLostError(Exception):
    """A worker went away with a submission; `stuck` when it was ended because it gave no answer."""

    def __init__(self, message: str, *, stuck: bool = False) -> None:
        super().__init__(message)
        self.stuck = stuck


class Seat(Protocol):
    """Grades one submission at a time.

    Attributes:
        host: equal for seats that share a process, and so die together.
        gone: the seat will grade no more.
    """

    host: Hashable
    gone: bool

    def grade(self, task: Task, seconds: float) -> str:
        """Return the answer of :func:`autograder.workers.slots.answer`; raise WorkerLostError when none can come."""

    def stop(self) -> None:
        """Give up what is under way; called from another thread."""

    def close(self) -> None:
        """Leave in order; called after the last submission."""


class Seats(Protocol):
    """Where seats come from."""

    @property
    def limit(self) -> int:
        """How many seats there may be, as far as is known."""

    def more(self, wanted: int) -> Sequence[Seat]:
        """Return new seats; `wanted` says how many would have work. Raises GradingError when no seat is left."""

    def close(self) -> None:
        """End what the seats had in common."""


class Hub(Protocol):
    """A cluster that has been connected to."""

    def seats(self, bundle: Bundle) -> Seats: ...


@dataclass
class Fleet:
    """Seats for one bundle.

    Attributes:
        jobs: how many seats on this machine or in an Executor; each uses one thread.
        executor: where to run; None makes local processes. One that is given is left open.
        patience: seconds after which a worker that does not answer counts as dead.
    """

    bundle: Bundle
    jobs: int = 1
    executor: Executor | Hub | None = None
    patience: float = 0.0
    _desk: _Desk | None = field(default=None, init=False)

    @property
    def running(self) -> tuple[str, ...]:
        """The students whose submissions are being graded now."""
        return self._desk.running() if self._desk is not None else ()

    def run(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """Yield the results as they come.

        Raises:
            Exception: what kept the grader itself from working (an `EngineError` says what to do).
        """
        waiting = iter(tasks)
        seats = self._seats()
        desk = self._desk = _Desk(self.patience or 600.0 + 3 * self.bundle.limits.notebook_seconds)
        with one_thread_each():
            try:
                while self._fill(desk, seats, waiting):
                    landed = desk.landed()
                    if landed is not None:
                        yield _finished(*landed)
            finally:
                desk.leave()
                seats.close()

    def _fill(self, desk: _Desk, seats: Seats, waiting: Iterator[Task]) -> bool:
        """Read ahead, and open seats for what was read; whether anything is left to wait for."""
        while desk.open < 2 * max(1, seats.limit) and (task := next(waiting, None)) is not None:
            desk.put(task)
            desk.open_seats(seats)  # at once: a seat starts while the next submission is read
        if desk.open:
            desk.open_seats(seats)
        return desk.open > 0

    def _seats(self) -> Seats:
        if self.executor is None:
            from autograder.workers.processes import Processes

            return Processes(self.bundle, self.jobs)
        if isinstance(self.executor, Executor):
            return _ExecutorSeats(self.executor, self.bundle, self.jobs)
        return self.executor.seats(self.bundle)


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


def _finished(flight: _Flight, outcome: str | Exception) -> Finished:
    if isinstance(outcome, WorkerLostError):
        how = "gave no answer" if outcome.stuck else f"died {_TRIES} times"
        return Finished(
            flight.task, None, f"the grading process {how} on this submission ({outcome}); nothing could be graded"
        )
    if isinstance(outcome, Exception):
        raise outcome
    graded = read_answer(outcome)
    if graded is None:
        raise GradingError("a worker does not know what to grade with, although it was told")
    return Finished(flight.task, graded)


@dataclass
class _Flight:
    """One submission on its way; `losses` counts the workers that it was lost with."""

    task: Task
    losses: int = 0


class _Desk:
    """What the thread that reads and writes shares with the threads of the seats."""

    def __init__(self, patience: float) -> None:
        self.open = 0  # read, and not yet handed back; only the reading thread counts
        self._patience = patience
        self._ready: deque[_Flight] = deque()
        self._again: deque[_Flight] = deque()
        self._flying: dict[Seat, _Flight] = {}
        self._results: queue.SimpleQueue[tuple[_Flight, str | Exception]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._over = False
        self._changed = threading.Condition()

    def running(self) -> tuple[str, ...]:
        with self._changed:
            return tuple(flight.task.student for flight in self._flying.values())

    def put(self, task: Task) -> None:
        with self._changed:
            self.open += 1
            self._ready.append(_Flight(task))
            self._changed.notify_all()

    def landed(self) -> tuple[_Flight, str | Exception] | None:
        """Return the next result, or None after a second without any."""
        try:
            result = self._results.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None
        self.open -= 1
        return result

    def open_seats(self, seats: Seats) -> None:
        """Take in the seats that have come, and as many as would have something to do."""
        with self._changed:
            short = len(self._ready) + len(self._again) - self._idle
        for seat in seats.more(max(0, short)):
            thread = threading.Thread(target=self._sit, args=(seat,), name="fourbit-seat", daemon=True)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(thread)
            with self._changed:
                self._idle += 1
            thread.start()

    def leave(self) -> None:
        """End every seat; what is under way is given up."""
        with self._changed:
            self._over = True
            under_way = list(self._flying)
            self._changed.notify_all()
        for seat in under_way:
            seat.stop()
        for thread in self._threads:
            thread.join()

    def _sit(self, seat: Seat) -> None:
        """One seat's thread: grade until there is nothing more to come."""
        try:
            while not seat.gone and (flight := self._take(seat)) is not None:
                outcome: str | Exception
                try:
                    outcome = seat.grade(flight.task, self._patience)
                except Exception as error:
                    outcome = error
                self._land(seat, flight, outcome)
        finally:
            with self._changed:
                self._idle -= 1
            seat.close()

    def _take(self, seat: Seat) -> _Flight | None:
        with self._changed:
            while not self._over:
                beside = [flight for other, flight in self._flying.items() if other.host == seat.host]
                # What was lost with a worker runs alone on its host: another death then has but one suspect.
                if self._again and not beside:
                    found = self._again.popleft()
                elif not self._again and self._ready and not any(flight.losses for flight in beside):
                    found = self._ready.popleft()
                else:
                    self._changed.wait(_LOOK_SECONDS)
                    if seat.gone:
                        return None
                    continue
                self._flying[seat] = found
                self._idle -= 1
                return found
            return None

    def _land(self, seat: Seat, flight: _Flight, outcome: str | Exception) -> None:
        with self._changed:
            del self._flying[seat]
            self._idle += 1
            self._changed.notify_all()
            if isinstance(outcome, WorkerLostError):
                flight.losses += 1 + outcome.stuck  # a second long wait would be in vain
                if flight.losses < _TRIES:
                    self._again.append(flight)
                    return
        self._results.put((flight, outcome))


class _ExecutorSeats:
    """Seats that send their work to an Executor of the caller's."""

    def __init__(self, executor: Executor, bundle: Bundle, limit: int) -> None:
        self.limit = limit
        self._executor, self._bundle, self._made = executor, bundle, 0

    def more(self, wanted: int) -> Sequence[Seat]:
        new = max(0, min(wanted, self.limit - self._made))
        self._made += new
        return [_ExecutorSeat(self._executor, self._bundle) for _ in range(new)]

    def close(self) -> None:
        """The Executor stays open."""


class _ExecutorSeat:
    gone = False

    def __init__(self, executor: Executor, bundle: Bundle) -> None:
        self.host: Hashable = id(executor)
        self._executor, self._bundle = executor, bundle
        self._awake, self._stopped = threading.Event(), False

    def grade(self, task: Task, seconds: float) -> str:
        try:
            return self._ask(task, None, seconds) or self._ask(task, self._bundle, seconds)
        except (BrokenExecutor, CancelledError) as error:
            raise WorkerLostError(str(error) or "its executor broke") from error

    def _ask(self, task: Task, bundle: Bundle | None, seconds: float) -> str:
        future = self._executor.submit(work, self._bundle.key, task, bundle)
        future.add_done_callback(lambda done: self._awake.set())
        if not self._awake.wait(seconds) or self._stopped:
            future.cancel()
            raise WorkerLostError(f"no answer in {seconds:.0f} s", stuck=True)
        self._awake.clear()
        return future.result()

    def stop(self) -> None:
        self._stopped = True
        self._awake.set()

    def close(self) -> None:
        """The Executor stays open."""
