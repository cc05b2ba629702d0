"""The KV cache: room for the keys and values of a whole conversation, taken once.

A row holds one token's key or value of one head, as float32, as float16, or as GGUF blocks of 32 numbers with a float16
scale: Q8_0 (8.5 bits a number) or Q4_0 (4.5 bits). Pages of memory are touched as the conversation grows.
"""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig

_PLAIN = {"f32": np.float32, "f16": np.float16}
_BLOCKS = {"q8": Kind.Q8_0, "q4": Kind.Q4_0}
KINDS = (*_PLAIN, *_BLOCKS)


def row_bytes(width: int, kind: str) -> int:
    """Return the bytes of a row of `width` numbers.

    Raises:
        ModelError: for another kind than f32, f16, q8, q4, or a width that blocks of 32 do not fill.
    """
    if kind in _PLAIN:
        return width * np.dtype(_PLAIN[kind]).itemsize
    if kind not in _BLOCKS:
        raise ModelError(f"a KV cache is of kind {', '.join(KINDS)}; not {kind!r}")
    block, size = gguf.GGML_QUANT_SIZES[_BLOCKS[kind]]
    if width % block:
        raise ModelError(f"heads of {width} channels are no multiple of the block of {block}; use a cache of f16")
    return width // block * size


class KVCache:
    """Keys and values of up to `capacity` tokens. `length` of them are there.

    Raises:
        ModelError: for an unknown kind, or heads that its blocks do not fill.
    """

    def __init__(self, config: LlmConfig, capacity: int, kind: str = "f16") -> None:
        row = row_bytes(config.head_width, kind)
        dtype = np.dtype(_PLAIN.get(kind, np.uint8))
        shape = (2, config.layers, config.kv_heads, capacity, row // dtype.itemsize)
        self._rows: np.ndarray[Any, Any] = np.empty(shape, dtype)
        self.capacity, self.kind, self.length = capacity, kind, 0

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, used or not."""
        return self._rows.nbytes

    def keys(self, layer: int) -> np.ndarray[Any, Any]:
        """Return a layer's keys (kv_heads, capacity, row): float32, float16, or the uint8 of its blocks."""
        found: np.ndarray[Any, Any] = self._rows[0, layer]
        return found

    def values(self, layer: int) -> np.ndarray[Any, Any]:
        """Return a layer's values, as :meth:`keys` does."""
        found: np.ndarray[Any, Any] = self._rows[1, layer]
        return found

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values (T, kv_heads, width) float32 of T new tokens behind what is there.

        The tokens count once :meth:`advance` has been called, when all layers have stored theirs.

        Raises:
            ModelError: when there is no room for them.
        """
        end = self.length + len(keys)
        if end > self.capacity:
            raise ModelError(f"the KV cache has room for {self.capacity} tokens, not {end}; open it with more context")
        for rows, new in ((self.keys(layer), keys), (self.values(layer), values)):
            numbers = new.numpy()
            stored = numbers if self.kind in _PLAIN else gguf.quants.quantize(numbers, _BLOCKS[self.kind])
            rows[:, self.length : end] = stored.swapaxes(0, 1)

    def advance(self, count: int) -> None:
        """Let the last `count` stored tokens belong to the text."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on.

        Raises:
            ModelError: when there are fewer.
        """
        if not 0 <= length <= self.length:
            raise ModelError(f"a cache of {self.length} tokens cannot be cut to {length}")
        self.length = length
