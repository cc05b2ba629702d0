"""The routes: OpenAI's chat completions, completions and models, a sign of life, and the chat page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

import fourbit
from fourbit.chat.talker import SAMPLING, Request, Talker
from fourbit.errors import ModelError
from fourbit.llm.sampling import Sampling
from fourbit.serve.errors import LIMITED, OURS, ApiError, from_validation
from fourbit.serve.guard import Guard, Policy
from fourbit.serve.replies import Form, Reply, Stream, Whole
from fourbit.serve.requests import ChatRequest, Common, CompletionRequest
from fourbit.serve.turns import BusyError, ClosingError, Turns

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
    "/markdown.js": ("markdown.js", "text/javascript; charset=utf-8"),
    "/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_READERS = 2  # prompts that are turned into tokens at the same time
Asked = TypeVar("Asked", bound=Common)


class Service:
    """The handlers, and what they share."""

    def __init__(self, talker: Talker, turns: Turns) -> None:
        self._talker, self._turns = talker, turns
        self._started = int(time.time())
        self._readers = asyncio.Semaphore(_READERS)
        self._fingerprint = f"fourbit {fourbit.__version__}, {talker.how}"  # a seed holds for this combination

    async def chat(self, http: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        asked = _parse(ChatRequest, await http.body())
        messages = [message.plain() for message in asked.messages]
        return await self._reply(http, asked, asked.limit, "messages", lambda: self._talker.prompt(messages))

    async def complete(self, http: HttpRequest) -> Response:
        """POST /v1/completions."""
        asked = _parse(CompletionRequest, await http.body())
        given = asked.prompt[0] if isinstance(asked.prompt, list) and len(asked.prompt) == 1 else asked.prompt

        def read() -> list[int]:
            return self._talker.encode(given) if isinstance(given, str) else [int(t) for t in asked.prompt]

        return await self._reply(http, asked, asked.limit, "prompt", read)

    async def _reply(
        self, http: HttpRequest, asked: Common, limit: int | None, param: str, read: Callable[[], list[int]]
    ) -> Reply:
        self._refuse_other_model(asked.model)
        client = http.client.host if http.client else "unknown"
        try:
            self._turns.refuse_when_full(client)
            async with self._readers:
                prompt = await asyncio.to_thread(read)
            self._refuse_overflow(len(prompt), limit, param)
            self._talker.engine.validate(prompt)
            turn = self._turns.enter(Request(prompt, _sampling(asked), limit, asked.stops), client)
        except BusyError as error:
            after = {"Retry-After": str(error.retry_after)}
            raise ApiError(429, str(error), kind=LIMITED, code="queue_full", headers=after) from None
        except ClosingError as error:
            raise ApiError(503, str(error), kind=OURS, code="shutting_down") from None
        except ModelError as error:
            raise ApiError(400, str(error), code="invalid_value", param=param) from None
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        form = Form(param == "messages", self._talker.name, self._fingerprint, usage)
        return (Stream if asked.stream else Whole)(self._turns, turn, form)

    def _refuse_other_model(self, name: str) -> None:
        if name != self._talker.name:
            message = f"there is no model {name!r:.80} here, only {self._talker.name!r}"
            raise ApiError(404, message, code="model_not_found", param="model")

    def _refuse_overflow(self, prompt: int, limit: int | None, param: str) -> None:
        context = self._talker.context
        if prompt + (limit or 1) <= context:
            return
        wish = f" and {limit:,} of an answer" if limit else ", which leaves no room for an answer"
        message = f"the context has {context:,} tokens; you ask for {prompt:,} of a prompt{wish}. "
        if prompt >= context:
            message += "Shorten the prompt, or start the server with a larger --context"
        else:
            message += f"There is room for an answer of {context - prompt:,}"
        raise ApiError(400, message, code="context_length_exceeded", param=param)

    async def models(self) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, name: str) -> dict[str, Any]:
        """GET /v1/models/{name}."""
        self._refuse_other_model(name)
        return self._model()

    def _model(self) -> dict[str, Any]:
        talker = self._talker
        return {
            "id": talker.name, "object": "model", "created": self._started, "owned_by": "fourbit",
            "title": talker.source.title, "tier": talker.source.tier, "context_length": talker.context,
        }  # fmt: skip

    async def health(self) -> dict[str, Any]:
        """GET /health."""
        return {"status": "ok", "answering": self._turns.answering, "waiting": self._turns.waiting}


def build_app(talker: Talker, turns: Turns, policy: Policy) -> Guard:
    """Return the ASGI application for a model, its queue, and who may ask."""
    service = Service(talker, turns)
    app = FastAPI(title="Fourbit", docs_url=None, redoc_url=None, openapi_url=None)  # their pages load from elsewhere
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/completions", service.complete, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", service.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", service.model, methods=["GET"])
    app.add_api_route("/health", service.health, methods=["GET"])
    folder = files("fourbit.serve") / "page"
    for route, (name, kind) in _PAGE.items():
        content = (folder / name).read_bytes()
        app.add_api_route(route, partial(_file, content, kind), methods=["GET"], response_model=None)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return Guard(app, policy)


def _parse(kind: type[Asked], body: bytes) -> Asked:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None


def _sampling(asked: Common) -> Sampling:
    """Return what was asked for, the rest by this server's defaults; a penalty only if it was asked for."""
    given = {name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "min_p", "seed")}
    given["repetition"] = asked.repetition_penalty or 1.0
    return replace(SAMPLING, **{name: value for name, value in given.items() if value is not None})


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


async def _api_error(_: HttpRequest, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(http: HttpRequest, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{http.method} {http.url.path:.80}: {error.detail}"
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _unexpected(_: HttpRequest, __: Exception) -> JSONResponse:
    return ApiError(500, "the request failed; the server's output has the reason", kind=OURS).response()
