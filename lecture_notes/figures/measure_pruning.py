"""Measure what the chapter on pruning reports, on the shipped network, and write pruning.json (about 20 minutes).

    python lecture_notes/figures/measure_pruning.py

Masks come from torch.nn.utils.prune where it has them. Curves are accuracies on all test images; nothing is chosen by
them. The sensitivity scan, from which choices are made, uses validation images.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from fourbit.data import Dataset, load, to_float
from fourbit.data.assets import FOLDER
from fourbit.measure import measure_together
from fourbit.models import build, load_checkpoint
from fourbit.sparsity import cubic_sparsity, masked, prunable
from fourbit.training import evaluate, fit

SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
TUNED = (0.8, 0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1, 2)
Masks = dict[str, torch.Tensor]


def main() -> None:
    torch.set_num_threads(1)
    data, model = load("fashion-20k"), load_checkpoint("teacher20")
    parts: dict[str, Callable[[Dataset, nn.Sequential], Any]] = {
        "dense": lambda data, model: percent(model, data.test),
        "one_shot": one_shot,
        "granularity": granularity,
        "sensitivity": sensitivity,
        "latency": latency,
        "fine_tuned": fine_tuned,
        "gradual": gradual,
    }
    results: dict[str, Any] = {
        "checkpoint": hashlib.sha256((FOLDER / "teacher20.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
        "seeds": SEEDS,
    }
    for name, part in parts.items():
        results[name] = part(data, model)
        print(name, results[name], flush=True)
    text = json.dumps(results, indent=1)
    (Path(__file__).parent / "pruning.json").write_text(text + "\n", encoding="utf-8")


def percent(model: nn.Sequential, split: Any) -> float:
    return round(100 * evaluate(model, split), 2)


def global_masks(model: nn.Sequential, sparsity: float) -> Masks:
    """One threshold on |w| for the whole network."""
    model = copy.deepcopy(model)
    layers = [(layer, "weight") for layer in model.children() if isinstance(layer, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=sparsity)
    return {name: model.get_submodule(name).get_buffer("weight_mask").bool() for name in prunable(model)}


def uniform_masks(model: nn.Sequential, sparsity: float, names: Iterable[str] | None = None) -> Masks:
    """The same sparsity in each layer."""
    masks = {}
    for name in prunable(model) if names is None else names:
        layer = copy.deepcopy(model.get_submodule(name))
        masks[name] = prune.l1_unstructured(layer, "weight", amount=sparsity).get_buffer("weight_mask").bool()
    return masks


def refreshed(model: nn.Sequential, data: Dataset) -> nn.Sequential:
    """A copy whose batch-normalization statistics are averages over 20 batches of 128 training images."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    model.train()
    with torch.no_grad():
        for images in data.train.x[: 20 * 128].split(128):
            model(to_float(images))
    return model.eval()


def one_shot(data: Dataset, model: nn.Sequential) -> dict[str, list[float]]:
    """Test accuracy against sparsity: one threshold, one sparsity for each layer, and the first with new statistics."""
    rows: dict[str, list[float]] = {"sparsity": [], "global": [], "uniform": [], "refreshed": []}
    for sparsity in SPARSITIES:
        pruned = masked(model, global_masks(model, sparsity))
        rows["sparsity"].append(sparsity)
        rows["global"].append(percent(pruned, data.test))
        rows["refreshed"].append(percent(refreshed(pruned, data), data.test))
        rows["uniform"].append(percent(masked(model, uniform_masks(model, sparsity)), data.test))
    return rows


def block_masks(model: nn.Sequential, sparsity: float, names: list[str], shape: str) -> Masks:
    """Whole groups removed by their L1 norm: four neighboring inputs, kernels, or output channels."""
    masks = {}
    for name in names:
        w = prunable(model)[name]
        if shape == "channel":
            scores = w.abs().flatten(1).sum(1)  # (out,)
        elif shape == "kernel" and w.ndim == 4:
            scores = w.abs().sum((2, 3))  # (out, in)
        else:
            scores = w.abs().unflatten(1, (-1, 4)).sum(2)  # (out, in // 4, ...)
        removed = round(sparsity * scores.numel())
        keep = torch.ones(scores.numel(), dtype=torch.bool)
        keep[scores.flatten().argsort()[:removed]] = False
        keep = keep.view(scores.shape)
        if scores.ndim > 1 and scores.shape[1] * 4 == w.shape[1]:
            keep = keep.repeat_interleave(4, 1)
        masks[name] = keep.view(*keep.shape, *[1] * (w.ndim - keep.ndim)).expand_as(w)
    return masks


def granularity(data: Dataset, model: nn.Sequential) -> dict[str, Any]:
    """The same sparsity in each middle layer, with new statistics, in groups of growing size."""
    names = [name for name in prunable(model) if name not in ("conv0", "fc2")]
    rows: dict[str, Any] = {"sparsity": [0.25, 0.5, 0.625, 0.75, 0.875], "layers": names}
    for shape in ("weight", "four inputs", "kernel", "channel"):
        rows[shape] = []
        for sparsity in rows["sparsity"]:
            masks = (
                uniform_masks(model, sparsity, names)
                if shape == "weight"
                else block_masks(model, sparsity, names, shape)
            )
            rows[shape].append(percent(refreshed(masked(model, masks), data), data.test))
    two_of_four = {}
    for name in names:
        groups = prunable(model)[name].abs().unflatten(1, (-1, 4))  # (out, in // 4, 4, ...)
        two_of_four[name] = (groups >= groups.sort(2).values[:, :, 2:3]).flatten(1, 2)
    rows["2:4"] = percent(refreshed(masked(model, two_of_four), data), data.test)
    return rows


