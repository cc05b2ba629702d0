"""The numbers of the chapter on long context, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourbit.llm.config import LlmConfig
from fourbit.llm.evaluate import Interval

Data = Mapping[str, Any]

LLAMA = LlmConfig("llama", 32, 4096, 11008, 32, 32, 128, 32000, 1e4, 1e-5, False, False, 4096)
POCKET = LlmConfig("llama", 30, 576, 1536, 9, 3, 64, 49152, 1e5, 1e-5, True, False, 8192)
LENGTHS = (4096, 32_768, 131_072, 1_048_576)
POLICIES = {
    "window": "window of 256",
    "sinks 1": "1 sink + 255",
    "sinks 2": "2 sinks + 254",
    "sinks 4": "4 sinks + 252",
    "heavy": "heavy hitters",
    "pages": "256 read of all",
}


def measured() -> dict[str, Any]:
    """What measure_long_context.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "long_context.json").read_text(encoding="utf-8"))
    return data


def matrices(config: LlmConfig) -> int:
    """Weights of the matrices in the layers."""
    return sum(rows * columns for rows, columns in config.linears().values())


def mixing(config: LlmConfig) -> int:
    """Multiplications of one query with one key, and of its weight with one value, halved: L H d."""
    return config.layers * config.heads * config.head_width


def cache_bytes(config: LlmConfig) -> int:
    """Bytes of keys and values for each token, 16 bits each."""
    return 2 * config.layers * config.kv_heads * config.head_width * 2


def cost(data: Data, name: str, against: str = "dense") -> Interval:
    """Nats per token that a policy costs, paired by passage."""
    rows, base = data["policies"] | data.get("borrowed", {}), data["policies"][against]
    return Interval.of([a - b for a, b in zip(rows[name], base, strict=True)])


def turns_never_completed(config: LlmConfig) -> int:
    """Pairs of channels that do not turn once within the context that the model was trained on."""
    half = config.head_width // 2
    return sum(config.context * config.rope_theta ** (-i / half) < 2 * math.pi for i in range(half))


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (growth, attention, policies, positions, pages, needles)
    return {f"long.{key}": text for part in parts for key, text in part(data).items()}


