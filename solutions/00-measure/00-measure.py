# %% [markdown]
# # Lab 00. Measure first
#
# A phone maker asks for a network that recognizes clothes: it must be small, quick and easy on the battery. You have
# one that is right on nine images of ten. Is it small? Is it quick? *Compared with what?*
#
# Most false claims about efficiency are not lies. Somebody counted a multiplication and an addition as one here and
# as two there, counted the parameters and forgot the file's other bytes, stopped the clock before the work was done,
# or took the mean of times that contain one hiccup. In this lab you build the instruments that every later lab uses,
# and learn to distrust the rest: a counter of parameters, of multiply-accumulates and of bytes; a clock with an error
# bar; a roofline of *this* computer; an energy bill; and a referee for other people's benchmarks.
#
# Work from top to bottom. Before each measurement you write down a guess: nobody grades it, but a guess is what makes
# a measurement surprising. `check("...")` tells you at once what holds and what does not, and often which mistake it
# was. The lecture note is [Measure first](../../lecture_notes/measuring.md).

# %% role="setup"
import copy
import json
import math
import statistics

import torch
from torch import nn

from fourbit.exam import check, confront, predict
from fourbit.measure import HOROWITZ45

# Bytes of one value, in the order in which a safetensors file lays its data out.
DTYPES = {"I64": 8, "F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

# %% [markdown]
# ## 1 · Parameters
#
# The network is a plain chain: five convolutions, each with batch normalization and ReLU, then two fully connected
# layers. Look at it, and guess before you count.

# %% role="measure"
from fourbit.models import load_checkpoint

teacher = load_checkpoint("teacher20")
teacher

# %% prediction="parameters"
predict("parameters", ..., "parameters of the network above, thousands")

# %% [markdown]
# Three kinds of numbers live in a model. **Trainable parameters** are what an optimizer changes. **Frozen
# parameters** have `requires_grad=False`. **Buffers**, such as the running mean of a batch normalization, are stored
# and loaded but are no parameters. One `Parameter` may serve under two names, as the embedding and the output layer
# of many language models do (GPT-2 small would have 163 million parameters instead of 124 if you counted it twice).

# %% exercise="count_params"
def count_params(model: nn.Module) -> dict[str, int]:
    """Count the values that a model holds, by kind.

    A parameter that appears under several names is counted once. Nested containers are counted through.

    Returns:
        {"trainable": values in parameters that require a gradient, "frozen": values in the other parameters,
        "buffers": values in buffers}

    Example:
        >>> count_params(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
        {'trainable': 12, 'frozen': 0, 'buffers': 5}
    """
    ### BEGIN SOLUTION
    counts = {"trainable": 0, "frozen": 0}
    for parameter in model.parameters():
        counts["trainable" if parameter.requires_grad else "frozen"] += parameter.numel()
    counts["buffers"] = sum(buffer.numel() for buffer in model.buffers())
    return counts
    ### END SOLUTION

# %% check="count_params"

# %% role="measure"
counts = count_params(teacher)
print(counts)
confront("parameters", (counts["trainable"] + counts["frozen"]) / 1e3)

# %% [markdown]
# ## 2 · Multiply-accumulates
#
# A dense layer and a convolution do one thing: multiply and add. One multiply-accumulate (**MAC**) is two
# floating-point operations (**FLOP**), and many a factor of two in this field comes from mixing the two. Here,
# always: MACs, of convolutions and linear layers only, for one sample; biases, normalization, activations and pooling
# count nothing. Tools differ on this point: for this very network, four popular counters report four different
# numbers.
#
# How much work is *one* value of a convolution's output? How many output values are there? Mind that stride and
# padding change their number, and that with `groups=g` each output channel sees only a `g`-th of the input channels.

# %% exercise="conv_macs"
def conv_macs(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> int:
    """Multiply-accumulates of a 2-D convolution (without bias) on one image.

    Args:
        kernel: height and width of the kernel.
        size: height and width of the *input*.
        padding: rows and columns of zeros added at each of the four sides.

    Example:
        >>> conv_macs(1, 32, (3, 3), (28, 28), stride=2, padding=1)  # 32 x 14 x 14 outputs of 9 MACs each
        56448
    """
    ### BEGIN SOLUTION
    rows = (size[0] + 2 * padding - kernel[0]) // stride + 1
    columns = (size[1] + 2 * padding - kernel[1]) // stride + 1
    per_value = in_channels // groups * kernel[0] * kernel[1]
    return out_channels * rows * columns * per_value
    ### END SOLUTION

# %% check="conv_macs"

# %% [markdown]
# A formula per layer type does not survive contact with real models: you would need the input size of every layer.
# PyTorch can tell you, with a [forward hook](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html): a
# function that is called with `(layer, inputs, output)` whenever a layer runs. Which layer takes most of the work
# here, and which holds most of the parameters?

# %% prediction="macs"
predict("macs", ..., "MACs of the network above for one image, millions")

# %% [markdown]
# Three traps. The batch must not scale your answer. A linear layer may be applied at many positions at once (the
# tokens of a sentence). And counting must leave no trace: a model in training mode updates its batch-norm statistics
# whenever it runs.

# %% exercise="count_macs"
def count_macs(model: nn.Sequential, example: torch.Tensor) -> dict[str, int]:
    """Multiply-accumulates of each `nn.Conv2d` and `nn.Linear` in `model`, for one sample.

    Args:
        example: a batch of inputs, (batch, ...); the counts do not depend on the batch size.

    Returns:
        {name: MACs} with the names of `model.named_modules()`, nested layers included. The model is left as it was.

    Example:
        >>> count_macs(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 5)), torch.zeros(7, 3))
        {'0': 6, '2': 10}
    """
    ### BEGIN SOLUTION
    macs = {}

    def recorder(name):
        def record(layer, inputs, output):
            macs[name] = output[0].numel() * layer.weight[0].numel()  # output values x MACs behind each

        return record

    model = copy.deepcopy(model).eval()
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(recorder(name))
    with torch.no_grad():
        model(example)
    return macs
    ### END SOLUTION

# %% check="count_macs"

# %% role="measure"
from fourbit.measure import total_macs

image = torch.zeros(1, 1, 28, 28)
macs = count_macs(teacher, image)
print(macs)
print("PyTorch's own counter:", total_macs(teacher, image))
confront("macs", sum(macs.values()) / 1e6)

# %% [markdown]
# Work and size sit in different places. Keep this picture in mind for the next two labs: pruning a fully connected
# layer shrinks the file, pruning a convolution saves time.

# %% role="measure"
from fourbit.measure import figures

weights = {name: teacher.get_submodule(name).weight.numel() for name in macs}
figures.shares({"MACs": macs, "weights": weights}, "Convolutions do the work, one dense layer holds the weights")

# %% [markdown]
# ## 3 · Bytes
#
# "4 bits per weight" is a statement about weights. A file also holds a header, names, scales, the layers that were
# left alone, and padding. A well-known course lab reports 495 MiB for a language model in 3 bits; the embeddings,
# which it never quantized, are counted at 3 bits as well, and the file would really take 660 MiB. The cure is to
# compute the size of the **file**, to the byte.
#
# A safetensors file is:
#
# | part | bytes |
# |---|---|
# | length *n* of the header | 8 |
# | header: JSON without spaces, UTF-8, filled up with spaces to a multiple of 8 | *n* |
# | the tensors' values, one after the other, no gaps | data |
#
# The header maps each name to `{"dtype":"F32","shape":[2,3],"data_offsets":[begin,end]}`. Tensors are laid out, in
# the header and in the data, in the order of `DTYPES` (above), and by name where the type is the same.

# %% exercise="file_bytes"
def file_bytes(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """Size of the safetensors file of some tensors, without writing it: so it works for a 7B model too.

    Args:
        tensors: {name: (dtype, shape)}, dtype a key of DTYPES; an empty shape is a single value.

    Returns:
        {"header": bytes before the data, with the length field and the padding, "data": bytes of the values,
        "total": their sum}

    Example:
        >>> file_bytes({"w": ("F32", (2, 3))})  # 8, 57 and 7 of padding; 6 values of 4 bytes
        {'header': 72, 'data': 24, 'total': 96}
    """
    ### BEGIN SOLUTION
    order = list(DTYPES)
    header, end = {}, 0
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name][0]), name)):
        dtype, shape = tensors[name]
        begin, end = end, end + DTYPES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    length += -length % 8
    return {"header": 8 + length, "data": end, "total": 8 + length + end}
    ### END SOLUTION

