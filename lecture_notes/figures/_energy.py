"""Counts of moved words and energies for the chapter on energy, its numbers, and what its figures share.

Energies are those of the course's table (Horowitz, ISSCC 2014). A *word* is one number of the layer, whatever its
bits; only the functions that bill turn words into bytes and bytes into picojoules.
"""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourbit.llm.catalog import find
from fourbit.llm.config import LlmConfig
from fourbit.measure import HOROWITZ45
from fourbit.models import build

ACCESS, WORD_BITS = HOROWITZ45["access"], HOROWITZ45["word_bits"]
SIZES = {"sram 8 KB": 8 * 1024, "sram 32 KB": 32 * 1024, "sram 1 MB": 1024 * 1024}
MATRIX = 1024  # rows and columns of the product whose tiles are drawn

# prices


def per_byte(level: str) -> float:
    """Picojoules to move one byte."""
    return float(ACCESS[level]) * 8 / WORD_BITS


def per_mac(kind: str) -> float:
    """Picojoules of a product and its addition."""
    return float(HOROWITZ45["mult"][kind] + HOROWITZ45["add"][HOROWITZ45["accumulator"][kind]])


def wire_constant() -> float:
    """c in: a read of 32 bits from a memory of m bytes costs c times the root of m; the middle of the table's three."""
    return sorted(4 * per_byte(level) / math.sqrt(size) for level, size in SIZES.items())[1]


# a product of two matrices, in tiles


def tiled_words(n: int, b: int) -> int:
    """Words that cross the edge of a buffer which holds three tiles of b x b, counted tile by tile.

    C += A B with n x n matrices: a tile of C stays until it is finished; for each of its steps a tile of A and one of B
    come in, and at the end it goes out once.
    """
    edges = Counter(min(b, n - start) for start in range(0, n, b))  # tiles at the end may be smaller
    words = 0
    for rows, many in edges.items():
        for columns, times in edges.items():
            inner = sum((rows * depth + depth * columns) * count for depth, count in edges.items())
            words += many * times * (inner + rows * columns)
    return words


def tile_energy(n: int, b: int) -> dict[str, float]:
    """Picojoules for each MAC of a product in float32 with one buffer, whose price grows with its size."""
    buffer = wire_constant() * math.sqrt(3 * 4 * b * b)  # three tiles of 4-byte numbers
    far = 4 * per_byte("dram") * tiled_words(n, b) / n**3
    return {"arithmetic": per_mac("fp32"), "buffer": 2 * buffer, "dram": far}


def best_tile(n: int) -> int:
    return min(range(1, n + 1), key=lambda b: sum(tile_energy(n, b).values()))


# the layers of the course's own network


@dataclass(frozen=True)
class Layer:
    """Words of one layer for one image."""

    name: str
    macs: int
    weights: int
    inputs: int
    outputs: int


def t4_layers() -> list[Layer]:
    """T4 as it runs: hooks see the shape of every layer's input and output."""
    model, found = build("T4", seed=0), list[Layer]()

    def record(name: str, layer: nn.Module) -> None:
        def hook(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            weights = module.weight.numel()
            macs = output.numel() * module.weight[0].numel()
            found.append(Layer(name, macs, weights, inputs[0].numel(), output.numel()))

        layer.register_forward_hook(hook)

    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            record(name, layer)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, 28, 28))
    return found


def bill(layer: Layer, kind: str, weights: str, activations: str = "sram 1 MB") -> dict[str, float]:
    """Microjoules of one layer for one image: each weight and input read once, each output written once."""
    width = {"fp32": 4, "fp16": 2, "int8": 1}[kind]
    return {
        "arithmetic": layer.macs * per_mac(kind) / 1e6,
        "weights": layer.weights * width * per_byte(weights) / 1e6,
        "activations": (layer.inputs + layer.outputs) * width * per_byte(activations) / 1e6,
    }


