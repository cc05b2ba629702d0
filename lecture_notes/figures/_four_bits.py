"""The numbers of the chapter on four bits, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fourbit.llm.catalog import find
from fourbit.llm.evaluate import Interval
from fourbit.recipes.llm_mixed import read_table

Data = Mapping[str, Any]
Row = Mapping[str, Any]


def measured() -> dict[str, Any]:
    """What measure_llm.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "llm.json").read_text(encoding="utf-8"))
    return data


def row(data: Data, method: str, bits: int, group: int | None, **more: Any) -> Row:
    """The row of the table for a scheme."""
    wanted = {"method": method, "bits": bits, "group": group} | more
    (found,) = (r for r in data["table"]["rows"] if all(r.get(key) == value for key, value in wanted.items()))
    return found


def interval(values: Sequence[float]) -> Interval:
    """The mean over windows and its 95 % interval."""
    return Interval.of(values)


def perplexity(values: Sequence[float]) -> Interval:
    """The geometric mean over windows and its 95 % interval."""
    logs = Interval.of([math.log(value) for value in values])
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))


def front(table: Data) -> list[Row]:
    """The mixtures that no cheaper one reaches, cheapest first."""
    best: list[Row] = []
    for plan in sorted(table["plans"], key=lambda plan: (plan["bytes"], plan["kl"]["evaluation"])):
        if not best or plan["kl"]["evaluation"] < best[-1]["kl"]["evaluation"]:
            best.append(plan)
    return best


def uniform(table: Data, bits: int) -> Row:
    """The mixture with the same bits everywhere."""
    return next(plan for plan in table["plans"] if set(plan["bits"].values()) == {bits})


def added(table: Data, plan: Row) -> float:
    """The sum of the divergences that the kinds have alone."""
    return sum(table["alone"]["evaluation"][kind][bits] for kind, bits in plan["bits"].items())


def spread(n: int) -> float:
    """Root mean square of the range of n independent normal numbers, in standard deviations."""
    normal = torch.distributions.Normal(0.0, 1.0)
    x = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    r = torch.linspace(0, 14, 1401, dtype=torch.float64)
    inside = (normal.cdf(x + r[:, None]) - normal.cdf(x)) ** (n - 1)  # n - 1 numbers between x and x + r
    within = n * torch.trapezoid(normal.log_prob(x).exp() * inside, x)
    return math.sqrt(float(torch.trapezoid(2 * r * (1 - within).clamp(min=0), r)))


