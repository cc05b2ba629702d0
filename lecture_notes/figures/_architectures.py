"""What the figures and the numbers of the chapter on architectures share, and its numbers: see values.py."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from _patches import Cost, Window, cost, windows
from _tiny_networks import EXPANSION, MIDDLE, Shape, macs, peak

from fourbit.models import build

Row = Mapping[str, Any]

PEAK, BANDWIDTH = 100e9, 20e9  # FLOP/s and byte/s of the example machine, as in the chapter on measuring
SIDE, KERNEL, CHANNELS = 14, 3, 64  # the example layer
GROUPS, REDUCTION = 4, 4  # of the grouped convolution; of the bottleneck and of squeeze-and-excitation
IMAGE_VALUES = 28 * 28
TOTAL_EXPERTS, ACTIVE_EXPERTS = 8, 2


@dataclass(frozen=True)
class Conv:
    """One convolution on a square grid, stride 1; every tensor is moved once, in float32."""

    inputs: int
    outputs: int
    kernel: int = 1
    groups: int = 1
    side: int = SIDE

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs // self.groups * self.kernel**2

    @property
    def macs(self) -> int:
        return self.side**2 * self.weights

    @property
    def activations(self) -> int:
        return self.side**2 * (self.inputs + self.outputs)

    @property
    def bytes(self) -> int:
        return 4 * (self.activations + self.weights)

    @property
    def intensity(self) -> float:
        return 2 * self.macs / self.bytes

    def seconds(self, peak_rate: float = PEAK, bandwidth: float = BANDWIDTH) -> float:
        """The bound of the roofline."""
        return max(2 * self.macs / peak_rate, self.bytes / bandwidth)


def blocks(c: int = CHANNELS, side: int = SIDE) -> dict[str, list[Conv]]:
    """Blocks from c to c channels, convolution by convolution."""
    inner, wide = c // REDUCTION, EXPANSION * c
    depthwise, point = Conv(c, c, KERNEL, c, side), Conv(c, c, side=side)
    return {
        "standard": [Conv(c, c, KERNEL, side=side)],
        "grouped": [Conv(c, c, KERNEL, GROUPS, side)],
        "depthwise": [depthwise],
        "pointwise": [point],
        "separable": [depthwise, point],
        "bottleneck": [Conv(c, inner, side=side), Conv(inner, inner, KERNEL, side=side), Conv(inner, c, side=side)],
        "inverted": [Conv(c, wide, side=side), Conv(wide, wide, KERNEL, wide, side), Conv(wide, c, side=side)],
    }


def speedup(ridge: float, c: int) -> float:
    """How much sooner the separable block may end than the standard one, on a machine with this ridge."""
    found = blocks(c)
    old, new = (sum(conv.seconds(ridge, 1.0) for conv in found[name]) for name in ("standard", "separable"))
    return old / new


def live(chain: Sequence[Window]) -> list[int]:
    """Values in memory while each layer of a plain chain runs: its input and its output."""
    sizes = [chain[0].size ** 2, *(w.out**2 * w.channels for w in chain)]
    return [a + b for a, b in pairwise(sizes)]


def patched(upto: str, parts: int) -> tuple[int, float]:
    """Peak of T4 when the layers up to `upto` run in parts x parts patches, and the share of MACs that this adds."""
    net = build("T4", seed=0)
    whole, stage = windows(net, "fc2"), windows(net, upto)
    found: Cost = cost(stage, parts)
    extra = found.macs - cost(stage, 1).macs
    return max(found.peak, *live(whole)[len(stage) :]), 100 * extra / T4_MACS


T4_MACS = 5_533_312


def measured() -> Row:
    found: Row = json.loads((Path(__file__).parent / "architectures.json").read_text(encoding="utf-8"))
    return found


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau: pairs in the same order minus pairs in the opposite order, by all pairs."""
    signs = [(a[i] - a[j]) * (b[i] - b[j]) for i, j in combinations(range(len(a)), 2)]
    return sum((s > 0) - (s < 0) for s in signs) / len(signs)


def chance(n: int) -> float:
    """Standard deviation of Kendall's tau for n items in random order."""
    return math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))


def mean(row: Row) -> float:
    return statistics.fmean(row["accuracy"])


