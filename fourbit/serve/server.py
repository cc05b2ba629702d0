"""The process around the routes: the socket, signals, and what is printed."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import signal
import socket
import time
from types import FrameType

import uvicorn

from fourbit.chat.talker import Talker
from fourbit.errors import FourbitError
from fourbit.llm.generation import Usage
from fourbit.serve.app import build_app
from fourbit.serve.connection import DeadlineProtocol
from fourbit.serve.guard import LOOPBACK_NAMES, Policy
from fourbit.serve.turns import Turn, Turns

GRACE = 20.0  # seconds that the answer in progress has, once the server was told to end
_CONNECTIONS = 128
_LEAST_KEY = 16  # characters
_HEAD_BYTES = 16 * 2**10


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, so that a port in use is told before a model is loaded.

    Raises:
        FourbitError: when the address is not this machine's, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
        server = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise FourbitError(f"{host} port {port} is no address to listen on ({error})") from None
    try:
        if not hasattr(signal, "SIGBREAK"):  # on Windows this option would let two servers have one port
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
    except OSError as error:
        server.close()
        raise FourbitError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another one with --port, or --port 0 for "
            "any that is free"
        ) from None
    return server


def is_loopback(server: socket.socket) -> bool:
    """Tell whether only this machine can reach a bound socket."""
    return ipaddress.ip_address(server.getsockname()[0].partition("%")[0]).is_loopback


def policy_for(server: socket.socket, host: str, key: str | None, names: list[str]) -> Policy:
    """Return who may ask.

    Raises:
        FourbitError: when other machines can reach the server and there is no key, or one that can be guessed.
    """
    if key is not None and (len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key):
        raise FourbitError(f"the API key has to have at least {_LEAST_KEY} ASCII characters and no space; {_a_key()}")
    ours = set(LOOPBACK_NAMES) | {name.lower() for name in names}
    if not is_loopback(server):
        if key is None:
            raise FourbitError(f"other machines can reach {host}, so clients need a key; {_a_key()}")
        here = socket.gethostname().lower()
        ours |= {host.lower(), here, f"{here}.local"}
    return Policy(frozenset(ours), key)


def _a_key() -> str:
    return f"for instance: FOURBIT_API_KEY={secrets.token_urlsafe(18)} fourbit serve ... (a fresh one, made just now)"


def address_of(server: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, which at the first signal lets the answer in progress end, and at the second one cuts it short."""

    def __init__(self, config: uvicorn.Config, turns: Turns) -> None:
        super().__init__(config)
        self._turns = turns
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, for the signals."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Close the queue; the work is done in the loop, since a signal may come at any line."""
        again, self.should_exit = self.should_exit, True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end, again)

    def _end(self, again: bool) -> None:
        self._turns.close()
        if again:
            self._turns.cut()
        elif self._loop is not None:
            self._loop.call_later(GRACE, self._turns.cut)


def _print_cost(turn: Turn, usage: Usage, how: str) -> None:
    """Print a line for the one who runs the server: what an answer cost, never what it said."""
    print(
        f"{time.strftime('%H:%M:%S')}  {turn.client}  {usage.prompt_tokens} + {usage.new_tokens} tokens, first after "
        f"{usage.first_token:.2f} s, {usage.tokens_per_second:.1f} tokens/s, {how}",
        flush=True,
    )


def run(talker: Talker, server: socket.socket, policy: Policy, *, each: int = 16) -> None:
    """Serve until a signal comes."""
    turns = Turns(talker, each, 4 * each, _print_cost)
    config = uvicorn.Config(
        build_app(talker, turns, policy),
        http=DeadlineProtocol, ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_HEAD_BYTES, timeout_graceful_shutdown=int(GRACE) + 5,
    )  # fmt: skip
    try:
        Server(config, turns).run(sockets=[server])
    finally:
        turns.stop()
