"""Measure what the chapter on long context reports, on the pocket language model, and write long_context.json.

    python lecture_notes/figures/measure_long_context.py [PART ...]     all parts, or these alone; the others stay

Five minutes of one core. Texts are from Persuasion; where the first tokens of another text take the place of a text's
own, they are Northanger Abbey's. Nothing is chosen by what is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _parts import MACHINE, measure
from _streaming import CHUNK, PAGE, Slots, Stream, heavy, page_bounds, quest, sinks
from torch import Tensor

from fourbit.llm.catalog import find
from fourbit.llm.evaluate import windows
from fourbit.llm.loading import Loaded, load
from fourbit.llm.model import Transformer, rotate
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel

TARGET = Path(__file__).parent / "long_context.json"
BUDGET, LENGTH, TEXTS = 256, 1024, 4  # keys in the cache, tokens of a passage, passages
SCORED = BUDGET + 2 * CHUNK  # from here on every policy has had to drop something
ANEW = range(SCORED, LENGTH - 1, 88)  # places at which the last BUDGET tokens are read anew
START = 20_000  # where passages begin that are not spread over the novel
GAPS = (0, 2048, 4096, 7168, 12_288, 20_480, 32_768)
FAR = (0, 8192, 65_536)
FACTOR = 4
NAMES = (" Oliver", " Daniel", " Helena", " Martin", " Julia", " Victor")
FACT, QUESTION = "The name of the gardener's dog is{}.", "\n\nThe name of the gardener's dog is"
DISTANCES = (64, 128, 192, 320, 384)


@dataclass(frozen=True, eq=False)
class Pocket:
    """The pocket model and the evaluation text."""

    llm: Loaded
    tokens: list[int]

    @classmethod
    def load(cls, name: str | Path = "smollm2") -> Pocket:
        llm = load(name)
        return cls(llm, llm.tokenizer.encode(novel(EVALUATION)))

    def stream(self, *given: Any, **more: Any) -> Stream:
        return Stream(self.llm.model, *given, **more)

    def passages(self) -> Tensor:
        return windows(self.tokens, LENGTH, TEXTS)


def short(values: Any, digits: int = 4) -> Any:
    """Numbers with a few significant digits, in lists as they were."""
    if isinstance(values, Tensor):
        values = values.tolist()
    return [short(v, digits) for v in values] if isinstance(values, list) else float(f"{values:.{digits}g}")


def weights_of(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """The attention (heads, T, T) of each layer for one text."""
    found = list[Tensor]()
    hidden = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
    for q, k in zip(*turned(model, tokens), strict=True):
        scores = q @ k.repeat_interleave(model.config.heads // model.config.kv_heads, 0).transpose(1, 2)
        found.append((scores / math.sqrt(model.config.head_width)).masked_fill(hidden, -math.inf).softmax(-1))
    return found


def turned(model: Transformer, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Queries (heads, T, d) and keys (kv_heads, T, d) of each layer for one text, turned by their places."""
    width = model.config.head_width
    angles = torch.arange(len(tokens), dtype=torch.float32)[:, None] * model.turns
    queries, keys = list[Tensor](), list[Tensor]()

    def take(module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
        for projection, kept in ((module.q_proj, queries), (module.k_proj, keys)):
            kept.append(rotate(projection(given[0])[0].unflatten(-1, (-1, width)).transpose(0, 1), angles))

    hooks = [layer.self_attn.register_forward_hook(take) for layer in model.layers]
    model.hidden(tokens[None])
    for hook in hooks:
        hook.remove()
    return queries, keys


# parts


def attention(pocket: Pocket) -> dict[str, Any]:
    """By layer and head: the attention from the 65th token on to the first, to the next three, to the newest 64."""
    rows = windows(pocket.tokens, 512, 2)
    shares = {
        name: torch.zeros(pocket.llm.config.layers, pocket.llm.config.heads) for name in ("first", "next", "near")
    }
    for row in rows:
        for i, a in enumerate(weights_of(pocket.llm.model, row)):
            later = a[:, 64:]
            place = torch.arange(512)
            near = place[64:, None] - place < 64
            shares["first"][i] += later[..., 0].mean(1) / len(rows)
            shares["next"][i] += later[..., 1:4].sum(-1).mean(1) / len(rows)
            shares["near"][i] += (later * near).sum(-1).mean(1) / len(rows)
    return {"windows": list(rows.shape)} | {name: short(value, 3) for name, value in shares.items()}


def policies(pocket: Pocket) -> dict[str, Any]:
    """Mean loss of each passage, from SCORED on, with at most BUDGET keys in each head; and without a limit."""
    rows, found = pocket.passages(), dict[str, Any]()
    plans: dict[str, Stream] = {"dense": pocket.stream(), "window": pocket.stream(sinks(0), BUDGET)}
    for count in (1, 2, 4):
        plans[f"sinks {count}"] = pocket.stream(sinks(count), BUDGET, cache_places=True)
    plans |= {"heavy": pocket.stream(heavy, BUDGET), "pages": pocket.stream(select=quest(BUDGET))}
    for name, stream in plans.items():
        losses = stream.losses(rows)
        found[name] = short(losses[:, SCORED:].mean(1), 6)
        found[f"{name}, anew"] = short(losses[:, list(ANEW)].mean(1), 6)
        found[f"{name}, bins"] = short(torch.stack([part.mean() for part in losses.split(64, 1)]), 5)
        print(name, found[name], flush=True)
    return {"budget": BUDGET, "chunk": CHUNK, "page": PAGE, "passages": list(rows.shape), "scored": SCORED} | found


def borrowed(pocket: Pocket) -> dict[str, Any]:
    """Four sinks and a window, as in `policies`, with the sinks' entries replaced after the first pass."""
    rows = pocket.passages()
    other = torch.tensor([pocket.llm.tokenizer.encode(novel(CALIBRATION))[START : START + CHUNK]])
    model = pocket.stream()
    model.read(other)

    def another(slots: Slots, layer: int, count: int) -> None:
        slots.keys[:, :, :count] = model.slots[layer].keys[:, :, :count]
        slots.values[:, :, :count] = model.slots[layer].values[:, :, :count]

    def silent(slots: Slots, layer: int, count: int) -> None:
        slots.values[:, :, :count] = 0

    found = {}
    for name, change in (("another", another), ("silent", silent)):
        stream = pocket.stream(sinks(4), BUDGET, cache_places=True)
        first = stream.losses(rows[:, :CHUNK])
        for layer, slots in enumerate(stream.slots):
            change(slots, layer, 4)
        losses = torch.cat([first, first[:, :1], stream.losses(rows[:, CHUNK:])], 1)
        found[name] = short(losses[:, SCORED:].mean(1), 6)
    return found


def anew(pocket: Pocket) -> dict[str, Any]:
    """The loss at the places ANEW of each passage when the last BUDGET tokens are read anew for each of them."""
    rows, places = pocket.passages(), torch.tensor(ANEW)
    texts = torch.stack([rows[:, p - BUDGET + 1 : p + 1] for p in ANEW], 1).flatten(0, 1)
    states = torch.cat([pocket.llm.model.hidden(part)[:, -1] for part in texts.split(8)])
    logs = pocket.llm.model.lm_head(states).log_softmax(-1)
    loss = -logs.gather(1, rows[:, places + 1].reshape(-1, 1)).view(TEXTS, -1)
    return {"places": len(places), "loss": short(loss.mean(1), 6)}


def slower(pocket: Pocket, scheme: str) -> Tensor:
    """The angle by which each pair turns from one token to the next, for a context FACTOR times as long."""
    turns, width = pocket.llm.model.turns, pocket.llm.config.head_width
    if scheme == "interpolated":
        return turns / FACTOR
    if scheme == "base":
        pairs = torch.arange(width // 2)
        return torch.as_tensor(turns * FACTOR ** (-2 * pairs / (width - 2)))
    return turns


def gaps(pocket: Pocket) -> dict[str, Any]:
    """Loss of 256 tokens whose context of 512 lies further and further away: the places between are left out."""
    start = START + 2000
    context, rest = torch.tensor([pocket.tokens[start : start + 768]]).split((512, 256), 1)
    found: dict[str, Any] = {"gaps": GAPS, "alone": short(float(pocket.stream().losses(rest, 256).mean()), 5)}
    for scheme in ("plain", "interpolated", "base"):
        stream = pocket.stream(turns=slower(pocket, scheme))
        own = stream.losses(context, 512)
        before = [slots.clone() for slots in stream.slots]
        row = []
        for gap in GAPS:
            stream.slots, stream.place = [slots.clone() for slots in before], 512 + gap
            row.append(float(stream.losses(rest, 256).mean()))
        found[scheme], found[f"{scheme}, context"] = short(row, 5), short(float(own[:, 128:].mean()), 5)
        print(scheme, row, flush=True)
    return found


def far_sinks(pocket: Pocket) -> dict[str, Any]:
    """Four sinks and a window with the text's positions, when what comes behind the sinks is ever further away."""
    rows, found = pocket.passages()[:1, :640], {"distances": FAR, "loss": list[Any]()}
    for far in FAR:
        stream = pocket.stream(sinks(4), BUDGET)
        stream.read(rows[:, :4])
        stream.place += far
        found["loss"].append(short(stream.losses(rows[:, 4:])[:, SCORED:].mean(), 6))
    return found


def pages(pocket: Pocket) -> dict[str, Any]:
    """Share of the attention of late queries that 16 of 124 pages hold, by how they are chosen; by layer."""
    row = torch.tensor(pocket.tokens[START : START + 2048])
    found: dict[str, Any] = {"tokens": 2048, "page": PAGE, "chosen": 16, "ways": {}}
    shared, width = pocket.llm.config.heads // pocket.llm.config.kv_heads, pocket.llm.config.head_width
    shares: dict[str, list[float]] = {}
    slack: list[float] = []
    for q, k in zip(*turned(pocket.llm.model, row), strict=True):
        q, k = q[:, -64:] / math.sqrt(width), k.repeat_interleave(shared, 0)
        old = k[:, : 2048 - 64]
        scores = q @ old.transpose(1, 2)  # (heads, 64, 1984)
        inside = scores.unflatten(-1, (-1, PAGE))
        mass = scores.softmax(-1).unflatten(-1, (-1, PAGE)).sum(-1)  # (heads, 64, pages)
        bounds, means = page_bounds(q, old), q @ old.unflatten(1, (-1, PAGE)).mean(2).transpose(1, 2)
        slack.append(float((bounds - inside.amax(-1)).min()))
        ends = torch.zeros_like(mass)
        ends[..., 0], ends[..., -15:] = 2, 1
        ways = {"best": mass, "bound": bounds, "mean": means, "largest": inside.amax(-1), "ends": ends}
        for name, value in ways.items():
            best = value.topk(16, -1).indices
            shares.setdefault(name, []).append(float(mass.gather(-1, best).sum(-1).mean()))
            if name != "best":
                same = (best[..., None] == mass.topk(16, -1).indices[..., None, :]).any(-1)
                shares.setdefault(f"{name}, recall", []).append(float(same.double().mean()))
    return found | {"ways": {name: short(values, 3) for name, values in shares.items()}, "slack": short(min(slack), 2)}


def needle(pocket: Pocket) -> dict[str, Any]:
    """Probability of the right name among six, by how many tokens lie between the sentence and the question."""
    encode, found = pocket.llm.tokenizer.encode, dict[str, Any]()
    head = pocket.tokens[START : START + 16]
    rows = torch.tensor([head + encode(FACT.format(name)) for name in NAMES])
    filler = pocket.tokens[START + 16 : START + 16 + DISTANCES[-1]]
    question, answers = torch.tensor(encode(QUESTION)).expand(len(NAMES), -1), [encode(name)[0] for name in NAMES]
    plans: dict[str, Stream] = {"dense": pocket.stream(), "sinks": pocket.stream(sinks(4), BUDGET, cache_places=True)}
    plans |= {"heavy": pocket.stream(heavy, BUDGET), "pages": pocket.stream(select=quest(BUDGET))}
    for name, stream in plans.items():
        stream.read(rows)
        at, right, sure = 0, list[float](), list[float]()
        for distance in DISTANCES:
            while at < distance:
                stream.read(torch.tensor([filler[at : at + CHUNK]]).expand(len(NAMES), -1))
                at += CHUNK
            kept, place = [slots.clone() for slots in stream.slots], stream.place
            logits = pocket.llm.model.lm_head(stream.read(question)[:, -1])[:, answers]
            right.append(float((logits.argmax(-1) == torch.arange(len(NAMES))).double().mean()))
            sure.append(float(logits.softmax(-1).diagonal().mean()))
            stream.slots, stream.place = kept, place
        found[name], found[f"{name}, right"] = short(sure), short(right)
        print(name, sure, right, flush=True)
    return {"distances": DISTANCES, "names": NAMES, "fact": rows.shape[1], "budget": BUDGET} | found


PARTS: dict[str, Callable[[Pocket], Any]] = {
    "attention": attention,
    "policies": policies,
    "needle": needle,
    "gaps": gaps,
    "pages": pages,
    "borrowed": borrowed,
    "anew": anew,
    "far_sinks": far_sinks,
}


def main() -> None:
    about = {"checkpoint": find("smollm2").files[0].sha256, "machine": MACHINE}
    description = "Measure what the chapter on long context reports."
    with torch.no_grad():
        measure(PARTS, TARGET, about, description, lambda: (Pocket.load(),))


if __name__ == "__main__":
    main()
