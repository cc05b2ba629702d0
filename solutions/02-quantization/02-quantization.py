# %% [markdown]
# # Lab 02. Quantization: eight bits, four, two
#
# A hearing aid has a processor without floating point and 64 kB of memory for your network that tells clothes
# apart. The network has 437,000 weights of 32 bits each: 1.75 MB. Nobody needs 32 bits to say that a weight is
# "about a tenth". How many are needed?
#
# Two ways of using fewer run through this lab. A **codebook** lets many weights share one of a few values, and a
# short index says which. A **grid** of equally spaced values does the same with two numbers, and its integers can
# be multiplied and added directly. You will take the network down to 2 bits and back up in accuracy, run it
# without a single floating-point operation, and end with a file that fits the hearing aid and decodes to every
# weight.
#
# As before: everything is **chosen on validation images**, the test images are read once, in the last cell, and
# before each measurement you write a guess down. The lecture note is
# [Quantization](../../lecture_notes/quantization.md).

# %% role="setup"
import copy
import heapq
import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from fourbit.exam import check, confront, predict
from fourbit.sparsity import resized

RULES = ("minmax", "percentile", "mse")  # three ways of choosing a range

# %% [markdown]
# The network and the images.

# %% role="measure"
import matplotlib.pyplot as plt
from torch.nn.utils import parametrize

from fourbit.data import load, to_float
from fourbit.measure import file_size, measure_together
from fourbit.models import load_checkpoint
from fourbit.plots import COLORS, label_line, use_style
from fourbit.quantization import replaced
from fourbit.sparsity import prunable
from fourbit.training import evaluate, fit

use_style()
clothes = load("fashion-20k")
teacher = load_checkpoint("teacher20")
weights = prunable(teacher)  # of the convolutions and linear layers, by name
everything = {name: t for name, t in teacher.state_dict().items() if not name.endswith("num_batches_tracked")}
float_bytes = file_size(everything).total


def accuracy(net, split=clothes.val):
    """Top-1 accuracy in %."""
    return 100 * evaluate(net, split)


full = accuracy(teacher)
print(f"float32: {full:.2f} % of {len(clothes.val):,} validation images, {float_bytes:,} bytes")

# %% [markdown]
# ## 1 · Four values for a whole layer
#
# Give each layer a codebook of $2^b$ values, its **centroids**, and replace every weight by the nearest. Which
# values are best? Those with the smallest squared error, and finding them is k-means in one dimension. Lloyd's
# algorithm alternates two steps that can only improve: give each weight to its nearest centroid; move each
# centroid to the mean of its weights.
#
# It finds a local optimum, so where it starts matters. Deep Compression starts with equally spaced values
# between the smallest and the largest weight: random starts put nearly all centroids near zero, where nearly all
# weights are, and none at the few large weights that matter most.

# %% exercise="kmeans_codebook"
def kmeans_codebook(weight, bits, rounds=50):
    """Find 2**bits shared values for a weight by Lloyd's algorithm.

    Args:
        weight: float tensor of any shape.
        bits: 1 to 8.
        rounds: of giving each weight to its nearest centroid, then moving each centroid to the mean of its weights.
            A centroid without weights stays where it is. Stop early when no centroid moves.

    Returns:
        {"centroids": (2**bits,), dtype of weight, ascending; "codes": uint8 of weight's shape, the index of the
        nearest of *these* centroids for each weight}. The first centroids are equally spaced from the smallest
        to the largest weight.

    Example:
        >>> book = kmeans_codebook(torch.tensor([0.0, 1.0, 9.0, 11.0]), 1)
        >>> book["centroids"].tolist(), book["codes"].tolist()
        ([0.5, 10.0], [0, 0, 1, 1])
    """
    ### BEGIN SOLUTION
    flat = weight.flatten()
    centroids = torch.linspace(flat.min().item(), flat.max().item(), 2**bits, dtype=weight.dtype)
    for _ in range(rounds):
        codes = torch.bucketize(flat, (centroids[1:] + centroids[:-1]) / 2)
        sums = torch.zeros_like(centroids).index_add(0, codes, flat)
        counts = torch.bincount(codes, minlength=len(centroids))
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    codes = torch.bucketize(flat, (centroids[1:] + centroids[:-1]) / 2)
    return {"centroids": centroids, "codes": codes.to(torch.uint8).view(weight.shape)}
    ### END SOLUTION

# %% check="kmeans_codebook"

# %% prediction="four-values"
predict("four-values", ..., "validation accuracy with 4 values (2 bits) in each layer, no training, %")

# %% role="measure"
widths = (8, 6, 5, 4, 3, 2)
books = {bits: {name: kmeans_codebook(w, bits) for name, w in weights.items()} for bits in widths}


def from_books(books):
    """The network with the weights that these codebooks stand for."""
    return replaced(teacher, {name: book["centroids"][book["codes"].long()] for name, book in books.items()})


curves = {"k-means codebook": [accuracy(from_books(books[bits])) for bits in widths]}

_, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
w = weights["conv4"].flatten()
left.hist(w, bins=121, color=COLORS["gray"], alpha=0.45, density=True)
for bits, color, top in ((2, "vermilion", 0.55), (4, "blue", 0.25)):
    places = books[bits]["conv4"]["centroids"]
    left.vlines(places, 0, top * left.get_ylim()[1], color=COLORS[color], linewidth=1.5)
    left.text(0.24, (top + 0.02) * left.get_ylim()[1], f"{2**bits} centroids", color=COLORS[color], ha="right")
left.set_xticks([-0.1, 0, 0.1, 0.2])
left.set(xlabel="weight of conv4", ylabel="density", title="Where the centroids go")
(line,) = right.plot(widths, curves["k-means codebook"], "o-")
right.axhline(full, color=COLORS["gray"], linestyle="--")
right.text(2, full + 1.5, "float32", color=COLORS["gray"])
right.set(xlabel="bits for each weight", ylabel="validation accuracy, %", title="Shared values", ylim=(0, 100))
plt.show()
confront("four-values", curves["k-means codebook"][-1])

# %% [markdown]
# ## 2 · Who tests the test?
#
# A well-known course tests its k-means quantization by counting: at most $2^b$ different values, passed.
# Rounding every weight to the *farthest* centroid passes too, and so does a codebook of one value. (Its stored
# solution even shows the test on a tensor that was quantized before: "unique values before: 3, after: 3,
# passed". The test changes its own default argument.)
#
# Write the test that finds them out. It gets a weight and what somebody's `kmeans_codebook` returned after it
# had converged, and must accept **every** codebook that Lloyd's algorithm would leave as it is, whatever the
# start, and refuse all others. You are scored by the wrong ones that you catch; refuse one right codebook and
# you score nothing.

