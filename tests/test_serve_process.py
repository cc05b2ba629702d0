"""`fourbit serve` as a process: clients that vanish, flood or dawdle, keys, ports, and its end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import uvicorn

from fourbit.chat.talker import Request
from fourbit.errors import FourbitError
from fourbit.llm.generation import Piece, Usage
from fourbit.serve import connection
from fourbit.serve.app import build_app
from fourbit.serve.guard import Policy
from fourbit.serve.server import bind, is_loopback, policy_for
from fourbit.serve.turns import Turns
from tests.talking import HELLO, PATIENCE, Served, environment, serving, write_endless

NAME = "endless"
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_endless(tmp_path_factory.mktemp("model") / f"{NAME}.gguf")


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    """Few places to wait, and answers that do not end by themselves for minutes."""
    with serving(model, "--context", "60000", "--waiting", "3") as found:
        yield found


def ask(client: openai.OpenAI, **options: Any) -> Any:
    wanted: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    return client.chat.completions.create(**(wanted | options))


def endless(client: openai.OpenAI) -> Any:
    """A stream that has begun and goes on."""
    stream = ask(client, stream=True, max_tokens=50_000)
    assert next(stream).choices[0].delta.role == "assistant"
    return stream


def health(served: Served) -> dict[str, Any]:
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    link.request("GET", "/health")
    found: dict[str, Any] = json.loads(link.getresponse().read())
    link.close()
    return found


def waiting(served: Served) -> int:
    return int(health(served)["waiting"])


def until(holds: Any) -> None:
    """Wait until something holds; how long is not what is tested."""
    for _ in range(10 * PATIENCE):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it never came to hold")


# clients


def test_clients_are_answered_in_the_order_in_which_they_came(served: Served) -> None:
    """Order of completion, with each request sent when the one before it is in the queue."""
    client, order = served.client(), []
    holder = endless(client)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = []
        for i in range(3):
            # long enough that one answer is noted down before the next is there
            jobs.append(pool.submit(lambda i=i: (ask(served.client(), max_tokens=400), order.append(i))))  # type: ignore[misc]
            until(lambda i=i: waiting(served) == i + 1)
        holder.close()
        for job in jobs:
            job.result(PATIENCE)
    assert order == [0, 1, 2]


def test_a_flood_is_turned_away_and_told_when_to_come_back(served: Served) -> None:
    client = served.client()
    holder = endless(client)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [pool.submit(ask, served.client()) for _ in range(3)]
        until(lambda: waiting(served) == 3)
        for _ in range(5):
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client)
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["Retry-After"]) >= 1
        holder.close()
        assert all(job.result(PATIENCE).usage.completion_tokens == 12 for job in jobs)
    assert ask(client).usage.completion_tokens == 12


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_frees_its_turn(served: Served, stream: bool) -> None:
    """Its answer would take minutes; the next one comes at once, and the server says that it ended early."""
    before = served.printed.count("ended early")
    body = {"model": NAME, "messages": HELLO, "max_tokens": 50_000, "stream": stream}
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    if stream:
        assert link.getresponse().read(400)
    until(lambda: health(served)["answering"])
    link.close()
    assert ask(served.client()).usage.completion_tokens == 12
    until(lambda: served.printed.count("ended early") > before)


def test_a_client_that_vanishes_in_the_queue_leaves_it(served: Served) -> None:
    holder = endless(served.client())
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)) as link:
        body = {"model": NAME, "messages": HELLO}
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        until(lambda: waiting(served) == 1)
    until(lambda: waiting(served) == 0)
    holder.close()


def test_who_waits_is_told_the_place(served: Served) -> None:
    holder = endless(served.client())
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    body = {"model": NAME, "messages": HELLO, "max_tokens": 2, "stream": True}
    link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = link.getresponse()
    assert reply.readline() == b": 1 ahead of you\n"
    holder.close()
    rest = reply.read()
    assert b": your turn\n" in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    link.close()


# deadlines, in this process, so that they can be short


class Talkative:
    """A model whose answer is larger than all buffers on the way."""

    name, context, usage = NAME, 100_000, Usage(1)
    engine, how = SimpleNamespace(validate=lambda tokens: None), "not at all"
    source = SimpleNamespace(title="", tier="")

    def __init__(self) -> None:
        self.given = 0

    def prompt(self, messages: Any) -> list[int]:
        return [1]

    def answer(self, request: Request, cancelled: threading.Event) -> Iterator[Piece]:
        while not cancelled.is_set() and self.given < 400:
            self.given += 1
            yield Piece("x" * 2**16, 1)
        yield Piece("", 1, "stop")


@contextlib.contextmanager
def in_this_process(talker: Any, policy: Policy) -> Iterator[tuple[int, Turns]]:
    turns = Turns(talker)
    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        build_app(talker, turns, policy), http=connection.DeadlineProtocol, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    until(lambda: server.started)
    try:
        yield listening.getsockname()[1], turns
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        turns.stop()
        listening.close()


def head(length: int) -> bytes:
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()  # fmt: skip


WHOLE = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [[b""], [b"GET /he"], [WHOLE[:-2]], [WHOLE + b"G"], [WHOLE, b"G"]])
def test_an_unfinished_request_head_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: list[bytes]) -> None:
    """The first one of a connection, and one after an answer."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with in_this_process(Talkative(), Policy()) as (port, _), socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(PATIENCE)
        link.sendall(sent[0])
        for more in sent[1:]:
            assert link.recv(2**16).startswith(b"HTTP/1.1 200")
            link.sendall(more)
        with contextlib.suppress(ConnectionResetError):
            while link.recv(2**16):
                pass


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    policy = Policy(body_seconds=0.2)
    with in_this_process(Talkative(), policy) as (port, _), socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(PATIENCE)
        link.sendall(head(100) + b"{")
        assert link.recv(2**16).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READER_SECONDS", 0.5)
    talker = Talkative()
    body = json.dumps({"model": NAME, "messages": HELLO, "stream": True}).encode()
    with in_this_process(talker, Policy()) as (port, turns), socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", port))
        link.sendall(head(len(body)) + body)
        until(lambda: talker.given == 400)  # the engine is done long before the reader
        link.settimeout(PATIENCE)
        received = 0
        time.sleep(2)  # four deadlines, without reading
        with contextlib.suppress(ConnectionResetError):
            while part := link.recv(2**20):
                received += len(part)
        assert received < 400 * 2**16
        assert turns.waiting == 0


