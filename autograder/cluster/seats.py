"""The seats of a cluster's workers, as workers come and go."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from autograder.judging.worker import Bundle, Task
from autograder.results import GradingError
from autograder.workers.fleet import Seat, WorkerLostError

if TYPE_CHECKING:
    from autograder.cluster.hub import Cluster

_LOOK_SECONDS = 1.0


class ClusterSeats:
    """One seat for each thread of each worker that fits, as they come and go."""

    def __init__(self, cluster: Cluster, bundle: Bundle) -> None:
        self._cluster, self._bundle = cluster, bundle
        self._seats: dict[str, list[WorkerSeat]] = {}
        self._served = time.monotonic()  # when there was a worker last
        self._next_look = 0.0

    @property
    def limit(self) -> int:
        return sum(map(len, self._seats.values()))

    def more(self, wanted: int) -> Sequence[Seat]:
        """Return the seats of workers that have joined; those of workers that have left are lost."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + _LOOK_SECONDS
        workers = self._cluster.workers()
        for worker in set(self._seats) - set(workers):
            for seat in self._seats.pop(worker):
                seat.lose()
        joined = {
            worker: [WorkerSeat(self._cluster, worker, self._bundle) for _ in range(threads)]
            for worker, threads in workers.items()
            if worker not in self._seats
        }
        self._seats |= joined
        if self._seats:
            self._served = now
        elif now - self._served > self._cluster.wait_seconds:
            raise GradingError(
                f"the workers at {self._cluster.address} are gone, and none has come for "
                f"{self._cluster.wait_seconds:.0f} s. What was graded is kept: start workers and give the same command "
                "again"
            )
        return [seat for seats in joined.values() for seat in seats]

    def close(self) -> None:
        self._cluster.forget(self._bundle.key)


class WorkerSeat:
    """One thread of one worker."""

    def __init__(self, cluster: Cluster, worker: str, bundle: Bundle) -> None:
        self.host: Hashable = worker
        self.gone = False
        self._cluster, self._worker, self._bundle = cluster, worker, bundle
        self._future: Any = None

    def grade(self, task: Task, seconds: float) -> str:
        return self._ask(task, None, seconds) or self._ask(task, self._bundle, seconds)

    def _ask(self, task: Task, bundle: Bundle | None, seconds: float) -> str:
        from distributed import KilledWorker

        future = self._future = self._cluster.call(self._worker, self._bundle.key, task, bundle)
        try:
            if self.gone:
                raise CancelledError
            return str(future.result(timeout=seconds))
        except TimeoutError:
            self.gone = True
            self._cluster.restart(self._worker)
            raise WorkerLostError(f"no answer in {seconds:.0f} s", stuck=True) from None
        except (KilledWorker, CancelledError, OSError) as error:
            self._cluster.require_scheduler()
            raise WorkerLostError(f"{self._worker} is gone") from error
        finally:
            self._future = None
            future.release()

    def lose(self) -> None:
        """The worker is gone, and no answer will come."""
        self.gone = True
        self.stop()

    def stop(self) -> None:
        future = self._future
        if future is not None:
            with suppress(Exception):
                future.cancel()

    def close(self) -> None:
        """The worker stays."""
