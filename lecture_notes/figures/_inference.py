"""The numbers of the chapter on inference, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourbit.llm.evaluate import Interval

Data = Mapping[str, Any]
Row = dict[str, Any]

MODELS = {"Llama-2-7B": (32, 32), "Mistral-7B": (32, 8), "Qwen2.5-7B": (28, 4)}  # layers, heads of keys, 128 wide
READ = {"Llama-2-7B": 6.607e9, "Mistral-7B": 7.110e9, "Qwen2.5-7B": 7.070e9}  # weights that a token reads
WAYS = {"tt": "both by token", "ct": "keys by channel", "tc": "values by channel", "cc": "both by channel"}
ALPHAS, DRAFT_COST = (0.5, 0.7, 0.8, 0.9), 0.05
TARGET, DRAFT = (0.40, 0.25, 0.20, 0.10, 0.05), (0.20, 0.40, 0.15, 0.05, 0.20)  # two laws to be drawn
REQUESTS, SPAN, PROMPT, MOST = 12, 2.0, 64, 8


def measured() -> dict[str, Any]:
    """What measure_inference.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "inference.json").read_text(encoding="utf-8"))
    return data


def cache_bytes(name: str, bits: float = 16) -> float:
    """Bytes of keys and values for each token of a model."""
    layers, heads = MODELS[name]
    return 2 * layers * heads * 128 * bits / 8


def expected_tokens(alpha: float, guesses: int) -> float:
    """Tokens of a round of speculation."""
    return sum(alpha**i for i in range(guesses + 1))


def speedups(alpha: float, cost: float, judging: Sequence[float]) -> list[float]:
    """How many times as fast as one token a pass, for each number of guesses."""
    one = judging[0]
    return [expected_tokens(alpha, n) * one / (n * cost * one + taken) for n, taken in enumerate(judging)]


def rising(values: Sequence[float]) -> list[float]:
    """The costs if a pass may be padded: where a longer one is cheaper, that one is taken."""
    return [min(values[i:]) for i in range(len(values))]


def serve(data: Data, most: int) -> list[Row]:
    """The trace of a server with the measured costs that decodes up to `most` texts together, a simulation."""
    draw = random.Random(6)
    arrivals = sorted(SPAN * draw.random() for _ in range(REQUESTS))
    line: list[Row] = [{"arrived": t, "started": 0.0, "tokens": [], "left": draw.randint(10, 50)} for t in arrivals]
    reading = data["chunks"]["seconds"][data["chunks"]["chunks"].index(PROMPT)]
    steps = dict(zip(data["batches"]["batches"], rising(data["batches"]["64"]), strict=True))
    clock, active, done = 0.0, list[Row](), list[Row]()
    while line or active:
        if line and len(active) < most and line[0]["arrived"] <= clock:
            request = line.pop(0)
            request["started"] = clock
            clock += reading
            request["tokens"].append(clock)
            active.append(request)
        elif active:
            clock += next(cost for size, cost in steps.items() if size >= len(active))
            for request in active:
                request["tokens"].append(clock)
        else:
            clock = line[0]["arrived"]
        done += [r for r in active if len(r["tokens"]) >= r["left"]]
        active = [r for r in active if len(r["tokens"]) < r["left"]]
    return sorted(done, key=lambda r: float(r["arrived"]))


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (caches, bounds, times, rounded, waiting, speculation, sampling, windows)
    return {f"inf.{key}": text for part in parts for key, text in part(data).items()}


