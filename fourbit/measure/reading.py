"""The read roof: bytes per second that some cores can read from memory at best.

Decoding reads all weights for each token, so this divided by their bytes is the most tokens per second there can be
(Williams et al., CACM 52(4), 2009). The best of several loops counts: one or several streams, with and without
prefetching, in C as wide as this processor goes; where no C compiler is found, PyTorch's dot product.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fourbit.data.cache import cache_folder, write_atomically
from fourbit.errors import FourbitError, KernelError
from fourbit.kernels.build import compilers
from fourbit.measure.probe import probe_machine

_SOURCE = Path(__file__).with_name("read_roof.c")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-Wno-psabi")
LOOPS = ((1, 0), (1, 256), (2, 256), (4, 0), (4, 256))  # streams, bytes that are prefetched ahead
_BLOCK = 2**30  # bytes: far larger than any last-level cache of a laptop
_SECONDS = 120


@dataclass(frozen=True)
class ReadRoof:
    """Bytes per second that `threads` cores read at best, and the loop that did it."""

    bandwidth: float
    threads: int
    loop: str


class Reader:
    """A block of memory and the loops that read it; :meth:`best` may be asked again, `roof` is the best of all times.

    Raises:
        FourbitError: for no threads, or when there is too little memory.
    """

    def __init__(self, threads: int = 1, size: int = _BLOCK) -> None:
        if threads < 1:
            raise FourbitError(f"reading needs at least one thread, not {threads}")
        self._threads, self._size = threads, size // threads // 4096 * 4096 * threads
        self._library = _library()
        self.roof = ReadRoof(0.0, threads, "")
        if self._library is not None:
            self._block = _block(self._size)

    def best(self, repeats: int = 2) -> ReadRoof:
        """Read the block `repeats` times with each loop, and return the best of these."""
        if self._library is None:
            found = probe_machine(self._threads, seconds=0.5 * repeats).peak_bandwidth
            laps = [ReadRoof(found, self._threads, "PyTorch's dot product or triad")]
        else:
            laps = [self._lap(streams, ahead) for _ in range(repeats) for streams, ahead in LOOPS]
        best = max(laps, key=lambda lap: lap.bandwidth)
        self.roof = max(self.roof, best, key=lambda roof: roof.bandwidth)
        return best

    def _lap(self, streams: int, ahead: int) -> ReadRoof:
        fetched = f", prefetched {ahead} bytes ahead" if ahead else ""
        loop = f"{streams} stream(s) for each thread{fetched}"
        return ReadRoof(self._size / self._once(streams, ahead), self._threads, loop)

    def _once(self, streams: int, ahead: int) -> float:
        """Return the seconds from the first thread's beginning to the last one's end."""
        assert self._library is not None
        read, share = self._library.read_block, self._size // self._threads
        together, address = threading.Barrier(self._threads), self._block.ctypes.data
        began, ended = [0.0] * self._threads, [0.0] * self._threads

        def work(i: int) -> None:
            together.wait()
            began[i] = time.perf_counter()
            read(address + i * share, share, streams, ahead)
            ended[i] = time.perf_counter()

        workers = [threading.Thread(target=work, args=(i,)) for i in range(self._threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return max(ended) - min(began)


def read_roof(threads: int = 1, repeats: int = 2, say: Callable[[str], None] = lambda _: None) -> ReadRoof:
    """Measure the roof once; takes about a second and 1 GiB of memory."""
    say(f"reading memory with {threads} thread(s)")
    return Reader(threads).best(repeats)


def _block(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return memory that is really there, in huge pages where the system gives them."""
    try:
        memory = mmap.mmap(-1, size)
    except (OSError, ValueError):
        raise FourbitError(f"there are no {size / 1e9:.1f} GB of memory to read; close other programs") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    block = np.frombuffer(memory, np.uint64)
    block[:] = 1
    return block


def _library() -> ctypes.CDLL | None:
    """Return the compiled loops; None where there is no compiler that can."""
    for compiler in compilers():
        try:
            library = ctypes.CDLL(str(_compiled(compiler)))
        except (OSError, KernelError, subprocess.SubprocessError):
            continue
        library.read_block.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
        library.read_block.restype = ctypes.c_uint64
        return library
    return None


def _compiled(compiler: tuple[str, ...]) -> Path:
    """Return the library, kept in the cache folder; its name says source, compiler and processor (-march=native)."""
    asked = [*compiler, *_FLAGS[:2], "-E", "-dM", "-x", "c", os.devnull]
    native = subprocess.run(asked, capture_output=True, check=True)
    parts = (_SOURCE.read_bytes(), shlex.join(compiler).encode(), native.stdout)
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    target = cache_folder() / f"read-roof-{name}{'.dll' if sys.platform == 'win32' else '.so'}"
    if not target.exists():
        part = target.with_name(f".{target.name}.{os.getpid()}")
        position = () if sys.platform == "win32" else ("-fPIC",)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            command = [*compiler, *_FLAGS, *position, str(_SOURCE), "-o", str(part)]
            subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)
            write_atomically(target, part.read_bytes())
        finally:
            part.unlink(missing_ok=True)
    return target
