"""What a request may say: OpenAI's parameters as far as one model on a CPU can honor them.

A parameter that would change the answer and cannot be honored is refused unless it asks for nothing; one that does not
change it is accepted without effect. An unknown one is refused, because it may be a misspelled one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MOST_MESSAGES = 1000
_LONGEST_STOP = 256  # characters, as StopStrings has it


def _nothing(value: Any) -> Any:
    if value not in (None, 0, False, [], {}, "", "none"):
        raise ValueError("is not supported by this server; leave it out")
    return value


def _one(value: int | None) -> int | None:
    if value not in (None, 1):
        raise ValueError("only 1 is supported: one engine gives one answer at a time; send the request again instead")
    return value


def _stops(value: str | list[str] | None) -> str | list[str] | None:
    texts = [value] if isinstance(value, str) else value or []
    if len(texts) > 4 or not all(0 < len(text) <= _LONGEST_STOP for text in texts):
        raise ValueError(f"give at most 4 stop strings, each of 1 to {_LONGEST_STOP} characters")
    return value


def _text_format(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value not in (None, {"type": "text"}):
        raise ValueError('only {"type": "text"} is supported; ask for JSON in words')
    return value


Nothing = Annotated[Any, AfterValidator(_nothing)]
One = Annotated[int | None, AfterValidator(_one)]
Tokens = Annotated[int | None, Field(ge=1)]


class StreamOptions(BaseModel):
    """`include_usage` asks for a last chunk with the usage."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = False  # there is no network to hide the length of chunks from


class Common(BaseModel):
    """What both kinds of completion understand."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, lt=1)
    repetition_penalty: float | None = Field(None, ge=1, le=2)
    seed: int | None = Field(None, ge=0, lt=2**63)
    max_tokens: Tokens = None
    stop: Annotated[str | list[str] | None, AfterValidator(_stops)] = None
    n: One = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # accepted without effect
    frequency_penalty: Nothing = None
    presence_penalty: Nothing = None
    logit_bias: Nothing = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Common:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options only goes with stream: true")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class TextPart(BaseModel):
    """A part of a message; images and sound are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """Who says what; `developer` is OpenAI's newer word for `system`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: Nothing = None
    refusal: Nothing = None
    annotations: Nothing = None
    audio: Nothing = None
    tool_calls: Nothing = None
    function_call: Nothing = None

    def plain(self) -> dict[str, str]:
        """Return it as a chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: Tokens = None
    response_format: Annotated[dict[str, Any] | None, AfterValidator(_text_format)] = None
    logprobs: Nothing = None
    top_logprobs: Nothing = None
    tools: Nothing = None
    tool_choice: Nothing = None
    functions: Nothing = None
    function_call: Nothing = None
    modalities: Annotated[list[Literal["text"]] | None, Field()] = None
    store: Nothing = None  # nothing is kept
    metadata: dict[str, str] | None = None  # these four are accepted without effect
    parallel_tool_calls: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens mean the same here; give one of them")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens of the answer at most."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


class CompletionRequest(Common):
    """POST /v1/completions: `prompt` is one text, or the tokens of one."""

    prompt: str | list[str] | list[int]
    echo: Nothing = None
    suffix: Nothing = None
    logprobs: Nothing = None
    best_of: One = None

    @model_validator(mode="after")
    def _one_prompt(self) -> CompletionRequest:
        if isinstance(self.prompt, list) and self.prompt and isinstance(self.prompt[0], str) and len(self.prompt) != 1:
            raise ValueError("prompt: only one is supported; send a request for each")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens of the answer at most; OpenAI's default of 16 for this route."""
        return 16 if self.max_tokens is None else self.max_tokens
