"""Named fixtures: inputs too large or too alive to travel, built where the call happens.

A `Ref("images", {"split": "val", "count": 512})` in a case stands for what :func:`resolve` returns. Every call
gets its own copy, so that a function which changes its inputs cannot disturb the next call.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from fourbit.codec import Ref
from fourbit.errors import ExamError
from fourbit.exam.suspects import suspect


class FakeClock:
    """A clock that returns `ticks` (seconds) one after the other, and stops at the last."""

    def __init__(self, ticks: Iterable[float]) -> None:
        self._ticks = list(ticks)
        self._next = 0

    def __call__(self) -> float:
        tick = self._ticks[min(self._next, len(self._ticks) - 1)]
        self._next += 1
        return tick


@lru_cache(maxsize=8)
def _images(dataset: str, split: str, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    from fourbit.data import load, to_float

    part = getattr(load(dataset), split)
    x, y = part.x[start : start + count], part.y[start : start + count]
    return to_float(x), y.clone()


def images(split: str, count: int, start: int = 0, dataset: str = "fashion-20k") -> tuple[torch.Tensor, torch.Tensor]:
    """`count` images from `start` of a split: x float32 (count, C, H, W), y int64 (count,)."""
    x, y = _images(dataset, split, start, count)
    return x.clone(), y.clone()


@lru_cache(maxsize=8)
def _model(name: str) -> nn.Sequential:
    from fourbit.models import load_checkpoint

    return load_checkpoint(name)


def model(name: str) -> nn.Sequential:
    """A fresh copy of a shipped checkpoint, in eval mode."""
    return copy.deepcopy(_model(name))


@lru_cache(maxsize=8)
def _logits(model_name: str, dataset: str, split: str, start: int, count: int) -> torch.Tensor:
    x, _ = _images(dataset, split, start, count)
    with torch.no_grad():
        return torch.cat([_model(model_name)(part) for part in x.split(500)])


def logits(model: str, split: str, count: int, start: int = 0, dataset: str = "fashion-20k") -> torch.Tensor:
    """Logits of a shipped checkpoint on images of a split: float32 (count, classes)."""
    return _logits(model, dataset, split, start, count).clone()


def language_model(seed: int, vocabulary: int, window: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tiny random transformer: tokens int64 (1, T) -> logits (1, T, vocabulary), which depend on all tokens before.

    It refuses more than `window` tokens at a time.
    """
    from fourbit.llm.config import LlmConfig
    from fourbit.llm.model import Transformer

    sizes = (1, 16, 32, 2, 1, 8)  # layers, width, ff, heads, kv_heads, head_width
    config = LlmConfig("llama", *sizes, vocabulary, 1e4, 1e-5, tied=False, qkv_bias=False, context=window)
    model = Transformer(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(generator=generator).div_(parameter.shape[1] ** 0.5)

    def answer(tokens: torch.Tensor) -> torch.Tensor:
        if tokens.shape[-1] > window:
            raise ValueError(f"this model reads {window} tokens at a time, not {tokens.shape[-1]}")
        return model(tokens)

    return answer


def engine(seed: int, **options: Any) -> Any:
    """A tiny language model with a KV cache; see :class:`fourbit.exam.engines.TinyEngine`."""
    from fourbit.exam.engines import TinyEngine

    return TinyEngine(seed, **options)


def random_array(kind: str, shape: tuple[int, ...], seed: int, high: int = 256) -> np.ndarray[Any, Any]:
    """A large array that need not travel: integers below `high` for "uint8", standard normal for "float32".

    Values repeat after 65,521, a prime: no two rows are alike, and making it costs little beside using it.
    """
    random = np.random.default_rng(seed)
    count = min(math.prod(shape), 65_521)
    if kind == "uint8":
        return np.resize(random.integers(0, high, count, np.uint8), shape)
    return np.resize(random.standard_normal(count, np.float32), shape)


FIXTURES: dict[str, Callable[..., Any]] = {
    "clock": FakeClock,
    "engine": engine,
    "images": images,
    "language_model": language_model,
    "logits": logits,
    "model": model,
    "random_array": random_array,
    "suspect": suspect,
}


def resolve(value: Any) -> Any:
    """Return `value` with every `Ref` in its lists, tuples and dicts replaced by its fixture.

    Raises:
        ExamError: for a fixture that this version of Fourbit does not have.
    """
    if isinstance(value, Ref):
        if value.name not in FIXTURES:
            raise ExamError(f"no fixture {value.name!r}; this exam pack needs a newer Fourbit")
        return FIXTURES[value.name](**value.kwargs)
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if isinstance(value, tuple):
        return tuple(resolve(item) for item in value)
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    return value
