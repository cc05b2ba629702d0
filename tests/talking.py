"""A tiny model that talks without end, and a real `fourbit serve` process to talk to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import openai
import torch

from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_file import GgufFile, encoded, write_gguf
from fourbit.llm.hollow import write_hollow

SHAPE = LlmConfig(
    architecture="llama", layers=2, width=64, ff=96, heads=2, kv_heads=1, head_width=32, vocabulary=400,
    rope_theta=1e4, norm_eps=1e-5, tied=True, qkv_bias=False, context=60_000,
)  # fmt: skip
HELLO = [{"role": "user", "content": "Hello"}]
PATIENCE = 120  # seconds, for a machine that does much else


def write_endless(path: Path, seed: int = 0) -> Path:
    """Write a model of random weights whose vocabulary has no token that ends an answer."""
    about = write_hollow(SHAPE, path.with_suffix(".vocabulary"), "Q8_0", progress=False)
    metadata = {k: v for k, v in GgufFile(about).metadata.items() if k.startswith("tokenizer.")}
    about.unlink()
    del metadata["tokenizer.ggml.eos_token_id"]
    metadata["tokenizer.ggml.tokens"] = [("<e>" if t == "</s>" else t) for t in metadata["tokenizer.ggml.tokens"]]
    source = torch.Generator().manual_seed(seed)
    tensors = {
        name: encoded(torch.randn(shape, generator=source) / shape[1] ** 0.5, "Q8_0") if len(shape) == 2
        else torch.ones(shape)
        for name, shape in SHAPE.shapes().items()
    }  # fmt: skip
    write_gguf(path, SHAPE, tensors, metadata | {"general.name": "Endless"})
    return path


@dataclasses.dataclass
class Served:
    """A running server: its process, its address, and what it has printed. `ends` says that the test ends it."""

    process: subprocess.Popen[str]
    ends: bool = False
    url: str = ""
    lines: list[str] = dataclasses.field(default_factory=list)
    clients: list[openai.OpenAI] = dataclasses.field(default_factory=list)

    def client(self, key: str = "none") -> openai.OpenAI:
        """OpenAI's own client, which does not try again by itself."""
        found = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
        self.clients.append(found)
        return found

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def printed(self) -> str:
        return "".join(self.lines)


def environment(**more: str) -> dict[str, str]:
    """What the tests' processes see: no key from outside, plain wide output."""
    found = {k: v for k, v in os.environ.items() if k != "FOURBIT_API_KEY"}
    return found | {"COLUMNS": "250", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | more


@contextlib.contextmanager
def serving(
    model: Path | str, *options: str, program: Sequence[str] = ("-m", "fourbit"), env: dict[str, str] | None = None
) -> Iterator[Served]:
    """Run `fourbit serve` on a free port until the block ends; `program` is what Python runs."""
    command = [sys.executable, *program, "serve", str(model), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env or environment()
    )  # fmt: skip
    served = Served(process)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            served.lines.append(line)
            if found := re.search(r"Chat page: (\S+)/", line):
                served.url = found[1]
            if line.startswith("Ctrl-C ends"):
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(PATIENCE), "the server did not start"
        assert served.url, f"the server ended: {served.printed}"
        yield served
        status = process.poll()
        assert status is None or served.ends, f"the server ended with status {status}: {served.printed}"
    finally:
        for client in served.clients:
            client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            reader.join(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()
