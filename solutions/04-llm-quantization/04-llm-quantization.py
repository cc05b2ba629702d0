# %% [markdown]
# # Lab 04. A language model at 4, 3 and 2 bits
#
# A model of seven billion weights takes 15 GB in 16 bits, more than a laptop has to spare. In 4 bits it takes 4.
# This lab does to a small real model what makes that possible for a large one: it breaks the model with plain
# rounding, finds out *why* it breaks, and repairs it at the same number of bits.
#
# The model is SmolLM2-135M-Instruct, which answers questions on two CPU cores. You need it once, from the network:
# `fourbit models fetch smollm2`. Then everything works offline.
#
# Three novels by Jane Austen keep three jobs apart: scales and statistics come from *Northanger Abbey*, every
# scheme is judged on *Persuasion*, and the hidden exam asks about a third. Before each measurement you write a
# guess down. The lecture notes are [Outliers and eight bits](../../lecture_notes/outliers.md) and [Four bits and
# fewer](../../lecture_notes/four-bits.md).

# %% role="setup"
import math
from statistics import NormalDist

import torch
from torch.nn import functional as F

from fourbit.exam import check, confront, predict


def dequantized(q, group):
    """The weights (out, in) that codes (out, in), scale and zero (out, groups) stand for, float32."""
    columns = q["codes"].shape[1]
    scale, zero = (q[key].float().repeat_interleave(group, 1)[:, :columns] for key in ("scale", "zero"))
    return (q["codes"].float() - zero) * scale

# %% [markdown]
# The model, its matrices, and the text that judges it.

# %% role="measure"
import contextlib

import matplotlib.pyplot as plt

from fourbit.llm.evaluate import Reference, windows, with_weights
from fourbit.llm.loading import load
from fourbit.llm.model import generate_greedy
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel
from fourbit.plots import COLORS, label_line, use_style

use_style()
llm = load("smollm2")
model, tokenizer = llm.model, llm.tokenizer
linears = {name: module for name, module in model.named_modules() if name.endswith("_proj")}
weights = {f"{name}.weight": module.weight.data for name, module in linears.items()}
persuasion = tokenizer.encode(novel(EVALUATION))
in_matrices = sum(w.numel() for w in weights.values())
print(f"{llm.config.parameters():,} parameters, {in_matrices:,} of them in {len(weights)} matrices")


def ask(question, limit=40):
    """The model's answer, always the most likely next token."""
    prompt = tokenizer.encode(tokenizer.chat([{"role": "user", "content": question}]), special=False)
    return tokenizer.decode(generate_greedy(model, prompt, limit, tokenizer.stop))


print(ask("What is the capital of France?"))

# %% [markdown]
# ## 1 · How surprised is the model?
#
# A language model gives a probability to every next token. Its **perplexity** on a text is the exponential of the
# mean negative log-likelihood: with perplexity 30 it is as unsure as somebody who guesses among 30 equally likely
# tokens.
#
# A text is longer than the window that a model reads at a time. Cut into pieces, the first tokens of each piece are
# guessed without context. So let the window *slide* by a stride shorter than itself, and score in each place only the
# tokens that are new. The published ways of getting this wrong: score tokens twice, average the means of unequal
# windows, score the very first token, lose the end of the text.

# %% exercise="perplexity"
def perplexity(model, tokens, window, stride):
    """Perplexity of a text by a sliding window; every token after the first is scored once.

    The windows start at 0, stride, 2 stride, ... and hold up to `window` tokens; the last is the first that reaches the
    end of the text. A window scores the tokens that no window before it has scored. The first token of the text has
    no context and is not scored.

    Args:
        model: function of tokens int64 (1, T), T up to `window`, that returns logits (1, T, V): those at place t are
            for the token at t + 1.
        tokens: int64 (N,), N at least 2; window: at least 2; stride: 1 to window - 1.

    Returns:
        {"nll": (N - 1,) float64, the negative log-likelihood of tokens[1:] in nats; "perplexity": float, exp of its
        mean}

    Example:
        >>> def fair(tokens): return torch.zeros(*tokens.shape, 8)
        >>> round(perplexity(fair, torch.tensor([3, 1, 4, 1, 5]), 3, 2)["perplexity"], 6)
        8.0
    """
    ### BEGIN SOLUTION
    found = []
    for start in range(0, len(tokens), stride):
        part = tokens[start : start + window]
        log_probs = model(part[None])[0, :-1].double().log_softmax(-1)
        nll = -log_probs.gather(1, part[1:, None]).flatten()  # of the tokens start + 1, start + 2, ...
        found.append(nll[sum(map(len, found)) - start :])
        if start + window >= len(tokens):
            break
    nll = torch.cat(found)
    return {"nll": nll, "perplexity": math.exp(nll.mean())}
    ### END SOLUTION

# %% check="perplexity"

# %% prediction="stride"
predict("stride", ..., "perplexity with windows of 256 side by side (stride 255), if it is 40 with stride 64")

# %% role="measure"
text = torch.tensor(persuasion[20_000:20_513])
strides = (255, 192, 128, 64)
with torch.no_grad():
    found = {stride: perplexity(model, text, 256, stride)["perplexity"] for stride in strides}
for stride, value in found.items():
    print(f"stride {stride:3}: perplexity {value:.1f}")
confront("stride", found[255] / found[64] * 40)

# %% [markdown]
# Same model, same text: whoever compares perplexities from two papers compares strides, windows and texts as well.
# And on a few thousand tokens it wanders with the text by a fifth either way, as the next cell shows. So this lab
# judges a changed model by something tighter: the **divergence**
# $\mathrm{KL}(\text{reference}\,\|\,\text{changed})$ of its next-token distribution from that of the model before,
# averaged over tokens. Both read the same text, so what is hard about the text drops out.

# %% role="measure"
reference = Reference(model, windows(persuasion, 256, 6))
itself = reference.judge(model)
low, high = itself.perplexity.low, itself.perplexity.high
print(f"perplexity {itself.perplexity.mean:.1f}, 95 % interval by the choice of text {low:.1f} to {high:.1f}")
print(f"divergence from itself {abs(itself.kl.mean):.4f}, the same most likely token at {itself.top1.mean:.0%}")

schemes = {}  # name -> (bits per weight, judgement)


def judge(name, bits, changed, around=contextlib.nullcontext):
    """Judge the model with some parameters changed, print it, and keep it for the last figure."""
    with with_weights(model, changed), around():
        found = reference.judge(model)
    schemes[name] = (bits, found)
    spread = f"[{found.kl.low:.3f}, {found.kl.high:.3f}]"
    rest = f"top-1 {found.top1.mean:4.0%}  ppl {found.perplexity.mean:8.1f}"
    print(f"{name:34} KL {found.kl.mean:7.4f} {spread:17} {rest}")
    return found