# %% exercise="is_valid_codebook"
def is_valid_codebook(weight, bits, centroids, codes):
    """A test of `kmeans_codebook`: are these a converged codebook of `weight`?

    Args:
        weight: float64 tensor of any shape, never empty; bits: 1 to 8.
        centroids, codes: what some implementation returned, tensors of any dtype and shape.

    Returns:
        True when centroids is a float64 (2**bits,) tensor in ascending order (equal neighbors are allowed), codes a
        uint8 tensor of weight's shape, no weight lies nearer to another centroid than to its own, and every
        centroid that has weights is their mean. Else False. Distances and means may be off by
        1e-9 * weight.abs().max(), more than any order of summation does in float64. A centroid without weights may
        lie anywhere.

    Example:
        >>> w = torch.tensor([0.0, 1.0, 9.0, 11.0]).double()
        >>> codes = torch.tensor([0, 0, 1, 1], dtype=torch.uint8)
        >>> is_valid_codebook(w, 1, torch.tensor([0.5, 10.0]).double(), codes)
        True
        >>> is_valid_codebook(w, 1, torch.tensor([0.0, 10.0]).double(), codes)
        False
    """
    ### BEGIN SOLUTION
    if centroids.shape != (2**bits,) or centroids.dtype != weight.dtype:
        return False
    if codes.dtype != torch.uint8 or codes.shape != weight.shape or int(codes.max()) >= 2**bits:
        return False
    if not centroids.isfinite().all() or (centroids.diff() < 0).any():
        return False
    slack = 1e-9 * weight.abs().max()
    distances = (weight.flatten()[:, None] - centroids).abs()  # (n, 2**bits)
    own = distances.gather(1, codes.long().view(-1, 1))
    if (own > distances.min(1, keepdim=True).values + slack).any():
        return False
    means = [(weight[codes == code].mean() - centroids[code]).abs() for code in codes.unique().long()]
    return all(bool(error <= slack) for error in means)
    ### END SOLUTION

# %% check="is_valid_codebook"

# %% [markdown]
# ## 3 · Centroids that learn
#
# At 2 bits twenty points are gone. Train again, but a weight is no longer free: all weights with one code share
# one centroid and move together. By the chain rule a centroid's gradient collects those of all its weights. What
# is the sum, what would be the mean?

# %% exercise="centroid_gradient"
def centroid_gradient(gradient, codes, count):
    """The gradient of each centroid, from the gradient of the weights that share it.

    Args:
        gradient: dL/dw, float tensor of the weight's shape; codes: uint8 of the same shape, the centroid of each
            weight; count: number of centroids.

    Returns:
        dL/dc, (count,) of the dtype of gradient, where w = c[codes]. Zero for a centroid that nobody uses.

    Example:
        >>> centroid_gradient(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[0, 2], [2, 0]]).byte(), 4)
        tensor([9., 0., 6., 0.])
    """
    ### BEGIN SOLUTION
    return torch.zeros(count, dtype=gradient.dtype).index_add(0, codes.flatten().long(), gradient.flatten())
    ### END SOLUTION

# %% check="centroid_gradient"

# %% [markdown]
# One epoch with your gradient, at 4 and at 2 bits. Only the centroids, the biases and the batch normalization
# learn; no weight changes its code.

# %% prediction="learned-centroids"
predict("learned-centroids", ..., "validation accuracy at 2 bits after one epoch, %")

# %% role="measure"
class Lookup(torch.autograd.Function):
    """Weights from centroids, with the gradient of this lab."""

    @staticmethod
    def forward(ctx, centroids, codes):
        ctx.save_for_backward(codes)
        ctx.count = len(centroids)
        return centroids[codes.long()]

    @staticmethod
    def backward(ctx, gradient):
        (codes,) = ctx.saved_tensors
        return centroid_gradient(gradient, codes, ctx.count), None


class Shared(nn.Module):
    """A weight that is looked up in a codebook wherever `alive`, and zero elsewhere."""

    def __init__(self, book, alive):
        super().__init__()
        self.first = book["centroids"]
        self.register_buffer("codes", book["codes"])
        self.register_buffer("alive", alive)

    def right_inverse(self, weight):
        return self.first  # what is trained in the weight's place

    def forward(self, centroids):
        weight = torch.zeros(self.alive.shape)
        weight[self.alive] = Lookup.apply(centroids, self.codes)
        return weight


def learning(net, parts):
    """A copy of `net` in which each layer's weight is made by a part: a codebook, or a grid."""
    net = copy.deepcopy(net)
    for name, part in parts.items():
        parametrize.register_parametrization(net.get_submodule(name), "weight", part)
    return net


def settled(net):
    """The same network with plain weights again."""
    net = copy.deepcopy(net)
    for name in weights:
        parametrize.remove_parametrizations(net.get_submodule(name), "weight")
    return net