def network_bill(kind: str, weights: str, density: float = 1.0, skip: bool = False) -> dict[str, float]:
    """The bill of T4 when a share `density` of the weights is kept in a bitmap form (1: dense, without a bitmap).

    `skip`: products with zero are not computed.
    """
    width = {"fp32": 32, "fp16": 16, "int8": 8}[kind]
    layers = [bill(layer, kind, weights) for layer in t4_layers()]
    total = {part: sum(layer[part] for layer in layers) for part in ("arithmetic", "weights", "activations")}
    if density < 1:
        total["weights"] *= (density * width + 1) / width
        total["arithmetic"] *= density if skip else 1
    return total


# the order in which a convolution is computed


@dataclass(frozen=True)
class Conv:
    """A convolution with a square kernel, stride 1 and padding that keeps the size."""

    cin: int
    cout: int
    size: int
    kernel: int = 3

    @property
    def weights(self) -> int:
        return self.cin * self.cout * self.kernel**2

    @property
    def inputs(self) -> int:
        return self.cin * self.size**2

    @property
    def outputs(self) -> int:
        return self.cout * self.size**2

    @property
    def least(self) -> int:
        """Words that move at least: each weight and input once in, each output once out."""
        return self.weights + self.inputs + self.outputs

    @property
    def row_pairs(self) -> int:
        """Pairs of an output row and a kernel row whose input row is not padding."""
        reach = self.kernel // 2
        return self.kernel * self.size - reach * (reach + 1)


CONVS = {"conv1": Conv(32, 32, 14), "conv6": Conv(64, 128, 3)}  # of T4
DATAFLOWS = ("weight stationary", "output stationary", "row stationary")
Step = tuple[int, int, int, int]  # output channel, input channel, output row, kernel row


def steps(conv: Conv, dataflow: str, tile: tuple[int, int] = (1, 1)) -> Iterator[Step]:
    """The order of the row convolutions: output row (m, y) += input row (c, y + d) * kernel row (m, c, d).

    `tile`: output and input channels of the filters that stay while rows pass, for the row stationary order.
    """
    rows, taps = range(conv.size), range(conv.kernel)
    if dataflow == "weight stationary":
        order = ((m, c, y, d) for m in range(conv.cout) for c in range(conv.cin) for d in taps for y in rows)
    elif dataflow == "output stationary":
        order = ((m, c, y, d) for m in range(conv.cout) for y in rows for c in range(conv.cin) for d in taps)
    else:
        order = (
            (m, c, y, d)
            for m0 in range(0, conv.cout, tile[0])
            for c0 in range(0, conv.cin, tile[1])
            for y in rows
            for m in range(m0, min(m0 + tile[0], conv.cout))
            for c in range(c0, min(c0 + tile[1], conv.cin))
            for d in taps
        )
    reach = conv.kernel // 2
    return (step for step in order if 0 <= step[2] + step[3] - reach < conv.size)


def moved(conv: Conv, dataflow: str, capacity: int, tile: tuple[int, int] = (1, 1)) -> dict[str, int]:
    """Words that cross the edge of a buffer of `capacity` words, which drops the row that was used longest ago.

    Rows of inputs and kernels are read; a row of outputs that is dropped is written, and read again when it goes on.
    """
    held: OrderedDict[tuple[str, int, int, int], int] = OrderedDict()
    count, begun, used = {"weights": 0, "inputs": 0, "outputs": 0}, set[tuple[str, int, int, int]](), 0
    for m, c, y, d in steps(conv, dataflow, tile):
        for row in (("weights", m, c, d), ("inputs", c, y + d, 0), ("outputs", m, y, 0)):
            words = conv.kernel if row[0] == "weights" else conv.size
            if row in held:
                held.move_to_end(row)
                continue
            held[row], used = words, used + words
            count[row[0]] += words if row[0] != "outputs" or row in begun else 0
            if row[0] == "outputs":
                begun.add(row)
            while used > capacity:
                old, freed = held.popitem(last=False)
                used -= freed
                count["outputs"] += freed if old[0] == "outputs" else 0
    count["outputs"] += sum(words for row, words in held.items() if row[0] == "outputs")
    return count


