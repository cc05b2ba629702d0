"""Several tokens for one pass over the weights: guess them, let the model judge all at once, keep what it agrees to.

Leviathan et al. (arXiv:2211.17192), Chen et al. (arXiv:2302.01318); guesses from the text itself as in prompt lookup
decoding (Saxena, https://github.com/apoorvumang/prompt-lookup-decoding). A guess costs a little arithmetic, a pass its
bytes, and decoding is bound by bytes: so a pass over five tokens takes hardly longer than one over a single token.

The greedy text is that of plain greedy decoding: a guessed token is kept only where it is the one that the model
chooses after the tokens before it. With up to `decoder.FEW` - 1 guesses at a time that holds bit for bit, since the
kernels give so few tokens the logits that each would get alone. More of them are multiplied in tiles, whose sums have
another order: then it holds but for tokens whose logits tie within the rounding of 8-bit activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.decoder import FEW

if TYPE_CHECKING:
    from fourbit.llm.engine import Engine

_MOST_GUESSED = 64


class Guesser(Protocol):
    """What guesses how a text goes on."""

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return at most `count` tokens that may follow `tokens`; none if there is no idea."""
        ...


@dataclass(frozen=True)
class PromptLookup:
    """Guesses that the text repeats itself: what followed its last tokens where they stood before.

    Attributes:
        longest: tokens that have to be the same, first of all; then one fewer, down to `shortest`.
    """

    longest: int = 3
    shortest: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ModelError(f"runs of {self.shortest} to {self.longest} tokens cannot be looked up; take 2 to 3")

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        text = list(tokens)
        for length in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            last = text[-length:]
            for at in range(len(text) - length - 1, -1, -1):
                if text[at : at + length] == last:
                    return text[at + length : at + length + count]
        return []


class DraftModel:
    """Guesses with a smaller model of the same vocabulary, greedily."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        engine, found = self._engine, list[int]()
        count = min(count, engine.context - len(tokens))
        if count < 1:
            return []
        new = list(tokens[engine.reuse(tokens, again=1) :])
        while len(found) < count:
            found.append(int(engine.forward(new).argmax()))
            new = found[-1:]
        return found


class Speculation:
    """Greedy text by guesses that the model checks, `count` at a time. `passes`, `guessed` and `kept` add up."""

    def __init__(self, guesser: Guesser, count: int = FEW - 1) -> None:
        if not 1 <= count <= _MOST_GUESSED:
            raise ModelError(f"{count} tokens cannot be guessed at once; take 1 to {_MOST_GUESSED}")
        self._guesser, self._count = guesser, count
        self.passes = self.guessed = self.kept = 0

    @property
    def acceptance(self) -> float:
        """The share of guessed tokens that the model kept; 0 where none was guessed."""
        return self.kept / self.guessed if self.guessed else 0.0

    def tokens(self, engine: Engine, token: int, most: int, cancelled: Callable[[], bool]) -> Iterator[int]:
        """Yield up to `most` tokens after `token`, which is chosen and not yet read.

        Between two tokens the cache may hold more than has been yielded; :meth:`Engine.reuse` sorts that out.

        Raises:
            ModelError: when a guess is no token of the model (a draft model of another vocabulary).
        """
        while most > 0 and not cancelled():
            guesses = self._guesser.guess([*engine.tokens, token], min(self._count, most - 1)) if most > 1 else []
            for found in self.step(engine, token, guesses):
                token = found
                most -= 1
                yield token

    def step(self, engine: Engine, token: int, guesses: Sequence[int]) -> list[int]:
        """Read a token and guesses behind it; return the guesses that stand and the token that follows them."""
        before = engine.length
        chosen = engine.forward([token, *guesses], every=True).argmax(-1).tolist()
        kept = next((i for i, guess in enumerate(guesses) if guess != chosen[i]), len(guesses))
        engine.truncate(before + 1 + kept)
        self.passes, self.guessed, self.kept = self.passes + 1, self.guessed + len(guesses), self.kept + kept
        found: list[int] = chosen[: kept + 1]
        return found


def accept(guesses: Sequence[int], draft: Tensor, target: Tensor, source: torch.Generator) -> list[int]:
    """Return tokens distributed as the model's, from guesses drawn from a draft's (Leviathan et al., algorithm 1).

    Guess x_i is kept with probability min(1, p_i(x_i) / q_i(x_i)); in place of the first that is not, a token is drawn
    from the part of p_i that q_i does not cover, max(p_i - q_i, 0) scaled to 1; after the last comes one from p_n.

    Args:
        guesses: n tokens, guess i drawn from draft[i].
        draft: q (n, vocabulary), probabilities; target: p (n + 1, vocabulary).

    Raises:
        ModelError: when the shapes do not fit, or a guess has no probability in the draft.
    """
    count = len(guesses)
    if draft.shape[:1] != (count,) or target.shape[:1] != (count + 1,) or draft.shape[1:] != target.shape[1:]:
        raise ModelError(f"{count} guesses need draft probabilities (n, V) and target ones (n + 1, V)")
    for i, guess in enumerate(guesses):
        q, p = float(draft[i, guess]), float(target[i, guess])
        if not q > 0:
            raise ModelError(f"guess {i}, token {guess}, has no probability in the draft it is said to come from")
        if float(torch.rand(1, generator=source)) * q >= p:
            rest = (target[i] - draft[i]).clamp(min=0)
            return [*guesses[:i], int(torch.multinomial(rest, 1, generator=source))]
    return [*guesses, int(torch.multinomial(target[count], 1, generator=source))]
