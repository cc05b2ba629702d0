"""The kernels on ARM, by a cross compiler and under an emulator: NEON with and without SDOT, and scalar."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from fourbit.kernels import CACHE_KINDS, KINDS, build, cache_row_bytes
from tests.kernel_matrices import Known, allowed, known, whole_activations
from tests.test_kernels_floats import UNIT, attention, layer_of, stored

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"no {COMPILER} or {EMULATOR} (Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)",
)
NUMBERS = {"scalar": 0, "neon": 1, "neon-dotprod": 2}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("arm") / "kernels"
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi")
    options = ("-O2", "-std=gnu11", "-static", "-pthread", "-fno-math-errno", *warnings, "-I", str(build.SOURCES))
    main, *units = Path(__file__).with_name("kernels_main.c"), *(build.SOURCES / unit for unit in build.UNITS[1:])
    command = [COMPILER, *options, str(main), *map(str, units), "-o", str(target), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def run(program: Path, folder: Path, problems: list[bytes]) -> np.ndarray:
    (folder / "problems").write_bytes(b"".join(problems))
    command = [EMULATOR, str(program), str(folder / "problems"), str(folder / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.frombuffer((folder / "results").read_bytes(), np.float32)


def product(isa: int, threads: int, m: Known, x: np.ndarray) -> bytes:
    matrix, groups = m.matrix, 0 if m.matrix.scale is None else m.matrix.scale.shape[1]
    numbers = KINDS.index(matrix.kind), *matrix.shape, matrix.data.shape[1], matrix.group, groups, len(x)
    parts = [part.tobytes() for part in (matrix.data, matrix.scale, matrix.zero) if part is not None]
    return struct.pack("10q", 0, isa, threads, *numbers) + b"".join(parts) + x.tobytes()


def test_the_instruction_sets_are_there(program: Path) -> None:
    names = [subprocess.run([EMULATOR, str(program), str(n)], capture_output=True, text=True).stdout for n in range(4)]
    assert names == [*(f"{name}\n" for name in NUMBERS), "\n"]


@pytest.mark.parametrize("isa", NUMBERS)
def test_products(program: Path, tmp_path: Path, isa: str) -> None:
    cases = []
    for kind in KINDS:
        for rows, columns, group, tokens in ((5, 256, 32, 1), (37, 768, 64, 1), (19, 512, 128, 6), (3, 256, 48, 3)):
            narrow = 7 if kind[0] in "FG" and rows == 37 else 0
            m = known(kind, rows, columns - narrow, seed=rows, group=group)
            cases.append((m, whole_activations(tokens, columns - narrow, seed=rows)))
    found = run(program, tmp_path, [product(NUMBERS[isa], 1 + i % 3, m, x) for i, (m, x) in enumerate(cases)])
    for m, x in cases:
        here, found = np.split(found, [len(x) * m.matrix.rows])
        off = np.abs(here.reshape(len(x), -1) - x.astype(np.float64) @ m.values.T)
        assert (off <= allowed(m, x, exact_codes=True)).all(), (m.matrix.kind, m.matrix.shape, len(x))
    assert len(found) == 0


@pytest.mark.parametrize("isa", NUMBERS)
def test_attention(program: Path, tmp_path: Path, isa: str) -> None:
    cases, problems, random = [], [], np.random.default_rng(0)
    for kind in CACHE_KINDS:
        for width, kv_heads, heads, tokens, length in ((32, 1, 1, 1, 3), (64, 3, 9, 1, 150), (96, 2, 4, 11, 70)):
            numbers = random.standard_normal((2, kv_heads, length, width)).astype(np.float32)
            layer = layer_of(kind, kv_heads, length, width)
            for rows, part in zip((layer.keys, layer.values), numbers, strict=True):
                rows[...] = encoded(kind, part)
            q = random.standard_normal((tokens, heads, width)).astype(np.float32)
            row = cache_row_bytes(width, kind)
            head = 1, NUMBERS[isa], 2, CACHE_KINDS.index(kind), kv_heads, length, width, row, heads, tokens
            problems.append(struct.pack("10q", *head) + layer.keys.tobytes() + layer.values.tobytes() + q.tobytes())
            cases.append((layer, q, length))
    found = run(program, tmp_path, problems)
    for layer, q, length in cases:
        here, found = np.split(found, [q.size])
        keys, values = (stored(layer, rows, length) for rows in (layer.keys, layer.values))
        exact = attention(q.astype(np.float64), keys, values, length - len(q))
        largest = max(np.abs(keys).max() * np.abs(q).max() * np.sqrt(layer.width), 1)
        bound = UNIT * np.abs(values).max() * (2 * layer.width * largest + length + 20)  # as in test_kernels_floats.py
        assert np.abs(here.reshape(exact.shape) - exact).max() <= bound
    assert len(found) == 0


def encoded(kind: str, numbers: np.ndarray) -> np.ndarray:
    if kind in ("f32", "f16"):
        return np.ascontiguousarray(numbers.astype(np.float32 if kind == "f32" else np.float16)).view(np.uint8)
    return gguf.quants.quantize(numbers, Kind.Q8_0 if kind == "q8" else Kind.Q4_0)
