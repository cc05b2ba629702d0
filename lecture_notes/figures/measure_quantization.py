"""Measure what the chapter on quantization reports, on the shipped network, and write quantization.json.

    python lecture_notes/figures/measure_quantization.py [PART ...]     all parts, or these alone; the others stay

About ten minutes of one core. The arithmetic is that of lab 02's reference solutions, so that the chapter reports what
the lab computes; tests/test_lab02.py and tests/test_lab02_effects.py assert the effects with the same functions.
Accuracies are of all test images; nothing is chosen by them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from fourbit.data import load, to_float
from fourbit.data.assets import FOLDER
from fourbit.data.splits import Split
from fourbit.exam.reference import load_lab
from fourbit.measure import file_size, measure_together
from fourbit.measure.int8 import export, quantize_static, session
from fourbit.models import load_checkpoint
from fourbit.quantization import (
    Grid,
    IntegerWeight,
    activations,
    compressed_ledger,
    read_compressed,
    replaced,
    run_integer,
    write_compressed,
)
from fourbit.sparsity import cubic_sparsity, prunable
from fourbit.training import evaluate, fit

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(__file__).parent / "quantization.json"
WIDTHS = (8, 6, 5, 4, 3, 2)
GROUPS = ("tensor", "channel", 32)
SEEDS = (0, 1, 2)
Lab = Mapping[str, Any]
Weights = dict[str, torch.Tensor]


def reference() -> Lab:
    """The functions of lab 02, by name."""
    return load_lab(ROOT / "solutions/02-quantization").namespace()


def percent(model: nn.Sequential, split: Split) -> float:
    return round(100 * evaluate(model, split), 2)


# weights on grids and in codebooks


def on_grid(lab: Lab, model: nn.Sequential, bits: int, group: str | int) -> nn.Sequential:
    """Symmetric grids set by the largest magnitude of each group."""
    weights = {}
    for name, w in prunable(model).items():
        q = lab["quantize_weight"](w, bits, group)
        rows = q["codes"].flatten(1)
        size = group if isinstance(group, int) else rows.shape[1]
        scale = q["scale"].repeat_interleave(size, dim=1)[:, : rows.shape[1]]
        weights[name] = (scale * rows).view(w.shape)
    return replaced(model, weights)


def on_affine_grid(lab: Lab, model: nn.Sequential, bits: int) -> nn.Sequential:
    """For each output channel a grid from its smallest to its largest weight: 2^bits values."""
    weights = {}
    for name, w in prunable(model).items():
        rows = w.flatten(1)
        q = lab["quantize"](rows, rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), bits)
        weights[name] = (q["scale"] * (q["codes"].int() - q["zero_point"])).view(w.shape)
    return replaced(model, weights)


def in_codebooks(lab: Lab, model: nn.Sequential, bits: int) -> nn.Sequential:
    books = {name: lab["kmeans_codebook"](w, bits) for name, w in prunable(model).items()}
    return replaced(model, {name: book["centroids"][book["codes"].long()] for name, book in books.items()})


def grids(lab: Lab) -> dict[str, Any]:
    """Accuracy against bits, for grids that are shared by more or fewer weights, and for codebooks."""
    data, model = load("fashion-20k"), load_checkpoint("teacher20")
    rows: dict[str, Any] = {"bits": WIDTHS, "dense": percent(model, data.test)}
    for group in GROUPS:
        rows[str(group)] = [percent(on_grid(lab, model, bits, group), data.test) for bits in WIDTHS]
    rows["affine"] = [percent(on_affine_grid(lab, model, bits), data.test) for bits in WIDTHS]
    rows["codebook"] = [percent(in_codebooks(lab, model, bits), data.test) for bits in WIDTHS]
    rows["three bits"] = {}
    for name in ("teacher20", "teacher60", "s6", "s5"):
        net = load_checkpoint(name)
        nets = {"dense": net} | {group: on_grid(lab, net, 3, group) for group in ("tensor", "channel")}
        rows["three bits"][name] = {key: percent(value, data.test) for key, value in nets.items()}
    return rows


def noise(lab: Lab) -> dict[str, Any]:
    """Signal to noise of conv4 in dB against bits, the histogram of one of its channels, and a fit to the theory."""
    w = prunable(load_checkpoint("teacher20"))["conv4"]
    rows: dict[str, Any] = {"bits": WIDTHS}
    for group in ("tensor", "channel"):
        nets = [on_grid(lab, load_checkpoint("teacher20"), bits, group) for bits in WIDTHS]
        errors = [prunable(net)["conv4"] - w for net in nets]
        rows[group] = [round(10 * float((w.square().sum() / e.square().sum()).log10()), 2) for e in errors]
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, x in (("normal", normal), ("uniform", uniform)):
        rows[name] = []
        for bits in WIDTHS:
            limit = x.abs().max()
            q = lab["quantize"](x, -limit, limit, bits, symmetric=True)
            error = x - q["scale"] * q["codes"]
            rows[name].append(round(10 * float((x.square().sum() / error.square().sum()).log10()), 2))
    spread = w.flatten(1).abs().amax(1)
    rows["largest"] = {
        "of all, standard deviations": round(float(w.abs().max() / w.std()), 1),
        "of a channel, its standard deviations": round(float((spread / w.flatten(1).std(1)).median()), 1),
        "channel over channel": round(float(spread.max() / spread.min()), 1),
    }
    books = {bits: lab["kmeans_codebook"](w, bits)["centroids"].tolist() for bits in (2, 4)}
    counts, edges = torch.histogram(w.flatten(), bins=80)
    rows["histogram"] = {"count": [int(c) for c in counts], "edge": [round(float(e), 5) for e in edges]}
    rows["centroids"] = {str(bits): [round(c, 5) for c in values] for bits, values in books.items()}
    rows["limit"] = round(float(w.abs().max()), 5)
    return rows


# training with few values


class _Lookup(torch.autograd.Function):
    """Weights from centroids, with the lab's gradient."""

    @staticmethod
    def forward(ctx: Any, centroids: torch.Tensor, codes: torch.Tensor, gradient: Callable[..., torch.Tensor]) -> Any:
        ctx.save_for_backward(codes)
        ctx.count, ctx.gradient = len(centroids), gradient
        return centroids[codes.long()]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return ctx.gradient(gradient, *ctx.saved_tensors, ctx.count), None, None


