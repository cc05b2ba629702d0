"""The two numbers that bound every kernel on this machine: arithmetic and memory throughput.

Reference: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009. Streams as in McCalpin's STREAM, with write-allocate traffic not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fourbit.errors import FourbitError
from fourbit.measure.timing import measure_together

_GEMM = 1024  # 2 * 1024^3 FLOP: long enough for a clock, small enough to stay in cache
_STREAM = 2**25  # float32 elements per array, 128 MiB: larger than the last-level cache of a laptop


@dataclass(frozen=True)
class Roofline:
    """What a machine can do at best, as measured.

    Attributes:
        peak_flops: fp32 floating-point operations per second; a multiply-accumulate is two.
        peak_bandwidth: bytes per second between memory and core, for data far larger than the caches.
        threads: torch threads that were used.
    """

    peak_flops: float
    peak_bandwidth: float
    threads: int = 1

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.peak_flops / 1e9:.1f} GFLOP/s, {self.peak_bandwidth / 1e9:.1f} GB/s ({threads})"


def probe_machine(threads: int = 1, seconds: float = 1.5) -> Roofline:
    """Measure this machine's roofline in about two seconds, by the fastest of interleaved runs.

    The fastest, not the median: a roof is what the machine can do, and whatever disturbs a run only lowers it.
    Arithmetic by an fp32 matrix product; bandwidth by the faster of a dot product (two streams read) and a
    triad (two read, one written). Needs 0.4 GB of memory.

    Args:
        threads: torch threads to use; restored afterwards.
        seconds: time for the timed runs, set-up excluded.
    """
    if threads < 1:
        raise FourbitError(f"probe_machine() needs at least one thread, not {threads}")
    with _threads(threads), torch.inference_mode():
        a, b = torch.ones(_GEMM, _GEMM), torch.ones(_GEMM, _GEMM)
        c = torch.empty(_GEMM, _GEMM)
        x, y, z = torch.ones(_STREAM), torch.ones(_STREAM), torch.zeros(_STREAM)
        timings = measure_together(
            {
                "gemm": lambda: torch.mm(a, b, out=c),
                "dot": lambda: torch.dot(x, y),
                "triad": lambda: torch.add(x, y, alpha=0.5, out=z),
            },
            warmup=2,
            min_runs=5,
            seconds=seconds,
        )
    bandwidth = {"dot": 2 * 4 * _STREAM, "triad": 3 * 4 * _STREAM}  # bytes moved
    return Roofline(
        peak_flops=2 * _GEMM**3 / timings["gemm"].fastest,
        peak_bandwidth=max(count / timings[name].fastest for name, count in bandwidth.items()),
        threads=threads,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
