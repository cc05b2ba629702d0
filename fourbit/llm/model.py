"""A decoder-only transformer of the Llama family in plain PyTorch, to be read.

RMSNorm (Zhang and Sennrich, arXiv:1910.07467), rotary positions (Su et al., arXiv:2104.09864), grouped-query attention
(Ainslie et al., arXiv:2305.13245) and SwiGLU (Shazeer, arXiv:2002.05202). Modules carry the names of Hugging Face's
implementation, so that its checkpoints load as they are. Everything is float32; nothing is fused or hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


def frequencies(config: LlmConfig) -> Tensor:
    """Return the angle by which each pair of channels turns from one token to the next, (head_width / 2,)."""
    half = config.head_width // 2
    slower = config.rope_scaling or [1.0] * half
    return torch.tensor([config.rope_theta ** (-i / half) / slower[i] for i in range(half)])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_width / 2) of x (B, heads, T, head_width) by angles (T, head_width / 2)."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Cache:
    """The keys and values of the tokens that a model has seen, for each layer (B, kv_heads, T, head_width)."""

    def __init__(self, config: LlmConfig) -> None:
        self.keys: list[Tensor | None] = [None] * config.layers
        self.values: list[Tensor | None] = [None] * config.layers

    def __len__(self) -> int:
        return 0 if self.keys[-1] is None else self.keys[-1].shape[2]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens to a layer, and return all that it has."""
        seen_keys, seen_values = self.keys[layer], self.values[layer]
        if seen_keys is not None and seen_values is not None:
            key, value = torch.cat([seen_keys, key], 2), torch.cat([seen_values, value], 2)
        self.keys[layer], self.values[layer] = key, value
        return key, value


class Attention(nn.Module):
    def __init__(self, config: LlmConfig, layer: int) -> None:
        super().__init__()
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.width, bias=False)
        self.head_width, self.layer = config.head_width, layer
        self.shared = config.heads // config.kv_heads

    def forward(self, x: Tensor, angles: Tensor, cache: Cache | None) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, heads, T, head_width)

        query, key = rotate(heads(self.q_proj(x)), angles), rotate(heads(self.k_proj(x)), angles)
        value = heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.append(self.layer, key, value)
        key, value = (part.repeat_interleave(self.shared, dim=1) for part in (key, value))
        new, total = query.shape[2], key.shape[2]
        # A token sees itself and what came before it.
        seen = torch.ones(new, total, dtype=torch.bool, device=x.device).tril(total - new)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ff, bias=False)
        self.up_proj = nn.Linear(config.width, config.ff, bias=False)
        self.down_proj = nn.Linear(config.ff, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: LlmConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, angles: Tensor, cache: Cache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """The model: tokens (B, T) int64 in, logits (B, T, vocabulary) float32 out."""

    turns: Tensor

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocabulary, config.width).uniform_(-1, 1), freeze=False
        )
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight
        self.register_buffer("turns", frequencies(config), persistent=False)

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Return the final states (B, T, width), normalized, as the head gets them.

        Raises:
            ModelError: when tokens are not int64 (B, T) or outside the vocabulary.
        """
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise ModelError(f"tokens are int64 (B, T), not {tokens.dtype} {tuple(tokens.shape)}")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.config.vocabulary:
            raise ModelError(f"tokens lie between 0 and {self.config.vocabulary - 1}; these reach {int(tokens.max())}")
        start = 0 if cache is None else len(cache)
        place = torch.arange(start, start + tokens.shape[1], dtype=torch.float32, device=tokens.device)
        angles = place[:, None] * self.turns  # (T, head_width / 2)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles, cache)
        return self.norm(x)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        return self.lm_head(self.hidden(tokens, cache))


@torch.no_grad()
def generate_greedy(model: Transformer, tokens: Sequence[int], count: int, stop: Sequence[int] = ()) -> list[int]:
    """Return up to `count` further tokens, each the most likely one; `stop` tokens end the text and are left out."""
    cache, found = Cache(model.config), list[int]()
    new = torch.tensor([list(tokens)])
    while len(found) < count:
        best = int(model.lm_head(model.hidden(new, cache)[:, -1]).argmax())
        if best in stop:
            break
        found.append(best)
        new = torch.tensor([[best]])
    return found
