"""The KV cache: room for the keys and values of a whole text, taken once.

Memory is asked for at the start, its pages are touched as the text grows, and a text that is cut and goes on in another
way writes over what was there. Kinds: f32 and f16 hold numbers; q8 and q4 hold codes of 8 or 4 bits in blocks of 32
that share a float16 scale (8.5 and 4.5 bits a number). There is one key and one value for each head that queries share
(grouped-query attention, Ainslie et al., arXiv:2305.13245).
"""

from __future__ import annotations

import torch

from fourbit.errors import KernelError, ModelError
from fourbit.kernels import CacheLayer, cache_row_bytes
from fourbit.llm.config import LlmConfig


def cache_bytes(config: LlmConfig, context: int, kind: str = "f16") -> int:
    """Return the bytes that the keys and values of `context` tokens take, in all layers.

    Raises:
        ModelError: for another kind than f32, f16, q8, q4, or heads that q8's and q4's blocks of 32 do not fill.
    """
    try:
        return 2 * config.layers * config.kv_heads * context * cache_row_bytes(config.head_width, kind)
    except KernelError as error:
        raise ModelError(str(error)) from None


class KVCache:
    """Keys and values of up to `context` tokens, `length` of which are there. `layers` are what the kernels work on.

    Raises:
        ModelError: as :func:`cache_bytes`, and when there is not that much memory.
    """

    def __init__(self, config: LlmConfig, context: int, kind: str = "f16") -> None:
        self.nbytes = cache_bytes(config, context, kind)
        self.context, self.kind, self.length = context, kind, 0
        shape = 2, config.layers, config.kv_heads, context, cache_row_bytes(config.head_width, kind)
        try:
            keys, values = torch.empty(shape, dtype=torch.uint8).numpy()
        except (MemoryError, RuntimeError):
            raise ModelError(
                f"a KV cache of {context} tokens takes {self.nbytes / 2**30:.1f} GiB, more than this machine gives; "
                "take a shorter context, or a cache of kind q8"
            ) from None
        self.layers = [CacheLayer(kind, config.head_width, k, v) for k, v in zip(keys, values, strict=True)]

    def advance(self, count: int) -> None:
        """Let the `count` tokens that all layers have stored behind the last ones belong to the text."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on.

        Raises:
            ModelError: when there are fewer.
        """
        if not 0 <= length <= self.length:
            raise ModelError(f"a cache of {self.length} tokens cannot be cut to {length}")
        self.length = length
