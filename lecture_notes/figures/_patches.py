"""Running the first layers of a network patch by patch: what it needs, what it repeats, and that it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

Span = tuple[int, int]  # rows (or columns) from, up to


@dataclass(frozen=True)
class Window:
    """A layer that looks through a window: a 3x3 convolution or a pooling."""

    kernel: int
    stride: int
    padding: int
    size: int  # rows of its input
    channels: int  # of its output
    macs: int  # for each position of its output

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def needs(self, rows: Span) -> Span:
        """The rows of the input behind these rows of the output, those of the padding left out."""
        start, end = rows
        first, last = start * self.stride - self.padding, (end - 1) * self.stride - self.padding + self.kernel
        return max(first, 0), min(last, self.size)


def windows(net: nn.Sequential, upto: str, size: int = 28) -> list[Window]:
    """The windows of a plain chain, up to and with the layer `upto`."""
    chain: list[Window] = []
    channels = 1
    for name, layer in net.named_children():
        if isinstance(layer, nn.Conv2d):
            kernel, channels = layer.kernel_size[0], layer.out_channels
            macs = layer.in_channels * kernel**2 * channels
            chain.append(Window(kernel, layer.stride[0], int(layer.padding[0]), size, channels, macs))
            size = chain[-1].out
        elif isinstance(layer, nn.MaxPool2d):
            chain.append(Window(2, 2, 0, size, channels, 0))
            size = chain[-1].out
        if name == upto:
            break
    return chain


def spans(size: int, parts: int) -> list[Span]:
    """`size` rows in `parts` runs that differ by one row at most, the longer ones first."""
    ends = [-(-size * i // parts) for i in range(parts + 1)]
    return list(pairwise(ends))


def pyramid(chain: Sequence[Window], rows: Span) -> list[Span]:
    """The rows behind `rows` of the last output: [input of the chain, output of each layer]."""
    found = [rows]
    for window in reversed(chain):
        found.append(window.needs(found[-1]))
    return found[::-1]


@dataclass(frozen=True)
class Cost:
    """MACs of the patched layers, and most values alive at once while they run (image and result included)."""

    macs: int
    peak: int


def cost(chain: Sequence[Window], parts: int) -> Cost:
    """`parts` x `parts` patches of the last output, one after the other."""
    work = most = 0
    image, result = chain[0].size ** 2, chain[-1].out ** 2 * chain[-1].channels
    edges = [pyramid(chain, rows) for rows in spans(chain[-1].out, parts)]
    for tall in edges:
        for wide in edges:
            area = [(b - a) * (d - c) for (a, b), (c, d) in zip(tall[1:], wide[1:], strict=True)]
            sizes = [0, *(n * window.channels for n, window in zip(area, chain, strict=True))]
            sizes[-1] = 0  # the result's own place is counted already
            work += sum(n * window.macs for n, window in zip(area, chain, strict=True))
            most = max(most, image + result + max(a + b for a, b in pairwise(sizes)))
    return Cost(work, most)


def in_patches(net: nn.Sequential, x: torch.Tensor, upto: str, parts: int) -> torch.Tensor:
    """The output of `upto`, computed patch by patch; zeros pad only where the image ends."""
    chain = windows(net, upto, x.shape[-1])
    last = chain[-1]
    edges = [pyramid(chain, rows) for rows in spans(last.out, parts)]
    result = torch.zeros(len(x), last.channels, last.out, last.out)
    for tall in edges:
        for wide in edges:
            (a, b), (c, d) = tall[0], wide[0]
            patch = one_patch(net, x[:, :, a:b, c:d], chain, tall, wide)
            result[:, :, slice(*tall[-1]), slice(*wide[-1])] = patch
    return result


def one_patch(
    net: nn.Sequential, x: torch.Tensor, chain: Sequence[Window], tall: Sequence[Span], wide: Sequence[Span]
) -> torch.Tensor:
    step = 0
    for layer in net:
        if step == len(chain) and not isinstance(layer, nn.BatchNorm2d | nn.ReLU):
            break
        if isinstance(layer, nn.Conv2d):
            left, right = margins(chain[step], wide[step], wide[step + 1])
            top, bottom = margins(chain[step], tall[step], tall[step + 1])
            x = F.conv2d(F.pad(x, (left, right, top, bottom)), layer.weight, stride=layer.stride)
        else:
            x = layer(x)
        step += isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    return x


def margins(window: Window, have: Span, want: Span) -> Span:
    """Rows of padding before and behind `have`, from which `want` can be computed."""
    before = have[0] - (want[0] * window.stride - window.padding)
    behind = (want[1] - 1) * window.stride - window.padding + window.kernel - have[1]
    return before, behind
