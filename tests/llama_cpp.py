"""llama.cpp as a second opinion: greedy text with its log-probabilities, tokens, and chat templates."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

PLAIN = xllamacpp.ggml_type.GGML_TYPE_F32


@dataclass(frozen=True)
class Step:
    """A generated token, and the log-probabilities of the likeliest tokens in its place."""

    token: int
    likely: dict[int, float]


class LlamaCpp:
    """A model in llama.cpp, one thread, on the CPU.

    `exact` keeps keys and values in float32 (its default is float16) and leaves flash attention out, so that a file of
    type F32 is computed in float32 throughout. Quantized matrices round their inputs to 8 bits all the same.
    """

    def __init__(self, path: Path, *, exact: bool = False) -> None:
        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel, options.warmup, options.verbosity = 512, 1, False, 0
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.use_jinja = True
        if exact:
            options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
            options.cache_type_k = options.cache_type_v = PLAIN
        self._server = xllamacpp.Server(options)

    def complete(self, tokens: Sequence[int], count: int, likely: int = 20) -> list[Step]:
        """Continue greedily."""
        asked = {"prompt": list(tokens), "n_predict": count, "temperature": 0, "n_probs": likely, "cache_prompt": False}
        answer = self._server.handle_completions({**asked, "ignore_eos": False})
        found = answer if isinstance(answer, dict) else json.loads(answer)
        steps = found["choices"][0]["logprobs"]["content"]
        return [Step(step["id"], {top["id"]: top["logprob"] for top in step["top_logprobs"]}) for step in steps]

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text, control tokens in it taken whole."""
        found: list[int] = self._ask("/tokenize", {"content": text, "add_special": special})["tokens"]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._ask("/detokenize", {"tokens": list(tokens)})["content"]
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        prompt: str = self._ask("/apply-template", {"messages": list(messages)})["prompt"]
        return prompt

    def _ask(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(asked).encode()
        request = urllib.request.Request(
            self._server.listening_address + path, data, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
