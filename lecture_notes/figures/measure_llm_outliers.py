"""Measure what the chapter on outliers reports, on the pocket language model, and write llm_outliers.json.

    python lecture_notes/figures/measure_llm_outliers.py [PART ...]     all parts, or these alone; the others stay

Twenty minutes of one core. The arithmetic is that of lab 04's reference solutions, whose windows of Persuasion
judge every scheme; statistics and scales come from Northanger Abbey. Rounded inputs are simulated: each matrix gets its
input rounded to the values of the grid, in float32.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _parts import MACHINE, measure
from measure_llm import LAB, Judge, Pocket, Weights, folded, inputs_of, listen, rounded, source_of

from fourbit.llm.catalog import find
from fourbit.llm.evaluate import with_weights
from fourbit.llm.model import rotate
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel

TARGET = Path(__file__).parent / "llm_outliers.json"
MANY = 12  # windows for the running means of perplexity and divergence
ALPHAS = tuple(i / 10 for i in range(11))
KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
SHOWN = "layers.15.self_attn.q_proj"
TOKENS, POOL = 48, 8  # of the surface: tokens, and neighboring channels of which the loudest is shown
MASSIVE = (11, 28, 29)  # layers whose down projection has inputs of hundreds
DIAL = (1, 2, 4, 8, 16, 32)
THRESHOLDS = (1.0, 2.0, 3.0, 6.0, 10.0, 20.0, 50.0, 100.0, math.inf)
Rounder = Callable[[str, torch.Tensor], torch.Tensor]  # name of a matrix, its input (1, T, in) -> rounded input


def on_grid(x: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Values of x rounded to 255 even steps up to `largest`, and clipped there."""
    scale = largest.clamp(min=1e-12) / 127
    return (x / scale).round().clamp(-127, 127) * scale


def by_tensor(_: str, x: torch.Tensor) -> torch.Tensor:
    return on_grid(x, x.abs().max())


def by_token(_: str, x: torch.Tensor) -> torch.Tensor:
    return on_grid(x, x.abs().amax(-1, keepdim=True))


def by_channel(_: str, x: torch.Tensor) -> torch.Tensor:
    return on_grid(x, x.abs().amax(-2, keepdim=True))


def first_apart(_: str, x: torch.Tensor) -> torch.Tensor:
    """One scale for all tokens but the first of a window, which has its own."""
    return torch.cat([by_token("", x[:, :1]), by_tensor("", x[:, 1:])], 1)


def eight(pocket: Pocket, p: Weights) -> Weights:
    """Matrices in 8 bits, symmetric, a scale for each row."""
    return p | {name: on_grid(p[name], p[name].abs().amax(1, keepdim=True)) for name in pocket.weights}


@contextlib.contextmanager
def rounding(pocket: Pocket, rounder: Rounder, only: str = "_proj") -> Iterator[None]:
    """Round the input of each matrix whose name contains `only`."""
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: (rounder(name, given[0]),))
        for name, module in pocket.llm.model.named_modules()
        if name.endswith("_proj") and only in name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def judged(judge: Judge, changed: Weights, rounder: Rounder, only: str = "_proj") -> list[float]:
    """Divergence in each window, with changed parameters and rounded inputs."""
    with rounding(judge.pocket, rounder, only):
        return judge(changed)["kl"]


def calibration(pocket: Pocket) -> Weights:
    return inputs_of(pocket, pocket.text(CALIBRATION, 8, 128))


def smoothed(pocket: Pocket, inputs: Weights, alpha: float) -> Weights:
    """All parameters with SmoothQuant's scales folded in, nothing rounded yet."""
    return folded(pocket, inputs, lambda x, matrices: pocket.lab["smooth_scales"](x, matrices, alpha))


