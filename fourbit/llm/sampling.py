"""From logits to the next token: greedy, or drawn from the distribution with its unlikely tail cut off.

Top-k as in Fan et al. (arXiv:1805.04833), top-p as in Holtzman et al. (arXiv:1904.09751), min-p as in Nguyen et al.
(arXiv:2407.01082). Cuts apply in this order, each to what the one before left; the temperature comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fourbit.errors import ModelError

_HEAD = 1024  # tokens that are nearly always enough for top-p; sorting a vocabulary of 150,000 takes longer than a layer
_HOTTEST = 10.0


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Temperature 0 is greedy: the first of the most likely tokens.

    Attributes:
        temperature: logits are divided by it; up to 10.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens whose probabilities first reach p together, in (0, 1].
        min_p: only tokens of at least this share of the most likely one's probability, in [0, 1).
        seed: of the random numbers; None draws other ones each time.

    Raises:
        ModelError: for a value outside these ranges, or one that is no number.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _refuse(not 0 <= self.temperature <= _HOTTEST, "temperature", self.temperature, f"from 0 (greedy) to {_HOTTEST:g}")
        _refuse(self.top_k < 0, "top_k", self.top_k, "0 (all tokens) or more")
        _refuse(not 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _refuse(not 0 <= self.min_p < 1, "min_p", self.min_p, "from 0 to below 1")
        _refuse(self.seed is not None and not 0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2**63 - 1")

    def generator(self) -> torch.Generator:
        """Return the source of this generation's random numbers."""
        source = torch.Generator()
        if self.seed is None:
            source.seed()
        else:
            source.manual_seed(self.seed)
        return source

    def choose(self, logits: Tensor, source: torch.Generator) -> int:
        """Return a token for logits (vocabulary,) float32.

        Raises:
            ModelError: when a logit is no number: the model is damaged.
        """
        if not math.isfinite(float(logits.max())):
            raise ModelError("the model's logits are not finite; its file is damaged, fetch or make it again")
        if self.temperature == 0:
            return int(logits.argmax())
        tokens, shares = self.candidates(logits)
        return int(tokens[torch.multinomial(shares, 1, generator=source)])

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens that may be drawn, most likely first, int64 (n,), and their probabilities float32 (n,)."""
        scaled = (logits - logits.max()) / max(self.temperature, 1e-6)
        total = float(scaled.exp().sum())
        count = min(self.top_k or _HEAD, len(logits))
        values, tokens = scaled.topk(count)
        if self.top_k == 0 and count < len(logits) and float(values.exp().sum()) < self.top_p * total:
            values, tokens = scaled.sort(descending=True)
        shares = values.exp()
        if self.top_k:
            total = float(shares.sum())
        before = shares.cumsum(0) - shares
        shares = shares * (before < self.top_p * total)
        shares = shares * (shares >= self.min_p * shares[0])
        kept = shares > 0
        return tokens[kept], shares[kept] / shares.sum()


GREEDY = Sampling()


def _refuse(wrong: bool, name: str, value: object, allowed: str) -> None:
    if wrong:
        raise ModelError(f"{name} is {value}; it lies {allowed}")
