"""The C library through ctypes."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence
from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fourbit.errors import KernelError
from fourbit.kernels.build import library
from fourbit.kernels.cache_layer import CACHE_KINDS, CacheLayer
from fourbit.kernels.matrix import KINDS, Matrix
from fourbit.kernels.operations import MOST_MATRICES, Kernels

if TYPE_CHECKING:
    from fourbit.kernels.tape import Recorder

_SIGNATURES = {
    "fourbit_isa": (c_char_p, [c_int]),
    "fourbit_isa_count": (c_int, []),
    "fourbit_few": (c_int, []),
    "fourbit_matmul": (c_int, [c_int, c_int, c_int, c_char_p, c_void_p, c_int64, c_char_p]),
    "fourbit_rows": (c_int, [c_char_p, c_void_p, c_int64, c_void_p]),
    "fourbit_rms_norm": (None, [c_int, c_void_p, c_int64, c_int64, c_void_p, c_float, c_void_p]),
    "fourbit_rope": (None, [c_int, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_int]),
    "fourbit_swiglu": (None, [c_int, c_void_p, c_void_p, c_int64, c_void_p]),
    "fourbit_add": (None, [c_void_p, c_int64, c_int64, c_void_p, c_int64]),
    "fourbit_play": (c_int, [c_int, c_char_p, c_int64, c_char_p, c_int64]),
    "fourbit_store": (None, [c_int, c_char_p, c_int64, c_int64, c_void_p, c_void_p]),
    "fourbit_attend": (c_int, [c_int, c_int64, c_int64, c_void_p, c_int64, c_int64, c_char_p, c_int64, c_void_p]),
}  # fmt: skip


_POINTERS = [struct.Struct(f"{count}P").pack for count in range(MOST_MATRICES + 1)]


@functools.cache
def _library() -> ctypes.CDLL:
    path = library()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"the compiled kernels {path} cannot be loaded ({error}); delete it and try again") from None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def isas() -> dict[str, int]:
    """Return the instruction sets that this machine can run, the best last, and their numbers in the library."""
    names = {n: _library().fourbit_isa(n) for n in range(_library().fourbit_isa_count())}
    return {name.decode(): n for n, name in names.items() if name}


def _address(array: np.ndarray[Any, Any] | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


class NativeKernels(Kernels):
    """The operations in C."""

    backend = "c"
    worth = 2**16  # bytes of work for which one more thread is asked; 3 microseconds at 20 GB/s

    def __init__(self, threads: int, isa: str | None = None) -> None:
        super().__init__(threads)
        found = isas()
        if isa is not None and isa not in found:
            raise KernelError(f"the C kernels have no instruction set {isa!r} here; there are {', '.join(found)}")
        self.isa = isa or list(found)[-1]
        self._isa = found[self.isa]
        self._c = _library()
        self.few = self._c.fourbit_few()

    def _matmul(self, matrices: Sequence[Matrix], x: Tensor, outs: Sequence[Tensor]) -> None:
        count, described = len(matrices), [described_matrix(m) for m in matrices]
        threads = self._awake(x.shape[0] * sum([m.bytes for m in described]))
        pointers = _POINTERS[count](*[m.address for m in described])
        results = _POINTERS[count](*[out.data_ptr() for out in outs])
        succeed(self._c.fourbit_matmul(self._isa, threads, count, pointers, x.data_ptr(), x.shape[0], results))

    def _awake(self, work: int) -> int:
        """Return how many threads to use for so many bytes: waking one takes longer than a small product."""
        return min(self.threads, 1 + work // self.worth)

    def _rows(self, matrix: Matrix, ids: Tensor, out: Tensor) -> None:
        packed = described_matrix(matrix).packed
        succeed(self._c.fourbit_rows(packed, ids.data_ptr(), ids.shape[0], out.data_ptr()))

    def _rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        tokens, width = x.shape
        self._c.fourbit_rms_norm(self._isa, x.data_ptr(), tokens, width, weight.data_ptr(), eps, out.data_ptr())

    def _rope(self, x: Tensor, cos: Tensor, sin: Tensor, neighbors: bool) -> None:
        self._c.fourbit_rope(self._isa, x.data_ptr(), *x.shape, cos.data_ptr(), sin.data_ptr(), neighbors)

    def _swiglu(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        self._c.fourbit_swiglu(self._isa, gate.data_ptr(), up.data_ptr(), gate.numel(), out.data_ptr())

    def _add(self, x: Tensor, y: Tensor) -> None:
        self._c.fourbit_add(x.data_ptr(), *x.shape, y.data_ptr(), x.shape[1] * (y.ndim - 1))

    def recorder(self, texts: Sequence[Sequence[CacheLayer]], starts: Sequence[int]) -> Recorder:
        from fourbit.kernels.tape import Recorder

        return Recorder(self, texts, starts)

    def _store(self, layer: CacheLayer, position: int, keys: Tensor, values: Tensor) -> None:
        packed, tokens = described_layer(layer), keys.shape[0]
        self._c.fourbit_store(self._isa, packed, position, tokens, keys.data_ptr(), values.data_ptr())

    def _attend(self, q: Tensor, layer: CacheLayer, start: int, out: Tensor) -> None:
        tokens, heads, _ = q.shape
        most = self.threads, self.worth
        packed = described_layer(layer)
        succeed(self._c.fourbit_attend(self._isa, *most, q.data_ptr(), tokens, heads, packed, start, out.data_ptr()))


def succeed(status: int) -> None:
    """Raise what a function's status means."""
    if status:
        raise KernelError("there is no memory left for the kernels' scratch space; use a smaller chunk of tokens")


class _Described:
    """A `Matrix` of c/common.h: its bytes, and the address at which they stay."""

    def __init__(self, m: Matrix) -> None:
        groups = 0 if m.scale is None else m.scale.shape[1]
        numbers = KINDS.index(m.kind), *m.shape, m.data.shape[1], m.group, groups
        self.packed = struct.pack("6q3P", *numbers, _address(m.data), _address(m.scale), _address(m.zero))
        self._buffer = ctypes.create_string_buffer(self.packed, len(self.packed))
        self.address, self.bytes = ctypes.addressof(self._buffer), m.nbytes


# A decoded token asks for every matrix once: the descriptions stay in the objects' own dictionaries, as cached
# properties do.
def described_matrix(m: Matrix) -> _Described:
    """Return the description that stays with a matrix."""
    found = m.__dict__.get("_described")
    if found is None:
        found = m.__dict__["_described"] = _Described(m)
    described: _Described = found
    return described


def described_layer(c: CacheLayer) -> bytes:
    """Return a `CacheLayer` of c/common.h."""
    found = c.__dict__.get("_described")
    if found is None:
        numbers = CACHE_KINDS.index(c.kind), c.kv_heads, c.capacity, c.width, c.keys.shape[2]
        found = c.__dict__["_described"] = struct.pack("5q2P", *numbers, _address(c.keys), _address(c.values))
    described: bytes = found
    return described
