"""What the figures and the numbers of the chapter on distillation share, and its numbers: see values.py."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourbit.distillation import T_QUANTILES
from fourbit.models import build, checkpoint_record, count_parameters

Row = Mapping[str, Any]

# key of the numbers: (setting of the recipe, words in the figure)
SETTINGS = {
    "thousand": (
        "very few labels, many unlabelled images",
        "S5, 1,000 labels, 17,000 more images,\nteacher of 58,000",
    ),
    "few": ("few labels, the same images", "S5, 4,000 labels,\nteacher of 58,000"),
    "large": ("all labels, larger student", "S6, 18,000 labels,\nteacher of 58,000"),
    "small": ("all labels", "S5, 18,000 labels,\nteacher of 58,000"),
    "control": ("control: teacher with the same data", "S6, 18,000 labels,\nteacher of the same 18,000"),
    "equal": ("control: larger teacher with the same 4,000 labels", "S5, 4,000 labels,\nT4 of the same 4,000"),
    "self": ("self-distillation", "S5, 4,000 labels,\nS5 of the same 4,000"),
}

GAP = ("large", "small")  # the students whose gains the capacity gap compares


def interval_of(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval."""
    n = len(differences)
    return statistics.fmean(differences), T_QUANTILES[n - 1] * statistics.stdev(differences) / math.sqrt(n)


def interval(row: Row) -> tuple[float, float]:
    """Mean gain of the pairs and the half width of its 95 % interval, in points."""
    return interval_of([kd - ce for ce, kd in zip(row["ce"], row["kd"], strict=True)])


