"""What there is to choose from when a model is deployed: models with a published score, formats with a measured cost.

Scores are MMLU, 5-shot, of the *base* models, as one report measured all of them (Qwen team, "Qwen2.5-LLM", 2024,
https://qwenlm.github.io/blog/qwen2.5-llm/). Bits are those of whole files of Llama-3.1-8B (llama.cpp,
tools/quantize/README.md), divergences those of Llama-3-8B from its 16-bit original (llama.cpp, pull request 6936,
without importance matrix), of the cache those of the pocket model (lecture_notes/figures/measure_deployment.py). That a
format costs every model what it costs one of them is an assumption: smaller models lose more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fourbit.llm.config import LlmConfig

BESIDE = 600_000_000  # bytes for the process, its buffers and the vocabulary; measured, 0.5 to 0.6 GB


@dataclass(frozen=True)
class Candidate:
    """A model to deploy: its shape, its license, and what it scores in 16 bits, in percent."""

    name: str
    config: LlmConfig
    license: str
    score: float


@dataclass(frozen=True)
class Stored:
    """A format of weights or of the cache: bits of a number, and the divergence from 16 bits, in nats per token."""

    bits: float
    divergence: float


def _shape(
    architecture: str, layers: int, width: int, ff: int, heads: int, kv_heads: int, words: int, *, tied: bool = False
) -> LlmConfig:
    return LlmConfig(
        architecture=architecture, layers=layers, width=width, ff=ff, heads=heads, kv_heads=kv_heads,
        head_width=width // heads, vocabulary=words, rope_theta=1e6, norm_eps=1e-6, tied=tied,
        qkv_bias=architecture == "qwen2", context=32_768,
    )  # fmt: skip


CANDIDATES = (
    Candidate("Qwen2.5-0.5B", _shape("qwen2", 24, 896, 4864, 14, 2, 151_936, tied=True), "Apache-2.0", 47.5),
    Candidate("Qwen2.5-1.5B", _shape("qwen2", 28, 1536, 8960, 12, 2, 151_936, tied=True), "Apache-2.0", 60.9),
    Candidate("Qwen2.5-3B", _shape("qwen2", 36, 2048, 11_008, 16, 2, 151_936, tied=True), "Qwen Research", 65.6),
    Candidate("Mistral-7B", _shape("mistral", 32, 4096, 14_336, 32, 8, 32_000), "Apache-2.0", 64.2),
    Candidate("Qwen2.5-7B", _shape("qwen2", 28, 3584, 18_944, 28, 4, 152_064), "Apache-2.0", 74.2),
    Candidate("Llama-3-8B", _shape("llama", 32, 4096, 14_336, 32, 8, 128_256), "Llama 3 Community", 66.6),
    Candidate("Qwen2.5-14B", _shape("qwen2", 48, 5120, 13_824, 40, 8, 152_064), "Apache-2.0", 79.7),
    Candidate("Qwen2.5-32B", _shape("qwen2", 64, 5120, 27_648, 40, 8, 152_064), "Apache-2.0", 83.3),
)

FORMATS: Mapping[str, Stored] = MappingProxyType({
    "Q8_0": Stored(8.5008, 0.0014),
    "Q6_K": Stored(6.5633, 0.0055),
    "Q5_K_M": Stored(5.7036, 0.0108),
    "Q4_K_M": Stored(4.8944, 0.0313),
    "Q4_K_S": Stored(4.6672, 0.0431),
    "Q3_K_L": Stored(4.2979, 0.0872),
    "Q3_K_S": Stored(3.6429, 0.2282),
    "Q2_K": Stored(3.1593, 0.4451),
})  # fmt: skip

CACHES: Mapping[str, Stored] = MappingProxyType(
    {"f16": Stored(16, 0.0), "q8": Stored(8.5, 0.0005), "q4": Stored(4.5, 0.135)}
)


def cache_bytes(config: LlmConfig, kv: str) -> float:
    """Return the bytes that one token takes in the cache."""
    return 2 * config.layers * config.kv_heads * config.head_width * CACHES[kv].bits / 8


def deployments(bandwidth: float, context: int) -> Iterator[dict[str, Any]]:
    """Yield every candidate in every format, with every cache.

    Args:
        bandwidth: of the device's memory, in GB/s (10^9 bytes); a speed is what it allows at best.
        context: tokens, all of them in the cache.
    """
    for candidate in CANDIDATES:
        for form, stored in FORMATS.items():
            weights = candidate.config.parameters() * stored.bits / 8
            for kv, kept in CACHES.items():
                cache = context * cache_bytes(candidate.config, kv)
                yield {
                    "model": candidate.name,
                    "format": form,
                    "kv": kv,
                    "bytes": round(weights + cache + BESIDE),
                    "speed": bandwidth * 1e9 / (weights + cache),
                    "score": candidate.score,
                    "divergence": stored.divergence + kept.divergence,
                }
