"""What a change of a language model costs: its divergence from the model before, on the same text.

Perplexity on a few thousand tokens wanders by several percent with the text. The Kullback-Leibler divergence from the
reference to the changed model compares both at *every* token, so the text's own difficulty drops out: it is paired, and
tight enough to rank schemes on 2,000 tokens. All figures come with a 95 % interval over windows of the text.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fourbit.distillation import T_QUANTILES
from fourbit.errors import ModelError
from fourbit.llm.model import Transformer


@dataclass(frozen=True)
class Interval:
    """A mean over windows with its 95 % interval by Student's distribution."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        mean, n = statistics.fmean(values), len(values)
        if n < 2 or not math.isfinite(mean):  # a broken model's figures are infinite, or no numbers
            return cls(mean, -math.inf, math.inf)
        reach = T_QUANTILES[min(n - 1, max(T_QUANTILES))] * statistics.stdev(values) / math.sqrt(n)
        return cls(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Judgement:
    """A changed model against its reference.

    `kl`: mean divergence KL(reference || changed) in nats for each token; `top1`: share of the tokens at which both
    name the same most likely next one; `perplexity` of the changed model, whose interval is that of its logarithm;
    `tokens` that were scored, and the `seconds` that it took.
    """

    kl: Interval
    top1: Interval
    perplexity: Interval
    tokens: int
    seconds: float


def windows(tokens: Sequence[int], length: int = 256, count: int = 8) -> Tensor:
    """Return (count, length) int64: that many windows of a text, evenly spread over it, none overlapping.

    Raises:
        ModelError: when the text is too short for them.
    """
    if len(tokens) < length * count:
        raise ModelError(f"{count} windows of {length} tokens do not fit into a text of {len(tokens)}")
    step = len(tokens) // count
    return torch.tensor([list(tokens[i * step : i * step + length]) for i in range(count)])


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let some parameters of a model be others for a while; nothing is copied, and the old ones come back.

    Raises:
        ModelError: when a name is no parameter of the model, or a shape is not the parameter's.
    """
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        if name not in parameters:
            raise ModelError(f"the model has no parameter {name}")
        if value.shape != parameters[name].shape:
            raise ModelError(f"{name} has shape {tuple(parameters[name].shape)}, not {tuple(value.shape)}")
    before = {name: parameters[name].data for name in weights}
    try:
        for name, value in weights.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in before.items():
            parameters[name].data = value


class Reference:
    """A model's answers on windows of a text, kept as its final states: (count, length, width) float32.

    The log-probabilities of 2,000 tokens would take 400 MB; from the states and the output head, which is kept as it
    was without a copy, they are computed again, exactly, window by window.
    """

    def __init__(self, model: Transformer, tokens: Tensor) -> None:
        self.tokens = tokens
        with torch.no_grad():
            self.states = torch.cat([model.hidden(row[None]) for row in tokens])
        self.head = model.lm_head.weight.data

    @torch.no_grad()
    def judge(self, model: Transformer) -> Judgement:
        """Compare a changed model with the reference on the same windows.

        Every token but the first of a window is scored once, in the context of the window before it.
        """
        start = time.perf_counter()
        rows = [self._window(model, i) for i in range(len(self.tokens))]
        kl, same, nll = (Interval.of([row[j] for row in rows]) for j in range(3))
        perplexity = Interval(_exp(nll.mean), _exp(nll.low), _exp(nll.high))
        scored = self.tokens[:, 1:].numel()
        return Judgement(kl, same, perplexity, scored, time.perf_counter() - start)

    def _window(self, model: Transformer, i: int) -> tuple[float, float, float]:
        """Means over the tokens of a window: divergence, agreement, negative log-likelihood."""
        row = self.tokens[i]
        wanted = (self.states[i, :-1] @ self.head.T).log_softmax(-1)  # (length - 1, vocabulary)
        given = model(row[None])[0, :-1].log_softmax(-1)
        divergence = (wanted.exp() * (wanted - given)).sum(-1, dtype=torch.float64)
        same = (wanted.argmax(-1) == given.argmax(-1)).double()
        nll = -given.gather(1, row[1:, None]).double()
        return float(divergence.mean()), float(same.mean()), float(nll.mean())


def _exp(x: float) -> float:
    """e^x, infinite where it is too large for a float."""
    return math.inf if x > 700 else math.exp(x)
