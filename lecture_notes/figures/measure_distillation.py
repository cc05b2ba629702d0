"""Measure what the chapter on distillation reports beyond the lab's stored results, and write distillation.json.

    python lecture_notes/figures/measure_distillation.py

Five minutes of one core the first time; later runs train again only with --again. The key `lab` is a copy of
fourbit/assets/fronts/distillation.json, so that the chapter's figures and numbers change with it. Nothing is chosen by
what is measured here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fourbit.data import load
from fourbit.data.assets import find_asset, read_asset
from fourbit.distillation import FRONT
from fourbit.models import build, cached_logits, load_checkpoint
from fourbit.recipes import distillation as recipe
from fourbit.training import Batch, fit, predict_logits

TARGET = Path(__file__).parent / "distillation.json"
LABELS = 4000
TEMPERATURES = (1.0, 2.0, 8.0)  # 4 is the lab's own


def main() -> None:
    torch.set_num_threads(1)
    measured: dict[str, Any] = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    if "training" not in measured or "--again" in sys.argv:
        measured["training"] = {"temperature": temperatures(), "smoothing": smoothing(), "features": features()}
    shipped = {name: find_asset(name).sha256 for name in ("teacher60", "teacher60-logits", "s5")}
    measured |= {"checkpoints": shipped, "torch": torch.__version__, "seeds": recipe.SEEDS}
    measured |= {"gradients": gradients(), "example": example(), "kept": kept(), "lab": json.loads(read_asset(FRONT))}
    TARGET.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def trained(seed: int, loss: Any) -> float:
    """Test accuracy of S5 after as many steps as in the lab, on its first 4,000 labeled images."""
    data, model = load("fashion-20k"), build("S5", seed=seed)
    fit(model, data.train[:LABELS], epochs=round(recipe.STEPS / (LABELS // 128)), seed=seed, loss=loss)
    return recipe.percent(model, data.test)


def temperatures() -> dict[str, list[float]]:
    """Distillation at other temperatures, the weight of the teacher as in the lab."""
    soft, weight = cached_logits().train, recipe.WEIGHT
    rows: dict[str, list[float]] = {}
    for t in TEMPERATURES:

        def loss(logits: torch.Tensor, batch: Batch, t: float = t) -> torch.Tensor:
            wanted = (soft[batch.index, batch.flipped.long()] / t).softmax(1)
            hard = F.cross_entropy(logits, batch.y)
            return weight * t**2 * F.cross_entropy(logits / t, wanted) + (1 - weight) * hard

        rows[f"{t:g}"] = [trained(seed, loss) for seed in recipe.SEEDS]
        print(t, rows[f"{t:g}"], flush=True)
    return rows


def smoothing() -> list[float]:
    """No teacher: one tenth of each label spread evenly over the classes."""

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(logits, batch.y, label_smoothing=0.1)

    return [trained(seed, loss) for seed in recipe.SEEDS]


class WithProjection(nn.Module):
    """A student and the 1x1 convolution that its hint needs, trained together."""

    def __init__(self, student: nn.Sequential, channels: tuple[int, int]) -> None:
        super().__init__()
        self.student, self.projection = student, nn.Conv2d(*channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.student(x)


def features() -> dict[str, list[float]]:
    """Labels and, inside, the teacher's maps of 7 x 7 behind the second pooling; one weight each, never tuned."""
    data, teacher = load("fashion-20k"), load_checkpoint("teacher60")
    trunk = teacher[: [name for name, _ in teacher.named_children()].index("relu3") + 1]
    with torch.no_grad():
        images = data.train.x[:LABELS]
        maps = torch.stack([predict_logits(trunk, x) for x in (images, images.flip(3))], 1)  # (4000, 2, 64, 7, 7)
    rows: dict[str, list[float]] = {"hint": [], "attention": []}
    for kind, row in rows.items():
        for seed in recipe.SEEDS:
            torch.manual_seed(seed)
            model = WithProjection(build("S5", seed=seed), (16, 64))
            seen: list[torch.Tensor] = []
            model.student.get_submodule("relu3").register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))

            def loss(logits: torch.Tensor, batch: Batch, kind: str = kind, model: Any = model, seen: Any = seen) -> Any:
                ours, theirs = seen.pop(), maps[batch.index, batch.flipped.long()]
                if kind == "hint":
                    return F.cross_entropy(logits, batch.y) + 0.5 * F.mse_loss(model.projection(ours), theirs)
                where, there = (x.pow(2).sum(1).flatten(1) for x in (ours, theirs))
                return F.cross_entropy(logits, batch.y) + 10 * (2 - 2 * F.cosine_similarity(where, there)).mean()

            fit(model, data.train[:LABELS], epochs=round(recipe.STEPS / (LABELS // 128)), seed=seed, loss=loss)
            seen.clear()
            row.append(recipe.percent(model, data.test))
        print(kind, row, flush=True)
    return rows


def gradients() -> dict[str, list[float]]:
    """Size of the teacher's gradient with respect to the student's logits, on 2,000 validation images, without T^2."""
    teacher, student = cached_logits().val[:, 0], predict_logits(load_checkpoint("s5"), load("fashion-20k").val.x)
    temperatures = [2**k for k in (0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6)]
    gaps = {t: ((student / t).softmax(1) - (teacher / t).softmax(1)) / t for t in temperatures}
    hard = student.softmax(1) - F.one_hot(load("fashion-20k").val.y, 10)
    return {
        "temperature": temperatures,
        "size": [float(gap.norm(dim=1).mean()) for gap in gaps.values()],
        "labels": [float(hard.norm(dim=1).mean())],
    }


def example() -> dict[str, Any]:
    """The validation image of a shirt on which the teacher wavers most between its first two classes, yet is right."""
    data, logits = load("fashion-20k"), cached_logits().val[:, 0]
    top = logits.softmax(1).sort(1, descending=True)
    right = (top.indices[:, 0] == data.val.y) & (data.val.y == data.classes.index("Shirt")) & (top.values[:, 0] > 0.7)
    index = int(torch.where(right, top.values[:, 1], 0).argmax())
    rows = {str(t): [round(p, 4) for p in (logits[index] / t).softmax(0).tolist()] for t in (1, 4, 20)}
    return {"index": index, "classes": list(data.classes), "probabilities": rows}


def kept() -> dict[str, list[float]]:
    """Mean probability that the teacher's k largest classes hold, at temperatures 1 and 4, for k = 1 to 10."""
    logits = cached_logits().train[:, 0]
    sorted_ = {t: (logits / t).softmax(1).sort(1, descending=True).values for t in (1, 4)}
    return {str(t): [float(p[:, :k].sum(1).mean()) for k in range(1, 11)] for t, p in sorted_.items()}


if __name__ == "__main__":
    main()
