"""Kernels that a notebook writes: as C text where this machine has a compiler, else as a numba function.

:func:`kernel` turns a function that writes a kernel into the kernel. The text is compiled once for this processor
(-O3 -march=native, a tenth of a second) and called by ctypes; there is no build system and no Python header. Where no
compiler is found, or the writer has no C to offer, its numba function takes the same arguments.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fourbit.errors import KernelError
from fourbit.kernels.build import compilers

Array = np.ndarray[Any, Any]
Writer = Callable[[str], Any]

HEADER = """\
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>

/* The sum of eight 32-bit integers. */
static inline int32_t sum8(__m256i v) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#if defined(_WIN32)
__declspec(dllexport)
#endif
void gemv(const uint8_t *packed, const float *scale, const uint8_t *zero, const int8_t *codes,
          const float *code_scale, const int32_t *code_sum, float *y, int64_t rows, int64_t groups);
"""
"""What stands before a learner's text: the instructions of this processor, a sum over lanes, the kernel's signature."""

_KINDS = (np.uint8, np.float32, np.uint8, np.int8, np.float32, np.int32)


def kernel(write: Writer) -> Kernel:
    """Return the kernel that `write` writes.

    Args:
        write: tool -> kernel. For "c" it returns C text that defines `gemv` as :data:`HEADER` declares it, or None; for
            "numba" a function (packed, scale, zero, codes, code_scale, code_sum) -> y.
    """
    return Kernel(write)


class Kernel:
    """A kernel that is built at its first call: packed (rows, groups, 32) uint8, scale (rows, groups) float32, zero
    (rows, groups) uint8, codes (groups, 64) int8, code_scale (groups,) float32, code_sum (groups,) int32 -> y (rows,)
    float32.

    Attributes:
        tool: "c" or "numba" once it is built, "" before.
        source: the C text as it was written, "" where there is none.
    """

    def __init__(self, write: Writer) -> None:
        functools.update_wrapper(self, write)
        self._write = write
        self._built: Callable[..., Array] | None = None
        self.tool = self.source = ""

    def __call__(self, *arrays: Array) -> Array:
        if self._built is None:
            self._built = self._build()
        return self._built(*arrays)

    def _build(self) -> Callable[..., Array]:
        text = self._write("c") if compiler() else None
        if text is not None:
            self.tool, self.source = "c", text
            return _calling(compile_c(HEADER + text))
        self.tool = "numba"
        built: Callable[..., Array] = self._write("numba")
        return built


def compiler() -> tuple[str, ...]:
    """The command of a C compiler on this machine, empty where there is none."""
    return next(iter(compilers()), ())


@functools.lru_cache(maxsize=64)
def compile_c(source: str) -> ctypes.CDLL:
    """Compile C text for this processor and load it.

    Raises:
        KernelError: where there is no compiler, or with the compiler's words where the text is no C.
    """
    command = compiler()
    if not command:
        raise KernelError("no C compiler found: install gcc or clang, or write the numba version")
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    folder = Path(tempfile.mkdtemp(prefix="fourbit-"))
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    try:
        text.write_text(source, encoding="utf-8")
        options = ["-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-o", str(library), str(text)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise KernelError(f"{command[0]} does not compile this kernel:\n{done.stderr[:1500]}")
        return ctypes.CDLL(str(library))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the loaded library needs no file


def _calling(library: ctypes.CDLL) -> Callable[..., Array]:
    library.gemv.restype = None

    def gemv(*arrays: Array) -> Array:
        given = [np.ascontiguousarray(array, kind) for array, kind in zip(arrays, _KINDS, strict=True)]
        rows, groups = given[1].shape
        y = np.empty(rows, np.float32)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*given, y)]
        library.gemv(*pointers, ctypes.c_int64(rows), ctypes.c_int64(groups))
        return y

    return gemv
