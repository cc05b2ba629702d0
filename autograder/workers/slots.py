"""The grading slots of one process: the bundles that it was given, and a warm slot for each thread that grades.

A local worker has one thread and one bundle. A cluster's worker may have several threads and serve several
coordinators in turn, so a slot is only ever closed by its own thread or while that thread is idle.
"""

from __future__ import annotations

import atexit
import json
import threading
from multiprocessing.util import Finalize

from autograder.engine import EngineError
from autograder.judging.worker import Bundle, Graded, Slot, Task, decode, encode
from autograder.results import GradingError

_FAILED = "!"
_KEPT = 4  # bundles; each holds a template and an exam, and each of its slots a zygote


class Slots:
    """Bundles by key, and slots by bundle and thread. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bundles: dict[str, Bundle] = {}
        self._slots: dict[tuple[str, int], Slot] = {}
        self._busy: set[tuple[str, int]] = set()

    def install(self, bundle: Bundle) -> None:
        """Remember `bundle`; the oldest of more than four is forgotten."""
        with self._lock:
            self._bundles.pop(bundle.key, None)
            self._bundles[bundle.key] = bundle
            while len(self._bundles) > _KEPT:
                del self._bundles[next(iter(self._bundles))]
        self._sweep()

    def work(self, key: str, task: Task) -> str:
        """Grade `task` in this thread's slot; the answer is JSON text, or "" when the bundle is not known."""
        mine = (key, threading.get_ident())
        with self._lock:
            bundle = self._bundles.get(key)
            if bundle is None:
                return ""
            self._busy.add(mine)
        try:
            slot = self._slots.get(mine) or self._slots.setdefault(mine, Slot(bundle))
            return encode(slot.grade(task))
        finally:
            with self._lock:
                self._busy.discard(mine)
            self._sweep()

    def forget(self, key: str) -> None:
        """Drop a bundle and end its slots; one that is at work ends when it is done."""
        with self._lock:
            self._bundles.pop(key, None)
        self._sweep()

    def close(self) -> None:
        """End every slot, whatever it does."""
        with self._lock:
            slots = list(self._slots.values())
            self._slots.clear()
        for slot in slots:
            slot.close()

    def _sweep(self) -> None:
        """End the idle slots of bundles that were forgotten."""
        with self._lock:
            stale = [mine for mine in self._slots if mine[0] not in self._bundles and mine not in self._busy]
            slots = [self._slots.pop(mine) for mine in stale]
        for slot in slots:
            slot.close()


_HERE = Slots()
atexit.register(_HERE.close)


def install(bundle: Bundle) -> None:
    """Give this process a bundle."""
    _HERE.install(bundle)
    Finalize(None, _HERE.close, exitpriority=10)  # a process of multiprocessing leaves without atexit


def work(key: str, task: Task, bundle: Bundle | None = None) -> str:
    """Grade `task` in this process; the answer is JSON text, or "" when the process does not know the bundle yet."""
    if bundle is not None:
        install(bundle)
    return _HERE.work(key, task)


def forget(key: str) -> None:
    """End this process's slots of a bundle."""
    _HERE.forget(key)


def close_slots() -> None:
    """End this process's zygotes."""
    _HERE.close()


def answer(key: str, task: Task, bundle: Bundle | None = None) -> str:
    """As :func:`work`, but what keeps the grader from working is told in the text: no exception crosses a wire."""
    try:
        return work(key, task, bundle)
    except Exception as error:
        return _FAILED + json.dumps([type(error).__name__, str(error)])


def read_answer(text: str) -> Graded | None:
    """Return what :func:`answer` says; None when the process does not know the bundle.

    Raises:
        EngineError: when the worker's machine cannot run any submission.
        GradingError: for any other failure of the grader there, or for text that is no answer.
    """
    if not text:
        return None
    if text.startswith(_FAILED):
        name, message = json.loads(text.removeprefix(_FAILED))
        if name == EngineError.__name__:
            raise EngineError(message)
        raise GradingError(message if name == GradingError.__name__ else f"the grader failed: {name}: {message}")
    return decode(text)