def nats(value: float) -> str:
    """Four decimals for what is nearly nothing, three for a part of one, two beyond."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (rounding, groups, sizes, other_levels, kept, scaled, compensated, mixtures, noise)
    return {f"fb.{key}": text for part in parts for key, text in part(data).items()}


def rounding(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    eight = interval(row(data, "RTN", 8, 64)["kl"]).mean
    for bits in (8, 6, 5, 4, 3, 2):
        one = row(data, "RTN", bits, 64)
        kl = interval(one["kl"])
        found |= {f"rtn.{bits}": nats(kl.mean), f"rtn.{bits}.low": nats(kl.low), f"rtn.{bits}.high": nats(kl.high)}
        found[f"rtn.{bits}.top1"] = f"{100 * statistics.fmean(one['top1']):.0f}"
        found[f"rtn.{bits}.predicted"] = nats(eight * (255 / (2**bits - 1)) ** 2)
        found[f"rtn.{bits}.ppl"] = f"{perplexity(one['ppl']).mean:.1f}"
    reference = perplexity(data["table"]["reference"]["ppl"])
    found |= {"ppl": f"{reference.mean:.1f}", "ppl.low": f"{reference.low:.0f}", "ppl.high": f"{reference.high:.0f}"}
    found["uniform"] = nats(statistics.fmean(data["model"]["uniform"]))
    found["rtn.double"] = nats(2 * eight)
    found["rtn.step.8to4"] = f"{(255 / 15) ** 2:.0f}"
    found["rtn.step.4to3"] = f"{(15 / 7) ** 2:.1f}"
    return found


def groups(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for bits, sizes in ((4, (32, 64, 128, None)), (3, (32, 64, 128)), (2, (32, 64))):
        for group in sizes:
            one, key = row(data, "RTN", bits, group), f"g.{bits}.{group or 'row'}"
            found |= {f"{key}.error": f"{100 * one['error']:.1f}", key: nats(interval(one["kl"]).mean)}
            found[f"{key}.stored"] = f"{one['stored']:.2f}"
            if group:
                found[f"{key}.theory"] = f"{100 * spread(group) / (2**bits - 1) / math.sqrt(12):.1f}"
    found |= {f"spread.{n}": f"{spread(n):.1f}" for n in (32, 64, 128)}
    steps = (("row.128", (4, None), (4, 128)), ("128.64", (4, 128), (4, 64)), ("64.32", (4, 64), (4, 32)),
             ("bit", (4, 64), (5, 64)))  # fmt: skip
    for name, before, after in steps:
        a, b = row(data, "RTN", *before), row(data, "RTN", *after)
        decibels = 20 * math.log10(a["error"] / b["error"])
        found[f"g.price.{name}"] = f"{decibels / (b['stored'] - a['stored']):.1f}"
        found[f"g.bits.{name}"] = f"{b['stored'] - a['stored']:.2f}"
    return found


def sizes(data: Data) -> dict[str, str]:
    facts = data["model"]
    whole, inner = facts["parameters"], facts["matrices"]
    four = facts["sizes"]["4 64"]
    found = {
        "parameters": f"{whole / 1e6:.1f}",
        "matrices": f"{inner / 1e6:.1f}",
        "embedding": f"{100 * (whole - inner) / whole:.0f}",
        "size.16": f"{2 * whole / 1e6:.0f}",
        "size.4": f"{four['total'] / 1e6:.1f}",
        "size.4.matrices": f"{(four['total'] - four['rest']) / 1e6:.1f}",
        "size.rest": f"{four['rest'] / 1e6:.1f}",
        "size.ratio": f"{2 * whole / four['total']:.1f}",
        "size.bits": f"{8 * four['total'] / whole:.1f}",
    }
    return found | seven_billion() | opt()


def seven_billion() -> dict[str, str]:
    """A model of the real tier, in the lab's format: matrices at 4 bits in groups of 128, all else in 16."""
    config = find("qwen2.5-7b-instruct").config
    inner = sum(math.prod(shape) for shape in config.linears().values())
    whole = config.parameters()
    total = inner * (4 + 24 / 128) / 8 + 2 * (whole - inner)
    return {
        "vocabulary": f"{find('smollm2').config.vocabulary:,}",
        "seven.vocabulary": f"{config.vocabulary:,}",
        "seven": f"{whole / 1e9:.1f}",
        "seven.rest": f"{100 * (whole - inner) / whole:.0f}",
        "seven.16": f"{2 * whole / 1e9:.1f}",
        "seven.4": f"{total / 1e9:.1f}",
        "seven.share": f"{100 * 2 * (whole - inner) / total:.0f}",
        "seven.bits": f"{8 * total / whole:.1f}",
    }


def opt() -> dict[str, str]:
    """OPT-1.3B at 3 bits and 20 bits for each group of 128: everything counted so, and the matrices alone."""
    width, layers, ff = 2048, 24, 8192
    embeddings = (50_272 + 2_050) * width
    inner = layers * (4 * width * width + 2 * width * ff)
    small = layers * (4 * width + ff + width + 4 * width) + 2 * width  # biases and norms
    bits, whole = 3 + 20 / 128, embeddings + inner + small
    wrong, right = whole * bits / 8 / 2**20, (inner * bits + (whole - inner) * 16) / 8 / 2**20
    return {
        "opt": f"{wrong:.2f}",
        "opt.right": f"{right:.1f}",
        "opt.more": f"{100 * (right / wrong - 1):.0f}",
        "opt.embeddings": f"{100 * embeddings / whole:.0f}",
    }


