"""The engine: a model in 4 or 8 bits that answers, one token after another, on the CPU.

The transformer of :mod:`fourbit.llm.model`, once more, for speed: matrices stay as the file stores them and are
multiplied by :mod:`fourbit.kernels`; keys and values go into a cache that was taken once; a prompt is read in chunks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fourbit import kernels
from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.kv import KVCache
from fourbit.llm.model import frequencies
from fourbit.llm.sampling import GREEDY, Sampling
from fourbit.llm.streaming import Piece, StopStrings
from fourbit.llm.tokenizer import Tokenizer
from fourbit.llm.weights import LayerWeights, Weights, open_weights

CHUNK = 256  # tokens of a prompt that are read together: enough for the kernels' tiles, little memory


@dataclass(frozen=True)
class Timing:
    """What a generation took: tokens of its prompt, those that the cache had already, seconds to the first token
    (reading the prompt and choosing), tokens generated, and the seconds after the first."""

    prompt_tokens: int
    reused: int
    first_token: float
    tokens: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Tokens per second after the first; 0 where there was none."""
        return (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds > 0 else 0.0


class Engine:
    """A model and the conversation that its cache holds. One generation at a time; not to be shared by threads."""

    def __init__(self, weights: Weights, context: int, cache: str) -> None:
        if not 1 < context <= weights.config.context:
            raise ModelError(f"{weights.path.name} has a context of 2 to {weights.config.context} tokens, not {context}")
        self._weights = weights
        self._cache = KVCache(weights.config, context, cache)
        self._tokens: list[int] = []
        self._turns = frequencies(weights.config)
        self.timing = Timing(0, 0, 0.0, 0, 0.0)

    @classmethod
    def open(
        cls, name: str | Path, *, context: int = 2048, threads: int | None = None, cache: str = "f16"
    ) -> Engine:
        """Open a model by its registry name, a GGUF file, or an artifact of lab 04.

        Args:
            context: tokens of prompt and answer together; cut to what the model was trained for.
            threads: of the kernels, for this process; None leaves them as they are.
            cache: f32, f16, q8 or q4.

        Raises:
            ModelError: when it is not there, damaged, or not supported.
            KernelError: when there is neither a compiler nor numba for the kernels.
        """
        if threads is not None:
            kernels.use_threads(threads)
        weights = open_weights(name)
        return cls(weights, min(context, weights.config.context), cache)

    @property
    def config(self) -> LlmConfig:
        return self._weights.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._weights.tokenizer

    @property
    def path(self) -> Path:
        return self._weights.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be run as it is stored, and what was done about it."""
        return self._weights.notes

    @property
    def context(self) -> int:
        """Tokens that the cache has room for."""
        return self._cache.capacity

    @property
    def weight_bytes(self) -> int:
        return self._weights.nbytes

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    def truncate(self, length: int) -> None:
        """Forget the tokens from position `length` on.

        Raises:
            ModelError: when there are fewer.
        """
        self._cache.truncate(length)
        del self._tokens[length:]

    def prefill(self, tokens: Sequence[int], chunk: int = CHUNK) -> Tensor:
        """Read tokens behind those in the cache, and return the logits (vocabulary,) float32 after the last one.

        Raises:
            ModelError: when there are none, one is outside the vocabulary, or they do not fit; the cache is as before.
        """
        self._refuse(tokens)
        before = self.length
        try:
            for start in range(0, len(tokens), chunk):
                states = self._forward(tokens[start : start + chunk])
        except BaseException:
            self.truncate(before)
            raise
        return self._logits(states[-1:])

    def step(self, token: int) -> Tensor:
        """Read one more token, and return the logits (vocabulary,) float32 after it."""
        return self.prefill([token])

    def scores(self, tokens: Sequence[int], chunk: int = CHUNK) -> Tensor:
        """Read tokens as :meth:`prefill` does, and return the logits after each, (T, vocabulary) float32."""
        self._refuse(tokens)
        parts = [self._forward(tokens[at : at + chunk]) for at in range(0, len(tokens), chunk)]
        return kernels.multiply([self._weights.head], self._norm(torch.cat(parts), self._weights.gain))[0]

    def _refuse(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ModelError("there is nothing to read: the prompt has no token; give it one")
        if not 0 <= min(tokens) <= max(tokens) < self.config.vocabulary:
            raise ModelError(f"tokens lie between 0 and {self.config.vocabulary - 1}; these reach {max(tokens)}")
        if self.length + len(tokens) > self.context:
            raise ModelError(
                f"{self.length + len(tokens)} tokens do not fit into a context of {self.context}; shorten the text, "
                f"or open the model with more context (it can have {self.config.context})"
            )

    def _forward(self, tokens: Sequence[int]) -> Tensor:
        """Run the layers on some tokens, and return their states (T, width) before the last norm."""
        weights, start = self._weights, self.length
        states = kernels.rows(weights.embeddings, torch.tensor(tokens))  # (T, width)
        angles = torch.arange(start, start + len(tokens))[:, None] * self._turns  # (T, head_width / 2)
        turn = angles.cos()[:, None], angles.sin()[:, None]
        for i, layer in enumerate(weights.layers):
            states = states + self._attention(i, layer, self._norm(states, layer.input_gain), turn)
            gate, up = kernels.multiply(layer.gate_up, self._norm(states, layer.post_gain))
            states = states + kernels.multiply([layer.down], F.silu(gate).mul_(up))[0]
        self._cache.advance(len(tokens))
        self._tokens.extend(tokens)
        return states

    def _attention(self, i: int, layer: LayerWeights, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        parts = kernels.multiply(layer.qkv, x)
        if layer.biases is not None:
            parts = [part + bias for part, bias in zip(parts, layer.biases, strict=True)]
        query, key, value = (part.unflatten(-1, (-1, self.config.head_width)) for part in parts)  # (T, heads, width)
        query, key = self._rotate(query, turn), self._rotate(key, turn)
        self._cache.store(i, key, value)
        mixed = kernels.attend(query, self._cache.keys(i), self._cache.values(i), self.length)
        return kernels.multiply([layer.output], mixed.flatten(1))[0]

    def _rotate(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Turn the pairs of x (T, heads, width), neighbors or half a head apart, by cos and sin (T, 1, width / 2)."""
        cos, sin = turn
        pairs = x.unflatten(-1, (-1, 2)) if self._weights.paired else x.unflatten(-1, (2, -1)).transpose(-1, -2)
        left, right = pairs.unbind(-1)
        turned = [left * cos - right * sin, left * sin + right * cos]
        return torch.stack(turned, -1).flatten(-2) if self._weights.paired else torch.cat(turned, -1)

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        return F.rms_norm(x, gain.shape, gain, self.config.norm_eps)

    def _logits(self, states: Tensor) -> Tensor:
        return kernels.multiply([self._weights.head], self._norm(states, self._weights.gain))[0][0]

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        limit: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]:
        """Continue a prompt, piece by piece. What the cache already has of the prompt's beginning is not read again.

        Args:
            prompt: tokens; see `tokenizer.encode` and `tokenizer.chat`.
            limit: tokens at most; None for as many as the context has room for.
            stop: strings that end the answer; they are left out of it.

        Raises:
            ModelError: when the prompt is empty, outside the vocabulary or longer than the context, or for a limit
                below 1.
        """
        if limit is not None and limit < 1:
            raise ModelError(f"an answer has at least one token, not {limit}")
        if len(prompt) >= self.context:
            raise ModelError(
                f"the prompt has {len(prompt)} tokens and leaves no room in a context of {self.context}; shorten it, "
                f"or open the model with more context (it can have {self.config.context})"
            )
        return self._generate(list(prompt), sampling, limit, StopStrings(stop))

    def _generate(self, prompt: list[int], sampling: Sampling, limit: int | None, stops: StopStrings) -> Iterator[Piece]:
        began, source = time.perf_counter(), sampling.generator()
        reused = self._keep(prompt)
        logits = self.prefill(prompt[reused:])
        text = self.tokenizer.stream()
        first, count, reason, shown = began, 0, "", ""
        while not reason:
            token = sampling.choose(logits, source)
            count += 1
            now = time.perf_counter()
            first = now if count == 1 else first
            self.timing = Timing(len(prompt), reused, first - began, count, now - first)
            if token in self.tokenizer.stop:
                reason = "stop"
                break
            shown, stopped = stops.feed(text(token))
            reason = "stop" if stopped else "length" if count == limit else ""
            if not reason and self.length == self.context:
                reason = "context"
            if reason:
                break
            if shown:
                yield Piece(shown, count)
            logits = self.step(token)
            shown = ""
        yield Piece(shown + stops.rest(), count, reason)

    def _keep(self, prompt: Sequence[int]) -> int:
        """Cut the cache to what it shares with a prompt, all but the prompt's last token at most."""
        same = 0
        for ours, theirs in zip(self._tokens, prompt[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        self.truncate(same)
        return same

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: Sampling = GREEDY,
        limit: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]:
        """Answer a conversation ({"role", "content"} each) in the model's own chat template; as :meth:`generate`."""
        prompt = self.tokenizer.encode(self.tokenizer.chat(messages), special=False)
        return self.generate(prompt, sampling, limit, stop)