class Shared(nn.Module):
    """A weight that is looked up in a codebook where `alive`, and zero elsewhere; its centroids are trained."""

    def __init__(self, lab: Lab, weight: torch.Tensor, bits: int, alive: torch.Tensor) -> None:
        super().__init__()
        book = lab["kmeans_codebook"](weight[alive], bits)
        self.first, self.codes, self.alive, self.gradient = (
            book["centroids"], book["codes"], alive, lab["centroid_gradient"],
        )  # fmt: skip

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return self.first

    def forward(self, centroids: torch.Tensor) -> torch.Tensor:
        weight = torch.zeros(self.alive.shape)
        weight[self.alive] = _Lookup.apply(centroids, self.codes, self.gradient)
        return weight


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, scale: torch.Tensor, bits: int, rule: Callable[..., Any]) -> Any:
        result = rule(w, scale, bits)
        ctx.save_for_backward(result["slope"])
        return result["value"]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.saved_tensors[0], None, None, None


class OnGrid(nn.Module):
    """A weight rounded to the grid that was chosen for it before training; the scales stay."""

    def __init__(self, lab: Lab, weight: torch.Tensor, bits: int) -> None:
        super().__init__()
        scale = lab["quantize_weight"](weight, bits, "channel")["scale"]
        self.scale = scale.view(-1, *[1] * (weight.ndim - 1))
        self.bits, self.rule = bits, lab["fake_quantize"]

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = _StraightThrough.apply(w, self.scale, self.bits, self.rule)
        return value


def learning(model: nn.Sequential, parts: Mapping[str, nn.Module]) -> nn.Sequential:
    """A copy in which each layer's weight is made by its part."""
    model = copy.deepcopy(model)
    for name, part in parts.items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", part)
    return model