def front(rows: Sequence[Row], price: str) -> list[Row]:
    """The rows that none cheaper in `price` reaches, cheapest first."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[price], -mean(row))):
        if not best or mean(row) > mean(best[-1]):
            best.append(row)
    return best


def middle(rows: Sequence[Row]) -> list[Row]:
    """The shapes of about 200,000 MACs."""
    return [row for row in rows if 0.75 * MIDDLE < row["macs"] < 1.25 * MIDDLE]


PROXIES = {
    "short": "one epoch",
    "macs": "MACs",
    "parameters": "parameters",
    "gradient": "gradient norm",
    "synflow": "SynFlow",
}


def taus(rows: Sequence[Row]) -> dict[str, float]:
    """Kendall's tau of each proxy with the mean accuracy, and of the two seeds with each other."""
    final = [mean(row) for row in rows]
    found = {key: kendall([row[key] for row in rows], final) for key in PROXIES}
    return found | {"seed": kendall(*zip(*(row["accuracy"] for row in rows), strict=True))}


# the numbers


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    found = layers() | scaling() | tables() | patches(data) | ranks(data) | searched(data) | weight_sharing(data)
    return {f"arch.{key}": text.replace("-", "−") for key, text in found.items()}


def layers() -> dict[str, str]:
    found: dict[str, str] = {}
    all_blocks = blocks()
    for name, convs in all_blocks.items():
        work, moved = sum(c.macs for c in convs), sum(c.bytes for c in convs)
        found |= {f"{name}.macs": f"{work:,}", f"{name}.weights": f"{sum(c.weights for c in convs):,}"}
        found |= {f"{name}.bytes": f"{moved:,}", f"{name}.intensity": f"{2 * work / moved:.1f}"}
        found[f"{name}.peak"] = f"{max(c.activations for c in convs):,}"
        found[f"{name}.us"] = f"{1e6 * sum(c.seconds() for c in convs):.0f}"
    old, new = all_blocks["standard"], all_blocks["separable"]
    fused = 4 * (2 * SIDE**2 * CHANNELS + sum(c.weights for c in new))
    found |= {
        "ratio": f"{1 / CHANNELS + 1 / KERNEL**2:.3f}",
        "gain.macs": f"{sum(c.macs for c in old) / sum(c.macs for c in new):.1f}",
        "gain.time": f"{speedup(PEAK / BANDWIDTH, CHANNELS):.1f}",
        "gain.time.153": f"{speedup(153, CHANNELS):.1f}",
        "gain.bytes": f"{sum(c.bytes for c in old) / sum(c.bytes for c in new):.1f}",
        "point.share": f"{100 * new[1].macs / sum(c.macs for c in new):.0f}",
        "fused": f"{fused:,}",
        "fused.gain": f"{sum(c.bytes for c in new) / fused:.1f}",
        "limit": f"{KERNEL**2 / 4:.2f}",
        "se.weights": f"{2 * CHANNELS**2 // REDUCTION:,}",
        "se.share": f"{100 * 2 * CHANNELS**2 // REDUCTION / new[1].macs:.2f}",
        "inverted.held": f"{SIDE**2 * CHANNELS * (2 * EXPANSION + 1):,}",
        "inverted.in_place": f"{SIDE**2 * CHANNELS * (EXPANSION + 2):,}",
    }
    return found


def scaling() -> dict[str, str]:
    """What doubling one dimension of a tiny network does."""
    base = Shape("standard", grid=14, depth=1, width=8)
    changed = {"width": Shape("standard", 14, 1, 16), "grid": Shape("standard", 28, 1, 8)}
    found = {"base.macs": f"{macs(base):,}", "base.peak": f"{peak(base):,}"}
    for name, shape in changed.items():
        found[f"double.{name}.macs"] = f"{macs(shape) / macs(base):.1f}"
        found[f"double.{name}.peak"] = f"{peak(shape) / peak(base):.1f}"
    one, two = Shape("standard", 14, 1, 8), Shape("standard", 14, 2, 8)
    return found | {
        "double.depth.macs": f"{macs(two) / macs(one):.1f}",
        "double.depth.peak": f"{peak(two) / peak(one):.1f}",
    }


def tables() -> dict[str, str]:
    """Sizes of spaces, and experts that a batch reads."""
    choices = 3 * 3  # kernel and expansion of a block
    unit = sum(choices**depth for depth in (2, 3, 4))
    space = unit**5
    found = {"ofa.unit": f"{unit:,}", "ofa.space": f"{space / 10 ** int(math.log10(space)):.1f}"}
    found["ofa.power"] = str(int(math.log10(space)))
    for batch in (1, 4, 16):
        missed = (1 - ACTIVE_EXPERTS / TOTAL_EXPERTS) ** batch
        found[f"experts.{batch}"] = f"{TOTAL_EXPERTS * (1 - missed):.1f}"
    return found | {"gqa.kv": f"{2 * 32 * 1024 * 2:,}"}


