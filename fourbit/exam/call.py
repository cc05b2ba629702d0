"""Calling a student's function by data: inputs and outcome are codec bytes, on the student's side of the wall.

The notebook's `check` and the grader's jailed process run this same code, so both see the same outcomes.
"""

from __future__ import annotations

import contextlib
import io
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fourbit.codec import decode, encode
from fourbit.errors import CodecError
from fourbit.exam.fixtures import resolve

PRINT_LIMIT = 4096
STATUSES = ("returned", "raised", "timeout", "missing", "unstarted", "unusable", "crashed", "out of memory")


@dataclass(frozen=True)
class Outcome:
    """What one call came to.

    Attributes:
        status: "returned", "raised", "timeout", "missing" (no such object), "unstarted" (NotImplementedError),
            "unusable" (a value that the codec does not carry), "crashed" or "out of memory" (told by the grader).
        value: the output when returned.
        error, message: exception class name and text when raised; the reason otherwise.
        line: the line of the student's cell that raised, 0 when unknown.
        changed: names of arguments that the call changed in place.
        printed: what the call wrote to stdout, cut at 4096 characters; warnings follow it.
        seconds: time of the call.
    """

    status: str
    value: Any = None
    error: str = ""
    message: str = ""
    line: int = 0
    changed: tuple[str, ...] = ()
    printed: str = ""
    seconds: float = 0.0


class CallTimeout(BaseException):
    """Raised inside a call that ran too long; a BaseException so that `except Exception` does not swallow it."""


def answer(namespace: Mapping[str, Any], entry: str, inputs: bytes, seconds: float) -> bytes:
    """Call `namespace[entry]` on encoded inputs and return the encoded outcome; never raises for what it calls.

    Args:
        inputs: ``encode({"args": tuple, "kwargs": dict, "seed": int})``; with "each", a list of tuples, the function is
            called once for each, with the tuple after `args`, and the value is the list of outputs.
        seconds: time limit of the call.
    """
    outcome = call(namespace.get(entry), entry, decode(inputs), seconds)
    fields = {**vars(outcome)}
    try:
        return encode(fields)
    except CodecError as error:
        fields.update(status="unusable", value=None, message=str(error))
        return encode(fields)


def read_outcome(data: bytes) -> Outcome:
    """Decode an outcome that came from an untrusted process.

    Raises:
        CodecError: when the bytes are no outcome.
    """
    fields = decode(data)
    known: dict[str, Any] = {"value": fields.get("value")} if isinstance(fields, dict) else {}
    if not known or fields.get("status") not in STATUSES:
        raise CodecError("the process returned something that is no outcome of a call")
    for name, kind in (
        ("status", str),
        ("error", str),
        ("message", str),
        ("printed", str),
        ("line", int),
        ("seconds", float),
    ):
        if not isinstance(fields.get(name), kind):
            raise CodecError(f"an outcome whose {name} is not a {kind.__name__}")
        known[name] = fields[name]
    known["changed"] = tuple(str(name) for name in fields.get("changed") or ())
    return Outcome(**known)


def call(function: Any, entry: str, inputs: Mapping[str, Any], seconds: float) -> Outcome:
    """Call `function(*inputs["args"], **inputs["kwargs"])` within bounds and describe what happened."""
    if function is None:
        return Outcome("missing", message=f"there is no `{entry}` yet; run its cell first")
    if not callable(function):
        return Outcome("missing", message=f"`{entry}` is a {type(function).__name__}, not a function")
    args, kwargs = resolve(inputs["args"]), resolve(inputs["kwargs"])
    if "each" in inputs:
        function = _one_after_the_other(function, inputs["each"])
    before = fingerprints(args, kwargs)
    printed = _Budget(PRINT_LIMIT)
    start = time.perf_counter()
    with same_random_state(int(inputs["seed"])), _quiet(printed):
        outcome = _guarded(function, args, kwargs, seconds)
    elapsed = time.perf_counter() - start
    after = fingerprints(args, kwargs)
    changed = tuple(name for name in before if before[name] != after[name])
    return Outcome(**{**vars(outcome), "changed": changed, "printed": printed.getvalue(), "seconds": elapsed})


def _one_after_the_other(function: Any, each: Any) -> Any:
    return lambda *args, **kwargs: [function(*args, *more, **kwargs) for more in each]


def _guarded(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], seconds: float) -> Outcome:
    try:
        with time_limit(seconds):
            return Outcome("returned", value=function(*args, **kwargs))
    except CallTimeout:
        return Outcome("timeout", message=f"still running after {seconds:g} s; is there an endless loop?")
    except NotImplementedError as error:
        return Outcome("unstarted", message=str(error))
    except MemoryError:
        return Outcome("out of memory", message="the call asked for more memory than it may use")
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit too: a student's exit() must not end the examination
        return Outcome("raised", error=type(error).__name__, message=str(error)[:500], line=_line(error))


def _line(error: BaseException) -> int:
    """The line within the student's cell: the deepest frame that is a notebook cell."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f.lineno or 0 for f in frames if "ipykernel" in f.filename or f.filename.startswith(("<ipython", "<cell"))]
    return ours[-1] if ours else 0


def fingerprints(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, bytes]:
    """Bytes by which a change of an argument is noticed, by the argument's name."""
    named = {f"argument {i + 1}": value for i, value in enumerate(args)} | {f"`{k}`": v for k, v in kwargs.items()}
    return {name: _fingerprint(value) for name, value in named.items()}


def _fingerprint(value: Any) -> bytes:
    if type(value) is np.ndarray and value.dtype.kind in "biuf":  # the codec takes ten times as long
        return f"{value.dtype} {value.shape} ".encode() + value.tobytes()
    return encode(value, opaque=True)


class _Budget(io.TextIOBase):
    """A text stream that keeps the first `limit` characters and drops the rest."""

    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._left = limit

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._parts.append(text[: self._left])
            self._left -= len(text)
        return len(text)

    def getvalue(self) -> str:
        return "".join(self._parts) + ("\n(cut)" if self._left < 0 else "")


@contextlib.contextmanager
def _quiet(printed: _Budget) -> Iterator[None]:
    """Send stdout and stderr into `printed`, and warnings with them: stderr in a check cell scores 0 in nbgrader."""
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda text, category, *_: printed.write(f"{category.__name__}: {text}\n") and None  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def same_random_state(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block and put their states back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `CallTimeout` in the main thread after `seconds`, and again every 0.2 s until it is heeded.

    Elsewhere than in the main thread there is no way to interrupt Python code, so nothing is limited there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
    elif hasattr(signal, "setitimer"):
        with _alarm_limit(seconds):
            yield
    else:
        with _interrupt_limit(seconds):
            yield


@contextlib.contextmanager
def _alarm_limit(seconds: float) -> Iterator[None]:
    def expire(*_: object) -> None:
        raise CallTimeout

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _interrupt_limit(seconds: float) -> Iterator[None]:
    """For systems without interval timers (Windows): a timer thread interrupts the main thread."""
    import _thread

    expired, done = threading.Event(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            expired.set()
            _thread.interrupt_main()
            wait = 0.2

    # A process that began with interrupts ignored, as a shell's background jobs do, would not notice.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if expired.is_set():
            raise CallTimeout from None
        raise
    finally:
        done.set()
        signal.signal(signal.SIGINT, previous)