def sensitivity(data: Dataset, model: nn.Sequential) -> dict[str, Any]:
    """Validation accuracy with one layer pruned."""
    grid = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]
    table = {
        name: [percent(masked(model, uniform_masks(model, sparsity, [name])), data.val) for sparsity in grid]
        for name in prunable(model)
    }
    return {"sparsity": grid, "accuracy": table, "weights": {name: w.numel() for name, w in prunable(model).items()}}


def latency(data: Dataset, model: nn.Sequential) -> dict[str, Any]:
    """Milliseconds of 64 images: zeros in a dense network, and networks with fewer channels."""
    x = to_float(data.test.x[:64])
    nets = {f"zeros {s:g}": masked(model, uniform_masks(model, s)) for s in (0.0, 0.5, 0.75, 0.9, 0.99)}
    nets |= {f"channels {keep:g}": thinned(keep) for keep in (0.75, 0.5, 0.25)}
    with torch.inference_mode():
        timings = measure_together({name: lambda net=net: net(x) for name, net in nets.items()}, seconds=20.0)
    return {
        name: {"median": round(1e3 * t.median, 3), "interval": [round(1e3 * end, 3) for end in t.interval]}
        for name, t in timings.items()
    }


def thinned(keep: float) -> nn.Sequential:
    """A network of the same plan whose hidden layers have `keep` of the channels; values do not matter for time."""
    model = build("T4", seed=0).eval()
    layers, channels = copy.deepcopy(model), 1
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d):
            width = round(layer.out_channels * keep)
            new: nn.Module = nn.Conv2d(channels, width, 3, stride=layer.stride, padding=1, bias=False)
            channels = width
        elif isinstance(layer, nn.BatchNorm2d):
            new = nn.BatchNorm2d(channels)
        elif name == "fc1":
            new = nn.Linear(layer.in_features // 128 * channels, round(256 * keep))
        elif name == "fc2":
            new = nn.Linear(round(256 * keep), 10)
        else:
            continue
        setattr(layers, name, new)
    return layers.eval()


def tuned(model: nn.Sequential, data: Dataset, masks: Masks, epochs: int, seed: int) -> float:
    """Test accuracy after masked fine-tuning at a fifth of the training rate."""
    model = masked(model, masks)

    def after_step(net: nn.Module) -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                net.get_submodule(name).get_parameter("weight").mul_(mask)

    fit(model, data.train, epochs=epochs, lr=0.02, seed=seed, after_step=after_step)
    return percent(model, data.test)


def fine_tuned(data: Dataset, model: nn.Sequential) -> dict[str, Any]:
    """One epoch with fixed masks, and a dense network given the same epoch: every seed."""
    rows: dict[str, Any] = {"dense": [tuned(model, data, {}, 1, seed) for seed in SEEDS]}
    for sparsity in TUNED:
        masks = global_masks(model, sparsity)
        rows[f"{sparsity:g}"] = [tuned(model, data, masks, 1, seed) for seed in SEEDS]
        print(sparsity, statistics.fmean(rows[f"{sparsity:g}"]), flush=True)
    return rows


def gradual(data: Dataset, model: nn.Sequential) -> dict[str, Any]:
    """Two epochs: all pruning at once against the cubic schedule over the first three quarters of the steps."""
    steps = 2 * (len(data.train) // 128)
    rows: dict[str, Any] = {}
    for sparsity in (0.9, 0.99):
        once = global_masks(model, sparsity)
        rows[f"once {sparsity:g}"] = [tuned(model, data, once, 2, seed) for seed in SEEDS]
        rows[f"cubic {sparsity:g}"] = [gradually(model, data, sparsity, steps, seed) for seed in SEEDS]
        print(sparsity, rows, flush=True)
    return rows


def gradually(model: nn.Sequential, data: Dataset, final: float, steps: int, seed: int) -> float:
    """Two epochs in which the masks grow: each time the smallest weights of the network as it then is."""
    net, step = copy.deepcopy(model), 0
    masks: Masks = {}

    def after_step(current: nn.Module) -> None:
        nonlocal step, masks
        step += 1
        assert isinstance(current, nn.Sequential)
        if step % 8 == 0 and step <= 0.75 * steps + 8:
            contiguous = copy.deepcopy(current).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            masks = global_masks(contiguous, cubic_sparsity(step, round(0.75 * steps), final))
        with torch.no_grad():
            for name, mask in masks.items():
                current.get_submodule(name).get_parameter("weight").mul_(mask)

    fit(net, data.train, epochs=2, lr=0.02, seed=seed, after_step=after_step)
    return percent(net, data.test)


if __name__ == "__main__":
    main()
