"""From logits to the next token: greedy, or drawn from the distribution with its unlikely tail cut off.

Top-k as in Fan et al. (arXiv:1805.04833), top-p as in Holtzman et al. (arXiv:1904.09751), min-p as in Nguyen et al.
(arXiv:2407.01082), the penalty of repetition as in Keskar et al. (arXiv:1909.05858). The penalty comes first, then the
temperature, then the cuts in this order, each on what the one before left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fourbit.errors import ModelError

_HEAD = 1024  # tokens that nearly always suffice for top-p; to sort a vocabulary of 150,000 takes longer than a layer
_HOTTEST = 10.0
_COLDEST = 1e-6  # below it, differences of logits no longer fit into float32: the same as greedy
_PENALIZED = 64  # of the last tokens


def _is_number(value: object, kind: type[int] | type[float]) -> bool:
    """Tell whether a value is an int, or for float any finite number; True and False are neither."""
    if isinstance(value, bool) or not isinstance(value, int | kind):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _refuse(wrong: bool, name: str, value: object, allowed: str) -> None:
    if wrong:
        raise ModelError(f"{name} is {value!r:.40}; it {allowed}")


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Temperature 0 is greedy: the first of the most likely tokens.

    Attributes:
        temperature: logits are divided by it; up to 10.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens whose probabilities first reach p together, in (0, 1]; the one that reaches
            it is kept, so that there is always one.
        min_p: only tokens of at least this share of the most likely one's probability, in [0, 1).
        repetition: the logit of a token that is among the last 64 is divided by it if positive, multiplied by it
            otherwise; 1 changes nothing, up to 2.
        seed: of the random numbers; None draws other ones each time.

    Raises:
        ModelError: for a value outside these ranges, or one that is no number.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition"):
            _refuse(not _is_number(getattr(self, name), float), name, getattr(self, name), "is a number")
        for name, value in (("top_k", self.top_k), ("seed", 0 if self.seed is None else self.seed)):
            _refuse(not _is_number(value, int), name, value, "is a whole number")
        _refuse(
            not 0 <= self.temperature <= _HOTTEST, "temperature", self.temperature,
            f"lies from 0 (greedy) to {_HOTTEST:g}",
        )  # fmt: skip
        _refuse(self.top_k < 0, "top_k", self.top_k, "is 0 (all tokens) or more")
        _refuse(not 0 < self.top_p <= 1, "top_p", self.top_p, "lies above 0 and is at most 1")
        _refuse(not 0 <= self.min_p < 1, "min_p", self.min_p, "lies from 0 to below 1")
        _refuse(not 1 <= self.repetition <= 2, "repetition", self.repetition, "lies from 1 (no penalty) to 2")
        _refuse(self.seed is not None and not 0 <= self.seed < 2**63, "seed", self.seed, "lies from 0 to 2**63 - 1")

    def generator(self) -> torch.Generator:
        """Return a new source of random numbers, at the beginning of this seed's sequence."""
        source = torch.Generator()
        if self.seed is None:
            source.seed()
        else:
            source.manual_seed(self.seed)
        return source


GREEDY = Sampling()


def sample(logits: Tensor, sampling: Sampling, source: torch.Generator, before: Sequence[int] = ()) -> int:
    """Return a token for logits (vocabulary,) float32.

    Args:
        source: of the random numbers, as :meth:`Sampling.generator` makes; not used when greedy.
        before: the tokens so far, for the penalty of repetition.

    Raises:
        ModelError: when a logit is no number: the model is damaged.
    """
    best = int(logits.argmax())  # that of a NaN, if there is one
    if not math.isfinite(float(logits[best])):
        raise ModelError("the model's logits are not finite; its file is damaged, fetch or make it again")
    if sampling.repetition != 1:
        logits = _penalized(logits, sampling.repetition, before[-_PENALIZED:])
        best = int(logits.argmax())
    if sampling.temperature < _COLDEST:
        return best
    if (sampling.top_k, sampling.top_p, sampling.min_p) == (0, 1, 0):  # nothing to cut, nothing to sort
        return _draw((logits / sampling.temperature).softmax(-1), source)
    tokens, shares = candidates(logits, sampling)
    return int(tokens[_draw(shares, source)])


def _draw(shares: Tensor, source: torch.Generator) -> int:
    """Return a place with the probability of its share (n,): where a point thrown on all of them, end to end, falls."""
    ends = shares.double().cumsum(0)
    point = torch.rand(1, dtype=torch.float64, generator=source) * ends[-1]
    return min(int(torch.searchsorted(ends, point, right=True)), len(ends) - 1)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the tokens that may be drawn, most likely first, int64 (n,), and their probabilities float32 (n,)."""
    scaled = (logits - logits.max()) / max(sampling.temperature, _COLDEST)
    total = float(scaled.exp().sum())
    count = min(sampling.top_k or _HEAD, len(logits))
    values, tokens = scaled.topk(count)
    if sampling.top_k == 0 and count < len(logits) and not _reaches(values, sampling, total):
        values, tokens = scaled.sort(descending=True)
    shares = values.exp()
    if sampling.top_k:
        total = float(shares.sum())
    # A token stays if those before it do not reach p: the one that does is the last.
    before = shares.cumsum(0) - shares
    kept = (before < sampling.top_p * total) & (shares >= sampling.min_p * shares[0]) & (shares > 0)
    kept[0] = True
    return tokens[kept], shares[kept] / shares[kept].sum()


def _reaches(values: Tensor, sampling: Sampling, total: float) -> bool:
    """Tell whether the first tokens, of these scaled logits, hold all that top-p and min-p leave."""
    shares = values.exp()
    return float(shares.sum()) >= sampling.top_p * total or float(shares[-1]) < sampling.min_p * float(shares[0])


def _penalized(logits: Tensor, penalty: float, before: Sequence[int]) -> Tensor:
    seen = torch.tensor(sorted(set(before)), dtype=torch.int64)
    changed = logits.clone()
    changed[seen] = torch.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return changed
