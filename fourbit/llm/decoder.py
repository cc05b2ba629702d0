"""The layers of the transformer as a sequence of kernel calls on buffers that were taken once.

The mathematics is that of :mod:`fourbit.llm.model`. What differs: matrices stay packed; keys and values of earlier
tokens are in a cache; and the rotation turns neighbors where the file stores the rows of queries and keys so.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fourbit.kernels import Kernels
from fourbit.llm.config import LlmConfig
from fourbit.llm.kv_cache import KVCache
from fourbit.llm.model import frequencies
from fourbit.llm.weights import LayerWeights, Weights

if TYPE_CHECKING:
    from fourbit.kernels.tape import Tape

CHUNK = 128  # tokens that are read together: the kernels' tiles are full, and what lies between the layers is small
# The kernels sum in one order for a few tokens and in another for many. Up to FEW in one pass get, bit for bit, what
# each would get alone; with MANY or more, what a token gets does not depend on how many they are.
FEW, MANY = 3, 8
_KEPT = 16  # so many tokens, as decoding reads them, keep their buffers


def pieces(tokens: Sequence[int]) -> list[Sequence[int]]:
    """Cut a text into passes of at most CHUNK tokens, none but a short text's only one with fewer than MANY."""
    count = -(-len(tokens) // CHUNK)
    borders = [i * CHUNK for i in range(count)] + [len(tokens)]
    if count > 1 and borders[-1] - borders[-2] < MANY:
        borders[-2] -= MANY
    return [tokens[start:end] for start, end in itertools.pairwise(borders)]


class _Buffers:
    """What one pass over `count` tokens computes, all float32.

    `states` (count, width) run through the layers; `normed` is what matrices get, and `added` what is added to the
    states behind them. `heads` are views (count, heads, head_width) of queries, keys and values; `cos` and `sin`
    (count, head_width / 2) are of the positions' angles. `tape` is the pass as it was recorded with `caches`.
    """

    tape: Tape | None = None
    caches: Sequence[KVCache] = ()

    def __init__(self, config: LlmConfig, count: int) -> None:
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.states, self.normed, self.added = (torch.empty(count, config.width) for _ in range(3))
        self.qkv = tuple(torch.empty(count, width) for width in (queries, keys, keys))
        self.heads = tuple(part.view(count, -1, config.head_width) for part in self.qkv)
        self.mixed = torch.empty(count, queries)
        self.gate_up = torch.empty(count, config.ff), torch.empty(count, config.ff)
        self.behind = (self.added,)
        self.cos, self.sin = (torch.empty(count, config.head_width // 2) for _ in range(2))

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return some tokens' queries, keys, values (n, heads, head_width) and mixed values (n, heads * head_width)."""
        query, key, value = (part[first:last] for part in self.heads)
        return query, key, value, self.mixed[first:last]


class Decoder:
    """All layers of a model, its norms and its head. Not to be used by two threads at a time."""

    def __init__(self, weights: Weights, kernel: Kernels) -> None:
        self.weights, self.kernel, self._config = weights, kernel, weights.config
        self._turns = frequencies(weights.config)  # (head_width / 2,)
        self._few: dict[int, _Buffers] = {}
        self._many: _Buffers | None = None

    def read(self, tokens: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """Run the layers on T tokens, at most CHUNK, and return their states (T, width) before the last norm.

        With one cache the tokens go into it one behind the other; else there is one cache for each token. The states
        are overwritten by the next call.
        """
        buffers, count = self._buffers(len(tokens)), len(tokens)
        starts = [cache.length for cache in caches]
        places = range(starts[0], starts[0] + count) if len(caches) == 1 else starts
        angles = torch.tensor(places, dtype=torch.float32)[:, None] * self._turns  # (T, head_width / 2)
        torch.cos(angles, out=buffers.cos)
        torch.sin(angles, out=buffers.sin)
        buffers.states.copy_(self.kernel.rows(self.weights.embeddings, tokens))
        tape = self._tape(buffers, caches) if count <= _KEPT else None
        if tape:
            tape.play(starts)
        else:
            self._layers(self.kernel, buffers, caches)
        for cache in caches:
            cache.advance(count if len(caches) == 1 else 1)
        return buffers.states

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (T, vocabulary) of states (T, width)."""
        normed = torch.empty(states.shape)
        found = torch.empty(len(states), self._config.vocabulary)
        self.kernel.rms_norm(states, self.weights.gain, self._config.norm_eps, normed)
        self.kernel.matmul(self.weights.head, normed, (found,))
        return found

    def _buffers(self, count: int) -> _Buffers:
        """Return the buffers for `count` tokens: of a few they are kept, of many only those of the last count."""
        if count <= _KEPT:
            if count not in self._few:
                self._few[count] = _Buffers(self._config, count)
            return self._few[count]
        if self._many is None or len(self._many.states) != count:
            self._many = None  # before the next ones are taken
            self._many = _Buffers(self._config, count)
        return self._many

    def _tape(self, buffers: _Buffers, caches: Sequence[KVCache]) -> Tape | None:
        """Return the pass over all layers on these caches, recorded now if it was not the last time."""
        known = len(caches) == len(buffers.caches) and all(map(operator.is_, caches, buffers.caches))
        if not known:
            recorder = self.kernel.recorder([cache.layers for cache in caches], [cache.length for cache in caches])
            if recorder is None:
                return None
            self._layers(recorder, buffers, caches)
            buffers.tape, buffers.caches = recorder.tape(), tuple(caches)
        return buffers.tape

    def _layers(self, kernel: Kernels, buffers: _Buffers, caches: Sequence[KVCache]) -> None:
        """Run all layers on the buffers' states; the caches are as long as before the pass."""
        count, place = len(buffers.states), caches[0].length
        if len(caches) > 1:
            parts = [(cache, cache.length, *buffers.rows(i, i + 1)) for i, cache in enumerate(caches)]
        elif count > FEW:
            parts = [(caches[0], place, *buffers.rows(0, count))]
        else:
            parts = [(caches[0], place + i, *buffers.rows(i, i + 1)) for i in range(count)]
        for i, layer in enumerate(self.weights.layers):
            self._project(kernel, layer, buffers)
            for cache, start, query, key, value, mixed in parts:
                kernel.store(cache.layers[i], start, key, value)
                kernel.attend(query, cache.layers[i], start, mixed)
            self._finish(kernel, layer, buffers)

    def _project(self, kernel: Kernels, layer: LayerWeights, buffers: _Buffers) -> None:
        """Make queries, keys and values of the states, the first two turned by their positions."""
        kernel.rms_norm(buffers.states, layer.input_gain, self._config.norm_eps, buffers.normed)
        kernel.matmul(layer.qkv, buffers.normed, buffers.qkv)
        for part, bias in zip(buffers.qkv, layer.biases or (), strict=False):
            kernel.add(part, bias)
        kernel.rope(buffers.heads[0], buffers.cos, buffers.sin, self.weights.paired)
        kernel.rope(buffers.heads[1], buffers.cos, buffers.sin, self.weights.paired)

    def _finish(self, kernel: Kernels, layer: LayerWeights, buffers: _Buffers) -> None:
        """Add to the states what attention has mixed, then what the feed-forward layer makes of them."""
        gate, up = buffers.gate_up
        kernel.matmul(layer.output, buffers.mixed, buffers.behind)
        kernel.add(buffers.states, buffers.added)
        kernel.rms_norm(buffers.states, layer.post_gain, self._config.norm_eps, buffers.normed)
        kernel.matmul(layer.gate_up, buffers.normed, buffers.gate_up)
        kernel.swiglu(gate, up, gate)
        kernel.matmul(layer.down, gate, buffers.behind)
        kernel.add(buffers.states, buffers.added)
