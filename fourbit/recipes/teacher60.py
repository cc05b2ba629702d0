"""Train teacher60, the teacher of the distillation lab, and cache its logits: python -m fourbit.recipes.teacher60

It learns from 58,000 images, so its logits carry more than the 18,000 labels that a student of fashion-20k sees;
a gain by distillation shows transfer from a better-trained teacher, not that soft targets help at equal data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fourbit.data import load
from fourbit.recipes.checkpoints import Spec, make, options, save
from fourbit.training import predict_logits

SPEC = Spec(
    "teacher60",
    "T4",
    "fashion-60k",
    epochs=10,
    recipe="python -m fourbit.recipes.teacher60",
    chosen_on_val="pad 0 (0.9320), 1 (0.9260) or 2 (0.9265)",
)


def cache_logits(model: nn.Sequential, out: Path) -> None:
    """Write teacher60-logits.safetensors: float16, `train` (18000, 2, 10) and `val` (2000, 2, 10) of fashion-20k."""
    dataset = load("fashion-20k")
    logits = {
        name: torch.stack([predict_logits(model, split.x), predict_logits(model, split.x.flip(3))], 1).half()
        for name, split in (("train", dataset.train), ("val", dataset.val))
    }
    about = "teacher60's logits for fashion-20k, train and val, each image as it is and mirrored, float16"
    save(logits, "teacher60-logits", SPEC.recipe, about, out)


def main(arguments: list[str] | None = None) -> None:
    """Train on the 58,000 training images of fashion-60k (five minutes of one core), then cache the logits."""
    chosen = options(arguments, "Train teacher60 on fashion-60k and cache its logits for fashion-20k.")
    model, _ = make(SPEC, chosen.out, limit=chosen.limit)
    cache_logits(model, chosen.out)


if __name__ == "__main__":
    main()
