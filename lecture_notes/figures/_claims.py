"""The statistics of the chapter on claims, its numbers, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fourbit.measure import file_size
from fourbit.models import build

NORMAL = statistics.NormalDist()
Z = NORMAL.inv_cdf(0.975)
GRID = [-8 + 0.002 * i for i in range(8001)]
COUNTS = (1, 2, 5, 10, 20)
LAYER, MACHINE = (4096, 11_008), (100e9, 20e9)  # the layer and the machine of the chapter on measuring
IMAGES = 10_000


def measured() -> Mapping[str, Any]:
    """What measure_claims.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "claims.json").read_text(encoding="utf-8"))
    return data


# the best of several


def expected_best(k: int) -> float:
    """Mean of the largest of k standard normal numbers: the integral of x k phi(x) Phi(x)^(k - 1)."""
    return sum(x * k * NORMAL.pdf(x) * NORMAL.cdf(x) ** (k - 1) for x in GRID) * 0.002


def best_beats(k: int, gain: float) -> float:
    """Probability that the largest of k standard normal numbers exceeds one more of them by `gain`."""
    return 1 - sum(NORMAL.pdf(b) * NORMAL.cdf(b + gain) ** k for b in GRID) * 0.002


# one accuracy, two accuracies


def wilson(right: int, images: int, z: float = Z) -> tuple[float, float]:
    """Interval of a probability: the p whose own standard error reaches from p to the share that was seen."""
    share, extra = right / images, z**2 / images
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / images + extra / (4 * images))
    return middle - half, middle + half


def plain(right: int, images: int, z: float = Z) -> tuple[float, float]:
    """The usual interval, with the standard error of the share that was seen."""
    share = right / images
    half = z * math.sqrt(share * (1 - share) / images)
    return share - half, share + half


def coverage(interval: Any, p: float, images: int) -> float:
    """How often an interval contains p, by the binomial distribution itself."""
    total = 0.0
    for right in range(images + 1):
        low, high = interval(right, images)
        if low <= p <= high:
            total += math.comb(images, right) * p**right * (1 - p) ** (images - right)
    return total


def mcnemar(first: int, second: int) -> float:
    """Probability of a split at least as uneven, of images that only one network gets right, if each is a fair coin."""
    images, fewer = first + second, min(first, second)
    tail = sum(math.comb(images, i) for i in range(fewer + 1)) / 2**images
    return min(1.0, 2 * tail)


def images_unpaired(gain: float, accuracy: float = 0.9) -> int:
    """Images of each of two independent test sets, so that the interval of the difference just leaves out zero."""
    return math.ceil(2 * Z**2 * accuracy * (1 - accuracy) / gain**2)


def images_paired(gain: float, discordant: float) -> int:
    """The same for one test set, of which a share `discordant` is answered rightly by one of the networks only."""
    return math.ceil(Z**2 * (discordant - gain**2) / gain**2)


# parts and wholes


def amdahl(share: float, factor: float) -> float:
    """How many times faster a whole becomes of which a share became `factor` times faster."""
    return 1 / (1 - share + share / factor)


def layer_seconds(bits: float, batch: int) -> float:
    """Roofline of a linear layer: the later of arithmetic and traffic."""
    rows, columns = LAYER
    work, moved = 2 * batch * rows * columns, rows * columns * bits / 8 + 4 * batch * (rows + columns)
    return max(work / MACHINE[0], moved / MACHINE[1])


def batch_speedup(batch: int) -> float:
    """What 4.25 bits gain over 16 bits."""
    return layer_seconds(16, batch) / layer_seconds(4.25, batch)


# a machine that slows down


