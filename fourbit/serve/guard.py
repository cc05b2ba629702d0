"""What is let in at all: decided from a request's head and size, before any route sees it.

A page of another site, open in the same browser, can send requests to 127.0.0.1. Three checks keep it out: its name is
not ours (the Host header, also under DNS rebinding, where the attacker's name points to this machine), its Origin is
not ours, and a body has to be declared as JSON, which a form of another site cannot do without asking first (Fetch
standard, CORS-safelisted request headers). Beyond loopback there is a key as well.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fourbit.serve.errors import DENIED, ApiError

MOST_BYTES = 2**20  # of a body: a context of 128 thousand tokens is half of it
BODY_SECONDS = 30.0
_DISCARDED = 16 * 2**20  # bytes that are read and thrown away so that the client hears why
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """Who may ask. `names` are the host names of this server, beside the address that a client connected to.

    `key` is what a client of /v1 has to show; None where only this machine can connect.
    """

    names: frozenset[str] = LOOPBACK_NAMES
    key: str | None = field(default=None, repr=False)
    most_bytes: int = MOST_BYTES
    body_seconds: float = BODY_SECONDS


class Guard:
    """ASGI middleware that applies a policy and sets the security headers of every response."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused; pass on any other."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            self._refuse(scope)
            if scope["method"] == "POST":
                receive = _replay(await self._read(scope, receive), receive)
        except ApiError as error:
            await error.response()(scope, receive, send_with_headers)
        except _GoneError:
            pass
        else:
            await self._app(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> None:
        headers = _single(scope)
        host = headers.get("host", "")
        if not self._is_ours(host, scope):
            raise ApiError(
                403, f"this server is not called {host!r:.80}; another name can be allowed with --allow-host",
                code="unknown_host",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}".lower(), f"https://{host}".lower()}:
            raise ApiError(403, f"pages of {origin!r:.80} may not use this server", code="foreign_origin")
        if scope["path"].startswith("/v1/"):
            self._refuse_without_key(headers)
        if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise ApiError(415, "the body has to be JSON, with the header Content-Type: application/json")

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if port and not port.isdecimal():
            return False
        address = (scope.get("server") or ("", 0))[0]
        return name.lower() in self._policy.names | {address, f"[{address}]"}

    def _refuse_without_key(self, headers: Mapping[str, str]) -> None:
        if self._policy.key is None:
            return
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), self._policy.key.encode()):
            raise ApiError(
                401, "a valid API key is needed: Authorization: Bearer KEY", kind=DENIED, code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body; one that is too large is read on for a while, so that the client gets to hear of it."""
        most = self._policy.most_bytes
        close = {"Connection": "close"}
        too_large = ApiError(413, f"the body is larger than {most:,} bytes", code="request_too_large", headers=close)
        declared = _single(scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > _DISCARDED:
            raise too_large
        body, seen, more = bytearray(), 0, True
        try:
            async with asyncio.timeout(self._policy.body_seconds):
                while more and seen <= _DISCARDED:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _GoneError
                    seen += len(message.get("body", b""))
                    body += message.get("body", b"") if seen <= most else b""
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(408, "the body did not come in time", headers=close) from None
        if seen > most:
            raise too_large
        return bytes(body)


class _GoneError(Exception):
    """The client disconnected while it sent its request."""


def _single(scope: Scope) -> dict[str, str]:
    """Headers by name; of a repeated one the values joined, so that a second Host or Origin is not overlooked."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, and then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed
