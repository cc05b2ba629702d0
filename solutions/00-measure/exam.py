"""The exam of lab 00: cases, properties, and the mistakes that people make when they measure."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from functools import partial
from typing import Any

import properties
import torch
from torch import nn

from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property
from fourbit.measure import HOROWITZ45

NOTES = "lecture_notes/measuring.md#"


def rng_of(name: str, seed: int, visible: bool) -> random.Random:
    return random.Random(f"{name}/{seed}/{visible}")


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


# 1 count_params


def parameter_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("count_params", seed, visible)

    def size() -> int:
        return rng.randint(2, 6) if visible else rng.randint(3, 11)

    a, b, c, d = (size() for _ in range(4))
    plain = nn.Sequential(nn.Conv2d(a, b, 3, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Flatten(), nn.Linear(b, c))
    nested = nn.Sequential(nn.Sequential(nn.Linear(a, b), nn.ReLU()), nn.Sequential(nn.Sequential(nn.Linear(b, c))))
    deeper = nn.Sequential(nn.Linear(d, d), nn.Sequential(nn.LayerNorm(d), nn.Sequential(nn.Linear(d, a, bias=False))))
    frozen = nn.Sequential(nn.Linear(a, d), nn.BatchNorm1d(d), nn.Linear(d, c))
    frozen[0].requires_grad_(False)
    partly = nn.Sequential(nn.Conv2d(a, c, 1), nn.BatchNorm2d(c), nn.Conv2d(c, b, (1, 3), groups=1))
    partly[2].weight.requires_grad_(False)
    return [
        Case("convolution, batch norm, linear", (plain,), tags=tags("plain", "buffers")),
        Case("nested containers", (nested,), tags=tags("plain")),
        Case("deeply nested containers", (deeper,), tags=tags("plain")),
        Case("first layer frozen", (frozen,), tags=tags("frozen", "buffers")),
        Case("one weight frozen, its bias not", (partly,), tags=tags("frozen", "buffers")),
        Case("tied layers", (_tied(a + d, frozen=False),), tags=tags("tied")),
        Case("tied and frozen", (_tied(c + d + 1, frozen=True),), tags=tags("tied", "frozen")),
        Case("tied pair between norms", (_tied(b + c + 2, frozen=False, norm=True),), tags=tags("tied", "buffers")),
    ]


def _tied(width: int, *, frozen: bool, norm: bool = False) -> nn.Sequential:
    """Two layers that share one matrix, as an embedding and an output layer do; each has a bias of its own."""
    model = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
    if norm:
        model.append(nn.BatchNorm1d(width))
    model[3].weight = model[0].weight
    model[0].weight.requires_grad_(not frozen)
    return model


COUNT_PARAMS = Exercise(
    name="count_params",
    points=6,
    difficulty=1,
    cases=parameter_cases,
    properties=(
        Property(
            "counts trainable values", partial(properties.exact, key="trainable"), 2, tags=tags("plain", "frozen")
        ),
        Property("keeps frozen values apart", partial(properties.exact, key="frozen"), 1, tags=tags("frozen")),
        Property("counts tied parameters once", properties.exact_parameters, 2, tags=tags("tied")),
        Property("counts buffers, and not as parameters", partial(properties.exact, key="buffers"), 1),
    ),
    mistakes=(
        Mistake(
            "tied-twice",
            "a tied parameter counted under each of its names",
            (("model.parameters()", "(p for _, p in model.named_parameters(remove_duplicate=False))"),),
            "Two layers share one tensor, as the embedding and the output layer of many language models do. It "
            "is stored once, updated once and sent once, so it counts once. Walking over names, or over layers "
            "one by one, meets it twice.",
            NOTES + "parameters-and-tied-weights",
        ),
        Mistake(
            "state-dict",
            "buffers counted as parameters",
            (
                (
                    'counts["buffers"] =',
                    'counts["trainable"] += sum(b.numel() for b in model.buffers())\n    counts["buffers"] =',
                ),
            ),
            "state_dict() holds everything that must be saved, running means and batch counters included. These "
            "are no parameters: no gradient reaches them. They do cost bytes, so they are counted, but in their "
            "own place.",
            NOTES + "parameters-and-buffers",
        ),
        Mistake(
            "tensors-not-values",
            "tensors counted instead of their values",
            (("parameter.numel()", "1"),),
            "A model has a few dozen parameter tensors and hundreds of thousands of values in them. What costs "
            "memory is the values: ask each tensor for numel().",
            NOTES + "parameters-and-tied-weights",
        ),
        Mistake(
            "first-dimension",
            "len() of a tensor taken for its number of values",
            (("parameter.numel()", "len(parameter)"),),
            "len() of a tensor is the size of its first dimension only, which is the number of output channels "
            "of a weight. The number of values is the product of all dimensions.",
            NOTES + "parameters-and-tied-weights",
        ),
        Mistake(
            "biases-forgotten",
            "only matrices counted",
            (("in model.parameters():", "in (p for p in model.parameters() if p.ndim > 1):"),),
            "Biases and the scales and shifts of normalization are vectors, and they are parameters like any "
            "other. They are few, which is why nobody notices until two tables disagree.",
            NOTES + "parameters-and-buffers",
        ),
        Mistake(
            "frozen-as-trainable",
            "frozen parameters counted as trainable",
            (('counts["trainable" if parameter.requires_grad else "frozen"]', 'counts["trainable"]'),),
            "A parameter with requires_grad=False gets no gradient and needs no optimizer state. When you "
            "fine-tune a large model on a small machine, that difference decides whether it fits.",
            NOTES + "parameters-and-buffers",
        ),
        Mistake(
            "frozen-dropped",
            "frozen parameters left out",
            (("in model.parameters():", "in (p for p in model.parameters() if p.requires_grad):"),),
            "The usual one-liner sums over parameters that require a gradient. Frozen ones still take memory "
            "and time at inference, so a model does not become smaller by being frozen.",
            NOTES + "parameters-and-buffers",
        ),
        Mistake(
            "top-level-only",
            "layers inside nested containers missed",
            (("model.parameters()", "(p for layer in model for p in layer.parameters(recurse=False))"),),
            "Iterating over an nn.Sequential yields its direct children. A child may be a container again; "
            "parameters() and modules() go all the way down.",
            NOTES + "parameters-and-tied-weights",
        ),
        Mistake(
            "bytes-not-values",
            "bytes counted instead of values",
            (("parameter.numel()", "parameter.numel() * parameter.element_size()"),),
            "You multiplied by the bytes of a value. That is the size in memory; the number of parameters does "
            "not depend on the precision in which they are stored.",
            NOTES + "parameters-and-buffers",
        ),
    ),
    alternatives=(
        Alternative(
            "by identity over all modules",
            """
def count_params(model):
    seen, counts = set(), {"trainable": 0, "frozen": 0, "buffers": 0}
    for layer in model.modules():
        for p in layer._parameters.values():
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                counts["trainable" if p.requires_grad else "frozen"] += math.prod(p.shape)
        for b in layer._buffers.values():
            counts["buffers"] += 0 if b is None else math.prod(b.shape)
    return counts
""",
        ),
    ),
)


# 2 conv_macs


def convolution_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("conv_macs", seed, visible)
    top = 12 if visible else 60

    def channels() -> int:
        return rng.randint(3, top)

    def side() -> int:
        return rng.randint(9, 9 + top)

    cases = []
    for i in range(2):
        n = side()
        cases.append(Case(f"square {i}", (channels(), channels(), (3, 3), (n, n)), tags=tags("plain")))
        shape = (side(), side() + 30)
        cases.append(
            Case(f"wide image {i}", (channels(), channels(), (3, 3), shape, 1, 1), tags=tags("plain", "padding"))
        )
        cases.append(Case(f"flat kernel {i}", (channels(), channels(), (1, 5 + 2 * i), shape), tags=tags("plain")))
        even, odd = 2 * rng.randint(5, top), 2 * rng.randint(5, top) + 1
        strided = {"stride": 2, "padding": 1}
        cases.append(Case(f"stride 2 {i}", (channels(), channels(), (3, 3), (even, odd)), strided, tags("stride")))
        strided = {"stride": 3, "padding": 2}
        cases.append(Case(f"stride 3 {i}", (channels(), channels(), (5, 4), (odd, even)), strided, tags("stride")))
        groups = rng.randint(2, 4)
        grouped = {"padding": 1, "groups": groups}
        cases.append(
            Case(
                f"groups {i}", (groups * channels(), groups * channels(), (3, 3), (even, even)), grouped, tags("groups")
            )
        )
        depth = channels()
        cases.append(
            Case(f"depthwise {i}", (depth, depth, (3, 3), (odd, even)), {"padding": 1, "groups": depth}, tags("groups"))
        )
    return cases


CONV_MACS = Exercise(
    name="conv_macs",
    points=5,
    difficulty=1,
    cases=convolution_cases,
    properties=(
        Property("stride 1, any kernel and image", properties.exact, 2, tags=tags("plain")),
        Property("stride and padding set the output size", properties.exact, 2, tags=tags("stride", "padding")),
        Property("groups share the input channels out", properties.exact, 1, tags=tags("groups")),
    ),
    mistakes=(
        Mistake(
            "flops",
            "FLOPs instead of MACs",
            (("return out_channels", "return 2 * out_channels"),),
            "One multiply-accumulate is one multiplication and one addition: two FLOPs. You counted FLOPs. Both "
            "are fine as long as the unit is said; this lab counts MACs, and halving somebody else's number is "
            "not a speed-up.",
            NOTES + "macs-vs-flops",
        ),
        Mistake(
            "input-size",
            "input positions counted instead of output positions",
            (
                ("(size[0] + 2 * padding - kernel[0]) // stride + 1", "size[0]"),
                ("(size[1] + 2 * padding - kernel[1]) // stride + 1", "size[1]"),
            ),
            "The kernel is applied once for each value of the *output*. With stride 2 there are a quarter as "
            "many of these as of input positions, which is why strided layers are cheap.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "groups-ignored",
            "groups ignored",
            (("in_channels // groups *", "in_channels *"),),
            "With groups, an output channel is connected only to its own group of input channels, in_channels / "
            "groups of them. A depthwise convolution sees a single one: that is the whole point of MobileNet.",
            NOTES + "grouped-convolution",
        ),
        Mistake(
            "groups-twice",
            "groups divided out twice",
            (("return out_channels", "return out_channels // groups"),),
            "Both the input and the output channels fall into groups, but there are `groups` such blocks to "
            "compute, so one of the two divisions cancels. Count for one output value first, then multiply by "
            "all output values.",
            NOTES + "grouped-convolution",
        ),
        Mistake(
            "square-kernel",
            "the kernel taken for square",
            (("* kernel[0] * kernel[1]", "* kernel[0] ** 2"),),
            "The kernel may be 1 x 5. Its work is height times width; only for square kernels is that the "
            "square of one side.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "kernel-once",
            "kernel side instead of kernel area",
            (("* kernel[0] * kernel[1]", "* kernel[0]"),),
            "A 3 x 3 kernel multiplies nine values per input channel, not three.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "padding-once",
            "padding added at one side only",
            (("size[0] + 2 * padding", "size[0] + padding"), ("size[1] + 2 * padding", "size[1] + padding")),
            "padding=1 adds a row above *and* below, a column left *and* right: the padded size is the size "
            "plus twice the padding.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "off-by-one",
            "one output row and column short",
            (
                ("kernel[0]) // stride + 1", "kernel[0]) // stride"),
                ("kernel[1]) // stride + 1", "kernel[1]) // stride"),
            ),
            "A kernel as large as the padded image fits exactly once: the number of positions is the room that "
            "is left, divided by the stride, plus one.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "rounded-up",
            "output size rounded up",
            (
                ("(size[0] + 2 * padding - kernel[0]) // stride", "-(-(size[0] + 2 * padding - kernel[0]) // stride)"),
                ("(size[1] + 2 * padding - kernel[1]) // stride", "-(-(size[1] + 2 * padding - kernel[1]) // stride)"),
            ),
            "When the stride does not divide the room that is left, the last step would put the kernel over the "
            "edge, so it is not taken. The output size is rounded down.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "square-image",
            "the image taken for square",
            (("(size[1] + 2 * padding - kernel[1])", "(size[0] + 2 * padding - kernel[1])"),),
            "Height and width of an image may differ. Compute rows and columns separately.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "bias",
            "the bias counted",
            (
                (
                    "return out_channels * rows * columns * per_value",
                    "return out_channels * rows * columns * (per_value + 1)",
                ),
            ),
            "Adding a bias is an addition without a multiplication, and most convolutions have none because a "
            "batch normalization follows. By the definition of this course it counts nothing.",
            NOTES + "what-counts-as-a-mac",
        ),
    ),
    alternatives=(
        Alternative(
            "by the shape that PyTorch computes",
            """
def conv_macs(in_channels, out_channels, kernel, size, stride=1, padding=0, groups=1):
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, device="meta")
    output = layer(torch.empty(1, in_channels, *size, device="meta"))
    return output.numel() * layer.weight.numel() // out_channels
""",
        ),
    ),
)


# 3 count_macs


def model_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("count_macs", seed, visible)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))

    def size() -> int:
        return rng.randint(2, 5) if visible else rng.randint(3, 9)

    def random_input(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    a, b, c, d = (size() for _ in range(4))
    chain = nn.Sequential(
        nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, c, (1, 3)), nn.ReLU()
    ).eval()
    mlp = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c, bias=False)).eval()
    groups = nn.Sequential(
        nn.Conv2d(2 * a, 2 * a, 3, padding=1, groups=2 * a, bias=False), nn.Conv2d(2 * a, 2 * b, 1, groups=2), nn.ReLU()
    ).eval()
    nested = nn.Sequential()
    nested.add_module("stem", nn.Conv2d(1, a, 3, stride=2))
    nested.add_module(
        "block", nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.Sequential(nn.Conv2d(b, c, 1)))
    )
    nested.add_module("flatten", nn.Flatten())
    nested.add_module("head", nn.Linear(c * 16, d))
    tokens = nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Sequential(nn.Linear(b, a))).eval()
    training = nn.Sequential(nn.Conv2d(a, c, 3), nn.BatchNorm2d(c), nn.Flatten(), nn.Linear(c * 9, b)).train()
    heads = nn.Sequential(nn.LayerNorm(a), nn.Linear(a, b)).eval()
    return [
        Case("convolutions", (chain, random_input(2, a, 9, 12)), tags=tags("conv")),
        Case("linear layers", (mlp, random_input(3, a)), tags=tags("linear")),
        Case("one sample", (mlp, random_input(1, a)), tags=tags("linear")),
        Case("depthwise and grouped", (groups, random_input(2, 2 * a, 6, 7)), tags=tags("conv")),
        Case("nested, batch of 2", (nested.eval(), random_input(2, 1, 9, 9)), tags=tags("nested")),
        Case("nested, batch of 5", (nested.eval(), random_input(5, 1, 9, 9)), tags=tags("nested")),
        Case("linear on tokens", (tokens, random_input(2, 2 * d, a)), tags=tags("tokens", "nested")),
        Case("linear on tokens and heads", (heads, random_input(3, d + 1, 2, a)), tags=tags("tokens")),
        Case("in training mode", (training, random_input(4, a, 5, 5)), tags=tags("conv")),
    ]


COUNT_MACS = Exercise(
    name="count_macs",
    points=12,
    difficulty=2,
    cases=model_cases,
    properties=(
        Property("convolutions: every layer exact", properties.every_layer_exact, 3, tags=tags("conv")),
        Property("linear layers: every layer exact", properties.every_layer_exact, 3, tags=tags("linear")),
        Property("nested layers are found, under their names", properties.every_layer_exact, 3, tags=tags("nested")),
        Property(
            "linear layers on tokens: every position counts", properties.every_layer_exact, 3, tags=tags("tokens")
        ),
    ),
    mistakes=(
        Mistake(
            "batch-counted",
            "the batch counted",
            (("output[0].numel()", "output.numel()"),),
            "The first dimension of the output is the batch. MACs are quoted for one sample, so that a "
            "network's number does not depend on who measured it; the work of a batch is the batch size times "
            "that.",
            NOTES + "batch-size",
        ),
        Mistake(
            "late-binding",
            "all layers recorded under one name",
            (("register_forward_hook(recorder(name))", "register_forward_hook(lambda *a: recorder(name)(*a))"),),
            "A function made in a loop looks its variables up when it is *called*, and by then the loop has "
            "ended: every hook sees the last name. Bind the name when you make the hook, with a function that "
            "returns the hook or a default argument.",
            NOTES + "hooks-and-shapes",
        ),
        Mistake(
            "flops",
            "FLOPs instead of MACs",
            (("output[0].numel() *", "2 * output[0].numel() *"),),
            "One multiply-accumulate is two FLOPs. Some counters print FLOPs under the heading MACs and some "
            "the reverse; compare tools on a layer that you can count by hand before you believe them.",
            NOTES + "macs-vs-flops",
        ),
        Mistake(
            "normalization-counted",
            "batch normalization counted",
            (("(nn.Conv2d, nn.Linear)", "(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)"),),
            "Several popular counters add a MAC for each value that is normalized, and then their totals cannot "
            "be compared with those of papers. At inference a batch norm is folded into the convolution before "
            "it and costs nothing at all.",
            NOTES + "what-counts-as-a-mac",
        ),
        Mistake(
            "weights-not-work",
            "weights counted instead of work",
            (("output[0].numel() * layer.weight[0].numel()", "layer.weight.numel()"),),
            "A linear layer uses each weight once for a sample, so weights and MACs coincide. A convolution "
            "uses the same kernel at every position, and a linear layer on tokens uses its matrix for each "
            "token: weights are shared, work is not.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "tokens-ignored",
            "linear layers counted for one position only",
            (
                (
                    "output[0].numel() * layer.weight[0].numel()",
                    "(1 if isinstance(layer, nn.Linear) else output[0, 0].numel()) * layer.weight.numel()",
                ),
            ),
            "An nn.Linear works on the last dimension and repeats itself over all others. On (batch, tokens, "
            "features) it runs once for each token; in a language model that factor is the context length.",
            NOTES + "linear-macs",
        ),
        Mistake(
            "groups-ignored",
            "groups ignored",
            (
                (
                    "layer.weight[0].numel()",
                    "(layer.weight[0].numel() * getattr(layer, 'groups', 1))",
                ),
            ),
            "An output value of a grouped convolution sees in_channels / groups input channels. The weight's "
            "shape already says so: its second dimension is that quotient.",
            NOTES + "grouped-convolution",
        ),
        Mistake(
            "input-size",
            "input positions counted instead of output positions",
            (
                (
                    "output[0].numel() * layer.weight[0].numel()",
                    "(inputs[0][0].numel() // layer.in_channels * layer.weight.numel() if isinstance(layer, nn.Conv2d) "
                    "else output[0].numel() * layer.weight[0].numel())",
                ),
            ),
            "A kernel is applied once for each position of the *output*, which stride and missing padding make "
            "smaller than the input.",
            NOTES + "conv-macs",
        ),
        Mistake(
            "top-level-only",
            "nested layers missed",
            (("in model.named_modules():", "in model.named_children():"),),
            "named_children() lists the direct children. Real models are containers of containers; "
            "named_modules() visits all of them and joins their names with dots.",
            NOTES + "hooks-and-shapes",
        ),
        Mistake(
            "statistics-disturbed",
            "the model counted in training mode",
            (("copy.deepcopy(model).eval()", "model"),),
            "In training mode a batch norm updates its running statistics at every forward pass, without any "
            "optimizer. Your counting has changed the model: put it into eval mode and back, or count on a "
            "copy.",
            NOTES + "hooks-and-shapes",
        ),
        Mistake(
            "bias-counted",
            "the bias counted",
            (
                (
                    "output[0].numel() * layer.weight[0].numel()",
                    "output[0].numel() * (layer.weight[0].numel() + (layer.bias is not None))",
                ),
            ),
            "A bias is an addition without a multiplication. By the definition of this course it counts nothing.",
            NOTES + "what-counts-as-a-mac",
        ),
    ),
    alternatives=(
        Alternative(
            "walking the chain without hooks",
            """
def count_macs(model, example):
    macs = {}

    def walk(chain, x, prefix):
        for name, layer in chain.named_children():
            if isinstance(layer, nn.Sequential):
                x = walk(layer, x, prefix + name + ".")
                continue
            x = layer(x)
            if isinstance(layer, nn.Linear):
                macs[prefix + name] = x[0].numel() * layer.in_features
            elif isinstance(layer, nn.Conv2d):
                per_value = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
                macs[prefix + name] = math.prod(x.shape[1:]) * per_value
        return x

    with torch.no_grad():
        walk(copy.deepcopy(model).eval(), example[:1], "")
    return macs
""",
        ),
    ),
)


# 4 file_bytes


def file_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("file_bytes", seed, visible)
    top = 12 if visible else 90

    def shape(dimensions: int = 2) -> tuple[int, ...]:
        return tuple(rng.randint(2, top) for _ in range(dimensions))

    def layers(count: int, dtypes: tuple[str, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        names = [f"layer{i}.{'weight' if i % 2 else 'bias'}" for i in range(count)]
        rng.shuffle(names)
        return {name: (rng.choice(dtypes), shape(rng.randint(1, 3))) for name in names}

    cases = [Case(f"float32 {i}", (layers(3 + i, ("F32",)),), tags=tags("float")) for i in range(4)]
    mixed = ("F32", "BF16", "F16", "I8", "U8", "BOOL", "I64", "F64")
    cases += [Case(f"mixed types {i}", (layers(6 + i, mixed),), tags=tags("mixed")) for i in range(3)]
    for i in range(4):
        # Small and large tensors: which comes first decides how many digits the offsets have.
        large = ("F16", (rng.randint(300, 999), 1000 + 7 * i))
        named = {
            "z.counter": ("I64", ()),
            "a.codes": ("U8", shape(3)),
            "m.table": large,
            "b.scale": ("F32", (rng.randint(2, 9),)),
        }
        cases.append(Case(f"offsets of many lengths {i}", (named,), tags=tags("mixed")))
    for i, word in enumerate(("größe", "масштаб", "层", "échelle")):
        cases.append(
            Case(
                f"name beyond ASCII: {word}",
                ({f"{word}.{i}": ("F32", shape()), "bias": ("F32", shape(1))},),
                tags=tags("names"),
            )
        )
    width, depth = rng.choice(((4096, 32), (5120, 40))) if visible else rng.choice(((8192, 80), (2048, 22)))
    for i, dtype in enumerate(("BF16", "U8")):
        big = {f"model.layers.{k}.mlp.weight": (dtype, (width, 3 * width)) for k in range(depth)}
        cases.append(Case(f"billions of weights {i}", ({**big, "norm": ("F32", (width,))},), tags=tags("mixed")))
    return cases


FILE_BYTES = Exercise(
    name="file_bytes",
    points=12,
    difficulty=3,
    cases=file_cases,
    properties=(
        Property("data bytes, every type", partial(properties.exact, key="data"), 4),
        Property("header bytes of float32 files", partial(properties.exact, key="header"), 3, tags=tags("float")),
        Property("header bytes with several types", partial(properties.exact, key="header"), 2, tags=tags("mixed")),
        Property("header bytes of names beyond ASCII", partial(properties.exact, key="header"), 2, tags=tags("names")),
        Property("the total is header and data", partial(properties.parts_add_up, total="total"), 1),
    ),
    mistakes=(
        Mistake(
            "no-padding",
            "the header's padding forgotten",
            (("    length += -length % 8\n", ""),),
            "The header is filled up with spaces to a multiple of 8, so that the data behind it can be mapped "
            "into memory and read without copying. Those bytes are in the file.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "no-length-field",
            "the eight bytes of the length field forgotten",
            (('{"header": 8 + length,', '{"header": length,'), ('"total": 8 + length + end', '"total": length + end')),
            "The file begins with eight bytes that say how long the header is. A ledger that is off by eight "
            "bytes is not a ledger.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "spaces",
            "JSON written with spaces",
            (('separators=(",", ":"), ', ""),),
            "json.dumps puts a space behind each comma and colon unless you tell it otherwise. The format's "
            "writer does not.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "escaped",
            "names beyond ASCII escaped",
            ((", ensure_ascii=False", ""),),
            "json.dumps replaces letters beyond ASCII by escapes of six characters unless ensure_ascii=False. "
            "The file holds them in UTF-8.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "characters-not-bytes",
            "characters counted instead of bytes",
            (("ensure_ascii=False).encode())", "ensure_ascii=False))"),),
            "len() of a string counts characters; in UTF-8 a letter takes one to four bytes. Encode first, then "
            "measure.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "four-bytes-each",
            "every value taken for four bytes",
            (("DTYPES[dtype] * math.prod(shape)", "4 * math.prod(shape)"),),
            "Counting everything at one width is how 495 MiB came to be printed for a file of 660: the tensors "
            "that were left in another type were charged at the wrong price. Ask each tensor for its type.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "bits",
            "bits instead of bytes",
            (("DTYPES[dtype] * math.prod(shape)", "8 * DTYPES[dtype] * math.prod(shape)"),),
            "A byte has eight bits. The table gives bytes, so there is nothing to multiply.",
            NOTES + "bits-and-bytes",
        ),
        Mistake(
            "scalars-forgotten",
            "single values counted as nothing",
            (("DTYPES[dtype] * math.prod(shape)", "DTYPES[dtype] * (math.prod(shape) if shape else 0)"),),
            "A tensor with an empty shape holds one value: the product of no numbers is 1. A batch norm's "
            "counter is such a tensor, eight bytes of it for each layer.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "given-order",
            "tensors laid out in the order given",
            (("sorted(tensors, key=lambda name: (order.index(tensors[name][0]), name))", "tensors"),),
            "The writer orders tensors by type, so that wide values stay aligned, and then by name. The order "
            "decides the offsets, and larger offsets have more digits: the header's length depends on it.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "alphabetical",
            "tensors laid out by name only",
            (("(order.index(tensors[name][0]), name)", "name"),),
            "Types come first, then names: all 8-byte values, then all 4-byte values, and so on, so that every "
            "value is aligned. The order decides the offsets, and larger offsets have more digits.",
            NOTES + "bytes-and-headers",
        ),
        Mistake(
            "header-uncounted",
            "the header left out of the total",
            (('"total": 8 + length + end', '"total": end'),),
            "The total is what the disk and the download see: header and data. For a small model with many "
            "small tensors the header is no trifle.",
            NOTES + "bytes-and-headers",
        ),
    ),
    alternatives=(
        Alternative(
            "text built by hand",
            """
