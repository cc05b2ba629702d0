"""A race of kernels that computes nothing on trust: fresh inputs, checked outputs, two clocks, interleaved medians.

Public kernel contests keep lists of entries that won without doing the work: outputs kept from an earlier call, a
patched timer, work that a lazy result puts off, inputs changed so that the next call has less to do, one buffer handed
out again and again, a thread that goes on after the call. Each contestant here takes the same inputs in turn, and the
first thing found wrong takes it out of the race, with the reason. CPU time of one thread by default: what others do on
the machine then costs less. Rules as in Hoefler & Belli, "Scientific Benchmarking of Parallel Computing Systems", 2015.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fourbit.errors import FourbitError
from fourbit.measure.timing import Timing

Array = np.ndarray[Any, Any]
Inputs = Sequence[Any]
Kernel = Callable[..., Any]

# Taken before any contestant can put its own in their place.
_cpu, _wall, _account = time.process_time, time.perf_counter, os.times
_threads = threading.active_count


@dataclass(frozen=True)
class Lap:
    """What a race says of one contestant.

    Attributes:
        timing: seconds of its runs, the warm-up excluded; None when it was taken out before it finished one.
        fault: why it was taken out, "" for an honest contestant.
    """

    timing: Timing | None
    fault: str = ""

    @property
    def median(self) -> float:
        """Median in seconds.

        Raises:
            FourbitError: for a contestant that was taken out.
        """
        if self.fault or self.timing is None:
            raise FourbitError(f"this contestant has no time: {self.fault}")
        return self.timing.median


def race(
    contestants: Mapping[str, Kernel],
    inputs: Callable[[int], Inputs],
    expected: Callable[..., Array],
    bound: Callable[..., Array | float],
    *,
    rounds: int = 9,
    warmup: int = 1,
    clock: str = "cpu",
) -> dict[str, Lap]:
    """Let kernels take turns on fresh inputs and return a lap for each.

    Args:
        contestants: {name: kernel}; a kernel takes the inputs and returns a NumPy array.
        inputs: round -> inputs, other values in each round; made and copied outside of the measured time.
        expected: the right output for inputs.
        bound: how far an element of the output may lie from it.
        clock: "cpu", time of this process, or "wall", for contestants with threads of their own.
    """
    if rounds < 3 or clock not in ("cpu", "wall"):
        raise FourbitError(f'race() needs at least 3 rounds and the clock "cpu" or "wall", not {rounds} and {clock!r}')
    entries = {name: _Entry(kernel) for name, kernel in contestants.items()}
    for number in range(warmup + rounds):
        given = inputs(number)
        wanted, slack = expected(*given), bound(*given)
        for entry in entries.values():
            if not entry.fault:
                entry.turn(given, wanted, slack, clock, counts=number >= warmup)
    return {name: Lap(Timing(tuple(e.samples)) if e.samples else None, e.fault) for name, e in entries.items()}


@dataclass
class _Entry:
    """One contestant in the course of a race."""

    kernel: Kernel
    fault: str = ""
    samples: list[float] = field(default_factory=list)
    earlier: tuple[Any, Array] | None = None
    claimed: float = 0.0
    used: float = 0.0

    def turn(self, given: Inputs, wanted: Array, slack: Array | float, clock: str, *, counts: bool) -> None:
        own = [value.copy() if isinstance(value, np.ndarray) else value for value in given]
        threads, used, cpu, wall = _threads(), _spent(), _cpu(), _wall()
        output = self.kernel(*own)
        cpu, wall = _cpu() - cpu, _wall() - wall
        self.claimed, self.used = self.claimed + cpu, self.used + _spent() - used
        self.fault = (
            _clocks()
            or _wrong(output, wanted, slack)
            or self._traces(own, given, threads)
            # The system counts in steps of 10 ms; over a race their rounding is far below a twentieth of a second.
            or ("its time and the system's account differ: a timer was changed" if self._lies() else "")
        )
        if not self.fault:
            self.earlier = (output, output.copy())
            if counts:
                self.samples.append(cpu if clock == "cpu" else wall)

    def _traces(self, own: list[Any], given: Inputs, threads: int) -> str:
        if any(not _same(a, b) for a, b in zip(own, given, strict=True)):
            return "it changed its inputs"
        if self.earlier is not None and not _same(*self.earlier):
            return "its earlier output changed: it hands out one buffer again and again"
        return "a thread of it goes on after the call" if _threads() > threads else ""

    def _lies(self) -> bool:
        return abs(self.used - self.claimed) > 0.05 + 0.1 * self.used


def _spent() -> float:
    spent = _account()
    return spent.user + spent.system


def _clocks(cpu: Callable[[], float] = time.process_time, wall: Callable[[], float] = time.perf_counter) -> str:
    """Put changed clocks back, and say so."""
    global _cpu, _wall
    if time.process_time is cpu is _cpu and time.perf_counter is wall is _wall:
        return ""
    _cpu = time.process_time = cpu
    _wall = time.perf_counter = wall
    return "it put another clock in the place of the system's"


def _wrong(output: Any, wanted: Array, slack: Array | float) -> str:
    if type(output) is not np.ndarray:
        return f"it returned a {type(output).__name__}, not an array: the work may still be to do"
    if output.shape != wanted.shape:
        return f"its output has the shape {output.shape}, not {wanted.shape}"
    apart = np.abs(output.astype(np.float64) - wanted)
    if not (apart <= slack).all():
        worst = int(np.nan_to_num(apart - slack, nan=np.inf).argmax())
        return f"output {worst} is {output.flat[worst]:.6g}, should be {wanted.flat[worst]:.6g}: it did not do the work"
    return ""


def _same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b)


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int = 9, clock: str = "cpu") -> dict[str, float]:
    """Median seconds of functions that take turns; for kernels whose outputs were checked before."""
    now = _cpu if clock == "cpu" else _wall
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = now()
            function()
            if number:
                samples[name].append(now() - start)
    return {name: statistics.median(values) for name, values in samples.items()}
