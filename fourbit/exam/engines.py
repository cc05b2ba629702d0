"""A tiny language model with a KV cache, right or broken in one of the ways in which real engines have been.

Lab 06 asks for code that drives such an engine, and for a test that tells the right ones from the broken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fourbit.errors import ExamError
from fourbit.llm.model import rotate

LAYERS, HEADS, WIDTH = 2, 2, 16  # two heads of eight channels
FAULTS = (
    "",  # right
    "noise",  # right, but for rounding of 1e-6 that is another one at each call, as with other orders of summation
    "mask",  # the causal mask of a chunk ignores what is in the cache
    "positions",  # each chunk is turned as if it began the text
    "turned twice",  # a single token turns the cached keys once more
    "stale",  # truncate() cuts the list of tokens and leaves the keys
    "future",  # tokens of one chunk see those behind them
    "late",  # a single token is stored after it has looked
    "window",  # later chunks see the last ten tokens only
    "last",  # every row of the logits is that of the last token
    "wear",  # reading changes the embeddings in place
    "coarse",  # keys from the cache are rounded to quarters
)


class TinyEngine:
    """A random transformer of attention layers: `forward` reads tokens behind those that its cache has.

    Attributes:
        tokens: those in the cache.
        context: how many it has room for.
        reads: how many tokens each call of `forward` read.
    """

    def __init__(
        self, seed: int, vocabulary: int = 19, context: int = 32, fault: str = "", filled: Sequence[int] = ()
    ) -> None:
        if fault not in FAULTS:
            raise ExamError(f"a tiny engine has one of the faults {FAULTS}, not {fault!r}")
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.context, self.tokens, self.reads = context, list[int](), list[int]()
        self._fault, self._noise, self._filled = fault, torch.Generator().manual_seed(seed + 1), 0
        self._embeddings = drawn(vocabulary, WIDTH)
        self._layers = [drawn(4, WIDTH, WIDTH) * 1.5 / math.sqrt(WIDTH) for _ in range(LAYERS)]  # q, k, v, output
        self._head = drawn(WIDTH, vocabulary)
        self._cache = torch.zeros(LAYERS, 2, HEADS, 16 * context, WIDTH // HEADS)
        self._turns = 0.5 ** torch.arange(WIDTH // HEADS // 2)
        if filled:
            self.forward(filled)
            self.reads.clear()

    def truncate(self, length: int) -> None:
        """Forget the tokens behind the first `length`.

        Raises:
            RuntimeError: when there are fewer.
        """
        if not 0 <= length <= len(self.tokens):
            raise RuntimeError(f"there are {len(self.tokens)} tokens in the cache; it cannot be cut to {length}")
        del self.tokens[length:]
        if self._fault != "stale" or length == 0:
            self._filled = length

    def forward(self, tokens: Sequence[int]) -> Tensor:
        """Read tokens, and return the logits (len(tokens), vocabulary) float32 after each.

        Raises:
            RuntimeError: when there are none, or no room for them.
        """
        new, places = len(tokens), len(self.tokens)
        if not new or places + new > self.context or self._filled + new > self._cache.shape[3]:
            raise RuntimeError(f"cannot read {new} tokens behind {places} in a context of {self.context}")
        self.reads.append(new)
        first = 0 if self._fault == "positions" else places
        angles = torch.arange(first, first + new)[:, None] * self._turns
        x = self._embeddings[list(tokens)]
        for layer, matrices in enumerate(self._layers):
            x = x + self._attention(x, layer, matrices, angles)
        self.tokens.extend(tokens)
        self._filled += new
        if self._fault == "wear":
            self._embeddings[list(tokens)] *= 1.05
        logits = x / x.square().mean(-1, keepdim=True).sqrt() @ self._head
        if self._fault == "last":
            logits = logits[-1:].expand(new, -1)
        if self._fault == "noise":
            logits = logits * (1 + 1e-6 * torch.randn(logits.shape, generator=self._noise))
        return logits

    def _attention(self, x: Tensor, layer: int, matrices: Tensor, angles: Tensor) -> Tensor:
        start, new = self._filled, len(x)
        query, key, value = (part.unflatten(1, (HEADS, -1)).transpose(0, 1) for part in x @ matrices[:3])
        query, key = rotate(query, angles), rotate(key, angles)
        self._cache[layer, 0, :, start : start + new] = key
        self._cache[layer, 1, :, start : start + new] = value
        keys, values = self._cache[layer, :, :, : start + new].clone()  # (heads, start + new, width)
        if self._fault == "coarse":
            keys[:, :start] = (4 * keys[:, :start]).round() / 4
        if self._fault == "turned twice" and new == 1:
            keys[:, :start] = rotate(keys[:, :start], torch.arange(start)[:, None] * self._turns)
        scores = query @ keys.transpose(1, 2) / math.sqrt(WIDTH / HEADS)
        weights = scores.masked_fill(~self._seen(start, new), -math.inf).softmax(-1)
        mixed: Tensor = (weights @ values).transpose(0, 1).flatten(1) @ matrices[3]
        return mixed

    def _seen(self, start: int, new: int) -> Tensor:
        """Which of start + new keys each of `new` tokens may look at, (new, start + new)."""
        keys, ends = torch.arange(start + new), torch.arange(start, start + new)[:, None]
        if self._fault == "mask":
            ends = ends - start
        if self._fault == "future":
            ends = torch.full((new, 1), start + new - 1)
        if self._fault == "late" and new == 1 and start:
            ends = ends - 1
        seen = keys <= ends
        return seen & (keys > ends - 10) if self._fault == "window" and start else seen
