"""Measure what the chapter on training with few bits reports, and write quantization_training.json.

    python lecture_notes/figures/measure_quantization_training.py [PART ...]     all, or these alone; the others stay

About four minutes of one core. The network is the course's s5, trained on through the rounding with the first 6,000
images of fashion-20k for two epochs; every arm of a seed sees the same images in the same order. Accuracies are of all
test images; nothing is chosen by them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _parts import measure
from measure_pruning import percent, refreshed
from measure_quantization import activations, reference, replaced, to_integers
from torch import nn
from torch.nn.utils import parametrize

from fourbit.data import load, to_float
from fourbit.data.assets import find_asset
from fourbit.models import build, load_checkpoint
from fourbit.quantization import run_integer
from fourbit.sparsity import prunable
from fourbit.training import fit, predict_logits

TARGET = Path(__file__).parent / "quantization_training.json"
SEEDS = (0, 1, 2)
IMAGES, EPOCHS, RATE = 6000, 2, 0.02
WIDTHS = (4, 3, 2)
Weights = dict[str, torch.Tensor]


# grids whose steps learn


def through(x: torch.Tensor) -> torch.Tensor:
    """The nearest integer, with the gradient of x."""
    return x + (x.round() - x).detach()


class Step(nn.Module):
    """Values on a grid between low and high steps. The step is learned if `learn`; its gradient is scaled by `gain`."""

    def __init__(self, step: float, low: int, high: int, *, learn: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(step), requires_grad=learn)
        self.low, self.high, self.gain = low, high, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.step * self.gain + (self.step - self.step * self.gain).detach()
        return through((x / step).clamp(self.low, self.high)) * step

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        return (x / self.step).round().clamp(self.low, self.high).detach()


class Clip(nn.Module):
    """Activations between 0 and a learned end: the slope towards the end is 1 beyond it and 0 inside (PACT)."""

    def __init__(self, end: float, high: int, gain: float) -> None:
        super().__init__()
        self.end, self.high, self.gain = nn.Parameter(torch.tensor(end)), high, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = self.end * self.gain + (self.end - self.end * self.gain).detach()
        clipped = torch.minimum(x.clamp(min=0), end)
        step = (self.end / self.high).detach()
        return clipped + (step * (clipped / step).round() - clipped).detach()


def lsq_start(x: torch.Tensor, high: int) -> float:
    """Esser et al.'s first step: twice the mean magnitude over the root of the largest code."""
    return float(2 * x.abs().mean() / math.sqrt(high))


def with_bits(model: nn.Sequential, bits: int, arm: str) -> nn.Sequential:
    """Weights of every layer and activations behind every ReLU on grids of `bits` bits.

    Arms: "largest" (steps from the largest values), "start" (LSQ's first steps, fixed), "clip" (the same, but the
    end of activations is learned), "lsq" (all steps learned), "lsq, no gain" (without the scale of the gradient).
    """
    seen, net = activations(model, to_float(load("fashion-20k").train.x[:256])), nn.Sequential()
    limit, high, owner = 2 ** (bits - 1), 2**bits - 1, ""
    learn = arm.startswith("lsq")
    for name, layer in copy.deepcopy(model).named_children():
        net.add_module(name, layer)
        if name in prunable(model):
            w, owner = prunable(model)[name], name
            step = float(w.abs().max()) / (limit - 1) if arm == "largest" else lsq_start(w, limit - 1)
            gain = 1 / math.sqrt(w.numel() * (limit - 1)) if arm == "lsq" else 1.0
            part = Step(step, -limit, limit - 1, learn=learn, gain=gain)
            parametrize.register_parametrization(layer, "weight", part)
        elif isinstance(layer, nn.ReLU):
            x = seen[owner]
            gain = 1 / math.sqrt(x[0].numel() * high) if arm != "lsq, no gain" else 1.0
            step = float(x.max()) / high if arm == "largest" else lsq_start(x, high)
            grid: nn.Module = (
                Clip(float(x.max()), high, gain) if arm == "clip" else Step(step, 0, high, learn=learn, gain=gain)
            )
            net.add_module(f"{name}_grid", grid)
    return net.eval()


def tune(net: nn.Sequential, seed: int, *, epochs: int = EPOCHS, lr: float = RATE, after: Any = None) -> nn.Sequential:
    fit(net, load("fashion-20k").train[:IMAGES], epochs=epochs, lr=lr, weight_decay=0.0, seed=seed, after_step=after)
    return net


def steps_of(net: nn.Sequential) -> list[float]:
    return [float(part.step) for part in net.modules() if isinstance(part, Step)]