tuned = {}
for bits in (4, 2):
    flat = {name: {**book, "codes": book["codes"].flatten()} for name, book in books[bits].items()}
    parts = {name: Shared(flat[name], torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    net = learning(teacher, parts)
    fit(net, clothes.train, epochs=1, lr=1e-4, weight_decay=0.0)
    tuned[bits] = settled(net)
    before = curves["k-means codebook"][widths.index(bits)]
    print(f"{bits} bits: {before:.2f} % before, {accuracy(tuned[bits]):.2f} % after one epoch")
confront("learned-centroids", accuracy(tuned[2]))

# %% [markdown]
# ## 4 · A broken notebook
#
# Codebooks need a table look-up before every multiplication. A **grid** does not: value = `scale` × (`code` −
# `zero_point`), with integer codes. The zero point is the code of zero, and zero has to be *exactly* on the
# grid: padding writes zeros, ReLU writes zeros, and an error in each of them adds up.
#
# Here is a quantizer as a course published it in 2025 (TinyTorch, retold in PyTorch; it has been mended since).
# Its own tests passed. Run the cell and see where it fails; then write it right. Look for a constant tensor, a
# range that does not contain zero, and what clamping the zero point does then.

# %% role="measure"
def published(x):
    low, high = x.min(), x.max()
    if high - low < 1e-8:
        return {"codes": torch.zeros_like(x, dtype=torch.int8), "scale": torch.tensor(1.0), "zero_point": 0}
    scale = (high - low) / 255
    zero_point = (-128 - low / scale).round().clamp(-128, 127)
    codes = (x / scale + zero_point).round().clamp(-128, 127).to(torch.int8)
    return {"codes": codes, "scale": scale, "zero_point": int(zero_point)}


victims = {
    "both signs": torch.tensor([-1.5, 0.2, 2.8]),
    "constant": torch.tensor([0.5, 0.5, 0.5]),
    "far from zero": torch.tensor([3.0, 4.0, 5.0]),
    "after a ReLU": torch.tensor([0.1, 0.6, 1.1]),
}
for name, x in victims.items():
    q = published(x)
    back = q["scale"] * (q["codes"].float() - q["zero_point"])
    print(f"{name:14} {x.numpy().round(3)} -> {q['codes'].tolist()} -> {back.numpy().round(3)}")

# %% exercise="quantize"
def quantize(x, low, high, bits, symmetric=False):
    """Put x on a grid of equally spaced values that covers [low, high] and holds zero exactly.

    Args:
        x: float32 tensor of any shape.
        low, high: float32 tensors that broadcast against x, low <= high: 0-d for one grid, more for many.
        bits: 2 to 8.
        symmetric: codes from -(2**(bits - 1) - 1) to 2**(bits - 1) - 1 and zero point 0, scale from the larger of
            |low| and |high|. Else codes from -2**(bits - 1) to 2**(bits - 1) - 1, so that the range, first widened to
            contain zero where it does not, has 2**bits - 1 steps from end to end.

    Returns:
        {"codes": int8 of x's shape; "scale": float32, "zero_point": int32, both of low's shape}. A code is x / scale
        rounded half to even, plus zero_point = round(lowest code - low / scale), clamped to the range of codes. Where
        the range is empty (low = high = 0) the scale is 1.

    Example:
        >>> q = quantize(torch.tensor([-1.0, 0.0, 0.6, 9.0]), torch.tensor(-1.0), torch.tensor(2.0), 2)
        >>> q["codes"].tolist(), q["scale"].item(), q["zero_point"].item()
        ([-2, -1, 0, 1], 1.0, -1)
    """
    ### BEGIN SOLUTION
    low, high = low.clamp(max=0), high.clamp(min=0)
    top = 2 ** (bits - 1) - 1
    bottom = -top if symmetric else -top - 1
    scale = torch.maximum(-low, high) / top if symmetric else (high - low) / (top - bottom)
    scale = torch.where(scale > 0, scale, 1.0)
    zero_point = torch.zeros_like(scale) if symmetric else (bottom - low / scale).round()
    codes = ((x / scale).round() + zero_point).clamp(bottom, top)
    return {"codes": codes.to(torch.int8), "scale": scale, "zero_point": zero_point.to(torch.int32)}
    ### END SOLUTION

# %% check="quantize"

# %% role="measure"
def dequantize(q):
    """The values that the codes stand for; the difference is taken in 32 bits, in 8 it would wrap."""
    return q["scale"] * (q["codes"].to(torch.int32) - q["zero_point"])


for name, x in victims.items():
    print(f"{name:14} {x.numpy().round(3)} -> {dequantize(quantize(x, x.min(), x.max(), 8)).numpy().round(3)}")

x = torch.linspace(-1.4, 2.4, 1500)
q = quantize(x, torch.tensor(-1.0), torch.tensor(2.0), 3)
_, (axis, below) = plt.subplots(2, 1, figsize=(7, 4.6), sharex=True, height_ratios=(2, 1))
axis.plot(x, x, ":", color=COLORS["gray"])
axis.plot(x, dequantize(q))
axis.set(ylabel="after the grid", title="Three bits for the range from −1 to 2")
below.plot(x, dequantize(q) - x, color=COLORS["vermilion"])
below.axhspan(-q["scale"] / 2, q["scale"] / 2, color=COLORS["gray"], alpha=0.2, linewidth=0)
below.annotate("± scale / 2", (1.9, q["scale"].item() / 2), va="bottom", ha="right", color=COLORS["gray"])
below.set(xlabel="x", ylabel="error", ylim=(-0.6, 0.6))
plt.show()

# %% [markdown]
# Inside the range the error is at most half a step; outside it grows with the distance. Everything that follows
# is about making the step small *and* leaving little outside.
#
# ## 5 · One scale, or many
#
# One large weight sets the scale of all that share it. The fewer share, the smaller the steps: a scale for the
# whole tensor, for each output channel, or for each group of $g$ inputs of a channel. Scales cost bytes, 32 bits
# each: $32/g$ bits more for each weight.

# %% exercise="quantize_weight"
def quantize_weight(w, bits, group):
    """Quantize a weight on symmetric grids whose scales are set by the largest magnitude that shares them.

    Args:
        w: float32 (out, ...); everything behind the first dimension is one row of inputs.
        bits: 2 to 8.
        group: "tensor", "channel" (one scale for each row), or an int g: one for g consecutive inputs of a row; the
            last group of a row is smaller when g does not divide it.

    Returns:
        {"codes": int8 of w's shape; "scale": float32 (1, 1), (out, 1) or (out, ceil(inputs / g))}. Use `quantize`.

    Example:
        >>> q = quantize_weight(torch.tensor([[1.0, -2.0, 7.0], [0.0, 0.3, -0.1]]), 3, 2)
        >>> q["codes"].tolist(), [[round(s, 3) for s in row] for row in q["scale"].tolist()]
        ([[2, -3, 3], [0, 3, -3]], [[0.667, 2.333], [0.1, 0.033]])
    """
    ### BEGIN SOLUTION
    rows = w.flatten(1)  # (out, inputs)
    size = {"tensor": w.numel(), "channel": rows.shape[1]}.get(group, group)
    if group == "tensor":
        rows = rows.view(1, -1)
    blocks = F.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))  # (rows, groups, size)
    limit = blocks.abs().amax(2, keepdim=True)
    q = quantize(blocks, -limit, limit, bits, symmetric=True)
    codes = q["codes"].flatten(1)[:, : rows.shape[1]]
    return {"codes": codes.reshape(w.shape), "scale": q["scale"].squeeze(2)}
    ### END SOLUTION

# %% check="quantize_weight"

# %% prediction="three-bits"
predict("three-bits", ..., "points that a scale for each channel gains over one for each tensor, at 3 bits")

# %% role="measure"
def grid_values(q, group):
    """The weight that codes and scales stand for."""
    rows = q["codes"].flatten(1)
    size = {"tensor": rows.shape[1], "channel": rows.shape[1]}.get(group, group)
    scale = q["scale"].repeat_interleave(size, dim=1)[:, : rows.shape[1]]  # (out or 1, inputs)
    return (scale * rows).view(q["codes"].shape)


def on_grid(net, bits, group):
    return replaced(net, {k: grid_values(quantize_weight(w, bits, group), group) for k, w in prunable(net).items()})


labels = {"tensor": "one scale", "channel": "a scale for each channel", 32: "a scale for 32 weights"}
for group, label in labels.items():
    curves[label] = [accuracy(on_grid(teacher, bits, group)) for bits in widths]

_, axes = plt.subplots(figsize=(7.5, 4.2))
for label, values in curves.items():
    (line,) = axes.plot(widths, values, "o-")
    label_line(line, label, x=2, xytext=(-8, 0), ha="right", va="center")
axes.set(xlabel="bits for each weight", ylabel="validation accuracy, %", ylim=(0, 100), xlim=(-0.4, 8.2))
axes.set_xticks(widths)
axes.set_title("Who shares a scale? Weights only, no training")
plt.show()
print(f"{'bits':25}" + "".join(f"{bits:8}" for bits in widths))
for label, values in curves.items():
    print(f"{label:25}" + "".join(f"{share:8.2f}" for share in values))
at = widths.index(3)
sister = load_checkpoint("teacher60")
others = {label: accuracy(on_grid(sister, 3, group)) for group, label in labels.items()}
shown = ", ".join(f"{name} {share:.1f} %" for name, share in others.items())
print(f"teacher60 at 3 bits: float32 {accuracy(sister):.1f} %, {shown}")
outliers = [(w.abs().max() / w.std()).item() for w in (weights["fc1"], prunable(sister)["fc1"])]
print("largest weight of fc1: {:.1f} standard deviations in teacher20, {:.1f} in teacher60".format(*outliers))


def lost(net):
    """Squared error of the weights, in % of their squares."""
    error = sum((w - weights[name]).square().sum() for name, w in prunable(net).items())
    return 100 * (error / sum(w.square().sum() for w in weights.values())).item()


errors = {"k-means codebook": lost(from_books(books[3]))}
errors |= {label: lost(on_grid(teacher, 3, group)) for group, label in labels.items()}
print("squared error at 3 bits:", ", ".join(f"{label} {error:.1f} %" for label, error in errors.items()))
confront("three-bits", curves["a scale for each channel"][at] - curves["one scale"][at])

