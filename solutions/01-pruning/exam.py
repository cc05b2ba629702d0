"""The exam of lab 01: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from published notebooks and from issues of pruning libraries; each is a small patch of the reference.
"""

from __future__ import annotations

from collections import OrderedDict

import properties as hold
import torch
from torch import nn

from fourbit.codec import Ref
from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property

NOTES = "lecture_notes/pruning.md#"


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    return Mistake(id, name, patch, why, NOTES + anchor)


def generator(seed: int, visible: bool, exercise: str) -> torch.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    salt = sum(ord(letter) * 31**i for i, letter in enumerate(exercise)) + (0 if visible else 7919)
    return torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**31)


# 1. magnitude_mask


def magnitude_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "magnitude_mask")
    rows, columns = (4, 6) if visible else (7, 11)
    kernel = (4, 3, 3, 3) if visible else (6, 5, 3, 3)
    plain = torch.randn(rows, columns, generator=g)
    few_levels = torch.randint(-2, 3, (5, 8), generator=g).float()
    return [
        Case("a matrix, half removed", (plain, 0.5), tags=tags("general")),
        Case("a convolution at 70 %", (torch.randn(kernel, generator=g), 0.7), tags=tags("general")),
        Case("a vector of 11 at 0.24", (torch.randn(11, generator=g), 0.24), tags=tags("general")),
        Case("rows of unequal size", (_uneven(g, 6, 8), 0.6), tags=tags("general")),
        Case("many equal magnitudes", (few_levels, 0.45), tags=tags("ties")),
        Case("all weights equal", (torch.full((3, 5) if visible else (4, 9), -0.25), 0.4), tags=tags("ties")),
        Case("nothing removed", (torch.randn(3, 4, generator=g), 0.0), tags=tags("ends")),
        Case("everything removed", (torch.randn(3, 4, generator=g), 1.0), tags=tags("ends")),
        Case("one weight kept", (torch.randn(13, generator=g), 0.92), tags=tags("general")),
    ]


def _uneven(g: torch.Generator, rows: int, columns: int) -> torch.Tensor:
    """Rows whose scales differ by a factor of 8, so that a quota for each row differs from one for all."""
    return torch.randn(rows, columns, generator=g) * 2.0 ** torch.linspace(-1.5, 1.5, rows)[:, None]


SOLVE_MAGNITUDE = "removed = round(sparsity * w.numel())"
MAGNITUDE = Exercise(
    "magnitude_mask",
    points=8,
    difficulty=1,
    cases=magnitude_cases,
    properties=(
        Property("removes round(s n) weights, the smallest", hold.keeps_the_right_magnitudes, 3, tags=tags("general")),
        Property("counts exactly among equal magnitudes", hold.keeps_the_right_magnitudes, 2, tags=tags("ties")),
        Property("takes sparsity 0 and 1", hold.keeps_the_right_magnitudes, 1, tags=tags("ends")),
    ),
    mistakes=(
        mistake(
            "signed-values",
            "the sign counts",
            "magnitude",
            "You rank the weights by value, so every large negative weight goes first. What a weight contributes "
            "depends on how far it is from zero: rank |w|.",
            ("w.abs().flatten()", "w.flatten()"),
        ),
        mistake(
            "removes-the-largest",
            "the largest go",
            "magnitude",
            "Your order runs the wrong way: the weights that matter most are removed. Look at one row by eye: the "
            "zeros should stand where |w| is small.",
            ("argsort(stable=True)", "argsort(descending=True, stable=True)"),
        ),
        mistake(
            "inverted-mask",
            "True means removed",
            "sparsity-and-density",
            "The weights are the right ones, but True marks those that go. A mask is multiplied with the weight, "
            "so True has to mean kept; the other convention would keep exactly what you wanted to drop.",
            ("return mask.view(w.shape)", "return ~mask.view(w.shape)"),
        ),
        mistake(
            "density-for-sparsity",
            "sparsity read as density",
            "sparsity-and-density",
            "At sparsity s you keep a fraction s of the weights. Sparsity is the fraction of zeros, density the "
            "fraction that stays; the two agree only at one half, which is why a test at 50 % never finds this.",
            (SOLVE_MAGNITUDE, "removed = w.numel() - round(sparsity * w.numel())"),
        ),
        mistake(
            "floor-count",
            "the count is cut off",
            "ties-and-exact-counts",
            "int() cuts the fraction off, so a layer comes out one weight too dense whenever s n is not whole. The "
            "contract says round(s n); over many small tensors the difference adds up in the size of the file.",
            (SOLVE_MAGNITUDE, "removed = int(sparsity * w.numel())"),
        ),
        mistake(
            "strict-threshold",
            "a threshold with > removes ties",
            "ties-and-exact-counts",
            "You keep |w| > threshold, and every weight that equals the threshold goes with it. Quantized or "
            "zeroed layers are full of equal magnitudes, so you remove far more than you were asked to. Choose by "
            "rank, not by value.",
            (
                SOLVE_MAGNITUDE,
                SOLVE_MAGNITUDE + "\n    if removed:\n"
                "        return w.abs() > w.abs().flatten().sort().values[removed - 1]",
            ),
        ),
        mistake(
            "loose-threshold",
            "a threshold with >= keeps ties",
            "ties-and-exact-counts",
            "You keep |w| >= threshold, so all weights that equal the threshold stay and too few are removed. With "
            "equal magnitudes no threshold gives the exact count; rank the weights instead.",
            (
                SOLVE_MAGNITUDE,
                SOLVE_MAGNITUDE + "\n    if removed < w.numel():\n"
                "        return w.abs() >= w.abs().flatten().sort().values[removed]",
            ),
        ),
        mistake(
            "kth-value-zero",
            "kthvalue(0)",
            "ties-and-exact-counts",
            "At sparsity 0 you ask for the 0th smallest value, which does not exist: kthvalue counts from 1. "
            "Nothing to remove is a case of its own, and it does occur: the first point of every sensitivity scan.",
            (
                SOLVE_MAGNITUDE,
                SOLVE_MAGNITUDE + "\n    w.abs().flatten().kthvalue(removed)",
            ),
        ),
        mistake(
            "fraction-of-the-maximum",
            "sparsity read as a threshold",
            "magnitude",
            "You remove weights below s times the largest one. How many that is depends on the shape of the "
            "distribution: one outlier and nearly everything goes. Sparsity is a number of weights, so count.",
            (SOLVE_MAGNITUDE, "removed = int((w.abs() <= sparsity * w.abs().max()).sum())"),
        ),
        mistake(
            "quota-for-each-row",
            "every row gives the same share",
            "global-vs-uniform",
            "You remove the same fraction of every row. The contract ranks the whole tensor: rows of small weights "
            "should give more. Equal shares are another granularity, and they remove weights larger than some that "
            "stay.",
            (
                SOLVE_MAGNITUDE,
                SOLVE_MAGNITUDE + "\n    if w.ndim > 1 and len(w) > 1:\n"
                "        return torch.stack([magnitude_mask(row, sparsity) for row in w])",
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "topk of the kept",
            "def magnitude_mask(w, sparsity):\n"
            "    flat = w.detach().abs().reshape(-1)\n"
            "    kept = flat.numel() - round(sparsity * flat.numel())\n"
            "    mask = torch.zeros_like(flat).bool()\n"
            "    mask[flat.topk(kept).indices] = True\n"
            "    return mask.reshape(w.shape)\n",
        ),
        Alternative(
            "double argsort",
            "def magnitude_mask(w, sparsity):\n"
            "    ranks = w.abs().flatten().argsort(descending=True).argsort()\n"
            "    return (ranks < w.numel() - round(sparsity * w.numel())).view(w.shape)\n",
        ),
    ),
)

# 2. nm_mask


def nm_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "nm_mask")
    out = 4 if visible else 6
    return [
        Case("a square linear layer", (torch.randn(8, 8, generator=g),), tags=tags("linear")),
        Case("a wide linear layer", (torch.randn(out, 16, generator=g), 2, 4), tags=tags("linear")),
        Case("a 3x3 convolution", (torch.randn(out, 8, 3, 3, generator=g), 2, 4), tags=tags("convolution")),
        Case("a 4x4 convolution", (torch.randn(8, 8, 4, 4, generator=g), 2, 4), tags=tags("convolution")),
        Case("1 of 4", (torch.randn(4, 12, generator=g), 1, 4), tags=tags("other")),
        Case("5 of 8", (torch.randn(8, 16, generator=g), 5, 8), tags=tags("other")),
        Case("equal magnitudes", (torch.randint(-1, 2, (4, 16), generator=g).float(), 2, 4), tags=tags("ties")),
        Case("10 input channels", (torch.randn(4, 10, generator=g), 2, 4), tags=tags("tail")),
        Case("3 input channels", (torch.randn(8, 3, 3, 3, generator=g), 2, 4), tags=tags("tail")),
    ]