def methods() -> dict[str, Any]:
    """Accuracy after the same two epochs: every arm, width and seed; before training; and steps before and after."""
    test, model = load("fashion-20k").test, load_checkpoint("s5")
    rows: dict[str, Any] = {"dense": percent(model, test)}
    rows["float"] = [percent(tune(copy.deepcopy(model), seed), test) for seed in SEEDS]
    for bits in WIDTHS:
        for arm in ("largest", "start", "clip", "lsq"):
            net = with_bits(model, bits, arm)
            row: dict[str, Any] = {"before": percent(net, test), "after": []}
            for seed in SEEDS:
                after = tune(copy.deepcopy(net), seed)
                row["after"].append(percent(after, test))
            if arm == "lsq":
                row["steps"] = [b / a for a, b in zip(steps_of(net), steps_of(after), strict=True)]
            rows[f"{arm} {bits}"] = row
            print(bits, arm, row, flush=True)
    return rows


def variants() -> dict[str, Any]:
    """At two bits: LSQ without the scale of its gradient, and one epoch of four bits before one of two."""
    test, model = load("fashion-20k").test, load_checkpoint("s5")
    rows: dict[str, Any] = {"no gain": [], "four, then two": []}
    for seed in SEEDS:
        try:
            rows["no gain"].append(percent(tune(with_bits(model, 2, "lsq, no gain"), seed), test))
        except ArithmeticError:
            rows["no gain"].append(10.0)
        four = tune(with_bits(model, 4, "lsq"), seed, epochs=1)
        latent = copy.deepcopy(model)
        latent.load_state_dict(plain_state(four))
        rows["four, then two"].append(percent(tune(with_bits(latent, 2, "lsq"), seed + 1, epochs=1), test))
        print(rows, flush=True)
    return rows


def plain_state(net: nn.Sequential) -> dict[str, torch.Tensor]:
    """The state of a network of grids without them: the weights behind the rounding."""
    state = {key.replace("parametrizations.weight.original", "weight"): t for key, t in net.state_dict().items()}
    return {key: t for key, t in state.items() if "parametrizations" not in key and "_grid" not in key}


# oscillation


def codes_of(net: nn.Sequential) -> torch.Tensor:
    found = []
    for layer in net.children():
        if parametrize.is_parametrized(layer, "weight"):
            part = layer.parametrizations.weight  # type: ignore[union-attr]
            found.append(part[0].codes(part.original).flatten())
    return torch.cat(found).to(torch.int8)


def oscillation() -> dict[str, Any]:
    """Three bits on fixed steps: who flips, how often back, and where the weights behind the rounding end."""
    data, model = load("fashion-20k"), load_checkpoint("s5")
    net, history = with_bits(model, 3, "start"), []
    places = [places_of(net)]
    tune(net, 0, after=lambda current: history.append(codes_of(current)))
    places.append(places_of(net))
    codes = torch.stack(history)
    flips = (codes[1:] != codes[:-1]).double().mean(1)
    rows: dict[str, Any] = {"weights": codes.shape[1], "flips": [round(float(f), 5) for f in flips]}
    rows |= {"late": returns(codes[-30:]), "net": float((codes[-1] != codes[0]).double().mean())}
    rows["places"] = [torch.histc(p, 20, -0.5, 0.5).int().tolist() for p in places]
    return rows | {"steady": steady(net, data)}


def places_of(net: nn.Sequential) -> torch.Tensor:
    """Where in its cell, from -0.5 to 0.5, each weight lies that is not beyond the ends."""
    found = []
    for layer in net.children():
        if parametrize.is_parametrized(layer, "weight"):
            part = layer.parametrizations.weight  # type: ignore[union-attr]
            x = (part.original / part[0].step).detach().flatten()
            found.append((x - x.round())[(x > part[0].low) & (x < part[0].high)])
    return torch.cat(found)


def returns(codes: torch.Tensor) -> dict[str, float]:
    """Of a stretch of steps: shares of weights that moved at all, that flipped twice or more, and that moved in net."""
    changes = (codes[1:] != codes[:-1]).sum(0)
    return {
        "moved": float((changes > 0).double().mean()),
        "often": float((changes > 1).double().mean()),
        "net": float((codes[-1] != codes[0]).double().mean()),
    }


