"""A pass over a few tokens, recorded once and then played by one call into C.

Nothing changes from one token to the next but the numbers in the buffers and the position: shapes are checked when a
pass is recorded, and Python takes no time between its products.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fourbit.errors import KernelError
from fourbit.kernels.cache_layer import CacheLayer
from fourbit.kernels.matrix import Matrix
from fourbit.kernels.native import NativeKernels, described_layer, described_matrix, succeed

_MATMUL, _NORM, _ROPE, _SWIGLU, _STORE, _ATTEND, _ADD = range(7)  # enum What of c/tape.c
_STEP = struct.Struct("7qd3P")


class Recorder(NativeKernels):
    """The operations of `kernels` noted down instead of done. `rows`, which takes numbers, cannot be recorded.

    Args:
        kernels: which is to do them.
        texts: the cache layers of each text.
        starts: the position at which each text goes on in the recorded pass.
    """

    def __init__(self, kernels: NativeKernels, texts: Sequence[Sequence[CacheLayer]], starts: Sequence[int]) -> None:
        super().__init__(kernels.threads, kernels.isa)
        self.worth = kernels.worth
        self._text_of = {id(layer): text for text, layers in enumerate(texts) for layer in layers}
        self._starts = list(starts)
        self._room = [2**62] * len(starts)
        self._steps = bytearray()
        self._held: list[Any] = [kernels, texts]

    def tape(self) -> Tape:
        """Return what was recorded."""
        return Tape(self, bytes(self._steps), self._room, self._held)

    def _note(
        self,
        what: int,
        n: Sequence[int],
        at: Sequence[int],
        held: object,
        place: tuple[int, int] = (0, 0),
        eps: float = 0,
    ) -> None:
        self._steps += _STEP.pack(what, *n, *[0] * (4 - len(n)), *place, eps, *at, *[0] * (3 - len(at)))
        self._held.append(held)

    def _place(self, layer: CacheLayer, position: int, tokens: int) -> tuple[int, int]:
        text = self._text_of[id(layer)]
        offset = position - self._starts[text]
        self._room[text] = min(self._room[text], layer.capacity - offset - tokens)
        return text, offset

    def _matmul(self, matrices: Sequence[Matrix], x: Tensor, outs: Sequence[Tensor]) -> None:
        described = [described_matrix(m) for m in matrices]
        threads = self._awake(x.shape[0] * sum(m.bytes for m in described))
        pointers = (ctypes.c_void_p * len(described))(*[m.address for m in described])
        results = (ctypes.c_void_p * len(outs))(*[out.data_ptr() for out in outs])
        at = ctypes.addressof(pointers), x.data_ptr(), ctypes.addressof(results)
        self._note(_MATMUL, (threads, len(described), x.shape[0]), at, (pointers, results, described, x, outs))

    def _rows(self, matrix: Matrix, ids: Tensor, out: Tensor) -> None:
        raise KernelError("rows cannot be recorded: they depend on the tokens")

    def _rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        self._note(_NORM, tuple(x.shape), _addresses(x, weight, out), (x, weight, out), eps=eps)

    def _rope(self, x: Tensor, cos: Tensor, sin: Tensor, neighbors: bool) -> None:
        self._note(_ROPE, (*x.shape, neighbors), _addresses(x, cos, sin), (x, cos, sin))

    def _swiglu(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        self._note(_SWIGLU, (gate.numel(),), _addresses(gate, up, out), (gate, up, out))

    def _add(self, x: Tensor, y: Tensor) -> None:
        self._note(_ADD, (*x.shape, x.shape[1] * (y.ndim - 1)), _addresses(x, y), (x, y))

    def _store(self, layer: CacheLayer, position: int, keys: Tensor, values: Tensor) -> None:
        described = ctypes.create_string_buffer(described_layer(layer))
        at = ctypes.addressof(described), *_addresses(keys, values)
        place = self._place(layer, position, keys.shape[0])
        self._note(_STORE, (keys.shape[0],), at, (described, keys, values), place)

    def _attend(self, q: Tensor, layer: CacheLayer, start: int, out: Tensor) -> None:
        tokens, heads, _ = q.shape
        described = ctypes.create_string_buffer(described_layer(layer))
        at = q.data_ptr(), ctypes.addressof(described), out.data_ptr()
        self._note(_ATTEND, (self.threads, tokens, heads), at, (described, q, out), self._place(layer, start, tokens))


class Tape:
    """A recorded pass. It keeps alive all that it works on."""

    def __init__(self, kernels: NativeKernels, steps: bytes, room: Sequence[int], held: Sequence[object]) -> None:
        self._kernels, self._steps, self._room, self._held = kernels, steps, room, held

    def play(self, starts: Sequence[int]) -> None:
        """Do it all again on what the buffers hold now; text i goes on at position starts[i].

        Raises:
            KernelError: when a text does not fit into its cache.
        """
        for start, room in zip(starts, self._room, strict=True):
            if not 0 <= start <= room:
                raise KernelError(f"position {start} does not fit into the cache; the last that does is {room}")
        k, positions = self._kernels, struct.pack(f"{len(starts)}q", *starts)
        succeed(k._c.fourbit_play(k._isa, self._steps, len(self._steps) // _STEP.size, positions, k.worth))


def _addresses(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)