def file_bytes(tensors):
    rank = {dtype: i for i, dtype in enumerate(DTYPES)}
    entries, position = [], 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (rank[item[1][0]], item[0])):
        size = DTYPES[dtype]
        for side in shape:
            size *= side
        dims = ",".join(str(side) for side in shape)
        entries.append(f'"{name}":{{"dtype":"{dtype}","shape":[{dims}],"data_offsets":[{position},{position + size}]}}')
        position += size
    raw = len(("{" + ",".join(entries) + "}").encode("utf-8"))
    head = 8 + (raw + 7) // 8 * 8
    return {"header": head, "data": position, "total": head + position}
""",
        ),
    ),
)


# 5 summarize


def timing_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("summarize", seed, visible)

    def runs(count: int, warmup: int) -> list[float]:
        floor = rng.uniform(0.01, 0.03)
        cold = [floor * rng.uniform(2, 6) for _ in range(warmup)]
        return [round(s, 7) for s in cold + [floor * (1 + rng.lognormvariate(-2, 1)) for _ in range(count)]]

    cases = []
    sizes = ((9, 20), (24, 41)) if visible else ((12, 31), (57, 100))
    for i, (odd, even) in enumerate(sizes):
        cases.append(Case(f"{odd} runs", (runs(odd, 0), 0), tags=tags("ranks")))
        cases.append(Case(f"{even} runs", (runs(even, 0), 0), tags=tags("ranks")))
        warmup = rng.randint(2, 5)
        cases.append(Case(f"{even} runs after {warmup} of warm-up", (runs(even, warmup), warmup), tags=tags("warm-up")))
        cases.append(
            Case(
                f"{odd} runs at {90 - 40 * i} %",
                (runs(odd, 0), 0, (90 - 40 * i) / 100),
                tags=tags("ranks", "confidence"),
            )
        )
        warmup = rng.randint(1, 3)
        few = rng.randint(2, 5)
        cases.append(Case(f"only {few} runs, {i}", (runs(few, warmup), warmup), tags=tags("few")))
    cases.append(Case("exactly 6 runs", (runs(6, 2), 2), tags=tags("ranks", "warm-up")))
    cases.append(Case("exactly 6 runs at 99 %", (runs(6, 0), 0, 0.99), tags=tags("few")))
    return cases


SUMMARIZE = Exercise(
    name="summarize",
    points=12,
    difficulty=3,
    cases=timing_cases,
    properties=(
        Property("reports the median", properties.median_right, 3, tags=tags("ranks", "confidence", "few")),
        Property("drops the warm-up", properties.median_right, 2, tags=tags("warm-up")),
        Property("the interval has the right ranks", properties.interval_right, 5, tags=tags("ranks", "warm-up")),
        Property("says so when there are too few runs", properties.interval_right, 2, tags=tags("few")),
    ),
    mistakes=(
        Mistake(
            "warm-up-kept",
            "the warm-up kept",
            (("seconds[warmup:]", "seconds"),),
            "The first runs allocate memory, choose kernels and fill caches. They answer how long a cold start "
            "takes, a fair question, but another one; mixed in, they pull every number upward.",
            NOTES + "warm-up",
        ),
        Mistake(
            "fastest-dropped",
            "sorted before the warm-up was dropped",
            (("sorted(seconds[warmup:])", "sorted(seconds)[warmup:]"),),
            "You sorted first, so what you dropped are the *fastest* runs. The warm-up is the first runs in "
            "time: cut, then sort.",
            NOTES + "warm-up",
        ),
        Mistake(
            "mean",
            "the mean instead of the median",
            (("statistics.median(kept)", "statistics.fmean(kept)"),),
            "Run times have a floor and a long tail. One interruption by the operating system moves the mean of "
            "twenty runs as far as it likes; the median does not notice.",
            NOTES + "timing-medians",
        ),
        Mistake(
            "best-run",
            "the fastest run instead of the median",
            (("statistics.median(kept)", "kept[0]"),),
            "The minimum says how fast the machine can be when nothing disturbs it, and it falls the longer you "
            "try. That is a useful number, but nobody who uses your code will see it; the question here is the "
            "typical run.",
            NOTES + "timing-medians",
        ),
        Mistake(
            "unsorted",
            "ranks taken in time order",
            (("sorted(seconds[warmup:])", "seconds[warmup:]"),),
            "The j-th fastest run is the j-th of the *sorted* times. In the order of time, position j is just "
            "some run.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "rank-off-by-one",
            "ranks one too far inside",
            (("kept[rank - 1], kept[n - rank]", "kept[rank], kept[n - rank - 1]"),),
            "The j-th of n sorted runs has index j - 1, and the j-th from above has index n - j. One step too "
            "far inside makes the interval prettier and its confidence false: with 20 runs it falls from 95.9 "
            "to 88.5 %.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "one-tail",
            "only one tail counted",
            (("1 - 2 * tail < confidence", "1 - tail < confidence"),),
            "The true median can lie below the interval or above it, so both tails are missed. Counting one of "
            "them makes the interval too narrow: what you call 95 % is 90 %.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "range-pretended",
            "an interval given though there are too few runs",
            (("(0.0, math.inf)", "(kept[0], kept[-1])"),),
            "With five runs, the fastest and the slowest enclose the true median with 93.75 %, not 95. No pair "
            "of them can do it; the honest answer is that you do not know. Run it once more.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "normal-interval",
            "mean and standard error, as if the times were normal",
            (
                (
                    "(kept[rank - 1], kept[n - rank]) if rank",
                    "tuple(statistics.fmean(kept) + side * statistics.NormalDist().inv_cdf((1 + confidence) / 2) "
                    "* statistics.stdev(kept) / math.sqrt(n) for side in (-1, 1)) if rank",
                ),
            ),
            "Mean plus or minus 1.96 standard errors is an interval for the mean of a bell curve. Times are "
            "skewed: this interval is stretched by outliers, may reach below the floor, and speaks about a "
            "number that you did not report.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "spread",
            "the spread of the runs instead of the interval of their median",
            (
                (
                    "(kept[rank - 1], kept[n - rank]) if rank",
                    "(kept[int(n * (1 - confidence) / 2)], kept[n - 1 - int(n * (1 - confidence) / 2)]) if rank",
                ),
            ),
            "95 % of the *runs* lie in that interval. The question is where the *median* lies, and that is "
            "known better the more runs you have, while the spread of the runs stays as it is.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "confidence-ignored",
            "always 95 %",
            (("1 - 2 * tail < confidence", "1 - 2 * tail < 0.95"),),
            "The confidence is an argument: an interval of 50 % is narrower, one of 99 % is wider.",
            NOTES + "confidence-interval",
        ),
    ),
    alternatives=(
        Alternative(
            "cumulative counts with NumPy",
            """
