"""Make the front of mixed-precision allocations of teacher20: python -m fourbit.recipes.mixed_precision [--out FOLDER]

Each weight layer gets 2, 3, 4, 5, 6 or 8 bits on a symmetric grid per output channel (Krishnamoorthi,
arXiv:1806.08342, section 2.4); biases and batch normalization stay in float32, and nothing is trained. Layers are
scanned one at a time; the allocations that no other beats in bytes and summed accuracy are measured, then their
neighbors, layer by layer, until none improves the front. What is stored was *measured* on the validation
images, never predicted; since it was also chosen there, it flatters itself by a few images. Test images are not read.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourbit.data import load
from fourbit.data.assets import FOLDER, Asset, read_asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.data.splits import Split
from fourbit.exam.reference import load_lab
from fourbit.measure import file_size
from fourbit.models import load_checkpoint
from fourbit.recipes.checkpoints import LICENSE, LICENSE_FILE
from fourbit.sparsity import prunable
from fourbit.training import evaluate

NAME = "mixed-precision-front"
FILE = "fronts/mixed_precision.json"
RECIPE = "python -m fourbit.recipes.mixed_precision"
CHECKPOINT = "teacher20"
CHOICES = (2, 3, 4, 5, 6, 8)

Bits = Mapping[str, int]
Plan = tuple[int, ...]  # bits of each layer, in the network's order
Point = tuple[int, float]  # bytes, accuracy in %


def read_front(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the stored front, after comparing it with the manifest.

    Keys: `recipe`; `layers`, names; `sizes`, weights of each layer; `choices`, bits; `sensitivity`,
    {layer: {bits as text: accuracy with only that layer quantized}}; `front` and `uniform`, lists of
    {"bits": {layer: bits} or bits, "bytes", "accuracy"}, cheapest first. Accuracies are percent of the 2,000
    validation images of fashion-20k.

    Raises:
        DataError: if it is missing or damaged.
    """
    front: dict[str, Any] = json.loads(read_asset(NAME, folder))
    return front


def rounded(model: nn.Sequential, bits: Bits) -> nn.Sequential:
    """Return a copy of `model` in which the weights of the layers in `bits` lie on grids of so many bits.

    The grid of an output channel is the multiples of max|w| / (2^(bits - 1) - 1): symmetric, zero on the grid.
    """
    model = copy.deepcopy(model)
    for name, width in bits.items():
        weight = model.get_submodule(name).get_parameter("weight")
        top = 2 ** (width - 1) - 1
        scale = weight.detach().flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / top
        zero = torch.zeros(len(scale), dtype=torch.int32)
        with torch.no_grad():
            weight.copy_(torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top - 1, top))
    return model


