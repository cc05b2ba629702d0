"""What the chapter on training with few bits says in numbers, from quantization_training.json and by calculation."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ARMS = {"largest": "largest", "start": "start", "clip": "clip", "lsq": "lsq"}
TARGET, RATE = 0.3, 0.05  # the toy: a weight that should be 0.3 steps, and its rate


def measured() -> Row:
    """quantization_training.json."""
    data: Row = json.loads((Path(__file__).parent / "quantization_training.json").read_text(encoding="utf-8"))
    return data


def mean(values: list[float]) -> float:
    return statistics.fmean(values)


def signed(x: float) -> str:
    return f"{x:.1f}".replace("-", "−")


def dithering(start: float, steps: int, target: float = TARGET, rate: float = RATE) -> tuple[list[float], list[int]]:
    """A weight and its code when the loss is half the squared distance of the code from `target`, step by step."""
    weights, codes, w = [], [], start
    for _ in range(steps):
        q = math.floor(w + 0.5)
        weights.append(w)
        codes.append(q)
        w -= rate * (q - target)
    return weights, codes


def plainly(x: float) -> str:
    """Two significant digits, without a power of ten."""
    return f"{x:.{max(0, 1 - math.floor(math.log10(x)))}f}"


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    parts = (toy(), flips(), arms(), stored(), roundings(), repairs(), prices(), integers())
    return {key: text for part in parts for key, text in part.items()}


def toy() -> dict[str, str]:
    weights, codes = dithering(1.2, 4000)
    late = codes[1000:]
    return {
        "qt.toy.target": f"{TARGET:g}",
        "qt.toy.rate": f"{RATE:g}",
        "qt.toy.mean": f"{mean([float(c) for c in late]):.2f}",
        "qt.toy.low": f"{min(weights[1000:]):.3f}",
        "qt.toy.high": f"{max(weights[1000:]):.3f}",
    }


def flips() -> dict[str, str]:
    part = measured()["oscillation"]
    before, after = part["places"]
    steady, late = part["steady"]["returns"], part["late"]
    return {
        "qt.o.weights": f"{part['weights']:,}",
        "qt.o.steps": str(len(part["flips"]) + 1),
        "qt.o.peak": f"{100 * max(part['flips']):.1f}",
        "qt.o.sum": f"{100 * sum(part['flips']):.0f}",
        "qt.o.net": f"{100 * part['net']:.1f}",
        "qt.o.edge.before": f"{100 * (before[0] + before[-1]) / sum(before):.1f}",
        "qt.o.edge.after": f"{100 * (after[0] + after[-1]) / sum(after):.1f}",
        "qt.o.late.moved": f"{100 * late['moved']:.1f}",
        "qt.o.late.often": f"{100 * late['often']:.1f}",
        "qt.o.steady.moved": f"{100 * steady['moved']:.1f}",
        "qt.o.steady.often": f"{100 * steady['often']:.1f}",
        "qt.o.steady.share": f"{100 * steady['often'] / steady['moved']:.0f}",
        "qt.o.steady.low": f"{min(part['steady']['as trained']):.1f}",
        "qt.o.steady.high": f"{max(part['steady']['as trained']):.1f}",
        "qt.o.fresh.low": f"{min(part['steady']['new statistics']):.1f}",
        "qt.o.fresh.high": f"{max(part['steady']['new statistics']):.1f}",
    }


def arms() -> dict[str, str]:
    rows, other = measured()["methods"], measured()["variants"]
    found = {"qt.dense": f"{rows['dense']:.1f}", "qt.float": f"{mean(rows['float']):.1f}"}
    for bits in (4, 3, 2):
        for key, arm in ARMS.items():
            row = rows[f"{arm} {bits}"]
            found |= {
                f"qt.{key}.{bits}.before": f"{row['before']:.1f}",
                f"qt.{key}.{bits}": f"{mean(row['after']):.1f}",
            }
            found[f"qt.{key}.{bits}.spread"] = f"{max(row['after']) - min(row['after']):.1f}"
        for ours, theirs in (("lsq", "start"), ("lsq", "largest"), ("start", "largest"), ("clip", "start")):
            pair = zip(rows[f"{ours} {bits}"]["after"], rows[f"{theirs} {bits}"]["after"], strict=True)
            gains = [a - b for a, b in pair]
            key = f"qt.{ours}.{theirs}.{bits}"
            found |= {key: signed(mean(gains)), f"{key}.low": signed(min(gains)), f"{key}.high": signed(max(gains))}
        found[f"qt.loss.{bits}"] = f"{mean(rows['float']) - mean(rows[f'lsq {bits}']['after']):.1f}"
    steps = rows["lsq 2"]["steps"]
    found |= {"qt.steps.least": f"{min(steps):.2f}", "qt.steps.most": f"{max(steps):.2f}"}
    found |= {"qt.nogain": f"{mean(other['no gain']):.1f}", "qt.progressive": f"{mean(other['four, then two']):.1f}"}
    gains = [a - b for a, b in zip(other["four, then two"], rows["lsq 2"]["after"], strict=True)]
    found |= {"qt.progressive.gain": signed(mean(gains)), "qt.progressive.low": signed(min(gains))}
    found["qt.progressive.high"] = signed(max(gains))
    return found | {f"qt.gain.{n}": f"{1 / math.sqrt(2304):.3f}" for n in (2304,)}


def stored() -> dict[str, str]:
    rows = measured()["stored"]
    return {f"qt.s.{name.replace(' ', '.')}": f"{mean(row):.1f}" for name, row in rows.items()}


def roundings() -> dict[str, str]:
    part = measured()["roundings"]
    found: dict[str, str] = {}
    for bits in ("3", "2"):
        rows, first = part[bits]["rows"], part[bits]["rows"][0]
        ratios = [row["nearest"] / row["best"] for row in rows]
        unseen = [row["unseen"]["nearest"] / row["unseen"]["best"] for row in rows]
        found |= {
            f"qt.r.{bits}.nearest": f"{100 * first['nearest']:.1f}",
            f"qt.r.{bits}.best": f"{100 * first['best']:.1f}",
            f"qt.r.{bits}.better": f"{100 * first['better']:.0f}",
            f"qt.r.{bits}.better.least": f"{100 * min(row['better'] for row in rows):.1f}",
            f"qt.r.{bits}.ratio": f"{statistics.geometric_mean(ratios):.1f}",
            f"qt.r.{bits}.unseen": f"{statistics.geometric_mean(unseen):.1f}",
            f"qt.r.{bits}.against": f"{mean([float(row['against']) for row in rows]):.1f}",
        }
        found |= {f"qt.r.{bits}.acc.{kind}": f"{value:.1f}" for kind, value in part[bits]["accuracy"].items()}
    return found | {"qt.r.dense": f"{part['dense']:.1f}", "qt.r.count": f"{2**16:,}"}


def repairs() -> dict[str, str]:
    part = measured()["statistics"]
    found = {"qt.b.dense": f"{part['dense']:.1f}"}
    for bits in ("4", "3", "2"):
        for kind, value in zip(("none", "means", "both"), part[bits], strict=True):
            found[f"qt.b.{bits}.{kind}"] = f"{value:.1f}"
    return found


def prices() -> dict[str, str]:
    part = measured()["traces"]
    rows = part["rows"]
    fine = [row["trace"] / row["rise"] for row in rows if row["bits"] == 4]
    coarse = [row["trace"] / row["rise"] for row in rows if row["bits"] == 2]
    found = {f"qt.t.{name}": f"{value:.3f}" for name, value in part["trace"].items()}
    sizes = part["trace"]
    return found | {
        "qt.t.loss": f"{part['loss']:.3f}",
        "qt.t.ratio": f"{max(sizes.values()) / min(sizes.values()):.0f}",
        "qt.t.fine.least": f"{min(fine):.1f}", "qt.t.fine.most": f"{max(fine):.1f}",
        "qt.t.coarse.least": f"{min(coarse):.1f}", "qt.t.coarse.most": f"{max(coarse):.1f}",
        "qt.t.rank": f"{rank_correlation(rows):.2f}",
    }  # fmt: skip


def rank_correlation(rows: list[Row]) -> float:
    """Spearman's, of predicted and measured rises."""
    places = []
    for key in ("trace", "rise"):
        order = sorted(range(len(rows)), key=lambda i: rows[i][key])
        places.append([order.index(i) for i in range(len(rows))])
    n = len(rows)
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*places, strict=True)) / (n * (n * n - 1))


def integers() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, (worst, bound, seen, inputs) in measured()["accumulators"].items():
        for key, value in (("worst", worst), ("bound", bound), ("seen", seen)):
            found[f"qt.a.{name}.{key}"] = str(math.ceil(math.log2(value)) + 1)
        found[f"qt.a.{name}.inputs"] = f"{inputs:,}"
    for bits, share in measured()["multipliers"].items():
        found[f"qt.m.{bits}"] = plainly(100 * share)
        found[f"qt.m.{bits}.bound"] = plainly(127 * 2.0 ** -int(bits))
    return found