def louder(pocket: Pocket, inputs: Weights, k: float) -> Weights:
    """All parameters with the loudest 1 % of the channels k times louder, and their weights k times smaller."""

    def scales_for(x: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
        scales = torch.ones(x.shape[1])
        scales[pocket.lab["salient_channels"](x, matrices[0], 0.01, "activation")] = 1 / k
        return scales

    return folded(pocket, inputs, scales_for)


# parts


def perplexities(pocket: Pocket) -> dict[str, Any]:
    """Perplexity by stride, and both measures window by window for three roundings."""
    tokens = torch.tensor(pocket.llm.tokenizer.encode(novel(EVALUATION)))
    strides, places = {}, [tokens[start : start + 1025] for start in (20_000, 60_000)]
    with torch.no_grad():
        for stride in (255, 192, 128, 64):
            found = [pocket.lab["perplexity"](pocket.llm.model, text, 256, stride)["perplexity"] for text in places]
            strides[str(stride)] = [round(value, 3) for value in found]
    judge = Judge(pocket, MANY, 256)
    schemes = {"reference": judge({})}
    for bits, group in ((8, 64), (4, 64), (4, 128)):
        schemes[f"{bits} {group}"] = judge(rounded(pocket, bits, group))
    return {"windows": (MANY, 256), "strides": strides, "schemes": schemes}


def surface(pocket: Pocket) -> dict[str, Any]:
    """Inputs of one matrix by token and channel, before and after smoothing; how loud channels are in all layers."""
    inputs, tokens = calibration(pocket), pocket.text(EVALUATION, 1, 256)
    names = [name for name in pocket.weights if source_of(name) == SHOWN]
    scales = pocket.lab["smooth_scales"](inputs[SHOWN], [pocket.weights[name] for name in names], 0.5)
    x = inputs_of(pocket, tokens, SHOWN)[SHOWN]
    w = torch.cat([pocket.weights[name] for name in names]).abs().amax(0)

    def pooled(values: torch.Tensor) -> list[list[float]]:
        loudest = values[:TOKENS].abs().unflatten(1, (-1, POOL)).amax(-1)
        return [[float(f"{v:.3g}") for v in row] for row in loudest.tolist()]

    def four(values: torch.Tensor) -> list[float]:
        return [float(f"{v:.4g}") for v in values.tolist()]

    return {
        "name": SHOWN,
        "before": pooled(x),
        "after": pooled(x / scales),
        "largest input": {"before": four(x.abs().amax(0)), "after": four((x / scales).abs().amax(0))},
        "largest weight": {"before": four(w), "after": four(w * scales)},
        "layers": [channel_facts(name, x) for name, x in inputs.items()],
    }


def channel_facts(name: str, x: torch.Tensor) -> dict[str, Any]:
    """How the sizes of a matrix's inputs differ between channels and between tokens."""
    size = x.abs()
    mean = size.mean(0)
    order = mean.argsort(descending=True)
    top = int(order[0])
    return {
        "name": name,
        "mean": float(f"{mean.mean():.4g}"),
        "median": float(f"{mean.median():.4g}"),
        "largest": float(f"{size.max():.5g}"),
        "loudest": order[:6].tolist(),
        "loudest over median": [round(float(mean[c] / mean.median()), 2) for c in order[:6]],
        "always loud": round(float((size[:, top] > 3 * mean.median()).double().mean()), 4),
        "token": int(size.amax(1).argmax()) % 128,
        "over 6": int((size >= 6).any(0).sum()),
        "channels": x.shape[1],
    }


def massive(pocket: Pocket) -> dict[str, Any]:
    """The residual stream by layer: its largest number, at the first token and elsewhere; attention to the first."""
    tokens, model = pocket.text(EVALUATION, 6, 256), pocket.llm.model
    states: list[list[torch.Tensor]] = [[] for _ in model.layers]
    hooks = [
        layer.register_forward_hook(lambda _, __, out, i=i: states[i].append(out[0]))
        for i, layer in enumerate(model.layers)
    ]
    with torch.no_grad():
        for row in tokens:
            model.hidden(row[None])
    for hook in hooks:
        hook.remove()
    rows = []
    for i, given in enumerate(states):
        h = torch.stack(given).abs()  # (windows, T, width)
        first, rest = h[:, 0], h[:, 1:]
        rows.append({
            "layer": i,
            "first": float(f"{first.amax(1).median():.5g}"),
            "first, least": float(f"{first.amax(1).min():.5g}"),
            "first, channels": sorted({int(c) for c in first.argmax(1)}),
            "first, second": float(f"{first.topk(2).values[:, 1].median():.5g}"),
            "rest": float(f"{rest.max():.5g}"),
            "rest over 500": texts_of(pocket, tokens[:, 1:][rest.amax(-1) > 500]),
            "rest, median": float(f"{rest.median():.4g}"),
            "attention": attention_to_first(pocket, i, tokens[:2]),
        })  # fmt: skip
    firsts = [pocket.llm.tokenizer.decode([int(row[0])]) for row in tokens]
    found: dict[str, Any] = {"windows": (6, 256), "first tokens": firsts, "layers": rows}
    found |= {"down": inputs_of_down(pocket, tokens), "sink": [sink(pocket, i, tokens) for i in (11, 15, 20)]}
    return found | {"without": interventions(pocket, rows)}


def texts_of(pocket: Pocket, tokens: torch.Tensor) -> dict[str, int]:
    """Tokens as text, and how often each occurs."""
    texts = [pocket.llm.tokenizer.decode([int(token)]) for token in tokens]
    return dict(Counter(texts).most_common(6))


def attention_to_first(pocket: Pocket, i: int, tokens: torch.Tensor) -> float:
    """Mean share of attention that tokens from the 33rd on give to the first."""
    config, attention = pocket.llm.config, pocket.llm.model.layers[i].self_attn
    x = inputs_of(pocket, tokens, f"layers.{i}.self_attn.q_proj")[f"layers.{i}.self_attn.q_proj"]
    x = x.view(len(tokens), -1, config.width)
    angles = torch.arange(x.shape[1], dtype=torch.float32)[:, None] * pocket.llm.model.turns
    with torch.no_grad():
        q, k = (
            rotate(p(x).unflatten(-1, (-1, config.head_width)).transpose(1, 2), angles)
            for p in (attention.q_proj, attention.k_proj)
        )
        scores = q @ k.repeat_interleave(attention.shared, 1).transpose(-1, -2) / math.sqrt(config.head_width)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        shares = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return round(float(shares[:, :, 32:, 0].mean()), 4)


def sink(pocket: Pocket, i: int, tokens: torch.Tensor) -> dict[str, Any]:
    """How alike the first tokens of the windows are behind the norm, and how small their values are."""
    x = inputs_of(pocket, tokens, f"layers.{i}.self_attn.q_proj")[f"layers.{i}.self_attn.q_proj"]
    value = (x @ pocket.weights[f"layers.{i}.self_attn.v_proj.weight"].T).view(len(tokens), tokens.shape[1], -1)
    x = torch.nn.functional.normalize(x.view(len(tokens), tokens.shape[1], -1), dim=-1)
    alike = [x[:, place] @ x[:, place].T for place in (0, 100)]
    cosines = [round(float(c[~torch.eye(len(c), dtype=torch.bool)].median()), 5) for c in alike]
    sizes = value.norm(dim=-1)
    return {"layer": i, "first, cosine": cosines[0], "101st, cosine": cosines[1],
            "value, over median": round(float(sizes[:, 0].mean() / sizes[:, 1:].median()), 4)}  # fmt: skip


def inputs_of_down(pocket: Pocket, tokens: torch.Tensor) -> list[dict[str, float]]:
    """The largest input of each down projection, at the first token and elsewhere."""
    rows = []
    for x in inputs_of(pocket, tokens, "down_proj").values():
        size = x.abs().view(len(tokens), -1, x.shape[1])
        rows.append({"first": float(f"{size[:, 0].max():.5g}"), "rest": float(f"{size[:, 1:].max():.5g}")})
    return rows


def interventions(pocket: Pocket, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One number of the residual stream set to zero or to a constant, where it has just appeared (Sun et al., 2024)."""
    layer = next(row["layer"] for row in rows if row["first"] > 1000)
    model, judge = pocket.llm.model, Judge(pocket, *LAB)
    found: dict[str, Any] = {"layer": layer}
    tokens, seen = pocket.text(CALIBRATION, 8, 128), []
    hook = model.layers[layer].register_forward_hook(lambda _, __, out: seen.append(out[0, 0]))
    with torch.no_grad():
        for row in tokens:
            model.hidden(row[None])
    hook.remove()
    mean = torch.stack(seen).mean(0)
    channel = int(mean.abs().argmax())
    found |= {"channel": channel, "value": float(f"{mean[channel]:.5g}")}
    found["over calibration"] = [float(f"{h[channel]:.5g}") for h in seen]

    def put(place: int, value: float, where: int) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
        def change(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[:, place, where] = value
            return out

        return change

    loud = max((c for c in range(len(mean)) if c != channel), key=lambda c: float(mean[c].abs()))
    plans = {"zero": (0, 0.0, channel), "constant": (0, float(mean[channel]), channel),
             "elsewhere": (100, 0.0, channel), "second": (0, 0.0, loud)}  # fmt: skip
    for name, plan in plans.items():
        hook = model.layers[layer].register_forward_hook(put(*plan))
        out = judge({})
        hook.remove()
        found[name], found[f"{name}, ppl"] = out["kl"], out["ppl"]
    found["none, ppl"] = judge({})["ppl"]
    return found


def granularities(pocket: Pocket) -> dict[str, Any]:
    """W8A8 by the granularity of the inputs' scales, by kinds of matrices, and with fixed scales."""
    judge, inputs = Judge(pocket, *LAB), calibration(pocket)
    w8 = eight(pocket, dict(pocket.weights))
    found: dict[str, Any] = {"windows": LAB, "W8": judge(w8)["kl"]}
    ways = {"tensor": by_tensor, "token": by_token, "channel": by_channel, "first apart": first_apart}
    found |= {name: judged(judge, w8, way) for name, way in ways.items()}
    found |= {f"tensor, {kind}": judged(judge, w8, by_tensor, kind.split(".")[1]) for kind in KINDS}
    found["tensor, all but down"] = judged(
        judge, w8, lambda name, x: x if "down" in name else by_tensor(name, x)
    )  # fmt: skip
    massive = tuple(f"layers.{i}.mlp.down_proj" for i in MASSIVE)
    for name in massive:
        found[f"tensor, {name}"] = judged(judge, w8, by_tensor, name)
    found["tensor, massive three"] = judged(
        judge, w8, lambda name, x: by_tensor(name, x) if name in massive else x
    )  # fmt: skip
    found["tensor, all but the three"] = judged(
        judge, w8, lambda name, x: x if name in massive else by_tensor(name, x)
    )  # fmt: skip
    found["zeros"] = zeros(pocket, pocket.text(EVALUATION, *LAB))
    largest = {name: x.abs().max() for name, x in inputs.items()}
    later = {name: x.view(8, 128, -1)[:, 1:].abs().max() for name, x in inputs.items()}
    found["fixed"] = judged(judge, w8, lambda name, x: on_grid(x, largest[source_of(name)]))
    found["fixed, without first"] = judged(judge, w8, lambda name, x: on_grid(x, later[source_of(name)]))
    both = sorted((float(largest[name] / later[name]) for name in largest), reverse=True)
    return found | {"first over later": [round(r, 2) for r in both[:8]]}


def clipped(pocket: Pocket) -> dict[str, Any]:
    """Nothing rounded: inputs of down cut at what later tokens reach; the feed-forward of layer 11 silent."""
    judge, inputs = Judge(pocket, *LAB), inputs_of(pocket, pocket.text(CALIBRATION, 8, 128), "down_proj")
    ends = {name: x.view(8, 128, -1)[:, 1:].abs().max() for name, x in inputs.items()}
    found: dict[str, Any] = {"windows": LAB}
    for name, layers in (("11", (11,)), ("28 and 29", (28, 29))):
        cut = {f"layers.{i}.mlp.down_proj" for i in layers}
        found[name] = judged(
            judge, {}, lambda n, x, cut=cut: x.clamp(-ends[n], ends[n]) if n in cut else x, "down_proj"
        )
    for name, silent in (("silent at the first", slice(0, 1)), ("silent elsewhere", slice(1, None))):

        def change(_: Any, __: Any, out: torch.Tensor, silent: slice = silent) -> torch.Tensor:
            out = out.clone()
            out[:, silent] = 0
            return out

        hook = pocket.llm.model.layers[11].mlp.register_forward_hook(change)
        found[name] = judge({})["kl"]
        hook.remove()
    return found


def zeros(pocket: Pocket, tokens: torch.Tensor) -> dict[str, float]:
    """Share of each matrix's inputs that become 0 with one scale for a window, the first token left out."""
    found: dict[str, list[float]] = {}

    def take(name: str, x: torch.Tensor) -> None:
        found.setdefault(name, []).append(float((by_tensor("", x)[1:] == 0).double().mean()))

    listen(pocket, tokens, take)
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def sweep(pocket: Pocket) -> dict[str, Any]:
    """SmoothQuant by alpha: weights alone, one scale for each matrix's inputs, one for each token."""
    judge, inputs = Judge(pocket, *LAB), calibration(pocket)
    found: dict[str, Any] = {"windows": LAB, "alphas": ALPHAS, "W8": [], "tensor": [], "token": []}
    for alpha in ALPHAS:
        p = eight(pocket, smoothed(pocket, inputs, alpha))
        found["W8"].append(judge(p)["kl"])
        found["tensor"].append(judged(judge, p, by_tensor))
        found["token"].append(judged(judge, p, by_token))
    short = inputs_of(pocket, pocket.text(CALIBRATION, 1, 64))
    found["64 tokens"] = judged(judge, eight(pocket, smoothed(pocket, short, 0.7)), by_tensor)
    return found


@contextlib.contextmanager
def decomposed(pocket: Pocket, threshold: float, shares: dict[str, list[float]]) -> Iterator[None]:
    """Every matrix as lab 04's int8_matmul has it, with float32 sums in the place of int32 (no int32 BLAS)."""

    def hook(module: Any, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        x, w = given[0][0], module.weight.data
        loud = (x.abs() >= threshold).any(0)
        shares.setdefault("all", []).append(float(loud.double().mean()))
        quiet_x, quiet_w = x.masked_fill(loud, 0), w.masked_fill(loud, 0)
        whole = by_token("", quiet_x) @ on_grid(quiet_w, quiet_w.abs().amax(1, keepdim=True)).T
        return (whole + x[:, loud] @ w[:, loud].T)[None]

    hooks = [m.register_forward_hook(hook) for n, m in pocket.llm.model.named_modules() if n.endswith("_proj")]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def thresholds(pocket: Pocket) -> dict[str, Any]:
    """LLM.int8 in the whole model by its threshold: divergence, and the share of channels in floating point."""
    judge, inputs = Judge(pocket, *LAB), calibration(pocket)
    x, w = inputs[SHOWN], pocket.weights[f"{SHOWN}.weight"]
    rows = []
    for threshold in THRESHOLDS:
        shares: dict[str, list[float]] = {}
        with decomposed(pocket, threshold, shares):
            kl = judge({})["kl"]
        rows.append({"threshold": str(threshold), "kl": kl, "channels": share(shares["all"])})
    exact = pocket.lab["int8_matmul"](x[:32], w, 6.0)["y"]
    with decomposed(pocket, 6.0, {}):
        ours = pocket.llm.model.get_submodule(SHOWN)(x[None, :32])[0]
    apart = float((ours - exact).abs().max() / exact.abs().max())
    return {"windows": LAB, "rows": rows, "from the lab's": float(f"{apart:.2g}")}


def share(values: list[float]) -> float:
    return round(sum(values) / len(values), 5)


def dial(pocket: Pocket) -> dict[str, Any]:
    """W8A8 by how loud the loudest 1 % of the channels are: ways of having eight bits."""
    judge, inputs = Judge(pocket, *LAB), calibration(pocket)
    found: dict[str, Any] = {"windows": LAB, "k": DIAL, "tensor": [], "token": [], "smooth": [], "mixed": [], "W8": []}
    found |= {"float": [], "shares": []}
    for k in DIAL:
        p = louder(pocket, inputs, float(k))
        with with_weights(pocket.llm.model, p):
            smooth = smoothed(pocket, calibration(pocket), 0.7)
        found["float"].append(judge(p)["kl"] if k in (1, DIAL[-1]) else None)
        found["W8"].append(judge(eight(pocket, p))["kl"])
        found["tensor"].append(judged(judge, eight(pocket, p), by_tensor))
        found["token"].append(judged(judge, eight(pocket, p), by_token))
        found["smooth"].append(judged(judge, eight(pocket, smooth), by_tensor))
        shares: dict[str, list[float]] = {}
        with decomposed(pocket, 6.0, shares):
            found["mixed"].append(judge(p)["kl"])
        found["shares"].append(share(shares["all"]))
    return found


PARTS: dict[str, Callable[[Pocket], Any]] = {
    "perplexity": perplexities,
    "surface": surface,
    "massive": massive,
    "w8a8": granularities,
    "clipped": clipped,
    "smooth": sweep,
    "mixed": thresholds,
    "dial": dial,
}


def main() -> None:
    about = {"checkpoint": find("smollm2").files[0].sha256, "machine": MACHINE}
    description = "Measure what the chapter on outliers reports."
    measure(PARTS, TARGET, about, description, lambda: (Pocket.load(),))


if __name__ == "__main__":
    main()