def growth(_: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, config in (("llama", LLAMA), ("pocket", POCKET)):
        found[f"even.{name}"] = f"{matrices(config) / mixing(config):,.0f}"
        found[f"kv.{name}"] = f"{cache_bytes(config):,}"
        for count in LENGTHS:
            found[f"{name}.{count}.cache"] = gigabytes(count * cache_bytes(config))
    for count in LENGTHS:
        linear, pairs = 2 * count * matrices(LLAMA), 2 * count**2 * mixing(LLAMA)
        found[f"llama.{count}.matrices"] = flop(linear)
        found[f"llama.{count}.attention"] = flop(pairs)
        found[f"llama.{count}.share"] = f"{100 * pairs / (linear + pairs):.0f}"
    found |= {"turns.never": str(turns_never_completed(POCKET)), "turns.pairs": str(POCKET.head_width // 2)}
    found["turns.slowest"] = f"{2 * math.pi * POCKET.rope_theta ** (1 - 2 / POCKET.head_width):,.0f}"
    found["idle.score"] = f"{math.log(1000 * 99):.1f}"
    return found


def flop(value: float) -> str:
    return f"{value / 1e12:,.0f}" if value >= 1e13 else f"{value / 1e12:.1f}"


def gigabytes(value: float) -> str:
    return f"{value / 1e9:,.0f}" if value >= 1e11 else f"{value / 1e9:.1f}" if value >= 1e10 else f"{value / 1e9:.2f}"


def attention(data: Data) -> dict[str, str]:
    first = data["attention"]["first"]
    means = [statistics.fmean(row) for row in first]
    late = means[12:]
    heads = [share for row in first[12:] for share in row]
    top = sorted(((share, i, h) for i, row in enumerate(first) for h, share in enumerate(row)), reverse=True)[:2]
    return {
        "first.low": f"{100 * min(late):.0f}",
        "first.high": f"{100 * max(late):.0f}",
        "first.mean": f"{100 * statistics.fmean(late):.0f}",
        "first.11": f"{100 * means[11]:.1f}",
        "first.next": f"{100 * statistics.fmean(statistics.fmean(row) for row in data['attention']['next'][12:]):.1f}",
        "first.half": f"{sum(share > 0.5 for share in heads)}",
        "first.heads": f"{len(heads)}",
        "first.most": f"{100 * top[0][0]:.0f}",
        "first.most.layer": str(top[0][1]),
        "first.most.head": str(top[0][2]),
        "first.second": f"{100 * top[1][0]:.0f}",
        "first.second.layer": str(top[1][1]),
        "first.second.head": str(top[1][2]),
        "louder.mean": f"{1 / (1 - statistics.fmean(late)):.1f}",
        "louder.second": f"{1 / (1 - top[1][0]):.0f}",
    }


def policies(data: Data) -> dict[str, str]:
    rows = data["policies"]
    found = {f"ppl.{key(name)}": perplexity(rows[name]) for name in ("dense", *POLICIES)}
    for name in POLICIES:
        interval = cost(data, name)
        found[f"cost.{key(name)}"] = f"{interval.mean:.3f}"
        found[f"cost.{key(name)}.half"] = f"{interval.high - interval.mean:.3f}"
    found["cost.ratio"] = f"{cost(data, 'sinks 4').mean / cost(data, 'heavy').mean:.0f}"
    for name in ("another", "silent"):
        interval = cost(data, name, "sinks 4")
        found[f"over.{name}"] = f"{interval.mean:.3f}".replace("-", "−")
        found[f"over.{name}.half"] = f"{interval.high - interval.mean:.3f}"
    for name in ("dense", "window", "sinks 4"):
        found[f"anew.{key(name)}"] = perplexity(rows[f"{name}, anew"])
    found["anew.anew"] = perplexity(data["anew"]["loss"])
    found["anew.places"] = str(4 * data["anew"]["places"])
    return found


def key(name: str) -> str:
    return name.replace(" ", ".")


def perplexity(losses: Sequence[float]) -> str:
    value = math.exp(statistics.fmean(losses))
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def positions(data: Data) -> dict[str, str]:
    gaps, found = data["gaps"], {"gap.alone": perplexity([data["gaps"]["alone"]])}
    for scheme in ("plain", "interpolated", "base"):
        for gap, loss in zip(gaps["gaps"], gaps[scheme], strict=True):
            found[f"gap.{scheme}.{gap}"] = perplexity([loss])
        found[f"gap.{scheme}.context"] = perplexity([gaps[f"{scheme}, context"]])
    for far, loss in zip(data["far_sinks"]["distances"], data["far_sinks"]["loss"], strict=True):
        found[f"far.{far}"] = perplexity([loss])
    return found


def pages(data: Data) -> dict[str, str]:
    ways = data["pages"]["ways"]
    found = {f"pages.{name}": f"{100 * statistics.fmean(ways[name][2:]):.0f}" for name in WAYS}
    found |= {f"pages.{name}.recall": f"{100 * statistics.fmean(ways[f'{name}, recall'][2:]):.0f}" for name in WAYS[1:]}
    for name in ("ends", "bound"):
        found[f"pages.{name}.middle"] = f"{100 * statistics.fmean(ways[name][3:11]):.0f}"
        found[f"pages.{name}.late"] = f"{100 * statistics.fmean(ways[name][12:]):.0f}"
    return found


WAYS = ("best", "bound", "mean", "largest", "ends")


def needles(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("dense", "sinks", "heavy", "pages"):
        for distance, sure in zip(data["needle"]["distances"], data["needle"][name], strict=True):
            found[f"needle.{name}.{distance}"] = f"{100 * sure:.0f}"
    found["needle.chance"] = f"{100 / len(data['needle']['names']):.1f}"
    return found