def steady(net: nn.Sequential, data: Any, rate: float = 0.01, steps: int = 60) -> dict[str, Any]:
    """Go on at a rate that does not fall, without momentum: flips, and accuracy before and after new statistics."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], rate)
    generator, history, rows = torch.Generator().manual_seed(1), [], {"as trained": [], "new statistics": []}
    for step in range(steps):
        batch = torch.randint(IMAGES, (128,), generator=generator)
        net.train()
        loss = F.cross_entropy(net(to_float(data.train.x[batch])), data.train.y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(codes_of(net))
        if step >= steps - 5:
            rows["as trained"].append(percent(net.eval(), data.test))
            rows["new statistics"].append(percent(refreshed(net, data), data.test))
    return rows | {"returns": returns(torch.stack(history))}


# the other repairs


def statistics_anew() -> dict[str, Any]:
    """s6 with weights on symmetric grids per channel, as it is, with new means, and with new means and variances."""
    data, model, lab = load("fashion-20k"), load_checkpoint("s6"), reference()
    rows: dict[str, Any] = {"dense": percent(model, data.test)}
    for bits in WIDTHS:
        weights = {}
        for name, w in prunable(model).items():
            q = lab["quantize_weight"](w, bits, "channel")
            weights[name] = (q["scale"] * q["codes"].flatten(1)).view(w.shape)
        net = replaced(model, weights)
        both, means = refreshed(net, data), copy.deepcopy(net)
        for name, layer in means.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = both.get_submodule(name).get_buffer("running_mean").clone()
        rows[str(bits)] = [percent(each, data.test) for each in (net, means, both)]
    return rows


def stored_in_few_bits() -> dict[str, Any]:
    """S5 from scratch when the weights themselves are rounded after each step, to multiples of 2^-k."""
    data, rows = load("fashion-20k"), {}
    generator = torch.Generator()

    def rounding(k: int, kind: str) -> Callable[[nn.Module], None]:
        def after(model: nn.Module) -> None:
            with torch.no_grad():
                for layer in model.children():
                    if isinstance(layer, nn.Conv2d | nn.Linear):
                        x = layer.weight * 2**k
                        noise = torch.rand(x.shape, generator=generator) if kind == "stochastic" else 0.5
                        layer.weight.copy_((x + noise).floor() / 2**k)

        return after

    runs: list[tuple[str, int]] = [("float", 0)]
    runs += [(kind, k) for kind in ("nearest", "stochastic") for k in (4, 6, 8, 10)]
    for kind, k in runs:
        row = rows[f"{kind} {k}"] = []
        for seed in SEEDS:
            generator.manual_seed(seed)
            model, after = build("S5", seed=seed), rounding(k, kind) if k else None
            fit(model, data.train[:IMAGES], epochs=EPOCHS, lr=0.05, seed=seed, after_step=after)
            row.append(percent(model, data.test))
        print(kind, k, row, flush=True)
    return rows


def all_roundings() -> dict[str, Any]:
    """The last layer of s5, sixteen inputs: the output error of all 65,536 ways to round each row up or down."""
    data, model = load("fashion-20k"), load_checkpoint("s5")
    w = prunable(model)["fc2"]
    front = model[: [name for name, _ in model.named_children()].index("fc2")]
    x, unseen = (predict_logits(front, part).double() for part in (data.train.x[:2000], data.test.x))
    choices = (torch.arange(2**16)[:, None] >> torch.arange(16) & 1).double()
    found: dict[str, Any] = {"dense": percent(model, data.test)}
    for bits in (3, 2):
        step = w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        low = (w / step).floor().double()
        rows, nets = [], {"nearest": step * (w / step).round(), "best": torch.empty_like(w)}
        for i, row in enumerate(w.double()):
            options = (low[i] + choices).clamp(-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) * float(step[i])
            errors = (((options - row) @ (x.T @ x)) * (options - row)).sum(1) / (x @ row).square().sum()
            plain = nets["nearest"][i].double() - row
            nearest = float((x @ plain).square().sum() / (x @ row).square().sum())
            best = int(errors.argmin())
            nets["best"][i] = options[best].float()
            apart = {
                kind: float((unseen @ (net[i].double() - row)).square().sum() / (unseen @ row).square().sum())
                for kind, net in nets.items()
            }
            rows.append({
                "nearest": nearest, "best": float(errors.min()), "median": float(errors.median()),
                "better": float((errors < nearest * (1 - 1e-9)).double().mean()),
                "against": int((nets["best"][i] != nets["nearest"][i]).sum()), "unseen": apart,
            })  # fmt: skip
            if i == 0:
                rows[0]["histogram"] = torch.histc(errors.log10().float(), 60, -3.0, 1.0).int().tolist()
        accuracy = {kind: percent(replaced(model, {"fc2": net}), data.test) for kind, net in nets.items()}
        found[str(bits)] = {"rows": rows, "accuracy": accuracy}
    return found


def traces() -> dict[str, Any]:
    """Each layer of s5 alone on few bits: the rise of the loss, and half the Hessian's mean diagonal times error."""
    data, model, lab = load("fashion-20k"), load_checkpoint("s5"), reference()
    x, y = to_float(data.train.x[:2000]), data.train.y[:2000]
    layers = {name: model.get_submodule(name).get_parameter("weight") for name in prunable(model)}

    def loss(net: nn.Module) -> torch.Tensor:
        return F.cross_entropy(net(x), y)

    gradients = torch.autograd.grad(loss(model), list(layers.values()), create_graph=True)
    generator, sums = torch.Generator().manual_seed(0), dict.fromkeys(layers, 0.0)
    probes = 24
    for _ in range(probes):
        signs = [torch.randint(2, w.shape, generator=generator) * 2.0 - 1 for w in layers.values()]
        inner = sum((g * v).sum() for g, v in zip(gradients, signs, strict=True))
        products = torch.autograd.grad(inner, list(layers.values()), retain_graph=True)  # type: ignore[arg-type]
        for name, v, hv in zip(layers, signs, products, strict=True):
            sums[name] += float((v * hv).sum()) / probes
    base, rows = float(loss(model).detach()), []
    for name, w in prunable(model).items():
        for bits in (4, 3, 2):
            q = lab["quantize_weight"](w, bits, "channel")
            rounded = (q["scale"] * q["codes"].flatten(1)).view(w.shape)
            with torch.no_grad():
                rise = float(loss(replaced(model, {name: rounded}))) - base
            error = float((rounded - w).square().sum())
            rows.append({"layer": name, "bits": bits, "rise": rise, "error": error,
                         "trace": 0.5 * sums[name] / w.numel() * error, "bytes": bits * w.numel() / 8})  # fmt: skip
    return {"loss": base, "rows": rows, "trace": {name: total / layers[name].numel() for name, total in sums.items()}}


