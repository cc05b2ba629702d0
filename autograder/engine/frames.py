"""The protocol between grader, guard and submission: frames of a small JSON header and raw bytes over a unix socket.

    4 bytes header length, 4 bytes body length (big endian), header (a JSON object), body

Nothing is ever unpickled. A reader trusts no length: it refuses what is above its caps before it reads it, holds at
most one frame's bytes, and never blocks past its deadline.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Any

from autograder.engine.outcome import parse_json

MAX_HEADER = 64 * 2**10
MAX_PAYLOAD = 64 * 2**20
MAX_BODY = MAX_PAYLOAD + 2**20
_PREFIX = struct.Struct("!II")
_CHUNK = 2**18


class ProtocolError(Exception):
    """The peer sent what is no frame, or a frame above the caps; the connection is of no more use."""


class HungUp(Exception):  # noqa: N818 - a hang-up is how every connection ends, not an error
    """The peer closed the connection."""


class DeadlineError(Exception):
    """The peer did not read or answer in time."""


@dataclass(frozen=True)
class Frame:
    """One message; ``header`` is a JSON object of any content when the peer is not trusted."""

    header: dict[str, Any]
    body: bytes = b""
    descriptors: tuple[int, ...] = ()


@dataclass
class Wire:
    """One end of a connection. ``max_body`` caps the body of a frame that is read. Not thread-safe."""

    socket: socket.socket
    max_body: int = MAX_BODY
    _buffer: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.socket.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(
        self,
        header: dict[str, Any],
        body: bytes = b"",
        *,
        deadline: float | None = None,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Send one frame; ``deadline`` is a ``time.monotonic()`` value. Raises :class:`HungUp` or
        :class:`DeadlineError`."""
        head = json.dumps(header).encode()
        if len(head) > MAX_HEADER:
            raise ProtocolError(f"a header of {len(head)} bytes is above the cap")
        start = _PREFIX.pack(len(head), len(body)) + head
        if descriptors:
            self._write(start[:1], deadline, descriptors)
            start = start[1:]
        if len(body) <= _CHUNK:  # in one piece, or the peer wakes up twice
            self._write(start + body, deadline)
        else:
            self._write(start, deadline)
            self._write(body, deadline)

    def receive(self, deadline: float | None = None) -> Frame:
        """Wait for one frame. Raises :class:`DeadlineError`, :class:`HungUp` or :class:`ProtocolError`."""
        while (frame := self._take()) is None:
            if not readable(self.socket, deadline):
                raise DeadlineError("no answer in time")
            self._fill()
        return frame

    def receive_ready(self) -> list[Frame]:
        """The frames that have arrived completely, without waiting. Raises :class:`HungUp` or
        :class:`ProtocolError`."""
        hung_up = False
        try:
            self._fill()
        except HungUp:
            hung_up = True
        frames = []
        while (frame := self._take()) is not None:
            frames.append(frame)
        if hung_up and not frames:
            raise HungUp("the peer closed the connection")
        return frames

    def receive_with_descriptors(self) -> Frame:
        """As :meth:`receive` for a trusted peer that may pass file descriptors along. Never reads into the next frame,
        whose descriptors would be lost."""
        descriptors: list[int] = []
        while missing := self._missing():
            readable(self.socket, None)
            data, found, _, _ = socket.recv_fds(self.socket, missing, 8)
            if not data:
                raise HungUp("the peer closed the connection")
            self._buffer += data
            descriptors += found
        frame = self._take()
        assert frame is not None
        return replace(frame, descriptors=tuple(descriptors))

    def keep(self, data: bytes) -> None:
        """Put back bytes that were read past the wire."""
        self._buffer += data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def _write(self, data: bytes, deadline: float | None, descriptors: tuple[int, ...] = ()) -> None:
        left = memoryview(data)
        while left:
            try:
                sent = socket.send_fds(self.socket, [left], descriptors) if descriptors else self.socket.send(left)
                left = left[sent:]
            except BlockingIOError:
                if not _ready(self.socket, select.POLLOUT, deadline):
                    raise DeadlineError("the peer does not read") from None
            except (BrokenPipeError, ConnectionResetError) as error:
                raise HungUp(str(error)) from None

    def _fill(self) -> None:
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            raise HungUp("the peer closed the connection")
        self._buffer += data

    def _missing(self) -> int:
        """How many bytes of the frame at hand have not arrived, as far as they are known."""
        if len(self._buffer) < _PREFIX.size:
            return _PREFIX.size - len(self._buffer)
        head, body = _PREFIX.unpack_from(self._buffer)
        if head > MAX_HEADER or body > self.max_body:
            raise ProtocolError(f"a frame of {head} + {body} bytes is above the cap")
        return max(0, _PREFIX.size + head + body - len(self._buffer))

    def _take(self) -> Frame | None:
        if self._missing():
            return None
        head, body = _PREFIX.unpack_from(self._buffer)
        end = _PREFIX.size + head + body
        header = parse_json(bytes(self._buffer[_PREFIX.size : _PREFIX.size + head]))
        if not isinstance(header, dict):
            raise ProtocolError("the header is no JSON object")
        content = bytes(memoryview(self._buffer)[_PREFIX.size + head : end])
        del self._buffer[:end]
        return Frame(header, content)


def readable(channel: socket.socket, deadline: float | None) -> bool:
    """Wait until there is something to read (or the end); False when ``deadline`` (``time.monotonic()``; None for no
    deadline) passes first."""
    return _ready(channel, select.POLLIN, deadline)


def _ready(channel: socket.socket, wanted: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(channel, wanted)
    return bool(poll.poll(None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)))


def pair() -> tuple[Wire, Wire]:
    """Two connected ends."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Wire(left), Wire(right)