def shown(model: nn.Sequential, net: nn.Sequential) -> nn.Sequential:
    """`model` with the weights that `net`, a network of learning parts that has not been trained yet, makes."""
    return replaced(model, prunable(net))


def settled(model: nn.Sequential, names: Mapping[str, Any]) -> nn.Sequential:
    """The same network with plain weights again."""
    for name in names:  # removing a parametrization removes it from copies as well, so none is made here
        parametrize.remove_parametrizations(model.get_submodule(name), "weight")
    return model


def tuned_codebooks(lab: Lab, bits: int, *, lr: float = 1e-4, seed: int = 0) -> tuple[nn.Sequential, ...]:
    """teacher20 in codebooks, before and after one epoch in which the centroids learn."""
    model = load_checkpoint("teacher20")
    weights = prunable(model)
    parts = {name: Shared(lab, w, bits, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    net = learning(model, parts)
    before = shown(model, net)
    fit(net, load("fashion-20k").train, epochs=1, lr=lr, weight_decay=0.0, seed=seed)
    return before, settled(net, weights)


def trained_on_grid(lab: Lab, bits: int, *, seed: int = 0) -> tuple[nn.Sequential, ...]:
    """teacher20 on symmetric grids per channel, before and after one epoch through the rounding, on the same grids."""
    model = load_checkpoint("teacher20")
    weights = prunable(model)
    net = learning(model, {name: OnGrid(lab, w, bits) for name, w in weights.items()})
    before = shown(model, net)
    fit(net, load("fashion-20k").train, epochs=1, lr=0.05, weight_decay=0.0, seed=seed)
    return before, settled(net, weights)


def training(lab: Lab) -> dict[str, Any]:
    """Accuracy before and after one epoch, every seed: codebooks of 4 and 2 bits, and 2 bits on the grid."""
    test, rows = load("fashion-20k").test, {}
    runs: dict[str, Callable[[int], tuple[nn.Sequential, ...]]] = {
        "codebook 4": lambda seed: tuned_codebooks(lab, 4, seed=seed),
        "codebook 2": lambda seed: tuned_codebooks(lab, 2, seed=seed),
        "grid 2": lambda seed: trained_on_grid(lab, 2, seed=seed),
    }
    for name, run in runs.items():
        pairs = [run(seed) for seed in SEEDS]
        rows[name] = {"before": percent(pairs[0][0], test), "after": [percent(after, test) for _, after in pairs]}
        print(name, rows[name], flush=True)
    before, after = trained_on_grid(lab, 2)
    changed = {k: (w != prunable(after)[k]).double().mean().item() for k, w in prunable(before).items()}
    rows["changed"] = {name: round(100 * share, 1) for name, share in changed.items()}
    return rows


def rates(lab: Lab) -> dict[str, float]:
    """Two-bit codebooks after one epoch, by the rate at which the sums of gradients are applied."""
    test = load("fashion-20k").test
    return {f"{lr:g}": percent(tuned_codebooks(lab, 2, lr=lr)[1], test) for lr in (1e-5, 1e-4, 1e-3, 2e-2)}


# activations and integers


class Rounding(nn.Module):
    """An activation that lies on a grid."""

    def __init__(self, lab: Lab, limits: tuple[torch.Tensor, torch.Tensor], bits: int) -> None:
        super().__init__()
        self.rule, self.limits, self.bits = lab["quantize"], limits, bits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.rule(x, *self.limits, self.bits)
        value: torch.Tensor = q["scale"] * (q["codes"].int() - q["zero_point"])
        return value


def with_rounding(lab: Lab, model: nn.Sequential, limits: Mapping[str, Any], bits: int) -> nn.Sequential:
    """The network with a grid in front and behind each ReLU."""
    layers, owner = nn.Sequential(), ""
    layers.add_module("input_grid", Rounding(lab, limits["input"], bits))
    for name, layer in model.named_children():
        layers.add_module(name, layer)
        owner = name if name in limits else owner
        if isinstance(layer, nn.ReLU):
            layers.add_module(f"{name}_grid", Rounding(lab, limits[owner], bits))
    return layers.eval()


def calibration(lab: Lab) -> dict[str, Any]:
    """Activations on grids, weights in float32: three rules for the range; and the error against the range's end."""
    data, model = load("fashion-20k"), load_checkpoint("teacher20")
    seen = activations(model, to_float(data.train.x[:256]))
    samples = {name: x.flatten()[:: max(1, x.numel() // 20_000)] for name, x in seen.items()}
    rows: dict[str, Any] = {"bits": (8, 6, 4, 3)}
    for kind in ("minmax", "percentile", "mse"):
        limits = [{k: lab["clip_range"](x, bits, kind) for k, x in samples.items()} for bits in rows["bits"]]
        nets = [with_rounding(lab, model, ends, bits) for ends, bits in zip(limits, rows["bits"], strict=True)]
        rows[kind] = [percent(net, data.test) for net in nets]
    x, shares = samples["conv4"], [s / 100 for s in range(4, 101, 2)]
    rows["share"] = shares
    rows["error"] = {}
    for bits in (3, 4, 6, 8):
        errors = []
        for share in shares:
            back = Rounding(lab, (x.min() * share, x.max() * share), bits)(x)
            errors.append(float(f"{float((back - x).square().mean() / x.square().mean()):.4g}"))
        rows["error"][str(bits)] = errors
    return rows


def folding(lab: Lab) -> dict[str, Any]:
    """Accuracy of weights on grids before and after folding, and how far the channels' gains are apart."""
    test, model = load("fashion-20k").test, load_checkpoint("teacher20")
    folded = lab["fold_batch_norm"](model)
    rows: dict[str, Any] = {"layers": [len(model), len(folded)]}
    for name, net in (("before", model), ("after", folded)):
        rows[name] = {
            f"{group} {bits}": percent(on_grid(lab, net, bits, group), test)
            for group in ("tensor", "channel")
            for bits in (8, 4, 3)
        }
    gains = {}
    for name, layer in model.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            gain = (layer.weight / (layer.running_var + layer.eps).sqrt()).detach().abs()
            gains[name] = round(float(gain.max() / gain.min()), 1)
    return rows | {"gains": gains}


@dataclass(frozen=True, eq=False)
class Integers:
    """A folded network in integers: what run_integer needs."""

    folded: nn.Sequential
    weights: Mapping[str, IntegerWeight]
    grids: Mapping[str, Grid]
    limits: tuple[torch.Tensor, torch.Tensor]


def to_integers(lab: Lab) -> Integers:
    """teacher20 with folded batch normalization, int8 weights per channel and min-max ranges of 256 images."""
    folded = lab["fold_batch_norm"](load_checkpoint("teacher20"))
    seen = activations(folded, to_float(load("fashion-20k").train.x[:256]))
    limits = {name: lab["clip_range"](x, 8, "minmax") for name, x in seen.items()}
    grids, weights = {}, {}
    for name, (low, high) in limits.items():
        q = lab["quantize"](low, low, high, 8)
        grids[name] = Grid(q["scale"].item(), int(q["zero_point"]))
    for name, w in prunable(folded).items():
        q = lab["quantize_weight"](w, 8, "channel")
        bias = folded.get_submodule(name).get_parameter("bias").detach()
        weights[name] = IntegerWeight(q["codes"], q["scale"].flatten(), bias)
    return Integers(folded, weights, grids, limits["input"])


def exact_layer(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, x_scale: float, x_zero: int, w_scale: torch.Tensor,
    y_scale: float, y_zero: int,
) -> torch.Tensor:  # fmt: skip
    """The layer in float64: sums of integers and the product with a float32 multiplier are exact there."""
    product = x_scale * w_scale.double()
    acc = F.linear(x.double() - x_zero, w.double()) + (bias.double() / product).round()
    return ((acc * (product / y_scale).float().double() + 0.5).floor() + y_zero).clamp(-128, 127).to(torch.int8)


def usual_layer(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, x_scale: float, x_zero: int, w_scale: torch.Tensor,
    y_scale: float, y_zero: int,
) -> torch.Tensor:  # fmt: skip
    """The usual simulation: products of float32 values, then rounding."""
    y = F.linear(x_scale * (x.float() - x_zero), w_scale[:, None] * w.float(), bias)
    return ((y / y_scale).round() + y_zero).clamp(-128, 127).to(torch.int8)


def logit_codes(lab: Lab, net: Integers, x: torch.Tensor, layer: Callable[..., torch.Tensor]) -> torch.Tensor:
    """int8 (N, classes) for uint8 images."""
    codes = lab["quantize"](to_float(x), *net.limits, 8)["codes"]
    return run_integer(net.folded, net.weights, net.grids, codes, layer)


def integers(lab: Lab) -> dict[str, Any]:
    """Integers against two simulations: 256 images in integers, all test images in the exact one."""
    test, net = load("fashion-20k").test, to_integers(lab)
    few = {
        layer.__name__: logit_codes(lab, net, test.x[:256], layer)
        for layer in (lab["integer_layer"], exact_layer, usual_layer)
    }
    exact, usual = (
        torch.cat([logit_codes(lab, net, part, layer) for part in test.x.split(250)])
        for layer in (exact_layer, usual_layer)
    )
    return {
        "bit for bit": bool(torch.equal(few["integer_layer"], few["exact_layer"])),
        "images": 256,
        "usual codes that differ, %": round(100 * (exact != usual).double().mean().item(), 2),
        "usual classes that differ": int((exact.argmax(1) != usual.argmax(1)).sum()),
        "accuracy": round(100 * (exact.argmax(1) == test.y).double().mean().item(), 2),
    }


# the artifact


class GradualPruning:
    """After each step set the smallest weights of the network to zero; every 20 steps choose them anew."""

    def __init__(self, final: float, steps: int) -> None:
        self.final, self.steps, self.step = final, steps, 0
        self.masks: Weights = {}

    def __call__(self, model: nn.Module) -> None:
        assert isinstance(model, nn.Sequential)
        found = prunable(model)
        if self.step % 20 == 0 and self.step <= self.steps:
            sizes = torch.cat([w.abs().flatten() for w in found.values()])
            sparsity = cubic_sparsity(self.step, self.steps, self.final)
            threshold = sizes.kthvalue(max(1, int(sparsity * len(sizes)))).values
            self.masks = {name: w.abs() > threshold for name, w in found.items()}
        for name, w in found.items():
            w.mul_(self.masks[name])
        self.step += 1


@dataclass(frozen=True, eq=False)
class Compressed:
    """The stages of Deep Compression and the file."""

    pruned: nn.Sequential
    shared: nn.Sequential
    tuned: nn.Sequential
    file: bytes
    ledger: Mapping[str, int]

    def decoded(self) -> nn.Sequential:
        return read_compressed(self.file, load_checkpoint("teacher20"))


def deep_compression(lab: Lab, *, sparsity: float, epochs: int, tuning: int, lr: float) -> Compressed:
    """Prune gradually, share (5 bits in convolutions, 4 in linear layers), train the centroids, write the file."""
    train, model = load("fashion-20k").train, load_checkpoint("teacher20")
    schedule = GradualPruning(sparsity, (epochs - 1) * (len(train) // 128))
    fit(model, train, epochs=epochs, lr=lr, after_step=schedule)
    weights = prunable(model)
    bits = {name: 5 if name.startswith("conv") else 4 for name in weights}
    net = learning(model, {name: Shared(lab, w, bits[name], w != 0) for name, w in weights.items()})
    shared = shown(model, net)
    fit(net, train, epochs=tuning, lr=2e-4, weight_decay=0.0)
    tuned, lengths = settled(net, weights), lab["huffman_lengths"]
    return Compressed(model, shared, tuned, write_compressed(tuned, lengths), compressed_ledger(tuned, lengths))


def artifact(lab: Lab) -> dict[str, Any]:
    """Deep Compression as the lab does it, and a dense network that is trained for as long."""
    data, dense = load("fashion-20k"), load_checkpoint("teacher20")
    made = deep_compression(lab, sparsity=0.91, epochs=5, tuning=2, lr=0.08)
    tensors = {k: t for k, t in dense.state_dict().items() if not k.endswith("num_batches_tracked")}
    control = copy.deepcopy(dense)
    fit(control, data.train, epochs=7, lr=0.08)
    nets = {"dense": dense, "control": control, "pruned": made.pruned, "shared": made.shared, "decoded": made.decoded()}
    kept = {name: int((w != 0).sum()) for name, w in prunable(made.pruned).items()}
    return {
        "accuracy": {name: percent(net, data.test) for name, net in nets.items()},
        "bytes": {"float32": file_size(tensors).total, "file": len(made.file)},
        "ledger": dict(made.ledger),
        "kept": kept,
        "same bits": all(torch.equal(w, prunable(made.tuned)[k]) for k, w in prunable(nets["decoded"]).items()),
        "gaps": gap_counts(made.tuned.get_submodule("fc1").get_parameter("weight")),
        "codes": code_counts(made.tuned.get_submodule("conv4").get_parameter("weight")),
    }


def gap_counts(weight: torch.Tensor) -> list[int]:
    """How often 0, 1, 2, ... zeros stand before a weight; 255 or more counted as 255."""
    places = weight.detach().flatten().nonzero().flatten()
    gaps = places.diff(prepend=torch.tensor([-1])) - 1
    return torch.bincount(gaps.clamp(max=255), minlength=256).tolist()


def code_counts(weight: torch.Tensor) -> list[int]:
    """How often each shared value occurs, ascending by value."""
    values = weight.detach().flatten()
    return values[values != 0].unique(return_counts=True)[1].tolist()


def speed(lab: Lab) -> dict[str, Any]:
    """int8 against float32 in ONNX Runtime, one thread: times at 1 and 64 images, accuracies, bytes."""
    data, folded = load("fashion-20k"), lab["fold_batch_norm"](load_checkpoint("teacher20"))
    file32, images = export(folded), to_float(data.train.x[:256])
    files = {
        "float32": file32,
        "int8": quantize_static(file32, images, reduce_range=False),
        "int8, 7-bit weights": quantize_static(file32, images, reduce_range=True),
    }
    engines = {name: session(file) for name, file in files.items()}
    rows: dict[str, Any] = {"bytes": {name: len(file) for name, file in files.items()}, "accuracy": {}, "ms": {}}
    rows["VNNI"] = "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    for name, run in engines.items():
        answers = torch.cat([run(to_float(part)) for part in data.test.x.split(250)]).argmax(1)
        rows["accuracy"][name] = round(100 * (answers == data.test.y).double().mean().item(), 2)
    for count in (1, 64):
        x = to_float(data.test.x[:count])
        runs = {name: partial(run, x) for name, run in engines.items()} | {"PyTorch float32": partial(folded, x)}
        with torch.no_grad():
            timings = measure_together(runs, seconds=12.0)
        rows["ms"][str(count)] = {
            name: {"median": round(1e3 * t.median, 4), "interval": [round(1e3 * end, 4) for end in t.interval]}
            for name, t in timings.items()
        }
    return rows


PARTS: dict[str, Callable[[Lab], Any]] = {
    "grids": grids,
    "noise": noise,
    "training": training,
    "rates": rates,
    "calibration": calibration,
    "folding": folding,
    "integers": integers,
    "artifact": artifact,
    "speed": speed,
}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(TARGET.read_text(encoding="utf-8")) if names else {}
    results |= {
        "checkpoint": hashlib.sha256((FOLDER / "teacher20.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
        "seeds": SEEDS,
    }
    lab = reference()
    for name, part in PARTS.items():
        if not names or name in names:
            results[name] = part(lab)
            print(name, results[name], flush=True)
            TARGET.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