# keys and addresses


def test_other_machines_need_a_key(model: Path) -> None:
    with pytest.raises(FourbitError, match="clients need a key"), bind("0.0.0.0", 0) as listening:
        policy_for(listening, "0.0.0.0", None, [])
    for weak in ("", "short", "x" * 15, "with space in the middle", "ключ" * 10):
        with pytest.raises(FourbitError, match="at least 16"), bind("127.0.0.1", 0) as listening:
            policy_for(listening, "127.0.0.1", weak, [])
    with bind("0.0.0.0", 0) as listening:
        policy = policy_for(listening, "0.0.0.0", KEY, ["my.house"])
        assert KEY not in repr(policy)
        assert {"localhost", "my.house", socket.gethostname().lower()} <= policy.names
    with bind("127.0.0.1", 0) as listening:
        assert is_loopback(listening)
        assert policy_for(listening, "127.0.0.1", None, []).key is None
    refused = run_serve(model, "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "clients need a key" in refused.stderr


def test_with_a_key_only_who_has_it_is_answered(model: Path) -> None:
    with serving(model, "--host", "0.0.0.0", env=environment(FOURBIT_API_KEY=KEY)) as served:
        assert KEY not in served.printed
        served.url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert ask(served.client(KEY)).usage.completion_tokens == 12
        for wrong in ("none", KEY + "x", KEY[:-1], KEY.upper()):
            with pytest.raises(openai.AuthenticationError) as caught:
                ask(served.client(wrong))
            assert caught.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                served.client(wrong).models.list()
        assert waiting(served) == 0  # a sign of life needs none


def test_a_port_in_use_is_told_before_the_model_is_opened(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        done = run_serve(tmp_path / "there-is-no-model.gguf", "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "--port 0" in done.stderr
    for host in ("256.0.0.1", "no.such.host.invalid", "8.8.8.8"):
        with pytest.raises(FourbitError, match="listen on"):
            bind(host, 0)


# its end


def test_ctrl_c_lets_the_answer_in_progress_end(model: Path) -> None:
    with serving(model) as served:
        served.ends = True
        stream = ask(served.client(), stream=True, max_tokens=3000)
        next(stream)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waits = pool.submit(ask, served.client())
            until(lambda: waiting(served) == 1)
            served.process.send_signal(signal.SIGINT)
            with pytest.raises(openai.InternalServerError) as caught:
                waits.result(PATIENCE)
            assert caught.value.status_code == 503
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert served.process.wait(PATIENCE) == 0
    assert "Traceback" not in served.printed


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_twice_ends_it_at_once(model: Path, signals: list[signal.Signals]) -> None:
    with serving(model, "--context", "60000") as served:
        served.ends = True
        stream = endless(served.client())
        for sign in signals:
            served.process.send_signal(sign)
            time.sleep(0.5)  # signals of one kind that come together are one
        with pytest.raises(openai.APIError, match="before it was complete"):
            list(stream)
        assert served.process.wait(PATIENCE) == 0
    assert "Traceback" not in served.printed


def run_serve(model: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fourbit", "serve", str(model), "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment())
