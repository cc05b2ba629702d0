"""A model card: what a model takes and how fast it is on this machine, measured here and set beside its plan and roof.

Perplexity is that of this repository's own novel (:mod:`fourbit.llm.texts`), which any model has seen in training: it
says whether a model is whole and what its format costs, and ranks no models. Speed is measured with one token after
another and greedily; the first token waits for the whole prompt.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from fourbit.doctor import copy_bandwidth
from fourbit.errors import ModelError
from fourbit.llm.engine import Engine
from fourbit.llm.evaluate import Interval, windows
from fourbit.llm.plan import Plan
from fourbit.llm.texts import EVALUATION, novel
from fourbit.measure.memory import peak_resident
from fourbit.measure.power import find_meter
from fourbit.measure.reading import read_roof

if TYPE_CHECKING:
    from fourbit.llm.gpu import GpuEngine

PROMPT = 128  # tokens that are read before the first one
LONG = 512  # tokens of the prompt by which reading is timed
DECODED = 32
WINDOWS, LENGTH = 8, 256  # of the novel
_PATIENCE = 20.0  # seconds that the long prompt may take; where it would take more, the short one counts
_BEGINNING = 20_000  # characters of the novel, which have the tokens of all prompts
_SEVERAL = 3  # times that the first token is waited for; the median counts


@dataclass(frozen=True)
class Speed:
    """Seconds and tokens per second.

    Attributes:
        first_token: seconds from a prompt of `prompt_tokens` to the first token after it; the median.
        prefill: tokens read per second, in a prompt of `prefill_tokens`.
        decode: tokens generated per second, by the median time of a token; `slowest` and `fastest` are its range.
    """

    prompt_tokens: int
    first_token: float
    prefill_tokens: int
    prefill: float
    decode: float
    slowest: float
    fastest: float


@dataclass(frozen=True)
class Power:
    """Joules for each decoded token, None where no counter can be read; `reason` then says why."""

    joules_per_token: float | None
    source: str
    reason: str


@dataclass(frozen=True)
class Card:
    """What was found. Bytes and seconds; `perplexity` is None for random weights, `planned_peak` is for `tokens_held`.

    Attributes:
        reader: who reads the weights: "2 threads", or "the GPU". `kernels` names the code by which they are multiplied.
        file_bytes: of the model's file; `weight_bytes` of its tensors, `bits_per_weight` with their scales.
        peak: the most that the process held, with `tokens_held` tokens in the cache; `planned_total` is the plan
            for the whole context.
        bytes_for_each_token: of the weights, that decoding one token reads.
        read_roof: bytes per second that the reader can get from memory; `share_of_roof` is what decoding reads of it.
    """

    name: str
    title: str
    tier: str
    machine: str
    reader: str
    kernels: str
    form: str
    parameters: int
    file_bytes: int
    weight_bytes: int
    bits_per_weight: float
    context: int
    kv: str
    speed: Speed
    bytes_for_each_token: int
    read_roof: float
    share_of_roof: float
    tokens_held: int
    peak: int
    planned_peak: int
    planned_total: int
    perplexity: Interval | None
    scored_tokens: int
    energy: Power
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the card as plain data, for JSON."""
        return asdict(self)


Say = Callable[[str], None]


@dataclass(frozen=True)
class _Place:
    """Where an engine runs: names for the card, its peak memory, its read roof, the planned peak with some tokens."""

    machine: str
    reader: str
    kernels: str
    peak: Callable[[], int]
    roof: Callable[[], float]
    planned: Callable[[int], int]
    notes: tuple[str, ...]


def _place(engine: Engine | GpuEngine, plan: Plan) -> _Place:
    if not isinstance(engine, Engine):
        return _gpu_place(engine, plan)
    threads = engine.kernel.threads
    return _Place(
        processor(),
        "1 thread" if threads == 1 else f"{threads} threads",
        f"kernels {engine.kernel.isa}",
        peak_resident,
        lambda: read_roof(threads).bandwidth,
        lambda tokens: plan.with_cache(tokens).total,
        engine.notes,
    )


def _gpu_place(engine: GpuEngine, plan: Plan) -> _Place:
    """On a GPU the whole cache is taken at the start, and what a copy moves, read and written, counts as its roof."""
    on_gpu = engine.device.type == "cuda"
    return _Place(
        torch.cuda.get_device_name(engine.device) if on_gpu else processor(),
        "the GPU" if on_gpu else "1 thread",
        f"bitsandbytes NF4, {engine.layers_on_gpu} of {engine.config.layers} layers on the device",
        engine.peak,
        lambda: copy_bandwidth("cuda") if on_gpu else read_roof(1).bandwidth,
        lambda tokens: plan.total,
        (),
    )