# %% [markdown]
# Eight bits are nearly free whatever the grid. Below four the scales decide, and how much depends on outliers: the
# first line below the table is for `teacher60`, the same network trained on three times the images. One number for
# "3 bits" does not exist; that many scales beat one is what lasts. At 2 bits, which is three values, even a scale for
# each channel is not enough. The codebook of a layer does better, for it puts its four values where the weights
# are; a scale for 32 weights better still, but do not forget what its scales cost: a third bit for each weight.
#
# Look at 3 bits again: the codebook has by far the smallest squared error, as k-means promises, and not the best
# accuracy. Squared error counts every weight alike; the network does not.
#
# **Question 1.** Both grids of 3 bits have the same 7 values for each scale. What share of the weights does the
# grid with one scale round to zero if the largest magnitude is 6 standard deviations of a normal distribution? And
# a scale for each channel of 288 weights, where the largest is about 3 standard deviations? Why then does
# `teacher60` lose so much more with one scale than `teacher20`?

# %% [markdown] written="why-scales" points=2
# The grid's step is max/3, and all weights within half a step of zero become zero. With max = 6σ the step is 2σ:
# every |w| < σ is lost, 68 % of the weights. With max = 3σ it is σ, and |w| < σ/2 is 38 %. Longer training has given
# teacher60 larger outliers (fc1: more than 11 standard deviations, 6 in teacher20), so nearly all of fc1 becomes
# zero on one scale. (One point for the step and the half step with both shares, one for the outliers.)

# %% [markdown]
# ## 6 · Real bytes
#
# PyTorch has no tensor of 3-bit numbers: your codes are int8, and a file of them has 8 bits for each weight
# whatever `bits` was. To save bytes, pack them: bit after bit, across the borders of bytes.

# %% exercise="pack_codes"
def pack_codes(codes, bits):
    """Pack codes of a few bits into bytes without a gap.

    Args:
        codes: uint8 tensor of any shape with values below 2**bits; bits: 1 to 8.

    Returns:
        uint8 (ceil(codes.numel() * bits / 8),): one stream of bits. Code i of the flattened tensor takes the places
        i * bits to (i + 1) * bits - 1, its least significant bit first; place p is bit p % 8 (least significant
        first) of byte p // 8. Places behind the last code are 0.

    Example:
        >>> pack_codes(torch.tensor([1, 2, 3, 7], dtype=torch.uint8), 3).tolist()
        [209, 14]
    """
    ### BEGIN SOLUTION
    stream = (codes.flatten()[:, None] >> torch.arange(bits, dtype=torch.uint8) & 1).flatten()
    octets = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (octets.long() << torch.arange(8)).sum(1).to(torch.uint8)
    ### END SOLUTION

# %% check="pack_codes"

# %% prediction="four-bit-file"
predict("four-bit-file", ..., "kB of the file at 4 bits for each weight with a scale for each channel")

# %% role="measure"
from fourbit.quantization import unpack_codes


def artefact(net, bits, group):
    """The tensors of a file: packed codes and scales for each weight, float32 for all else."""
    tensors = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, w in prunable(net).items():
        q = quantize_weight(w, bits, group)
        shifted = (q["codes"].int() + 2 ** (bits - 1)).to(torch.uint8)
        del tensors[f"{name}.weight"]
        tensors |= {f"{name}.codes": pack_codes(shifted, bits), f"{name}.scale": q["scale"]}
    return tensors


for bits in widths:  # what is packed comes back
    q = quantize_weight(weights["conv0"], bits, "channel")
    shifted = (q["codes"].int() + 2 ** (bits - 1)).to(torch.uint8).flatten()
    assert torch.equal(unpack_codes(pack_codes(shifted, bits), bits, shifted.numel()), shifted)

print(f"{'bits':>5} {'codes':>9} {'scales':>8} {'the rest':>9} {'header':>7} {'file':>9}   times smaller")
sizes = {}
for bits, group in ((8, "channel"), (4, "tensor"), (4, "channel"), (4, 32), (3, "channel"), (2, "channel")):
    tensors = artefact(teacher, bits, group)
    parts = [sum(t.nbytes for k, t in tensors.items() if k.endswith(end)) for end in (".codes", ".scale")]
    file = file_size(tensors)
    sizes[bits, group] = file.total
    rest = file.data - sum(parts)
    print(
        f"{bits:5} {parts[0]:9,} {parts[1]:8,} {rest:9,} {file.header:7,} {file.total:9,}   "
        f"{float_bytes / file.total:4.1f}   ({labels[group]})"
    )
confront("four-bit-file", sizes[4, "channel"] / 1000)

# %% [markdown]
# ## 7 · Activations: what range will they have?
#
# Weights lie before you. Activations come with the images, and their range has to be fixed beforehand, from a few
# **calibration** images (of the training split). The largest value seen is safe and wasteful: one pixel in a
# million decides. Cutting the range leaves some values outside and makes all others finer.

# %% exercise="clip_range"
def clip_range(x, bits, kind):
    """Choose the range of a grid from sample values.

    Args:
        x: float32 tensor of samples, any shape; bits: of the grid that will be used.
        kind: "minmax": smallest and largest. "percentile": the quantiles 0.001 and 0.999 (linear interpolation).
            "mse": of the ranges (smallest * k / 100, largest * k / 100), k = 1 ... 100, the one for which x after
            `quantize(x, low, high, bits)`, asymmetric, and back has the smallest mean squared error.

    Returns:
        (low, high), 0-d float32 tensors.

    Example:
        >>> low, high = clip_range(torch.tensor([0.0, 1.0, 2.0, 10.0]), 8, "minmax")
        >>> low.item(), high.item()
        (0.0, 10.0)
    """
    ### BEGIN SOLUTION
    low, high = x.min(), x.max()
    if kind == "minmax":
        return low, high
    if kind == "percentile":
        return torch.quantile(x, 0.001), torch.quantile(x, 0.999)
    best = (math.inf, low, high)
    for k in range(100, 0, -1):
        a, b = low * k / 100, high * k / 100
        q = quantize(x, a, b, bits)
        back = q["scale"] * (q["codes"].int() - q["zero_point"])
        error = (back - x).square().mean().item()
        if error < best[0]:
            best = (error, a, b)
    return best[1:]
    ### END SOLUTION

# %% check="clip_range"

# %% prediction="activations"
predict("activations", ..., "validation accuracy with 4-bit activations by min-max (weights in float32), %")

# %% role="measure"
from fourbit.quantization import activations