def row_tile(conv: Conv, capacity: int) -> tuple[int, int]:
    """The tile of filters whose rows, with the rows they meet, fit and which moves the fewest words."""
    fitting = [
        (m, c)
        for m in range(1, conv.cout + 1)
        for c in range(1, conv.cin + 1)
        if not (conv.cout % m or conv.cin % c) and row_tile_words(conv, (m, c)) <= capacity
    ]
    return min(fitting, key=lambda tile: (row_stationary_words(conv, tile), tile), default=(1, 1))


def row_tile_words(conv: Conv, tile: tuple[int, int]) -> int:
    """What the buffer must hold: the filters, and the rows of one step and of the next."""
    m, c = tile
    return m * c * conv.kernel**2 + c * (conv.kernel + 1) * conv.size + 2 * m * conv.size


def row_stationary_words(conv: Conv, tile: tuple[int, int]) -> int:
    """Closed form: filters once, inputs for each tile of outputs, partial sums for each tile of inputs."""
    m, c = tile
    return conv.weights + conv.inputs * (conv.cout // m) + conv.outputs * (2 * (conv.cin // c) - 1)


def counted(conv: Conv, capacity: int) -> dict[str, dict[str, int]]:
    tile = row_tile(conv, capacity)
    return {flow: moved(conv, flow, capacity, tile) for flow in DATAFLOWS}


# a language model


def token_bill(config: LlmConfig, bits: float, context: int, batch: int = 1, kv_bits: float = 16) -> dict[str, float]:
    """Microjoules for one token of one of `batch` texts: int8 products, weights and cache from DRAM."""
    shapes = config.shapes()
    matrices = {name: math.prod(shape) for name, shape in shapes.items() if len(shape) == 2}
    weights = sum(count for name, count in matrices.items() if name != "embed_tokens.weight")
    weights += matrices["embed_tokens.weight"] if config.tied else 0  # read as the output layer
    cache_values = 2 * config.layers * config.kv_heads * config.head_width * context
    attention = 2 * config.layers * config.heads * config.head_width * context
    return {
        "arithmetic": (weights + attention) * per_mac("int8") / 1e6,
        "weights": weights * bits / 8 * per_byte("dram") / 1e6 / batch,
        "cache": cache_values * kv_bits / 8 * per_byte("dram") / 1e6,
    }


def pocket() -> LlmConfig:
    """The language model that comes with the course: SmolLM2-135M."""
    return find("smollm2").config


def pocket_parts(bits: float) -> dict[str, tuple[int, float]]:
    """MACs and microjoules of moving the weights for one token, by kind of matrix over all layers."""
    found: dict[str, int] = {"output layer": math.prod(pocket().shapes()["embed_tokens.weight"])}
    for name, shape in pocket().linears().items():
        kind = "attention projections" if "self_attn" in name else "feed-forward"
        found[kind] = found.get(kind, 0) + math.prod(shape)
    return {kind: (count, count * bits / 8 * per_byte("dram") / 1e6) for kind, count in found.items()}


# fast or slow

POWER = {"floor": 2.0, "switching": 8.0}  # watts at full clock; the second grows with the cube of the clock
MEMORY = 2.5  # seconds of traffic beside one second of arithmetic


def run_energy(clock: float, memory: float = 0.0) -> float:
    """Joules of a job with one second of arithmetic at full clock, beside `memory` seconds of traffic at any clock."""
    return POWER["floor"] * max(memory, 1 / clock) + POWER["switching"] * clock**2


def best_clock() -> float:
    """Where the derivative of floor / f + switching * f^2 is zero."""
    return float((POWER["floor"] / (2 * POWER["switching"])) ** (1 / 3))


# numbers


@cache
def measured() -> Mapping[str, Any]:
    """What measure_energy.py counted."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "energy_counts.json").read_text(encoding="utf-8"))
    return data


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    parts = (prices(), walls(), tiles(), networks(), dataflows(), tokens(), clocks())
    return {f"en.{key}": text for part in parts for key, text in part.items()}


def prices() -> dict[str, str]:
    mult, add = HOROWITZ45["mult"], HOROWITZ45["add"]
    read = {level: 4 * per_byte(level) for level in ACCESS}
    return {
        "mult.ratio": f"{mult['int32'] / mult['int8']:.1f}",
        "add.ratio": f"{add['int32'] / add['int8']:.1f}",
        "mult.fp": f"{mult['fp32'] / mult['fp16']:.1f}",
        "significand": f"{(24 / 11) ** 2:.1f}",
        "share.int8": f"{100 * mult['int8'] / per_mac('int8'):.0f}",
        "sram.small": f"{ACCESS['sram 32 KB'] / ACCESS['sram 8 KB']:.0f}",
        "sram.large": f"{ACCESS['sram 1 MB'] / ACCESS['sram 32 KB']:.0f}",
        "root.large": f"{math.sqrt(32):.1f}",
        "read.8KB": f"{read['sram 8 KB']:g}",
        "read.1MB": f"{read['sram 1 MB']:g}",
        "read.dram": f"{read['dram']:g}",
        "reuse.fp32": f"{math.ceil(2 * read['dram'] / per_mac('fp32'))}",
        "reuse.int8": f"{math.ceil(2 * per_byte('dram') / per_mac('int8')):,}",
        "reuse.1MB": f"{math.ceil(2 * read['sram 1 MB'] / per_mac('fp32'))}",
        "mac.gain": f"{per_mac('fp32') / per_mac('int8'):.0f}",
    }


def walls() -> dict[str, str]:
    ratio = 3.0 / 1.6  # growth in two years of arithmetic over that of bandwidth, Gholami et al.
    return {"wall.two": f"{ratio:.2f}", "wall.ten": f"{ratio**5:.0f}", "wall.double": f"{2 * math.log(2, ratio):.1f}"}


def tiles() -> dict[str, str]:
    best = best_tile(MATRIX)
    found = {"tile.best": f"{best}", "tile.kb": f"{3 * 4 * best**2 / 1024:.0f}"}
    for b in (1, best, MATRIX):
        total = tile_energy(MATRIX, b)
        key = {1: "one", best: "least", MATRIX: "whole"}[b]
        found |= {f"tile.{key}": f"{sum(total.values()):,.0f}", f"tile.{key}.dram": f"{total['dram']:,.1f}"}
        found[f"tile.{key}.buffer"] = f"{total['buffer']:,.0f}"
    found["tile.dram.32"] = f"{tile_energy(MATRIX, 32)['dram']:.0f}"
    return found | {"tile.mac": f"{per_mac('fp32'):.1f}", "tile.words.one": f"{tiled_words(MATRIX, 1) / MATRIX**3:.2f}"}


def networks() -> dict[str, str]:
    layers, found = t4_layers(), dict[str, str]()
    for layer in layers:
        cost = bill(layer, "fp32", "dram")
        found |= {f"{layer.name}.{part}": f"{value:.1f}" for part, value in cost.items()}
        found |= {f"{layer.name}.macs": f"{layer.macs:,}", f"{layer.name}.weights.count": f"{layer.weights:,}"}
        found[f"{layer.name}.reuse"] = f"{layer.macs / layer.weights:.0f}"
    total = network_bill("fp32", "dram")
    found |= {f"all.{part}": f"{value:.1f}" for part, value in total.items()}
    fc1 = next(layer for layer in layers if layer.name == "fc1")
    found["fc1.share"] = f"{100 * sum(bill(fc1, 'fp32', 'dram').values()) / sum(total.values()):.0f}"
    ways = {
        "dense": ("fp32", "dram", 1.0, False), "sparse": ("fp32", "dram", 0.1, False),
        "skip": ("fp32", "dram", 0.1, True), "int8": ("int8", "dram", 1.0, False),
        "both": ("int8", "dram", 0.1, True), "chip.sparse": ("fp32", "sram 1 MB", 0.1, True),
        "chip.int8": ("int8", "sram 1 MB", 1.0, False), "chip.both": ("int8", "sram 1 MB", 0.1, True),
    }  # fmt: skip
    for key, way in ways.items():
        cost = network_bill(*way)
        found |= {f"{key}.{part}": f"{value:.1f}" for part, value in cost.items()}
        found |= {f"{key}.total": f"{sum(cost.values()):.1f}"}
        found[f"{key}.gain"] = f"{sum(total.values()) / sum(cost.values()):.1f}"
    params = sum(layer.weights for layer in layers)
    found["kb.dense"], found["kb.int8"] = f"{4 * params / 1024:,.0f}", f"{params / 1024:.0f}"
    found["kb.sparse"] = f"{params * (0.1 * 32 + 1) / 8 / 1024:.0f}"
    found["kb.both"] = f"{params * (0.1 * 8 + 1) / 8 / 1024:.0f}"
    return found


def dataflows() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, conv in CONVS.items():
        found |= {f"{name}.least": f"{conv.least:,}", f"{name}.ops": f"{conv.cin * conv.cout * conv.row_pairs:,}"}
        for row in measured()[name]:
            for flow in DATAFLOWS:
                key = f"flow.{name}.{flow.split()[0]}.{row['capacity']}"
                found |= {key: f"{sum(row[flow].values()):,}"}
                found[f"{key}.times"] = f"{sum(row[flow].values()) / conv.least:.1f}"
    return found


def tokens() -> dict[str, str]:
    config, found = pocket(), dict[str, str]()
    for kind, (count, energy) in pocket_parts(16).items():
        key = kind.split()[0].replace("-", "")
        found |= {f"lm.{key}.weights": f"{count / 1e6:.1f}", f"lm.{key}": f"{energy / 1e3:.1f}"}
        found[f"lm.{key}.mac"] = f"{count * per_mac('int8') / 1e6:.0f}"
    for key, (bits, context, batch) in {
        "16": (16, 0, 1), "8": (8, 0, 1), "4": (4.5, 0, 1), "4.4096": (4.5, 4096, 1), "4.64": (4.5, 0, 64),
        "4.64.4096": (4.5, 4096, 64),
    }.items():  # fmt: skip
        cost = token_bill(config, bits, context, batch)
        found |= {f"lm.bill.{key}.{part}": f"{value / 1e3:.2f}" for part, value in cost.items()}
        found |= {f"lm.bill.{key}": f"{sum(cost.values()) / 1e3:.1f}"}
        found[f"lm.bill.{key}.share"] = f"{100 * cost['arithmetic'] / sum(cost.values()):.1f}"
    cost = token_bill(config, 4.5, 0)
    found["lm.ratio.4"] = f"{cost['weights'] / cost['arithmetic']:.0f}"
    each = token_bill(config, 4.5, 1)["cache"]
    found["lm.even"] = f"{round(cost['weights'] / each, -2):,.0f}"
    found["lm.batch"] = f"{math.ceil(cost['weights'] / cost['arithmetic'])}"
    found["lm.params"] = f"{config.parameters() / 1e6:.1f}"
    return found


def clocks() -> dict[str, str]:
    best = best_clock()
    return {
        "clock.best": f"{best:.1f}", "clock.least": f"{run_energy(best):.1f}", "clock.full": f"{run_energy(1.0):.0f}",
        "clock.slow": f"{run_energy(0.2):.1f}", "clock.bound.full": f"{run_energy(1.0, memory=MEMORY):.0f}",
        "clock.bound.slow": f"{run_energy(1 / MEMORY, memory=MEMORY):.1f}",
        "clock.memory": f"{MEMORY:g}", "clock.even": f"{1 / MEMORY:g}",
        "clock.floor": f"{POWER['floor']:g}", "clock.switching": f"{POWER['switching']:g}",
    }  # fmt: skip