def best_up_to(rows: Sequence[Row]) -> list[Row]:
    """The rows that no cheaper one reaches, cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["accuracy"])):
        if not front or row["accuracy"] > front[-1]["accuracy"]:
            front.append(row)
    return front


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))
    found = pairs(data) | softened(data) | caches(data) | specialists(data) | orders(data) | fronts(data)
    found |= {f"count.{name}": f"{count_parameters(build(name, seed=0)):,}" for name in ("S6", "S5", "S3")}
    return found | teachers()


def teachers() -> dict[str, str]:
    """What the two shipped teachers reach, and for how many steps of 128 images they were trained."""
    found: dict[str, str] = {}
    for name in ("teacher60", "teacher20"):
        record = checkpoint_record(name)
        found[f"{name}.test"] = f"{100 * record.accuracy_test:.1f}"
        found[f"{name}.steps"] = f"{record.epochs * (record.images // 128):,}"
    return found


def pairs(data: Row) -> dict[str, str]:
    rows = {row["setting"]: row for row in data["lab"]["paired"]}
    found: dict[str, str] = {}
    for key, (setting, _) in SETTINGS.items():
        mean, half = interval(rows[setting])
        found |= {f"kd.{key}.gain": f"{mean:.1f}", f"kd.{key}.half": f"{half:.1f}"}
        found |= {f"kd.{key}.{arm}": f"{statistics.fmean(rows[setting][arm]):.1f}" for arm in ("ce", "kd")}
    few, spread = rows[SETTINGS["thousand"][0]], statistics.stdev
    found |= {f"kd.sd.{arm}": f"{spread(few[arm]):.2f}" for arm in ("ce", "kd")}
    found["kd.sd.gain"] = f"{spread(b - a for a, b in zip(few['ce'], few['kd'], strict=True)):.2f}"
    gains = [[b - a for a, b in zip(rows[SETTINGS[k][0]]["ce"], rows[SETTINGS[k][0]]["kd"], strict=True)] for k in GAP]
    mean, half = interval_of([a - b for a, b in zip(*gains, strict=True)])
    found |= {"kd.gap.gain": f"{mean:.1f}", "kd.gap.half": f"{half:.1f}"}
    found |= {f"kd.t.{n}": f"{T_QUANTILES[n - 1]:.2f}" for n in (2, 3, 5, 10)}
    found |= {f"kd.reach.{n}": f"{T_QUANTILES[n - 1] / math.sqrt(n):.1f}" for n in (2, 3, 5, 10)}
    return found | others(data, rows[SETTINGS["few"][0]])


def others(data: Row, few: Row) -> dict[str, str]:
    """Other temperatures, smoothed labels and feature losses, all paired with the same runs on 4,000 labels."""
    training = data["training"]
    found: dict[str, str] = {}
    arms = {f"t{t}": runs for t, runs in training["temperature"].items()}
    arms |= training["features"] | {"smoothing": training["smoothing"], "t4": few["kd"]}
    for key, runs in arms.items():
        mean, half = interval_of([b - a for a, b in zip(few["ce"], runs, strict=True)])
        found |= {f"kd.{key}.gain": f"{mean:.1f}", f"kd.{key}.half": f"{half:.1f}"}
    return found


def softened(data: Row) -> dict[str, str]:
    gradients = data["gradients"]
    found: dict[str, str] = {}
    for t, row in data["example"]["probabilities"].items():
        shown = dict(zip(data["example"]["classes"], row, strict=True))
        found |= {
            f"soft.{t}.shirt": f"{100 * shown['Shirt']:.0f}",
            f"soft.{t}.top": f"{100 * shown['T-shirt/top']:.0f}",
        }
        found[f"soft.{t}.sneaker"] = f"{100 * shown['Sneaker']:.1f}"
    size = dict(zip(gradients["temperature"], gradients["size"], strict=True))
    for t in (1, 4, 8, 64):
        found |= {f"pull.{t}": f"{size[t]:.2g}", f"pull.{t}.times": f"{size[t] * t**2:.2f}"}
    found |= {"pull.fall": f"{size[4] / size[64]:.0f}", "pull.2to8": f"{size[2] / size[8]:.1f}"}
    found["pull.below.8"] = f"{gradients['labels'][0] / size[8]:.0f}"
    found["pull.labels"] = f"{gradients['labels'][0]:.2f}"
    return found


def caches(data: Row) -> dict[str, str]:
    kept, images, vocabulary, top = data["kept"], 18_000, 128_256, 64
    return {
        "cache.dense": f"{images * 2 * 10 * 2:,}",
        "cache.top3": f"{images * 2 * 3 * (2 + 1):,}",
        "cache.first": f"{100 * kept['1'][0]:.0f}",
        "cache.kept.1": f"{100 * kept['1'][2]:.1f}",
        "cache.kept.4": f"{100 * kept['4'][2]:.0f}",
        "cache.token": f"{vocabulary * 2:,}",
        "cache.sparse": f"{top * (2 + 4):,}",
        "cache.ratio": f"{vocabulary * 2 / (top * (2 + 4)):.0f}",
    }


def specialists(data: Row) -> dict[str, str]:
    found: dict[str, str] = {}
    accuracies: dict[tuple[str, str], list[float]] = {}
    for row in data["lab"]["specialist"]:
        group = row["group"].split()[0]
        kind = "all" if row["classes_known"] == 10 else row["teacher"] or "labels"
        key = f"shop.{group}.{row['student']}.{kind}"
        found |= {key: f"{statistics.fmean(row['accuracies']):.1f}", f"{key}.bytes": f"{row['bytes']:,}"}
        if row["student"] == "S3":
            accuracies[group, kind] = row["accuracies"]
    for shop in ("footwear", "upper"):
        for key, kinds in (("lead", ("labels", "all")), ("taught", ("teacher60", "labels"))):
            arms = [accuracies[shop, kind] for kind in kinds]
            mean, half = interval_of([a - b for a, b in zip(*arms, strict=True)])
            found |= {f"shop.{shop}.{key}": f"{mean:.1f}", f"shop.{shop}.{key}.half": f"{half:.1f}"}
    return found


def orders(data: Row) -> dict[str, str]:
    rows = {" ".join(row["order"]): row for row in data["lab"]["composition"]}
    found = {f"order.{key.replace(' ', '.')}": f"{row['accuracy']:.1f}" for key, row in rows.items()}
    a, b = rows["prune quantize distill"]["accuracies"], rows["prune quantize train"]["accuracies"]
    mean, half = interval_of([x - y for x, y in zip(a, b, strict=True)])
    c = rows["quantize prune distill"]["accuracies"]
    swap, swap_half = interval_of([x - y for x, y in zip(a, c, strict=True)])
    d = rows["distill prune quantize"]["accuracies"]
    last, last_half = interval_of([x - y for x, y in zip(a, d, strict=True)])
    worst = rows["distill quantize prune"]["accuracies"]
    return found | {
        "order.bytes": f"{rows['prune quantize distill']['bytes']:,}",
        "order.teacher": f"{mean:.1f}".replace("-", "−"),
        "order.teacher.half": f"{half:.1f}",
        "order.last": f"{last:.1f}",
        "order.last.half": f"{last_half:.1f}",
        "order.worst.low": f"{min(worst):.0f}",
        "order.worst.high": f"{max(worst):.0f}",
        "order.swap": f"{swap:.1f}",
        "order.swap.half": f"{swap_half:.1f}",
    }


def fronts(data: Row) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, distilled in (("taught", True), ("alone", False)):
        front = best_up_to([row for row in data["lab"]["front"] if row["distilled"] is distilled])
        for limit in (5, 10, 30):
            best = [row for row in front if row["bytes"] <= 1000 * limit][-1]
            key = f"front.{name}.{limit}"
            found |= {key: f"{best['accuracy']:.1f}", f"{key}.bytes": f"{best['bytes']:,}"}
            found |= {f"{key}.net": best["student"], f"{key}.bits": f"{best['bits']}"}
            found[f"{key}.zeros"] = f"{100 * best['sparsity']:.0f}"
    for network in ("S6", "S5", "S3"):
        arms = [
            {(row["bits"], row["sparsity"]): row["accuracy"] for row in data["lab"]["front"]
             if row["student"] == network and row["distilled"] is distilled and row["bits"] > 2}
            for distilled in (True, False)
        ]  # fmt: skip
        found[f"front.gain.{network}"] = f"{statistics.fmean(arms[0][key] - arms[1][key] for key in arms[1]):.1f}"
    error = 100 * math.sqrt(0.91 * 0.09 / 2000)  # of one accuracy near the top of the front, on the validation images
    return found | {"front.count": f"{len(data['lab']['front'])}", "se.val": f"{error:.1f}"}
