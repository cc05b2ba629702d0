"""The pocket model with a cache of bounded size: what the measurements of the chapter on long context run on.

Keys are kept as they were before their turn and turned when they are read, so that a key's position can be its place in
the text or its place in the cache (Xiao et al., arXiv:2309.17453). A policy says which keys stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fourbit.llm.model import Transformer, rotate

CHUNK = 32  # tokens in a pass; the cache is cut between passes
PAGE = 16


@dataclass
class Slots:
    """One layer's cache: keys before their turn and values (B, kv_heads, n, d), and for each its place and history."""

    keys: Tensor
    values: Tensor
    places: Tensor  # (B, kv_heads, n) where the token stands in the text
    mass: Tensor  # (B, kv_heads, n) attention received so far

    def __len__(self) -> int:
        return self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        places = places.expand(*keys.shape[:2], -1)
        self.keys, self.values = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        self.places = torch.cat([self.places, places], 2)
        self.mass = torch.cat([self.mass, torch.zeros_like(places)], 2)

    def keep(self, chosen: Tensor) -> None:
        """Keep the slots of these indices (B, kv_heads, kept), in this order."""
        wide = chosen[..., None].expand(-1, -1, -1, self.keys.shape[3])
        self.keys, self.values = self.keys.gather(2, wide), self.values.gather(2, wide)
        self.places, self.mass = self.places.gather(2, chosen), self.mass.gather(2, chosen)

    def clone(self) -> Slots:
        return Slots(self.keys.clone(), self.values.clone(), self.places.clone(), self.mass.clone())


Policy = Callable[[Slots, int], Tensor]
Select = Callable[[Tensor, Tensor], Tensor]


def sinks(first: int) -> Policy:
    """Keep the first tokens and the newest; with no first ones this is a window."""

    def choose(slots: Slots, count: int) -> Tensor:
        n = len(slots)
        order = torch.cat([torch.arange(first), torch.arange(n - count + first, n)])
        return order.expand(*slots.mass.shape[:2], -1)

    return choose


def heavy(slots: Slots, count: int) -> Tensor:
    """Keep the newest half, and of the rest those that have received the most attention, in each head (H2O)."""
    recent = count // 2
    old = slots.mass[..., : len(slots) - recent].topk(count - recent, -1).indices.sort(-1).values
    new = torch.arange(len(slots) - recent, len(slots)).expand(*old.shape[:2], -1)
    return torch.cat([old, new], -1)


def page_bounds(query: Tensor, keys: Tensor) -> Tensor:
    """Upper bounds (..., m, pages) of the products of queries (..., m, d) and any key of a page of keys (..., n, d)."""
    pages = keys.unflatten(-2, (-1, PAGE))  # (..., pages, PAGE, d)
    low, high = pages.amin(-2), pages.amax(-2)
    return query.clamp(min=0) @ high.transpose(-1, -2) + query.clamp(max=0) @ low.transpose(-1, -2)


def quest(count: int) -> Select:
    """Let each query read the pages with the largest bounds, and its own chunk: `count` keys at most."""

    def choose(query: Tensor, keys: Tensor) -> Tensor:
        new, n = query.shape[-2], keys.shape[-2]
        full = (n - new) // PAGE * PAGE  # keys in complete pages; those behind them are read always
        seen = torch.ones(*query.shape[:-1], n, dtype=torch.bool)
        if n <= count:
            return seen
        best = page_bounds(query, keys[..., :full, :]).topk((count - n + full) // PAGE, -1).indices
        chosen = torch.zeros(*query.shape[:-1], full // PAGE, dtype=torch.bool).scatter(-1, best, True)
        seen[..., :full] = chosen.repeat_interleave(PAGE, -1)
        return seen

    return choose


class Stream:
    """A batch of texts of equal length, read in passes; `budget` keys at most in each head when a policy is given."""

    def __init__(
        self,
        model: Transformer,
        policy: Policy | None = None,
        budget: int = 0,
        *,
        cache_places: bool = False,
        select: Select | None = None,
        turns: Tensor | None = None,
    ) -> None:
        self.model, self.policy, self.budget = model, policy, budget
        self.cache_places, self.select = cache_places, select
        self.turns = model.turns if turns is None else turns
        self.slots: list[Slots] = []
        self.place = 0

    def read(self, tokens: Tensor) -> Tensor:
        """Read tokens (B, m) in one pass, and return their final states (B, m, width)."""
        batch, new = tokens.shape
        config = self.model.config
        if not self.slots:
            none = torch.zeros(batch, config.kv_heads, 0)
            empty = none[..., None].expand(-1, -1, -1, config.head_width)
            self.slots = [Slots(empty, empty, none, none) for _ in self.model.layers]
        x = self.model.embed_tokens(tokens)
        for i, (layer, slots) in enumerate(zip(cast(Any, self.model.layers), self.slots, strict=True)):
            if self.policy is not None and len(slots) + new > self.budget:
                slots.keep(self.policy(slots, self.budget - new))
            x = x + self._attend(layer.self_attn, layer.input_layernorm(x), slots, self.select if i >= 2 else None)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self.place += new
        return torch.as_tensor(self.model.norm(x))

    def _attend(self, own: Any, x: Tensor, slots: Slots, select: Select | None) -> Tensor:
        width, new = self.model.config.head_width, x.shape[1]
        q, k, v = (p(x).unflatten(-1, (-1, width)).transpose(1, 2) for p in (own.q_proj, own.k_proj, own.v_proj))
        slots.append(k, v, torch.arange(self.place, self.place + new, dtype=torch.float32))
        n = len(slots)
        if self.cache_places:
            here, there = torch.arange(n - new, n).float(), torch.arange(n).float()
            turned = rotate(slots.keys, there[:, None] * self.turns)
        else:
            here = slots.places[0, 0, -new:]
            turned = rotate(slots.keys, slots.places[..., None] * self.turns)
        q = rotate(q, here[:, None] * self.turns).unflatten(1, (-1, own.shared))  # (B, kv_heads, shared, m, d)
        turned = turned[:, :, None]
        scores = q @ turned.transpose(-1, -2) / math.sqrt(width)  # (B, kv_heads, shared, m, n)
        seen = torch.ones(new, n, dtype=torch.bool).tril(n - new)
        if select is not None:
            seen = seen & select(q, turned.expand(-1, -1, own.shared, -1, -1))
        weights = scores.masked_fill_(~seen, -math.inf).softmax(-1)
        slots.mass = slots.mass + weights.sum((2, 3))
        mixed = (weights @ slots.values[:, :, None]).flatten(1, 2)
        return torch.as_tensor(own.o_proj(mixed.transpose(1, 2).flatten(2)))

    def losses(self, tokens: Tensor, chunk: int = CHUNK) -> Tensor:
        """Read texts (B, T) in passes of `chunk`, and return -log p (B, T - 1) of each token but the first."""
        rows: list[Tensor] = []
        for start in range(0, tokens.shape[1], chunk):
            states = self.read(tokens[:, start : start + chunk])
            wanted = tokens[:, start + 1 : start + chunk + 1]
            logs = self.model.lm_head(states[:, : wanted.shape[1]]).log_softmax(-1)
            rows.append(-logs.gather(2, wanted[..., None])[..., 0])
        return torch.cat(rows, 1)
