"""Bytes of a model's tensors and of its cache, by the formats' arithmetic.

A block of 32 weights in Q4_0 has 16 bytes of codes and 2 of scale (ggml-common.h); bitsandbytes' NF4 has 4 bits for a
weight and a scale for 64 of them, with double quantization that scale in 8 bits and a 32-bit one for 256 scales
(Dettmers et al., arXiv:2305.14314). A token adds 2 * layers * kv_heads * head_width numbers to the cache.
"""

from __future__ import annotations

import math

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig

NF4 = "NF4"
BLOCKS = {  # weights that are packed together, and their bytes
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q6_K": (256, 210), "Q5_K": (256, 176),
    "Q5_1": (32, 24), "Q5_0": (32, 22), "Q4_1": (32, 20), "Q4_K": (256, 144), "Q4_0": (32, 18),
}  # fmt: skip
FORMATS = ("F32", "F16", "Q8_0", "Q4_1", "Q4_K_M", "Q4_K", "Q4_0", NF4)
CACHE = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8": (32, 34), "q4": (32, 18)}
_TABLES = 4 * (16 + 256 + 1)  # bitsandbytes keeps with each matrix: NF4's codebook, that of the scales, their mean


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    """Return the bytes of a tensor in one of `BLOCKS`: `tensor_bytes((2, 64), "Q4_0") == 72`.

    Raises:
        ModelError: for another kind, or rows that are no whole number of blocks.
    """
    if kind not in BLOCKS:
        raise ModelError(f"{kind!r} is no kind of tensor; there are {', '.join(BLOCKS)}")
    block, size = BLOCKS[kind]
    if shape[-1] % block:
        raise ModelError(f"rows of {shape[-1]} weights are no multiple of {kind}'s block of {block}; choose F16")
    return math.prod(shape) // block * size


def nf4_bytes(weights: int, double_quantization: bool = True) -> int:
    """Return the bytes of a matrix of that many weights in bitsandbytes' NF4, its tables among them."""
    scales = math.ceil(weights / 64)
    if not double_quantization:
        return math.ceil(weights / 2) + 4 * scales + 4 * 16
    return math.ceil(weights / 2) + scales + 4 * math.ceil(scales / 256) + _TABLES


def cache_row_bytes(config: LlmConfig, kv: str = "f16") -> int:
    """Return the bytes that one token adds to the cache: a key and a value for each layer and key-value head.

    Raises:
        ModelError: for another kind than those of `CACHE`, or heads that its blocks do not fill.
    """
    if kv not in CACHE:
        raise ModelError(f"a KV cache is of kind {', '.join(CACHE)}; not {kv!r}")
    block, size = CACHE[kv]
    if config.head_width % block:
        raise ModelError(f"heads of {config.head_width} channels are no multiple of {kv}'s block of {block}; use f16")
    return 2 * config.layers * config.kv_heads * (config.head_width // block * size)


def stored_kinds(config: LlmConfig, form: str) -> dict[str, str]:
    """Return {name: kind} of a model's tensors in a GGUF file of a format; vectors are F32.

    As llama.cpp stores them: in files of 4 bits the head, or the embeddings that are one, has 6 bits (8 where rows are
    no multiple of 256); Q4_K_M gives 6 bits to half of the value and down projections.

    Raises:
        ModelError: for a format that is not one of `FORMATS`, or is no GGUF format.
    """
    if form not in FORMATS or form == NF4:
        raise ModelError(f"no GGUF format is called {form!r}; there are {', '.join(f for f in FORMATS if f != NF4)}")
    plain = form.removesuffix("_M")
    kinds = {name: plain if len(shape) == 2 else "F32" for name, shape in config.shapes().items()}
    if form.startswith("Q4"):
        kinds["embed_tokens.weight" if config.tied else "lm_head.weight"] = "Q8_0" if config.width % 256 else "Q6_K"
    if form == "Q4_K_M":
        for i in filter(lambda i: _more_bits(i, config.layers), range(config.layers)):
            kinds[f"layers.{i}.self_attn.v_proj.weight"] = kinds[f"layers.{i}.mlp.down_proj.weight"] = "Q6_K"
    return kinds


def _more_bits(layer: int, layers: int) -> bool:
    """Tell whether Q4_K_M spends more on a layer: the outer eighths, and every third between (llama-quant.cpp)."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