calibration = to_float(clothes.train.x[:256])
samples = {name: x.flatten()[:: max(1, x.numel() // 20_000)] for name, x in activations(teacher, calibration).items()}
samples.pop("fc2")  # the logits stay as they are


class Rounding(nn.Module):
    """An activation that lies on a grid of 2**bits values between low and high."""

    def __init__(self, low, high, bits):
        super().__init__()
        self.low, self.high, self.bits = low, high, bits

    def forward(self, x):
        return dequantize(quantize(x, self.low, self.high, self.bits))


def with_rounding(net, ranges, bits):
    """The network with a grid behind the ReLU of each layer, and one in front."""
    behind = {name.replace("conv", "relu") if "conv" in name else f"{name}_relu": name for name in ranges}
    layers = OrderedDict(input_grid=Rounding(*ranges["input"], bits))
    for name, layer in net.named_children():
        layers[name] = layer
        if name in behind:
            layers[f"{name}_grid"] = Rounding(*ranges[behind[name]], bits)
    return nn.Sequential(layers).eval()


def ranges_of(bits, kind):
    return {name: clip_range(x, bits, kind) for name, x in samples.items()}


by_kind = {}
for kind in RULES:
    by_kind[kind] = {b: accuracy(with_rounding(teacher, ranges_of(b, kind), b)) for b in (8, 6, 4, 3)}
    print(f"{kind:10}", ", ".join(f"{bits} bits {share:.2f} %" for bits, share in by_kind[kind].items()))

x = samples["conv4"]
shares = torch.arange(4, 101, 2) / 100
_, axes = plt.subplots(figsize=(7.5, 3.9))
for bits in (3, 4, 6):
    back = [dequantize(quantize(x, x.min() * s, x.max() * s, bits)) for s in shares]
    errors = torch.stack([(b - x).square().mean() for b in back])
    (line,) = axes.plot(100 * shares, errors, "-")
    lowest = errors.argmin()
    axes.plot(100 * shares[lowest], errors[lowest], "o", color=line.get_color())
    label_line(line, f"{bits} bits")
axes.set(yscale="log", xlabel="end of the range, % of the largest activation", ylabel="mean squared error")
axes.set_title("conv4: a finer grid, or less cut off?")
plt.show()
confront("activations", by_kind["minmax"][4])

# %% [markdown]
# The fewer the bits, the more it pays to cut: the dots move left. With 8 bits all three rules do.
#
# ## 8 · Fold the batch normalization
#
# At inference a batch normalization multiplies each channel by a constant and adds another. So does a
# convolution. Put the constants into its weight and bias, and a whole layer is gone: less to quantize, less to
# compute. One hitch: every channel's weights are now scaled differently.

# %% exercise="fold_batch_norm"
def fold_batch_norm(model):
    """Put each batch normalization into the convolution right before it.

    Args:
        model: nn.Sequential with named children; a BatchNorm2d directly after a Conv2d is folded into it, all other
            layers stay, a BatchNorm2d elsewhere too.

    Returns:
        A new nn.Sequential in evaluation mode without the folded layers, other names and settings as before, that
        computes what `model` computes in evaluation mode. `model` stays as it is.

    resized(layer, weight=..., bias=...) makes a layer with the settings of `layer` and these tensors.

    Example:
        >>> net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(2))).eval()
        >>> [name for name, _ in fold_batch_norm(net).named_parameters()]
        ['conv.weight', 'conv.bias']
    """
    ### BEGIN SOLUTION
    layers, last = OrderedDict(), None
    for name, layer in model.named_children():
        if isinstance(layer, nn.BatchNorm2d) and isinstance(last, nn.Conv2d):
            gain = layer.weight / (layer.running_var + layer.eps).sqrt()
            bias = 0.0 if last.bias is None else last.bias
            bias = layer.bias + (bias - layer.running_mean) * gain
            layers[next(reversed(layers))] = resized(last, weight=last.weight * gain.view(-1, 1, 1, 1), bias=bias)
            last = layer
        else:
            layers[name] = last = copy.deepcopy(layer)
    return nn.Sequential(layers).eval()
    ### END SOLUTION

# %% check="fold_batch_norm"

# %% role="measure"
folded = fold_batch_norm(teacher)
with torch.no_grad():
    apart = (folded(calibration) - teacher(calibration)).abs().max().item()
print(f"logits differ by at most {apart:.1e}; {len(teacher)} layers became {len(folded)}")
for group in ("tensor", "channel"):
    row = [f"{bits} bits {accuracy(on_grid(net, bits, group)):.2f} %" for net in (teacher, folded) for bits in (8, 4)]
    print(f"{labels[group]:25} before folding: {row[0]}, {row[1]}; after: {row[2]}, {row[3]}")

# %% [markdown]
# ## 9 · No floating point at all
#
# Now the arithmetic itself. With weight codes $w$ (zero point 0) and input codes $x$, a layer's output is
#
# $$ y = \sum_j s_x (x_j - z_x)\, s_w w_j + b
# = s_x s_w \Big( \underbrace{\sum_j (x_j - z_x)\, w_j + b_q}_{\text{acc, 32 bits}} \Big),
# \qquad b_q = \mathrm{round}\!\left(\frac{b}{s_x s_w}\right), $$
#
# and its code is $\mathrm{round}(M \cdot \mathrm{acc}) + z_y$ with $M = s_x s_w / s_y$. All is integer but $M$.
# Round $M$ to float32: then it *is* an integer $m_0$ of 24 bits times a power of two, $M = m_0 2^{-n}$, and
# multiplying by it is a 64-bit multiplication and a shift. Adding $2^{n-1}$ before the shift rounds half up.
#
# With every operation defined like this there is one right answer, and two implementations agree in every bit,
# or one of them is wrong.

# %% exercise="integer_layer"
def integer_layer(x, w, bias, x_scale, x_zero, w_scale, y_scale, y_zero):
    """One linear layer in integers: int8 codes in, int8 codes out.

    Args:
        x: int8 (N, in); w: int8 (out, in), zero point 0; bias: float32 (out,).
        x_scale, y_scale: floats; x_zero, y_zero: ints from -128 to 127; w_scale: float32 (out,).

    Returns:
        int8 (N, out). The accumulator is the sum of (x - x_zero) * w plus round(bias / (x_scale * w_scale)), in int32.
        The multiplier x_scale * w_scale / y_scale, computed in float64, is rounded to float32 = m0 * 2**-n with an
        integer m0, 2**23 <= m0 < 2**24. The code is floor((acc * m0 + 2**(n - 1)) / 2**n) + y_zero in 64-bit
        integers, clamped to -128 ... 127. n >= 1 in all cases here.

    torch.frexp(t) gives (mantissa in [0.5, 1), exponent) with t = mantissa * 2**exponent, exactly.

    Example:
        >>> x, w = torch.tensor([[3, 1]], dtype=torch.int8), torch.tensor([[5, -2]], dtype=torch.int8)
        >>> integer_layer(x, w, torch.tensor([0.5]), 0.5, 1, torch.tensor([0.25]), 0.5, -3)
        tensor([[1]], dtype=torch.int8)
    """
    ### BEGIN SOLUTION
    product = x_scale * w_scale.double()
    acc = (x.int() - x_zero) @ w.int().T + (bias.double() / product).round().int()  # (N, out)
    mantissa, exponent = torch.frexp((product / y_scale).float())
    m0, n = (mantissa * 2**24).long(), 24 - exponent.long()
    scaled = (acc.long() * m0 + (1 << (n - 1))) >> n
    return (scaled + y_zero).clamp(-128, 127).to(torch.int8)
    ### END SOLUTION

# %% check="integer_layer"

# %% [markdown]
# The whole network, on 64 images, in integers; and beside it the usual **simulation**, which courses and papers
# report: float32 numbers rounded to the grids. How often do they differ?

# %% prediction="bit-for-bit"
predict("bit-for-bit", ..., "% of the 640 logit codes in which the float32 simulation differs from the integers")

# %% role="measure"
from fourbit.quantization import Grid, IntegerWeight, run_integer


def grid_of(low, high):
    q = quantize(low, low, high, 8)
    return Grid(q["scale"].item(), q["zero_point"].item())


ranges = {name: clip_range(x, 8, "minmax") for name, x in activations(folded, calibration).items()}
grids = {name: grid_of(low, high) for name, (low, high) in ranges.items()}
integers = {}
for name, w in prunable(folded).items():
    q = quantize_weight(w, 8, "channel")
    integers[name] = IntegerWeight(q["codes"], q["scale"].flatten(), folded.get_submodule(name).bias.detach())


def exact_layer(x, w, bias, x_scale, x_zero, w_scale, y_scale, y_zero):
    """The same layer in float64: sums of integers below 2**53 are exact, and so is the product with a float32."""
    acc = F.linear(x.double() - x_zero, w.double()) + (bias.double() / (x_scale * w_scale.double())).round()
    multiplier = (x_scale * w_scale.double() / y_scale).float().double()
    return ((acc * multiplier + 0.5).floor() + y_zero).clamp(-128, 127).to(torch.int8)


def usual_layer(x, w, bias, x_scale, x_zero, w_scale, y_scale, y_zero):
    """The usual simulation: multiply the values in float32, then round the result to its grid."""
    y = F.linear(x_scale * (x.float() - x_zero), w_scale[:, None] * w.float(), bias)
    return ((y / y_scale).round() + y_zero).clamp(-128, 127).to(torch.int8)


x = to_float(clothes.val.x[:64])
grid = grids["input"]
codes = quantize(x, *ranges["input"], 8)["codes"]
logits = {f.__name__: run_integer(folded, integers, grids, codes, f) for f in (integer_layer, exact_layer, usual_layer)}
ours = logits["integer_layer"]
right = int((ours.argmax(1) == clothes.val.y[:64]).sum())
print(f"integers: {right} of 64 images right")
print("equal to the float64 simulation, bit for bit:", torch.equal(ours, logits["exact_layer"]))
other = (ours != logits["usual_layer"]).double().mean().item()
print(f"same class as the float32 simulation: {(ours.argmax(1) == logits['usual_layer'].argmax(1)).sum()} of 64")
confront("bit-for-bit", 100 * other)

# %% role="measure"
def in_batches(layer, split=clothes.val):
    """Accuracy in % of the integer network, its layers computed by `layer`."""
    parts = [quantize(to_float(part), *ranges["input"], 8)["codes"] for part in split.x.split(250)]
    answers = torch.cat([run_integer(folded, integers, grids, part, layer).argmax(1) for part in parts])
    return 100 * (answers == split.y).double().mean().item()


print(f"float32 {full:.2f} %, integers {in_batches(exact_layer):.2f} % of all validation images")

# %% [markdown]
# (All validation images go through the float64 twin: it gives the same bits, and PyTorch's integer matrix product
# is slow.)
#
# ### Is it faster?
#
# int8 moves a quarter of the bytes, and a vector register holds four times as many int8 as float32 numbers. How
# much of that arrives? Here are your integers and ONNX Runtime's int8 kernels, beside float32 in both. The times
# are medians of runs in turns, and they say something about *this* computer: processors with VNNI multiply and
# add int8 in one instruction and gain much more than those without. Those without add two products in 16 bits,
# which can saturate; 7 bits for the weights avoid it.

# %% prediction="int8-speed"
predict("int8-speed", ..., "speed of int8 over float32, both ONNX Runtime, 64 images at once (2 = twice as fast)")

# %% role="measure"
from fourbit.measure.int8 import export, quantize_static, session

file32 = export(folded)
files = {
    "float32": file32,
    "int8": quantize_static(file32, calibration, reduce_range=False),
    "int8, 7-bit weights": quantize_static(file32, calibration, reduce_range=True),
}
engines = {name: session(file) for name, file in files.items()}
times = {}
for count in (1, 64):
    x = to_float(clothes.val.x[:count])
    runs = {name: (lambda run=run, x=x: run(x)) for name, run in engines.items()}
    part = codes[:count]
    runs |= {
        "PyTorch float32": lambda x=x: folded(x),
        "your integers": lambda part=part: run_integer(folded, integers, grids, part, integer_layer),
    }
    with torch.no_grad():
        times[count] = measure_together(runs, seconds=4.0)
x_val = to_float(clothes.val.x)
for name, run in engines.items():
    answers = torch.cat([run(part) for part in x_val.split(250)]).argmax(1)
    share = 100 * (answers == clothes.val.y).double().mean().item()
    print(f"{name:20} {share:.2f} %, {len(files[name]):9,} bytes")
for count, timings in times.items():
    base = timings["float32"].median
    for name, timing in timings.items():
        print(f"{count:3} image(s)  {name:20} {base / timing.median:5.2f} times the speed of float32   {timing}")
confront("int8-speed", times[64]["float32"].median / times[64]["int8"].median)

# %% [markdown]
# **Question 2.** The engine's int8 network and yours multiply the same kind of integers, and yours is slower than
# float32 by far. What does the engine do that your layer does not? And give two reasons why the engine's speed-up
# stays below 4, or would on another processor or for one image.

# %% [markdown] written="why-not-four-times" points=2
# The engine keeps int8 in packed registers and uses instructions that multiply and add many at once; it never
# writes out patches, and it requantizes while the sums are still in registers. Yours widens everything to 32 and 64
# bits in memory and uses a matrix product that PyTorch has not tuned. Below 4: quantizing the input, requantizing,
# max pooling and the small first convolution do not become four times faster; without VNNI an int8 product takes
# several instructions (multiply-add to 16 bits, widen, add); weights of this size stay in the cache, so a quarter
# of the bytes saves little; for one image the overhead of each layer counts most. (One point for the engine, one
# for two sound reasons with the own table's intervals.)

# %% [markdown]
# ## 10 · Two bits: train through the rounding
#
# Rounding to 3 values of a channel ruins the network, and training should mend it. But a staircase has slope
# zero almost everywhere, so no gradient comes through. The **straight-through estimator** pretends: on the way
# back the staircase is the line that it follows, slope 1 inside the range of the grid and 0 outside, where the
# output no longer depends on the input. It is wrong, and it works.

# %% exercise="fake_quantize"
def fake_quantize(w, scale, bits):
    """Round to a symmetric grid, and say what gradient to use.

    Args:
        w: float32 tensor; scale: float32, broadcasts against w; bits: 2 to 8.

    Returns:
        {"value": the nearest of the values -top * scale ... top * scale, top = 2**(bits - 1) - 1 (half to even);
        "slope": what the straight-through estimator takes for d value / d w: 1.0 where |w| <= top * scale, else 0.0},
        both float32 of w's shape.

    Example:
        >>> result = fake_quantize(torch.tensor([-3.0, 0.2, 0.8]), torch.tensor(1.0), 2)
        >>> result["value"].tolist(), result["slope"].tolist()
        ([-1.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    ### BEGIN SOLUTION
    top = 2 ** (bits - 1) - 1
    value = (w / scale).round().clamp(-top, top) * scale
    return {"value": value, "slope": (w.abs() <= top * scale).to(w.dtype)}
    ### END SOLUTION

# %% check="fake_quantize"

# %% [markdown]
# The fair question: on the *same* grid that collapsed in section 5, with the same three values for each channel,
# what can training do? The scales stay exactly as they were; the float weights behind the rounding move, and
# now and then one of them crosses into another code.

# %% prediction="two-bits-trained"
predict("two-bits-trained", ..., "validation accuracy of 2 bits after one epoch of training through the rounding, %")

# %% role="measure"
class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, scale, bits):
        result = fake_quantize(w, scale, bits)
        ctx.save_for_backward(result["slope"])
        return result["value"]

    @staticmethod
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class OnGrid(nn.Module):
    """A weight that is rounded to the grid that quantize_weight chose for it; the scale stays."""

    def __init__(self, weight, bits):
        super().__init__()
        scale = quantize_weight(weight, bits, "channel")["scale"]
        self.register_buffer("scale", scale.view(-1, *[1] * (weight.ndim - 1)))
        self.bits = bits

    def forward(self, w):
        return StraightThrough.apply(w, self.scale, self.bits)


two_bit = learning(teacher, {name: OnGrid(w, 2) for name, w in weights.items()})
collapsed = accuracy(two_bit)
fit(two_bit, clothes.train, epochs=1, lr=0.05, weight_decay=0.0)
two_bit_net = settled(two_bit)
print(f"2 bits, a scale for each channel: {collapsed:.2f} % before, {accuracy(two_bit_net):.2f} % after one epoch")
moved = {
    name: (quantize_weight(w, 2, "channel")["codes"] * two_bit.get_submodule(name).parametrizations.weight[0].scale
           != two_bit_net.get_submodule(name).weight).double().mean().item()
    for name, w in weights.items()
}  # fmt: skip
print("weights that changed their code:", ", ".join(f"{name} {100 * share:.0f} %" for name, share in moved.items()))
confront("two-bits-trained", accuracy(two_bit_net))

# %% [markdown]
# The network was never short of values; its weights were in the wrong places for the three that it has.
#
# ## 11 · Design: bits where they count
#
# Without training, who needs how many bits? Here is what each layer loses alone (measured on validation images
# and stored with its recipe, `fourbit/recipes/mixed_precision.py`).

# %% role="measure"
from fourbit.recipes.mixed_precision import read_front, rounded

stored = read_front()
scan = {name: {int(bits): share for bits, share in row.items()} for name, row in stored["sensitivity"].items()}
layer_sizes = dict(zip(stored["layers"], stored["sizes"], strict=True))
print(f"{'layer':6} {'weights':>8}   " + "".join(f"{bits:>7} bits" for bits in stored["choices"]))
for name, row in scan.items():
    print(f"{name:6} {layer_sizes[name]:8,}   " + "".join(f"{share:10.2f} %" for share in row.values()))

# %% [markdown]
# Two bits for every layer leave a third of the images right. Which layers would you give more, if there were
# room for a few percent more bytes? Write the function that decides, for several budgets at once.
#
# You are scored where it counts: the networks with your bits are measured on images, and at each budget you earn
# the share of the way from the best *uniform* choice that fits to the reference front. For this network that
# front was searched by measuring hundreds of allocations, which you cannot do here; four fifths of the way earn
# full marks. The examination asks for other networks, so write a rule, not a list. The losses in the table do not
# quite add up. Can you do better than adding them?

# %% exercise="allocate_bits"
def allocate_bits(sensitivity, sizes, budgets):
    """Design: choose the bits of each layer for each of several budgets.

    Args:
        sensitivity: {layer: {bits: accuracy in % when only this layer is quantized to so many bits}}.
        sizes: {layer: number of weights}.
        budgets: list of bytes for the packed codes of all layers: the sum of ceil(weights * bits / 8) may not exceed
            it. Two bits everywhere always fit.

    Returns:
        One {layer: bits} for each budget; bits are among the keys of the table.

    Scored on measured accuracy: 0 for the best uniform choice, 1 for four fifths of the way to the reference front.

    Example:
        >>> table = {"a": {2: 60.0, 4: 90.0}, "b": {2: 88.0, 4: 90.0}}
        >>> allocate_bits(table, {"a": 100, "b": 100}, [80])
        [{'a': 4, 'b': 2}]
    """
    ### BEGIN SOLUTION
    front = [(0, 0.0, {})]  # (bytes, summed accuracy, choice) that nothing beats, cheapest first
    for layer, row in sensitivity.items():
        grown = []
        for size, total, choice in front:
            for bits, share in row.items():
                nbytes = math.ceil(sizes[layer] * bits / 8)
                grown.append((size + nbytes, total + share, {**choice, layer: bits}))
        grown.sort(key=lambda state: (state[0], -state[1]))
        front = []
        for state in grown:
            if not front or state[1] > front[-1][1]:
                front.append(state)
    return [[choice for size, _, choice in front if size <= budget][-1] for budget in budgets]
    ### END SOLUTION

# %% check="allocate_bits"

# %% role="measure"
def code_bytes(bits):
    return sum(math.ceil(layer_sizes[name] * b / 8) for name, b in bits.items())


budgets = [int(code_bytes(dict.fromkeys(layer_sizes, 2)) * share) for share in (1.0, 1.03, 1.06, 1.09, 1.17, 1.3, 1.6)]
plans = allocate_bits(scan, layer_sizes, budgets)
reached = [accuracy(rounded(teacher, plan)) for plan in plans]
_, axes = plt.subplots(figsize=(7.5, 4.2))
points = [(code_bytes(entry["bits"]) / 1000, entry["accuracy"]) for entry in stored["front"]]
(line,) = axes.plot(*zip(*points, strict=True), drawstyle="steps-post", color=COLORS["gray"])
label_line(line, "stored front", x=127, xytext=(0, 8), ha="right")
(line,) = axes.plot([b / 1000 for b in budgets], reached, "o-")
label_line(line, "your allocation", x=115.5, xytext=(10, -8), ha="left")
uniform = [(code_bytes(dict.fromkeys(layer_sizes, e["bits"])) / 1000, e["accuracy"]) for e in stored["uniform"][:2]]
axes.plot(*zip(*uniform, strict=True), "D", color=COLORS["vermilion"])
for (size, share), bits in zip(uniform, (2, 3), strict=True):
    place = {"xytext": (8, -4) if bits == 2 else (-6, -16), "ha": "left" if bits == 2 else "right"}
    place |= {"textcoords": "offset points", "color": COLORS["vermilion"]}
    axes.annotate(f"{bits} bits everywhere", (size, share), **place)
axes.set(xlabel="bytes of the codes, kB", ylabel="validation accuracy, %", ylim=(20, 96))
axes.set_title("A few percent more bytes")
plt.show()

# %% [markdown]
# **Question 3.** Ten thousand bytes above two bits everywhere are worth fifty points. Which layers took
# them, and what do they have in common? Give a budget at which adding up the table misleads, and say why.

# %% [markdown] written="which-layers" points=1
# The convolutions and fc2: they hold a third of the weights together and lose most at 2 bits; fc1, two thirds of
# all weights, stays at 2 at nearly every budget, for it loses 0.1 points. Around 115 kB the sum gives conv0 six
# bits and conv1 four, because alone they gain, while the measured front spends the bytes on conv4: losses at 2 bits
# compound (the drops sum to 47 points, measured are 57), so small gains of a good layer are worthless while another
# one is broken. (Full point for the layers with a reason and one budget with an interaction.)

# %% [markdown]
# ## 12 · Deep Compression
#
# The last idea is the oldest. Codes do not occur equally often, nor do the gaps between weights of a pruned
# layer; **Huffman** gives frequent symbols short words. It needs only the lengths: repeatedly join the two
# rarest groups, and every symbol in them gets one bit longer. (From lengths alone a *canonical* code follows,
# which is why a file need not store the words.)

# %% exercise="huffman_lengths"
def huffman_lengths(counts):
    """The lengths of an optimal prefix code.

    Args:
        counts: list of ints, how often each symbol occurs; 0 for one that never does.

    Returns:
        List of ints, bits of each symbol's code word: 0 where the count is 0, at least 1 elsewhere (also for a
        single symbol). A prefix code with these lengths exists, and none needs fewer bits in all.

    Example:
        >>> huffman_lengths([10, 1, 0, 3, 2])
        [1, 3, 0, 2, 3]
    """
    ### BEGIN SOLUTION
    lengths = [0] * len(counts)
    groups = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(groups) == 1:
        lengths[groups[0][1]] = 1
    heapq.heapify(groups)
    while len(groups) > 1:
        a, b = heapq.heappop(groups), heapq.heappop(groups)
        joined = a[2] + b[2]
        for symbol in joined:
            lengths[symbol] += 1
        heapq.heappush(groups, (a[0] + b[0], a[1], joined))
    return lengths
    ### END SOLUTION

# %% check="huffman_lengths"

# %% [markdown]
# All together now, on one network: prune 91 % of the weights in the course of five epochs, give the survivors a
# codebook (5 bits in convolutions, 4 in linear layers), let the centroids learn for two more, and write a file
# with Huffman-coded codes and gaps. The original paper made AlexNet 35 times smaller and VGG-16 49 times.

# %% prediction="forty-times"
predict("forty-times", ..., "times that the compressed file is smaller than the float32 file")

# %% role="measure"
from fourbit.sparsity import cubic_sparsity


class GradualPruning:
    """After each step set the smallest weights of the whole network to zero; every 20 steps choose them anew."""

    def __init__(self, final, steps):
        self.final, self.steps, self.step, self.masks = final, steps, 0, {}

    def __call__(self, net):
        found = prunable(net)
        if self.step % 20 == 0 and self.step <= self.steps:
            sizes = torch.cat([w.abs().flatten() for w in found.values()])
            sparsity = cubic_sparsity(self.step, self.steps, self.final)
            threshold = sizes.kthvalue(max(1, int(sparsity * len(sizes)))).values
            self.masks = {name: w.abs() > threshold for name, w in found.items()}
        for name, w in found.items():
            w.mul_(self.masks[name])
        self.step += 1


epoch_steps = len(clothes.train) // 128
pruned = copy.deepcopy(teacher)
fit(pruned, clothes.train, epochs=5, lr=0.08, after_step=GradualPruning(0.91, 4 * epoch_steps))
alive = {name: w != 0 for name, w in prunable(pruned).items()}
kept = ", ".join(f"{name} {100 * mask.double().mean():.1f} %" for name, mask in alive.items())
print(f"pruned: {accuracy(pruned):.2f} % with {kept}")

# %% role="measure"
parts = {}
for name, w in prunable(pruned).items():
    book = kmeans_codebook(w[alive[name]], 5 if name.startswith("conv") else 4)
    parts[name] = Shared(book, alive[name])
sharing = learning(pruned, parts)
print(f"shared: {accuracy(sharing):.2f} %")
fit(sharing, clothes.train, epochs=2, lr=2e-4, weight_decay=0.0)
compressed_net = settled(sharing)
print(f"trained: {accuracy(compressed_net):.2f} %")

# %% [markdown]
# Folding multiplies every channel's weights by another number, which would break the codebook into as many values
# as channels times centroids. So the file keeps the codebook and batch normalization as it is, in float32, a few
# thousand bytes.

# %% role="measure"
import tempfile
from pathlib import Path

from fourbit.quantization import compressed_ledger, read_compressed, write_compressed

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "clothes.fourbit"
    path.write_bytes(write_compressed(compressed_net, huffman_lengths))
    on_disk = path.stat().st_size
    decoded = read_compressed(path.read_bytes(), teacher)
ledger = compressed_ledger(compressed_net, huffman_lengths)
assert sum(ledger.values()) == on_disk
assert all(torch.equal(w, prunable(compressed_net)[name]) for name, w in prunable(decoded).items())
for kind, size in ledger.items():
    print(f"{kind:10} {size:7,} bytes")
print(f"file       {on_disk:7,} bytes, {float_bytes / on_disk:.1f} times smaller than {float_bytes:,}")
print(f"decoded: {accuracy(decoded):.2f} %, float32: {full:.2f} %")
confront("forty-times", float_bytes / on_disk)

# %% [markdown]
# Each stage does its part, and most of it comes from fc1: two thirds of the weights, of which one in forty is
# left. A network without such a layer compresses less.

# %% role="measure"
values = {"float32": (float_bytes, full)}
by_width = dict(zip(widths, curves["a scale for each channel"], strict=True))
values |= {f"{bits} bits": (sizes[bits, "channel"], by_width[bits]) for bits in (8, 4, 3, 2)}
values["2 bits, trained"] = (sizes[2, "channel"], accuracy(two_bit_net))
values["Deep Compression"] = (on_disk, accuracy(decoded))
_, axes = plt.subplots(figsize=(7.5, 4.2))
for name, (size, share) in values.items():
    color = COLORS["vermilion"] if name in ("2 bits, trained", "Deep Compression") else COLORS["blue"]
    axes.plot(size / 1000, share, "o", color=color)
    side = {"3 bits": "left", "2 bits, trained": "right"}.get(name, "center")
    place = {"xytext": (0, 8 if side == "center" else -14), "ha": side, "color": color}
    axes.annotate(name, (size / 1000, share), textcoords="offset points", **place)
axes.set(xscale="log", xlabel="file, kB", ylabel="validation accuracy, %", ylim=(25, 100), xlim=(25, 3000))
axes.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1,000"])
axes.set_title("Accuracy over real bytes")
plt.show()

# %% [markdown]
# ## The test images, once
#
# Everything was chosen on validation images. Here are the test images, once, for the networks that you would put
# your name to. Deep Compression had seven epochs of training, so its fair rival is the dense network with seven
# more: compare it with both.

# %% role="measure"
control = copy.deepcopy(teacher)
fit(control, clothes.train, epochs=7, lr=0.08)
final = {
    "float32": (teacher, float_bytes),
    "float32, 7 more epochs": (control, float_bytes),
    "8 bits": (on_grid(teacher, 8, "channel"), sizes[8, "channel"]),
    "4 bits": (on_grid(teacher, 4, "channel"), sizes[4, "channel"]),
    "2 bits, trained": (two_bit_net, sizes[2, "channel"]),
    "Deep Compression": (decoded, on_disk),
}
print(f"{'network':24} {'bytes':>10} {'val':>8} {'test':>8}")
for name, (net, size) in final.items():
    print(f"{name:24} {size:10,} {accuracy(net):7.2f}% {accuracy(net, clothes.test):7.2f}%")
