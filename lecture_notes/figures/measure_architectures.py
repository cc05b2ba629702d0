"""Measure what the chapter on architectures reports, and write architectures.json (about six minutes of one core).

    python lecture_notes/figures/measure_architectures.py            everything
    python lecture_notes/figures/measure_architectures.py low_rank   only this part

The tiny networks learn from the first 6,000 images of fashion-20k, all with the same recipe, and are compared on its
other 12,000 training images; the test images are read once, for the networks that were found best there.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _patches import in_patches
from _tiny_networks import Shape, build, layer, macs, peak, search_space
from torch import nn

from fourbit.data import Dataset, load, to_float
from fourbit.data.assets import find_asset
from fourbit.models import count_parameters, load_checkpoint
from fourbit.training import augment, evaluate, fit, predict_logits

TARGET = Path(__file__).parent / "architectures.json"
TRAIN, EPOCHS, SHORT, SEEDS, RATE = 6000, 4, 1, (0, 1), 0.4
RANKS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256)
WIDTHS = ((4, 8, 16), (4, 8, 16), (8, 16, 32))  # of the supernet's three convolutions
SUPER_EPOCHS, ALONE_EPOCHS = 5, 3


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    data = load("fashion-20k")
    parts: dict[str, Callable[[Dataset], Any]] = {
        "search": search,
        "supernet": supernet,
        "low_rank": low_rank,
        "folded": folded,
        "patches": patches,
    }
    recipe = {"images": TRAIN, "epochs": EPOCHS, "short": SHORT, "alone": ALONE_EPOCHS, "super": SUPER_EPOCHS}
    known = {"teacher20": find_asset("teacher20").sha256, "torch": torch.__version__, "recipe": recipe}
    for name in names or parts:
        found = parts[name](data)
        measured = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
        text = json.dumps(measured | known | {name: found}, indent=1)
        TARGET.write_text(text + "\n", encoding="utf-8")


def percent(net: nn.Module, split: Any) -> float:
    return round(100 * evaluate(net, split), 2)


def trained(shape: Shape, data: Dataset, epochs: int, seed: int) -> nn.Sequential:
    net = build(shape, seed)
    fit(net, data.train[:TRAIN], epochs=epochs, lr=RATE, seed=seed)
    return net


def search(data: Dataset) -> list[dict[str, Any]]:
    """Every network of the search space."""
    return [examined(shape, data) for shape in search_space()]


def examined(shape: Shape, data: Dataset) -> dict[str, Any]:
    """One network: its counts, its accuracy after all epochs for each seed, and what cheaper looks say of it."""
    nets = [trained(shape, data, EPOCHS, seed) for seed in SEEDS]
    row = {
        "name": shape.name,
        "kind": shape.kind,
        "grid": shape.grid,
        "depth": shape.depth,
        "width": shape.width,
        "macs": macs(shape),
        "parameters": count_parameters(nets[0]),
        "peak": peak(shape),
        "peak_in_place": peak(shape, in_place=True),
        "accuracy": [percent(net, data.train[TRAIN:]) for net in nets],
        "test": [percent(net, data.test) for net in nets],
        "short": percent(trained(shape, data, SHORT, SEEDS[-1] + 1), data.train[TRAIN:]),
        "gradient": gradient_norm(shape, data),
        "synflow": synflow(shape),
    }
    print(row, flush=True)
    return row


def gradient_norm(shape: Shape, data: Dataset) -> float:
    """Zero-cost: the norm of the gradient of one batch at initialization."""
    net = build(shape, SEEDS[-1] + 1).train()
    F.cross_entropy(net(to_float(data.train.x[:128])), data.train.y[:128]).backward()
    return sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None) ** 0.5


def synflow(shape: Shape) -> float:
    """Zero-cost, without data: the sum of |w dR/dw|, R the output for an image of ones through |w|."""
    net = build(shape, SEEDS[-1] + 1).double().eval()  # statistics of 0 and 1: normalization does nothing
    for parameter in net.parameters():
        parameter.data.abs_()
    net(torch.ones(1, 1, 28, 28, dtype=torch.float64)).sum().backward()
    return sum(float((p.detach() * p.grad).abs().sum()) for p in net.parameters() if p.grad is not None)


# one set of weights for 27 networks


Widths = tuple[int, ...]


def chain(widths: Widths) -> nn.Sequential:
    """Three convolutions of these widths, on grids of 14, 14 and 7, and a linear layer."""
    first, second, third = widths
    convs = (layer(1, first, 3, 2), layer(first, second, 3), layer(second, third, 3, 2))
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(third, 10))


def shared(net: nn.Sequential, x: torch.Tensor, widths: Widths) -> torch.Tensor:
    """The logits of a part of the supernet: the first channels of each layer, normalized by the batch's statistics."""
    for (conv, norm, _), width in zip(net[:3], widths, strict=True):
        x = F.conv2d(x, conv.weight[:width, : x.shape[1]], stride=conv.stride, padding=1)
        x = F.relu(F.batch_norm(x, None, None, norm.weight[:width], norm.bias[:width], training=True))
    return F.linear(x.mean((2, 3)), net[5].weight[:, : widths[-1]], net[5].bias)


def cut(net: nn.Sequential, widths: Widths) -> nn.Sequential:
    """A plain network with the weights, and the statistics, of a part of the supernet."""
    part = chain(widths)
    own, state = net.state_dict(), part.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(own[name][tuple(slice(n) for n in value.shape)] if value.ndim else own[name])
    return part.eval()


