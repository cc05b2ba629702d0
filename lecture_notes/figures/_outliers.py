"""The numbers of the chapter on outliers, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourbit.llm.evaluate import Interval

Data = Mapping[str, Any]


def measured() -> dict[str, Any]:
    """What measure_llm_outliers.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "llm_outliers.json").read_text(encoding="utf-8"))
    return data


def interval(values: Sequence[float]) -> Interval:
    """The mean over windows and its 95 % interval."""
    return Interval.of(values)


def perplexity(values: Sequence[float]) -> Interval:
    """The geometric mean over windows and its 95 % interval."""
    logs = Interval.of([math.log(value) for value in values])
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))


def paired(changed: Sequence[float], reference: Sequence[float]) -> Interval:
    """The difference of the mean negative log-likelihoods, from the perplexities of the same windows."""
    return Interval.of([math.log(a / b) for a, b in zip(changed, reference, strict=True)])


def loudness(data: Data, kind: str) -> list[Mapping[str, Any]]:
    """How loud the channels are that matrices of a kind read, by layer."""
    return [row for row in data["surface"]["layers"] if row["name"].endswith(kind)]


def nats(value: float) -> str:
    """Four decimals for what is nearly nothing, three for a part of one, two beyond."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (judged, channels, massive, eight_bits, smoothing, decomposition, dialed)
    return {f"out.{key}": text for part in parts for key, text in part(data).items()}


def judged(data: Data) -> dict[str, str]:
    part = data["perplexity"]
    found = {f"stride.{s}": f"{math.sqrt(math.prod(v)):.1f}" for s, v in part["strides"].items()}
    found["stride.more"] = f"{100 * (math.sqrt(math.prod(part['strides']['255'])) / float(found['stride.64']) - 1):.0f}"
    reference = part["schemes"]["reference"]
    six = perplexity(data["massive"]["without"]["none, ppl"])
    found |= {"six": f"{six.mean:.1f}", "six.low": f"{six.low:.0f}", "six.high": f"{six.high:.0f}"}
    for key, one in part["schemes"].items():
        name, ppl, kl = key.replace(" ", "."), perplexity(one["ppl"]), interval(one["kl"])
        found |= {f"ppl.{name}": f"{ppl.mean:.1f}", f"ppl.{name}.low": f"{ppl.low:.1f}"}
        found[f"ppl.{name}.high"] = f"{ppl.high:.1f}"
        if key == "reference":
            continue
        apart = paired(one["ppl"], reference["ppl"])
        found |= {f"kl.{name}": nats(kl.mean), f"kl.{name}.half": nats(kl.high - kl.mean)}
        found |= {f"nll.{name}": signed(apart.mean), f"nll.{name}.half": nats(apart.high - apart.mean)}
        found[f"better.{name}"] = str(sum(a < b for a, b in zip(one["ppl"], reference["ppl"], strict=True)))
    pairs = [part["schemes"][f"4 {g}"]["kl"] for g in (64, 128)]
    apart = Interval.of([b - a for a, b in zip(*pairs, strict=True)])
    found |= {"kl.apart": nats(apart.mean), "kl.apart.half": nats(apart.high - apart.mean)}
    found["kl.won"] = str(sum(a < b for a, b in zip(*pairs, strict=True)))
    apart = paired(part["schemes"]["4 128"]["ppl"], part["schemes"]["4 64"]["ppl"])
    return found | {"nll.apart": signed(apart.mean), "nll.apart.half": nats(apart.high - apart.mean)}


def signed(value: float) -> str:
    return nats(value) if value >= 0 else "−" + nats(-value)


def channels(data: Data) -> dict[str, str]:
    surface = data["surface"]
    (row,) = (r for r in surface["layers"] if r["name"] == surface["name"])
    found = {"loud": f"{row['loudest over median'][0]:.0f}", "loud.channel": str(row["loudest"][0])}
    found |= {f"loud.{i}": f"{value:.0f}" for i, value in enumerate(row["loudest over median"])}
    found["always"] = f"{100 * row['always loud']:.0f}"
    for kind in ("q_proj", "gate_proj"):
        rows = loudness(data, kind)[1:]
        counts = Counter(channel for r in rows for channel in r["loudest"])
        short = kind.split("_")[0]
        found |= {f"{short}.often.{i}": str(c) for i, (c, _) in enumerate(counts.most_common(5))}
        found |= {f"{short}.times.{i}": str(n) for i, (_, n) in enumerate(counts.most_common(5))}
        ratios = [r["loudest over median"][0] for r in rows]
        found |= {f"{short}.least": f"{min(ratios):.0f}", f"{short}.most": f"{max(ratios):.0f}"}
    found["layers"] = str(len(loudness(data, "q_proj")) - 1)
    for kind in ("q_proj", "o_proj", "gate_proj", "down_proj"):
        rows = loudness(data, kind)
        found[f"six.{kind.split('_')[0]}"] = (
            f"{100 * sum(r['over 6'] for r in rows) / sum(r['channels'] for r in rows):.1f}"
        )
    for part, name in (("largest input", "input"), ("largest weight", "weight")):
        for when in ("before", "after"):
            values = surface[part][when]
            found[f"{name}.{when}"] = f"{max(values):.1f}"
            found[f"{name}.{when}.bits"] = f"{math.log2(max(values) / statistics.median(values)):.1f}"
            found[f"{name}.{when}.ratio"] = f"{max(values) / statistics.median(values):.1f}"
    return found


def massive(data: Data) -> dict[str, str]:
    part = data["massive"]
    rows, without = part["layers"], part["without"]
    found: dict[str, str] = {}
    for row in rows:
        i = row["layer"]
        found |= {f"h.{i}": f"{row['first']:,.0f}", f"h.{i}.rest": f"{row['rest']:,.0f}"}
        share = 100 * row["attention"]
        found |= {
            f"sink.{i}": f"{share:.0f}" if share > 1 else f"{share:.1f}",
            f"h.{i}.median": f"{row['rest, median']:.1f}",
        }
    found |= {f"down.{i}": f"{row['first']:,.0f}" for i, row in enumerate(part["down"])}
    found |= {f"down.{i}.rest": f"{row['rest']:.1f}" for i, row in enumerate(part["down"])}
    found["channel"] = str(without["channel"])
    found["ratio"] = f"{rows[15]['first'] / rows[15]['rest, median']:,.0f}"
    over = without["over calibration"]
    found |= {"value": f"{mean(over):,.0f}", "value.spread": f"{100 * statistics.stdev(over) / abs(mean(over)):.0f}"}
    for name in ("zero", "constant", "elsewhere", "second"):
        found |= {name: nats(mean(without[name])), f"{name}.ppl": f"{perplexity(without[f'{name}, ppl']).mean:,.0f}"}
    found["none.ppl"] = f"{perplexity(without['none, ppl']).mean:,.0f}"
    for row in part["sink"]:
        key = f"sink.{row['layer']}"
        found |= {f"{key}.alike": f"{row['first, cosine']:.4f}", f"{key}.usual": f"{row['101st, cosine']:.2f}"}
        found[f"{key}.value"] = f"{100 * row['value, over median']:.0f}"
    late = [100 * row["attention"] for row in rows[12:]]
    return found | {"sink.low": f"{min(late):.0f}", "sink.high": f"{max(late):.0f}"}


def eight_bits(data: Data) -> dict[str, str]:
    part = data["w8a8"]
    names = {"W8": "w8", "tensor": "tensor", "token": "token", "channel": "channel", "first apart": "apart",
             "fixed": "fixed", "fixed, without first": "fixed.later", "tensor, massive three": "three",
             "tensor, all but the three": "rest", "tensor, all but down": "no.down"}  # fmt: skip
    found = {f"w8a8.{key}": nats(mean(part[name])) for name, key in names.items()}
    for kind in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        found[f"w8a8.{kind.split('.')[1].split('_')[0]}"] = nats(mean(part[f"tensor, {kind}"]))
    for i in (11, 28, 29):
        name = f"layers.{i}.mlp.down_proj"
        found |= {f"w8a8.{i}": nats(mean(part[f"tensor, {name}"])), f"zeros.{i}": f"{100 * part['zeros'][name]:.1f}"}
        found[f"step.{i}"] = f"{data['massive']['down'][i]['first'] / 127:.1f}"
    names = {"11": "11", "28 and 29": "28", "silent at the first": "first", "silent elsewhere": "silent"}
    found |= {f"clipped.{key}": nats(mean(data["clipped"][name])) for name, key in names.items()}
    found["zeros.15"] = f"{100 * part['zeros']['layers.15.mlp.down_proj']:.0f}"
    whole, w8 = mean(part["token"]), mean(part["W8"])
    found["columns"] = f"{(2**31 - 1) // 127**2:,}"
    return found | {"w8a8.times": f"{mean(part['tensor']) / whole:.0f}", "w8a8.over": f"{whole / w8:.0f}"}


def smoothing(data: Data) -> dict[str, str]:
    part = data["smooth"]
    found: dict[str, str] = {}
    for name in ("W8", "tensor", "token"):
        means = [mean(values) for values in part[name]]
        found |= {f"alpha.{name}.{a:g}": nats(v) for a, v in zip(part["alphas"], means, strict=True)}
        best = means.index(min(means))
        found |= {f"alpha.{name}": f"{part['alphas'][best]:g}", f"alpha.{name}.best": nats(means[best])}
    found["alpha.short"] = nats(mean(part["64 tokens"]))
    tensor, token = data["w8a8"]["tensor"], data["w8a8"]["token"]
    found["alpha.gain"] = f"{mean(tensor) / float(found['alpha.tensor.best']):.0f}"
    return found | {"alpha.gain.token": f"{mean(token) / float(found['alpha.token.best']):.1f}"}


def decomposition(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in data["mixed"]["rows"]:
        key = f"t.{float(row['threshold']):g}"
        percent = 100 * row["channels"]
        found |= {key: nats(mean(row["kl"])), f"{key}.share": f"{percent:.2f}" if percent < 1 else f"{percent:.1f}"}
    return found


def dialed(data: Data) -> dict[str, str]:
    part = data["dial"]
    found: dict[str, str] = {}
    for name in ("W8", "tensor", "token", "smooth", "mixed"):
        found |= {f"dial.{name}.{k}": nats(mean(v)) for k, v in zip(part["k"], part[name], strict=True)}
    found |= {f"dial.share.{k}": f"{100 * s:.1f}" for k, s in zip(part["k"], part["shares"], strict=True)}
    limit = 1e-7
    assert max(map(abs, part["float"][-1])) < limit
    return found | {"dial.float": f"{limit:.7f}"}
