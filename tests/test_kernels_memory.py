"""What the kernels touch: no byte outside their buffers. Each buffer lies between two pages that may not be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel_matrices import SETS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called through Linux's libc")

SCRIPT = """
import ctypes, itertools, mmap, sys
import numpy as np, torch
from fourbit import kernels
from fourbit.kernels import CacheLayer, Matrix, cache_row_bytes
from tests.kernel_matrices import known

libc, page, kept = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE, []

def fenced(array, at_end):
    # A copy whose last (or first) byte is next to a page without permissions.
    inside = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, inside + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + page + inside):
        assert libc.mprotect(ctypes.c_void_p(fence), page, 0) == 0, ctypes.get_errno()
    kept.append(memory)
    offset = page + (inside - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy

def tensor(shape, at_end):
    return torch.from_numpy(fenced(np.random.default_rng(0).standard_normal(shape).astype(np.float32), at_end))

def products(k, kind, at_end):
    block = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256}.get(kind, 32)
    for rows, blocks, group in ((1, 1, 32), (5, 3, 32), (33, 19, 64), (3, 2, 96)):
        columns = block * (blocks if block == 32 else 1 + blocks % 3)
        columns -= 7 if kind[0] in "FG" and rows == 5 else 0
        m = known(kind, rows, columns, 1, group).matrix
        parts = [None if part is None else fenced(part, at_end) for part in (m.data, m.scale, m.zero)]
        m = Matrix(kind, m.shape, *parts, m.group)
        for tokens in (1, 3, 7):
            out = tensor((tokens, rows), at_end)
            k.matmul([m], tensor((tokens, columns), at_end), [out])
            assert out.isfinite().all()
        k.rows(m, [rows - 1, 0])

def attention(k, kind, at_end):
    for width, heads, tokens, capacity in ((32, 1, 1, 1), (64, 6, 5, 9), (96, 2, 40, 131), (128, 4, 1, 70)):
        rows = np.zeros((max(heads // 2, 1), capacity, cache_row_bytes(width, kind)), np.uint8)
        layer = CacheLayer(kind, width, fenced(rows, at_end), fenced(rows, at_end))
        new = tensor((capacity, layer.kv_heads, width), at_end)
        k.store(layer, 0, new, new)
        out = tensor((tokens, heads * width), at_end)
        k.attend(tensor((tokens, heads, width), at_end), layer, capacity - tokens, out)
        assert out.isfinite().all()

def floats(k, at_end):
    for width in (1, 15, 16, 17, 100):
        x, weight, half = tensor((3, width), at_end), tensor((width,), at_end), tensor((3, width), at_end)
        k.rms_norm(x, weight, 1e-5, tensor((3, width), at_end))
        k.swiglu(x, half, tensor((3, width), at_end))
        for neighbors in (True, False):
            k.rope(tensor((3, 2, 2 * width), at_end), half, half, neighbors)

k = kernels.load(1, "c", sys.argv[1])
for at_end in (True, False):
    for kind in kernels.KINDS:
        products(k, kind, at_end)
    for kind in kernels.CACHE_KINDS:
        attention(k, kind, at_end)
    floats(k, at_end)
if "beyond" in sys.argv:  # the fences stand: a read behind one ends the process
    ctypes.string_at(kept[0] and ctypes.addressof(ctypes.c_char.from_buffer(kept[0])), 1)
print("within bounds")
"""


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("isa", SETS)
def test_nothing_outside_the_buffers_is_read_or_written(root: Path, isa: str) -> None:
    done = run(root, isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "within bounds\n"


@pytest.mark.skipif(not SETS, reason="no C compiler here")
def test_a_read_outside_would_be_seen(root: Path) -> None:
    assert run(root, "scalar", "beyond").returncode == -11  # SIGSEGV
