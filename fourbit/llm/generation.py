"""Text from an engine, piece by piece: where it stops, how fast it came, and what the cache had of it already."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fourbit.errors import ModelError
from fourbit.llm.decoder import pieces
from fourbit.llm.sampling import GREEDY, Sampling, sample

if TYPE_CHECKING:
    from fourbit.llm.engine import Engine
    from fourbit.llm.speculative import Speculation

_MOST_STOPS = 16
_LONGEST_STOP = 256  # characters


@dataclass(frozen=True)
class Piece:
    """One generated token, and the text that can be shown now that it has come, "" where some is held back.

    `finish` is None while the text goes on; the last piece has "stop" (the model's end, or a stop string, neither of
    which is in the text) or "length" (the limit, or the context is full: then `engine.length == engine.context`).
    """

    text: str
    token: int
    finish: str | None = None


@dataclass(frozen=True)
class Usage:
    """What a generation took so far.

    Attributes:
        prompt_tokens: tokens of the prompt; `reused_tokens` of them were in the cache.
        new_tokens: tokens generated, with the one that ended the text.
        first_token: seconds until the first of them was there: the rest of the prompt read, and a token chosen.
        seconds: what the tokens after the first took, without the time in which nobody asked for the next.
    """

    prompt_tokens: int
    reused_tokens: int = 0
    new_tokens: int = 0
    first_token: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second after the first; 0 where there was none."""
        return (self.new_tokens - 1) / self.seconds if self.new_tokens > 1 and self.seconds > 0 else 0.0


class StopStrings:
    """Holds back the end of a text for as long as it may be the beginning of a stop string.

    Raises:
        ModelError: for an empty stop string, one of over 256 characters, or more than 16.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str):
            raise ModelError(f"stop strings come as a list, [{stops!r:.40}] for one")
        if len(stops) > _MOST_STOPS or any(not 0 < len(stop) <= _LONGEST_STOP for stop in stops):
            raise ModelError(f"give at most {_MOST_STOPS} stop strings of 1 to {_LONGEST_STOP} characters")
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return what can be shown now that `text` has come, and whether a stop string ends it."""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def rest(self) -> str:
        """Return what was held back, when nothing comes after it."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper beginning of `stop` with which `text` ends."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Generation(Iterator[Piece]):
    """The pieces of a text, made as they are asked for; `usage` says at any time what they took.

    :meth:`close`, or dropping it, ends it; the engine then holds what was read and is ready for the next prompt.
    """

    def __init__(self, engine: Engine, pieces: Iterator[Piece], prompt_tokens: int, reused_tokens: int) -> None:
        self._engine, self._text, self._pieces = engine, engine.text, pieces
        self.usage = Usage(prompt_tokens, reused_tokens)

    def __next__(self) -> Piece:
        if self._engine.text != self._text:
            self.close()
            raise ModelError("the engine has begun another text since; one at a time, or `fork()` it for each")
        began = time.perf_counter()
        piece = next(self._pieces)
        took, so_far = time.perf_counter() - began, self.usage
        first = so_far.first_token if so_far.new_tokens else took
        seconds = so_far.seconds + took if so_far.new_tokens else 0.0
        self.usage = Usage(so_far.prompt_tokens, so_far.reused_tokens, so_far.new_tokens + 1, first, seconds)
        return piece

    def close(self) -> None:
        """End the text here."""
        self._pieces.close()  # type: ignore[attr-defined]


def generate(
    engine: Engine,
    tokens: Sequence[int],
    sampling: Sampling = GREEDY,
    *,
    limit: int | None = None,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] | None = None,
    speculation: Speculation | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Generation:
    """Continue a prompt. What the engine's cache already has of its beginning is not read again, but for 8 tokens.

    The same prompt with the same sampling and seed gives the same text, whatever of the prompt was read before as part
    of another. (An answer's tokens were read one by one: a conversation that goes on behind them may differ in the last
    bits from one that is read anew.)

    Args:
        tokens: the prompt; see `engine.tokenizer.encode` and, for a conversation, :func:`chat`.
        limit: tokens at most; None for as many as the context has room for.
        stop: strings that end the text, also across the borders of tokens.
        stop_tokens: tokens that end it; None for the tokenizer's, () for none.
        speculation: a guesser of several tokens that the model then checks at once; greedy sampling only.
        cancelled: asked before each token and every 128 tokens of the prompt; when it says True, the pieces end.

    Raises:
        ModelError: when the prompt is empty, outside the vocabulary, or leaves no room in the context; for a limit
            below 1, stop strings that cannot be, or speculation with sampling.
    """
    prompt, room = list(tokens), engine.context - len(tokens)
    engine.validate(prompt)
    if limit is not None and limit < 1:
        raise ModelError(f"a text has at least one token, not {limit}")
    if room < 1:
        raise ModelError(
            f"the prompt has {len(prompt)} tokens and leaves no room in a context of {engine.context}; shorten it, "
            f"or open the model with more context ({engine.config.context} at most)"
        )
    if speculation is not None and sampling != GREEDY:
        raise ModelError("speculation is for greedy text here; sample without it, or take temperature 0")
    ends = [*(engine.tokenizer.stop if stop_tokens is None else stop_tokens)]
    most = min(limit or room + 1, room + 1)  # the last token is not read, and needs no place in the cache
    stops, reused = StopStrings(stop), engine.reuse(prompt)
    made = _tokens(engine, prompt, sampling, most, speculation, cancelled)
    return Generation(engine, _pieces(engine, made, most, stops, ends), len(prompt), reused)


def chat(
    engine: Engine, messages: Sequence[Mapping[str, str]], sampling: Sampling = GREEDY, **options: Any
) -> Generation:
    """Answer a conversation ({"role", "content"} each) in the model's own chat template; `options` as :func:`generate`.

    Raises:
        ModelError: as :func:`generate`, and when the model has no template or refuses the messages.
    """
    return generate(engine, engine.tokenizer.chat_tokens(messages), sampling, **options)


def _tokens(
    engine: Engine,
    prompt: list[int],
    sampling: Sampling,
    most: int,
    speculation: Speculation | None,
    cancelled: Callable[[], bool],
) -> Iterator[int]:
    """Read what the cache lacks of the prompt, then choose and read token after token, up to `most`."""
    source = sampling.generator()
    for piece in pieces(prompt[engine.length :]):
        if cancelled():
            return
        logits = engine.forward(piece)
    token = sample(logits, sampling, source, prompt)
    yield token
    if speculation is not None:
        yield from speculation.tokens(engine, token, most - 1, cancelled)
        return
    for _ in range(most - 1):
        if cancelled():
            return
        logits = engine.forward([token])
        token = sample(logits, sampling, source, engine.tokens)
        yield token


def _pieces(
    engine: Engine, made: Iterator[int], most: int, stops: StopStrings, ends: Sequence[int | None]
) -> Iterator[Piece]:
    """Turn tokens into text, up to whatever ends it."""
    text = engine.tokenizer.stream()
    for count, token in enumerate(made, 1):
        if token in ends:
            yield Piece(stops.rest(), token, "stop")
            return
        shown, stopped = stops.feed(text(token))
        if stopped:
            yield Piece(shown, token, "stop")
            return
        if count == most:
            yield Piece(shown + stops.rest(), token, "length")
            return
        yield Piece(shown, token)
