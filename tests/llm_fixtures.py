"""The pocket model for tests, fetched once into the user's cache, and the models' shape in miniature."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.registry import fetch_model

EPS = float(torch.finfo(torch.float32).eps)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "llama, tied, grouped": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama, own head, all heads": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama 3.1's positions": ("Llama", {"num_key_value_heads": 1, "rope_parameters": LLAMA3}),
    "llama, wide heads": ("Llama", {"num_key_value_heads": 2, "head_dim": 32}),
    "qwen2, biases": ("Qwen2", {"num_key_value_heads": 2, "rms_norm_eps": 1e-6}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
}


@pytest.fixture(scope="session")
def pocket() -> Path:
    """Path of the pocket GGUF. Where no source of it answers, the test is skipped on a laptop and fails in CI."""
    try:
        return fetch_model("smollm2", progress=False)
    except ModelError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def theirs(variant: str) -> transformers.PreTrainedModel:
    """A random model of transformers; weights large enough that every part matters."""
    family, options = VARIANTS[variant]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if "norm" in name or "bias" in name else 0.12))
            if "norm" in name:
                parameter.add_(1)
    return model


def vocabulary(size: int) -> dict[str, Any]:
    """Metadata of a byte-pair vocabulary of plain words, which llama.cpp asks for (it hides halves of UTF-8 signs)."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": ["w", "0", "w0", *(f"w{i}" for i in range(1, size - 2))],
        "tokenizer.ggml.token_type": [1] * size,
        "tokenizer.ggml.merges": ["w 0"],
        "tokenizer.ggml.add_bos_token": False,
    }


def rounding(config: LlmConfig, wanted: torch.Tensor) -> float:
    """Two implementations sum the same float32 products in another order.

    A sum of n terms moves by at most n eps of their size; the longest here has max(width, ff) terms, and each layer
    makes four such sums in a row, one after another, before the head's.
    """
    return EPS * max(config.width, config.ff) * (4 * config.layers + 1) * float(wanted.abs().max())