# %% [markdown]
# ## 2 · Round to the nearest
#
# The plainest scheme. Cut each row of a matrix into **groups** of neighboring inputs; give each group a scale and a
# zero point, and round. The scale is *stored* in 16 bits, so the codes must be made with the stored one.

# %% exercise="round_to_nearest"
def round_to_nearest(weight, bits, group):
    """Group-wise asymmetric quantization, as it is stored.

    Each row is cut into groups of `group` neighboring inputs; the last may be shorter. The range of a group, widened to
    contain zero, has 2**bits - 1 steps.

    Args:
        weight: float32 (out, in); bits: 2 to 8; group: at least 1.

    Returns:
        {"codes": uint8 (out, in), 0 to 2**bits - 1; "scale": float16 (out, groups); "zero": uint8 (out, groups)} with
        weight ~ (codes - zero) * scale. The scale is rounded to float16 *first* (where that gives 0 it is 1), and all
        that follows uses the rounded one: zero = round(-low / scale), clamped to the codes; codes = round(weight /
        scale) + zero, clamped. Ties go to even.

    Example:
        >>> q = round_to_nearest(torch.tensor([[-1.0, 0.0, 2.0, 5.0, 5.0]]), 2, 3)
        >>> q["codes"].tolist(), q["scale"].tolist(), q["zero"].tolist()
        ([[0, 1, 3, 3, 3]], [[1.0, 1.6669921875]], [[1, 0]])
    """
    ### BEGIN SOLUTION
    rows, columns = weight.shape
    groups = -(-columns // group)
    padded = F.pad(weight, (0, groups * group - columns)).view(rows, groups, group)  # zeros change no range
    low, high = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)
    top = 2**bits - 1
    scale = ((high - low) / top).half()
    scale[scale == 0] = 1
    step = scale.float()
    zero = (-low / step).round().clamp(0, top)
    codes = ((padded / step[..., None]).round() + zero[..., None]).clamp(0, top)
    return {"codes": codes.byte().view(rows, -1)[:, :columns].clone(), "scale": scale, "zero": zero.byte()}
    ### END SOLUTION

# %% check="round_to_nearest"

# %% [markdown]
# ## 3 · What does it cost? A broken notebook
#
# Scales and zero points take room. A well-known course prints the size of its quantized OPT-1.3B as 495.06 MiB.
# Here is its function, as it stands in many copies. It runs, and its number is wrong by a third.
#
# ```python
# def get_model_size(model, data_width=16, group_size=-1):
#     if group_size != -1:
#         data_width += (16 + 4) / group_size
#     num_elements = 0
#     for param in model.parameters():
#         num_elements += param.numel()
#     return num_elements * data_width
# ```
#
# The embeddings were never quantized, and their bytes were counted as if they were. Count what a file holds: codes of
# the quantized matrices, scales, zeros, and all the rest in 16 bits, once each.

# %% exercise="model_bytes"
def model_bytes(shapes, quantized, bits, group, tied):
    """Bytes of a model's tensors when some of its matrices are stored in few bits.

    Args:
        shapes: {name: shape (list of ints)} of all tensors.
        quantized: list of names, matrices (out, in), stored as codes of `bits` bits, each row filled up to whole bytes,
            and for each row and group of `group` inputs (the last may be shorter) a float16 scale and a zero of one
            byte.
        tied: {name: other name}: tensors that are another one of `shapes` and are stored once, under the other name.

    All that is not quantized is stored in 16 bits.

    Returns:
        {"codes": bytes, "scales": bytes, "zeros": bytes, "rest": bytes, "total": bytes,
        "bits_per_weight": bits of codes, scales and zeros for each quantized weight, float}

    Example:
        >>> model_bytes({"a": [2, 5], "b": [4], "c": [4]}, ["a"], 3, 4, {"c": "b"})
        {'codes': 4, 'scales': 8, 'zeros': 4, 'rest': 8, 'total': 24, 'bits_per_weight': 12.8}
    """
    ### BEGIN SOLUTION
    found = {"codes": 0, "scales": 0, "zeros": 0, "rest": 0}
    weights = 0
    for name, shape in shapes.items():
        if name in tied:
            continue
        if name not in quantized:
            found["rest"] += 2 * math.prod(shape)
            continue
        rows, columns = shape
        groups = rows * math.ceil(columns / group)
        weights += rows * columns
        found["codes"] += rows * math.ceil(columns * bits / 8)
        found["scales"] += 2 * groups
        found["zeros"] += groups
    stored = found["codes"] + found["scales"] + found["zeros"]
    return {**found, "total": stored + found["rest"], "bits_per_weight": 8 * stored / weights}
    ### END SOLUTION

# %% check="model_bytes"

# %% role="measure"
shapes = {name: list(shape) for name, shape in llm.config.shapes().items()}


def bits_of(bits, group):
    return model_bytes(shapes, list(weights), bits, group, {})["bits_per_weight"]


print(f"{'':22}{'bits/weight':>12}{'matrices':>11}{'rest':>9}{'whole file':>12}")
for bits, group in ((16, 64), (8, 64), (4, 32), (4, 64), (4, 128), (3, 128), (2, 64)):
    if bits == 16:
        inner, total = 2 * in_matrices / 1e6, 2 * llm.config.parameters() / 1e6
        print(f"{'16 bits':22}{16:12.2f}{inner:8.1f} MB{total - inner:6.1f} MB{total:9.1f} MB")
        continue
    size = model_bytes(shapes, list(weights), bits, group, {})
    inner = (size["total"] - size["rest"]) / 1e6
    words = f"{bits} bits, groups of {group}"
    rest, total = size["rest"] / 1e6, size["total"] / 1e6
    print(f"{words:22}{size['bits_per_weight']:12.2f}{inner:8.1f} MB{rest:6.1f} MB{total:9.1f} MB")

# %% [markdown]
# In a small model the embedding is most of what is left: a fifth of the weights, and at 4 bits half of the file. In
# a 7B it is 4 to 14 % of the weights, by the size of the vocabulary. "Four bits" never means four.

# %% prediction="three-bits"
predict("three-bits", ..., "share of tokens with the same most likely next one at 3 bits, groups of 128, %")

# %% role="measure"
def rounded(bits, group, matrices=weights):
    """The matrices after rounding to nearest."""
    return {name: dequantized(round_to_nearest(w, bits, group), group) for name, w in matrices.items()}


for bits, group in ((8, 64), (4, 32), (4, 64), (4, 128), (3, 64), (3, 128), (2, 64)):
    judge(f"RTN {bits} bits, g{group}", bits_of(bits, group), rounded(bits, group))
