"""Measure what lab 03 compares: python -m fourbit.recipes.distillation [--out FOLDER] [--parts NAME ...]

Each part is written as soon as a row of it is finished, so that a run which was cut short can go on with the others:

paired       students trained on labels and by distillation, from the same seeds, in the same number of steps
front        students of at most 30,000 bytes on disk: network x bits x sparsity x distilled or not
composition  orders of pruning, quantization and distillation
specialist   tiny networks for a few classes beside generalists

Temperature 4, weight 0.9 of the teacher and lr 0.1 were fixed beforehand; nothing was chosen by these results. Which
students and numbers of labels to compare comes from an earlier search on the same test images.
Accuracies of `paired` and `specialist` are those of the 10,000 test images, from which nothing is selected; `front` and
`composition`, from which a learner selects, have those of the 2,000 validation images.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

from fourbit.data import Dataset, Split, load
from fourbit.data.assets import FOLDER, Asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.distillation import FRONT, read_student, student_file
from fourbit.models import build, cached_logits, load_checkpoint
from fourbit.recipes.checkpoints import LICENSE, LICENSE_FILE
from fourbit.sparsity import prunable
from fourbit.training import Batch, Loss, cross_entropy, fit, predict_logits

FILE = "fronts/distillation.json"
RECIPE = "python -m fourbit.recipes.distillation"
TEMPERATURE, WEIGHT = 4.0, 0.9  # of the teacher's term
STEPS = 1120  # 8 epochs of 140 batches of 128: every student below gets so many, or up to 4 fewer
SEEDS = (0, 1, 2)
LIMIT = 30_000  # bytes on disk
GROUPS = {"footwear": (5, 7, 9), "upper body": (0, 2, 4, 6)}
CHECKPOINTS = {"S5": "s5", "S6": "s6"}  # students.py trained these on all labels, from seed 0

Targets = torch.Tensor  # a teacher's logits (N, 2, classes): image, mirrored or not, class


@lru_cache(maxsize=1)
def _data() -> Dataset:
    return load("fashion-20k")


@lru_cache(maxsize=4)
def targets(teacher: str) -> Targets:
    """Return the logits of `teacher` for all training images: those that come with Fourbit, or computed now."""
    if teacher == "teacher60":
        return cached_logits(teacher).train
    return _logits(load_checkpoint(teacher), _data().train)


def _logits(model: nn.Module, split: Split) -> Targets:
    return torch.stack([predict_logits(model, split.x), predict_logits(model, split.x.flip(3))], 1)


def distilling(soft: Targets, labels: int) -> Loss:
    """Return the loss of a student that sees the teacher on every image and the labels of the first `labels` only.

    The teacher's term is the cross-entropy to its softened probabilities, which has the gradient of the divergence;
    the labels' term is the mean over the labeled images of a batch, if it has any.
    """

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        wanted = (soft[batch.index, batch.flipped.long()] / TEMPERATURE).softmax(1)
        value = WEIGHT * TEMPERATURE**2 * F.cross_entropy(logits / TEMPERATURE, wanted)
        known = batch.index < labels
        if known.any():
            value = value + (1 - WEIGHT) * F.cross_entropy(logits[known], batch.y[known])
        return value

    return loss


def train(model: nn.Sequential, split: Split, seed: int, loss: Loss = cross_entropy) -> nn.Sequential:
    """Train `model` for STEPS steps, or the whole number of epochs nearest to it."""
    fit(model, split, epochs=round(STEPS / (len(split) // 128)), seed=seed, loss=loss)
    return model


@lru_cache(maxsize=64)
def student(network: str, teacher: str, labels: int, images: int, seed: int) -> nn.Sequential:
    """Return a student trained on the first `images`, `labels` of them labeled; `teacher` "" means labels alone.

    The teacher "itself" is the same network, trained before on the same labels from another seed.
    """
    model, split = build(network, seed=seed), _data().train[:images]
    if not teacher:
        if images == len(_data().train) and seed == 0 and network in CHECKPOINTS:
            return load_checkpoint(CHECKPOINTS[network])
        return train(model, split, seed)
    if teacher == "itself":
        soft = _logits(student(network, "", labels, labels, (seed + 1) % len(SEEDS)), split)
    elif teacher == "T4":
        soft = _logits(student("T4", "", labels, labels, 0), split)
    else:
        soft = targets(teacher)
    return train(model, split, seed, distilling(soft, labels))


def percent(model: nn.Module, split: Split, classes: tuple[int, ...] | None = None) -> float:
    """Return the accuracy in percent, three decimals; of the `classes` only, the other outputs left out, if given."""
    logits, y = predict_logits(model, split.x), split.y
    if classes is not None:
        logits = logits[:, list(classes)] if logits.shape[1] > len(classes) else logits
    return round(100 * int((logits.argmax(1) == y).sum()) / len(y), 3)


# (what it shows, network, teacher, labels, images for distillation)
PAIRS = (
    ("few labels, the same images", "S5", "teacher60", 4000, 4000),
    ("very few labels, many unlabelled images", "S5", "teacher60", 1000, 18000),
    ("all labels", "S5", "teacher60", 18000, 18000),
    ("all labels, larger student", "S6", "teacher60", 18000, 18000),
    ("control: teacher with the same data", "S6", "teacher20", 18000, 18000),
    ("self-distillation", "S5", "itself", 4000, 4000),
    ("control: larger teacher with the same 4,000 labels", "S5", "T4", 4000, 4000),
)


def paired() -> Iterator[dict[str, Any]]:
    """Labels alone against distillation, paired by seed: test accuracy."""
    for setting, network, teacher, labels, images in PAIRS:
        row: dict[str, Any] = {"setting": setting, "student": network, "teacher": teacher, "labels": labels}
        row |= {"unlabelled": images - labels, "ce": [], "kd": []}
        for seed in SEEDS:
            row["ce"].append(percent(student(network, "", labels, labels, seed), _data().test))
            row["kd"].append(percent(student(network, teacher, labels, images, seed), _data().test))
        yield row


class _Constrained(nn.Module):
    """What a weight becomes before it is used: masked, then rounded to a grid; gradients pass straight through."""

    def __init__(self, mask: torch.Tensor | None, bits: int) -> None:
        super().__init__()
        self.mask, self.bits = mask, bits

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        weight = weight if self.mask is None else weight * self.mask
        if self.bits == 32:
            return weight
        top = 2 ** (self.bits - 1) - 1
        scale = (weight.detach().flatten(1).abs().amax(1) / top).clamp(min=1e-12)
        zero = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top, top)


class Compressed:
    """A network under compression: masks and a grid that hold through all training, once a step has set them."""

    def __init__(self, model: nn.Sequential) -> None:
        self.free = copy.deepcopy(model)  # the weights that training moves
        self.masks: dict[str, torch.Tensor] = {}
        self.bits = 32

    def _bound(self) -> nn.Sequential:
        model = copy.deepcopy(self.free)
        for name in prunable(model):
            parametrize.register_parametrization(
                model.get_submodule(name), "weight", _Constrained(self.masks.get(name), self.bits), unsafe=True
            )
        return model

    def model(self) -> nn.Sequential:
        """Return the network as it is used: masked and rounded."""
        model = self._bound()
        for name in prunable(self.free):
            parametrize.remove_parametrizations(model.get_submodule(name), "weight")
        return model

    def prune(self, sparsity: float) -> None:
        """Keep the largest weights of the whole network as it is used."""
        model = self.model()
        layers = [(model.get_submodule(name), "weight") for name in prunable(model)]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=sparsity)
        self.masks = {name: model.get_submodule(name).get_buffer("weight_mask") for name in prunable(self.free)}

    def fit(self, epochs: int, seed: int, loss: Loss) -> None:
        """Train under the masks and the grid, at half the rate."""
        model = self._bound()
        fit(model, _data().train, epochs=epochs, lr=0.05, seed=seed, loss=loss)
        state = {key.replace("parametrizations.weight.original", "weight"): v for key, v in model.state_dict().items()}
        self.free.load_state_dict(state)


def front() -> Iterator[dict[str, Any]]:
    """Every student that fits into LIMIT bytes, read back from its file: validation accuracy."""
    for network in ("S6", "S5", "S3"):
        for distilled in (False, True):
            teacher = "teacher60" if distilled else ""
            base = student(network, teacher, 18000, 18000, 0)
            loss = distilling(targets(teacher), 18000) if distilled else cross_entropy
            for bits in (32, 8, 4, 3, 2):
                for sparsity in (0.0, 0.5, 0.75) if bits < 32 else (0.0,):
                    row = _candidate(base, bits, sparsity, loss)
                    if row["bytes"] <= LIMIT:
                        yield {"student": network, "bits": bits, "sparsity": sparsity, "distilled": distilled} | row


def _candidate(base: nn.Sequential, bits: int, sparsity: float, loss: Loss) -> dict[str, Any]:
    net = Compressed(base)
    net.bits = bits
    if sparsity:
        net.prune(sparsity)
    if len(student_file(net.model(), bits)) <= LIMIT and bits < 32:
        net.fit(2, 0, loss)
    return _measured(net)


def _measured(net: Compressed) -> dict[str, Any]:
    data = student_file(net.model(), net.bits)
    return {"bytes": len(data), "accuracy": percent(read_student(data), _data().val)}


ORDERS = (
    ("prune", "quantize"),
    ("prune", "quantize", "train"),
    ("prune", "quantize", "distill"),
    ("quantize", "prune", "distill"),
    ("prune", "distill", "quantize"),
    ("quantize", "distill", "prune"),
    ("distill", "prune", "quantize"),
    ("distill", "quantize", "prune"),
)


def composition() -> Iterator[dict[str, Any]]:
    """S6, trained on labels, then 75 % pruned, rounded to 3 bits and trained 3 epochs more in some order."""
    losses = {"train": cross_entropy, "distill": distilling(targets("teacher60"), 18000)}
    for order in ORDERS:
        rows = []
        for seed in SEEDS:
            net = Compressed(student("S6", "", 18000, 18000, seed))
            for step in order:
                if step == "prune":
                    net.prune(0.75)
                elif step == "quantize":
                    net.bits = 3
                else:
                    net.fit(3, seed, losses[step])
            rows.append(_measured(net))
        accuracies = [row["accuracy"] for row in rows]
        mean = round(sum(accuracies) / len(SEEDS), 3)
        yield {"order": list(order), "bytes": rows[0]["bytes"], "accuracy": mean, "accuracies": accuracies}


def specialist() -> Iterator[dict[str, Any]]:
    """Networks that know only the classes of a group, and generalists whose other outputs are left out."""
    for group, classes in GROUPS.items():
        learned, judged = _only(_data().train, classes), _only(_data().test, classes)
        soft = targets("teacher60")[torch.isin(_data().train.y, torch.tensor(classes))][:, :, list(classes)]
        losses = {"": cross_entropy, "teacher60": distilling(soft, len(learned))}
        about = {"group": group, "classes": list(classes)}
        for teacher, loss in losses.items():
            nets = [train(build("S3", classes=len(classes), seed=seed), learned, seed, loss) for seed in SEEDS]
            yield about | _specialist("S3", teacher, len(classes), nets, judged, classes)
        generalists = {"S3": [student("S3", "", 18000, 18000, seed) for seed in SEEDS]}
        generalists |= {name: [student(name, "", 18000, 18000, seed) for seed in SEEDS] for name in ("S5", "S6")}
        generalists["T4"] = [load_checkpoint("teacher60")]
        for network, nets in generalists.items():
            yield about | _specialist(network, "", 10, nets, judged, classes)


def _only(split: Split, classes: tuple[int, ...]) -> Split:
    """The images of `classes`, labeled by their place in it."""
    wanted = torch.tensor(classes)
    part = split[torch.isin(split.y, wanted)]
    return Split(part.x, (part.y[:, None] == wanted).int().argmax(1))


def _specialist(
    network: str, teacher: str, known: int, nets: list[nn.Sequential], judged: Split, classes: tuple[int, ...]
) -> dict[str, Any]:
    accuracies = [percent(net, judged, classes) for net in nets]
    size = len(student_file(nets[0], 32))
    return {
        "student": network, "teacher": teacher, "classes_known": known, "bytes": size, "accuracies": accuracies
    }  # fmt: skip


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "paired": paired,
    "front": front,
    "composition": composition,
    "specialist": specialist,
}


def store(results: dict[str, Any], out: Path) -> None:
    """Write `results` and their entry in the manifest into `out`."""
    data = (json.dumps(results, indent=1) + "\n").encode()
    write_atomically(out / FILE, data)
    about = "Students of teacher60: paired seeds, orders of compression, specialists, and the front up to 30,000 bytes"
    sha256 = hashlib.sha256(data).hexdigest()
    record_asset(Asset(FRONT, FILE, len(data), sha256, LICENSE, LICENSE_FILE, RECIPE, about), out)


def main(arguments: list[str] | None = None) -> None:
    """Measure the chosen parts (all: about 25 minutes of one core) and store them row by row."""
    parser = argparse.ArgumentParser(description="Measure what lab 03 compares.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    chosen = parser.parse_args(arguments)
    results: dict[str, Any] = {"recipe": RECIPE, "seeds": list(SEEDS)} | {name: [] for name in PARTS}
    if (chosen.out / FILE).exists():
        results |= json.loads((chosen.out / FILE).read_text(encoding="utf-8"))
    for name in chosen.parts:
        results[name] = []
        for row in PARTS[name]():
            results[name].append(row)
            print(name, json.dumps(row), flush=True)
            store(results, chosen.out)


if __name__ == "__main__":
    main()
