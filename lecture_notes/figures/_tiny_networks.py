"""The networks of the chapter on architectures: one family, three kinds of blocks, and what each of them costs.

A stem of stride 1, 2 or 4 makes a grid of 28, 14 or 7 positions a side, `width` channels wide; `depth` blocks work on
it, `depth` more on half the grid with twice the width, and one linear layer reads the mean over the positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from fourbit.measure import total_macs

EXPANSION = 4  # of the inverted residual
IMAGE = 28


@dataclass(frozen=True)
class Shape:
    """A point of the search space."""

    kind: str  # "standard", "separable" or "inverted"
    grid: int = 14
    depth: int = 1
    width: int = 8

    @property
    def name(self) -> str:
        return f"{self.kind} {self.grid} x{self.depth} w{self.width}"


def layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, batch normalization and, unless the block projects, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU()] if relu else []))


def standard(inputs: int, outputs: int, stride: int) -> nn.Module:
    return layer(inputs, outputs, 3, stride)


def separable(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(layer(inputs, inputs, 3, stride, groups=inputs), layer(inputs, outputs, 1))


class Inverted(nn.Module):
    """Expand, filter each channel, project back without a ReLU; a skip where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * inputs
        self.skip = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            layer(inputs, inner, 1),
            layer(inner, inner, 3, stride, groups=inner),
            layer(inner, outputs, 1, relu=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.skip else self.body(x)


BLOCKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "standard": standard,
    "separable": separable,
    "inverted": Inverted,
}


def build(shape: Shape, seed: int = 0) -> nn.Sequential:
    """An untrained network for images (N, 1, 28, 28)."""
    torch.manual_seed(seed)
    block, width = BLOCKS[shape.kind], shape.width
    widths = [(width, width, 1)] * shape.depth + [(width, 2 * width, 2)] + [(2 * width,) * 2 + (1,)] * (shape.depth - 1)
    stem = layer(1, width, 3, IMAGE // shape.grid)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))
    return nn.Sequential(stem, *(block(*sizes) for sizes in widths), *head)


def macs(shape: Shape) -> int:
    return total_macs(build(shape), torch.zeros(1, 1, IMAGE, IMAGE))


def fitted(shape: Shape, budget: int) -> Shape:
    """The shape with the width whose MACs come closest to `budget`, in ratio."""
    best, least = shape, math.inf
    for width in range(2, 200):
        candidate = replace(shape, width=width)
        count = macs(candidate)
        if abs(math.log(count / budget)) < least:
            best, least = candidate, abs(math.log(count / budget))
        if count > budget:
            break
    return best


# what must be in memory


@dataclass(frozen=True)
class Step:
    """One convolution of the schedule, normalization and ReLU done in place: values that live while it runs."""

    name: str
    inputs: int
    outputs: int
    held: int  # a skip that waits
    in_place: int  # live values if a depthwise convolution writes over its input, one channel at a time


def steps(shape: Shape) -> Iterator[Step]:
    """The convolutions of a network in the order in which they run; sizes in values of one image."""
    net = build(shape).eval()
    found: list[Step] = []
    held = 0

    def see(conv: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        inputs, outputs = given[0].numel(), made.numel()
        depthwise = conv.groups > 1 and conv.stride == (1, 1)
        live = outputs + outputs // conv.out_channels if depthwise else inputs + outputs
        waits = held if inputs != held else 0  # the first layer of such a block reads the very tensor that waits
        found.append(Step(f"{conv.kernel_size[0]}x{conv.kernel_size[0]}", inputs, outputs, waits, live + waits))

    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            conv.register_forward_hook(see)
    x = torch.zeros(1, 1, IMAGE, IMAGE)
    with torch.no_grad():
        for block in net:
            held = x.numel() if isinstance(block, Inverted) and block.skip else 0
            x = block(x)
    yield from found


def peak(shape: Shape, in_place: bool = False) -> int:
    """Most values alive at once, layer by layer: with 8-bit activations, bytes."""
    return max(step.in_place if in_place else step.inputs + step.outputs + step.held for step in steps(shape))


def search_space() -> list[Shape]:
    """A ladder of budgets for each kind, and at 200,000 MACs other grids and depths."""
    budgets = {"standard": LADDER, "separable": LADDER[:4], "inverted": LADDER[1:4]}
    ladder = [fitted(Shape(kind), budget) for kind in BLOCKS for budget in budgets[kind]]
    grids = [Shape(kind, grid=grid) for kind in ("standard", "separable") for grid in (7, 28)]
    depths = [Shape(kind, depth=depth) for kind in ("standard", "separable", "inverted") for depth in (2, 3)]
    return ladder + [fitted(shape, MIDDLE) for shape in grids + depths]


LADDER = (20_000, 60_000, 200_000, 600_000, 2_000_000)
MIDDLE = 200_000