def refreshed(net: nn.Sequential, data: Dataset) -> nn.Sequential:
    """Batch-normalization statistics over ten batches of training images."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    net.train()
    with torch.no_grad():
        for images in data.train.x[:1280].split(128):
            net(to_float(images))
    return net.eval()


def train_supernet(data: Dataset) -> nn.Sequential:
    """In each step the largest, the smallest and one random part; their gradients are added."""
    torch.manual_seed(0)
    largest, smallest = tuple(w[-1] for w in WIDTHS), tuple(w[0] for w in WIDTHS)
    net, split, generator = chain(largest).train(), data.train[:TRAIN], torch.Generator().manual_seed(0)
    total = SUPER_EPOCHS * (TRAIN // 128)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total)
    for _ in range(total):
        rows = torch.randint(0, TRAIN, (128,), generator=generator)
        x = to_float(augment(split.x[rows], generator, flip=True, pad=0)[0])
        picked = tuple(w[int(torch.randint(0, 3, (), generator=generator))] for w in WIDTHS)
        optimizer.zero_grad()
        for widths in (largest, picked, smallest):
            (F.cross_entropy(shared(net, x, widths), split.y[rows]) / 3).backward()
        optimizer.step()
        schedule.step()
    return refreshed(net, data)


def supernet(data: Dataset) -> list[dict[str, Any]]:
    """All 27 networks: trained alone, and cut from the supernet with its statistics or with their own."""
    net, rest = train_supernet(data), data.train[TRAIN:]
    rows: list[dict[str, Any]] = []
    for widths in itertools.product(*WIDTHS):
        torch.manual_seed(0)
        alone = chain(widths)
        fit(alone, data.train[:TRAIN], epochs=ALONE_EPOCHS, lr=RATE, seed=0)
        part = cut(net, widths)
        stale = percent(part, rest)
        row = {"widths": widths, "alone": percent(alone, rest), "stale": stale}
        rows.append(row | {"shared": percent(refreshed(part, data), rest)})
        print(rows[-1], flush=True)
    return rows


# changes of a trained network


def low_rank(data: Dataset) -> list[dict[str, float]]:
    """fc1 of teacher20 by its largest singular values: of the weight, and of the weight times its inputs."""
    net = load_checkpoint("teacher20")
    place = [name for name, _ in net.named_children()].index("fc1")
    fc1, head, tail = net.get_submodule("fc1"), net[:place], net[place:]
    weight = fc1.get_parameter("weight").detach().double()
    inputs = predict_logits(head, data.train.x[:4000]).double()
    second = inputs.T @ inputs / len(inputs) + 1e-6 * torch.eye(weight.shape[1], dtype=torch.float64)
    root = torch.linalg.cholesky(second)
    seen = predict_logits(head, data.test.x)
    rows: list[dict[str, float]] = []
    for rank in RANKS:
        row: dict[str, float] = {"rank": rank}
        for kind in ("weight", "output"):
            near = truncated(weight, rank) if kind == "weight" else truncated(weight @ root, rank) @ root.inverse()
            with torch.no_grad():
                fc1.get_parameter("weight").copy_(near)
                right = int((tail(seen).argmax(1) == data.test.y).sum())
            row[f"{kind}.error"] = float((near - weight).norm() / weight.norm())
            row[f"{kind}.output_error"] = float(((near - weight) @ root).norm() / (weight @ root).norm())
            row[f"{kind}.accuracy"] = round(100 * right / len(data.test.y), 2)
        rows.append(row)
    return rows


def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


class Branches(nn.Module):
    """A convolution of 3x3, one of 1x1 and a skip, each with its own normalization, added up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide, self.point = layer(channels, channels, 3, relu=False), layer(channels, channels, 1, relu=False)
        self.skip = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(x) + self.point(x) + self.skip(x)

    def folded(self) -> nn.Conv2d:
        """One 3x3 convolution that computes the same in evaluation mode."""
        channels = self.skip.num_features
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(self.skip.weight.dtype)
        same = torch.eye(channels, dtype=conv.weight.dtype)[:, :, None, None]
        kernels = (self.wide[0].weight, F.pad(self.point[0].weight, (1, 1, 1, 1)), F.pad(same, (1, 1, 1, 1)))
        with torch.no_grad():
            conv.weight.zero_()
            assert conv.bias is not None
            conv.bias.zero_()
            for kernel, norm in zip(kernels, (self.wide[1], self.point[1], self.skip), strict=True):
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                conv.weight += scale.view(-1, 1, 1, 1) * kernel
                conv.bias += norm.bias - scale * norm.running_mean
        return conv


def folded(data: Dataset) -> dict[str, float]:
    """Largest difference between branches and their fold, after statistics from real feature maps."""
    torch.manual_seed(0)
    found: dict[str, float] = {}
    trunk = load_checkpoint("teacher20")[:7]  # maps of 7 x 7 with 32 channels
    for name, kind in (("float32", torch.float32), ("float64", torch.float64)):
        block = Branches(32).to(kind).train()
        with torch.no_grad():
            x = trunk(to_float(data.train.x[:256])).to(kind)
            for norm in (block.wide[1], block.point[1], block.skip):
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.normal_(norm.bias)
            block(x)
            made, wanted = block.eval().folded()(x), block(x)
            found[name] = float((made - wanted).abs().max() / wanted.abs().max())
    found |= {"parameters": count_parameters(block), "left": count_parameters(block.folded())}
    return found


def patches(data: Dataset) -> dict[str, float]:
    """Largest difference between patched and whole inference of the first layers of teacher20."""
    net, x = load_checkpoint("teacher20"), to_float(data.test.x[:64])
    found: dict[str, float] = {}
    names = [name for name, _ in net.named_children()]
    with torch.no_grad():
        for upto, parts in itertools.product(("pool2", "pool5"), (1, 2, 3)):
            whole = net[: names.index(upto) + 1](x)
            found[f"{upto}.{parts}"] = float((in_patches(net, x, upto, parts) - whole).abs().max())
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
