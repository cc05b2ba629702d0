"""Training and evaluation on one core: SGD with momentum and the one-cycle schedule (Smith, arXiv:1803.09820).

Order and augmentation come from one explicit generator and there are no loader processes, so a run with the same
seed gives the same bits on the same machine with the same number of threads. Other machines agree to about half a
percentage point of accuracy, not in bits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import fourbit.threads as _threads  # noqa: F401  (sets one thread)
from fourbit.data.splits import Split, to_float
from fourbit.errors import FourbitError
from fourbit.models.zoo import evaluating


class TrainingError(FourbitError):
    """A training run that cannot start or has diverged."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loss function may look at besides the logits.

    `x` float32 (B, C, H, W) after augmentation, `y` int64 (B,), `index` int64 (B,) rows of the split,
    `flipped` bool (B,) whether the image was mirrored.
    """

    x: torch.Tensor
    y: torch.Tensor
    index: torch.Tensor
    flipped: torch.Tensor


Loss = Callable[[torch.Tensor, Batch], torch.Tensor]


@dataclass(frozen=True)
class TrainingRun:
    """What :func:`fit` did: mean loss of each epoch, optimizer steps, seconds of processor time."""

    losses: tuple[float, ...]
    steps: int
    cpu_seconds: float


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and PyTorch, and return a new generator with the same seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def cross_entropy(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy of `logits` (B, classes) against the labels of `batch`: the default loss."""
    return F.cross_entropy(logits, batch.y)


def augment(x: torch.Tensor, generator: torch.Generator, *, flip: bool, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror half of the uint8 images (B, C, H, W) and shift each by up to `pad` pixels, filling with black.

    Returns:
        The new images, of the same shape, and which of them were mirrored: bool (B,).
    """
    count, _, height, width = x.shape
    flipped = torch.zeros(count, dtype=torch.bool)
    if flip:
        flipped = torch.rand(count, generator=generator) < 0.5
        x = torch.where(flipped.view(-1, 1, 1, 1), x.flip(3), x)
    if pad:
        shift = torch.randint(0, 2 * pad + 1, (2, count, 1, 1, 1), generator=generator)
        rows = shift[0] + torch.arange(height).view(1, 1, -1, 1)  # (B, 1, H, 1)
        columns = shift[1] + torch.arange(width).view(1, 1, 1, -1)  # (B, 1, 1, W)
        images, channels = torch.arange(count).view(-1, 1, 1, 1), torch.arange(x.shape[1]).view(1, -1, 1, 1)
        x = F.pad(x, (pad, pad, pad, pad))[images, channels, rows, columns]
    return x, flipped


def fit(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    lr: float = 0.1,
    seed: int = 0,
    batch: int = 128,
    weight_decay: float = 5e-4,
    flip: bool = True,
    pad: int = 0,
    loss: Loss = cross_entropy,
    after_step: Callable[[nn.Module], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> TrainingRun:
    """Train `model` in place on `split` and leave it in evaluation mode, its weights contiguous.

    SGD with Nesterov momentum; the learning rate rises to `lr` over the first 30 % of the steps and falls to
    almost nothing along cosines, while the momentum goes from 0.95 to 0.85 and back. Each epoch has N // batch
    steps in a new random order; the remaining images sit that epoch out. Parameters that do not require a
    gradient stay as they are.

    Args:
        loss: takes the logits and the :class:`Batch`, returns a scalar; distillation looks up a teacher here.
        after_step: called after each optimizer step, for instance to set pruned weights back to zero.
        after_epoch: called with the epoch, from 1, and its mean loss, for instance to draw progress.

    Raises:
        TrainingError: if there is nothing to train on, or an epoch's mean loss is not finite.
    """
    if epochs < 1 or not len(split):
        raise TrainingError(f"nothing to train: {epochs} epochs on {len(split)} images")
    batch = min(batch, len(split))
    steps = len(split) // batch
    generator = torch.Generator().manual_seed(seed)
    optimizer, schedule = _one_cycle(model, epochs * steps, lr, weight_decay)

    def step(rows: torch.Tensor) -> float:
        images, flipped = augment(split.x[rows], generator, flip=flip, pad=pad)
        x = to_float(images).contiguous(memory_format=torch.channels_last)
        value = loss(model(x), Batch(x, split.y[rows], rows, flipped))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(model)
        return float(value.detach())

    # channels_last is 1.1 to 1.5 times as fast here; contiguous again afterwards, since
    # torch.nn.utils.prune.global_unstructured cannot view channels_last weights.
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    started, losses = time.process_time(), []
    try:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(split), generator=generator)[: steps * batch].view(steps, batch)
            losses.append(sum(step(rows) for rows in order) / steps)
            if not np.isfinite(losses[-1]):
                raise TrainingError(f"the loss of epoch {epoch} is {losses[-1]}; try a lower lr than {lr}")
            if after_epoch is not None:
                after_epoch(epoch, losses[-1])
    finally:
        model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return TrainingRun(tuple(losses), epochs * steps, time.process_time() - started)


def _one_cycle(
    model: nn.Module, steps: int, lr: float, weight_decay: float
) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.OneCycleLR]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.95, nesterov=True, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)


@torch.no_grad()
def predict_logits(model: nn.Module, x: torch.Tensor, *, batch: int = 500) -> torch.Tensor:
    """Return the logits float32 (N, classes) of uint8 images `x` (N, C, H, W), in evaluation mode."""
    with evaluating(model):
        return torch.cat([model(to_float(part)) for part in x.split(batch)])


def evaluate(model: nn.Module, split: Split, *, batch: int = 500) -> float:
    """Return the top-1 accuracy of `model` on `split`, in [0, 1]; the layers keep their modes.

    Raises:
        TrainingError: if `split` is empty.
    """
    if not len(split):
        raise TrainingError("the accuracy of no images is undefined; give at least one")
    logits = predict_logits(model, split.x, batch=batch)
    return int((logits.argmax(1) == split.y).sum()) / len(split)
