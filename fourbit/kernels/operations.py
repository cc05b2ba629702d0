"""What the kernels do, whichever backend does it: arguments are checked here once."""

from __future__ import annotations

import abc
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fourbit.errors import KernelError
from fourbit.kernels.cache_layer import CacheLayer
from fourbit.kernels.matrix import Matrix

if TYPE_CHECKING:
    from fourbit.kernels.tape import Recorder

VARIABLE = "FOURBIT_KERNELS"
ISA_VARIABLE = "FOURBIT_ISA"
BACKENDS = ("c", "numba")
MOST_MATRICES = 16  # that share one input
_log = logging.getLogger(__name__)


class Kernels(abc.ABC):
    """The operations of one backend on a number of threads. `isa` is the instruction set that is used.

    Tensors are float32, contiguous, on the CPU. Results do not depend on the number of threads. May be called from
    several threads; one at a time has helpers, the others work alone.
    """

    backend: str
    isa: str
    few: int  # up to so many tokens get the same results, bit for bit, as one at a time; with F32 and F16 any number

    def __init__(self, threads: int) -> None:
        if not 1 <= threads <= 256:
            raise KernelError(f"cannot use {threads} threads; give 1 to 256")
        self.threads = threads

    def matmul(self, matrices: Sequence[Matrix], x: Tensor, outs: Sequence[Tensor]) -> None:
        """Write x (T, in) times the transpose of each matrix (out, in) to its out (T, out).

        Except with F32 and F16 (and groups that 32 does not divide), activations are rounded to 8 bits in blocks of
        32: with s = max|x| / 127 of each block, a result differs from the exact one by at most sum(|w| * s / 2), and by
        float32's rounding. A block with a NaN or an infinity makes the token's results NaN.

        Raises:
            KernelError: for other shapes, types or layouts.
        """
        if len(matrices) != len(outs) or not 1 <= len(matrices) <= MOST_MATRICES:
            raise KernelError(f"{len(matrices)} matrices and {len(outs)} outs; give 1 to {MOST_MATRICES} of both")
        _refuse(x)
        tokens, width = x.shape if x.ndim == 2 else (-1, -1)
        for matrix, out in zip(matrices, outs, strict=True):
            rows, columns = matrix.shape
            if columns != width:
                raise KernelError(f"x has shape {tuple(x.shape)}; a matrix {matrix.shape} needs (T, {columns})")
            if out.shape != (tokens, rows):
                raise KernelError(f"out has shape {tuple(out.shape)}; it must be {(tokens, rows)}")
            _refuse(out)
        if tokens:
            self._matmul(matrices, x, outs)

    def rows(self, matrix: Matrix, ids: Sequence[int] | Tensor) -> Tensor:
        """Return rows of a matrix, (n, in) float32.

        Raises:
            KernelError: when a row is not there.
        """
        chosen = torch.as_tensor(ids, dtype=torch.int64).contiguous()
        if chosen.ndim != 1 or (chosen.shape[0] and not 0 <= int(chosen.min()) <= int(chosen.max()) < matrix.rows):
            raise KernelError(f"ids must be a list of rows of a matrix {matrix.shape}, 0 to {matrix.rows - 1}")
        out = torch.empty(chosen.shape[0], matrix.columns)
        if chosen.shape[0]:
            self._rows(matrix, chosen, out)
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        """Write x / sqrt(mean(x^2) + eps) * weight to out, which may be x. x (T, width), weight (width,).

        Raises:
            KernelError: for other shapes, types or layouts.
        """
        fits = x.ndim == 2 and weight.shape == x.shape[1:] and out.shape == x.shape
        _refuse_unless(fits, "x (T, width), weight (width,), out (T, width)", x, weight, out)
        self._rms_norm(x, weight, eps, out)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor, neighbors: bool) -> None:
        """Turn x (T, heads, width) in place by cos and sin (T, width / 2).

        Channels 2i and 2i + 1 are a pair when `neighbors`, else i and i + width / 2.

        Raises:
            KernelError: for other shapes, types or layouts.
        """
        fits = x.ndim == 3 and x.shape[2] % 2 == 0 and cos.shape == sin.shape == (x.shape[0], x.shape[2] // 2)
        _refuse_unless(fits, "x (T, heads, width), cos and sin (T, width / 2)", x, cos, sin)
        self._rope(x, cos, sin, neighbors)

    def swiglu(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        """Write gate / (1 + exp(-gate)) * up to out, which may be either. All of one shape.

        Raises:
            KernelError: for other shapes, types or layouts.
        """
        _refuse_unless(gate.shape == up.shape == out.shape, "three tensors of one shape", gate, up, out)
        self._swiglu(gate, up, out)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add y (T, width) or (width,) to x (T, width) in place.

        Raises:
            KernelError: for other shapes, types or layouts.
        """
        fits = x.ndim == 2 and (y.shape == x.shape or y.shape == x.shape[1:])
        _refuse_unless(fits, "x (T, width), y (T, width) or (width,)", x, y)
        self._add(x, y)

    def recorder(self, texts: Sequence[Sequence[CacheLayer]], starts: Sequence[int]) -> Recorder | None:
        """Return what records a pass (:mod:`fourbit.kernels.tape`); None where the backend has no tapes.

        Args:
            texts: the cache layers of each text.
            starts: the position at which each text goes on in the pass that is recorded.
        """
        return None

    def store(self, layer: CacheLayer, position: int, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values (T, kv_heads, width) of tokens at `position` and behind it.

        Raises:
            KernelError: for other shapes, types or layouts, or when there is no room.
        """
        fits = keys.ndim == 3 and keys.shape[1:] == (layer.kv_heads, layer.width) and values.shape == keys.shape
        _refuse_unless(fits, f"keys and values (T, {layer.kv_heads}, {layer.width})", keys, values)
        if not 0 <= position <= layer.capacity - keys.shape[0]:
            last = position + keys.shape[0] - 1
            raise KernelError(f"positions {position} to {last} do not fit into {layer.capacity}")
        self._store(layer, position, keys, values)

    def attend(self, q: Tensor, layer: CacheLayer, start: int, out: Tensor) -> None:
        """Write the attention of queries (T, heads, width) to out (T, heads * width).

        Query t sees positions 0 to start + t, which have been stored; heads / kv_heads queries share a key head.

        Raises:
            KernelError: for other shapes, types or layouts, or positions that the layer does not have.
        """
        fits = q.ndim == 3 and q.shape[2] == layer.width and q.shape[1] % layer.kv_heads == 0
        fits = fits and out.shape == (q.shape[0], q.shape[1] * q.shape[2])
        _refuse_unless(fits, f"q (T, n * {layer.kv_heads}, {layer.width}), out (T, heads * width)", q, out)
        if not 0 <= start <= layer.capacity - q.shape[0]:
            last = start + q.shape[0] - 1
            raise KernelError(f"positions {start} to {last} are not all in a cache of {layer.capacity}")
        if q.shape[0]:
            self._attend(q, layer, start, out)

    @abc.abstractmethod
    def _matmul(self, matrices: Sequence[Matrix], x: Tensor, outs: Sequence[Tensor]) -> None: ...
    @abc.abstractmethod
    def _rows(self, matrix: Matrix, ids: Tensor, out: Tensor) -> None: ...
    @abc.abstractmethod
    def _rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None: ...
    @abc.abstractmethod
    def _rope(self, x: Tensor, cos: Tensor, sin: Tensor, neighbors: bool) -> None: ...
    @abc.abstractmethod
    def _swiglu(self, gate: Tensor, up: Tensor, out: Tensor) -> None: ...
    @abc.abstractmethod
    def _add(self, x: Tensor, y: Tensor) -> None: ...
    @abc.abstractmethod
    def _store(self, layer: CacheLayer, position: int, keys: Tensor, values: Tensor) -> None: ...
    @abc.abstractmethod
    def _attend(self, q: Tensor, layer: CacheLayer, start: int, out: Tensor) -> None: ...


def load(threads: int = 1, backend: str | None = None, isa: str | None = None) -> Kernels:
    """Return the kernels: compiled C where there is a compiler, else numba, which is said once.

    Args:
        threads: that share the work; the caller is one of them.
        backend: "c" or "numba"; None for $FOURBIT_KERNELS, or the best that works.
        isa: the instruction set of the C kernels, such as "avx2"; None for $FOURBIT_ISA, or the best of this machine.
            Whoever names one gets the C kernels or an error.

    Raises:
        KernelError: for another backend, one that was asked for and does not work, or when none does.
    """
    wanted = backend or os.environ.get(VARIABLE) or None
    if wanted not in (None, *BACKENDS):
        raise KernelError(f"there is no backend {wanted!r}; take one of {', '.join(BACKENDS)}, or None for the best")
    if wanted != "numba":
        from fourbit.kernels.native import NativeKernels

        chosen = isa or os.environ.get(ISA_VARIABLE) or None
        try:
            return NativeKernels(threads, chosen)
        except KernelError as error:
            if wanted == "c" or chosen:
                raise
            _say_once(str(error))
    from fourbit.kernels.portable import NumbaKernels

    return NumbaKernels(threads)


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        _log.warning("The kernels run in numba, several times slower than in C: %s", reason)


def _refuse(x: Tensor) -> None:
    if x.dtype is not torch.float32 or not x.is_cpu or not x.is_contiguous():
        raise KernelError(
            f"a tensor {tuple(x.shape)} is {x.dtype} on {x.device}{'' if x.is_contiguous() else ', not contiguous'}; "
            "the kernels take contiguous float32 on the CPU"
        )


def _refuse_unless(fits: bool, wanted: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        _refuse(tensor)
    if not fits:
        raise KernelError(f"shapes {', '.join(str(tuple(t.shape)) for t in tensors)} given; needed are {wanted}")