def session(order: str, runs: int = 100, drift: float = 0.08, seed: int = 3) -> list[tuple[int, str, float]]:
    """(place, contestant, milliseconds) of two equal programs on a machine that slows down by `drift`: a simulation."""
    draw, found = random.Random(seed), []
    for place in range(2 * runs):
        who = "AB"[place // runs] if order == "blocks" else "AB"[place % 2]
        slow = 1 + drift * place / (2 * runs)
        found.append((place, who, 10 * slow * (1 + 0.006 * draw.expovariate(1))))
    return found


def ratio(rows: Sequence[tuple[int, str, float]]) -> float:
    """Median of A over median of B: below one if A looks faster."""
    a, b = (statistics.median(ms for _, who, ms in rows if who == name) for name in "AB")
    return a / b


# sizes


def opt_sizes() -> dict[str, float]:
    """MiB of OPT-1.3B at 3 bits in groups of 128 with 20 bits beside each, as claimed and as it is."""
    width, layers, ff, vocabulary, places = 2048, 24, 8192, 50_272, 2050
    linear = layers * (4 * width**2 + 2 * width * ff)
    embedded = (vocabulary + places) * width
    rest = layers * (4 * width + ff + width + 4 * width) + 2 * width  # biases and norms
    bits, mib = 3 + 20 / 128, 8 * 2**20
    total = linear + embedded + rest
    return {
        "claimed": total * bits / mib, "real": (linear * bits + (embedded + rest) * 16) / mib,
        "fp32": total * (32 + 20 / 128) / mib, "fp16": total * 16 / mib, "share": 100 * embedded / total,
    }  # fmt: skip


def integer_sizes() -> tuple[int, int]:
    """Bytes of a file of T4 whose weights are whole numbers: kept in float32, and in int8."""
    state = build("T4", seed=0).state_dict()
    codes = {name: t.mul(100).round().clamp(-127, 127) if t.ndim > 1 else t for name, t in state.items()}
    packed = {name: t.to(torch.int8) if t.ndim > 1 else t for name, t in codes.items()}
    return file_size(codes).total, file_size(packed).total


# numbers


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (sizes(), mistakes(data), luck(data), intervals(), compared(data), times(), several())
    return {f"cl.{key}": text for part in parts for key, text in part.items()}


def sizes() -> dict[str, str]:
    opt, (floats, integers) = opt_sizes(), integer_sizes()
    return {
        "opt.claimed": f"{opt['claimed']:.2f}", "opt.real": f"{opt['real']:.1f}", "opt.share": f"{opt['share']:.1f}",
        "opt.more": f"{100 * (opt['real'] / opt['claimed'] - 1):.0f}",
        "opt.factor.claimed": f"{opt['fp32'] / opt['claimed']:.1f}",
        "opt.factor.real": f"{opt['fp16'] / opt['real']:.1f}",
        "bitmap": f"{23.3 + 100 / 32:.1f}", "int.floats": f"{floats:,}", "int.packed": f"{integers:,}",
    }  # fmt: skip


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values)


def mistakes(data: Mapping[str, Any]) -> dict[str, str]:
    mutants, runs = data["mutants"], data["schedule"]
    found = {
        "permuted.before": f"{data['permuted']['before']:.1f}", "permuted.after": f"{data['permuted']['after']:.1f}",
        "mutants": str(len(mutants["wrong"])), "mutants.loose": str(len(mutants["loose"])),
        "mutants.tight": str(len(mutants["tight"])), "losses": str(len(mutants["losses"])),
        "losses.positive": str(len(mutants["positive"])),
    }  # fmt: skip
    for when in ("epoch", "batch"):
        mean, spread = mean_and_spread(runs[when])
        found |= {f"schedule.{when}": f"{mean:.1f}", f"schedule.{when}.spread": f"{spread:.1f}"}
    gap = [a - b for a, b in zip(runs["epoch"], runs["batch"], strict=True)]
    return found | {"schedule.gap": f"{statistics.fmean(gap):.1f}", "schedule.least": f"{min(gap):.1f}"}


def luck(data: Mapping[str, Any]) -> dict[str, str]:
    runs = data["seeds"]["test"]
    mean, spread = mean_and_spread(runs)
    found = {
        "seeds": str(len(runs)), "seeds.mean": f"{mean:.1f}", "seeds.spread": f"{spread:.2f}",
        "seeds.low": f"{min(runs):.1f}", "seeds.high": f"{max(runs):.1f}",
        "longer": f"{statistics.fmean(data['longer']):.1f}",
        "longer.gain": f"{statistics.fmean(data['longer']) - mean:.1f}",
        "seeds.se": f"{100 * math.sqrt(mean / 100 * (1 - mean / 100) / IMAGES):.1f}",
    }  # fmt: skip
    for k in COUNTS:
        found |= {f"best.{k}": f"{expected_best(k):.2f}", f"beats.{k}": f"{100 * best_beats(k, 0):.0f}"}
        found[f"best.{k}.points"] = f"{spread * expected_best(k):.1f}"
        found[f"beats.{k}.half"] = f"{100 * best_beats(k, 0.5 / spread):.0f}"
    for row in data["seeds"]["halves"]:
        found |= {f"half.{row['k']}.{key}": f"{row[key]:.1f}" for key in ("chosen", "fresh", "all")}
    last = data["seeds"]["halves"][-1]
    found["half.gain"] = f"{last['fresh'] - last['all']:.1f}"
    return found | {"half.lost": f"{last['chosen'] - last['fresh']:.1f}"}