# %% check="file_bytes"

# %% role="measure"
from fourbit.measure import file_size

KINDS = {torch.float32: "F32", torch.int64: "I64"}
plan = {name: (KINDS[t.dtype], tuple(t.shape)) for name, t in teacher.state_dict().items()}
ledger = file_bytes(plan)
written = file_size(teacher.state_dict())
print("computed:", ledger)
print("written: ", {"header": written.header, "data": written.data, "total": written.total})
alone = 4 * counts["trainable"]
print(f"parameters alone, 4 bytes each: {alone:,}; the file has {ledger['total'] - alone:,} bytes more")

# %% [markdown]
# ## 4 · Time
#
# Now run it. Guess the time of one image through the network on one core. Your processor can do some tens of billions
# of MACs in a second, and the network needs five million.

# %% prediction="latency"
predict("latency", ..., "time of the network for one image on one core, ms")

# %% role="measure"
import time

# Every run, the first ones too, in the order in which they were taken.
model = load_checkpoint("teacher20")
samples = []
with torch.inference_mode():
    for _ in range(400):
        start = time.perf_counter()
        model(image)
        samples.append(time.perf_counter() - start)
print("first five, ms:", [round(1e3 * s, 2) for s in samples[:5]])
print(f"mean {1e3 * statistics.fmean(samples):.3f} ms, slowest {1e3 * max(samples):.2f} ms")

