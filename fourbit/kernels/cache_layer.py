"""The keys and values of one layer, as the kernels read and write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fourbit.errors import KernelError

Array = np.ndarray[Any, Any]
# Numbers in float32 or float16, or GGUF blocks of 32 (Q8_0, Q4_0). The order is that of `enum CacheKind` in c/common.h.
_BLOCKS = {"f32": (4, 1), "f16": (2, 1), "q8": (34, 32), "q4": (18, 32)}
CACHE_KINDS = tuple(_BLOCKS)


def cache_row_bytes(width: int, kind: str) -> int:
    """Return the bytes of one token's key (or value) of one head of `width` channels.

    Raises:
        KernelError: for an unknown kind, or a width that blocks of 32 do not fill.
    """
    if kind not in _BLOCKS:
        raise KernelError(f"a KV cache is of kind {', '.join(CACHE_KINDS)}; not {kind!r}")
    size, block = _BLOCKS[kind]
    if width < 1 or width % block:
        raise KernelError(f"heads of {width} channels are no multiple of {kind}'s block of {block}; use f16")
    return width // block * size


@dataclass(frozen=True, eq=False)
class CacheLayer:
    """Room for a layer's keys and values (kv_heads, capacity, bytes of a row) uint8; heads have `width` channels.

    Raises:
        KernelError: for an unknown kind, or arrays of other shapes and types.
    """

    kind: str
    width: int
    keys: Array
    values: Array

    def __post_init__(self) -> None:
        row = cache_row_bytes(self.width, self.kind)
        for name, array in (("keys", self.keys), ("values", self.values)):
            fits = array.ndim == 3 and array.shape == self.keys.shape and array.shape[2] == row
            if not fits or array.dtype != np.uint8 or not array.flags.c_contiguous or not array.flags.writeable:
                raise KernelError(
                    f"{name} of a cache layer are {array.dtype} {array.shape}; they must be writable uint8 "
                    f"(kv_heads, capacity, {row}), contiguous, and both alike"
                )

    @property
    def kv_heads(self) -> int:
        return int(self.keys.shape[0])

    @property
    def capacity(self) -> int:
        """Tokens."""
        return int(self.keys.shape[1])
