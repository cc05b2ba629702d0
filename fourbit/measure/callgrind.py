"""Instructions and cache lines for each weight, counted by valgrind's cachegrind: the same numbers on every run.

A small C program multiplies one matrix several times on a simulated processor, with caches of sizes that stand here
and not those of this machine. The difference between two counts of repetitions leaves start and end out. Valgrind knows
AVX2 and no AVX-512, so the text is compiled for AVX2 on x86.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fourbit.errors import FourbitError
from fourbit.measure.native import compiler

ROWS, COLUMNS = 512, 4096
_CACHES = ("--D1=32768,8,64", "--LL=524288,16,64")  # both matrices, 1.2 and 8 MiB, are larger
_FLAGS = {"x86_64": ("-mavx2", "-mfma"), "AMD64": ("-mavx2", "-mfma")}

MAIN = r"""
#include <stdlib.h>
#include <string.h>

__attribute__((noinline))
static void loops(const uint8_t *pairs, const float *scale, const uint8_t *zero, const float *x, float *y,
                  int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row++) {
        float total = 0;
        for (int64_t j = 0; j < columns; j++) {
            int64_t g = (row * columns + j) / 64;
            int code = j % 2 ? pairs[(row * columns + j) / 2] >> 4 : pairs[(row * columns + j) / 2] & 15;
            total += ((float)code - (float)zero[g]) * scale[g] * x[j];
        }
        y[row] = total;
    }
}

typedef float vector __attribute__((vector_size(32), aligned(4)));

__attribute__((noinline))
static void dense(const float *w, const float *x, float *y, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row++) {
        vector a = {0}, b = {0};
        for (int64_t j = 0; j < columns; j += 16) {
            a += *(const vector *)(w + row * columns + j) * *(const vector *)(x + j);
            b += *(const vector *)(w + row * columns + j + 8) * *(const vector *)(x + j + 8);
        }
        a += b;
        y[row] = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
    }
}

int main(int count, char **arguments) {
    const int64_t rows = ROWS, columns = COLUMNS, groups = columns / 64;
    float *w = calloc(rows * columns, 4), *x = calloc(columns, 4), *y = calloc(rows, 4);
    uint8_t *packed = calloc(rows * groups, 32), *zero = calloc(rows * groups, 1);
    float *scale = calloc(rows * groups, 4), *code_scale = calloc(groups, 4);
    int8_t *codes = calloc(columns, 1);
    int32_t *code_sum = calloc(groups, 4);
    memset(packed, 0x5A, rows * groups * 32);
    for (int i = 0; i < atoi(arguments[2]); i++) {
        if (arguments[1][0] == 'd') dense(w, x, y, rows, columns);
        if (arguments[1][0] == 'l') loops(packed, scale, zero, x, y, rows, columns);
        if (arguments[1][0] == 'g') gemv(packed, scale, zero, codes, code_scale, code_sum, y, rows, groups);
    }
    return count == 3 ? 0 : 1;
}
"""
KERNELS = {"dense float32": "dense", "4-bit loops": "loops", "yours": "gemv"}


@dataclass(frozen=True)
class Counted:
    """What one weight costs: instructions executed, and lines of 64 bytes read from memory."""

    instructions: float
    lines: float


def available() -> bool:
    """Whether this machine has valgrind and a compiler for a processor that it simulates."""
    return bool(shutil.which("valgrind") and compiler() and platform.machine() in _FLAGS)


def count(source: str) -> dict[str, Counted]:
    """Count for the kernels `KERNELS`: a dense one, plain 4-bit loops, and the `gemv` that C text defines.

    Args:
        source: C text, :data:`fourbit.measure.native.HEADER` included.

    Raises:
        FourbitError: where a tool is missing, the text does not compile, or the kernel crashes.
    """
    if not available():
        raise FourbitError("counting needs valgrind and a C compiler on x86-64; the chapter has the numbers")
    with tempfile.TemporaryDirectory(prefix="fourbit-") as folder:
        program, text = Path(folder, "kernels"), Path(folder, "kernels.c")
        text.write_text(source + MAIN, encoding="utf-8")
        sizes = (f"-DROWS={ROWS}", f"-DCOLUMNS={COLUMNS}")
        _run([*compiler(), "-O3", "-std=gnu11", *_FLAGS[platform.machine()], *sizes, "-o", str(program), str(text)])
        return {name: _counted(program, argument) for name, argument in KERNELS.items()}


def _counted(program: Path, argument: str) -> Counted:
    once, twice = (_events(program, argument, repeats) for repeats in (1, 2))
    weights = ROWS * COLUMNS
    return Counted((twice[0] - once[0]) / weights, (twice[1] - once[1]) / weights)


def _events(program: Path, argument: str, repeats: int) -> tuple[int, int]:
    """Instructions, and lines that data reads fetched from memory."""
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", "--cachegrind-out-file=/dev/null", *_CACHES]
    said = _run([*tool, str(program), argument, str(repeats)])
    instructions = re.search(r"I\s+refs:\s+([\d,]+)", said)
    lines = re.search(r"LLd misses:\s+[\d,]+\s+\(\s*([\d,]+) rd", said)
    if instructions is None or lines is None:
        raise FourbitError(f"valgrind said something else than counts:\n{said[-800:]}")
    return tuple(int(found[1].replace(",", "")) for found in (instructions, lines))  # type: ignore[return-value]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise FourbitError(f"{Path(command[0]).name} failed:\n{done.stderr[-1500:]}")
    return done.stderr
