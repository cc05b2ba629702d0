"""Who comes next: one engine in one thread, and a bounded queue in front of it.

Clients take turns. Each has a line of its own, first come, first served; the head of the line that was served longest
ago is next. So a client that asks often makes its own line long and nobody else's. A client is a network address: on
loopback all programs are one client, and its line is served in order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fourbit.chat.talker import Request
from fourbit.errors import FourbitError
from fourbit.llm.generation import Piece, Usage

_FIRST_GUESS = 5.0  # seconds of an answer, until one was measured
_RECENT = 0.2  # weight of the last answer in the mean

logger = logging.getLogger(__name__)


class Model(Protocol):
    """What the queue needs of a model. `usage` is that of the last answer."""

    usage: Usage

    def answer(self, request: Request, cancelled: threading.Event) -> Iterator[Piece]:
        """Generate, and end within one token once `cancelled` is set."""


@dataclass(frozen=True)
class Begun:
    """The turn has come."""


@dataclass(frozen=True)
class Ended:
    """The answer is complete, for the reason of its last piece."""

    usage: Usage
    finish: str


@dataclass(frozen=True)
class Failed:
    """There will be no (further) answer; `told` is True if the message is meant for the client."""

    message: str
    told: bool


Event = Begun | Piece | Ended | Failed


@dataclass(eq=False)
class Turn:
    """A place in the queue, and then the stream of an answer's events.

    The events of one answer are few and small, so they wait in memory for a slow reader and never hold up the engine.
    """

    request: Request
    client: str
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def send(self, event: Event) -> None:
        """Hand an event over to the loop's thread, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server was told to end at once
            self.cancelled.set()


class BusyError(FourbitError):
    """The queue is full. `retry_after` is a guess in whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ClosingError(FourbitError):
    """The server is shutting down."""


class Turns:
    """The queue and the thread that answers. At most `each` turns of a client wait, and `most` of all together.

    `report` is called in that thread after each answer, with its usage and why it ended.
    """

    def __init__(
        self, model: Model, each: int = 16, most: int = 64, report: Callable[[Turn, Usage, str], None] | None = None
    ) -> None:
        self._model, self._each, self._most, self._report = model, each, most, report
        self._lines: dict[str, deque[Turn]] = {}  # in the order in which they come next
        self._current: Turn | None = None
        self._closing = False
        self._seconds = _FIRST_GUESS
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="fourbit engine", daemon=True)
        self._thread.start()

    def enter(self, request: Request, client: str) -> Turn:
        """Take a place at the end of the client's line; call it in the event loop that reads the events.

        Raises:
            BusyError: when there is none.
            ClosingError: after :meth:`close`.
        """
        turn = Turn(request, client, asyncio.get_running_loop())
        with self._change:
            self.refuse_when_full(client)
            self._lines.setdefault(client, deque()).append(turn)
            self._change.notify()
        return turn

    def refuse_when_full(self, client: str) -> None:
        """Raise what :meth:`enter` would raise now."""
        with self._change:
            if self._closing:
                raise ClosingError("the server is shutting down; ask again when it is back")
            own, waiting = len(self._lines.get(client, ())), self.waiting
            if own < self._each and waiting < self._most:
                return
            wait = max(1, round(self._seconds * (own if own >= self._each else waiting)))
            full = f"{own} requests of yours" if own >= self._each else f"{waiting} requests"
            raise BusyError(f"{full} are waiting already, and no more may; ask again in about {wait} s", wait)

    @property
    def waiting(self) -> int:
        """Turns that have not begun."""
        return sum(map(len, self._lines.values()))

    @property
    def answering(self) -> bool:
        """Whether a turn is in progress."""
        return self._current is not None

    def ahead(self, turn: Turn) -> int:
        """Return how many turns come before one that waits, the one in progress included; 0 once it has begun."""
        with self._change:
            clients = list(self._lines)
            line = self._lines.get(turn.client, deque())
            if turn not in line:
                return 0
            place, mine = line.index(turn), clients.index(turn.client)
            others = (min(len(self._lines[c]), place + (i < mine)) for i, c in enumerate(clients) if i != mine)
            return place + sum(others) + (self._current is not None)

    def leave(self, turn: Turn) -> None:
        """Give up a turn: one that waits is taken out of its line, one in progress ends within a token."""
        turn.cancelled.set()
        with self._change:
            self._remove(turn)

    def close(self) -> None:
        """Take no more turns and send those away that wait; the one in progress goes on."""
        with self._change:
            self._closing = True
            for turn in [turn for line in self._lines.values() for turn in line]:
                turn.send(Failed("the server is shutting down; ask again when it is back", True))
            self._lines.clear()
            self._change.notify()

    def cut(self) -> None:
        """End the turn in progress within a token."""
        with self._change:
            if self._current is not None:
                self._current.cancelled.set()

    def stop(self) -> None:
        """Close, cut, and wait for the thread."""
        self.close()
        self.cut()
        self._thread.join(timeout=10)

    def _remove(self, turn: Turn) -> None:
        line = self._lines.get(turn.client)
        if line and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[turn.client]

    def _work(self) -> None:
        while turn := self._next():
            try:
                self._answer(turn)
            except FourbitError as error:
                turn.send(Failed(str(error), True))
            except Exception:
                logger.exception("an answer failed")
                turn.send(Failed("the answer failed; the server's output has the reason", False))

    def _next(self) -> Turn | None:
        """Wait for the next turn; None when the queue is closed. The line that it was taken from goes to the end."""
        with self._change:
            self._current = None
            while not self._lines:
                if self._closing:
                    return None
                self._change.wait()
            client, line = next(iter(self._lines.items()))
            del self._lines[client]
            self._current = line.popleft()
            if line:
                self._lines[client] = line
            return self._current

    def _answer(self, turn: Turn) -> None:
        turn.send(Begun())
        finish = None
        for piece in self._model.answer(turn.request, turn.cancelled):
            turn.send(piece)
            finish = piece.finish
        usage = self._model.usage
        self._seconds += _RECENT * (usage.first_token + usage.seconds - self._seconds)
        if finish is None:
            turn.send(Failed("the answer was ended before it was complete", True))
        else:
            turn.send(Ended(usage, finish))
        if self._report:
            self._report(turn, usage, finish or "ended early")