def summarize(seconds, warmup, confidence=0.95):
    import numpy as np

    x = np.sort(np.asarray(seconds, dtype=np.float64)[warmup:])
    n = len(x)
    covered = {j: 1 - 2 * sum(math.comb(n, i) for i in range(j)) / 2**n for j in range(1, n // 2 + 1)}
    good = [j for j, c in covered.items() if c >= confidence]
    if not good:
        return 0.0, float(np.median(x)), math.inf
    j = max(good)
    return float(x[j - 1]), float(np.median(x)), float(x[-j])
""",
        ),
    ),
)


# 6 linear_roofline


def roofline_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("linear_roofline", seed, visible)
    cases = []
    for i in range(2 if visible else 4):
        n_in, n_out = (rng.randrange(64, 4096, 8) for _ in range(2))
        peak, bandwidth = rng.uniform(20e9, 400e9), rng.uniform(5e9, 60e9)
        for batch, weight_bytes in ((1, 4.0), (1, 0.5), (rng.randint(2, 12), 2.0), (rng.randint(300, 900), 1.0)):
            name = f"layer {i}, batch {batch}, {weight_bytes:g} bytes a weight"
            cases.append(Case(name, (batch, n_in, n_out, weight_bytes, peak, bandwidth)))
    for i, scale in enumerate((4, 32) if visible else (8, 128, 512)):
        # 2 b n^2 FLOP on 4 n^2 + 8 b n bytes is 1/4 FLOP a byte for b = n, w = 0: exact in binary.
        cases.append(
            Case(f"on the ridge {i}", (scale, scale, scale, 4.0, scale * 2.0**30, 6 * 2.0**30), tags=tags("ridge"))
        )
    return cases


LINEAR_ROOFLINE = Exercise(
    name="linear_roofline",
    points=8,
    difficulty=2,
    cases=roofline_cases,
    properties=(
        Property("arithmetic intensity in FLOP per byte", partial(properties.close, key="intensity"), 2),
        Property("stays below both roofs", properties.below_both_roofs, 1),
        Property("attainable FLOP/s", partial(properties.close, key="attainable"), 2),
        Property("time at best", partial(properties.close, key="seconds"), 2),
        Property("names what it waits for", partial(properties.same_word, key="bound"), 1),
    ),
    mistakes=(
        Mistake(
            "macs",
            "MACs instead of FLOPs",
            (("flops = 2 * batch", "flops = batch"),),
            "The machine's peak is in FLOP/s, so the work must be in FLOP: two for each MAC. Mixing the two "
            "shifts every dot on the roofline by a factor of two.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "weights-per-sample",
            "weights read again for each sample",
            (("n_in * n_out * weight_bytes", "batch * n_in * n_out * weight_bytes"),),
            "The samples of a batch share the weights: they are read once. This is why batching turns a "
            "memory-bound layer into a compute-bound one.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "activations-forgotten",
            "only the weights counted as traffic",
            ((" + 4 * batch * (n_in + n_out)", ""),),
            "Inputs are read and outputs are written. For one sample they are nothing beside the weights; for a "
            "large batch they are most of the traffic.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "outputs-forgotten",
            "the outputs not counted as traffic",
            (("(n_in + n_out)", "n_in"),),
            "Writing a result moves bytes as reading an input does.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "quantized-activations",
            "inputs and outputs counted at the weights' width",
            (("+ 4 * batch", "+ weight_bytes * batch"),),
            "Only the weights are stored in few bits; inputs and outputs are float32 here, 4 bytes each.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "inverted",
            "bytes per FLOP",
            (("flops / moved", "moved / flops"),),
            "Arithmetic intensity is work per byte: FLOP divided by bytes. A high value means that each byte "
            "that arrives is used often.",
            NOTES + "arithmetic-intensity",
        ),
        Mistake(
            "higher-roof",
            "the higher of the two roofs",
            (("min(peak_flops,", "max(peak_flops,"),),
            "An operation needs both its arithmetic and its data, so the *slower* of the two limits it: the "
            "lower roof.",
            NOTES + "roofline",
        ),
        Mistake(
            "roofs-added",
            "arithmetic and memory one after the other",
            (
                (
                    "min(peak_flops, intensity * peak_bandwidth)",
                    "1 / (1 / peak_flops + 1 / (intensity * peak_bandwidth))",
                ),
            ),
            "You added the two times. A processor computes on one piece of data while the next is on its way, "
            "so at best the longer of the two times counts, not their sum.",
            NOTES + "roofline",
        ),
        Mistake(
            "memory-only",
            "the arithmetic peak forgotten",
            (("min(peak_flops, intensity * peak_bandwidth)", "intensity * peak_bandwidth"),),
            "The slanted roof ends at the ridge. Beyond it more data reuse does not help, because the "
            "arithmetic units are busy.",
            NOTES + "roofline",
        ),
        Mistake(
            "bound-flipped",
            "memory and compute swapped",
            (('"memory" if intensity <', '"memory" if intensity >'),),
            "Left of the ridge, at low intensity, data arrive too slowly: memory-bound. Right of it the "
            "arithmetic is the limit.",
            NOTES + "ridge-point",
        ),
        Mistake(
            "tie",
            "the ridge itself taken for memory-bound",
            (('"memory" if intensity <', '"memory" if intensity <='),),
            "Exactly on the ridge both roofs are equal and the peak is reached. The contract calls that compute-bound.",
            NOTES + "ridge-point",
        ),
    ),
    alternatives=(
        Alternative(
            "by comparing times",
            """
def linear_roofline(batch, n_in, n_out, weight_bytes, peak_flops, peak_bandwidth):
    work = 2 * batch * n_in * n_out
    traffic = weight_bytes * n_in * n_out + 4 * (batch * n_in + batch * n_out)
    computing, waiting = work / peak_flops, traffic / peak_bandwidth
    seconds = max(computing, waiting)
    bound = "memory" if waiting > computing else "compute"
    return {"intensity": work / traffic, "attainable": work / seconds, "seconds": seconds, "bound": bound}
""",
        ),
    ),
)


# 7 energy


def energy_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("energy", seed, visible)
    other: dict[str, Any] = {
        "mult": {"int8": 0.07, "int32": 1.5, "fp16": 0.34, "fp32": 1.31},
        "add": {"int8": 0.007, "int32": 0.03, "fp16": 0.16, "fp32": 0.38},
        "accumulator": {"int8": "int32", "int32": "int32", "fp16": "fp16", "fp32": "fp32"},
        "access": {"sram 8 KB": 7.5, "sram 32 KB": 8.5, "sram 1 MB": 14.0, "dram": 1300.0},
        "word_bits": 32,
    }
    cases = []
    levels = list(HOROWITZ45["access"])
    for i, (label, table) in enumerate((("45 nm", HOROWITZ45), ("another process", other))):
        for dtype in ("fp32", "int8", "fp16", "int32"):
            n = rng.randint(1, 9) * 10**6 + rng.randrange(10**6) * (not visible)
            chosen = rng.sample(levels, 1 + (i + len(cases)) % 3)
            traffic = {level: 8 * rng.randint(10**4, 10**6) for level in chosen}
            cases.append(Case(f"{dtype}, {label}", (n, dtype, traffic, table), tags=tags(label, dtype)))
    cases.append(Case("no memory traffic", (rng.randint(10**6, 10**7), "int8", {}, HOROWITZ45), tags=tags("45 nm")))
    return cases


ENERGY = Exercise(
    name="energy",
    points=8,
    difficulty=2,
    cases=energy_cases,
    properties=(
        Property("arithmetic: a multiplication and an addition", partial(properties.close, key="mac"), 3),
        Property(
            "memory: each level at its own price per word",
            properties.levels_close,
            3,
            tags=tags("fp32", "int8", "fp16", "int32"),
        ),
        Property("the total is the sum of its parts", properties.total_of_parts, 2),
    ),
    mistakes=(
        Mistake(
            "multiplication-only",
            "the additions forgotten",
            ((' + table["add"][table["accumulator"][dtype]]', ""),),
            "A multiply-accumulate multiplies *and* adds. In float the addition is a fifth of it; in int8 the "
            "32-bit addition is a third.",
            NOTES + "energy-per-mac",
        ),
        Mistake(
            "narrow-accumulator",
            "products added in the type of the operands",
            (('table["add"][table["accumulator"][dtype]]', 'table["add"][dtype]'),),
            "Two int8 values multiply to 16 bits and a thousand such products need 26, so hardware adds them in "
            "int32. An addition in int8 would be cheap, and wrong.",
            NOTES + "energy-per-mac",
        ),
        Mistake(
            "flops",
            "two multiplications and two additions for each MAC",
            (('"mac": macs * per_mac', '"mac": 2 * macs * per_mac'),),
            "You turned MACs into FLOPs and then charged each of them for a multiplication and an addition. A "
            "MAC is one of either.",
            NOTES + "macs-vs-flops",
        ),
        Mistake(
            "word-per-byte",
            "the price of a word charged for each byte",
            (('8 * moved / table["word_bits"]', "moved"),),
            "The table's price buys a whole word. Eight bytes cost 1280 pJ from DRAM, not one; this factor is "
            "in many published energy estimates.",
            NOTES + "energy-of-data-movement",
        ),
        Mistake(
            "word-per-bit",
            "the price of a word charged for each bit",
            (('8 * moved / table["word_bits"]', "8 * moved"),),
            "The table's price buys a whole word of word_bits bits. Divide the bits that you move by that.",
            NOTES + "energy-of-data-movement",
        ),
        Mistake(
            "bytes-as-bits",
            "bytes divided by the bits of a word",
            (('8 * moved / table["word_bits"]', 'moved / table["word_bits"]'),),
            "Traffic is in bytes and the word is in bits: eight bits make a byte. You charge an eighth.",
            NOTES + "bits-and-bytes",
        ),
        Mistake(
            "everything-from-dram",
            "every level charged like DRAM",
            (('table["access"][level]', 'table["access"]["dram"]'),),
            "A word from a small cache costs a hundredth of a word from DRAM. This ratio is the reason for "
            "caches, for tiling, and for making networks fit on the chip.",
            NOTES + "memory-hierarchy",
        ),
        Mistake(
            "nanojoules",
            "picojoules turned into nanojoules",
            (("value / 1e6", "value / 1e3"),),
            "A picojoule is 10^-12 J and a microjoule 10^-6 J: a million of the one make the other.",
            NOTES + "energy-of-data-movement",
        ),
        Mistake(
            "arithmetic-not-in-total",
            "the total without the arithmetic",
            (("sum(picojoules.values())", 'sum(picojoules.values()) - picojoules["mac"]'),),
            "The battery pays for both. Data movement dominates in float32, but with int8 weights on the chip "
            "the arithmetic is most of the bill.",
            NOTES + "memory-hierarchy",
        ),
        Mistake(
            "another-table",
            "the table's numbers written into the code",
            (("    per_mac =", "    table = HOROWITZ45\n    per_mac ="),),
            "The table is an argument because processes differ: at 7 nm arithmetic costs a third of what it "
            "costs at 45 nm, and DRAM as much as ever. Use the table that you are given.",
            NOTES + "energy-of-data-movement",
        ),
    ),
    alternatives=(
        Alternative(
            "joules first",
            """
def energy(macs, dtype, traffic, table):
    pico, micro = 1e-12, 1e6
    wide = table["accumulator"][dtype]
    bill = {"mac": micro * pico * macs * (table["add"][wide] + table["mult"][dtype])}
    word_bytes = table["word_bits"] / 8
    bill |= {level: micro * pico * table["access"][level] * count / word_bytes for level, count in traffic.items()}
    return {**bill, "total": math.fsum(bill.values())}
""",
        ),
    ),
)


# 8 decode_bound


def decode_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("decode_bound", seed, visible)

    def model() -> int:
        return rng.randint(5, 80) * 10**8 + rng.randrange(10**7)

    def speed() -> float:
        return float(rng.randint(8, 90) if visible else rng.randint(30, 1000))

    cases = []
    for i in range(2):
        # Whole groups: the number of weights is a multiple of every group size.
        params = model() // 256 * 256
        cases.append(Case(f"16 bits, {i}", (model(), 16, speed()), tags=tags("plain")))
        cases.append(Case(f"4 bits, {i}", (params, 4, speed()), tags=tags("plain")))
        cases.append(Case(f"3 bits in groups of 128, {i}", (params, 3, speed()), {"group": 128}, tags("scales")))
        wide = {"group": rng.choice((32, 64)), "scale_bits": rng.choice((8, 32))}
        cases.append(Case(f"4 bits, other scales, {i}", (params, 4, speed()), wide, tags("scales")))
        kept = {"group": 64, "kept_fp16": rng.randint(10**8, 5 * 10**8)}
        cases.append(Case(f"embeddings kept, {i}", (params, 4, speed()), kept, tags("kept")))
        cache = {"kv_bytes": rng.choice((2**17, 2**18, 2**19)), "context": rng.randint(500, 8000)}
        cases.append(Case(f"long context, {i}", (params, 4, speed()), cache, tags("cache")))
        batch = {**cache, "batch": rng.randint(2, 16)}
        cases.append(Case(f"batch of {batch['batch']}, {i}", (params, 4, speed()), batch, tags("batch")))
        cases.append(Case(f"batch without a cache, {i}", (params, 8, speed()), {"batch": 3 + i}, tags("batch")))
    return cases


DECODE_BOUND = Exercise(
    name="decode_bound",
    points=7,
    difficulty=2,
    cases=decode_cases,
    properties=(
        Property("bandwidth divided by the bytes of the weights", properties.close, 2, tags=tags("plain")),
        Property("scales are read too", properties.close, 2, tags=tags("scales")),
        Property("so are weights that were not quantized", properties.close, 1, tags=tags("kept")),
        Property("so is the cache, of the whole context", properties.close, 1, tags=tags("cache")),
        Property("a batch shares weights, not the cache", properties.close, 1, tags=tags("batch")),
    ),
    mistakes=(
        Mistake(
            "bits-as-bytes",
            "bits taken for bytes",
            (("params * bits / 8", "params * bits"),),
            "Four bits are half a byte. A 7B in 4 bits is 3.5 GB; you read 28.",
            NOTES + "bits-and-bytes",
        ),
        Mistake(
            "scales-forgotten",
            "the scales forgotten",
            (("weights = params * bits / 8 + scales +", "weights = params * bits / 8 +"),),
            "Each group's scale is read with its weights. With 16 bits for each group of 64 that is a quarter "
            'of a bit for each weight: "4 bits" are 4.25, and in groups of 32 they are 4.5.',
            NOTES + "scales-and-overhead",
        ),
        Mistake(
            "scale-per-weight",
            "a scale for each weight",
            (("params / group * scale_bits", "params * scale_bits"),),
            "One scale serves a whole group; that is what groups are for. Divide the number of weights by the "
            "group size.",
            NOTES + "scales-and-overhead",
        ),
        Mistake(
            "scale-bits-as-bytes",
            "the scales' bits taken for bytes",
            (("* scale_bits / 8 if", "* scale_bits if"),),
            "scale_bits are bits: a float16 scale takes two bytes.",
            NOTES + "bits-and-bytes",
        ),
        Mistake(
            "embeddings-quantized",
            "unquantized weights counted at the quantized width",
            (("2 * kept_fp16", "kept_fp16 * bits / 8"),),
            "These weights were left at 16 bits, and they are charged at 16 bits. Counting them at the "
            "quantized width is the error behind a published 495 MiB that were 660.",
            NOTES + "scales-and-overhead",
        ),
        Mistake(
            "kept-forgotten",
            "unquantized weights forgotten",
            ((" + 2 * kept_fp16", ""),),
            "The layers that were left in float16 are read for each token like all others. In a small model "
            "with a large vocabulary they can be most of the bytes.",
            NOTES + "scales-and-overhead",
        ),
        Mistake(
            "cache-forgotten",
            "the cache of keys and values forgotten",
            (("(weights + cache)", "weights"),),
            "Each new token attends to all earlier ones, so their keys and values are read at every step. At "
            "long contexts the cache outweighs the weights.",
            NOTES + "kv-cache-traffic",
        ),
        Mistake(
            "one-cached-token",
            "only one token of the cache read",
            (("cache = batch * context * kv_bytes", "cache = batch * kv_bytes"),),
            "kv_bytes is the cache of one token, and a step reads that of the whole context.",
            NOTES + "kv-cache-traffic",
        ),
        Mistake(
            "cache-shared",
            "one cache for the whole batch",
            (("cache = batch * context", "cache = context"),),
            "The sequences of a batch share the weights, but each has its own past. That is why long contexts "
            "eat the gain of batching.",
            NOTES + "kv-cache-traffic",
        ),
        Mistake(
            "batch-not-counted",
            "steps instead of tokens",
            (("return batch * bandwidth", "return bandwidth"),),
            "One step of a batch produces one token for each of its sequences. You counted steps per second; "
            "the throughput is batch times that.",
            NOTES + "decode-bound",
        ),
        Mistake(
            "gibibytes",
            "GB taken for GiB",
            (("bandwidth * 1e9", "bandwidth * 2**30"),),
            "Bandwidths are quoted in 10^9 bytes per second, memory sizes often in 2^30 bytes. The two differ "
            "by 7 %, and by 10 % for tera.",
            NOTES + "gb-vs-gib",
        ),
        Mistake(
            "seconds-per-token",
            "seconds per token",
            (
                (
                    "return batch * bandwidth * 1e9 / (weights + cache)",
                    "return (weights + cache) / (batch * bandwidth * 1e9)",
                ),
            ),
            "Bytes divided by bytes per second are seconds: the time of a token. Its inverse is the speed.",
            NOTES + "decode-bound",
        ),
    ),
    alternatives=(
        Alternative(
            "bits per weight first",
            """
def decode_bound(params, bits, bandwidth, *, group=0, scale_bits=16, kept_fp16=0, kv_bytes=0, context=0, batch=1):
    per_weight = bits + (scale_bits / group if group > 0 else 0.0)
    gigabytes = (params * per_weight + 16 * kept_fp16) / 8e9 + batch * context * kv_bytes / 1e9
    steps_per_second = bandwidth / gigabytes
    return steps_per_second * batch
""",
        ),
    ),
)


# 9 believable


def report_cases(seed: int, visible: bool) -> list[Case]:
    rng = rng_of("believable", seed, visible)
    count = 3 if visible else 8
    cases = [Case(f"honest {i}", (_honest(rng, i),), tags=tags("honest")) for i in range(2 * count)]
    for kind, spoil in BROKEN.items():
        for i in range(count):
            report = _honest(rng, i)
            spoil(report, rng)
            cases.append(Case(f"{kind} {i}", (report,), tags=tags(kind)))
    rng.shuffle(cases)
    return cases


def _honest(rng: random.Random, i: int) -> dict[str, Any]:
    """A report that `believable` must accept; every third is limited by arithmetic and memory alike."""
    peak, bandwidth = rng.uniform(20e9, 400e9), rng.uniform(5e9, 60e9)
    computing = rng.uniform(0.01, 0.5)
    waiting = computing * (1.0 if i % 3 == 0 else rng.choice((rng.uniform(0.02, 0.3), rng.uniform(3, 30))))
    report: dict[str, Any] = {
        "flops": int(computing * peak),
        "bytes": int(waiting * bandwidth),
        "peak_flops": peak,
        "peak_bandwidth": bandwidth,
    }
    slack = 1.05 if i % 2 else rng.uniform(1.2, 6.0)
    return _measured(report, rng, max(computing, waiting) * slack)


def _measured(report: dict[str, Any], rng: random.Random, floor: float) -> dict[str, Any]:
    seconds = [floor * (1 + rng.lognormvariate(-2.0, 0.8)) for _ in range(rng.randint(20, 40))]
    report["seconds"] = seconds
    return _claimed(report, rng)


def _claimed(report: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Add the claims of an honest reporter."""
    ordered = sorted(report["seconds"])
    n, rank, tail = len(ordered), 0, 0.0
    while True:
        tail += math.comb(n, rank) / 2**n
        if 1 - 2 * tail < 0.95:
            break
        rank += 1
    report["median"] = _digits(statistics.median(ordered))
    report["interval"] = (_digits(ordered[rank - 1]), _digits(ordered[n - rank]))
    report["doubled"] = _digits(report["median"] * rng.uniform(1.7, 2.3))
    return report


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _roof(report: dict[str, Any]) -> tuple[float, float]:
    return report["flops"] / report["peak_flops"], report["bytes"] / report["peak_bandwidth"]


def _clock_stopped_early(report: dict[str, Any], rng: random.Random) -> None:
    """Only the launch was timed: faster than the arithmetic units, though the data could have arrived."""
    report["bytes"] = int(0.01 * report["bytes"] * _roof(report)[0] / _roof(report)[1])
    _measured(report, rng, _roof(report)[0] * rng.uniform(0.05, 0.4))


def _data_never_read(report: dict[str, Any], rng: random.Random) -> None:
    """The weights stayed in a cache: faster than memory, though not than the arithmetic units."""
    report["flops"] = int(0.01 * report["flops"] * _roof(report)[1] / _roof(report)[0])
    _measured(report, rng, _roof(report)[1] * rng.uniform(0.05, 0.4))


def _some_runs_skipped(report: dict[str, Any], rng: random.Random) -> None:
    """A few runs found their result in a cache; the median does not show it."""
    for k in rng.sample(range(len(report["seconds"])), 3):
        report["seconds"][k] = max(_roof(report)) * rng.uniform(0.001, 0.1)
    _claimed(report, rng)


def _work_skipped(report: dict[str, Any], rng: random.Random) -> None:
    """Twice the work takes the same time."""
    report["doubled"] = _digits(report["median"] * rng.uniform(0.95, 1.1))


def _blows_up(report: dict[str, Any], rng: random.Random) -> None:
    """Twice the work takes many times as long: the two were not measured in the same way."""
    report["doubled"] = _digits(report["median"] * rng.uniform(4.0, 9.0))


def _best_sold(report: dict[str, Any], rng: random.Random) -> None:
    report["median"] = _digits(min(report["seconds"]))
    report["doubled"] = _digits(report["median"] * rng.uniform(1.8, 2.2))


def _mean_sold(report: dict[str, Any], rng: random.Random) -> None:
    report["median"] = _digits(statistics.fmean(report["seconds"]) * 1.02)


def _narrow_interval(report: dict[str, Any], rng: random.Random) -> None:
    """The interval of a mean that would have ten times as many runs."""
    reach = 0.02 * report["median"]
    report["interval"] = (_digits(report["median"] - reach), _digits(report["median"] + reach))


def _range_as_interval(report: dict[str, Any], rng: random.Random) -> None:
    report["interval"] = (_digits(min(report["seconds"])), _digits(max(report["seconds"])))


def _lower_end_lifted(report: dict[str, Any], rng: random.Random) -> None:
    low, high = report["interval"]
    report["interval"] = (_digits((low + report["median"]) / 2), high)


def _runs_copied(report: dict[str, Any], rng: random.Random) -> None:
    """The same runs twice: twice as many, and a narrower interval."""
    report["seconds"] = report["seconds"] * 2
    rng.shuffle(report["seconds"])
    _claimed(report, rng)


BROKEN = {
    "faster than the arithmetic": _clock_stopped_early,
    "faster than the memory": _data_never_read,
    "some runs too fast": _some_runs_skipped,
    "twice the work in the same time": _work_skipped,
    "twice the work in many times the time": _blows_up,
    "best run sold as typical": _best_sold,
    "mean sold as median": _mean_sold,
    "interval too narrow": _narrow_interval,
    "range sold as interval": _range_as_interval,
    "one end of the interval moved": _lower_end_lifted,
    "runs copied": _runs_copied,
}

BELIEVABLE = Exercise(
    name="believable",
    points=12,
    difficulty=3,
    cases=report_cases,
    properties=(
        Property(
            "accepts every honest report", partial(properties.judged, right=True), 0, gate=True, tags=tags("honest")
        ),
        *(Property(f"rejects: {kind}", partial(properties.judged, right=False), tags=tags(kind)) for kind in BROKEN),
    ),
    mistakes=(
        Mistake(
            "arithmetic-only",
            "only the arithmetic roof checked",
            (
                (
                    'max(report["flops"] / report["peak_flops"], report["bytes"] / report["peak_bandwidth"])',
                    'report["flops"] / report["peak_flops"]',
                ),
            ),
            "A run can be possible for the arithmetic units and impossible for the memory, for example when the "
            "weights stayed in a cache because the benchmark used the same input each time. Hold the times "
            "against both roofs.",
            NOTES + "roofline",
        ),
        Mistake(
            "memory-only",
            "only the memory roof checked",
            (
                (
                    'max(report["flops"] / report["peak_flops"], report["bytes"] / report["peak_bandwidth"])',
                    'report["bytes"] / report["peak_bandwidth"]',
                ),
            ),
            "A clock that stops when the work has been *launched* reports times that no arithmetic unit can "
            "reach. Hold the times against both roofs.",
            NOTES + "roofline",
        ),
        Mistake(
            "roofs-added",
            "honest reports rejected: the two roofs added",
            (
                (
                    'max(report["flops"] / report["peak_flops"], report["bytes"] / report["peak_bandwidth"])',
                    '(report["flops"] / report["peak_flops"] + report["bytes"] / report["peak_bandwidth"])',
                ),
            ),
            "Computing and loading overlap, so an honest kernel may be as fast as the longer of the two times. "
            "A test that rejects what is right is worse than no test.",
            NOTES + "roofline",
        ),
        Mistake(
            "claim-only",
            "only the claimed median held against the roofline",
            (('min(report["seconds"]) >= floor', 'report["median"] >= floor'),),
            "If a few runs return a cached result, the median hides them. Each run must be possible, so look at "
            "the fastest.",
            NOTES + "honest-benchmarks",
        ),
        Mistake(
            "median-unchecked",
            "the claimed median not compared with the runs",
            (
                (
                    'claims = (report["interval"][0], report["median"], report["interval"][1])',
                    'claims = (report["interval"][0], summarize(report["seconds"], 0)[1], report["interval"][1])',
                ),
            ),
            "The runs are in the report: compute the median yourself. The best run or the mean under the name "
            "of the median is the most common way to flatter a benchmark.",
            NOTES + "honest-benchmarks",
        ),
        Mistake(
            "interval-unchecked",
            "the interval only required to enclose the median",
            (
                (
                    "all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(claims, honest, strict=True))",
                    "claims[0] <= claims[1] <= claims[2] and math.isclose(claims[1], honest[1], rel_tol=1e-3)",
                ),
            ),
            "Any interval around the median passes that. An error bar that is too narrow claims a precision "
            "that nobody measured: compute it from the runs.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "upper-end-only",
            "only the upper end of the interval checked",
            (("zip(claims, honest, strict=True)", "zip(claims[1:], honest[1:], strict=True)"),),
            "An interval has two ends, and either can be moved.",
            NOTES + "confidence-interval",
        ),
        Mistake(
            "exact-comparison",
            "honest reports rejected: rounded claims compared exactly",
            (("math.isclose(a, b, rel_tol=1e-3)", "a == b"),),
            "Claims are rounded to four digits, so they differ from what you compute by up to 5 parts in "
            "10,000. A tolerance should come from such a reason, and be neither zero nor generous.",
            NOTES + "test-the-test",
        ),
        Mistake(
            "copies-unnoticed",
            "repeated runs not noticed",
            ((' and len(set(report["seconds"])) == len(report["seconds"])\n', "\n"),),
            "Running more often narrows the interval; so does copying the list. Times from a fine clock on a "
            "noisy machine never agree in all digits.",
            NOTES + "honest-benchmarks",
        ),
        Mistake(
            "scaling-unchecked",
            "the doubled work not looked at",
            (('1.5 <= report["doubled"] / report["median"] <= 2.5', 'report["doubled"] > 0'),),
            "Twice the work must take about twice the time. If it does not, the benchmark did not do the work: "
            "the best single question to ask of any timing.",
            NOTES + "honest-benchmarks",
        ),
        Mistake(
            "scaling-from-below",
            "only too little time for the doubled work rejected",
            (('1.5 <= report["doubled"] / report["median"] <= 2.5', '1.5 <= report["doubled"] / report["median"]'),),
            "Twice the work in six times the time is no honest scaling either: the two numbers were not "
            "measured in the same way, or the first one is too good.",
            NOTES + "honest-benchmarks",
        ),
    ),
    alternatives=(
        Alternative(
            "one reason after the other",
            """
def believable(report):
    runs = sorted(report["seconds"])
    if any(a == b for a, b in zip(runs, runs[1:])):
        return False
    fastest = runs[0]
    if fastest * report["peak_flops"] < report["flops"] or fastest * report["peak_bandwidth"] < report["bytes"]:
        return False
    low, median, high = summarize(report["seconds"], warmup=0, confidence=0.95)
    claimed_low, claimed_high = report["interval"]
    for claimed, real in ((claimed_low, low), (report["median"], median), (claimed_high, high)):
        if abs(claimed - real) > 6e-4 * real:
            return False
    return abs(report["doubled"] / report["median"] - 2) <= 0.5
""",
        ),
    ),
)


# 10 doubt


def doubt_cases(seed: int, visible: bool) -> list[Case]:
    from fourbit.exam.fixtures import logits

    split, short, borders = ("validation", "val", (0, 1100, 2000)) if visible else ("test", "test", (0, 2800, 6000))
    small = logits("s5", short, borders[-1])
    cases = [
        Case(f"{split} images {start} to {stop}", (small[start:stop].clone(),), tags=tags("images"))
        for start, stop in itertools.pairwise(borders)
    ]
    rng = rng_of("doubt", seed, visible)
    for i in range(2):
        scale = rng.choice((300.0, 900.0))
        extreme = scale * torch.eye(10)[[rng.randrange(10) for _ in range(5 + i)]]
        cases.append(Case(f"logits of {scale:g} and 0, {i}", (extreme,), tags=tags("extreme")))
    return cases


DOUBT = Exercise(
    name="doubt",
    points=12,
    difficulty=2,
    cases=doubt_cases,
    properties=(
        Property("every doubt is a number, also for a very sure network", properties.finite, 0, gate=True),
        Property("area gained over a random choice", properties.front, 1, tags=tags("images")),
    ),
    mistakes=(
        Mistake(
            "confidence",
            "confidence returned instead of doubt",
            (("return second - first", "return first - second"),),
            "You return how *sure* the network is, so the surest images are handed on first: the large network "
            "works on the easy ones. Turn the sign around.",
            NOTES + "cascade",
        ),
        Mistake(
            "top-logit",
            "the height of the top logit taken for confidence",
            (("return second - first", "return -logits.amax(dim=1)"),),
            "Logits have no fixed zero: adding 5 to all of them changes no probability. A high top logit beside "
            "a second one that is as high is a torn network; compare the classes with each other.",
            NOTES + "cascade",
        ),
        Mistake(
            "energy-score",
            "the sum over all classes taken for confidence",
            (("return second - first", "return -logits.logsumexp(dim=1)"),),
            "The log of the summed exponentials says whether an image looks like the training images at all. It "
            "hardly says whether two classes compete for it, and that is what the large network can settle.",
            NOTES + "cascade",
        ),
        Mistake(
            "softmax-over-images",
            "softmax over the images instead of the classes",
            (
                (
                    "first, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(1)",
                    "first, second = logits.softmax(dim=0).topk(2, dim=1).values.unbind(1)",
                ),
            ),
            "dim=0 is the batch: you turned each class's logits into a distribution over images, so an image's "
            "doubt depends on its neighbours. The classes are dim=1.",
            NOTES + "cascade",
        ),
        Mistake(
            "rounded",
            "only sure or unsure",
            (("return second - first", "return (1 - first).round()"),),
            "A yes or no has one threshold built in: half of the images tie and are handed on in the order in "
            "which they came. Return how much, and every budget is served.",
            NOTES + "cascade",
        ),
        Mistake(
            "best-and-worst",
            "the top class compared with the mean of all",
            (("return second - first", "return -logits.std(dim=1)"),),
            "The spread of all logits says how far the unlikely classes lie below. Whether the answer is right "
            "is decided between the first and the second class.",
            NOTES + "cascade",
        ),
        Mistake(
            "log-of-zero",
            "an entropy that takes the logarithm of zero",
            (
                (
                    "return second - first",
                    "p = logits.softmax(dim=1)\n    return -(p * p.log()).sum(dim=1)",
                ),
            ),
            "Entropy is a sensible doubt, but a very sure network gives probabilities of exactly 0 in float32, "
            "and 0 times -inf is NaN. Use log_softmax, or torch.special.entr, which knows that the limit is 0.",
            NOTES + "cascade",
        ),
        Mistake(
            "class-index",
            "the answer itself taken for a doubt",
            (("return second - first", "return logits.argmax(dim=1).float()"),),
            "argmax says *which* class is on top, not by how much.",
            NOTES + "cascade",
        ),
        Mistake(
            "too-hot",
            "probabilities flattened by a high temperature",
            (
                ("first, second = logits.softmax(dim=1)", "first, second = (logits / 50).softmax(dim=1)"),
                ("return second - first", "return 1 - first"),
            ),
            "Divided by a large temperature all classes look alike, and what is left of the top probability is "
            "a mean over all logits. Try temperatures on the validation images before you fix one.",
            NOTES + "cascade",
        ),
    ),
    alternatives=(
        Alternative(
            "the least probable of being right",
            """
def doubt(logits):
    return 1 - logits.softmax(dim=1).amax(dim=1)
""",
        ),
        Alternative(
            "entropy",
            """
def doubt(logits):
    return torch.special.entr(logits.softmax(dim=1)).sum(dim=1)
""",
        ),
    ),
)

EXAM = Exam(
    lab="00-measure",
    exercises=(
        COUNT_PARAMS, CONV_MACS, COUNT_MACS, FILE_BYTES, SUMMARIZE,
        LINEAR_ROOFLINE, ENERGY, DECODE_BOUND, BELIEVABLE, DOUBT,
    ),
)  # fmt: skip