confront("three-bits", 100 * schemes["RTN 3 bits, g128"][1].top1.mean)

# %% role="measure"
question = "What is the capital of France?"
for bits, group in ((8, 64), (4, 64), (3, 128), (2, 64)):
    with with_weights(model, rounded(bits, group)):
        print(f"{bits} bits, groups of {group}: {ask(question, 24)!r}")

# %% [markdown]
# Eight bits are free, four cost something, three break the model, and two are noise. A curious thing first, though.
# These weights are not the original ones: the file that you fetched stores each matrix in 4 bits, in groups of 32,
# with the *smallest value of the group* as a float in place of an integer zero point. That was somebody's rounding;
# the reference of this lab is the model after it. What happens to a quantizer that uses exactly that grid?

# %% role="measure"
def float_minimum(w, bits, group):
    """Rounding with the group's smallest value as the offset, like the Q4_1 format."""
    parts = w.view(len(w), -1, group)
    low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return (((parts - low) / scale.clamp(min=1e-12)).round() * scale + low).view(w.shape)


w = weights["layers.10.mlp.up_proj.weight"]
for bits, group in ((4, 32), (4, 64), (3, 32)):
    errors = (float_minimum(w, bits, group), dequantized(round_to_nearest(w, bits, group), group))
    a, b = (float((e - w).norm() / w.norm()) for e in errors)
    print(f"{bits} bits, groups of {group}: relative error {a:.5f} with a float minimum, {b:.5f} with an integer zero")

# %% [markdown]
# **Question 1.** One of these errors is (nearly) zero. Why, and why only that one? Somebody publishes a table with
# this model in which that scheme wins by far. What is wrong with the table, and which reference would make it
# right?

# %% [markdown] written="spoiled-grid" points=2
# The weights lie already on a grid of 16 values for each group of 32, from its smallest to its largest value;
# rounding to the same grid changes nothing. With groups of 64, 3 bits or an integer zero point the grid is another
# one, and the error is that of any weights. The table compares a scheme with its own output: the reference had been
# rounded by it. The original checkpoint (`fourbit models fetch smollm2-original`) as the reference makes it right.
# (One point for the reason, one for the table.)

# %% [markdown]
# ## 4 · Which channels matter?
#
# Rounding errors are small changes of weights. What they do depends on what the weights are multiplied with. So
# look at the inputs of every matrix, on calibration text.

# %% role="measure"
inputs = {}


def listen(name):
    def hook(module, arguments):
        inputs.setdefault(name, []).append(arguments[0][0])

    return hook


first = ("q_proj", "o_proj", "gate_proj", "down_proj")  # k and v read what q reads, up reads what gate reads
hooks = [module.register_forward_pre_hook(listen(name)) for name, module in linears.items() if name.endswith(first)]
with torch.no_grad():
    for row in windows(tokenizer.encode(novel(CALIBRATION)), 128, 8):
        model.hidden(row[None])
for hook in hooks:
    hook.remove()
inputs = {name: torch.cat(rows) for name, rows in inputs.items()}  # (1024, in)


def read_by(name):
    """The inputs of a matrix."""
    name = name.removesuffix(".weight")
    for reader, shown in (("k_proj", "q_proj"), ("v_proj", "q_proj"), ("up_proj", "gate_proj")):
        name = name.replace(reader, shown)
    return inputs[name]


x = inputs["layers.15.self_attn.q_proj"]
_, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
size = x.abs().mean(0)
left.bar(range(len(size)), size, width=2.0, color=COLORS["blue"])
for channel in size.topk(3).indices.tolist():
    left.annotate(f"{channel}", (channel, size[channel]), xytext=(4, -4), textcoords="offset points", fontsize=8)
left.set(xlabel="input channel", ylabel="mean |x|", title="Into the attention of layer 15")
for kind, color in (("self_attn.q_proj", "blue"), ("mlp.gate_proj", "green"), ("mlp.down_proj", "vermilion")):
    loudest = [float(inputs[f"layers.{i}.{kind}"].abs().max()) for i in range(llm.config.layers)]
    (line,) = right.plot(loudest, color=COLORS[color])
    label_line(line, kind.split(".")[1], x=8.0 if "down" not in kind else 20.0)
right.set(yscale="log", xlabel="layer", ylabel="largest |x|", title="The loudest input of each layer")
plt.show()

# %% [markdown]
# A few channels are an order of magnitude louder than the others, in every token; and in some layers single numbers
# of thousands stand among tenths. Both will matter. First the loud channels: their weights are multiplied with
# more.

# %% exercise="salient_channels"
def salient_channels(x, weight, share, by):
    """The input channels of a linear layer that matter most.

    Args:
        x: the layer's inputs (..., in), any number of leading dimensions; weight: (out, in).
        share: of the channels to choose, 0 to 1: k = round(share * in), but at least 1.
        by: "activation", the mean of |x| over all tokens; "weight", the Euclidean norm of a channel's weights; or
            "random", torch.randperm(in, generator=torch.Generator().manual_seed(0)), the first k.

    Returns:
        int64 (k,), ascending. Of channels with equal scores the lower come first.

    Example:
        >>> salient_channels(torch.tensor([[1.0, -9.0, 2.0], [1.0, 7.0, 2.0]]), torch.eye(3), 0.67, "activation")
        tensor([1, 2])
    """
    ### BEGIN SOLUTION
    channels = weight.shape[1]
    k = max(1, round(share * channels))
    if by == "random":
        return torch.randperm(channels, generator=torch.Generator().manual_seed(0))[:k].sort().values
    score = x.abs().flatten(0, -2).mean(0) if by == "activation" else weight.norm(dim=0)
    return score.sort(descending=True, stable=True).indices[:k].sort().values
    ### END SOLUTION

# %% check="salient_channels"

# %% [markdown]
# Keep 1 % of the input channels of every matrix in full precision and round the others to 3 bits in groups of 128.
# Which 1 %?

# %% prediction="keep-one"
predict("keep-one", ..., "KL at 3 bits when the loudest 1 % of the channels are kept, if it is 1.43 without")

# %% role="measure"
def keeping(by, share=0.01, bits=3, group=128):
    changed = rounded(bits, group)
    for name, w in weights.items():
        kept = salient_channels(read_by(name), w, share, by)
        changed[name][:, kept] = w[:, kept]
    return changed


for by in ("random", "weight", "activation"):
    judge(f"3 bits, keep 1 % by {by}", bits_of(3, 128) * 0.99 + 0.16, keeping(by))
confront("keep-one", schemes["3 bits, keep 1 % by activation"][1].kl.mean)

