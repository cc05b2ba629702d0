"""The operations in numba, for machines without a C compiler.

numba's own thread pools do not survive a fork, so rows are shared out to plain threads here: the loops let go of
Python's global lock.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from fourbit.errors import KernelError
from fourbit.kernels.cache_layer import CACHE_KINDS, CacheLayer
from fourbit.kernels.matrix import KINDS, Matrix
from fourbit.kernels.operations import Kernels

try:
    from fourbit.kernels import portable_loops as loops
    from fourbit.kernels.portable_formats import HALVES
except ImportError as error:  # numba is a dependency, but not on every processor
    raise KernelError(f"numba cannot be imported ({error}); pip install numba, or install a C compiler") from None

Array = np.ndarray[Any, Any]
_CHUNK = 64  # rows
_NO_GROUPS = np.empty((1, 0), np.float32)
_BLOCKS = {"q8": Kind.Q8_0, "q4": Kind.Q4_0}


class NumbaKernels(Kernels):
    """The operations in numba. The first call of each compiles it, for seconds; numba keeps the result."""

    backend = isa = "numba"
    few = 2**31  # tokens never share additions

    def _matmul(self, matrices: Sequence[Matrix], x: Tensor, outs: Sequence[Tensor]) -> None:
        exact, rounded, work = x.numpy(), None, []
        for matrix, tensor in zip(matrices, outs, strict=True):
            out, (kind, *parts) = tensor.numpy(), _arguments(matrix)
            if _has_codes(matrix):
                rounded = rounded or _rounded(exact)
                run = functools.partial(_multiply_codes, kind, matrix.columns, parts, rounded, out)
            else:
                run = functools.partial(_multiply_floats, kind, matrix.columns, parts, exact, out)
            for first in range(0, matrix.rows, _CHUNK):
                work.append(functools.partial(run, first, min(first + _CHUNK, matrix.rows)))
        self._share(work)

    def _rows(self, matrix: Matrix, ids: Tensor, out: Tensor) -> None:
        kind, *parts = _arguments(matrix)
        loops.decode_rows(kind, matrix.columns, *parts, ids.numpy(), HALVES, out.numpy())

    def _rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        loops.norm(x.numpy(), weight.numpy(), eps, out.numpy())

    def _rope(self, x: Tensor, cos: Tensor, sin: Tensor, neighbors: bool) -> None:
        loops.turn(x.numpy(), cos.numpy(), sin.numpy(), neighbors)

    def _swiglu(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        loops.swiglu(gate.view(-1).numpy(), up.view(-1).numpy(), out.view(-1).numpy())

    def _add(self, x: Tensor, y: Tensor) -> None:
        x.add_(y)

    def _store(self, layer: CacheLayer, position: int, keys: Tensor, values: Tensor) -> None:
        for rows, new in ((layer.keys, keys), (layer.values, values)):
            numbers = new.numpy().swapaxes(0, 1)  # (kv_heads, T, width)
            if layer.kind in _BLOCKS:
                with np.errstate(invalid="ignore", over="ignore"):
                    packed = gguf.quants.quantize(np.ascontiguousarray(numbers), _BLOCKS[layer.kind])
            else:
                with np.errstate(over="ignore"):  # a half's infinity begins at 65520
                    dtype = np.float32 if layer.kind == "f32" else np.float16
                    packed = np.ascontiguousarray(numbers.astype(dtype)).view(np.uint8)
            rows[:, position : position + len(keys)] = packed

    def _attend(self, q: Tensor, layer: CacheLayer, start: int, out: Tensor) -> None:
        queries, mixed, kind = q.numpy(), out.view(q.shape).numpy(), CACHE_KINDS.index(layer.kind)
        shared = q.shape[1] // layer.kv_heads
        self._share([
            functools.partial(
                loops.attend_head, kind, head, layer.keys[head // shared], layer.values[head // shared], queries, start,
                HALVES, mixed,
            )
            for head in range(q.shape[1])
        ])  # fmt: skip

    def _share(self, work: Sequence[Callable[[], None]]) -> None:
        if self.threads == 1 or len(work) == 1:
            for piece in work:
                piece()
        else:
            list(_threads(os.getpid(), self.threads).map(lambda piece: piece(), work))


@functools.lru_cache(maxsize=4)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Threads of this process: those of a parent are not there after a fork."""
    return ThreadPoolExecutor(count, thread_name_prefix="fourbit-kernels")


def _multiply_codes(
    kind: int, columns: int, parts: Sequence[Any], rounded: tuple[Array, ...], out: Array, first: int, last: int
) -> None:
    loops.multiply_codes(kind, first, last, columns, *parts, *rounded, HALVES, out)


def _multiply_floats(
    kind: int, columns: int, parts: Sequence[Any], x: Array, out: Array, first: int, last: int
) -> None:
    loops.multiply_floats(kind, first, last, columns, *parts, x, HALVES, out)


def _rounded(x: Array) -> tuple[Array, Array, Array]:
    tokens, columns = x.shape
    blocks = -(-columns // 32)
    codes = np.zeros((tokens, blocks * 32), np.int8)
    scale, sums = (np.empty((tokens, blocks), np.float32) for _ in range(2))
    loops.round_activations(x, codes, scale, sums)
    return codes, scale, sums


def _has_codes(m: Matrix) -> bool:
    return m.kind not in ("F32", "F16") and (m.group % 32 == 0 or m.group >= m.columns)


def _arguments(m: Matrix) -> tuple[int, Array, Array, Array, int]:
    """Kind, data, scale, zero and group in the types that the loops are compiled for: read-only and writable differ."""
    data = m.data.view()
    data.flags.writeable = False
    scale, zero = m.scale, m.zero
    if scale is None or zero is None:
        empty = np.broadcast_to(_NO_GROUPS, (m.rows, 0))
        scale = zero = np.ascontiguousarray(empty)
    return KINDS.index(m.kind), data, scale.astype(np.float32), zero.astype(np.float32), max(m.group, 1)