def artifact_bytes(model: nn.Sequential, bits: Bits) -> int:
    """Return the bytes of the safetensors file of `model` with the layers in `bits` quantized, everything included.

    Such a layer `name` has the tensors ``name.codes``, uint8, ceil(n * bits / 8) bytes for its n weights packed end
    to end, and ``name.scale``, float32, one for each output channel; all else (biases, batch normalization without
    its step counter, other layers) is stored in float32 under its own name. Header and names are charged.
    """
    tensors = {}
    for key, tensor in model.state_dict().items():
        name = key.removesuffix(".weight")
        if name in bits:
            tensors[f"{name}.codes"] = torch.empty(-(-tensor.numel() * bits[name] // 8), dtype=torch.uint8)
            tensors[f"{name}.scale"] = torch.empty(len(tensor))
        elif not key.endswith("num_batches_tracked"):
            tensors[key] = tensor
    return file_size(tensors).total


class _Measured:
    """Bytes and validation accuracy of plans, each measured once."""

    def __init__(self, model: nn.Sequential, split: Split) -> None:
        self.model, self.split = model, split
        self.layers = tuple(prunable(model))
        self.points: dict[Plan, Point] = {}

    def add(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            if plan not in self.points:
                bits = dict(zip(self.layers, plan, strict=True))
                self.points[plan] = (artifact_bytes(self.model, bits), self.accuracy(bits))

    def accuracy(self, bits: Bits) -> float:
        return round(100 * evaluate(rounded(self.model, bits), self.split), 3)

    def front(self) -> list[Plan]:
        """The plans that no measured one beats, cheapest first."""
        order = sorted(self.points, key=lambda plan: (self.points[plan][0], -self.points[plan][1], plan))
        best, front = -1.0, []
        for plan in order:
            if self.points[plan][1] > best:
                best = self.points[plan][1]
                front.append(plan)
        return front


def promising(sensitivity: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int]) -> list[Plan]:
    """What lab 02's reference allocates for every budget from the smallest bits everywhere to the largest.

    The lab's own solution is used, so that no student finds another one here.
    """
    allocate = load_lab(Path(__file__).parents[2] / "solutions" / "02-quantization").namespace()["allocate_bits"]
    least, most = (sum(-(-size * bits // 8) for size in sizes.values()) for bits in (CHOICES[0], CHOICES[-1]))
    plans = allocate(sensitivity, sizes, list(range(least, most + 1, 16)))
    return list(dict.fromkeys(tuple(plan[name] for name in sizes) for plan in plans))


def neighbors(plan: Plan) -> list[Plan]:
    """The plans in which one layer takes the next smaller or the next larger number of bits."""
    found = []
    for i, width in enumerate(plan):
        at = CHOICES.index(width)
        found += [(*plan[:i], other, *plan[i + 1 :]) for other in CHOICES[max(at - 1, 0) : at + 2] if other != width]
    return found


def search(measured: _Measured, sensitivity: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int]) -> list[Plan]:
    """Measure the promising plans, then neighbors of the front until it stands."""
    measured.add(promising(sensitivity, sizes))
    front: list[Plan] = []
    while front != (front := measured.front()):
        print(f"{len(measured.points)} plans measured, {len(front)} on the front", flush=True)
        measured.add(other for plan in front for other in neighbors(plan))
    return front


def make(images: int | None = None) -> dict[str, Any]:
    """Scan, search and return what is stored; `images` takes the first validation images only, to try it out."""
    model, split = load_checkpoint(CHECKPOINT), load("fashion-20k").val[:images]
    measured = _Measured(model, split)
    sizes = {name: weight.numel() for name, weight in prunable(model).items()}
    sensitivity = {name: {width: measured.accuracy({name: width}) for width in CHOICES} for name in sizes}
    uniform = [(width,) * len(sizes) for width in CHOICES]
    measured.add(uniform)
    front = search(measured, sensitivity, sizes)

    def entry(plan: Plan, bits: Any) -> dict[str, Any]:
        size, accuracy = measured.points[plan]
        return {"bits": bits, "bytes": size, "accuracy": accuracy}

    return {
        "recipe": RECIPE,
        "layers": list(sizes),
        "sizes": list(sizes.values()),
        "choices": list(CHOICES),
        "sensitivity": sensitivity,
        "front": [entry(plan, dict(zip(sizes, plan, strict=True))) for plan in front],
        "uniform": [entry(plan, plan[0]) for plan in uniform],
    }


def main(arguments: list[str] | None = None) -> None:
    """Write the front and its entry in the manifest (some minutes of one core)."""
    parser = argparse.ArgumentParser(description="Make the front of mixed-precision allocations of teacher20.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="measure on so many validation images only, to try the recipe out")
    chosen = parser.parse_args(arguments)
    data = (json.dumps(make(chosen.limit), indent=1) + "\n").encode()
    (chosen.out / FILE).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(chosen.out / FILE, data)
    about = f"Bytes and validation accuracy of mixed-precision allocations of {CHECKPOINT}, and its sensitivity"
    sha256 = hashlib.sha256(data).hexdigest()
    record_asset(Asset(NAME, FILE, len(data), sha256, LICENSE, LICENSE_FILE, RECIPE, about), chosen.out)
    print(f"{chosen.out / FILE}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
