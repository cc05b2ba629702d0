"""What the chapter on sparse training says in numbers, from sparse_training.json and by calculation."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourbit.models import build
from fourbit.sparsity import prunable

Row = dict[str, Any]
LAYERS = {"q": "layers.5.self_attn.q_proj", "down": "layers.15.mlp.down_proj"}
FINAL = 0.01  # the density at which schedules are compared


def measured() -> Row:
    """sparse_training.json."""
    data: Row = json.loads((Path(__file__).parent / "sparse_training.json").read_text(encoding="utf-8"))
    return data


def density(kind: str, t: float, final: float = FINAL) -> float:
    """What is left after the share t of the pruning phase, when `final` is left in the end."""
    if kind == "linear":
        return 1 - (1 - final) * t
    if kind == "cubic":
        return final + (1 - final) * (1 - t) ** 3
    return float(final**t)  # a constant share of what is left in each step


def tickets() -> list[Row]:
    rows: list[Row] = measured()["tickets"]["rows"]
    return rows


def arm(kind: str, round_: int) -> list[float]:
    """Accuracies of every seed with 2^-round of the weights left."""
    if kind == "ticket":
        return [row["ticket"][round_ - 1] for row in tickets()]
    return [row[kind][str(round_)] for row in tickets()]


def gap(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean, smallest and largest difference over the pairs."""
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    return statistics.fmean(apart), min(apart), max(apart)


def bits_per_weight(bits: float, kept: float, form: str) -> float:
    """Bits of a weight's place and value: dense, with a bitmap, or in a pattern of n of four."""
    if form == "dense":
        return bits
    return kept * bits + 1 if form == "bitmap" else kept * (bits + 2)


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    return schedules() | winners() | moving() | orders() | errors() | model() | sizes()


def schedules() -> dict[str, str]:
    odds = (1 - FINAL) / FINAL
    return {
        "st.s.geometric": f"{-math.log(FINAL):.1f}",
        "st.s.cubic.peak": f"{2 ** (2 / 3) * odds ** (1 / 3):.1f}",
        "st.s.cubic.when": f"{100 * (1 - (2 / odds) ** (1 / 3)):.0f}",
        "st.s.cubic.left": f"{100 * 3 * FINAL:.0f}",
        "st.s.linear.last": f"{100 * (1 - density('linear', 1) / density('linear', 0.95)):.0f}",
        "st.s.rounds": f"{math.log(FINAL) / math.log(0.8):.0f}",
    }


def winners() -> dict[str, str]:
    rows = tickets()
    found = {f"st.{kind}": f"{statistics.fmean(row[kind] for row in rows):.1f}" for kind in ("dense", "longer")}
    total = sum(w.numel() for w in prunable(build("S6", seed=0)).values())
    found |= {"st.weights": f"{total:,}", "st.weights.5": f"{sum(a for a, _ in rows[0]['left'].values()):,}"}
    for round_ in range(1, 6):
        found[f"st.left.{round_}"] = f"{100 / 2**round_:.3g}"
        found[f"st.ticket.{round_}"] = f"{statistics.fmean(arm('ticket', round_)):.1f}"
    for round_ in (3, 4, 5):
        for kind in ("reinit", "random", "tuned"):
            found[f"st.{kind}.{round_}"] = f"{statistics.fmean(arm(kind, round_)):.1f}"
            mean, low, high = gap(arm("ticket", round_), arm(kind, round_))
            found |= {f"st.{kind}.{round_}.gap": signed(mean), f"st.{kind}.{round_}.low": signed(low)}
            found[f"st.{kind}.{round_}.high"] = signed(high)
    for name in rows[0]["left"]:
        found[f"st.left.{name}"] = (
            f"{100 * statistics.fmean(r['left'][name][0] / r['left'][name][1] for r in rows):.0f}"
        )
    return found


def signed(x: float) -> str:
    return f"{x:.1f}".replace("-", "−")