NM_BODY = "size = w.shape[1] // m * m"
NM_GROUPS = "groups = w[:, :size].abs().movedim(1, -1).unflatten(-1, (-1, m))"
NM_TAIL = "mask = torch.ones_like(w, dtype=torch.bool)"
NM_ORDER = "order = groups.argsort(dim=-1, descending=True, stable=True)"
NM_BACK = "mask[:, :size] = kept.flatten(-2).movedim(-1, 1)"
NM = Exercise(
    "nm_mask",
    points=8,
    difficulty=2,
    cases=nm_cases,
    properties=(
        Property("keeps the n largest of m in a linear layer", hold.keeps_n_of_m, 2, tags=tags("linear")),
        Property("groups input channels of a convolution", hold.keeps_n_of_m, 2, tags=tags("convolution")),
        Property("takes any n and m", hold.keeps_n_of_m, 1, tags=tags("other")),
        Property("keeps exactly n of equal magnitudes", hold.keeps_n_of_m, 1, tags=tags("ties")),
        Property("leaves an incomplete group dense", hold.leaves_the_tail_dense, 1, tags=tags("tail")),
        Property("still prunes the full groups before it", hold.keeps_n_of_m, 1, tags=tags("tail")),
    ),
    mistakes=(
        mistake(
            "output-dimension",
            "groups along the output channels",
            "reduction-dimension",
            "Your groups run over output channels. The hardware skips products inside one dot product, so the "
            "zeros must be spread evenly along the dimension that is summed: the input channels, dimension 1.",
            (NM_BODY, "w = w.transpose(0, 1)\n    size = w.shape[1] // m * m"),
            ("    return mask", "    return mask.transpose(0, 1)"),
        ),
        mistake(
            "memory-order",
            "groups in memory order",
            "reduction-dimension",
            "You group weights as they lie in memory, so in a convolution a group holds neighbors of one 3x3 "
            "kernel. A matrix multiplication reads input channels one after the other; group along dimension 1 "
            "only.",
            (
                NM_BODY,
                "if w.ndim == 4 and w.numel() % m == 0:\n"
                "        return nm_mask(w.reshape(-1, w.shape[2] * w.shape[3] * w.shape[1]), n, m).view(w.shape)\n    "
                + NM_BODY,
            ),
        ),
        mistake(
            "strided-groups",
            "every m-th channel instead of m consecutive",
            "n-m",
            "A group of yours takes channels that lie in // m apart. N:M means m neighbors: the index stored with "
            "each kept weight has only log2(m) bits and counts within such a group.",
            (NM_GROUPS, "groups = w[:, :size].abs().movedim(1, -1).unflatten(-1, (m, -1)).transpose(-1, -2)"),
            (NM_BACK, "mask[:, :size] = kept.transpose(-1, -2).flatten(-2).movedim(-1, 1)"),
        ),
        mistake(
            "removes-n",
            "n removed instead of n kept",
            "n-m",
            "You remove n of every m. N:M names what stays: 2:4 hides the slip because half is half, 1:4 and 5:8 "
            "show it.",
            ("order[..., :n]", "order[..., : m - n]"),
        ),
        mistake(
            "smallest-kept",
            "the smallest survive",
            "magnitude",
            "You keep the n smallest of each group. Sort by falling magnitude before you take the first n.",
            (NM_ORDER, "order = groups.argsort(dim=-1, stable=True)"),
        ),
        mistake(
            "signed-groups",
            "the sign counts",
            "magnitude",
            "You rank values, not magnitudes, so large negative weights are the first to go. Take abs() before you "
            "compare.",
            ("w[:, :size].abs()", "w[:, :size]"),
        ),
        mistake(
            "tail-removed",
            "the incomplete group is dropped",
            "n-m",
            "The last in % m input channels come out as zeros. Nothing can be skipped in an incomplete group, so "
            "libraries leave it dense; a first layer with 3 input channels would otherwise vanish.",
            (NM_TAIL, "mask = torch.zeros_like(w, dtype=torch.bool)"),
        ),
        mistake(
            "divisible-only",
            "fails when m does not divide the channels",
            "n-m",
            "You reshape all input channels into groups of m, which fails as soon as m does not divide them. Every "
            "network for images starts with 1 or 3 channels: split the tail off first.",
            (NM_BODY, "size = w.shape[1]"),
        ),
        mistake(
            "threshold-in-a-group",
            "equal magnitudes all stay",
            "ties-and-exact-counts",
            "You keep everything at or above the n-th largest of a group, so equal magnitudes keep more than n. "
            "The 2:4 format has room for exactly two values; choose by rank.",
            (
                "    mask[:, :size] = ",
                "    kept = groups >= groups.topk(n, dim=-1).values[..., -1:]\n    mask[:, :size] = ",
            ),
        ),
        mistake(
            "not-in-groups",
            "n of m over the whole row",
            "granularity",
            "You keep the right number of each row, but not of each group of m. That is fine-grained sparsity: "
            "more accurate, and without the fixed pattern that hardware needs.",
            (NM_GROUPS, NM_GROUPS + ".flatten(-2).unsqueeze(-2)"),
            ("order[..., :n]", "order[..., : size // m * n]"),
        ),
    ),
    alternatives=(
        Alternative(
            "loop over groups",
            "def nm_mask(w, n=2, m=4):\n"
            "    mask = torch.ones(w.shape, dtype=torch.bool)\n"
            "    for start in range(0, w.shape[1] - m + 1, m):\n"
            "        part = w[:, start : start + m].abs()\n"
            "        gone = part.argsort(dim=1)[:, : m - n]\n"
            "        mask[:, start : start + m].scatter_(1, gone, False)\n"
            "    return mask\n",
        ),
    ),
)

# Networks of the cases: 8x8 images, double precision, statistics that matter.


def _norm(channels: int, g: torch.Generator) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels, generator=g) + 0.5)
        norm.bias.copy_(torch.randn(channels, generator=g) * 0.5)
        norm.running_mean.copy_(torch.randn(channels, generator=g) * 0.3)
        norm.running_var.copy_(torch.rand(channels, generator=g) + 0.5)
        norm.num_batches_tracked.fill_(40)
    return norm


