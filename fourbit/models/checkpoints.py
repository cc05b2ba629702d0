"""Trained networks that come with Fourbit, and one teacher's logits for distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from fourbit.data.assets import FOLDER, read_asset
from fourbit.errors import DataError
from fourbit.models.zoo import build

CHECKPOINTS = ("teacher20", "teacher60", "s6", "s5")


@dataclass(frozen=True)
class CheckpointRecord:
    """How a checkpoint was made and what it reaches, as its recipe measured it.

    `network` is a name of :data:`fourbit.models.PLANS`; accuracies are top-1, in [0, 1], on `val` (2,000 images)
    and `test` (10,000 images) of `data`; `cpu_seconds` of one thread went into training. `chosen_on_val` says what
    was compared on `val` before; nothing was chosen on `test`.
    """

    name: str
    network: str
    data: str
    images: int
    epochs: int
    lr: float
    pad: int
    seed: int
    parameters: int
    macs: int
    accuracy_val: float
    accuracy_test: float
    cpu_seconds: float
    chosen_on_val: str
    versions: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class CachedLogits:
    """A teacher's logits for the images of fashion-20k, as they are and mirrored.

    `train` float32 (18000, 2, 10) and `val` float32 (2000, 2, 10): image, mirrored or not, class. They are stored
    in half precision. With :class:`fourbit.training.Batch` look up ``train[batch.index, batch.flipped.long()]``.
    """

    teacher: str
    train: torch.Tensor
    val: torch.Tensor


def load_checkpoint(name: str, folder: Path = FOLDER) -> nn.Sequential:
    """Return the trained network `name` of :data:`CHECKPOINTS`, in evaluation mode; it is the caller's own copy.

    Its input is float32 (N, 1, 28, 28) from :func:`fourbit.data.to_float`, its output logits (N, 10).

    Raises:
        DataError: for an unknown name, or if its file is missing or damaged.
    """
    record = checkpoint_record(name, folder)
    model = build(record.network, seed=0)
    try:
        model.load_state_dict(_tensors(name, folder))
    except RuntimeError as error:
        raise DataError(f"the asset {name} does not hold the layers of {record.network} ({error})") from None
    return model.eval()


def checkpoint_record(name: str, folder: Path = FOLDER) -> CheckpointRecord:
    """Return how the checkpoint `name` was made and what it reaches.

    Raises:
        DataError: for an unknown name, or if the record is missing or damaged.
    """
    if name not in CHECKPOINTS:
        raise DataError(f"no checkpoint is called {name!r}; there are {', '.join(CHECKPOINTS)}")
    path = folder / f"{name}.json"
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return CheckpointRecord(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); reinstall Fourbit") from None


def cached_logits(teacher: str = "teacher60", folder: Path = FOLDER) -> CachedLogits:
    """Return the logits of `teacher` for the 20,000 training and validation images of fashion-20k.

    Raises:
        DataError: for a teacher without cached logits, or if their file is missing or damaged.
    """
    if teacher != "teacher60":
        raise DataError(f"there are no cached logits of {teacher!r}; there are those of 'teacher60'")
    tensors = _tensors(f"{teacher}-logits", folder)
    return CachedLogits(teacher, tensors["train"].float(), tensors["val"].float())


def _tensors(asset: str, folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(read_asset(asset, folder))
    except SafetensorError as error:
        raise DataError(f"the asset {asset} is not a safetensors file ({error}); reinstall Fourbit") from None
