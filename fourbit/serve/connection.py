"""Connections with deadlines: uvicorn's HTTP protocol, which by itself waits for a slow client as long as it likes.

A client that opens a connection has to send a whole request head in time (else it is a slowloris, CVE-2007-6750 and
its kin), and one that does not read what it is sent is cut off. Both free the connection at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
READER_SECONDS = 30.0


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 by h11, with a deadline for the request head and one for a reader that has stopped reading."""

    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request from now on."""
        super().connection_made(transport)
        self._head = self._expire_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._head = _stopped(self._head)
        self._reader = _stopped(self._reader)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data; the deadline stands until a head is complete, however slowly its bytes come."""
        super().data_received(data)
        if self.transport.is_closing() or not self._owes_a_head():
            self._head = _stopped(self._head)
        else:
            self._head = self._head or self._expire_after(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        """After an answer that did not wait for the whole body, the rest of it has a deadline too."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._head = self._head or self._expire_after(HEAD_SECONDS)

    def _owes_a_head(self) -> bool:
        late_body = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        return late_body or self.conn.their_state is h11.IDLE

    def pause_writing(self) -> None:
        """The send buffer is full: the client has to read some of it in time."""
        super().pause_writing()
        self._reader = self._reader or self._expire_after(READER_SECONDS)

    def resume_writing(self) -> None:
        """The client reads."""
        self._reader = _stopped(self._reader)
        super().resume_writing()

    def _expire_after(self, seconds: float) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = self.loop.call_later(seconds, self._cut)
        return handle

    def _cut(self) -> None:
        self.transport.abort()  # close() would wait for the client to read what is buffered


def _stopped(timer: asyncio.TimerHandle | None) -> Any:
    if timer is not None:
        timer.cancel()
    return None
