"""A model that is ready to talk: opened after its memory was planned, described, and asked.

`fourbit chat` and `fourbit serve` are two faces of what is here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fourbit.doctor import usable_cores
from fourbit.errors import ModelError
from fourbit.llm.engine import Engine
from fourbit.llm.fit import this_machine, verdict
from fourbit.llm.generation import Piece, Usage, generate
from fourbit.llm.plan import CHUNK, Plan, activation_bytes, plan_file
from fourbit.llm.registry import MODELS, locate
from fourbit.llm.sampling import Sampling

# What is not asked for otherwise. The slight penalty keeps small models from saying one line again and again.
SAMPLING = Sampling(temperature=0.3, top_p=0.9, repetition=1.05)
DEFAULT_CONTEXT = 4096
OWN, REPOSITORY = "your own file", "from the Hugging Face hub"
_SILENT = Usage(0)

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Request:
    """What is to be answered: the prompt's tokens, how tokens are chosen, at most how many, and what ends it."""

    prompt: Sequence[int]
    sampling: Sampling = SAMPLING
    limit: int | None = None
    stop: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """Where a model comes from. `name` is what clients call it; `tier` is pocket, real, hollow or "your own file"."""

    name: str
    title: str
    tier: str
    path: Path


def find_source(name: str) -> Source:
    """Find a model by its registry name or the path of its file.

    Raises:
        ModelError: when it is not on this machine; the message has the command that helps.
    """
    registered = next((model for model in MODELS if model.name == name.lower()), None)
    if registered:
        return Source(registered.name, registered.title, registered.tier, locate(registered.name))
    path = Path(name).expanduser()
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise ModelError(f"{path} does not exist; name a GGUF file, an artifact of lab 04, or a model's name")
        locate(name)  # raises, with the nearest name
    title = _title(path)
    return Source(path.stem, title, "hollow" if title.endswith("hollow") else OWN, path)


def _title(path: Path) -> str:
    """The name that a GGUF file gives itself, else the file's."""
    if path.suffix != ".gguf":
        return path.name
    from fourbit.llm.gguf_file import GgufFile

    return str(GgufFile(path).metadata.get("general.name", path.name))


class Talker:
    """A model, its plan, and one conversation at a time in its cache. Not to be shared by threads, but for
    :meth:`prompt` and :meth:`encode`. `usage` is that of the answer in progress or of the last one."""

    def __init__(self, source: Source, engine: Engine, plan: Plan, free: int, how: str) -> None:
        self.source, self.engine, self.plan, self.free, self.how = source, engine, plan, free, how
        self.usage = _SILENT

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.context

    def prompt(self, messages: Messages, begun: str = "") -> list[int]:
        """Return the tokens of a conversation, in the model's own chat template; `begun` begins the answer.

        Raises:
            ModelError: when the model has no template or refuses the messages.
        """
        tokenizer = self.engine.tokenizer
        tokens = tokenizer.chat_tokens(messages)
        return tokens + tokenizer.encode(begun, special=False, control=False) if begun else tokens

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that is to be continued."""
        return self.engine.tokenizer.encode(text)

    def answer(self, request: Request, cancelled: threading.Event) -> Iterator[Piece]:
        """Generate, and end within one token (or 128 of the prompt) once `cancelled` is set.

        Raises:
            ModelError: when the request does not fit into the context, or the model is damaged.
        """
        self.usage = _SILENT
        pieces = generate(
            self.engine, request.prompt, request.sampling, limit=request.limit, stop=request.stop,
            cancelled=cancelled.is_set,
        )  # fmt: skip
        try:
            for piece in pieces:
                self.usage = pieces.usage
                yield piece
        finally:
            pieces.close()

    def describe(self) -> list[str]:
        """Return what is running here, line by line: model, tier, bytes, threads and kernels or GPU, memory."""
        p = self.plan
        lines = [
            f"{self.source.title}, {_tier(self.source.tier)}: {gigabytes(p.weights)} of weights, {p.form}, "
            f"{p.bits_per_weight:.2f} bits each",
            f"{self.source.path}",
            f"{self.how}, context of {self.context:,} tokens (cache {p.kv})",
            f"memory: weights {gigabytes(p.weights)}, cache {gigabytes(p.kv_cache)}, buffers "
            f"{gigabytes(p.activations)}, all else {gigabytes(p.overhead)}: {gigabytes(p.total)} at most, of "
            f"{gigabytes(self.free)} free",
        ]
        return lines + list(getattr(self.engine, "notes", ()))


def open_talker(
    name: str, *, context: int | None = None, threads: int | None = None, kv: str = "f16", anyway: bool = False
) -> Talker:
    """Plan a model's memory, and open it if this machine has it.

    Args:
        name: of the registry, or the path of a GGUF file or an artifact of lab 04.
        context: tokens of prompt and answer together; None for 4,096, or what the model can have if that is less.
        threads: None for one on each core that this process may use.
        kv: f32, f16, q8 or q4.
        anyway: open it even if the plan says that it does not fit.

    Raises:
        ModelError: when it is not here, damaged, not supported, or does not fit; then with what would.
    """
    source, device = find_source(name), this_machine()
    if source.path.is_dir():
        raise ModelError(
            f"{source.path} is a checkpoint folder; it runs in 4 bits on a CUDA GPU with --gpu. On the CPU, "
            "`fourbit chat` and `fourbit serve` run GGUF files and lab 04's artifacts"
        )
    threads = threads or usable_cores()
    wanted = _planned(source.path, context, kv)
    found = verdict(wanted, device)
    if not (found.fits or anyway):
        raise ModelError(f"{found.reason}. To try it all the same: --anyway")
    engine = Engine.open(source.path, context=wanted.context, threads=threads, kv=kv)
    how = f"{threads} thread{'s' * (threads > 1)}, kernels {engine.kernel.isa}"
    return Talker(source, engine, wanted, device.memory, how)


def open_on_gpu(name: str, *, context: int | None = None, device: str = "cuda") -> Talker:
    """Open a checkpoint in NF4 on a GPU: a folder, or a repository of the hub, which is fetched if it is not here.

    Raises:
        ModelError: when there is no GPU that can, or the model does not fit (said before it is loaded) or is missing.
    """
    import torch

    from fourbit.llm.cuda import find_device, free_memory
    from fourbit.llm.gpu import GpuEngine

    where = find_device(device)
    free = free_memory(where).memory
    engine = GpuEngine.open(name, context=context or DEFAULT_CONTEXT, device=device)
    path = Path(name)
    title, tier = (path.resolve().name, OWN) if path.is_dir() else (name, REPOSITORY)
    card = torch.cuda.get_device_name(where) if where.type == "cuda" else "the CPU"
    how = f"{engine.layers_on_gpu} of {engine.config.layers} layers on {card}"
    # It answers as the CPU's engine does.
    return Talker(Source(title, title, tier, path), cast(Engine, engine), engine.plan, free, how)


def _planned(path: Path, context: int | None, kv: str) -> Plan:
    if context is not None:
        return plan_file(path, context, kv)
    found = plan_file(path, 2, kv)  # reading the header takes most of the time: once
    context = min(DEFAULT_CONTEXT, found.config.context)
    return replace(found.with_cache(context), activations=activation_bytes(found.config, min(context, CHUNK)))


def gigabytes(count: int) -> str:
    """Return a size as people read it."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _tier(tier: str) -> str:
    if tier == "hollow":
        return "with random weights, for measuring"
    return tier if tier in (OWN, REPOSITORY) else f"{tier} model"