# %% [markdown]
# The size of the weights tells nothing, the size of the activations nearly everything. But a matrix with a few
# columns in 16 bits is awkward for any kernel. Is there a way to protect channels without storing them differently?
#
# ## 5 · Scales that go unnoticed
#
# Multiply a column of a matrix by $s$ and divide the channel that it reads by $s$: nothing changes. The division
# costs nothing either, because something wrote that channel before: a norm with its gains, or another matrix with
# its rows. In a group whose step is set by *other* weights, a column that is twice as large is rounded with half
# the relative error.

# %% exercise="fold_scales"
def fold_scales(before, after, scales, source):
    """Divide channels by scales in one layer and multiply them back in the layers that read them.

    Args:
        before: {"weight": gain (C,) of a norm or matrix (C, in) of a linear layer, one row for each channel it writes;
            "bias": (C,) or None}.
        after: list of matrices (out, n) that read these channels, all in the same way; scales: (C,), positive.
        source: int64 (n,): input column j of each matrix in `after` reads channel source[j]. With grouped-query
            attention several columns read the same channel.

    Returns:
        {"before": {"weight", "bias"} of the same shapes, "after": list of matrices}: together the same function as
        before. Inputs stay as they are.

    Example:
        >>> parts = fold_scales({"weight": torch.tensor([4.0, 6.0]), "bias": None}, [torch.ones(1, 2)],
        ...     torch.tensor([2.0, 3.0]), torch.tensor([0, 1]))
        >>> parts["before"]["weight"], parts["after"]
        (tensor([2., 2.]), [tensor([[2., 3.]])])
    """
    ### BEGIN SOLUTION
    weight, bias = before["weight"], before["bias"]
    rows = scales.view(-1, *[1] * (weight.ndim - 1))
    folded = {"weight": weight / rows, "bias": None if bias is None else bias / scales}
    return {"before": folded, "after": [matrix * scales[source] for matrix in after]}
    ### END SOLUTION

# %% check="fold_scales"

# %% [markdown]
# ## 6 · Activation-aware scales
#
# How large? A loud channel wants a large $s$; too large, and it stretches the step of its whole group. AWQ (Lin et
# al.) takes $s = m^\alpha$ with $m$ the mean $|x|$ of a channel, and tries a few $\alpha$, on the *inputs* of the
# layer. (A published lab takes the statistics of another layer's input here. It runs.)

# %% exercise="awq_scales"
def awq_scales(x, weights, bits, group, grid):
    """Search the scales of activation-aware weight quantization (Lin et al., 2024, section 3.2).

    Candidates are s = m**alpha for alpha = 0, 1 / grid, ..., (grid - 1) / grid, where m is the mean of |x| over tokens
    for each input channel, at least 1e-4; each s is divided by sqrt(max(s) * min(s)). A candidate's error is the sum
    over the weights of the mean squared difference of (x / s) Q(W s)^T, the quantized layer's output, from x W^T; Q is
    your round_to_nearest.

    Args:
        x: the inputs of these layers on calibration text, (..., in); weights: list of (out, in) that read x.
        bits, group: of round_to_nearest; grid: at least 1.

    Returns:
        {"alpha": float, the one of the smallest error, the first of several; "scales": (in,) for it; "errors": list of
        floats, one for each alpha}

    Example:
        >>> x = torch.tensor([[0.5, 8.0, 0.5, 0.5], [0.5, -8.0, 0.5, 0.5]])
        >>> awq_scales(x, [torch.tensor([[1.0, 0.45, -0.2, 0.7]])], 2, 4, 4)["alpha"]
        0.25
    """
    ### BEGIN SOLUTION
    x = x.flatten(0, -2)
    mean = x.abs().mean(0).clamp(min=1e-4)
    tried = []
    for i in range(grid):
        scales = mean ** (i / grid)
        scales = scales / (scales.max() * scales.min()).sqrt()
        error = 0.0
        for weight in weights:
            q = round_to_nearest(weight * scales, bits, group)
            apart = dequantized(q, group) / scales - weight
            error += float((x @ apart.T).square().mean())
        tried.append((error, i / grid, scales))
    _, alpha, scales = min(tried, key=lambda entry: entry[0])
    return {"alpha": alpha, "scales": scales, "errors": [entry[0] for entry in tried]}
    ### END SOLUTION

# %% check="awq_scales"

# %% role="measure"
_, axes = plt.subplots()
for kind in ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"):
    name = f"layers.15.{kind}"
    errors = awq_scales(inputs[name], [weights[f"{name}.weight"]], 3, 128, 20)["errors"]
    (line,) = axes.plot([i / 20 for i in range(20)], [e / errors[0] for e in errors], "o-", markersize=3)
    label_line(line, name.split(".")[-1], x=0.85)
axes.set(xlabel="α", ylabel="output error, α = 0 is 1", ylim=(0, 2), title="How much to scale: layer 15, 3 bits")
plt.show()

# %% [markdown]
# Now all layers. The norm in front of the attention takes the scales of q, k and v; the one behind it those of gate
# and up; the rows of up take those of down. The rows of v take those of o: there three query heads read each
# channel, which can have one scale only, the geometric mean of the three.

# %% prediction="awq-three"
predict("awq-three", ..., "KL of AWQ at 3 bits, groups of 128, without keeping anything")