def patches(data: Row) -> dict[str, str]:
    chain = windows(build("T4", seed=0), "fc2")
    names = ("conv0", "conv1", "pool2", "conv3", "conv4", "pool5", "conv6")
    found = {f"live.{name}": f"{value:,}" for name, value in zip(names, live(chain), strict=True)}
    for upto, parts in (("pool2", 2), ("pool2", 3), ("pool2", 7), ("pool5", 2), ("pool5", 3)):
        most, extra = patched(upto, parts)
        stage = cost(windows(build("T4", seed=0), upto), parts)
        key = f"patch.{upto}.{parts}"
        found |= {key: f"{most:,}", f"{key}.stage": f"{stage.peak:,}", f"{key}.extra": f"{extra:.1f}"}
    found["patch.one"] = f"{cost(windows(build('T4', seed=0), 'pool2'), 1).peak:,}"
    found["patch.gain"] = f"{max(live(chain)) / patched('pool2', 3)[0]:.1f}"
    found["patch.difference"] = f"{max(data['patches'].values()):g}"
    fold = data["folded"]
    found |= {f"fold.{name}": f"{fold[name]:,}" for name in ("parameters", "left")}
    found |= {"fold.float32": f"{1e7 * fold['float32']:.1f}", "fold.float64": f"{1e16 * fold['float64']:.1f}"}
    return found


def ranks(data: Row) -> dict[str, str]:
    rows, cols = 256, 1152
    found = {"rank.even": str(rows * cols // (rows + cols)), "rank.sum": f"{rows + cols:,}"}
    for row in data["low_rank"]:
        rank = int(row["rank"])
        found[f"rank.{rank}.weights"] = f"{rank * (rows + cols):,}"
        found[f"rank.{rank}.fewer"] = f"{rows * cols / (rank * (rows + cols)):.0f}"
        for kind in ("weight", "output"):
            found[f"rank.{rank}.{kind}.error"] = f"{100 * row[f'{kind}.error']:.0f}"
            found[f"rank.{rank}.{kind}.out"] = f"{100 * row[f'{kind}.output_error']:.0f}"
            found[f"rank.{rank}.{kind}.accuracy"] = f"{row[f'{kind}.accuracy']:.1f}"
    return found


def searched(data: Row) -> dict[str, str]:
    rows = data["search"]
    group = middle(rows)
    found = {"search.count": str(len(rows)), "search.middle": str(len(group))}
    for prefix, chosen in (("all", rows), ("middle", group)):
        found |= {f"tau.{prefix}.{key}": f"{value:.2f}" for key, value in taus(chosen).items()}
        found[f"tau.{prefix}.chance"] = f"{chance(len(chosen)):.2f}"
    for row in rows:
        key = f"net.{row['kind']}.{row['grid']}.{row['depth']}.{row['width']}"
        found |= {key: f"{mean(row):.1f}", f"{key}.macs": f"{row['macs']:,}", f"{key}.peak": f"{row['peak']:,}"}
    found["search.best"] = f"{max(map(mean, rows)):.1f}"
    best, worst = max(group, key=mean), min(group, key=mean)
    found |= {"middle.best": f"{mean(best):.1f}", "middle.worst": f"{mean(worst):.1f}"}
    found["middle.test"] = f"{statistics.fmean(best['test']):.1f}"
    apart = [abs(row["accuracy"][0] - row["accuracy"][1]) for row in rows]
    return found | {"seeds.apart": f"{statistics.fmean(apart):.1f}", "seeds.most": f"{max(apart):.1f}"}


def weight_sharing(data: Row) -> dict[str, str]:
    rows = data["supernet"]
    alone, shared, stale = ([row[key] for row in rows] for key in ("alone", "shared", "stale"))
    best = max(rows, key=lambda row: row["shared"])
    work = [9 * (196 * a + 196 * a * b + 49 * b * c) for a, b, c in (row["widths"] for row in rows)]  # MACs
    return {
        "super.tau.macs": f"{kendall(work, alone):.2f}",
        "super.agree": f"{50 * (1 + kendall(shared, alone)):.0f}",
        "super.tau": f"{kendall(shared, alone):.2f}",
        "super.tau.stale": f"{kendall(stale, alone):.2f}",
        "super.chance": f"{chance(len(rows)):.2f}",
        "super.alone.low": f"{min(alone):.1f}",
        "super.alone.high": f"{max(alone):.1f}",
        "super.shared.low": f"{min(shared):.1f}",
        "super.shared.high": f"{max(shared):.1f}",
        "super.stale.low": f"{min(stale):.1f}",
        "super.small.alone": f"{rows[0]['alone']:.1f}",
        "super.small.shared": f"{rows[0]['shared']:.1f}",
        "super.small.stale": f"{rows[0]['stale']:.1f}",
        "super.best.alone": f"{best['alone']:.1f}",
        "super.best.possible": f"{max(alone):.1f}",
    }
