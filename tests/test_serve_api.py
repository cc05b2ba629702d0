"""`fourbit serve` as a program sees it: OpenAI's own client against a real server process."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fourbit.llm.decoder import MANY
from fourbit.serve.errors import from_validation
from fourbit.serve.replies import Form, _data
from fourbit.serve.requests import ChatRequest, CompletionRequest
from tests.llm_fixtures import pocket as pocket_path  # noqa: F401
from tests.talking import HELLO, Served, serving, write_endless

NAME = "endless"
CONTEXT = 4096


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(write_endless(tmp_path_factory.mktemp("model") / f"{NAME}.gguf")) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return served.client()


def ask(client: openai.OpenAI, **options: Any) -> Any:
    given_: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 24, "temperature": 0}
    return client.chat.completions.create(**(given_ | options))


# what a program asks for


def test_a_stream_says_what_the_whole_says(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert parts[0].choices[0].delta.role == "assistant"
    assert len(parts) > 3, "it came in one piece"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]
    assert all(part.usage is None for part in parts)
    assert last.choices == []
    for usage in (last.usage, whole.usage):
        assert (usage.completion_tokens, usage.total_tokens) == (24, usage.prompt_tokens + 24)
    assert whole.usage.prompt_tokens == last.usage.prompt_tokens > len("Hello")  # a token for each byte
    assert last.usage.prompt_tokens_details.cached_tokens == last.usage.prompt_tokens - MANY  # which are read again
    assert {chunk.id for chunk in chunks} == {chunks[0].id} != {whole.id}
    assert last.timings["tokens_per_second"] > 0


def test_without_being_asked_a_stream_has_no_usage(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_and_is_left_out(client: openai.OpenAI, stream: bool) -> None:
    text = ask(client).choices[0].message.content
    word = text.split()[2]
    for stop in (word, ["never said", word]):
        answer = ask(client, stop=stop, stream=stream)
        if stream:
            chunks = list(answer)
            said, how = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason
        else:
            said, how = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert (said, how) == (text[: text.index(word)], "stop")


def test_the_same_seed_gives_the_same_answer_and_another_another(client: openai.OpenAI) -> None:
    hot = {"temperature": 1.0, "top_p": 1.0}
    ask(client)  # all below find the prompt in the cache
    answers = [ask(client, seed=seed, **hot).choices[0].message.content for seed in (7, 7, 8)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"min_p": 0.999}, {"top_p": 1e-6}])
def test_a_narrow_choice_is_greedy(client: openai.OpenAI, narrow: dict[str, float]) -> None:
    wanted = ask(client).choices[0].message.content
    ours = {name: value for name, value in narrow.items() if name != "top_p"}
    theirs = {name: value for name, value in narrow.items() if name == "top_p"}
    found = ask(client, temperature=1.0, seed=1, extra_body=ours or None, **theirs)
    assert found.choices[0].message.content == wanted


def test_a_penalty_of_repetition_keeps_it_from_saying_one_word_again_and_again(client: openai.OpenAI) -> None:
    def kinds(**options: Any) -> int:
        return len(set((ask(client, max_tokens=60, **options).choices[0].message.content or "").split()))

    assert kinds(extra_body={"repetition_penalty": 2.0}) > 2 * kinds()


def test_all_names_of_the_limit_and_of_the_system(client: openai.OpenAI) -> None:
    assert ask(client, max_tokens=openai.omit, max_completion_tokens=5).usage.completion_tokens == 5
    system = [{"role": "system", "content": "Be brief."}, *HELLO]
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    developer = [{"role": "developer", "content": parts}]
    wanted = ask(client, messages=system).choices[0].message.content
    assert ask(client, messages=[*developer, *HELLO]).choices[0].message.content == wanted


def test_without_a_limit_the_context_is_the_limit(client: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "x" * (CONTEXT - 200)}]
    answer = ask(client, messages=long, max_tokens=openai.omit)
    assert answer.choices[0].finish_reason == "length"
    # the last token is not read any more and needs no place
    assert answer.usage.total_tokens == CONTEXT + 1


@pytest.mark.parametrize("prompt", ["Once upon a time", ["Once upon a time"], [10, 11, 12]])
def test_plain_completions(client: openai.OpenAI, prompt: Any) -> None:
    whole = client.completions.create(model=NAME, prompt=prompt, max_tokens=8, temperature=0)
    parts = list(client.completions.create(model=NAME, prompt=prompt, max_tokens=8, temperature=0, stream=True))
    assert whole.object == parts[0].object == "text_completion"
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.usage.completion_tokens == 8
    if isinstance(prompt[0], int):
        assert whole.usage.prompt_tokens == 3
    assert client.completions.create(model=NAME, prompt=prompt).usage.completion_tokens == 16  # OpenAI's default


def test_models_and_health(served: Served, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).context_length == CONTEXT
    status, found = get(served, "/health")
    assert (status, found["status"], found["waiting"]) == (200, "ok", 0)


# what cannot be


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0", None),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages.0.content.0", None),
        ({"n": 2}, "n", "invalid_value"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": 1e30}, "temperature", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"extra_body": {"top_k": -3}}, "top_k", "invalid_value"),
        ({"extra_body": {"min_p": 1}}, "min_p", "invalid_value"),
        ({"extra_body": {"repetition_penalty": 0.5}}, "repetition_penalty", "invalid_value"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"stop": ["1", "2", "3", "4", "5"]}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"frequency_penalty": 1.0}, "frequency_penalty", "invalid_value"),
        ({"logit_bias": {"5": 100}}, "logit_bias", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, None, "invalid_value"),
        ({"max_tokens": CONTEXT}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * CONTEXT}]}, "messages", "context_length_exceeded"),
    ],
)  # fmt: skip
def test_what_cannot_be_honored_is_refused_in_openais_form(
    client: openai.OpenAI, wrong: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **wrong)
    error = caught.value
    assert error.type == "invalid_request_error"
    assert error.code == code or code is None
    assert (error.param or "").startswith(param or "")
    assert error.body["message"]  # type: ignore[index]


def test_an_overflow_says_how_much_there_is_room_for(client: openai.OpenAI) -> None:
    prompt = ask(client).usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match=f"room for an answer of {CONTEXT - prompt:,}"):
        ask(client, max_tokens=CONTEXT - prompt + 1)
    with pytest.raises(openai.BadRequestError, match="larger --context"):
        ask(client, messages=[{"role": "user", "content": "x" * 2 * CONTEXT}])


def test_tokens_outside_the_vocabulary_are_refused(client: openai.OpenAI) -> None:
    for prompt in ([-1], [10**6], [1.5]):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model=NAME, prompt=prompt)  # type: ignore[arg-type]


def test_other_models_routes_and_methods_are_not_found(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="gpt-4o")
    assert caught.value.code == "model_not_found"
    assert NAME in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=NAME, input="x")
    assert get(served, "/../../etc/passwd")[0] == 404
    assert get(served, "/page/chat.js")[0] == 404
    assert get(served, "/v1/models", "DELETE")[0] == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe", b"[" * 100_000, b'"\\ud800"'])
def test_a_body_that_is_no_request_is_told(served: Served, body: bytes) -> None:
    status, found = post(served, body)
    assert status == 400
    assert set(found["error"]) == {"message", "type", "param", "code"}


def test_a_huge_body_is_refused_and_the_server_goes_on(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, messages=[{"role": "user", "content": "x" * 2**21}])
    assert caught.value.status_code == 413
    assert post(served, b"x" * 2**21, {"Transfer-Encoding": "chunked"})[0] == 413
    assert ask(client).usage.completion_tokens == 24


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "messages", "role", "content", "type", "text", "stop", "n", "prompt", "seed"])
                | st.text(max_size=3),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_comes_is_a_request_or_an_error_that_says_why(value: Any) -> None:
    for kind in (ChatRequest, CompletionRequest):
        try:
            kind.model_validate_json(json.dumps(value))
        except ValidationError as error:
            found = from_validation(error)
            assert found.status == 400
            assert found.body()["error"]["message"]


@given(st.text())
def test_an_event_is_one_line_however_lines_are_counted(text: str) -> None:
    chunk = Form(True, NAME, "").chunk(text)
    event = _data(chunk)
    assert len(event.splitlines()) == 2  # one, and the empty one that ends the event
    assert json.loads(event.removeprefix("data: ")) == chunk


# who may ask


def test_other_names_and_other_pages_are_kept_out(served: Served) -> None:
    here = f"127.0.0.1:{served.port}"
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example", "", "127.0.0.1:x", "[::1"):
        assert get(served, "/", headers={"Host": host})[0] == 403, host
    for host in (here, f"localhost:{served.port}", f"LOCALHOST:{served.port}", "[::1]"):
        assert get(served, "/health", headers={"Host": host})[0] == 200, host
    assert get(served, "/v1/models", headers={"Origin": f"http://{here}"})[0] == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}"):
        assert get(served, "/v1/models", headers={"Origin": origin})[0] == 403, origin


def test_a_form_of_another_page_cannot_ask(served: Served) -> None:
    """What a page may send elsewhere without asking first has one of these content types."""
    body = json.dumps({"model": NAME, "messages": HELLO, "max_tokens": 1}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert post(served, body, {"Content-Type": kind})[0] == 415
    assert post(served, body, {"Content-Type": "application/json; charset=utf-8"})[0] == 200


def test_no_page_elsewhere_is_invited_and_ours_has_a_strict_policy(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("OPTIONS", "/v1/chat/completions", headers={"Origin": f"http://127.0.0.1:{served.port}"})
    reply = connection.getresponse()
    reply.read()
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]
    for path in ("/", "/chat.js", "/chat.css", "/v1/models", "/nothing"):
        connection.request("GET", path)
        reply = connection.getresponse()
        text = reply.read().decode()
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "//" not in text.replace("http://www.w3.org", "") or path == "/chat.js", f"{path} names another host"
    connection.close()


# the pocket model


def test_the_pocket_model_answers_in_a_conversation(pocket_path: Path) -> None:  # noqa: F811
    with serving("smollm2") as served:
        client = served.client()
        talk: list[Any] = [{"role": "user", "content": "Name three colors."}]
        chunks = list(
            client.chat.completions.create(model="smollm2", messages=talk, temperature=0, max_tokens=40, stream=True)
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert any(color in said.lower() for color in ("red", "blue", "green", "yellow"))
        assert chunks[-1].choices[0].finish_reason == "stop"
        talk += [{"role": "assistant", "content": said}, {"role": "user", "content": "Name another one."}]
        again = client.chat.completions.create(model="smollm2", messages=talk, temperature=0, max_tokens=8)
        # what was said is not read again: system, question and answer are in the cache
        assert again.usage is not None
        assert again.usage.prompt_tokens_details is not None
        assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 40
        assert "pocket model" in served.printed


def get(served: Served, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, Any]:
    return _request(served, method, path, None, headers or {})


def post(served: Served, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    return _request(
        served, "POST", "/v1/chat/completions", body, {"Content-Type": "application/json"} | (headers or {})
    )  # fmt: skip


def _request(served: Served, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    chunked = "Transfer-Encoding" in headers
    try:
        connection.request(method, path, iter([body]) if chunked else body, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if reply.headers["Content-Type"] == "application/json" else text
    finally:
        connection.close()
