"""The reference networks: plain chains of named layers, small enough to train on one core.

Each is a VGG-style chain with batch normalization (Simonyan and Zisserman, arXiv:1409.1556; Ioffe and Szegedy,
arXiv:1502.03167). The first convolution has stride 2. The number in a layer's name is its place in the plan, so
``conv3``, ``bn3`` and ``relu3`` belong together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

import fourbit.threads as _threads  # noqa: F401  (sets one thread)
from fourbit.errors import FourbitError


@dataclass(frozen=True)
class Plan:
    """A network's layout: channels of the 3x3 convolutions ("M" = 2x2 max pooling, "A" = global average), then
    the width of the hidden fully connected layer (None: there is none)."""

    body: tuple[int | str, ...]
    hidden: int | None


# Parameters and multiply-accumulates (Conv2d and Linear only) for 28x28x1 images and 10 classes.
PLANS: dict[str, Plan] = {
    "T4": Plan((32, 32, "M", 64, 64, "M", 128), 256),  # 436,906 parameters, 5,533,312 MACs
    "S6": Plan((16, 24, "M", 48, "M"), 64),  # 42,506 parameters, 1,241,920 MACs
    "S5": Plan((6, 12, "M", 16, "M"), 16),  # 4,988 parameters, 224,728 MACs
    "S3": Plan((4, 8, "M", 16, "A"), None),  # 1,702 parameters, 120,112 MACs
}


def build(
    name: str, in_channels: int = 1, size: int = 28, classes: int = 10, *, seed: int | None = None
) -> nn.Sequential:
    """Return an untrained network of :data:`PLANS` for images (N, `in_channels`, `size`, `size`).

    Its children are conv0, bn0, relu0, ..., pool2, ..., flatten, fc1, fc1_relu, fc2; the output is logits
    (N, `classes`), float32. Convolutions have no bias, since a batch normalization follows each.

    Args:
        seed: initialize from this seed and leave PyTorch's global generator as it was; None: use the global one.

    Raises:
        FourbitError: for an unknown name or a `size` that the pooling layers reduce to nothing.
    """
    if name not in PLANS:
        raise FourbitError(f"there is no network {name!r}; the networks are {', '.join(PLANS)}")
    if seed is None:
        return nn.Sequential(_layers(PLANS[name], in_channels, size, classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(_layers(PLANS[name], in_channels, size, classes))


def _layers(plan: Plan, channels: int, size: int, classes: int) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, entry in enumerate(plan.body):
        if entry == "M":
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            size //= 2
        elif entry == "A":
            layers[f"pool{i}"] = nn.AdaptiveAvgPool2d(1)
            size = min(size, 1)
        else:
            width, stride = int(entry), 2 if i == 0 else 1
            layers[f"conv{i}"] = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
            layers[f"bn{i}"] = nn.BatchNorm2d(width)
            layers[f"relu{i}"] = nn.ReLU()
            channels, size = width, -(-size // stride)
    if size < 1:
        raise FourbitError("images of this size shrink to nothing in the pooling layers; use 8x8 or larger")
    layers["flatten"] = nn.Flatten()
    return _add_head(layers, channels * size * size, plan.hidden, classes)


def _add_head(
    layers: OrderedDict[str, nn.Module], features: int, hidden: int | None, classes: int
) -> OrderedDict[str, nn.Module]:
    if hidden is not None:
        layers["fc1"] = nn.Linear(features, hidden)
        layers["fc1_relu"] = nn.ReLU()
        features = hidden
    layers["fc2"] = nn.Linear(features, classes)
    return layers


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable values in `model` (weights, biases, batch-normalization scales and shifts)."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every layer of `model` into evaluation mode inside the block, and back into its own mode after it."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for layer, mode in modes:
            layer.training = mode
