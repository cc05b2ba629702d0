"""Connecting to a scheduler, and keeping count of its workers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from autograder.cluster.fit import INSTALL, differences, forget_here, look_here, missing, unfit, versions
from autograder.cluster.seats import ClusterSeats
from autograder.jail import JailMode
from autograder.judging.worker import Bundle, Task
from autograder.results import GradingError, plain
from autograder.workers.slots import answer

_CONNECT_SECONDS = 5.0
_CALL_SECONDS = 20.0
_TOLD_SECONDS = 30.0

Notice = Callable[[str], None]


def connect(
    address: str, *, jail: JailMode | None = None, wait_seconds: float = 300.0, notice: Notice | None = None
) -> Cluster:
    """Connect to a Dask scheduler, wait for its first workers, and look at each of them.

    Args:
        address: ``tcp://HOST:PORT``, ``tls://HOST:PORT``, or the path of a scheduler file.
        jail: the isolation that every worker must enforce; None takes the strongest, if it is the same everywhere.
        wait_seconds: how long to wait while there is no worker.
        notice: is told what is being waited for, and which workers are left out.

    Raises:
        GradingError: when there is no scheduler, no worker, or a worker that does not fit; it says what to do.
    """
    try:
        import dask
        from distributed import Client
    except ModuleNotFoundError as error:
        raise GradingError(f"a cluster needs Dask, and there is no module {error.name!r} here: {INSTALL}") from None
    found = _scheduler_address(address)
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})  # a submission may be large
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or told here
    _knock(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other versions are refused below, in words
        try:
            client = Client(found, timeout=_CONNECT_SECONDS, set_as_default=False, direct_to_workers=False)
        except (OSError, ValueError, TypeError) as error:
            raise _no_scheduler(found, error) from None
    cluster = Cluster(client, found, wait_seconds, notice or (lambda text: None))
    try:
        cluster.agree(jail)
    except BaseException:
        cluster.close()
        raise
    return cluster


class Cluster:
    """A scheduler and those of its workers that grade. Use as a context manager.

    Attributes:
        mode: the isolation that is in force on every worker.
    """

    mode: JailMode

    def __init__(self, client: Any, address: str, wait_seconds: float, notice: Notice) -> None:
        self.address, self.wait_seconds = address, wait_seconds
        self._client, self._notice = client, notice
        self._lookers = ThreadPoolExecutor(4, thread_name_prefix="fourbit-look")
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="fourbit-call")
        self._looks: dict[str, Future[str]] = {}  # by worker: "" when it fits, otherwise what is wrong with it
        self._asked: JailMode | None = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """How many submissions the workers that are known can grade at the same time."""
        return max(1, sum(self.workers().values()))

    def seats(self, bundle: Bundle) -> ClusterSeats:
        return ClusterSeats(self, bundle)

    def agree(self, jail: JailMode | None) -> None:
        """Wait for the first workers and settle which isolation is in force.

        Raises:
            GradingError: when no worker comes, one does not fit, or they do not enforce the same isolation.
        """
        self._compare_scheduler()
        threads = self._first_workers()
        reports = {worker: self._report(worker) for worker in threads}
        wrong = [f"{worker}: {reason}" for worker, found in reports.items() if (reason := unfit(found, jail))]
        if wrong:
            raise GradingError(
                f"{len(wrong)} of {len(threads)} workers at {self.address} cannot grade. " + "; ".join(wrong[:5])
            )
        strongest = {worker: JailMode(found["modes"][0]) for worker, found in reports.items()}
        self.mode = jail or next(iter(strongest.values()))
        if jail is None and len(set(strongest.values())) > 1:
            told = "; ".join(f"{reports[worker]['host']} ({worker}): {mode}" for worker, mode in strongest.items())
            raise GradingError(
                f"the workers at {self.address} do not isolate submissions alike: {plain(told, 1000)}. Mend the weaker "
                "ones (`fourbit doctor` there says how), or ask for the weaker isolation on all of them: --jail "
                f"{_weakest(strongest.values())}"
            )
        if self.mode is JailMode.PLAIN and jail is not JailMode.PLAIN:
            raise GradingError(
                f"no worker at {self.address} can isolate submissions (`fourbit doctor` there says why). To grade work "
                "that you trust, with limits on time and size only, ask for it: --jail plain"
            )
        for worker in threads:
            self._looks[worker] = Future()
            self._looks[worker].set_result("")

    def workers(self) -> dict[str, int]:
        """The workers that fit, with their number of threads; new ones are being looked at meanwhile.

        Raises:
            GradingError: when the scheduler is gone.
        """
        threads = self._threads()
        for worker in threads:
            if worker not in self._looks:
                self._looks[worker] = self._lookers.submit(self._look, worker)
        for worker in set(self._looks) - set(threads):
            del self._looks[worker]
        ready = {worker: look for worker, look in self._looks.items() if look.done()}
        return {worker: threads[worker] for worker, look in ready.items() if not look.result()}

    def call(self, worker: str, key: str, task: Task, bundle: Bundle | None) -> Any:
        """Send a submission to one worker; returns Dask's future of the answer."""
        return self._client.submit(answer, key, task, bundle, workers=[worker], pure=False, retries=0)

    def restart(self, worker: str) -> None:
        """Have a worker that is stuck replaced by its nanny, if it has one."""
        with suppress(Exception):
            self._client.restart_workers([worker], timeout=_CALL_SECONDS, raise_for_error=False)

    def forget(self, key: str) -> None:
        """Let the workers end what they keep warm for a bundle."""
        if self._client.status == "running":
            workers = [worker for worker, look in self._looks.items() if look.done() and not look.result()]
            with suppress(Exception):
                self._sync(self._client.run, forget_here, key, workers=workers, on_error="ignore")

    def require_scheduler(self) -> None:
        """Raise a GradingError when the scheduler is gone."""
        if self._client.status != "running":
            raise GradingError(
                f"the scheduler at {self.address} is gone. What was graded is kept: start the cluster and give the "
                "same command again, and the rest is graded"
            )

    def close(self) -> None:
        """Leave the cluster; its workers stay."""
        for pool in (self._lookers, self._caller):
            pool.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):
            self._client.close(timeout=5)

    def _first_workers(self) -> dict[str, int]:
        started = told = time.monotonic()
        while not (threads := self._threads()):
            now = time.monotonic()
            if now - started > self.wait_seconds:
                raise GradingError(
                    f"no worker has joined the scheduler at {self.address} in {self.wait_seconds:.0f} s. Start some, "
                    f"on any machine that reaches it: dask worker {self.address} --nthreads 1 --nworkers CORES"
                )
            if now >= told:
                self._notice(f"waiting for workers to join {self.address}")
                told = now + _TOLD_SECONDS
            time.sleep(0.2)
        return threads

    def _threads(self) -> dict[str, int]:
        self.require_scheduler()
        try:
            return dict(self._sync(self._client.nthreads))
        except (OSError, CancelledError) as error:
            self.require_scheduler()
            raise GradingError(
                f"the scheduler at {self.address} does not answer ({plain(error, 200)}). What was graded is kept: give "
                "the same command again when it does"
            ) from None

    def _look(self, worker: str) -> str:
        """What keeps a worker that joined later from grading, "" if nothing."""
        reason = unfit(self._report(worker), self.mode)
        if reason:
            self._notice(f"left out: {worker}: {reason}")
        return reason

    def _report(self, worker: str) -> Any:
        try:
            return self._client.run(look_here, workers=[worker], on_error="return")[worker]
        except Exception as error:
            return error

    def _compare_scheduler(self) -> None:
        """The scheduler unpacks what passes through it, so it needs the same modules."""
        try:
            problem = differences(self._client.run_on_scheduler(versions))
        except Exception as error:
            problem = missing(error)
        if problem:
            raise GradingError(f"the scheduler at {self.address} has another environment: {problem}. There: {INSTALL}")

    def _sync(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client's, but do not wait for ever."""
        return self._caller.submit(function, *args, **kwargs).result(_CALL_SECONDS)


def _weakest(modes: Iterable[JailMode]) -> JailMode:
    order = list(JailMode)
    return max(modes, key=order.index)


def _scheduler_address(text: str) -> str:
    """Return the address that `text` is, or that the scheduler file of this name holds."""
    if "://" in text or not (os.sep in text or text.endswith(".json")):
        return text
    try:
        return str(json.loads(Path(text).read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GradingError(
            f"{text} is no scheduler file ({type(error).__name__}: {plain(error, 200)}). `dask scheduler "
            "--scheduler-file FILE` writes one; or give an address such as tcp://HOST:8786"
        ) from None


def _knock(address: str) -> None:
    """Ask who is there: a client that found nobody would go on trying in the background."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> None:
        arguments = Security().get_connection_args("client")
        async with rpc(address, timeout=_CONNECT_SECONDS, connection_args=arguments) as there:
            identity = await asyncio.wait_for(there.identity(n_workers=0), _CONNECT_SECONDS)
        if not isinstance(identity, dict) or identity.get("type") != "Scheduler":
            raise OSError("what answers there is no scheduler")

    try:
        asyncio.run(ask())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise _no_scheduler(address, error) from None


def _no_scheduler(address: str, error: BaseException) -> GradingError:
    cause = plain(str(error) or type(error).__name__, 300)
    if address.startswith("tls:"):
        hint = "for tls://, DASK_DISTRIBUTED__COMM__TLS__CA_FILE and the client's CERT and KEY must name your files"
    else:
        hint = "start one with `dask scheduler`, and give the address that it prints, such as tcp://HOST:8786"
    return GradingError(f"no Dask scheduler answers at {plain(address, 200)} ({cause}); {hint}")