# %% [markdown]
# The first runs are slow (memory is allocated, kernels are chosen, caches are cold) and belong to another question.
# The rest have a floor and a long tail to the right: nothing makes a run faster than the machine allows, but much can
# make it slower. So: drop the warm-up, report the **median**, and say how sure you are of it.
#
# There is a beautiful interval for a median that assumes nothing about the distribution. Each run lies below the true
# median with probability one half, like a coin. So the number of the *n* runs that lie below it is binomial, and the
# true median lies between the *j*-th fastest and the *j*-th slowest run unless that number is less than *j*, or more
# than *n − j*:
#
# $$P\big(x_{(j)} \le m \le x_{(n+1-j)}\big) \;\ge\; 1 - 2 \sum_{i=0}^{j-1} \binom{n}{i} 2^{-n}.$$
#
# Take the largest *j* for which the right-hand side still reaches the confidence. With fewer than six runs not even
# the fastest and the slowest enclose the median with 95 %; then the only honest interval is [0, ∞).

# %% exercise="summarize"
def summarize(seconds: list[float], warmup: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """Median of repeated timings, with its interval by order statistics.

    Args:
        seconds: every run, in the order in which they were taken.
        warmup: how many runs at the beginning do not count.

    Returns:
        (low, median, high): low and high are the j-th fastest and the j-th slowest of the n runs that count, with
        the largest j for which they enclose the true median with at least `confidence`; 0.0 and inf if there is none.

    Example:
        >>> summarize([9.0, 5.0, 1.0, 2.0, 3.0, 4.0, 8.0, 6.0, 7.0], warmup=1)  # j = 1 of 8: 99.2 %, j = 2: 93.0 %
        (1.0, 4.5, 8.0)
    """
    ### BEGIN SOLUTION
    kept = sorted(seconds[warmup:])
    n, rank, tail = len(kept), 0, 0.0
    for i in range(n // 2):
        tail += math.comb(n, i) / 2**n  # P(at most i runs lie below the true median)
        if 1 - 2 * tail < confidence:
            break
        rank = i + 1
    low, high = (kept[rank - 1], kept[n - rank]) if rank else (0.0, math.inf)
    return low, statistics.median(kept), high
    ### END SOLUTION

# %% check="summarize"

# %% role="measure"
low, median, high = summarize(samples, warmup=20)
confront("latency", 1e3 * median)

# %% [markdown]
# How far apart are the mean and the median here, and which of them would you promise to a customer?

# %% role="measure"
figures.times(samples, 20, (low, median, high), "A floor on the left, a tail on the right")

# %% [markdown]
# ## 5 · Is it the arithmetic or the memory?
#
# Two numbers bound every kernel on a machine: how fast it multiplies, and how fast data arrive. An operation that
# does *F* FLOP on *B* bytes has the **arithmetic intensity** *F/B*; it cannot run faster than $\min(\text{peak
# FLOP/s},\; \tfrac{F}{B} \cdot \text{bandwidth})$. Plotted against *F/B* this is the **roofline** (Williams, Waterman
# and Patterson, 2009). Left of the ridge you wait for memory, and fewer bytes make you faster; right of it you wait
# for arithmetic, and only fewer operations do.
#
# What does *this* machine do? Guess the bandwidth of one core before you measure it.

# %% prediction="bandwidth"
predict("bandwidth", ..., "memory bandwidth of one core of this machine, GB/s")

# %% role="measure"
from fourbit.measure import probe_machine

machine = probe_machine()
print(machine)
confront("bandwidth", machine.peak_bandwidth / 1e9)

# %% [markdown]
# Take a linear layer, the heart of every language model: a batch of inputs (batch × in) times the weights (in × out).
# Every value is moved once: weights and inputs are read, outputs are written. Inputs and outputs are float32; a
# weight takes `weight_bytes`, which is 0.5 for 4 bits.

# %% exercise="linear_roofline"
def linear_roofline(
    batch: int, n_in: int, n_out: int, weight_bytes: float, peak_flops: float, peak_bandwidth: float
) -> dict[str, float | str]:
    """Where a linear layer (without bias) lies on a machine's roofline.

    Args:
        weight_bytes: bytes of one weight; inputs and outputs take 4 bytes each.
        peak_flops, peak_bandwidth: FLOP/s and bytes/s of the machine.

    Returns:
        {"intensity": FLOP per byte moved, "attainable": FLOP/s at best, "seconds": time at best,
        "bound": "memory" or "compute"}; exactly on the ridge it is "compute".

    Example:
        >>> linear_roofline(1, 4, 4, 4.0, peak_flops=100.0, peak_bandwidth=32.0)  # 32 FLOP, 96 bytes: 3 seconds
        {'intensity': 0.3333333333333333, 'attainable': 10.666666666666666, 'seconds': 3.0, 'bound': 'memory'}
    """
    ### BEGIN SOLUTION
    flops = 2 * batch * n_in * n_out
    moved = n_in * n_out * weight_bytes + 4 * batch * (n_in + n_out)
    intensity = flops / moved
    attainable = min(peak_flops, intensity * peak_bandwidth)
    bound = "memory" if intensity < peak_flops / peak_bandwidth else "compute"
    return {"intensity": intensity, "attainable": attainable, "seconds": flops / attainable, "bound": bound}
    ### END SOLUTION

# %% check="linear_roofline"

# %% [markdown]
# Where do the layers of our network lie, measured on this machine, for one image and for 64 at once? And the linear
# layer of a 7B language model, which sees one token at a time? A roof of *memory* bandwidth holds for data that come
# from memory: a layer whose weights stay in a cache between two runs can lie above the slanted roof. And our MACs
# include the multiplications by the zeros of the padding, which a good kernel leaves out: on a small image a
# convolution can lie above the flat roof.

# %% role="measure"
from functools import partial

from fourbit.measure import measure_together


def dot(layer: nn.Module, x: torch.Tensor, work: int) -> tuple[float, float]:
    """Intensity (FLOP/byte) and measured FLOP/s of one layer on input `x`."""
    with torch.inference_mode():
        y = layer(x)
        taken = measure_together({"layer": lambda: layer(x)}, seconds=0.1)["layer"].median
    moved = 4 * (x.numel() + y.numel() + layer.weight.numel())
    return 2 * work * len(x) / moved, 2 * work * len(x) / taken


def layer_inputs(model: nn.Sequential, x: torch.Tensor) -> dict[str, torch.Tensor]:
    seen = {}
    with torch.inference_mode():
        for name, layer in model.named_children():
            seen[name] = x
            x = layer(x)
    return seen


dots = {}
for batch in (1, 64):
    inputs = layer_inputs(teacher, torch.zeros(batch, 1, 28, 28))
    dots[batch] = {name: dot(teacher.get_submodule(name), inputs[name], macs[name]) for name in macs}
large = nn.Linear(4096, 11008, bias=False)
dots["7B"] = {"7B": dot(large, torch.zeros(1, 4096), 4096 * 11008)}

# %% role="measure"
groups = {"one image": dots[1], "64 images": dots[64], "one token, layer of a 7B": dots["7B"]}
figures.roofline(machine, groups, "The roofline of this machine, with real layers on it")

# %% [markdown]
# **Question 1.** Name one layer in the figure that fewer *bits per weight* would make faster for one image, and one
# for which they would do nothing. Say how the figure shows it. Is there a dot above a roof, and why may it be there?

# %% [markdown] written="whose-roof" points=2
# The matrix of the 7B layer, and fc2: one image (or token) uses each weight once, so they lie far to the left of the
# ridge, where time is bytes divided by bandwidth; half the bits are half the time. conv1 to conv4 lie right of the
# ridge, near the horizontal roof: a kernel is used at many positions, so they wait for arithmetic, and smaller
# weights do not change the number of MACs. fc1 may lie above the slanted roof: its 1.2 MB stay in a cache between
# runs, so its weights do not come from memory.

# %% [markdown]
# ### MACs are not time
#
# If arithmetic were all, time would be proportional to MACs. Four networks of one family, from 0.12 to 5.5 million
# MACs: is it?

# %% role="measure"
from fourbit.models import build

family = {name: build(name, seed=0).eval() for name in ("S3", "S5", "S6", "T4")}
work = {name: sum(count_macs(net, image).values()) for name, net in family.items()}
curves = {}
with torch.inference_mode():
    for batch in (1, 64):
        x = torch.zeros(batch, 1, 28, 28)
        timings = measure_together({n: partial(net, x) for n, net in family.items()}, seconds=2.0)
        curves[f"batch {batch}"] = [(work[n] / 1e6, 1e3 * timings[n].median / batch) for n in family]
curves["no overhead"] = [(w / 1e6, 2e3 * w / machine.peak_flops) for w in work.values()]

# %% role="measure"
figures.lines(
    curves,
    "MACs of one image, millions",
    "time of one image, ms",
    "46 times the MACs, nowhere near 46 times the time",
    log=True,
    dots=True,
    at={"no overhead": 0.2},
)

# %% [markdown]
# ## 6 · Energy
#
# No laptop tells you what one multiplication costs. Horowitz (ISSCC 2014) measured it for a 45 nm chip; newer chips
# are better at arithmetic and hardly better at moving data. The table holds picojoules: for a multiplication and an
# addition by type, and for fetching one *word* of 64 bits from memories of several sizes. In hardware, products are
# added up in a wider type than they are multiplied in: int8 products in int32, fp16 products in fp32.

# %% role="measure"
HOROWITZ45

# %% prediction="arithmetic_share"
predict("arithmetic_share", ..., "share of arithmetic in the energy of one image, weights in float32 from DRAM, %")

# %% exercise="energy"
def energy(macs: int, dtype: str, traffic: dict[str, int], table: dict) -> dict[str, float]:
    """Modelled energy of some work, in microjoules.

    Args:
        macs: multiply-accumulates; one is a multiplication in `dtype` and an addition in `table["accumulator"][dtype]`.
        traffic: {memory level: bytes moved}; levels are the keys of `table["access"]`.
        table: picojoules; `mult` and `add` by type, `access` for each word of `word_bits` bits.

    Returns:
        {"mac": energy of the arithmetic, one entry for each level in `traffic`, "total": their sum}

    Example:
        >>> energy(1_000_000, "fp16", {"dram": 8_000}, HOROWITZ45)  # 1.1 + 0.9 pJ a MAC; 1000 words of 1280 pJ
        {'mac': 2.0, 'dram': 1.28, 'total': 3.28}
    """
    ### BEGIN SOLUTION
    per_mac = table["mult"][dtype] + table["add"][table["accumulator"][dtype]]
    picojoules = {"mac": macs * per_mac}
    for level, moved in traffic.items():
        words = 8 * moved / table["word_bits"]
        picojoules[level] = words * table["access"][level]
    picojoules["total"] = sum(picojoules.values())
    return {part: value / 1e6 for part, value in picojoules.items()}
    ### END SOLUTION

# %% check="energy"

# %% [markdown]
# One image at a time, every weight is fetched once. What does the bill look like when the same network is stored in
# fewer bits, and when it fits into memory on the chip?

# %% role="measure"
n_macs, n_weights = sum(macs.values()), sum(weights.values())
bills = {
    "float32 from DRAM": energy(n_macs, "fp32", {"dram": 4 * n_weights}, HOROWITZ45),
    "float16 from DRAM": energy(n_macs, "fp16", {"dram": 2 * n_weights}, HOROWITZ45),
    "int8 from DRAM": energy(n_macs, "int8", {"dram": n_weights}, HOROWITZ45),
    "int8 from 1 MB SRAM": energy(n_macs, "int8", {"sram 1 MB": n_weights}, HOROWITZ45),
}
first = bills["float32 from DRAM"]
confront("arithmetic_share", 100 * first["mac"] / first["total"])

# %% role="measure"
figures.bills(bills, "The battery pays for moving data")

# %% [markdown]
# **Question 2.** From float32 to int8 the weights take a quarter of the bytes. By what factor does the modelled total
# fall, and why is it not four? Which step of the four bars saves most, and what does that say about a network
# slightly too large for the chip?

# %% [markdown] written="why-bits" points=2
# From 304 to 71 microjoules, a factor of 4.3: the weights cost exactly a quarter, and arithmetic falls by a factor of
# 15 (from 4.6 to 0.3 pJ for a MAC), but it was only 8 % of the bill. The last step, from DRAM to memory on the chip,
# saves a factor of ten by itself. So a network slightly too large for the chip gains far more from the few bits that
# make it fit than from any number of operations saved.

# %% [markdown]
# ## 7 · How fast can a language model be on this machine?
#
# A language model writes one token at a time, and each token needs all of the weights: the layer of a 7B lay far to
# the left in your roofline. So decoding waits for memory, and its speed is bandwidth divided by the bytes that a step
# reads. Those are:
#
# * the weights, `bits` each, with a scale of `scale_bits` for every `group` weights (with 4 bits in groups of 64 and
#   16-bit scales: 4.25 bits);
# * the weights that were *not* quantized, `kept_fp16` of them at 16 bits;
# * the cache of keys and values: `kv_bytes` for each of the `context` tokens so far, for each sequence.
#
# A batch of sequences shares the weights of a step, but not the cache.

# %% exercise="decode_bound"
def decode_bound(
    params: int,
    bits: int,
    bandwidth: float,
    *,
    group: int = 0,
    scale_bits: int = 16,
    kept_fp16: int = 0,
    kv_bytes: int = 0,
    context: int = 0,
    batch: int = 1,
) -> float:
    """Tokens per second, over the whole batch, that memory bandwidth allows a language model at best.

    Args:
        params: quantized weights, of `bits` bits each.
        bandwidth: in GB/s, 10^9 bytes per second.
        group: weights that share a scale of `scale_bits` bits; 0 means that there are no scales.
        kept_fp16: further weights, of 16 bits each.
        kv_bytes: bytes of the cache for one token of one sequence; `context` tokens are cached.

    Example:
        >>> decode_bound(7_000_000_000, 4, 35.0)  # 3.5 GB a token
        10.0
        >>> decode_bound(7_000_000_000, 4, 35.0, kv_bytes=500_000, context=1000, batch=2)  # 4.5 GB, 2 tokens
        15.555555555555555
    """
    ### BEGIN SOLUTION
    scales = params / group * scale_bits / 8 if group else 0
    weights = params * bits / 8 + scales + 2 * kept_fp16
    cache = batch * context * kv_bytes
    return batch * bandwidth * 1e9 / (weights + cache)
    ### END SOLUTION

# %% check="decode_bound"

# %% [markdown]
# Llama-2-7B has 6.74 billion parameters, 0.26 billion of them in the embedding and the output layer. Its cache takes
# 0.5 MiB per token in float16. What is possible here?

# %% role="measure"
bandwidth = machine.peak_bandwidth / 1e9
cache = {"kv_bytes": 2**19, "context": 1024}
speeds = {
    "16 bits": decode_bound(6_740_000_000, 16, bandwidth, **cache),
    "8 bits": decode_bound(6_480_000_000, 8, bandwidth, group=64, kept_fp16=260_000_000, **cache),
    "4 bits": decode_bound(6_480_000_000, 4, bandwidth, group=64, kept_fp16=260_000_000, **cache),
}
for name, speed in speeds.items():
    print(f"{name}: at most {speed:.1f} tokens/s with {bandwidth:.1f} GB/s and 1024 tokens of context")

# %% [markdown]
# That is a bound, not a promise: kernels must unpack the bits, and your machine has more than one core. In lab 07 a
# model of this size runs here. What will it really do? Write it down now; lab 07 will come back to it.

# %% prediction="tokens_7b"
predict("tokens_7b", ..., "decoding speed of a 7B model in 4 bits on this machine, tokens/s")

# %% [markdown]
# ## 8 · The referee
#
# You know by now how a benchmark goes wrong: the clock stops before the work is done, the second run finds its answer
# in a cache, the best run is sold as the typical one, the error bar is another quantity. Public kernel competitions
# keep whole lists of such entries. Write the test that an honest report passes and a broken one does not. You get no
# list of the tricks: think about what must be true of *every* honest report. Your own `summarize` may help.

# %% exercise="believable"
def believable(report: dict) -> bool:
    """Whether a benchmark report can be honest.

    An honest benchmark runs a kernel many times on fresh inputs, drops the warm-up, and reports the median with the
    interval of `summarize` at 95 %. Each run does the whole work, and no run can beat the machine. No two runs take
    exactly the same time: the clock is fine and the machine is noisy. Twice the work takes between 1.5 and 2.5 times
    as long. Claimed times are rounded to four significant digits; the runs are not.

    Args:
        report: {"flops": FLOP of one run, "bytes": bytes that one run must move at least,
            "peak_flops": FLOP/s of the machine, "peak_bandwidth": bytes/s of the machine,
            "seconds": list of all runs without the warm-up, "median": claimed, "interval": (low, high), claimed,
            "doubled": claimed median time with twice the work}

    Example:
        >>> report = {"flops": 100, "bytes": 8, "peak_flops": 100.0, "peak_bandwidth": 100.0}
        >>> report |= {"seconds": [1.2, 1.1, 1.3, 1.6, 1.15, 1.25], "interval": (1.1, 1.6), "doubled": 2.41}
        >>> believable({**report, "median": 1.225}), believable({**report, "median": 1.1})
        (True, False)
    """
    ### BEGIN SOLUTION
    floor = max(report["flops"] / report["peak_flops"], report["bytes"] / report["peak_bandwidth"])
    claims = (report["interval"][0], report["median"], report["interval"][1])
    honest = summarize(report["seconds"], 0)
    return (
        min(report["seconds"]) >= floor
        and all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(claims, honest, strict=True))
        and len(set(report["seconds"])) == len(report["seconds"])
        and 1.5 <= report["doubled"] / report["median"] <= 2.5
    )
    ### END SOLUTION

# %% check="believable"

# %% [markdown]
# ## 9 · Design: a cascade
#
# You have measured that the large network costs 25 times the MACs of a small one, for less than three points of
# accuracy. Most images are easy. So let the small network answer, and hand on to the large one only the images on
# which the small one should be *doubted*.
#
# You design the doubt: from the small network's logits, one number per image. The examiner hands the images on in the
# order of falling doubt and measures the whole front, from "none" to "all", of accuracy against MACs. Your points are
# the area that your front gains over handing on at random, compared with our reference. Choose on the validation
# images; the hidden exam uses other images.
#
# First, is there anything to gain?

# %% role="measure"
from fourbit.exam.fixtures import images, logits

_, y = images("val", 2000)
small, large_net = logits("s5", "val", 2000), logits("teacher20", "val", 2000)
small_right, large_right = small.argmax(1) == y, large_net.argmax(1) == y
for name, who in {
    "both right": small_right & large_right,
    "only the large one": ~small_right & large_right,
    "only the small one": small_right & ~large_right,
    "neither": ~small_right & ~large_right,
}.items():
    print(f"{name:20} {100 * who.double().mean():5.1f} %")

# %% prediction="handed_on"
predict("handed_on", ..., "share of images to hand on so that the cascade is as accurate as the large network, %")

# %% exercise="doubt"
def doubt(logits: torch.Tensor) -> torch.Tensor:
    """How much to doubt the small network's answer to each image; the most doubted are handed on first.

    Args:
        logits: (n, classes) float32, of the small network; n >= 1.

    Returns:
        (n,) float32, finite; only its order matters.

    Example:
        >>> sure, torn = doubt(torch.tensor([[9.0, 0.0, 0.0], [2.0, 1.9, 0.0]]))
        >>> bool(torn > sure)
        True
    """
    ### BEGIN SOLUTION
    first, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(1)  # (n,), (n,)
    return second - first
    ### END SOLUTION

# %% check="doubt"

# %% role="measure"
gain = large_right.double() - small_right.double()  # +1: handing on mends the answer, -1: it spoils it


def front_of(doubts: torch.Tensor) -> list[tuple[float, float]]:
    """(mean MACs in millions, accuracy in %) as ever more images are handed on, the most doubted first."""
    order = doubts.argsort(descending=True, stable=True)
    right = small_right.sum() + torch.cat([torch.zeros(1), gain[order].cumsum(0)])  # (n + 1,)
    share = torch.arange(len(y) + 1) / len(y)
    return list(zip(((work["S5"] + share * work["T4"]) / 1e6).tolist(), (100 * right / len(y)).tolist(), strict=True))


ours = front_of(doubt(small))
needed = next(k for k, (_, accuracy) in enumerate(ours) if accuracy >= ours[-1][1])
confront("handed_on", 100 * needed / len(y))

# %% role="measure"
halfway = tuple((a + b) / 2 for a, b in zip(ours[0], ours[-1], strict=True))
fronts = {"perfect choice": front_of(gain), "your doubt": ours, "random choice": [ours[0], halfway, ours[-1]]}
figures.lines(
    fronts,
    "mean MACs of one image, millions",
    "validation accuracy, %",
    "What a good doubt is worth",
    at={"perfect choice": 3.0, "your doubt": 3.0, "random choice": 3.0},
)

# %% [markdown]
# **Question 3.** What did you try as a doubt, on which images did you choose, and what did you see? A cascade saves
# *mean* MACs: name a device or a use for which the mean is the wrong number, and say which number you would measure
# instead.

# %% [markdown] written="cascade" points=2
# Any honest account: what was tried (top probability, margin, entropy), that the choice was made on validation
# images, and that the three are nearly equal while the raw top logit is worse. The mean is the wrong number wherever
# a deadline must be met (a camera that needs every frame in 20 ms) or the hardware is sized for the worst case; there
# one measures a high quantile, or the worst case, of the latency.

# %% [markdown]
# ## Your instrument card
#
# These are the numbers that you will need again.

# %% role="measure"
print(f"this machine       {machine}, ridge at {machine.peak_flops / machine.peak_bandwidth:.1f} FLOP/byte")
print(f"the network        {counts['trainable']:,} parameters, {n_macs:,} MACs, {ledger['total']:,} bytes")
print(f"one image          {1e3 * median:.3f} ms [{1e3 * low:.3f}, {1e3 * high:.3f}]")
print(f"                   {first['total']:.0f} µJ, of which arithmetic {first['mac']:.0f} µJ (modelled)")
print(f"a 7B in 4 bits     at most {speeds['4 bits']:.1f} tokens/s on one core")