def other_levels(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    names = {"even15": "even, 15", "even16": "even, 16", "nf4": "NF4", "best": "best", "double": "NF4, double"}
    for key, name in names.items():
        one = row(data, name, 4, 64)
        kl = interval(one["kl"])
        found |= {f"l.{key}": nats(kl.mean), f"l.{key}.low": nats(kl.low), f"l.{key}.high": nats(kl.high)}
        found |= {f"l.{key}.error": f"{100 * one['error']:.1f}", f"l.{key}.stored": f"{one['stored']:.3g}"}
    found["l.double.stored"] = f"{row(data, 'NF4, double', 4, 64)['stored']:.3f}"
    largest = data["levels"]["largest, standard deviations of the block"]
    p = 1 - (1 / 32 + 1 / 30) / 2
    found |= {"l.largest": f"{largest:.1f}", "l.end": f"{statistics.NormalDist().inv_cdf(p):.2f}", "l.p": f"{p:.4f}"}
    found |= {f"l.level.{i}": f"{v:.3f}".replace("-", "−") for i, v in enumerate(data["levels"]["levels"]["NF4"])}
    values = data["levels"]["values"]
    found["v.correlation"] = f"{statistics.median(r['correlation of logarithms'] for r in values):.2f}".replace(
        "-", "−"
    )
    found["v.loud"] = f"{statistics.median(r['loudest over mean'] for r in values):.2f}"
    for key, name in names.items():
        if key != "double":
            for kind in ("v", "gate"):
                rows = data["alone"]["rows"][f"{name}, {kind}_proj"]
                found[f"{kind}.alone.{key}"] = nats(statistics.fmean(rows))
            found[f"v.{key}"] = f"{100 * statistics.median(r['outputs'][name] for r in values):.1f}"
    return found


def kept(data: Data) -> dict[str, str]:
    part = data["keep"]
    found = {"k.none": nats(statistics.fmean(part["none"])), "k.loud": f"{part['loudest over mean']:.0f}"}
    for by in ("random", "weight", "activation"):
        for share, values in zip(part["shares"], part[by], strict=True):
            found[f"k.{by}.{100 * share:g}"] = nats(statistics.fmean(values))
        one = row(data, f"keep 1 %, {by}", 3, 128)
        found |= {f"k.{by}": nats(interval(one["kl"]).mean), "k.stored": f"{one['stored']:.2f}"}
    return found


def scaled(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for bits, group in ((4, 128), (4, 64), (4, 32), (3, 128), (3, 64), (3, 32), (2, 64)):
        kl, key = interval(row(data, "AWQ", bits, group)["kl"]), f"awq.{bits}.{group}"
        found |= {key: nats(kl.mean), f"{key}.low": nats(kl.low), f"{key}.high": nats(kl.high)}
        pairs = list(zip(row(data, "AWQ", bits, group)["kl"], row(data, "RTN", bits, group)["kl"], strict=True))
        ratios = [a / b for a, b in pairs]
        found |= {f"{key}.ratio": f"{kl.mean / statistics.fmean(b for _, b in pairs):.2f}"}
        found |= {f"{key}.least": f"{min(ratios):.2f}", f"{key}.most": f"{max(ratios):.2f}"}
    for kind in ("q_proj", "o_proj", "gate_proj", "down_proj"):
        rows = [r for r in data["awq"]["rows"] if (r["kind"], r["bits"]) == (kind, 4)]
        name = kind.split("_")[0]
        found[f"alpha.{name}"] = f"{statistics.median(r['alpha'] for r in rows):.2g}"
        found[f"alpha.{name}.best"] = f"{statistics.median(r['unseen'][round(20 * r['alpha'])] for r in rows):.2f}"
        found[f"alpha.{name}.half"] = f"{statistics.median(r['unseen'][10] for r in rows):.2f}"
        found[f"alpha.{name}.theory"] = f"{statistics.median(r['theory'] for r in rows):.2f}"
    for key in ("4 64", "3 128"):
        for name, values in data["roots"][key].items():
            found[f"root.{key.replace(' ', '.')}.{name}"] = nats(statistics.fmean(values))
    folded = data["awq"]["folded"]
    found["fold.difference"] = f"{folded['largest difference']:.5f}"
    return found | {"fold.logit": f"{folded['largest logit']:.0f}"}


def compensated(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for tokens, damp, skip, bits, group in (
        (2048, 0.01, 0, 4, 64), (2048, 0.01, 1, 4, 64), (16384, 0.01, 0, 4, 64), (16384, 0.1, 0, 4, 64),
        (2048, 0.01, 0, 3, 64), (16384, 0.01, 0, 3, 64), (16384, 0.1, 0, 3, 64), (2048, 0.01, 0, 4, 128),
        (2048, 0.01, 0, 3, 128),
    ):  # fmt: skip
        one = row(data, "GPTQ", bits, group, tokens=tokens, damp=damp, skip=skip)
        found[f"gptq.{bits}.{group}.{tokens}.{damp:g}{'.skip' if skip else ''}"] = nats(interval(one["kl"]).mean)
    for name, curve in data["gptq"].items():
        short, tokens = name.split(".")[-1].split("_")[0], curve["tokens"]
        found[f"curve.{short}.columns"] = f"{curve['columns']:,}"
        for damp, draws in curve["unseen"].items():
            middle = [statistics.median(draw[i] for draw in draws) for i in range(len(tokens))]
            found |= {f"curve.{short}.{damp}.{n}": f"{value:.2f}" for n, value in zip(tokens, middle, strict=True)}
            found[f"curve.{short}.{damp}.worst"] = f"{tokens[middle.index(max(middle))]:,}"
        middle = [statistics.median(values) for values in zip(*curve["seen"]["0.0001"], strict=True)]
        found |= {f"curve.{short}.seen.{n}": f"{value:.2f}" for n, value in zip(tokens, middle, strict=True)}
        found[f"curve.{short}.hessian"] = f"{curve['columns'] * (curve['columns'] + 1) // 2:,}"
    for name, values in data["domains"].items():
        if name != "windows":
            found[f"d.{name.replace(', ', '.').lower()}"] = nats(statistics.fmean(values))
    part = data["calibration"]
    names = {"RTN": "rtn", "16": "16", "64": "64", "256": "256", "1024": "1024", "random tokens": "random"}
    return found | {f"c.{key}": nats(statistics.fmean(part[name])) for name, key in names.items()}


def mixtures(data: Data) -> dict[str, str]:
    table = read_table()
    best, ratios = front(table), [plan["kl"]["evaluation"] / added(table, plan) for plan in table["plans"]]
    found = {
        "m.plans": f"{len(table['plans'])}",
        "m.front": f"{len(best)}",
        "m.ratio.least": f"{min(ratios):.2f}",
        "m.ratio.most": f"{max(ratios):.2f}",
    }
    for bits in table["choices"]:
        plan = uniform(table, bits)
        found |= {f"m.{bits}": nats(plan["kl"]["evaluation"]), f"m.{bits}.mb": f"{plan['bytes'] / 1e6:.1f}"}
        found[f"m.{bits}.sum"] = nats(added(table, plan))
    for kind, alone in table["alone"]["evaluation"].items():
        sizes = table["sizes"][kind]
        found[f"m.{kind}.mb"] = f"{sizes[4] / 1e6:.1f}"
        found |= {f"m.{kind}.{bits}": nats(kl) for bits, kl in alone.items()}
        for low, high in ((3, 4), (4, 6)):
            gain = (alone[low] - alone[high]) / (sizes[high] - sizes[low]) * 1e6
            found[f"m.{kind}.gain.{low}{high}"] = f"{gain:.3f}"
    four = uniform(table, 4)
    for name, limit in (("little", 1.015), ("more", 1.13)):
        plan = [p for p in best if p["bytes"] <= limit * four["bytes"]][-1]
        found |= {f"m.{name}": nats(plan["kl"]["evaluation"]), f"m.{name}.mb": f"{plan['bytes'] / 1e6:.1f}"}
        found[f"m.{name}.percent"] = f"{100 * (plan['bytes'] / four['bytes'] - 1):.1f}"
        found[f"m.{name}.less"] = f"{100 * (1 - plan['kl']['evaluation'] / four['kl']['evaluation']):.0f}"
    return found


def noise(data: Data) -> dict[str, str]:
    """Perplexities and divergences of two schemes, each with its interval, and of the formats of files."""
    found: dict[str, str] = {}
    for key, one in (("nf4", row(data, "NF4", 4, 64)), ("awq", row(data, "AWQ", 4, 128)),
                     ("rtn64", row(data, "RTN", 4, 64)), ("rtn128", row(data, "RTN", 4, 128))):  # fmt: skip
        ppl = perplexity(one["ppl"])
        found |= {f"p.{key}": f"{ppl.mean:.1f}", f"p.{key}.low": f"{ppl.low:.0f}", f"p.{key}.high": f"{ppl.high:.0f}"}
    for kind, bits in (("Q8_0", 8), ("Q5_0", 5), ("Q4_0", 4), ("Q4_1", 4), ("MXFP4", 4)):
        one = row(data, kind, bits, 32)
        found |= {f"f.{kind}": nats(interval(one["kl"]).mean), f"f.{kind}.stored": f"{one['stored']:g}"}
    return found