def intervals() -> dict[str, str]:
    found: dict[str, str] = {}
    for key, right, images in (("t4", 9047, 10_000), ("twenty", 20, 20), ("val", 1812, 2000)):
        for name, way in (("wilson", wilson), ("plain", plain)):
            low, high = way(right, images)
            found |= {f"{name}.{key}.low": f"{100 * low:.1f}", f"{name}.{key}.high": f"{100 * high:.1f}"}
    found |= {"cover.plain": f"{100 * coverage(plain, 0.98, 100):.0f}"}
    found |= {"cover.wilson": f"{100 * coverage(wilson, 0.98, 100):.0f}"}
    found["se.90"] = f"{100 * math.sqrt(0.09 / IMAGES):.1f}"
    for points in (0.3, 1.0):
        found[f"n.unpaired.{points:g}"] = f"{images_unpaired(points / 100):,}"
        for share in (1, 5, 10):
            found[f"n.paired.{points:g}.{share}"] = f"{images_paired(points / 100, share / 100):,}"
    found["power"] = f"{((Z + NORMAL.inv_cdf(0.8)) / Z) ** 2:.1f}"
    return found


def compared(data: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in data["pairs"]:
        key = f"{row['first']}.{row['second']}".replace(" ", ".")
        b, c, n = row["only_first"], row["only_second"], row["images"]
        half = 100 * Z * math.sqrt(b + c - (b - c) ** 2 / n) / n
        shares = [a / 100 for a in row["accuracy"]]
        unpaired = 100 * Z * math.sqrt(sum(p * (1 - p) for p in shares) / n)
        p = mcnemar(b, c)
        found |= {
            f"{key}.gain": f"{100 * (b - c) / n:.2f}".replace("-", "−"), f"{key}.b": str(b), f"{key}.c": str(c),
            f"{key}.half": f"{half:.2f}", f"{key}.unpaired": f"{unpaired:.2f}", f"{key}.flips": f"{b + c}",
            f"{key}.discordant": f"{100 * (b + c) / n:.1f}",
            f"{key}.p": f"{p:.2f}" if p >= 0.01 else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}",
        }  # fmt: skip
        for name, accuracy in zip((row["first"], row["second"]), row["accuracy"], strict=True):
            found[f"acc.{name.replace(' ', '.')}"] = f"{accuracy:.2f}"
    return found


def times() -> dict[str, str]:
    found = {"drift.blocks": f"{ratio(session('blocks')):.2f}", "drift.turns": f"{ratio(session('turns')):.2f}"}
    found["drift.gain"] = f"{100 * (1 / ratio(session('blocks')) - 1):.0f}"
    found |= {f"batch.{b}": f"{batch_speedup(b):.1f}" for b in (1, 2, 4, 8, 64)}
    found |= {f"amdahl.{s}.{k}": f"{amdahl(s / 100, k):.1f}" for s in (30, 60, 90) for k in (5, 10)}
    found["amdahl.60.most"] = f"{1 / 0.4:.1f}"
    found["tail.100"] = f"{100 * (1 - 0.99**100):.0f}"
    warm = [50.0] * 2 + [10.0] * 18
    return found | {"warm.mean": f"{statistics.fmean(warm):g}", "warm.median": f"{statistics.median(warm):g}"}


def several() -> dict[str, str]:
    return {
        "many.20": f"{100 * (1 - 0.95**20):.0f}", "many.5": f"{100 * (1 - 0.95**5):.0f}",
        "holm.20": f"{100 * 0.05 / 20:.2f}",
    }  # fmt: skip
