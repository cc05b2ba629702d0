"""What a model takes in memory, known before it is loaded, and whether a device has it.

A plan has four parts: weights and key-value cache by the formats' arithmetic (:mod:`fourbit.llm.sizes`), the buffers in
which a chunk of a prompt is computed, and what is there without a model. `verdict` compares it with a device and,
where it does not fit, looks for what would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.sizes import NF4, cache_row_bytes, nf4_bytes, stored_kinds, tensor_bytes

CHUNK = 128  # tokens of a prompt that the CPU engine computes together
GPU_CHUNK = 512  # and the GPU
FIRST_USE = 12_000_000  # bytes of libraries and heap that come with the first model; measured, 10 to 12 MB
PER_TOKEN_OF_VOCABULARY = 600  # bytes that `tokenizers` holds for a token and its merge; measured, 430 to 620
CUDA_CONTEXT = 500 * 2**20  # what CUDA and cuBLAS take on a GPU, where fourbit.llm.gpu has not measured it


@dataclass(frozen=True)
class Plan:
    """Bytes that a model takes with a cache of `context` tokens.

    Attributes:
        form: how most of the weights are stored: Q4_0, ..., NF4.
        kv: the cache's numbers: f32, f16, bf16, q8 or q4.
        weights: of all tensors; `layer` is the largest layer's share, `per_token` what decoding one token reads of
            them (all but the rows of an embedding matrix that is not the head too).
        activations: the buffers of a prompt's chunk.
        overhead: what is there without the model (Python and torch, or CUDA's context) and the tokenizer's vocabulary.
    """

    name: str
    config: LlmConfig
    form: str
    context: int
    kv: str
    weights: int
    layer: int
    per_token: int
    kv_cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """Bytes at most, when the whole context is in use."""
        return self.weights + self.kv_cache + self.activations + self.overhead

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.weights / self.config.parameters()

    def with_cache(self, context: int, kv: str | None = None) -> Plan:
        """Return the plan of the same model for another context or kind of cache."""
        kv = kv or self.kv
        return replace(self, context=context, kv=kv, kv_cache=context * cache_row_bytes(self.config, kv))


def activation_bytes(config: LlmConfig, tokens: int, number: int = 4) -> int:
    """Return the bytes of the buffers in which that many tokens are computed, of `number` bytes for each value.

    For each token: its state, that state normalized, and what is added to it (3 widths); queries, keys and values, and
    what attention makes of them; gate and up. And the logits after the last token, in float32.
    """
    heads = (2 * config.heads + 2 * config.kv_heads) * config.head_width
    return tokens * number * (3 * config.width + heads + 2 * config.ff) + 4 * config.vocabulary


def plan(
    config: LlmConfig,
    weights: str | int,
    context: int,
    kv: str = "f16",
    *,
    baseline: int | None = None,
    name: str = "the model",
) -> Plan:
    """Plan for the CPU engine, from a model's shape.

    Args:
        weights: a GGUF format, whose sizes are known, or the bytes of all tensors.
        context: tokens of prompt and answer together.
        kv: f32, f16, q8 or q4.
        baseline: bytes of the process without a model; None for those of this process as it is now.

    Raises:
        ModelError: for a format, cache or context that does not exist.
    """
    if isinstance(weights, int):
        share = weights / config.parameters()
        sizes = {tensor: round(share * math.prod(shape)) for tensor, shape in config.shapes().items()}
        sizes["norm.weight"] += weights - sum(sizes.values())  # what rounding has lost
        form = f"{8 * share:.2f} bits"
    else:
        kinds, form = stored_kinds(config, weights), weights
        sizes = {tensor: tensor_bytes(shape, kinds[tensor]) for tensor, shape in config.shapes().items()}
    return _on_cpu(name, config, form, sizes, context, kv, baseline)


def plan_file(path: Path | str, context: int = 2048, kv: str = "f16", *, baseline: int | None = None) -> Plan:
    """Plan for the CPU engine and a GGUF file or an artifact of lab 04, to the byte; only the file's header is read.

    Raises:
        ModelError: when the file is missing, damaged or of a model that is not supported, and as :func:`plan` does.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        config, form, sizes = _artifact_sizes(path)
    else:
        config, form, sizes = _gguf_sizes(path)
    return _on_cpu(path.stem, config, form, sizes, context, kv, baseline)


def nf4_plan(
    config: LlmConfig,
    context: int,
    double_quantization: bool = True,
    *,
    overhead: int = CUDA_CONTEXT,
    name: str = "the model",
) -> Plan:
    """Plan for bitsandbytes' NF4 on a GPU: matrices of the layers in 4 bits, all else and the cache in bfloat16.

    Args:
        overhead: what CUDA takes on this GPU; :func:`fourbit.llm.gpu.context_bytes` measures it.

    Raises:
        ModelError: for a context that the model does not have.
    """
    linears = config.linears()
    sizes = {}
    for tensor, shape in config.shapes().items():
        packed = tensor.removesuffix(".weight") in linears
        sizes[tensor] = nf4_bytes(math.prod(shape), double_quantization) if packed else 2 * math.prod(shape)
    # For a prompt, a matrix is made dense for the moment in which it is multiplied.
    dense = 2 * max(rows * columns for rows, columns in linears.values())
    found = _planned(name, config, NF4, sizes, context, "bf16")
    return replace(found, activations=activation_bytes(config, min(context, GPU_CHUNK), 2) + dense, overhead=overhead)


def _gguf_sizes(path: Path) -> tuple[LlmConfig, str, dict[str, int]]:
    """Return a file's shape, the kind of most of its bytes, and {name: bytes} of its tensors."""
    from fourbit.llm.gguf_file import GgufFile

    file = GgufFile(path)
    sizes: dict[str, int] = {}
    held: dict[str, int] = {}
    for name in file.names():
        packed = file.stored(name)
        kind = packed.kind.name
        sizes[name] = tensor_bytes(packed.shape, kind)
        held[kind] = held.get(kind, 0) + sizes[name]
    return file.config, max(held, key=lambda kind: held[kind]), sizes


def _artifact_sizes(path: Path) -> tuple[LlmConfig, str, dict[str, int]]:
    from fourbit.llm.artifact import ArtifactFile

    file = ArtifactFile(path)
    sizes = {}
    for name in file.names():
        parts = file.packed(name)
        values = [file.tensor(name).half()] if parts is None else list(parts.values())
        sizes[name] = sum(part.numel() * part.element_size() for part in values)
    return file.config, f"{file.bits} bits in groups of {file.group}", sizes


def _on_cpu(
    name: str, config: LlmConfig, form: str, sizes: Mapping[str, int], context: int, kv: str, baseline: int | None
) -> Plan:
    if baseline is None:
        from fourbit.measure.memory import settled

        baseline = settled()
    overhead = baseline + FIRST_USE + PER_TOKEN_OF_VOCABULARY * config.vocabulary
    found = _planned(name, config, form, sizes, context, kv)
    return replace(found, activations=activation_bytes(config, min(context, CHUNK)), overhead=overhead)


def _planned(name: str, config: LlmConfig, form: str, sizes: Mapping[str, int], context: int, kv: str) -> Plan:
    if not 1 < context <= config.context:
        raise ModelError(f"{name} has a context of 2 to {config.context} tokens, not {context}")
    layers: dict[str, int] = {}
    for tensor, size in sizes.items():
        if tensor.startswith("layers."):
            layer = tensor.split(".")[1]
            layers[layer] = layers.get(layer, 0) + size
    weights, cache = sum(sizes.values()), context * cache_row_bytes(config, kv)
    per_token = weights - (0 if config.tied else sizes["embed_tokens.weight"])
    return Plan(name, config, form, context, kv, weights, max(layers.values()), per_token, cache, 0, 0)