def caches(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in MODELS:
        key, each = name.split("-")[0].lower().replace("2.5", ""), cache_bytes(name)
        found[f"kv.{key}"] = f"{each / 1024:.0f}"
        found[f"kv.{key}.4096"] = f"{4096 * each / 1e9:.2f}"
        found[f"kv.{key}.32k"] = f"{32768 * each / 1e9:.2f}"
    tokens = READ["Llama-2-7B"] * 4.5 / 8 / cache_bytes("Llama-2-7B")
    found["cache.weights"] = f"{round(tokens, -2):,.0f}"
    found["apart"] = powers(max(data["consistency"]["apart"].values()))
    found["largest"] = f"{data['consistency']['largest']:.0f}"
    found["work.without"] = f"{512 * 513 // 2:,}"
    return found


def bounds(data: Data) -> dict[str, str]:
    """Arithmetic of the roofline: weights of w bytes, batch b, T tokens of cache each."""
    ridge_a100, ridge_laptop = 312e12 / 2039e9, 1e12 / 50e9
    found = {"ridge.laptop": f"{ridge_laptop:.0f}", "batch.laptop.4bit": f"{ridge_laptop * 0.5 / 2:.0f}"}
    found["batch.a100.16bit"] = f"{ridge_a100 * 2 / 2:.0f}"
    for name in ("Llama-2-7B", "Qwen2.5-7B"):
        key = name.split("-")[0].lower().replace("2.5", "")
        limit = 2 * READ[name] / (4096 * cache_bytes(name))
        weights = READ[name] * 4.5 / 8
        found[f"limit.{key}"] = f"{limit:.1f}" if limit < 10 else f"{limit:.0f}"
        step = weights / 50e9 * 1e3
        found[f"step.{key}"] = f"{step:.0f}"
        found[f"step.{key}.4096"] = f"{step + 4096 * cache_bytes(name) / 50e9 * 1e3:.0f}"
    prompt = 2 * READ["Llama-2-7B"] * 1000 / 1e12
    found |= {"prompt.flops": f"{prompt:.1f}", "prompt.seconds": f"{prompt:.0f}"}
    return found


def times(data: Data) -> dict[str, str]:
    places, cached, again = (data["positions"][key] for key in ("places", "cached", "again"))
    found: dict[str, str] = {}
    for place in (16, 1024):
        i = places.index(place)
        found |= {f"t.cached.{place}": f"{1e3 * cached[i]:.0f}", f"t.again.{place}": f"{1e3 * again[i]:,.0f}"}
        found[f"t.ratio.{place}"] = f"{again[i] / cached[i]:.1f}" if place < 100 else f"{again[i] / cached[i]:.0f}"
    taken = dict(zip(data["chunks"]["chunks"], data["chunks"]["seconds"], strict=True))
    found |= {f"pass.{n}": f"{1e3 * taken[n]:.0f}" for n in (1, 8, 32, 64, 256)}
    found |= {f"speed.{n}": f"{n / taken[n]:.0f}" for n in (1, 8, 32, 64, 256)}
    found["speed.gain"] = f"{256 * taken[1] / taken[256]:.0f}"
    found["flops.256"] = f"{2 * data['chunks']['weights'] * 256 / taken[256] / 1e9:.0f}"
    for context in ("64", "512"):
        steps = dict(zip(data["batches"]["batches"], data["batches"][context], strict=True))
        found[f"batch.{context}.gain"] = f"{16 * steps[1] / steps[16]:.1f}"
    return found


def rounded(data: Data) -> dict[str, str]:
    found = {}
    for key, values in data["rounded"]["kl"].items():
        bits, way = key.split()
        kl = Interval.of(values)
        found[f"kv.{bits}.{way}"] = nats(kl.mean)
    table = {key: statistics.fmean(values) for key, values in data["rounded"]["kl"].items()}
    found |= {f"kv.gain.{bits}": f"{table[f'{bits} tt'] / table[f'{bits} ct']:.1f}" for bits in (4, 3, 2)}
    found["kv.stored.token"] = f"{4 + 32 / 64:.2f}"  # heads of 64: a scale and a low for each token
    found["kv.stored.channel"] = f"{4 + 32 / 32:.2f}"  # blocks of 32 tokens
    keys = data["channels"]["keys"]
    found["kv.loudest"] = f"{max(abs(m) for m in keys[1]):.0f}"
    found["kv.spread"] = f"{statistics.median(h - low for low, h in zip(keys[0], keys[2], strict=True)):.1f}"
    return found


def waiting(data: Data) -> dict[str, str]:
    found = {"requests": f"{REQUESTS}", "most": f"{MOST}"}
    for most in (1, MOST):
        trace = serve(data, most)
        ttft = sorted(r["tokens"][0] - r["arrived"] for r in trace)
        tpot = [(r["tokens"][-1] - r["tokens"][0]) / (len(r["tokens"]) - 1) for r in trace]
        span = max(r["tokens"][-1] for r in trace) - min(r["arrived"] for r in trace)
        found[f"ttft.{most}"] = f"{ttft[math.ceil(0.9 * len(ttft)) - 1]:.1f}"
        found[f"tpot.{most}"] = f"{1e3 * statistics.fmean(tpot):.0f}"
        found[f"throughput.{most}"] = f"{sum(len(r['tokens']) for r in trace) / span:.0f}"
    return found


def speculation(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    found |= {f"tokens.0.8.{n}": f"{expected_tokens(0.8, n):.2f}" for n in (4, 8)}
    judging = rising(data["chunks"]["judging"])
    gains = {alpha: speedups(alpha, DRAFT_COST, judging) for alpha in ALPHAS}
    found["best.0.8"] = f"{gains[0.8].index(max(gains[0.8]))}"
    found |= {f"gain.{alpha}": f"{max(gains[alpha]):.2f}" for alpha in (0.5, 0.8)}
    found |= {f"judge.{n}": f"{judging[n] / judging[0]:.2f}" for n in (1, 4, 8)}
    found["overlap"] = f"{sum(map(min, TARGET, DRAFT)):.2f}"
    for name in ("20", "25", "28", "followers"):
        found[f"overlap.{name}"] = f"{statistics.fmean(data['overlaps']['overlap'][name]):.2f}"
    for name in ("repeated", "free"):
        rows = data["lookups"][name]
        found[f"lookup.{name}.passes"] = f"{statistics.fmean(r['guessed'] for r in rows):.0f}"
    repeated = data["lookups"]["repeated"]
    kept, refused = (sum(r[key] for r in repeated) for key in ("kept", "refused"))
    found["lookup.repeated.alpha"] = f"{100 * kept / (kept + refused):.0f}"
    found["lookup.plain"] = f"{repeated[0]['plain']}"
    real = data["overlaps"]["lookup"]
    found["lookup.proposed"] = f"{100 * real['proposed'] / real['places']:.0f}"
    found["lookup.right"] = f"{100 * real['right'] / real['proposed']:.0f}"
    wrong = [min(p, q) + (1 - sum(map(min, TARGET, DRAFT))) * p for p, q in zip(TARGET, DRAFT, strict=True)]
    found |= {"wrong.first": f"{wrong[0]:.3f}", "wrong.second": f"{wrong[1]:.3f}"}
    return found


def sampling(data: Data) -> dict[str, str]:
    tails = data["tails"]
    found = {f"tail.{t}": f"{100 * statistics.fmean(tails[f'tail {t}']):.0f}" for t in (0.7, 1.0, 1.5)}
    for name in ("top_p", "min_p"):
        values = sorted(tails[name])
        found |= {f"left.{name}.least": f"{values[0]:,}", f"left.{name}.most": f"{values[-1]:,}"}
        found[f"left.{name}.median"] = f"{statistics.median(values):,.0f}"
    return found


def windows(data: Data) -> dict[str, str]:
    sinks, tiles = data["sinks"], data["tiles"]
    found = {f"sink.{name}": f"{sinks[name]:.1f}" for name in ("full", "window", "one", "four")}
    found |= {"sink.width": f"{sinks['width']}", "sink.tokens": f"{sinks['tokens']}"}
    return found | {f"tiles.{name}": powers(value) for name, value in tiles.items()}


def powers(value: float) -> str:
    """A small number with one digit: 4 · 10⁻⁷ without spaces."""
    digit, power = f"{value:.0e}".split("e-")
    return f"{digit}·10⁻{str(int(power)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def nats(value: float) -> str:
    """A divergence with three significant digits, four decimals at most."""
    if value < 0.1:
        return f"{value:.4f}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"