def _filled(layer: nn.Module, g: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for tensor in layer.parameters():
            scale = (tensor[0].numel() if tensor.ndim > 1 else 4) ** -0.5
            tensor.copy_(torch.randn(tensor.shape, generator=g) * scale * 1.4)
    return layer


def network(
    g: torch.Generator,
    widths: tuple[int, int],
    hidden: int,
    *,
    norm: bool = True,
    bias: bool = False,
    dropout: bool = False,
) -> nn.Sequential:
    """conv (stride 2) - [bn] - relu - conv - [bn] - relu - pool - flatten - fc1 - relu - fc2, 5 classes, float64."""
    a, b = widths
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv0"] = _filled(nn.Conv2d(2, a, 3, stride=2, padding=1, bias=bias), g)
    if norm:
        layers["bn0"] = _norm(a, g)
    layers["relu0"] = nn.ReLU()
    if dropout:
        layers["drop"] = nn.Dropout(0.4)
    layers["conv1"] = _filled(nn.Conv2d(a, b, 3, padding=1, bias=bias), g)
    if norm:
        layers["bn1"] = _norm(b, g)
    layers["relu1"] = nn.ReLU()
    layers["pool"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = _filled(nn.Linear(b * 4, hidden), g)
    layers["fc1_relu"] = nn.ReLU()
    layers["fc2"] = _filled(nn.Linear(hidden, 5), g)
    return nn.Sequential(layers).double().eval()


def single(*args: object, **options: bool) -> nn.Sequential:
    """The same in float32: half the bytes where the judge computes in double precision anyway."""
    return network(*args, **options).float()


def data(g: torch.Generator, count: int) -> torch.Tensor:
    return torch.randn(count, 2, 8, 8, generator=g, dtype=torch.float64)


def picked(g: torch.Generator, total: int, kept: int) -> torch.Tensor:
    """`kept` of `total` channels in ascending order, never the first ones."""
    while True:
        chosen = torch.randperm(total, generator=g)[:kept].sort().values
        if chosen[0] > 0:
            return chosen


# 3. shrink


def shrink_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "shrink")
    a, b, h = (6, 8, 10) if visible else (7, 10, 9)
    shuffled = picked(g, b, b - 3).roll(1)
    return [
        Case(
            "first convolution",
            (single(g, (a, b), h), {"conv0": picked(g, a, a - 2)}),
            tags=tags("convolution"),
        ),
        Case(
            "no batch normalization",
            (single(g, (a, b), h, norm=False), {"conv0": picked(g, a, a // 2)}),
            tags=tags("convolution"),
        ),
        Case(
            "convolutions with biases",
            (single(g, (a, b), h, bias=True, norm=False), {"conv0": picked(g, a, a - 1)}),
            tags=tags("bias"),
        ),
        Case(
            "last convolution before flatten",
            (single(g, (a, b), h), {"conv1": picked(g, b, b - 2)}),
            tags=tags("flatten"),
        ),
        Case(
            "hidden units of fc1",
            (single(g, (a, b), h, norm=False), {"fc1": picked(g, h, h - 4)}),
            tags=tags("bias"),
        ),
        Case(
            "every layer, in another order",
            (
                single(g, (a, b), h, bias=True),
                {"conv0": picked(g, a, a - 2), "conv1": shuffled, "fc1": picked(g, h, h // 2).flip(0)},
            ),
            tags=tags("all"),
        ),
        Case("nothing to remove", (single(g, (a, b), h), {}), tags=tags("nothing")),
    ]


SHRINK_COLUMNS = "columns = (kept[:, None] * span + torch.arange(span)).flatten()"
SHRINK_BN = "layers[name] = resized(layer, **{key: value[kept] for key, value in tensors.items()})"
SHRINK = Exercise(
    "shrink",
    points=13,
    difficulty=3,
    cases=shrink_cases,
    properties=(
        Property("has the right layers, settings and sizes", hold.has_the_right_sizes, 1),
        Property("computes the same: conv, norm, conv", hold.computes_the_same, 3, tags=tags("convolution")),
        Property("computes the same: biases, hidden units", hold.computes_the_same, 2, tags=tags("bias")),
        Property("computes the same across flatten", hold.computes_the_same, 3, tags=tags("flatten")),
        Property("computes the same: all layers, any order", hold.computes_the_same, 2, tags=tags("all")),
    ),
    mistakes=(
        mistake(
            "fresh-statistics",
            "batch normalization starts from scratch",
            "shrink",
            "The smaller BatchNorm2d keeps weight and bias but has mean 0 and variance 1. The running statistics "
            "belong to the channel as much as its filter does: they are buffers, so they are easy to forget, and "
            "they must be selected too.",
            ("layer.state_dict().items() if value.ndim", "layer.named_parameters()"),
        ),
        mistake(
            "first-channels-of-norm",
            "batch normalization of the first k channels",
            "permutation-equivalence",
            "Filters are selected, but batch normalization takes the first k entries. Channel 5's filter now runs "
            "with channel 2's mean. Shapes fit, nothing raises; only comparing outputs finds it.",
            (
                SHRINK_BN,
                "layers[name] = resized(layer, **{key: value[: len(kept)] for key, value in tensors.items()})",
            ),
        ),
        mistake(
            "first-channels-of-next",
            "the next layer reads its first k inputs",
            "channel-pruning",
            "The next layer keeps its first k input slices instead of those whose channels stayed. It then "
            "multiplies the activations of one channel by the weights that were trained for another.",
            (SHRINK_COLUMNS, "columns = torch.arange(len(kept) * span)"),
        ),
        mistake(
            "flatten-order",
            "the flatten boundary in the wrong order",
            "flatten-boundary",
            "After a flatten one channel owns h * w neighboring columns: c * h * w to (c + 1) * h * w - 1. You "
            "select as if the channel index ran fastest, as it would in an N, H, W, C layout.",
            (SHRINK_COLUMNS, "columns = (kept + torch.arange(span)[:, None] * width).flatten()"),
        ),
        mistake(
            "flatten-as-channels",
            "a channel after flatten owns one column",
            "flatten-boundary",
            "At the flatten boundary you keep one column for each kept channel. A channel of h x w positions "
            "becomes h * w features there, so the linear layer must keep h * w columns for each.",
            (SHRINK_COLUMNS, "columns = kept"),
        ),
        mistake(
            "whole-bias",
            "the bias is not selected with its filter",
            "channel-pruning",
            "Each output channel has one bias value, and you keep the first k of them. Select the bias with the "
            "same index as the filters.",
            ("layer.bias.detach()[kept]", "layer.bias.detach()[: len(kept)]"),
        ),
        mistake(
            "bias-lost",
            "the bias disappears",
            "shrink",
            "The new layers have no bias. The networks that you tried may not have had one in the convolutions, "
            "but linear layers do: carry over every tensor that the old layer has.",
            ("None if layer.bias is None else layer.bias.detach()[kept]", "None"),
        ),
        mistake(
            "zeroed-not-removed",
            "zeros instead of a smaller layer",
            "latency-of-zeros",
            "You set the removed channels to zero and keep the shapes. The file is as large and the network as "
            "slow as before: a dense kernel multiplies the zeros. Besides, bias and normalization turn a zero "
            "filter into a constant.",
            (
                "return nn.Sequential(layers).eval()",
                "masked = copy.deepcopy(model)\n"
                "    for name, channels in keep.items():\n"
                "        gone = torch.ones(len(masked.get_submodule(name).weight), dtype=torch.bool)\n"
                "        gone[channels] = False\n"
                "        masked.get_submodule(name).weight.data[gone] = 0.0\n"
                "    return masked.eval()",
            ),
        ),
        mistake(
            "inputs-untouched",
            "the next layer keeps all its inputs",
            "channel-pruning",
            "You removed filters, but the layer behind still expects the old number of channels, so the network "
            "cannot run. A channel has two ends: the filter that makes it and the slice that reads it.",
            ("            if kept is not None:", "            if False:"),
        ),
        mistake(
            "settings-lost",
            "stride and padding back to the defaults",
            "shrink",
            "You built the new convolution from its sizes alone, so stride and padding are those of a fresh layer. "
            "Feature maps change their size and the output is that of another network.",
            (
                "            layers[name] = resized(layer, weight=weight[kept], bias=bias)",
                "            if isinstance(layer, nn.Conv2d):\n"
                "                layer = nn.Conv2d(1, 1, layer.kernel_size, padding=layer.padding)\n"
                "            layers[name] = resized(layer, weight=weight[kept], bias=bias)",
            ),
        ),
        mistake(
            "keep-read-as-drop",
            "keep read as the channels to drop",
            "channel-pruning",
            "You removed exactly the channels that were to stay. When half goes, even the sizes fit.",
            (
                "kept = keep.get(name, torch.arange(width))",
                "kept = torch.tensor([i for i in range(width) if name not in keep or i not in keep[name]])",
            ),
        ),
        mistake(
            "order-ignored",
            "the given order is sorted away in one place",
            "permutation-equivalence",
            "You sort the kept channels where the next layer reads them, but not where they are made. With "
            "ascending indices nothing shows; with any other order the two ends no longer match.",
            (SHRINK_COLUMNS, "columns = (kept.sort().values[:, None] * span + torch.arange(span)).flatten()"),
        ),
    ),
    alternatives=(
        Alternative(
            "select with repeat_interleave",
            "def shrink(model, keep):\n"
            "    smaller, alive = OrderedDict(), None\n"
            "    for name, layer in model.named_children():\n"
            "        state = {k: v.clone() for k, v in layer.state_dict().items() if v.ndim}\n"
            "        if 'weight' in state and state['weight'].ndim > 1:\n"
            "            if alive is not None:\n"
            "                span = layer.weight.shape[1] // len(alive)\n"
            "                state['weight'] = state['weight'].unflatten(1, (-1, span))[:, alive.order].flatten(1, 2)\n"
            "            alive = torch.arange(len(layer.weight))\n"
            "            alive.order = keep.get(name, alive)\n"
            "            state = {k: v[alive.order] for k, v in state.items()}\n"
            "            smaller[name] = resized(layer, **state)\n"
            "        elif state:\n"
            "            smaller[name] = resized(layer, **{k: v[alive.order] for k, v in state.items()})\n"
            "        else:\n"
            "            smaller[name] = layer\n"
            "    return nn.Sequential(smaller)\n",
        ),
    ),
)

# 4. reestimate_bn


def reestimate_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "reestimate_bn")
    a, b = (4, 5) if visible else (5, 7)

    def batches(count: int, size: int) -> list[torch.Tensor]:
        return [data(g, size) * (1 + 0.5 * i) + 0.4 * i for i in range(count)]

    return [
        Case("one batch", (network(g, (a, b), 6), batches(1, 8)), tags=tags("one")),
        Case("four batches", (network(g, (a, b), 6, bias=True), batches(4, 6)), tags=tags("many")),
        Case("a network with dropout", (network(g, (a, b), 6, dropout=True), batches(2, 6)), tags=tags("dropout")),
    ]


BN_RESET = "norm.reset_running_stats()"
BN_NONE = "norm.momentum = None  # PyTorch's name for a plain average over the batches"
REESTIMATE = Exercise(
    "reestimate_bn",
    points=6,
    difficulty=2,
    cases=reestimate_cases,
    properties=(
        Property("measures one batch", hold.measures_statistics, 1, tags=tags("one")),
        Property("averages several batches", hold.measures_statistics, 2, tags=tags("many")),
        Property("keeps dropout off", hold.measures_statistics, 1, tags=tags("dropout")),
        Property("leaves everything else as it was", hold.keeps_everything_else, 2),
    ),
    mistakes=(
        mistake(
            "not-reset",
            "the old statistics still count",
            "batch-norm-after-pruning",
            "You average on top of the old running statistics, which describe the network before pruning. Start "
            "from nothing: reset_running_stats().",
            (BN_RESET, "pass"),
        ),
        mistake(
            "default-momentum",
            "momentum 0.1 keeps most of the start",
            "batch-norm-after-pruning",
            "With momentum 0.1 the result is an exponential average that began at mean 0 and variance 1: after one "
            "batch nine tenths are still that. momentum=None is PyTorch's plain average.",
            (BN_NONE, "pass"),
        ),
        mistake(
            "last-batch",
            "only the last batch counts",
            "batch-norm-after-pruning",
            "With momentum 1 each batch overwrites the one before, so the last one alone decides. Average over all "
            "of them.",
            (BN_NONE, "norm.momentum = 1.0"),
        ),
        mistake(
            "first-batch",
            "only the first batch counts",
            "batch-norm-after-pruning",
            "You looked at one batch and ignored the rest. One batch is a noisy estimate; that is why there is a "
            "list.",
            ("for x in batches:", "for x in batches[:1]:"),
        ),
        mistake(
            "evaluation-mode",
            "nothing is measured in evaluation mode",
            "evaluation-pitfalls",
            "In evaluation mode a BatchNorm2d uses its running statistics and never updates them. The forward "
            "passes left only what the reset wrote: mean 0, variance 1.",
            ("        norm.train()\n", ""),
        ),
        mistake(
            "learned-scale-reset",
            "the learned scale and shift are gone",
            "batch-norm-after-pruning",
            "reset_parameters() sets weight to 1 and bias to 0 as well. Those were learned; only the running "
            "statistics are stale.",
            (BN_RESET, "norm.reset_parameters()"),
        ),
        mistake(
            "dropout-on",
            "dropout runs while you measure",
            "evaluation-pitfalls",
            "model.train() switches dropout on too, so you measure activations that never occur in use, and other "
            "ones at every run. Put only the BatchNorm2d layers into training mode.",
            ("copy.deepcopy(model).eval()", "copy.deepcopy(model).train()"),
        ),
        mistake(
            "training-mode-left",
            "the result is left in training mode",
            "evaluation-pitfalls",
            "The network that you return still normalizes with the statistics of each batch, so its accuracy "
            "depends on which images are evaluated together. Return it in evaluation mode.",
            ("return model.eval()", "return model.train()"),
        ),
        mistake(
            "momentum-lost",
            "momentum stays None",
            "batch-norm-after-pruning",
            "You left momentum=None behind. Whoever fine-tunes this network later gets a plain average over the "
            "whole of training, the bad first steps included. Restore what you change.",
            ("norm.momentum = momentum", "pass"),
        ),
        mistake(
            "in-place",
            "the caller's network is changed",
            "batch-norm-after-pruning",
            "You work on the network that you were given. The caller still holds it and will compare before and "
            "after; both are now the same. Copy first.",
            ("copy.deepcopy(model).eval()", "model.eval()"),
        ),
    ),
    alternatives=(
        Alternative(
            "hooks",
            "def reestimate_bn(model, batches):\n"
            "    result = copy.deepcopy(model).eval()\n"
            "    layers = [m for m in result if isinstance(m, nn.BatchNorm2d)]\n"
            "    seen = {m: [] for m in layers}\n"
            "    def look(m, inputs):\n"
            "        x = inputs[0].transpose(0, 1).flatten(1)\n"
            "        seen[m].append((x.mean(1), x.var(1)))\n"
            "        m.running_mean.copy_(x.mean(1)); m.running_var.copy_(x.var(1, correction=0))\n"
            "    hooks = [m.register_forward_pre_hook(look) for m in layers]\n"
            "    with torch.no_grad():\n"
            "        for x in batches:\n"
            "            result(x)\n"
            "        for hook in hooks:\n"
            "            hook.remove()\n"
            "        for m in layers:\n"
            "            m.running_mean.copy_(torch.stack([a for a, _ in seen[m]]).mean(0))\n"
            "            m.running_var.copy_(torch.stack([b for _, b in seen[m]]).mean(0))\n"
            "    return result\n",
        ),
    ),
)

# 5. masked_finetune


def finetune_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "masked_finetune")
    a, b = (4, 5) if visible else (5, 6)

    def inputs(steps: int, count: int, **options: bool) -> tuple:
        net = network(g, (a, b), 7, **options).train()
        names = ("conv0", "conv1", "fc1")
        masks = {name: torch.rand(net.get_submodule(name).weight.shape, generator=g) > 0.6 for name in names}
        labels = [torch.randint(0, 5, (count,), generator=g) for _ in range(steps)]
        return net, masks, [(data(g, count), y) for y in labels]

    short, long, bare = inputs(1, 6), inputs(5, 6), inputs(3, 5, norm=False, bias=True)
    return [
        Case("one step", (*short, [0.05]), tags=tags("one")),
        Case("five steps, falling rate", (*long, [0.1, 0.08, 0.05, 0.02, 0.01]), tags=tags("many")),
        Case(
            "no momentum, strong decay",
            (*bare, [0.02, 0.05, 0.1]),
            {"momentum": 0.0, "weight_decay": 0.1},
            tags=tags("decay"),
        ),
    ]


FT_LOOP = "    for (x, y), rate in zip(batches, rates, strict=True):"
FT_STEP = "        optimizer.step()\n        prune()\n"
FT_OPTIMIZER = (
    "optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)"
)
FINETUNE = Exercise(
    "masked_finetune",
    points=11,
    difficulty=2,
    cases=finetune_cases,
    properties=(
        Property("masked weights are zero after the last step", hold.zeros_survive, 3),
        Property("one step moves the others as SGD does", hold.follows_sgd, 1, tags=tags("one")),
        Property("many steps do: momentum, each rate, each batch", hold.follows_sgd, 3, tags=tags("many")),
        Property("takes the given momentum and weight decay", hold.follows_sgd, 2, tags=tags("decay")),
        Property(
            "batch normalization learned too; evaluation mode", hold.follows_statistics, 2, tags=tags("one", "many")
        ),
    ),
    mistakes=(
        mistake(
            "mask-before-step",
            "the mask is applied before the optimizer step",
            "masked-fine-tuning",
            "You mask the weights, then step. The step writes to all weights, also to those that were just set to "
            "zero, and the network that you return is dense. Mask after optimizer.step().",
            (FT_STEP, "        prune()\n        optimizer.step()\n"),
        ),
        mistake(
            "mask-once",
            "the mask is applied once, at the start",
            "masked-fine-tuning",
            "Zeros at the start do not stay zeros: they have gradients like any weight. After the first step the "
            "network is dense again.",
            (FT_STEP, "        optimizer.step()\n"),
        ),
        mistake(
            "mask-at-the-end",
            "trained dense, pruned at the end",
            "masked-fine-tuning",
            "You train the dense network and prune it when all is done, so the survivors never learn to do without "
            "the rest. The zeros are right; the accuracy is that of one-shot pruning.",
            ("    prune()\n    for", "    for"),
            (FT_STEP + "    return", "        optimizer.step()\n    prune()\n    return"),
        ),
        mistake(
            "mask-late",
            "the first step runs dense",
            "masked-fine-tuning",
            "You mask after each step but not before the first one, so the first gradient is that of the dense "
            "network. One step in a thousand hardly shows; the contract says zero before the first step.",
            ("    prune()\n    for", "    for"),
        ),
        mistake(
            "gradient-mask-only",
            "the gradient is masked, the step is not",
            "optimizer-state",
            "You zero the gradient of masked weights and let the optimizer do the rest. Weight decay and old "
            "momentum move them all the same, and weights that were not zero at the start never become so.",
            ("    prune()\n    for", "    for"),
            (
                FT_STEP,
                "        for name, mask in masks.items():\n"
                "            weights[name].grad.mul_(mask)\n        optimizer.step()\n",
            ),
        ),
        mistake(
            "new-optimizer-each-step",
            "a new optimizer for every batch",
            "optimizer-state",
            "The optimizer is made inside the loop, so its momentum buffer is empty at every step: you run plain "
            "SGD, as if momentum had never been passed on. Make it once.",
            (FT_OPTIMIZER, "pass"),
            (
                '        optimizer.param_groups[0]["lr"] = rate',
                "        " + FT_OPTIMIZER + '\n        optimizer.param_groups[0]["lr"] = rate',
            ),
        ),
        mistake(
            "gradients-pile-up",
            "gradients are never cleared",
            "masked-fine-tuning",
            "backward() adds to .grad. Without zero_grad() every step follows the sum of all gradients so far, "
            "which looks like a momentum of 1 and soon diverges.",
            ("        optimizer.zero_grad()\n", ""),
        ),
        mistake(
            "frozen-norm",
            "batch normalization in evaluation mode",
            "batch-norm-after-pruning",
            "You fine-tune in evaluation mode. The statistics stay those of the dense network, which is the very "
            "thing that pruning made stale.",
            ("copy.deepcopy(model).train()", "copy.deepcopy(model).eval()"),
        ),
        mistake(
            "decay-forgotten",
            "weight decay is not passed on",
            "optimizer-state",
            "The optimizer never hears of weight_decay. Without it weights drift to where the next pruning step "
            "finds nothing small.",
            (", weight_decay=weight_decay)", ")"),
        ),
        mistake(
            "first-rate-only",
            "the first rate for every step",
            "schedule",
            "You set the learning rate once. A schedule is a rate for each step: the last, small ones are where a "
            "pruned network settles.",
            ('["lr"] = rate', '["lr"] = rates[0]'),
        ),
        mistake(
            "schedule-per-epoch-count",
            "the schedule advances at the wrong pace",
            "schedule",
            "Your rates run through twice as fast as your steps. The published lab of a well-known course does "
            "this with a cosine whose period is the number of epochs, stepped once a batch: the rate goes up and "
            "down all the time.",
            (FT_LOOP, "    for (x, y), rate in zip(batches, (rates * 2)[::2], strict=True):"),
        ),
        mistake(
            "nesterov",
            "Nesterov momentum",
            "optimizer-state",
            "You switched on Nesterov momentum, which looks one step ahead. A fair comparison between pruned "
            "networks needs the same optimizer everywhere, and the contract says plain.",
            (", weight_decay=weight_decay)", ", weight_decay=weight_decay, nesterov=momentum > 0)"),
        ),
        mistake(
            "summed-loss",
            "the loss is summed over the batch",
            "masked-fine-tuning",
            "reduction='sum' makes the gradient grow with the batch, so the effective learning rate is as many "
            "times too large as there are images in it.",
            ("F.cross_entropy(model(x), y)", "F.cross_entropy(model(x), y, reduction='sum')"),
        ),
        mistake(
            "trains-in-place",
            "the caller's network is trained",
            "masked-fine-tuning",
            "You train the network that you were given. The next experiment of the notebook then starts from your "
            "result instead of from the checkpoint. Copy first.",
            ("copy.deepcopy(model).train()", "model.train()"),
        ),
    ),
    alternatives=(
        Alternative(
            "SGD by hand",
            "def masked_finetune(model, masks, batches, rates, momentum=0.9, weight_decay=5e-4):\n"
            "    net = copy.deepcopy(model).train()\n"
            "    full = {f'{name}.weight': mask for name, mask in masks.items()}\n"
            "    velocity = {}\n"
            "    with torch.no_grad():\n"
            "        for name, p in net.named_parameters():\n"
            "            p.mul_(full.get(name, 1))\n"
            "    for (x, y), rate in zip(batches, rates, strict=True):\n"
            "        names, ps = zip(*net.named_parameters())\n"
            "        grads = torch.autograd.grad(F.cross_entropy(net(x), y), ps)\n"
            "        with torch.no_grad():\n"
            "            for name, p, grad in zip(names, ps, grads):\n"
            "                grad = (grad + weight_decay * p) * full.get(name, 1)\n"
            "                velocity[name] = momentum * velocity.get(name, 0) + grad\n"
            "                p -= rate * velocity[name]\n"
            "    return net.eval()\n",
        ),
    ),
)

# 6. sensitivity


def sensitivity_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "sensitivity")
    widths, count = ((6, 8), 90) if visible else ((7, 9), 130)
    cases = []
    for name, order in (("growing sparsity", (0.3, 0.6, 0.9)), ("in any order", (0.9, 0.2, 0.7))):
        net = network(g, widths, 9, bias=True)
        # Labels are the dense network's own answers, with a few wrong ones, so that pruning lowers the accuracy.
        x = data(g, count)
        with torch.no_grad():
            net.fc2.bias -= net(x).mean(0)  # or one class may win everywhere, pruned or not
            y = net(x).argmax(1)
        y[: count // 9] = (y[: count // 9] + 1) % 5
        masks = {
            layer: [torch.rand(net.get_submodule(layer).weight.shape, generator=g) >= s for s in order]
            for layer in ("conv0", "conv1", "fc1")
        }
        cases.append(Case(name, (net.train(), x, y, masks), tags=tags(name.split()[0])))
    dense = {"conv1": [torch.ones_like(net.conv1.weight, dtype=torch.bool)]}
    cases.append(Case("nothing masked", (net, x, y, dense), tags=tags("dense")))
    return cases


SCAN_COPY = "            pruned = copy.deepcopy(model).eval()\n"
SCAN_MASK = "pruned.get_submodule(name).weight.data.mul_(mask)"
SCAN_TABLE = "    table = {}\n"
SCAN_RIGHT = "right = pruned(x).argmax(1) == y"
SCAN_APPEND = "table[name].append(100 * right.float().mean().item())"
SENSITIVITY = Exercise(
    "sensitivity",
    points=8,
    difficulty=2,
    cases=sensitivity_cases,
    properties=(
        Property("scans layer by layer", hold.scans_one_layer_at_a_time, 2, tags=tags("growing")),
        Property("takes masks in any order", hold.scans_one_layer_at_a_time, 2, tags=tags("in")),
        Property("a full mask changes nothing", hold.scans_one_layer_at_a_time, 1, tags=tags("dense")),
    ),
    mistakes=(
        mistake(
            "never-restored",
            "layers stay pruned",
            "sensitivity",
            "You make one copy and prune layer after layer in it, so the last layer is measured in a network whose "
            "other layers are ruined already. Start each measurement from the dense network.",
            (SCAN_COPY, ""),
            (SCAN_TABLE, SCAN_TABLE + "    pruned = copy.deepcopy(model).eval()\n"),
        ),
        mistake(
            "restored-between-layers",
            "masks pile up within a layer",
            "sensitivity",
            "You restore the layer only when you move on to the next one. As long as each mask contains the one "
            "before nobody notices; given any other order, every point also carries the earlier masks.",
            (SCAN_COPY, ""),
            (
                "        table[name] = []\n",
                "        table[name] = []\n        pruned = copy.deepcopy(model).eval()\n",
            ),
        ),
        mistake(
            "training-mode",
            "measured in training mode",
            "evaluation-pitfalls",
            "Without eval() batch normalization uses the statistics of the images at hand, which hides much of the "
            "damage: the scan looks better than the network that you would ship.",
            ("copy.deepcopy(model).eval()", "copy.deepcopy(model).train()"),
        ),
        mistake(
            "fraction-not-percent",
            "fractions instead of percent",
            "evaluation-pitfalls",
            "The numbers lie between 0 and 1; the contract says %. A table that mixes both is how a drop of 0.3 "
            "points gets reported as 30.",
            ("100 * right", "right"),
        ),
        mistake(
            "drop-not-accuracy",
            "the drop instead of the accuracy",
            "sensitivity",
            "You return how much is lost. allocate() adds accuracies up and would choose the most harmful levels.",
            (
                SCAN_APPEND,
                "table[name].append(100 * ((model.eval()(x).argmax(1) == y).float() - right.float()).mean().item())",
            ),
        ),
        mistake(
            "dense-measured",
            "the dense network is measured",
            "sensitivity",
            "You prune a copy and evaluate the original: every entry is the dense accuracy. A flat sensitivity "
            "curve is too good to be true; look at one point at 90 % before you trust a scan.",
            (SCAN_RIGHT, "right = copy.deepcopy(model).eval()(x).argmax(1) == y"),
        ),
        mistake(
            "bias-pruned",
            "the biases go too",
            "what-to-prune",
            "You zero the biases of the layer as well. They are few, cost almost no bytes, and every output "
            "depends on them: prune weights only.",
            (SCAN_MASK, SCAN_MASK + "\n            pruned.get_submodule(name).bias.data.zero_()"),
        ),
        mistake(
            "inverted-masks",
            "True read as removed",
            "sparsity-and-density",
            "You zero the weights that the mask keeps. At a sparsity of 50 % the curve would look plausible; at 90 "
            "% it stays high, which should make you suspicious.",
            (SCAN_MASK, "pruned.get_submodule(name).weight.data.mul_(~mask)"),
        ),
        mistake(
            "all-layers-at-once",
            "every layer is pruned together",
            "sensitivity",
            "You apply the i-th mask of all layers at once. That is uniform pruning; it cannot say which layer did "
            "the damage.",
            (
                SCAN_MASK,
                "index = len(table[name])\n"
                "            for other in masks:\n"
                "                pruned.get_submodule(other).weight.data.mul_(masks[other][index])",
            ),
        ),
        mistake(
            "mean-of-batch-means",
            "a mean of batch means",
            "evaluation-pitfalls",
            "You average the accuracies of batches, so the images of a short last batch count for more than the "
            "others. Count right answers and divide once.",
            (
                SCAN_APPEND,
                "table[name].append(sum(100 * p.float().mean().item() for p in right.split(64)) / "
                "len(right.split(64)))",
            ),
        ),
        mistake(
            "pruned-in-place",
            "the caller's network is pruned",
            "sensitivity",
            "You prune the network that you were given and never put the weights back. After the scan there is no "
            "dense network left to compare with.",
            ("copy.deepcopy(model).eval()", "model.eval()"),
        ),
    ),
    alternatives=(
        Alternative(
            "prune and restore",
            "def sensitivity(model, x, y, masks):\n"
            "    def measure(net, weight, mask):\n"
            "        dense = weight.clone()\n"
            "        weight.copy_(dense * mask)\n"
            "        right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(32), y.split(32)))\n"
            "        weight.copy_(dense)\n"
            "        return 100.0 * right / len(y)\n"
            "    net = copy.deepcopy(model).eval()\n"
            "    with torch.no_grad():\n"
            "        return {\n"
            "            name: [measure(net, net.get_submodule(name).weight, m) for m in ms]\n"
            "            for name, ms in masks.items()\n"
            "        }\n",
        ),
    ),
)

# 7. encode_sparse


def encode_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "encode_sparse")

    def sparse(*shape: int, density: float) -> torch.Tensor:
        w = torch.randn(*shape, generator=g)
        return w * (torch.rand(shape, generator=g) < density)

    rows, columns = (5, 13) if visible else (7, 19)
    long = sparse(3, 300, density=0.3 if visible else 0.25)
    tall = sparse(40, 12, density=0.7)  # more than 255 nonzeros in rows of fewer than 256 columns
    empty_rows = sparse(6, 9, density=0.5)
    empty_rows[[0, 3, 5]] = 0.0
    weights = {
        "a matrix": (sparse(rows, columns, density=0.4), "plain"),
        "a convolution": (sparse(4, 3, 3, 3, density=0.3), "plain"),
        "empty rows": (empty_rows, "edge"),
        "all zero": (torch.zeros(3, 4 if visible else 7), "edge"),
        "no zero": (torch.rand(2, 8, generator=g) - 2.0, "edge"),
        "300 columns": (long, "wide"),
        "many nonzeros": (tall, "wide"),
    }
    return [
        Case(f"{form}: {name}", (w, form), tags=tags(form, f"{form} {kind}"))
        for form in ("bitmap", "csr")
        for name, (w, kind) in weights.items()
    ]


ENC_KEPT = "kept = flat != 0"
ENC_BITS = "(bits << torch.arange(8)).sum(1).to(torch.uint8)"
ENC_PAD = "F.pad(kept.flatten().long(), (0, -kept.numel() % 8)).view(-1, 8)"
ENC_INDPTR = "indptr = F.pad(kept.sum(1).cumsum(0), (1, 0))"
ENCODE = Exercise(
    "encode_sparse",
    points=8,
    difficulty=2,
    cases=encode_cases,
    properties=(
        Property("the bitmap decodes to the weight", hold.decodes, 2, tags=tags("bitmap")),
        Property("the bitmap has the exact number of bytes", hold.takes_exact_bytes, 1, tags=tags("bitmap")),
        Property("CSR decodes to the weight", hold.decodes, 2, tags=tags("csr")),
        Property("CSR has the exact number of bytes", hold.takes_exact_bytes, 1, tags=tags("csr")),
        Property("CSR indices grow with the tensor", hold.takes_exact_bytes, 1, tags=tags("csr wide")),
    ),
    mistakes=(
        mistake(
            "positive-only",
            "negative weights are lost",
            "sparse-bytes",
            "You keep w > 0. Negative weights are as alive as positive ones: the question is w != 0.",
            (ENC_KEPT, "kept = flat > 0"),
        ),
        mistake(
            "bits-reversed",
            "the most significant bit comes first",
            "bitmap-and-csr",
            "Each byte is written back to front. Both orders exist in the wild, which is why a format has to say; "
            "this one puts element 8 j into the least significant bit of byte j.",
            ("<< torch.arange(8))", "<< torch.arange(7, -1, -1))"),
        ),
        mistake(
            "unpacked-bits",
            "one byte for each bit",
            "bitmap-and-csr",
            "Your bitmap spends a whole byte on every bit, because a bool tensor does. Then the positions alone "
            "cost a quarter of the dense float32 weight. Pack eight to a byte.",
            (f'"bits": {ENC_BITS}', '"bits": kept.flatten().to(torch.uint8)'),
        ),
        mistake(
            "padded-front",
            "the padding is in front",
            "bitmap-and-csr",
            "You fill up to a whole byte before the first element, so every position is shifted. The padding "
            "belongs behind the last element.",
            ("(0, -kept.numel() % 8)", "(-kept.numel() % 8, 0)"),
        ),
        mistake(
            "byte-too-many",
            "a whole byte of padding",
            "bitmap-and-csr",
            "When the number of elements is a multiple of 8 you add a byte of nothing: 8 - n % 8 is 8 there. "
            "ceil(n / 8) is exact.",
            ("-kept.numel() % 8)", "8 - kept.numel() % 8)"),
        ),
        mistake(
            "column-order",
            "values in column-major order",
            "bitmap-and-csr",
            "The positions run along rows and the values along columns: each value lands on another weight's "
            "place. The size is right, the network is not.",
            ("values = flat[kept]", "values = flat.T[kept.T]"),
        ),
        mistake(
            "lengths-for-pointers",
            "row lengths instead of row pointers",
            "bitmap-and-csr",
            "indptr holds how many values each row has. Pointers are the running sum, so that row r can be found "
            "without reading all rows before it.",
            (ENC_INDPTR, "indptr = F.pad(kept.sum(1), (1, 0))"),
        ),
        mistake(
            "last-pointer-missing",
            "one pointer too few",
            "csr-index-width",
            "There is a start for each row and no end for the last one. CSR needs rows + 1 pointers; the last one "
            "is the number of values.",
            (ENC_INDPTR, ENC_INDPTR + "[:-1]"),
        ),
        mistake(
            "flat-indices",
            "flat positions for columns",
            "csr-index-width",
            "You store the position in the whole tensor. The row is known from indptr already; a column needs "
            "fewer bits, and that is what makes CSR small.",
            ("columns = kept.nonzero()[:, 1]", "columns = kept.flatten().nonzero()[:, 0]"),
        ),
        mistake(
            "row-indices",
            "rows instead of columns",
            "bitmap-and-csr",
            "nonzero() returns (row, column) and you took the row, which indptr says already. Now nothing says "
            "where in the row a value stands.",
            ("kept.nonzero()[:, 1]", "kept.nonzero()[:, 0]"),
        ),
        mistake(
            "int64-indices",
            "64-bit indices",
            "csr-index-width",
            "PyTorch's indices are int64, and you left them so: 8 bytes to say where a 4-byte value is. Then CSR "
            "pays only above 67 % sparsity. Use the smallest type that fits.",
            ("columns.to(index_dtype(flat.shape[1] - 1))", "columns"),
            ("indptr.to(index_dtype(len(values)))", "indptr"),
        ),
        mistake(
            "pointers-by-columns",
            "pointers as narrow as columns",
            "csr-index-width",
            "You chose the type of indptr by the number of columns. Pointers count values, of which there are "
            "more: with 300 values a uint8 pointer wraps around to 44.",
            ("index_dtype(len(values))", "index_dtype(flat.shape[1] - 1)"),
        ),
        mistake(
            "columns-not-flattened",
            "only the first dimension behind the rows",
            "sparse-bytes",
            "A convolution has four dimensions, and you took only the second for columns. Everything behind the "
            "first dimension is one row.",
            ("w.reshape(w.shape[0], -1)", "(w if w.ndim == 2 else w[..., 0, 0])"),
        ),
    ),
    alternatives=(
        Alternative(
            "numpy.packbits",
            "def encode_sparse(w, form):\n"
            "    import numpy as np\n"
            "    flat = w.contiguous().view(len(w), -1).numpy()\n"
            "    rows, columns = np.nonzero(flat)\n"
            "    values = torch.from_numpy(flat[rows, columns])\n"
            "    if form == 'bitmap':\n"
            "        return {'values': values, 'bits': torch.from_numpy(np.packbits(flat != 0, bitorder='little'))}\n"
            "    indptr = torch.from_numpy(np.searchsorted(rows, np.arange(len(flat) + 1)))\n"
            "    indptr = indptr.to(index_dtype(int(indptr[-1])))\n"
            "    indices = torch.from_numpy(columns).to(index_dtype(flat.shape[1] - 1))\n"
            "    return {'values': values, 'indices': indices, 'indptr': indptr}\n",
        ),
    ),
)

# 8. allocate


def allocate_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "allocate")
    names = ["conv0", "conv1", "fc1"] if visible else ["stem", "body", "neck", "head"]
    levels = 4 if visible else 5
    kept = torch.linspace(1.0, 0.1, levels)

    def table() -> tuple[dict, dict]:
        drops = (
            torch.rand(len(names), levels, generator=g).cumsum(1)
            * torch.tensor([[1.0], [6.0], [14.0], [3.0]])[: len(names)]
        )
        accuracy = {name: [round(90 - d, 2) for d in row.tolist()] for name, row in zip(names, drops, strict=True)}
        sizes = torch.randint(200, 4000, (len(names),), generator=g)
        return accuracy, {name: [int(n * k) for k in kept] for name, n in zip(names, sizes, strict=True)}

    def case(name: str, share: float, kind: str) -> Case:
        accuracy, nbytes = table()
        least, most = (sum(row[i] for row in nbytes.values()) for i in (-1, 0))
        return Case(name, (accuracy, nbytes, least + int(share * (most - least))), tags=tags("fits", kind))

    tight = _exact(g)
    return [
        case("half the bytes", 0.45, "usual"),
        case("a quarter of the bytes", 0.22, "usual"),
        case("two thirds of the bytes", 0.66, "usual"),
        Case("a layer of many bytes that hardly matters", _lopsided(g, visible), tags=tags("fits", "usual")),
        Case("accuracies that rise and fall", _uneven_table(g), tags=tags("fits", "usual")),
        Case("to the last byte", tight, tags=tags("fits", "exact")),
        case("room for everything", 1.2, "exact"),
        Case("nothing fits", (*table(), 10), tags=tags("none")),
    ]


def _exact(g: torch.Generator) -> tuple[dict, dict, int]:
    """The best choice uses every byte of the budget."""
    a = int(torch.randint(50, 90, (1,), generator=g))
    accuracy = {"first": [90.0, 85.0, 60.0], "second": [90.0, 88.0, 70.0]}
    return accuracy, {"first": [8 * a, 4 * a, a], "second": [6 * a, 3 * a, a]}, 11 * a


def _uneven_table(g: torch.Generator) -> tuple[dict, dict, int]:
    """Measured scans are not monotone: some levels beat the one before, and the cheapest is not the worst."""
    n = int(torch.randint(300, 500, (1,), generator=g))
    accuracy = {
        "conv0": [90.2, 90.4, 71.0, 74.0],
        "conv1": [90.2, 90.1, 90.3, 88.0],
        "fc": [90.2, 86.0, 89.5, 87.0],
    }
    return (
        accuracy,
        {"conv0": [n, n // 2, n // 4, n // 8], "conv1": [3 * n, 2 * n, n, n // 2], "fc": [4 * n, 2 * n, n, n // 3]},
        3 * n,
    )


def _lopsided(g: torch.Generator, visible: bool) -> tuple[dict, dict, int]:
    """One layer holds most bytes and loses little; another is small and dear. Equal shares fit and are poor."""
    n = int(torch.randint(2000, 3000, (1,), generator=g))
    accuracy = {"stem": [90.0, 82.0, 40.0, 20.0], "body": [90.0, 88.5, 80.0, 50.0], "fc": [90.0, 89.9, 89.7, 89.0]}
    nbytes = {"stem": [300, 150, 90, 30], "body": [n, n // 2, n // 4, n // 10], "fc": [4 * n, 2 * n, n, 2 * n // 5]}
    return accuracy, nbytes, int(n * (2.2 if visible else 2.4))


ALLOC_START = "front = [(0, 0.0, {})]  # (bytes, summed accuracy, choice) that nothing beats, cheapest first"
ALLOC_IF = "if state[0] <= budget and (not front or state[1] > front[-1][1]):"
ALLOC_RETURN = "return front[-1][2] if front else None"


def instead(code: str) -> tuple[str, str]:
    """A patch that answers with other code before the reference begins."""
    return (ALLOC_START, code.strip().replace("\n", "\n    ") + "\n    " + ALLOC_START)


ALLOCATE = Exercise(
    "allocate",
    points=8,
    difficulty=3,
    cases=allocate_cases,
    properties=(
        Property("never exceeds the budget", hold.fits_the_budget, 1, gate=True, tags=tags("fits")),
        Property("is at least as good as equal levels", hold.beats_uniform, 1, tags=tags("fits")),
        Property("is the best that fits", hold.is_the_best, 4, tags=tags("usual")),
        Property("uses the budget to the last byte", hold.is_the_best, 2, tags=tags("exact")),
        Property("returns None when nothing fits", hold.refuses_the_impossible, 1, tags=tags("none")),
    ),
    same_form=False,
    mistakes=(
        mistake(
            "equal-levels",
            "one level for all layers",
            "allocation",
            "You choose the same level everywhere. That is uniform pruning: the sensitivity scan has just told you "
            "which layers do not care, and you did not listen.",
            instead(
                """
options = range(len(next(iter(accuracy.values()))))
fitting = [i for i in options if sum(row[i] for row in nbytes.values()) <= budget]
best = max(fitting, key=lambda i: sum(row[i] for row in accuracy.values()), default=None)
return None if best is None else dict.fromkeys(accuracy, best)
"""
            ),
        ),
        mistake(
            "budget-ignored",
            "the budget is not looked at",
            "allocation",
            "You return the levels of the best accuracy, which is the dense network, whatever the budget. A budget "
            "that can be exceeded is a wish.",
            (ALLOC_IF, "if not front or state[1] > front[-1][1]:"),
        ),
        mistake(
            "below-not-at",
            "less than the budget",
            "allocation",
            "A choice that uses exactly the budget is refused. At most means <=; devices are bought in powers of "
            "two, so exact fits are common.",
            ("state[0] <= budget", "state[0] < budget"),
        ),
        mistake(
            "cheapest",
            "the smallest network",
            "allocation",
            "You return the smallest choice. It fits, and it throws away accuracy that the budget would have paid "
            "for.",
            ("front[-1][2] if front", "front[0][2] if front"),
        ),
        mistake(
            "budget-shared-equally",
            "every layer gets the same number of bytes",
            "allocation",
            "You divide the budget by the number of layers and fill each share alone. Layers differ in size by a "
            "factor of a hundred, so small ones cannot use theirs and large ones starve.",
            instead(
                """
share = budget / len(accuracy)
choice = {}
for name, row in accuracy.items():
    fitting = [i for i in range(len(row)) if nbytes[name][i] <= share]
    if not fitting:
        return None
    choice[name] = max(fitting, key=lambda i: row[i])
return choice
"""
            ),
        ),
        mistake(
            "first-come",
            "the first layers take what they like",
            "allocation",
            "You give each layer, in order, the best level that still leaves room for the smallest rest. Who comes "
            "first is served first: an accident of the network's order.",
            instead(
                """
rest = sum(min(row) for row in nbytes.values())
if rest > budget:
    return None
choice, spent = {}, 0
for name, row in accuracy.items():
    rest -= min(nbytes[name])
    fitting = [i for i in range(len(row)) if spent + nbytes[name][i] + rest <= budget]
    choice[name] = max(fitting, key=lambda i: row[i])
    spent += nbytes[name][choice[name]]
return choice
"""
            ),
        ),
        mistake(
            "accuracy-only-greedy",
            "the gentlest step first, whatever it saves",
            "allocation",
            "You always take the step that loses least accuracy and do not ask what it saves. Many harmless steps "
            "in a tiny layer cost more in the end than one in a large layer. Compare loss per byte, or search "
            "exactly.",
            instead(
                """
choice = dict.fromkeys(accuracy, 0)
while sum(nbytes[k][i] for k, i in choice.items()) > budget:
    steps = [k for k, i in choice.items() if i + 1 < len(accuracy[k])]
    if not steps:
        return None
    choice[min(steps, key=lambda k: accuracy[k][choice[k]] - accuracy[k][choice[k] + 1])] += 1
return choice
"""
            ),
        ),
        mistake(
            "fill-the-budget",
            "the most bytes instead of the most accuracy",
            "allocation",
            "You look for the choice that comes closest to the budget. Bytes are the price, not the aim: a smaller "
            "choice can be more accurate.",
            ("state[1] > front[-1][1]", "state[0] > front[-1][0]"),
        ),
        mistake(
            "worst-layer",
            "the worst layer decides",
            "allocation",
            "You maximize the smallest accuracy of a layer instead of the sum, so one sensitive layer takes all "
            "bytes and the others are cut without need.",
            instead(
                """
from itertools import product
levels = product(*(range(len(row)) for row in accuracy.values()))
choices = [dict(zip(accuracy, level)) for level in levels]
fitting = [c for c in choices if sum(nbytes[k][i] for k, i in c.items()) <= budget]
return max(fitting, key=lambda c: min(accuracy[k][i] for k, i in c.items()), default=None)
"""
            ),
        ),
        mistake(
            "lowest-accuracy",
            "accuracies read as losses",
            "allocation",
            "You minimize the sum of accuracies, as if the table held losses. Look at its first column: it is near "
            "90.",
            instead(
                """
from itertools import product
levels = product(*(range(len(row)) for row in accuracy.values()))
choices = [dict(zip(accuracy, level)) for level in levels]
fitting = [c for c in choices if sum(nbytes[k][i] for k, i in c.items()) <= budget]
return min(fitting, key=lambda c: sum(accuracy[k][i] for k, i in c.items()), default=None)
"""
            ),
        ),
        mistake(
            "bits-for-bytes",
            "the budget taken for bits",
            "allocation",
            "Your sizes are eight times too large or the budget eight times too small: bits and bytes are mixed. "
            "Nothing fits although there is room.",
            ("state[0] <= budget", "8 * state[0] <= budget"),
        ),
        mistake(
            "dense-when-impossible",
            "the smallest network although it does not fit",
            "allocation",
            "When nothing fits you return the smallest choice all the same. Whoever called you will flash a file "
            "that is larger than the device: say None.",
            (
                ALLOC_RETURN,
                "return front[-1][2] if front else {name: len(row) - 1 for name, row in accuracy.items()}",
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "exhaustive search",
            "from itertools import product\n\n"
            "def allocate(accuracy, nbytes, budget):\n"
            "    best, answer = None, None\n"
            "    for levels in product(*(range(len(row)) for row in accuracy.values())):\n"
            "        choice = dict(zip(accuracy, levels))\n"
            "        if sum(nbytes[k][i] for k, i in choice.items()) <= budget:\n"
            "            total = sum(accuracy[k][i] for k, i in choice.items())\n"
            "            if best is None or total > best:\n"
            "                best, answer = total, choice\n"
            "    return answer\n",
        ),
    ),
)

# 9. is_valid_mask


def valid_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "is_valid_mask")
    shape = (3, 5) if visible else (4, 7)
    w = torch.randn(shape, generator=g)
    negative = -w.abs() - 0.1  # every weight negative: signs cannot help
    n, s = w.numel(), 0.4
    # The smallest that must stay and the largest that must go are equal, whichever way they are drawn.
    sizes = torch.tensor([1.0] * (round(s * n) - 2) + [2.0] * 5 + [3.0] * (n - round(s * n) - 3))
    ties = (sizes * (torch.randint(0, 2, (n,), generator=g) * 2 - 1))[torch.randperm(n, generator=g)].view(shape)

    def ranked(t: torch.Tensor, removed: int, *, last: bool = False, largest: bool = False) -> torch.Tensor:
        """Remove `removed` weights; of equal magnitudes the first, or the last."""
        flat = t.abs().flatten()
        order = (flat.flip(0) if last else flat).argsort(descending=largest, stable=True)
        order = n - 1 - order if last else order
        kept = torch.ones(n, dtype=torch.bool)
        kept[order[:removed]] = False
        return kept.view(t.shape)

    count = round(s * n)
    odd = 0.37 if visible else 0.31  # 5.55 of 15, 8.68 of 28: rounding up differs from cutting off
    one_wrong = ranked(w, count)
    smallest_kept = torch.where(one_wrong, w.abs(), torch.inf).argmin()
    largest_gone = torch.where(one_wrong, -1.0, w.abs()).argmax()
    one_wrong.view(-1)[smallest_kept], one_wrong.view(-1)[largest_gone] = False, True
    constant = torch.full(shape, 0.5)
    signed = torch.ones(n, dtype=torch.bool)
    signed[w.flatten().argsort()[:count]] = False
    threshold = ties.abs() > ties.abs().flatten().sort().values[count - 1]
    good = (
        ("the smallest removed", (w, s, ranked(w, count))),
        ("negative weights", (negative, s, ranked(negative, count))),
        ("ties, the first removed", (ties, s, ranked(ties, count))),
        ("ties, the last removed", (ties, s, ranked(ties, count, last=True))),
        ("all equal", (constant, s, ranked(constant, count, last=True))),
        ("nothing removed", (w, 0.0, ranked(w, 0))),
        ("everything removed", (w, 1.0, ranked(w, n))),
        ("a count that rounds up", (w, odd, ranked(w, round(odd * n)))),
    )
    wrong = (
        ("one too many", (w, s, ranked(w, count + 1)), "count"),
        ("cut off instead of rounded", (w, odd, ranked(w, int(odd * n))), "count"),
        ("a threshold that removes ties", (ties, s, threshold), "count"),
        ("the largest removed", (w, s, ranked(w, count, largest=True)), "order"),
        ("signed order", (w, s, signed.view(shape)), "order"),
        ("two neighbors in rank exchanged", (w, s, one_wrong), "swap"),
        ("True means removed", (w, s, ~ranked(w, count)), "count"),
        ("half inverted", (w[:2, :4], 0.5, _half(w[:2, :4])), "order"),
        ("numbers instead of truth values", (w, s, ranked(w, count).float()), "dtype"),
        ("pruned weights instead of a mask", (w, s, w * ranked(w, count)), "dtype"),
        ("another shape", (w, s, ranked(w, count).flatten()), "shape"),
        ("the transposed shape", (w, s, ranked(w, count).T.contiguous()), "shape"),
        ("nothing removed", (w, s, ranked(w, 0)), "ends"),
        ("everything removed", (w, s, ranked(w, n)), "ends"),
        ("one removed at sparsity 0", (w, 0.0, ranked(w, 1)), "ends"),
    )
    return [Case(f"right: {name}", args, tags=tags("right")) for name, args in good] + [
        Case(f"wrong: {name}", args, tags=tags(kind)) for name, args, kind in wrong
    ]


def _half(w: torch.Tensor) -> torch.Tensor:
    """The right number at 50 %, and exactly the wrong weights."""
    order = w.abs().flatten().argsort()
    mask = torch.ones(w.numel(), dtype=torch.bool)
    mask[order[w.numel() // 2 :]] = False
    return mask.view(w.shape)


TEST_FORM = "if mask.dtype != torch.bool or mask.shape != w.shape:"
TEST_COUNT = "if removed.numel() != round(sparsity * w.numel()):\n        return False\n"
TEST_ORDER = "return kept.numel() == 0 or removed.numel() == 0 or bool(removed.max() <= kept.min())"
VALID = Exercise(
    "is_valid_mask",
    points=10,
    difficulty=2,
    cases=valid_cases,
    properties=(
        Property("accepts every right mask", hold.accepts, 0, gate=True, tags=tags("right")),
        Property("refuses wrong counts", hold.refuses, 2, tags=tags("count")),
        Property("refuses wrong weights", hold.refuses, 2, tags=tags("order")),
        Property("refuses a single exchange", hold.refuses, 2, tags=tags("swap")),
        Property("refuses other dtypes", hold.refuses, 1, tags=tags("dtype")),
        Property("refuses other shapes", hold.refuses, 1, tags=tags("shape")),
        Property("refuses all and nothing", hold.refuses, 2, tags=tags("ends")),
    ),
    mistakes=(
        mistake(
            "count-only",
            "only the count is tested",
            "test-the-test",
            "Your test counts zeros and does not ask which weights they are. Removing the largest passes it. This "
            "is the usual test of public pruning labs.",
            (TEST_ORDER, "return True"),
        ),
        mistake(
            "order-only",
            "the count is not tested",
            "test-the-test",
            "Your test asks that no removed weight be larger than a kept one. Removing nothing at all passes it. A "
            "test needs both halves of the contract.",
            (TEST_COUNT, "pass\n"),
        ),
        mistake(
            "averages",
            "averages are compared",
            "test-the-test",
            "You compare the mean of the removed with the mean of the kept. A single exchange hardly moves a mean; "
            "the contract is about the largest removed and the smallest kept.",
            ("removed.max() <= kept.min()", "removed.mean() <= kept.mean()"),
        ),
        mistake(
            "strictly-smaller",
            "equal magnitudes are refused",
            "ties-and-exact-counts",
            "You ask for removed < kept, so a right answer on equal magnitudes is refused. A test that fails right "
            "answers is worse than none: students will bend right code until it passes.",
            ("removed.max() <= kept.min()", "removed.max() < kept.min()"),
        ),
        mistake(
            "one-true-answer",
            "compared with one implementation",
            "test-the-test",
            "You compute the mask your way and compare. Of equal magnitudes any may go, so other right answers "
            "fail your test. Test what must hold, not how you would do it.",
            (
                TEST_ORDER,
                "first = w.abs().flatten().argsort(stable=True)[: removed.numel()]\n"
                "    return not bool(mask.flatten()[first].any())",
            ),
        ),
        mistake(
            "signed-test",
            "the test forgets abs()",
            "magnitude",
            "You compare signed values. The test has the very mistake that it should find, so code and test agree "
            "and both are wrong.",
            ("w[mask].abs(), w[~mask].abs()", "w[mask], w[~mask]"),
        ),
        mistake(
            "rounds-down",
            "the expected count is cut off",
            "ties-and-exact-counts",
            "You expect int(s n) zeros. Where the contract rounds up, your test refuses right answers and accepts "
            "wrong ones.",
            ("round(sparsity * w.numel())", "int(sparsity * w.numel())"),
        ),
        mistake(
            "count-with-tolerance",
            "one more or less does not matter",
            "ties-and-exact-counts",
            "You allow the count to be off by one. The contract says exactly; off by one is what >, >= and int() "
            "produce, the commonest mistakes of all.",
            (
                "if removed.numel() != round(sparsity * w.numel()):",
                "if abs(removed.numel() - round(sparsity * w.numel())) > 1:",
            ),
        ),
        mistake(
            "dtype-untested",
            "numbers pass for truth values",
            "test-the-test",
            "A float mask of zeros and ones passes your test. ~mask then fails, and w[mask] reads elements 0 and "
            "1. Form belongs to the contract.",
            (
                TEST_FORM,
                "if mask.shape == w.shape:\n        mask = mask != 0\n    " + TEST_FORM,
            ),
        ),
        mistake(
            "shape-untested",
            "another shape passes",
            "test-the-test",
            "You flatten everything before you look, so a mask of another shape passes. Multiplied with the weight "
            "it would raise, or broadcast silently.",
            (
                TEST_FORM,
                "if mask.dtype == torch.bool and mask.shape in (w.flatten().shape, w.T.shape):\n"
                "        mask = mask.flatten().view(w.shape) if mask.ndim == 1 else mask.T\n    " + TEST_FORM,
            ),
        ),
        mistake(
            "no-empty-side",
            "fails when nothing or everything goes",
            "test-the-test",
            "The largest of no removed weights does not exist: at sparsity 0 or 1 your test raises instead of "
            "answering. The ends of a range are where both code and tests break.",
            ("kept.numel() == 0 or removed.numel() == 0 or ", ""),
        ),
        mistake(
            "nothing-removed-passes",
            "no zeros, no objection",
            "test-the-test",
            "You answer True as soon as nothing was removed or nothing is left. That is right at sparsity 0 and 1 "
            "only: an implementation that does nothing passes your test.",
            (
                "    if removed.numel() != round",
                "    if kept.numel() == 0 or removed.numel() == 0:\n"
                "        return True\n    if removed.numel() != round",
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "by sorted magnitudes",
            "def is_valid_mask(w, sparsity, mask):\n"
            "    if mask.dtype is not torch.bool or tuple(mask.shape) != tuple(w.shape):\n"
            "        return False\n"
            "    n, gone = w.numel(), round(sparsity * w.numel())\n"
            "    if int(mask.sum()) != n - gone:\n"
            "        return False\n"
            "    smallest = w.abs().flatten().sort().values[:gone]\n"
            "    return torch.equal(w[~mask].abs().flatten().sort().values, smallest)\n",
        ),
    ),
)

# 10. prune_to_budget


def budget_cases(seed: int, visible: bool) -> list[Case]:
    start = 0 if visible else 512 * (1 + seed % 30)
    calibration = Ref("images", {"split": "train", "count": 256, "start": start})
    where = "validation images" if visible else "test images"
    large = [150_000, 260_000] if visible else [125_000, 175_000, 275_000]
    small = [40_000, 90_000] if visible else [35_000, 80_000]
    return [
        Case(f"teacher20, {where}", (Ref("model", {"name": "teacher20"}), calibration, large)),
        Case(f"s6, {where}", (Ref("model", {"name": "s6"}), calibration, small)),
    ]


BUDGET_THRESHOLDS = "thresholds = dict.fromkeys(weights, ranked[kept].item())"
BUDGET_REPAIR = "repaired = reestimate_bn(pruned, [x])"
BUDGET_KEPT = "kept = min(budget // 5, len(ranked) - 1)"
BUDGET_FITS = "if file_bytes(pruned) <= budget:"
BUDGET_STATISTICS = "(norm.running_mean, norm.running_var) for"
BUDGET = Exercise(
    "prune_to_budget",
    points=15,
    difficulty=3,
    cases=budget_cases,
    properties=(
        Property("every file fits its budget", hold.fits_every_budget, 0, gate=True),
        Property("area under accuracy over log2(bytes)", hold.dominates, 1),
    ),
    mistakes=(
        mistake(
            "no-repair",
            "the statistics are those of the dense network",
            "batch-norm-after-pruning",
            "You prune and leave batch normalization alone. At these sizes most activations have shrunk, and their "
            "old means and variances are far off. A few images without a gradient bring back tens of points.",
            (BUDGET_REPAIR, "repaired = pruned"),
        ),
        mistake(
            "uniform-sparsity",
            "the same sparsity in every layer",
            "global-vs-uniform",
            "Every layer gives the same share. The first convolutions hold few weights and need most of them; fc1 "
            "holds two thirds of all and hardly notices. One threshold for the network does better, your own "
            "allocation better still.",
            (
                BUDGET_THRESHOLDS,
                "share = kept / len(ranked)\n"
                "            thresholds = {\n"
                "                name: w.abs().flatten().sort(descending=True).values[int(share * (w.numel() - 1))]\n"
                "                .item()\n"
                "                for name, w in weights.items()\n"
                "            }",
            ),
        ),
        mistake(
            "indices-free",
            "indices cost nothing",
            "sparse-bytes",
            "You count four bytes for each weight that is not zero and nothing for saying where it stands. The "
            "file is a quarter larger than you think, over every budget. A published lab reports its sizes this "
            "way.",
            (BUDGET_KEPT, "kept = min(budget // 4, len(ranked) - 1)"),
            (BUDGET_FITS, "if True:"),
        ),
        mistake(
            "rest-free",
            "biases and normalization cost nothing",
            "sparse-bytes",
            "You spend the whole budget on weights. Biases, scales, shifts and statistics are in the file too, a "
            "few thousand bytes; the last percent decides whether it fits.",
            (BUDGET_FITS, "if True:"),
        ),
        mistake(
            "dense-repair",
            "the dense network is measured",
            "batch-norm-after-pruning",
            "You re-estimate the statistics of the network before pruning. They come out as they were; what "
            "changed is the pruned network.",
            (BUDGET_REPAIR, "repaired = reestimate_bn(model, [x])"),
        ),
        mistake(
            "one-recipe",
            "the smallest recipe for every budget",
            "pareto",
            "You return the recipe for the smallest budget every time. It fits everywhere and leaves the other "
            "budgets unused: a front is made of several points.",
            ("for budget in budgets:", "for budget in [min(budgets)] * len(budgets):"),
        ),
        mistake(
            "wide-indices",
            "eight bytes for each weight",
            "csr-index-width",
            "You plan with a 4-byte index beside each value. The gap needs one byte, so three eighths of your "
            "budget stay empty.",
            (BUDGET_KEPT, "kept = min(budget // 8, len(ranked) - 1)"),
        ),
        mistake(
            "variance-for-mean",
            "mean and variance exchanged",
            "batch-norm-after-pruning",
            "The pair is (mean, variance), and yours is the other way round. Shapes agree, so only the accuracy "
            "tells.",
            (BUDGET_STATISTICS, "(norm.running_var, norm.running_mean.abs()) for"),
        ),
        mistake(
            "deviation-for-variance",
            "the standard deviation for the variance",
            "batch-norm-after-pruning",
            "Batch normalization stores variances and takes the root itself. You stored the root.",
            (BUDGET_STATISTICS, "(norm.running_mean, norm.running_var.sqrt()) for"),
        ),
    ),
    alternatives=(
        Alternative(
            "bisection",
            "def prune_to_budget(model, calibration, budgets):\n"
            "    names = list(prunable(model))\n"
            "    every = torch.cat([w.abs().flatten() for w in prunable(model).values()]).sort().values\n"
            "    recipes = []\n"
            "    for budget in budgets:\n"
            "        low, high = 0, len(every) - 1\n"
            "        while high - low > 200:\n"
            "            middle = (low + high) // 2\n"
            "            cut = {'thresholds': {n: float(every[middle]) for n in names}, 'batch_norm': {}}\n"
            "            fits = file_bytes(apply_recipe(model, cut)) <= budget\n"
            "            low, high = (low, middle) if fits else (middle, high)\n"
            "        cut = {'thresholds': {n: float(every[high]) for n in names}, 'batch_norm': {}}\n"
            "        net = reestimate_bn(apply_recipe(model, cut), list(calibration[0].split(128)))\n"
            "        for name, layer in net.named_children():\n"
            "            if isinstance(layer, nn.BatchNorm2d):\n"
            "                cut['batch_norm'][name] = [layer.running_mean, layer.running_var]\n"
            "        recipes.append(cut)\n"
            "    return recipes\n",
        ),
    ),
    seconds=10.0,
    same_form=False,
    may_change_inputs=True,
)


EXAM = Exam(
    "01-pruning",
    (MAGNITUDE, VALID, NM, REESTIMATE, FINETUNE, SENSITIVITY, ENCODE, ALLOCATE, SHRINK, BUDGET),
)
