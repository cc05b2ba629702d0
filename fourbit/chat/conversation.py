"""What was said between a person and a model, and how much of it still fits into the context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fourbit.errors import FourbitError


class ContextError(FourbitError):
    """A message that does not fit into the context, even alone."""


@dataclass
class Exchange:
    """A message and its answer, "" while there is none. `complete` says that the model itself ended it."""

    question: str
    answer: str = ""
    complete: bool = False


@dataclass
class Conversation:
    """What was said. `dropped` exchanges at the beginning no longer go to the model."""

    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    dropped: int = 0

    def messages(self) -> list[dict[str, str]]:
        """Return what goes to the model, up to the last message: its answer is what the model is to write."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges[self.dropped :]:
            found.append({"role": "user", "content": exchange.question})
            found.append({"role": "assistant", "content": exchange.answer})
        return found[:-1] if self.exchanges else found

    def fit(self, count: Callable[[list[dict[str, str]]], int], room: int) -> int:
        """Drop the oldest exchanges until the messages have at most `room` tokens, and return how many were dropped.

        Raises:
            ContextError: when the last message alone has more; nothing is dropped then.
        """
        before = self.dropped
        while (tokens := count(self.messages())) > room:
            if self.dropped >= len(self.exchanges) - 1:
                self.dropped = before
                raise ContextError(
                    f"this message makes a prompt of {tokens:,} tokens, and {room:,} fit; shorten it, or start again "
                    "with a larger --context"
                )
            self.dropped += 1
        return self.dropped - before

    def markdown(self, title: str) -> str:
        """Return the whole conversation, dropped exchanges too, as a document."""
        parts = [f"# A conversation with {title}"]
        if self.system:
            parts.append(f"## System\n\n{self.system}")
        for exchange in self.exchanges:
            parts += [f"## You\n\n{exchange.question}", f"## Model\n\n{exchange.answer or '(no answer)'}"]
        return "\n\n".join(parts) + "\n"