# integers


def accumulators() -> dict[str, Any]:
    """teacher20 in int8: bits that a sum needs in the worst case, by its weights, and as seen on 500 images."""
    lab, data = reference(), load("fashion-20k")
    net, rows = to_integers(lab), []

    def layer(
        x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, x_scale: float, x_zero: int, w_scale: torch.Tensor,
        y_scale: float, y_zero: int,
    ) -> torch.Tensor:  # fmt: skip
        product = x_scale * w_scale.double()
        acc = F.linear(x.double() - x_zero, w.double()) + (bias.double() / product).round()
        reach = max(127 - x_zero, 128 + x_zero)
        rows.append([
            w.shape[1] * reach * 127, float(w.double().abs().sum(1).max()) * reach, float(acc.abs().max()), w.shape[1],
        ])  # fmt: skip
        return ((acc * (product / y_scale).float().double() + 0.5).floor() + y_zero).clamp(-128, 127).to(torch.int8)

    codes = lab["quantize"](to_float(data.test.x[:500]), *net.limits, 8)["codes"]
    run_integer(net.folded, net.weights, net.grids, codes, layer)
    return dict(zip(net.weights, rows, strict=True))


def multipliers() -> dict[str, float]:
    """Share of output codes that change when the multiplier has k bits, over many multipliers and every code's sums."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    exact = 2.0 ** -(8 + 8 * torch.rand(400, 1, generator=generator, dtype=torch.float64))
    acc = (torch.rand(400, 20_000, generator=generator, dtype=torch.float64) * 127 / exact).floor()
    wanted = (acc * exact + 0.5).floor()
    for bits in (4, 6, 8, 10, 12, 16, 20, 24):
        shift = bits - 1 - exact.log2().floor()
        rounded = (exact * 2**shift).round() / 2**shift
        found[str(bits)] = float(((acc * rounded + 0.5).floor() != wanted).double().mean())
    return found


PARTS: dict[str, Callable[[], Any]] = {
    "multipliers": multipliers,
    "roundings": all_roundings,
    "accumulators": accumulators,
    "statistics": statistics_anew,
    "traces": traces,
    "oscillation": oscillation,
    "methods": methods,
    "variants": variants,
    "stored": stored_in_few_bits,
}


def main() -> None:
    shipped = {name: find_asset(name).sha256 for name in ("s5", "s6", "teacher20")}
    about = {"checkpoints": shipped, "seeds": SEEDS}
    measure(PARTS, TARGET, about, "Measure what the chapter on training with few bits reports.", indent=1)


if __name__ == "__main__":
    main()