def measure_card(
    engine: Engine | GpuEngine, plan: Plan, name: str, title: str, tier: str, say: Say = lambda _: None
) -> Card:
    """Measure a model that was opened just now; it takes half a minute for the pocket model, two for a 7B.

    Args:
        plan: what was said of its memory before it was opened, in this process.
        tier: "hollow" leaves perplexity out: random weights have none to speak of.
        say: called with what is done next.

    Raises:
        ModelError: when the context is too short to measure anything.
    """
    room = PROMPT + DECODED + 1
    if engine.context < room:
        raise ModelError(f"a context of {engine.context} tokens is too short to measure in; give {room} or more")
    text = novel(EVALUATION)
    place = _place(engine, plan)
    speed, energy, held = _speed(engine, engine.tokenizer.encode(text[:_BEGINNING], special=False), say)
    peak = place.peak()  # before what a conversation does not need: a block to read, all tokens of a novel
    say("how fast memory is read")
    roof = place.roof()
    perplexity = None if tier == "hollow" else _perplexity(engine, engine.tokenizer.encode(text, special=False), say)
    return _card(engine, plan, (name, title, tier), place, speed, energy, held, peak, roof, perplexity)


def _card(
    engine: Engine | GpuEngine, plan: Plan, named: tuple[str, str, str], place: _Place, speed: Speed, energy: Power,
    held: int, peak: int, roof: float, perplexity: Interval | None,
) -> Card:  # fmt: skip
    path = engine.path
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return Card(
        *named,
        machine=place.machine,
        reader=place.reader,
        kernels=place.kernels,
        form=plan.form,
        parameters=engine.config.parameters(),
        file_bytes=sum(file.stat().st_size for file in files),
        weight_bytes=plan.weights,
        bits_per_weight=plan.bits_per_weight,
        context=engine.context,
        kv=plan.kv,
        speed=speed,
        bytes_for_each_token=plan.per_token,
        read_roof=roof,
        share_of_roof=speed.decode * plan.per_token / roof,
        tokens_held=held,
        peak=peak,
        planned_peak=place.planned(held),
        planned_total=plan.total,
        perplexity=perplexity,
        scored_tokens=WINDOWS * (min(LENGTH, engine.context) - 1) if perplexity else 0,
        energy=energy,
        notes=place.notes,
    )


def _speed(engine: Engine | GpuEngine, text: list[int], say: Say) -> tuple[Speed, Power, int]:
    """Time prompts and decoding; return that, the energy of decoding, and the most tokens that were held."""
    engine.truncate(0)
    engine.forward(text[:8])  # touches the weights
    waits = []
    for i in range(_SEVERAL):
        engine.truncate(0)
        waits.append(_clocked(lambda i=i: engine.forward(text[i * PROMPT : (i + 1) * PROMPT]).argmax()))  # type: ignore[misc]
        say(f"time to the first token, {i + 1} of {_SEVERAL}")
    first = statistics.median(waits)
    meter = find_meter()
    if not meter.reason:
        meter.start()
    laps = []
    for token in text[_SEVERAL * PROMPT :][:DECODED]:
        laps.append(_clocked(lambda token=token: engine.forward([token]).argmax()))  # type: ignore[misc]
        say(f"decoding, token {len(laps)} of {DECODED}")
    used = None if meter.reason else meter.stop()
    per_token = used.joules / DECODED if used and used.joules is not None else None
    energy = Power(per_token, meter.source, used.reason if used else meter.reason)
    length, seconds, held = PROMPT, first, engine.length
    long = min(LONG, engine.context)
    if long > PROMPT and first * long / PROMPT < _PATIENCE:
        say(f"reading a prompt of {long} tokens")
        engine.truncate(0)
        seconds, length = _clocked(lambda: engine.forward(text[:long])), long
        held = max(held, long)
    middle = statistics.median(laps)
    speed = Speed(PROMPT, first, length, length / seconds, 1 / middle, 1 / max(laps), 1 / min(laps))
    return speed, energy, held


def _perplexity(engine: Engine | GpuEngine, text: list[int], say: Say) -> Interval:
    """Return the perplexity on windows of the novel, with a 95 % interval over windows."""
    length = min(LENGTH, engine.context)
    means: list[float] = []
    for row in windows(text, length, WINDOWS):
        say(f"perplexity, window {len(means) + 1} of {WINDOWS}")
        engine.truncate(0)
        likely = engine.forward(row.tolist(), every=True)[:-1].log_softmax(-1)
        means.append(float(-likely.gather(1, row[1:, None]).double().mean()))
    nll = Interval.of(means)
    return Interval(_exp(nll.mean), _exp(nll.low), _exp(nll.high))


def _exp(x: float) -> float:
    """e^x, infinite where it is too large for a float."""
    return math.inf if x > 700 else math.exp(x)


def _clocked(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def processor() -> str:
    """Return the processor's name, and on Linux its family and model, which virtual machines leave out of the name."""
    fields: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name