# %% role="measure"
heads, head_width = llm.config.heads, llm.config.head_width
shared = heads // llm.config.kv_heads
source = (torch.arange(heads) // shared * head_width)[:, None] + torch.arange(head_width)  # o's column -> v's row
source = source.flatten()


def folded(scales_for):
    """All parameters after folding: scales_for(inputs, matrices) gives the scales of the channels that they read."""
    p = {name: value.data for name, value in model.named_parameters()}

    def fold(before, after, columns, tied=None):
        x, matrices = inputs[after[0]], [p[f"{name}.weight"] for name in after]
        scales = scales_for(x, matrices)
        if tied is not None:
            rows = len(p[before])
            scales = (torch.zeros(rows).index_add(0, tied, scales.log()) / shared).exp()
        parts = fold_scales({"weight": p[before], "bias": None}, matrices, scales, columns)
        p[before] = parts["before"]["weight"]
        p.update(zip((f"{name}.weight" for name in after), parts["after"], strict=True))

    for i in range(llm.config.layers):
        own = f"layers.{i}."
        plain = torch.arange(llm.config.width)
        fold(own + "input_layernorm.weight", [own + f"self_attn.{n}_proj" for n in "qkv"], plain)
        fold(own + "self_attn.v_proj.weight", [own + "self_attn.o_proj"], source, tied=source)
        fold(own + "post_attention_layernorm.weight", [own + "mlp.gate_proj", own + "mlp.up_proj"], plain)
        fold(own + "mlp.up_proj.weight", [own + "mlp.down_proj"], torch.arange(llm.config.ff))
    return p


def rounded_after(p, bits, group):
    """These parameters, matrices rounded."""
    return p | rounded(bits, group, {name: p[name] for name in weights})


awq = {}
for bits, group in ((4, 64), (3, 128)):
    awq[bits] = folded(lambda x, matrices: awq_scales(x, matrices, bits, group, 10)["scales"])  # noqa: B023
    with with_weights(model, awq[bits]), torch.no_grad():
        apart = (model(reference.tokens[:1]) - reference.states[:1] @ reference.head.T).abs().max()
    print(f"folded, not yet rounded: logits differ by {apart:.1e}")
    judge(f"AWQ {bits} bits, g{group}", bits_of(bits, group), rounded_after(awq[bits], bits, group))
confront("awq-three", schemes["AWQ 3 bits, g128"][1].kl.mean)
for bits, group in ((4, 64), (3, 128)):
    ratio = schemes[f"AWQ {bits} bits, g{group}"][1].kl.mean / schemes[f"RTN {bits} bits, g{group}"][1].kl.mean
    print(f"{bits} bits: {ratio:.2f} of the divergence of rounding to nearest, in as many bytes")

# %% [markdown]
# ## 7 · Errors that cancel
#
# Rounding one weight makes an error; the weights not yet rounded can make up for part of it. GPTQ (Frantar et al.)
# goes through the columns, rounds one, and spreads its error over those that follow, as optimal brain surgeon
# would. What it needs to know about the inputs is their second moment, the Hessian $X^\top X$. The *order of
# operations* is the whole method, and published code has it wrong in most possible ways.

# %% exercise="gptq"
def gptq(weight, hessian, bits, group, damp):
    """Quantize a weight column by column, the error of each pushed into those that follow (Frantar et al., 2023).

    1. A channel whose diagonal entry in the Hessian is 0 never occurs: its entry becomes 1, its weights 0.
    2. Add damp times the mean of the diagonal to the diagonal. U is the upper Cholesky factor of the inverse, U^T U =
       H^-1.
    3. For each column j from left to right: when a group begins, its scale and zero are those of round_to_nearest on
       the group's weights *as they are by then*. Quantize column j; with e = (w_j - q_j) / U_jj, subtract e U_jk from
       every column k > j.

    Args:
        weight: float32 (out, in), not changed; hessian: float64 (in, in), X^T X of the inputs.
        bits: 2 to 8; group: at least 1; damp: at least 0.

    Returns:
        {"codes", "scale", "zero"} as round_to_nearest returns them. Steps 2 and 3 run in float64; the group's weights
        are rounded to float32 for round_to_nearest.

    Example:
        >>> h = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
        >>> gptq(torch.tensor([[0.4, 1.0]]), h, 2, 2, 0.0)["codes"].tolist()
        [[1, 3]]
    """
    ### BEGIN SOLUTION
    w, h = weight.double(), hessian.clone()
    columns = w.shape[1]
    dead = h.diagonal() == 0
    w[:, dead] = 0
    h.diagonal()[dead] = 1
    h.diagonal().add_(damp * h.diagonal().mean())
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    codes, scales, zeros = torch.empty(w.shape, dtype=torch.uint8), [], []
    for j in range(columns):
        if j % group == 0:
            grid = round_to_nearest(w[:, j : j + group].float(), bits, group)
            scales.append(grid["scale"])
            zeros.append(grid["zero"])
            step, zero = grid["scale"][:, 0].double(), grid["zero"][:, 0].double()
        code = ((w[:, j] / step).round() + zero).clamp(0, 2**bits - 1)
        codes[:, j] = code.byte()
        error = (w[:, j] - (code - zero) * step) / upper[j, j]
        w[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]
    return {"codes": codes, "scale": torch.cat(scales, 1), "zero": torch.cat(zeros, 1)}
    ### END SOLUTION

# %% check="gptq"

# %% prediction="gptq-few"
predict("gptq-few", ..., "error of GPTQ from 384 calibration tokens over that of plain rounding, on unseen text")

# %% role="measure"
name = "layers.5.self_attn.q_proj"
w, learned = weights[f"{name}.weight"], inputs[name].double()
inputs_before, inputs = inputs, {}
hook = linears[name].register_forward_pre_hook(listen(name))
with torch.no_grad():
    for row in windows(persuasion, 256, 2):
        model.hidden(row[None])
hook.remove()
unseen, inputs = torch.cat(inputs[name]), inputs_before


def output_error(q, x):
    return float((x @ (dequantized(q, 64) - w).to(x.dtype).T).square().sum())


amounts = (64, 128, 256, 384, 576, 768, 1024)
plain = round_to_nearest(w, 4, 64)
curves = {}
_, axes = plt.subplots()
for damp, color in ((1e-4, "vermilion"), (0.1, "blue")):
    made = [gptq(w, learned[:n].T @ learned[:n], 4, 64, damp) for n in amounts]
    curves[damp] = [output_error(q, unseen) / output_error(plain, unseen) for q in made]
    (line,) = axes.plot(amounts, curves[damp], "o-", color=COLORS[color])
    label_line(line, f"damp {damp:g}", x=300.0)
    if damp == 1e-4:
        pairs = zip(made, (learned[:n] for n in amounts), strict=True)
        seen = [output_error(q, x) / output_error(plain, x) for q, x in pairs]
        axes.plot(amounts, seen, "o:", color=COLORS[color])
        axes.annotate("the same, on the text that it saw", (amounts[2], seen[2]), xytext=(0, 8),
                      textcoords="offset points", color=COLORS[color])  # fmt: skip
axes.axhline(1, color=COLORS["gray"], linestyle="--")
axes.text(64, 1.03, "round to nearest", color=COLORS["gray"])
axes.set(xscale="log", xlabel="tokens of calibration text", ylabel="output error, RTN is 1", ylim=(0, None))
axes.set_xticks(amounts, [f"{n}" for n in amounts])
axes.minorticks_off()
axes.set_title("GPTQ needs to have seen enough (q, layer 5, 4 bits)")
plt.show()
confront("gptq-few", curves[1e-4][amounts.index(384)])

# %% [markdown]
# **Question 2.** With few tokens GPTQ can be worse than not looking at the inputs at all, although its error *on the
# calibration text* is always smaller. Why? The layer has 576 inputs. What does `damp` do about it, and what does AWQ
# have instead that makes it robust?

# %% [markdown] written="gptq-trap" points=2
# The Hessian of n tokens has rank n: with fewer tokens than the 576 inputs, there are directions in which it says
# that errors cost nothing, and GPTQ moves all error there; unseen text has inputs in those directions. It fits the
# sample's covariance. Damping adds a cost to every direction, which limits how far weights move. AWQ estimates one
# mean for each channel and searches one number, alpha, which a few hundred tokens determine. (One point for
# overfitting the covariance, one for damping or AWQ's few parameters.)

# %% [markdown]
# ## 8 · Other levels
#
# Weights are distributed much like a normal variable: many small ones, few large. Equally spaced levels waste codes
# in the tails. **NormalFloat** puts the levels at quantiles of the normal distribution, which is what QLoRA and
# `bitsandbytes` call NF4.

# %% exercise="normal_levels"
def normal_levels(bits):
    """The levels of NormalFloat: quantiles of the normal distribution, with an exact zero.

    With n = 2**bits levels, half are above zero and one fewer below (Dettmers et al., 2023, section 3). The probability
    p = 1 - (1 / (2 n) + 1 / (2 (n - 1))) / 2, rounded to seven decimals, takes the place of 1, whose quantile is
    infinite. The positive levels are the quantiles of torch.linspace(p, 0.5, n / 2 + 1) without its last value, whose
    quantile is 0; the negative ones are minus the quantiles of torch.linspace(p, 0.5, n / 2), again without the last.
    All are divided by the largest, in float32.

    Args:
        bits: 2 to 8.

    Returns:
        float32 (2**bits,), ascending from -1 to 1.

    Example:
        >>> normal_levels(2)
        tensor([-1.0000,  0.0000,  0.4358,  1.0000])
    """
    ### BEGIN SOLUTION
    n = 2**bits
    p = round(1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2, 7)

    def half(count):
        return [NormalDist().inv_cdf(float(q)) for q in torch.linspace(p, 0.5, count)[:-1]]

    levels = torch.tensor([*half(n // 2 + 1), 0.0, *(-z for z in half(n // 2))])
    return (levels / levels.max()).sort().values
    ### END SOLUTION

# %% check="normal_levels"

# %% [markdown]
# Then each block of 64 weights is divided by its largest magnitude and mapped to the nearest level. The largest
# magnitude is stored for each block, in 32 bits, unless it is quantized too: **double quantization** subtracts the
# mean of all of them and stores the rest in 8 bits, by the same function.

# %% exercise="quantize_blocks"
def quantize_blocks(values, levels, block):
    """Absolute-maximum quantization with any levels, block by block.

    Args:
        values: float32 of any shape, taken as one long row; the last block may be shorter.
        levels: float32 (L,), ascending within [-1, 1], L at most 256; block: at least 1.

    Returns:
        {"codes": uint8 of the shape of values, the index of the level nearest to value / absmax, of two equally near
        ones the lower; "absmax": float32 (blocks,), the largest |value| of each block}. A block of zeros has absmax 0
        and the code of the level nearest to 0.

    Example:
        >>> q = quantize_blocks(torch.tensor([0.5, -2.0, 1.6, 0.0, 0.0]), torch.tensor([-1.0, 0.0, 1.0]), 3)
        >>> q["codes"].tolist(), q["absmax"].tolist()
        ([1, 0, 2, 1, 1], [2.0, 0.0])
    """
    ### BEGIN SOLUTION
    flat = values.flatten()
    blocks = F.pad(flat, (0, -len(flat) % block)).view(-1, block)
    absmax = blocks.abs().amax(1)
    unit = blocks / torch.where(absmax > 0, absmax, 1.0)[:, None]
    codes = torch.bucketize(unit, (levels[1:] + levels[:-1]) / 2)
    return {"codes": codes.byte().flatten()[: len(flat)].view(values.shape), "absmax": absmax}
    ### END SOLUTION

# %% check="quantize_blocks"

# %% role="measure"
import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
from bitsandbytes import functional as bnb

nf4 = normal_levels(4)
w = weights["layers.10.mlp.up_proj.weight"]
mine = quantize_blocks(w, nf4, 64)
theirs, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
packed = (mine["codes"].flatten()[::2] << 4) | mine["codes"].flatten()[1::2]  # two codes in a byte
print("levels equal to the bit:", torch.equal(nf4, bnb.get_4bit_type("nf4", device="cpu")))
print("codes equal to the bit: ", torch.equal(packed, theirs.flatten()))

offset = mine["absmax"].mean()
twice = quantize_blocks(mine["absmax"] - offset, state.state2.code, 256)
same = (twice["codes"] == state.absmax.flatten()).double().mean()
print(f"double quantization: offset equal {torch.equal(offset, state.offset)}, codes equal {same:.2%}")

# %% [markdown]
# All but a few codes of the double quantization agree. Its CPU kernel looks a value $v$ in $[-1, 1]$ up in a table of
# 65,536 entries, at $\lfloor 32767.5\,(v + 1) + 0.5 \rfloor$, instead of finding the nearest level: values a hair's
# breadth from the middle between two levels fall on the other side. (Round the input to that table first, and all
# agree; a test of this course does.)

# %% role="measure"
even = torch.arange(-7, 8) / 7


def blocks(levels, block=64):
    changed = {}
    for name, w in weights.items():
        q = quantize_blocks(w, levels, block)
        changed[name] = (levels[q["codes"].long()].view(-1, block) * q["absmax"][:, None]).view(w.shape)
    return changed


judge("evenly spaced, symmetric, b64", 4 + 32 / 64, blocks(even))
judge("NF4, b64, double quantization", 4 + 8 / 64 + 32 / (64 * 256), blocks(nf4))

# %% [markdown]
# (The second line is judged with the magnitudes in 32 bits; what their 8-bit codes change is far below the interval.)
#
# ## 9 · Activations in eight bits
#
# For one user, memory limits and it is enough to shrink the *weights*. For many users at once, or a long prompt,
# arithmetic limits, and integer arithmetic needs the *activations* in integers too. Eight bits each, **W8A8**: what
# could go wrong?

# %% exercise="smooth_scales"
def smooth_scales(x, weights, alpha):
    """The scales of SmoothQuant (Xiao et al., 2023, equation 4): how much difficulty to move into the weights.

    Args:
        x: inputs of these layers on calibration text, (..., in); weights: list of (out, in) that read x.
        alpha: 0 to 1.

    Returns:
        (in,), the largest |x| of a channel to the power alpha over the largest |weight| that reads it, in any of the
        matrices, to the power 1 - alpha. Both largest are taken as at least 1e-5. x is divided by the scales, the
        weights' columns are multiplied by them.

    Example:
        >>> smooth_scales(torch.tensor([[1.0, -16.0], [-4.0, 2.0]]), [torch.tensor([[1.0, 0.25]])], 0.5)
        tensor([2., 8.])
    """
    ### BEGIN SOLUTION
    loudest = x.abs().flatten(0, -2).amax(0).clamp(min=1e-5)
    widest = torch.cat(weights).abs().amax(0).clamp(min=1e-5)
    return loudest**alpha / widest ** (1 - alpha)
    ### END SOLUTION

# %% check="smooth_scales"

# %% prediction="w8a8"
predict("w8a8", ..., "KL with weights in 8 bits (0.003 alone) and one scale for all activations of a matrix")

# %% role="measure"
def eight(p):
    """Matrices in 8 bits, a scale for each row."""
    scales = {name: p[name].abs().amax(1, keepdim=True) / 127 for name in weights}
    return p | {name: (p[name] / scales[name]).round() * scales[name] for name in weights}


@contextlib.contextmanager
def eight_bit_inputs():
    """Every matrix gets its input rounded to 8 bits, one scale for all tokens and channels."""

    def hook(module, arguments):
        scale = arguments[0].abs().max() / 127
        return ((arguments[0] / scale).round() * scale,)

    hooks = [module.register_forward_pre_hook(hook) for module in linears.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


judge("W8", 8 + 16 / 576, eight(dict(weights)))
plain = judge("W8A8", 8 + 16 / 576, eight(dict(weights)), eight_bit_inputs)
for alpha in (0.5, 0.75):
    smooth = folded(lambda x, matrices: smooth_scales(x, matrices, alpha))  # noqa: B023
    judge(f"W8A8, SmoothQuant α = {alpha}", 8 + 16 / 576, eight(smooth), eight_bit_inputs)
confront("w8a8", plain.kl.mean)

# %% [markdown]
# One scale for everything must reach to the loudest number, and all others drown in its step. SmoothQuant (Xiao et
# al.) moves the loudness into the weights, which have room. It is the same fold with other scales.
#
# And how loud do outliers have to be? The fold makes a **dial**: make the loudest 1 % of the channels $k$ times
# louder and their weights $k$ times smaller. The model computes exactly the same, and models of other families are
# like that by nature.

# %% role="measure"
def louder(k):
    def scales_for(x, matrices):
        scales = torch.ones(x.shape[1])
        scales[salient_channels(x, matrices[0], 0.01, "activation")] = 1 / k
        return scales

    return folded(scales_for)


dialed = louder(10.0)
with with_weights(model, dialed), torch.no_grad():
    apart = (model(reference.tokens[:1]) - reference.states[:1] @ reference.head.T).abs().max()
print(f"dialed by 10, nothing rounded: logits differ by {apart:.1e}")
judge("W8A8, outliers x 10", 8 + 16 / 576, eight(dialed), eight_bit_inputs)

# %% [markdown]
# ## 10 · Two matrices in one
#
# LLM.int8 (Dettmers et al.) does not move outliers, it takes them out: channels in which any input exceeds a
# threshold are multiplied in floating point, all others in integers, with a scale for each token and each row.

# %% exercise="int8_matmul"
def int8_matmul(x, weight, threshold):
    """A linear layer in 8 bits, with the outlier channels in floating point (Dettmers et al., 2022, section 3).

    An input channel is an outlier when any |x| in it is at least `threshold`. All others are multiplied in integers:
    each row of x and each row of weight gets a symmetric scale, its largest magnitude *among these channels* / 127 (1
    if that is 0), and codes rounded half to even; products are summed exactly, then multiplied by both scales.

    Args:
        x: float32 (tokens, in); weight: float32 (out, in); threshold: positive, math.inf for no outliers.

    Returns:
        {"outliers": int64, ascending; "codes": int8 (tokens, in), of x, 0 in the outliers; "accumulator": int32
        (tokens, out); "y": float32 (tokens, out), integer part plus floating-point part}

    Example:
        >>> out = int8_matmul(torch.tensor([[0.5, 20.0, -1.0]]), torch.tensor([[1.0, 0.1, 0.5]]), 6.0)
        >>> out["outliers"].tolist(), out["codes"].tolist(), out["accumulator"].tolist()
        ([1], [[64, 0, -127]], [[0]])
    """
    ### BEGIN SOLUTION
    loud = (x.abs() >= threshold).any(0)
    quiet_x, quiet_w = x.masked_fill(loud, 0), weight.masked_fill(loud, 0)

    def grid(t):
        scale = t.abs().amax(1, keepdim=True) / 127
        scale[scale == 0] = 1
        return (t / scale).round(), scale

    (codes_x, scale_x), (codes_w, scale_w) = grid(quiet_x), grid(quiet_w)
    accumulator = codes_x.int() @ codes_w.int().T
    y = accumulator * scale_x * scale_w.T + x[:, loud] @ weight[:, loud].T
    return {"outliers": loud.nonzero().flatten(), "codes": codes_x.to(torch.int8), "accumulator": accumulator, "y": y}
    ### END SOLUTION

# %% check="int8_matmul"

# %% role="measure"
name = "layers.28.mlp.down_proj"
w, x = weights[f"{name}.weight"], inputs[name]
wanted = x @ w.T
_, axes = plt.subplots(figsize=(7, 3.6))
thresholds = (0.5, 1.0, 3.0, 6.0, 20.0, 100.0, math.inf)
rows = []
for threshold in thresholds:
    out = int8_matmul(x, w, threshold)
    error = float(((out["y"] - wanted).norm(dim=1) / wanted.norm(dim=1)).median())
    rows.append((len(out["outliers"]) / x.shape[1], error))
    print(f"threshold {threshold:5}: {rows[-1][0]:6.1%} of the channels in float, median relative error {error:.4f}")
axes.plot([100 * share for share, _ in rows], [error for _, error in rows], "o-", color=COLORS["blue"])
for threshold, (share, error) in zip(thresholds, rows, strict=True):
    axes.annotate(f"{threshold:g}", (100 * share, error), xytext=(4, 5), textcoords="offset points", fontsize=8)
axes.set(xlabel="channels in floating point, %", ylabel="median relative error of a token", ylim=(0, None))
axes.set_title("What the threshold buys (down, layer 28)")
plt.show()

# %% [markdown]
# ## 11 · Design: which matrices deserve more?
#
# Not all kinds of matrices are equally sensitive, and not all are equally large. The table below has the divergence
# when only one kind is rounded. All 243 mixtures of 3, 4 and 6 bits were measured as well
# (`fourbit/recipes/llm_mixed.py`); your choice for a budget is looked up among them, on a text that you have not
# seen.

# %% role="measure"
from fourbit.recipes.llm_mixed import read_table

table = read_table()
alone, sizes = table["alone"]["evaluation"], table["sizes"]
print(f"{'kind':8} {'weights':>11}   " + "".join(f"{f'KL, {b} bits':>12}" for b in table["choices"]))
for kind, row in alone.items():
    print(f"{kind:8} {sizes[kind][4] / 1e6:8.1f} MB   " + "".join(f"{row[b]:12.4f}" for b in table["choices"]))

# %% exercise="allocate_bits"
def allocate_bits(divergence, sizes, budgets):
    """Design: choose the bits of each kind of layer for each of several budgets.

    Args:
        divergence: {kind: {bits: KL to the reference, in nats per token, when only this kind is quantized}}; bits are
            the choices. Kinds are "qk", "v", "o", "gate_up" and "down".
        sizes: {kind: {bits: bytes}}, all matrices of this kind.
        budgets: list of bytes: the sum over the kinds may not exceed it. The fewest bits everywhere always fit.

    Returns:
        One {kind: bits} for each budget.

    Scored on the measured divergence of the whole model, on a text that you have not seen: 0 for the best uniform
    choice that fits, 1 for four fifths of the way (in the logarithm) to the best of all choices.

    Example:
        >>> kl = {"v": {3: 0.9, 4: 0.1}, "o": {3: 0.2, 4: 0.1}}
        >>> allocate_bits(kl, {kind: {3: 30, 4: 40} for kind in kl}, [70])
        [{'v': 4, 'o': 3}]
    """
    ### BEGIN SOLUTION
    plans = [(0, 0.0, {})]
    for kind, row in divergence.items():
        plans = [
            (size + sizes[kind][bits], total + kl, {**plan, kind: bits})
            for size, total, plan in plans
            for bits, kl in row.items()
        ]
    return [min((p for p in plans if p[0] <= budget), key=lambda p: p[1])[2] for budget in budgets]
    ### END SOLUTION

# %% check="allocate_bits"

# %% role="measure"
plans = table["plans"]
smallest, largest = (min(p["bytes"] for p in plans), max(p["bytes"] for p in plans))
budgets = [int(smallest + (largest - smallest) * share) for share in (0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1)]
chosen = allocate_bits(alone, sizes, budgets)
measured = {tuple(p["bits"].values()): p for p in plans}
yours = [measured[tuple(choice[kind] for kind in table["kinds"])] for choice in chosen]
_, axes = plt.subplots(figsize=(7.5, 4.2))
axes.plot([p["bytes"] / 1e6 for p in plans], [p["kl"]["evaluation"] for p in plans], "o", color=COLORS["gray"],
          markersize=3, alpha=0.5)  # fmt: skip
(line,) = axes.plot([p["bytes"] / 1e6 for p in yours], [p["kl"]["evaluation"] for p in yours], "o-")
label_line(line, "your choice", xytext=(0, -14), ha="right")
for bits in table["choices"]:
    p = measured[(bits,) * len(table["kinds"])]
    axes.plot(p["bytes"] / 1e6, p["kl"]["evaluation"], "D", color=COLORS["vermilion"])
    axes.annotate(f"{bits} bits everywhere", (p["bytes"] / 1e6, p["kl"]["evaluation"]), xytext=(6, 6),
                  textcoords="offset points", color=COLORS["vermilion"])  # fmt: skip
axes.set(yscale="log", xlabel="bytes of the matrices, MB", ylabel="KL to the reference, nats per token")
axes.set_title("243 mixtures of 3, 4 and 6 bits")
plt.show()

# %% [markdown]
# **Question 3.** Which kind gets more bits first, and which last? Give the reason in terms of the table: not only
# of how much a kind hurts, but of what its bits cost.

# %% [markdown] written="which-kinds" points=1
# v first: from 3 to 4 bits it saves 0.27 nats for each megabyte, since it is the smallest of all (3 million weights
# against 53 million in gate and up) and is multiplied with loud inputs; down, the next, saves 0.07. Last come qk and o
# with 0.04, and from 4 to 6 bits o and gate_up with 0.006. gate_up hurts most in total at 3 bits and is only
# average for each byte. (Full point for divergence saved per byte with an example from the table.)

# %% [markdown]
# ## 12 · A file that talks
#
# Last, an artifact: AWQ at 4 bits in groups of 64, packed into bytes, in a safetensors file with everything that is
# needed to use it. Its size on disk has to be what your `model_bytes` says, and a header.

# %% role="measure"
import tempfile
from pathlib import Path

from fourbit.llm.artifact import export_gguf, ledger, save_artifact

quantized = {name: round_to_nearest(awq[4][name], 4, 64) for name in weights}
others = {name: value for name, value in awq[4].items() if name not in weights}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "smollm2-awq-4bit.safetensors"
    save_artifact(path, llm, quantized, 4, 64, others)
    bytes_on_disk, parts = path.stat().st_size, ledger(path)
    exported = export_gguf(path, path.with_suffix(".gguf"))
    print(f"{path.name}: {bytes_on_disk:,} bytes; as GGUF {exported.stat().st_size:,}")
    mine = load(path)
size = model_bytes(shapes, list(weights), 4, 64, {})
for kind, count in parts.items():
    print(f"  {kind:8} {count:12,} bytes   yours: {size.get(kind, parts['header']):12,}")
assert bytes_on_disk == size["total"] + parts["header"]
model = mine.model
print(f"It says: {ask(question)}")
model = llm.model

# %% role="measure"
_, axes = plt.subplots(figsize=(8, 4.8))
for name, (bits, found) in schemes.items():
    kind = "AWQ" if "AWQ" in name else "RTN" if "RTN" in name else "A8" if "A8" in name else "other"
    if kind == "A8" or "keep" in name or found.kl.mean > 3:
        continue
    color = COLORS[{"AWQ": "vermilion", "RTN": "blue", "other": "green"}[kind]]
    axes.plot([bits, bits], [max(found.kl.low, 1e-3), found.kl.high], color=color, linewidth=1.5)
    axes.plot(bits, found.kl.mean, "o", color=color)
    axes.annotate(name, (bits, found.kl.mean), xytext=(6, 3), textcoords="offset points", fontsize=8, color=color)
axes.set(yscale="log", xlabel="bits for each weight, scales included", ylabel="KL to the reference, nats per token")
axes.set_xlim(3, 10)
axes.set_title("What each bit buys")
plt.show()

# %% [markdown]
# What holds for 135 million weights holds for seven billion, with better numbers: larger models lose less at the
# same bits. Lab 05 makes the 4-bit file *fast*, lab 06 builds the engine around it, and lab 07 puts a 7B on your
# laptop.
