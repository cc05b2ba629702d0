"""What goes back: OpenAI's objects for a whole answer, and its server-sent events for one that streams.

A client that disconnects is noticed while its reply waits or streams, and its turn ends within a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fourbit.llm.generation import Piece, Usage
from fourbit.serve.errors import OURS, ApiError
from fourbit.serve.turns import Begun, Ended, Event, Failed, Turn, Turns

_BREAKS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}  # those that JSON does not escape
_LOOK_SECONDS = 1.0  # between two looks at the place in the queue
_BEAT_SECONDS = 10.0  # between signs of life, so that no proxy gives up and a dead client is noticed


@dataclass(frozen=True)
class Form:
    """How a completion looks: `chat` or plain, from which model; its id and time are made here."""

    chat: bool
    model: str
    fingerprint: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: str, usage: Usage) -> dict[str, Any]:
        """Return the object of a complete answer."""
        says: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **says, "logprobs": None, "finish_reason": finish}
        kind = "chat.completion" if self.chat else "text_completion"
        return self._object(kind, [choice]) | _cost(usage)

    def chunk(self, text: str | None, finish: str | None = None) -> dict[str, Any]:
        """Return the object of a part: the first of a chat has no text but the role."""
        says: dict[str, Any] = {"text": text or ""}
        if self.chat:
            delta = {"role": "assistant", "content": ""} if text is None else {"content": text} if text else {}
            says = {"delta": delta}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        choice = {"index": 0, **says, "logprobs": None, "finish_reason": finish}
        return self._object(kind, [choice]) | ({"usage": None} if self.include_usage else {})

    def last(self, usage: Usage) -> dict[str, Any]:
        """Return the chunk that has the usage and no part of the answer."""
        return self._object("chat.completion.chunk" if self.chat else "text_completion", []) | _cost(usage)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {
            "id": name, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        }  # fmt: skip


def _cost(usage: Usage) -> dict[str, Any]:
    """Tokens as OpenAI counts them; `timings` is ours (clients keep what they do not know)."""
    return {
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.new_tokens,
            "total_tokens": usage.prompt_tokens + usage.new_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.reused_tokens},
        },
        "timings": {
            "first_token_seconds": round(usage.first_token, 4),
            "tokens_per_second": round(usage.tokens_per_second, 2),
        },
    }


class Reply(Response):
    """Base of both: sends what :meth:`_say` makes of a turn's events, and gives the turn up when nobody listens."""

    def __init__(self, turns: Turns, turn: Turn, form: Form) -> None:
        super().__init__()
        self._turns, self._turn, self._form = turns, turn, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, while the client is there."""
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._say(scope, receive, send)
        finally:
            self._turns.leave(self._turn)
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._turns.leave(self._turn)
        self._turn.events.put_nowait(Failed("the client has disconnected", True))

    async def _say(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class Whole(Reply):
    """One JSON object when the answer is complete."""

    async def _say(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[str] = []
        while True:
            event = await self._turn.events.get()
            if isinstance(event, Piece):
                parts.append(event.text)
            elif isinstance(event, Ended):
                found = self._form.whole("".join(parts), event.finish, event.usage)
                return await JSONResponse(found)(scope, receive, send)
            elif isinstance(event, Failed):
                return await _failure(event).response()(scope, receive, send)


class Stream(Reply):
    """Server-sent events: chunks of the answer, then `[DONE]`. Comments in between tell the place in the queue."""

    async def _say(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would hold the events back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._events():
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[str]:
        begun = False
        async for event in self._heard():
            if isinstance(event, str):
                yield event
            elif isinstance(event, Failed):
                yield _data(_failure(event).body())
                return
            elif isinstance(event, Begun):
                yield ": your turn\n\n"
            elif isinstance(event, Piece):
                if self._form.chat and not begun:
                    begun = True
                    yield _data(self._form.chunk(None))
                if event.text:
                    yield _data(self._form.chunk(event.text))
            elif isinstance(event, Ended):
                yield _data(self._form.chunk("", event.finish))
                if self._form.include_usage:
                    yield _data(self._form.last(event.usage))
                yield "data: [DONE]\n\n"
                return

    async def _heard(self) -> AsyncIterator[Event | str]:
        """The turn's events, and comments while it waits or is silent."""
        told, silent = -1, 0.0
        while True:
            ahead = self._turns.ahead(self._turn)
            if ahead != told or silent >= _BEAT_SECONDS:
                told, silent = ahead, 0.0
                yield f": {ahead} ahead of you\n\n" if ahead else ": reading\n\n"
            try:
                event = await asyncio.wait_for(self._turn.events.get(), _LOOK_SECONDS)
            except TimeoutError:
                silent += _LOOK_SECONDS
                continue
            silent = 0.0
            yield event


def _failure(event: Failed) -> ApiError:
    if event.told:
        return ApiError(503, event.message, kind=OURS, code="unavailable", headers={"Retry-After": "10"})
    return ApiError(500, event.message, kind=OURS, code="internal_error")


def _data(value: dict[str, Any]) -> str:
    """Write an event. Lines end with a line feed, but many clients also break them where Python's splitlines() does."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text.translate(_BREAKS)}\n\n"
