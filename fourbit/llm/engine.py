"""The engine: a model in 4 or 8 bits that reads tokens and says what may come next, on the CPU.

The transformer of :mod:`fourbit.llm.model`, once more, for speed: matrices stay as the file stores them and are
multiplied by :mod:`fourbit.kernels`; keys and values go into a cache that was taken once; so do all intermediate
results; a prompt is read in chunks. :mod:`fourbit.llm.generation` makes text with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fourbit import kernels
from fourbit.errors import ModelError
from fourbit.llm.decoder import MANY, Decoder, pieces
from fourbit.llm.kv_cache import KVCache
from fourbit.llm.tokenizer import Tokenizer
from fourbit.llm.weights import open_weights


class Engine:
    """A model and the text that its cache holds: `tokens`, read so far.

    `text` counts the texts that were begun (:meth:`reuse`), for those who go on with one to see that it is still it. An
    engine and its forks share buffers: they are for one thread at a time.
    """

    def __init__(self, decoder: Decoder, context: int, kv: str) -> None:
        weights, config = decoder.weights, decoder.weights.config
        if not 1 < context <= config.context:
            raise ModelError(f"{weights.path.name} has a context of 2 to {config.context} tokens, not {context}")
        self.weights, self.kernel, self.config, self.context = weights, decoder.kernel, config, context
        self.tokens: list[int] = []
        self.text = 0
        self._decoder, self._cache = decoder, KVCache(config, context, kv)

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        context: int = 2048,
        threads: int | None = None,
        kv: str = "f16",
        backend: str | None = None,
    ) -> Engine:
        """Open a model by its registry name, a GGUF file, an artifact of lab 04, or a checkpoint folder.

        Args:
            context: tokens of prompt and answer together; cut to what the model was trained for.
            threads: of the kernels; None for as many as this process may use cores.
            kv: kind of the KV cache: f32, f16, q8 or q4.
            backend: of the kernels, "c" or "numba"; None for the best there is.

        Raises:
            ModelError: when it is not there, damaged, not supported, or its cache does not fit into memory.
            KernelError: for a number of threads or a backend that there is not.
        """
        weights = open_weights(name)
        kernel = kernels.load(threads=_cores() if threads is None else threads, backend=backend)
        return cls(Decoder(weights, kernel), min(context, weights.config.context), kv)

    def fork(self, context: int | None = None, kv: str | None = None) -> Engine:
        """Return another engine of the same weights and kernels, with a cache and a text of its own."""
        return Engine(self._decoder, context or self.context, kv or self._cache.kind)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.weights.tokenizer

    @property
    def path(self) -> Path:
        return self.weights.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be run as it is stored, and what was done about it."""
        return self.weights.notes

    @property
    def weight_bytes(self) -> int:
        return self.weights.nbytes

    @property
    def cache_bytes(self) -> int:
        """Bytes of the whole KV cache, used or not."""
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
        del self.tokens[length:]

    def reuse(self, prompt: Sequence[int], again: int = MANY) -> int:
        """Begin a text: keep of the cache what it shares with a prompt, and return how many tokens that is.

        The prompt's last tokens, `again` at least, are not kept: one has to be read for what comes after it, and MANY
        so that a prompt that is read a second time gets the same logits, bit for bit.
        """
        same, most = 0, min(self.length, len(prompt) - again)
        while same < most and self.tokens[same] == prompt[same]:
            same += 1
        same = same if same >= again else 0  # fewer were not read among so many
        self.truncate(same)
        self.text += 1
        return same

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise a ModelError when there are no tokens, or one is outside the vocabulary."""
        self.config.validate(tokens)

    def forward(self, tokens: Sequence[int], every: bool = False) -> Tensor:
        """Read tokens behind those in the cache, in chunks, and return what may come after them.

        Returns:
            The logits after the last token (vocabulary,), or with `every` those after each, (T, vocabulary); float32.

        Raises:
            ModelError: when there are none, one is outside the vocabulary, or they do not fit; said before anything is
                computed. After it, and after an interrupt, the cache is as before.
        """
        self.validate(tokens)
        before = self.length
        if before + len(tokens) > self.context:
            raise ModelError(
                f"{before + len(tokens)} tokens do not fit into a context of {self.context}; shorten the text, "
                f"or open the model with more context (it can have {self.config.context})"
            )
        found = []
        try:
            for part in pieces(tokens):
                states = self._decoder.read(part, [self._cache])
                self.tokens.extend(part)
                if every:
                    found.append(self._decoder.logits(states))
        except BaseException:
            self.truncate(before)
            raise
        return torch.cat(found) if every else self._decoder.logits(states[-1:])[0]


def decode_together(engines: Sequence[Engine], tokens: Sequence[int]) -> Tensor:
    """Read one token for each of several texts, with one pass over the weights, and return (n, vocabulary) logits.

    Args:
        engines: different ones of the same weights: an engine and its :meth:`Engine.fork`.

    Raises:
        ModelError: when they are not, a token is outside the vocabulary, or a context is full; nothing is read then.
    """
    if not engines:
        raise ModelError("at least one engine is needed to decode")
    first = engines[0]
    if len(engines) != len(tokens) or len(set(map(id, engines))) < len(engines):
        raise ModelError(f"{len(engines)} engines, each once, need as many tokens, not {len(tokens)}")
    for engine, token in zip(engines, tokens, strict=True):
        engine.validate([token])
        if engine.weights is not first.weights:
            raise ModelError("only engines of the same weights decode together; `fork()` makes them")
        if engine.length == engine.context:
            raise ModelError(f"a text has filled its context of {engine.context}; take it out")
    before = [engine.length for engine in engines]
    try:
        states = first._decoder.read(tokens, [engine._cache for engine in engines])
        for engine, token in zip(engines, tokens, strict=True):
            engine.tokens.append(token)
        return first._decoder.logits(states)
    except BaseException:
        for engine, length in zip(engines, before, strict=True):
            engine.truncate(length)
        raise


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
