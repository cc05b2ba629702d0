"""Text as it is generated: whole characters only, and nothing that may yet turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fourbit.errors import ModelError

_MOST_STOPS = 16
_LONGEST_STOP = 256  # characters


@dataclass(frozen=True)
class Piece:
    """A part of an answer: its text, the tokens generated so far, and why it ended.

    `reason` is "" while the answer goes on; the last piece has "stop" (the model's end, or a stop string), "length"
    (the limit that was asked for) or "context" (the KV cache is full).
    """

    text: str
    token_count: int
    reason: str = ""


class StopStrings:
    """Holds back the end of a text for as long as it may be the beginning of a stop string.

    Raises:
        ModelError: for an empty stop string, one of over 256 characters, or more than 16.
    """

    def __init__(self, stops: Sequence[str]) -> None:
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