def moving() -> dict[str, str]:
    rows = measured()["regrowing"]
    found = {"st.re.density": f"{100 * rows['density']:.3g}"}
    for key, name in (("fixed", "fixed"), ("random", "at random"), ("gradient", "by gradient")):
        found[f"st.re.{key}"] = f"{statistics.fmean(rows[name]):.1f}"
        mean, low, high = gap(rows[name], rows["fixed"])
        found |= {f"st.re.{key}.gap": signed(mean), f"st.re.{key}.low": signed(low), f"st.re.{key}.high": signed(high)}
    return found | {f"st.re.{name}": f"{100 * rows['densities'][name]:.0f}" for name in ("conv0", "fc1", "fc2")}


def orders() -> dict[str, str]:
    found: dict[str, str] = {}
    for key, part in (("24", "2:4"), ("14", "1:4")):
        rows = measured()["permutations"][part]
        closed = []
        for name, row in rows["kept"].items():
            found |= {f"st.p.{key}.{name}.{kind}": f"{100 * row[kind]:.1f}" for kind in ("given", "searched", "free")}
            found[f"st.p.{key}.{name}.gain"] = f"{100 * (row['searched'] - row['given']):.1f}"
            drawn = row["random"]
            found[f"st.p.{key}.{name}.random"] = f"{100 * (max(drawn) - min(drawn)):.1f}"
            closed.append((row["searched"] - row["given"]) / (row["free"] - row["given"]))
        found |= {f"st.p.{key}.acc.{kind}": f"{value:.1f}" for kind, value in rows["accuracy"].items()}
        found |= {f"st.p.{key}.least": f"{100 * min(closed):.0f}", f"st.p.{key}.most": f"{100 * max(closed):.0f}"}
    return found


def errors() -> dict[str, str]:
    part = measured()["errors"]
    found: dict[str, str] = {}
    for key, layer in LAYERS.items():
        for method, row in part[layer].items():
            for sparsity, error in zip(part["sparsities"], row["curve"], strict=True):
                found[f"st.e.{key}.{method}.{100 * sparsity:.0f}"] = f"{100 * error:.3g}"
            found[f"st.e.{key}.{method}.24"] = f"{100 * row['2:4']:.3g}"
        half = part["sparsities"].index(0.5)
        magnitude, wanda, surgeon = (part[layer][m]["curve"][half] for m in ("magnitude", "Wanda", "SparseGPT"))
        found |= {f"st.e.{key}.wanda": f"{magnitude / wanda:.1f}", f"st.e.{key}.surgeon": f"{wanda / surgeon:.1f}"}
    return found


def model() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, row in measured()["model"].items():
        if name == "checkpoint":
            continue
        key = name.replace(" 0.5", ".50").replace(" 2:4", ".24")
        found[f"st.m.{key}.kl"] = f"{statistics.fmean(row['kl']):.3g}"
        found[f"st.m.{key}.ppl"] = f"{math.exp(statistics.fmean(map(math.log, row['ppl']))):.1f}"
    return found


def sizes() -> dict[str, str]:
    facts = json.loads((Path(__file__).parent / "llm.json").read_text(encoding="utf-8"))["model"]
    matrices, four = facts["matrices"], 4 + 24 / 128
    found = {"st.b.matrices": f"{matrices / 1e6:.0f}"}
    cases = {
        "16": (16, 1.0, "dense"), "half": (16, 0.5, "bitmap"), "24": (16, 0.5, "n:4"),
        "four": (four, 1.0, "dense"), "half4": (4, 0.5, "bitmap"), "24.4": (4, 0.5, "n:4"),
    }  # fmt: skip
    for key, (bits, kept, form) in cases.items():
        per = bits_per_weight(bits, kept, form)
        found |= {f"st.b.{key}": f"{per:.3g}", f"st.b.{key}.mb": f"{matrices * per / 8e6:.0f}"}
        found[f"st.b.{key}.times"] = f"{16 / per:.1f}"
    return found | {
        "st.b.match": f"{100 * (1 - (four - 1) / 16):.0f}",
        "st.b.match4": f"{100 * (1 - (3 - 1) / 4):.0f}",
        "st.b.ratio": f"{bits_per_weight(16, 0.5, 'bitmap') / four:.1f}",
    }
