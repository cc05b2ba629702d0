"""Repeated timings with a warm-up, summarized by the median and an interval for it.

Run times have a floor and a long right tail, so a mean and a standard deviation describe them badly. The
interval for the median needs no assumption about their distribution: it lies between two ordered samples.
Reference: Hoefler & Belli, "Scientific Benchmarking of Parallel Computing Systems", SC 2015, rules 5 to 8.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fourbit.errors import FourbitError


@dataclass(frozen=True)
class Timing:
    """Wall times of one function in seconds, in the order in which they were taken, warm-up excluded.

    Example:
        ``Timing((0.011, 0.010, 0.019)).median == 0.011``
    """

    samples: tuple[float, ...]
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not self.samples:
            raise FourbitError("a Timing needs at least one sample; call measure() with min_runs >= 1")

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.samples)

    @property
    def fastest(self) -> float:
        """The least disturbed run in seconds: a floor, not a typical value."""
        return min(self.samples)

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the median in seconds, by the large-sample ranks n/2 -+ z sqrt(n)/2, rounded outward.

        Wider than need be when there are few samples.
        """
        n, ordered = len(self.samples), sorted(self.samples)
        reach = statistics.NormalDist().inv_cdf((1 + self.confidence) / 2) * math.sqrt(n)
        below, above = math.floor((n - reach) / 2), math.ceil((n + reach) / 2)
        return ordered[max(below, 1) - 1], ordered[min(above, n - 1)]

    def __str__(self) -> str:
        low, high = self.interval
        scale, unit = _unit(self.median)
        shown = [f"{value * scale:.3g}" for value in (self.median, low, high)]
        return f"{shown[0]} {unit} [{shown[1]}, {shown[2]}], {len(self.samples)} runs"


def measure(
    function: Callable[[], object],
    *,
    warmup: int = 3,
    min_runs: int = 10,
    max_runs: int = 1000,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time `function()` repeatedly for about `seconds`, after `warmup` runs that are not recorded.

    Args:
        function: takes nothing; its result is thrown away.
        min_runs: taken even if they last longer than `seconds`.
        max_runs: enough, even if there is time left.
        clock: returns seconds; only differences are used.
    """
    return measure_together(
        {"it": function}, warmup=warmup, min_runs=min_runs, max_runs=max_runs, seconds=seconds, clock=clock
    )["it"]


def measure_together(
    functions: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 3,
    min_runs: int = 10,
    max_runs: int = 1000,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several functions in turns, so that a disturbance of the machine falls on all of them alike.

    Arguments as in :func:`measure`; `seconds` is the time for all functions together.
    """
    if min_runs < 1 or max_runs < min_runs:
        raise FourbitError(f"measure() needs 1 <= min_runs <= max_runs, not {min_runs} and {max_runs}")
    for _ in range(warmup):
        for function in functions.values():
            function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    spent = 0.0
    runs = 0
    while runs < min_runs or (spent < seconds and runs < max_runs):
        for name, function in functions.items():
            start = clock()
            function()
            samples[name].append(clock() - start)
            spent += samples[name][-1]
        runs += 1
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def _unit(seconds: float) -> tuple[float, str]:
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * scale >= 1:
            return scale, unit
    return 1e9, "ns"
