"""The exam of lab 05: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from kernels that were published, from issues of engines, and from entries to kernel contests; each is a
small patch of the reference. Kernels are written twice there, in C and for numba, so a patch of one is a patch of both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import properties as hold

from fourbit.codec import Ref
from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property, Race
from fourbit.exam.fixtures import random_array
from fourbit.exam.suspects import FLAWS

NOTE = "lecture_notes/kernels.md#"


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    return Mistake(id, name, patch, why, NOTE + anchor)


def generator(seed: int, visible: bool, exercise: str) -> np.random.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    return np.random.default_rng([seed, int(visible), *exercise.encode()])


# 1. gemv_traffic


def traffic_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "gemv_traffic")
    rows = [int(r) for r in g.choice(range(3, 40), 4, replace=False)]
    whole, ragged = 64 * int(g.integers(2, 6)), 64 * int(g.integers(1, 5)) + int(g.integers(1, 63))
    shapes = {"whole groups": (rows[0], whole), "a last group that is not full": (rows[1], ragged)}
    shapes |= {"fewer inputs than a group": (rows[2], int(g.integers(1, 63))), "one row": (1, whole + 64)}
    if not visible:
        shapes["a layer of a 7B"] = (11008 + rows[3], 4096)
    return [
        Case(f"{kind}, {name}", (*shape, kind), tags=tags(kind))
        for kind in ("dense", "materialize", "fused")
        for name, shape in shapes.items()
    ]


TRA_READ = "    read, written = 4 * columns, 4 * rows\n"
TRAFFIC = Exercise(
    "gemv_traffic",
    points=6,
    difficulty=1,
    cases=traffic_cases,
    properties=(
        Property("the dense product", hold.counts_bytes, 1, tags=tags("dense")),
        Property("materialized weights", hold.counts_bytes, 2, tags=tags("materialize")),
        Property("the fused kernel", hold.counts_bytes, 2, tags=tags("fused")),
        Property("bytes for each weight", hold.divides_by_the_weights, 1),
    ),
    mistakes=(
        mistake(
            "filling-forgotten",
            "half a byte for each weight",
            "bytes-per-weight",
            "You count half a byte for each weight of the matrix. The last group of a row is filled up to 64, and its "
            "32 bytes are read whole.",
            (
                "rows * math.ceil(columns / GROUP) * (HALF + 4 + 1)",
                "rows * columns // 2 + rows * math.ceil(columns / GROUP) * (4 + 1)",
            ),
        ),
        mistake(
            "groups-over-rows",
            "groups run over the whole matrix",
            "bytes-per-weight",
            "You divide all weights by 64 and round up once. Groups lie within a row, and each row fills its last one "
            "up.",
            ("rows * math.ceil(columns / GROUP)", "math.ceil(rows * columns / GROUP)"),
        ),
        mistake(
            "codes-only",
            "scales and zero points are left out",
            "bytes-per-weight",
            "You count the codes alone. Five bytes of scale and zero point belong to each group of 64: an eighth more, "
            "read with every product.",
            ("(HALF + 4 + 1)", "HALF"),
        ),
        mistake(
            "zeros-left-out",
            "zero points are left out",
            "bytes-per-weight",
            "You count codes and scales and leave the zero points out, one byte a group.",
            ("(HALF + 4 + 1)", "(HALF + 4)"),
        ),
        mistake(
            "written-only",
            "materialized weights are not read back",
            "materialization",
            "You write the weights out and multiply without reading them. A matrix larger than the cache has left it "
            "before the product begins: each weight travels twice.",
            ('if kind != "fused":', 'if kind == "dense":'),
        ),
        mistake(
            "read-only",
            "materialized weights are not written",
            "materialization",
            "You leave out that the weights are written before they are read. That write is a third of what "
            "materializing moves.",
            ("        written += weights\n", "        pass\n"),
        ),
        mistake(
            "half-precision",
            "weights of two bytes",
            "bytes-per-weight",
            "You count two bytes for a weight that is written out. These kernels compute in float32, four bytes.",
            ("weights = 4 * rows", "weights = 2 * rows"),
        ),
        mistake(
            "input-for-each-row",
            "the inputs are fetched for each row",
            "bytes-per-weight",
            "You fetch the inputs once for each row. They are used by all rows but take a few kilobytes: they stay in "
            "the cache, and only the matrix streams by.",
            (TRA_READ, TRA_READ.replace("4 * columns,", "4 * columns * rows,")),
        ),
        mistake(
            "results-forgotten",
            "the results are not written",
            "bytes-per-weight",
            "You leave the results out. They are few, but a count of bytes is exact or it is an estimate.",
            (TRA_READ, TRA_READ.replace("4 * rows", "0")),
        ),
        mistake(
            "per-packed-weight",
            "divided by weights that do not exist",
            "bytes-per-weight",
            "You divide by the weights with their filling. The cost is that of the weights which the model has.",
            ("(rows * columns)}", "(rows * math.ceil(columns / GROUP) * GROUP)}"),
        ),
    ),
    alternatives=(
        Alternative(
            "a table of kernels",
            "def gemv_traffic(rows, columns, kind):\n"
            "    groups = rows * -(-columns // 64)\n"
            "    small, large = 37 * groups, rows * columns * 4\n"
            "    table = {'dense': (large, 0), 'materialize': (small + large, large), 'fused': (small, 0)}\n"
            "    read, written = table[kind]\n"
            "    read, written = read + 4 * columns, written + 4 * rows\n"
            "    return {'read': read, 'written': written, 'per_weight': (read + written) / rows / columns}\n",
        ),
    ),
)

# 2. repack


def repack_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "repack")
    n = 0 if visible else 1

    def codes(*shape: int) -> np.ndarray:
        return g.integers(0, 16, shape, np.uint8)

    return [
        Case("one group", (codes(1, 64),), tags=tags("whole")),
        Case("several groups", (codes(3 + n, 192),), tags=tags("whole")),
        Case("an odd number of groups and rows", (codes(5 + 2 * n, 320),), tags=tags("whole")),
        Case("a last group that is not full", (codes(3, 64 + 17 + n),), tags=tags("ragged")),
        Case("a last group that ends behind its middle", (codes(2 + n, 128 + 45),), tags=tags("ragged")),
        Case("fewer codes than half a group", (codes(4, 11 + n),), tags=tags("ragged")),
        Case("all codes are 15", (np.full((2 + n, 64 + 33), 15, np.uint8),), tags=tags("ragged")),
    ]


REP_PAD = "np.pad(codes, ((0, 0), (0, -columns % GROUP)))"
REP_JOIN = "groups[..., :HALF] | groups[..., HALF:] << 4"
REPACK = Exercise(
    "repack",
    points=7,
    difficulty=1,
    cases=repack_cases,
    properties=(
        Property("code j in the low half of byte j", hold.has_the_low_halves, 1.5, tags=tags("whole")),
        Property("code j + 32 in the high half", hold.has_the_high_halves, 1.5, tags=tags("whole")),
        Property("a row that ends within a group", hold.fills_with_zeros, 2, tags=tags("ragged")),
    ),
    mistakes=(
        mistake(
            "neighbors",
            "neighbors share a byte",
            "layout",
            "You put codes 2j and 2j + 1 into byte j. It holds the same codes, but unpacked into vectors they come out "
            "even and odd, and neither lies beside its inputs.",
            (REP_JOIN, "groups[..., ::2] | groups[..., 1::2] << 4"),
        ),
        mistake(
            "halves-swapped",
            "the first codes are in the high half",
            "layout",
            "You put the first 32 codes into the high halves. Both orders exist in published formats, and nothing in "
            "the bytes tells which: a format is a promise.",
            (REP_JOIN, "groups[..., HALF:] | groups[..., :HALF] << 4"),
        ),
        mistake(
            "halves-of-the-row",
            "the halves of the whole row",
            "layout",
            "You pair a code with the one half a row away. The kernel works group by group: both codes of a byte must "
            "belong to the same scale.",
            ("filled.reshape(rows, -1, GROUP)", "np.concatenate(np.split(filled.reshape(rows, -1, HALF), 2, 1), 2)"),
        ),
        mistake(
            "not-shifted",
            "two codes on top of each other",
            "layout",
            "You join the halves without a shift, so the second code lands on the first. It belongs four bits higher.",
            (REP_JOIN, "groups[..., :HALF] | groups[..., HALF:]"),
        ),
        mistake(
            "filled-in-front",
            "filled up in front",
            "layout",
            "You fill a row up at its beginning, which moves every code to another place.",
            (REP_PAD, "np.pad(codes, ((0, 0), (-columns % GROUP, 0)))"),
        ),
        mistake(
            "filled-with-8",
            "filled up with 8",
            "layout",
            "You fill up with 8, the zero point of symmetric formats. This format has a zero point of its own for each "
            "group; the contract says 0, and readers who compare files rely on it.",
            (REP_PAD, "np.pad(codes, ((0, 0), (0, -columns % GROUP)), constant_values=8)"),
        ),
        mistake(
            "last-repeated",
            "filled up with the last code",
            "layout",
            "You fill up with the last code of the row. The contract says 0.",
            (REP_PAD, 'np.pad(codes, ((0, 0), (0, -columns % GROUP)), "edge")'),
        ),
        mistake(
            "filled-too-far",
            "a group too many",
            "layout",
            "You fill up by 64 - columns % 64, which adds a whole group where nothing is missing.",
            ("-columns % GROUP", "GROUP - columns % GROUP"),
        ),
        mistake(
            "rest-dropped",
            "codes beyond the last whole group are lost",
            "layout",
            "You keep whole groups only. A row of 576 has 9 of them, but not every model is so kind; codes that are "
            "dropped are weights that never multiply.",
            (REP_PAD, "codes[:, : max(columns // GROUP, 1) * GROUP]"),
            (
                "groups = filled",
                "filled = np.pad(filled, ((0, 0), (0, -filled.shape[1] % GROUP)))\n    groups = filled",
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "code by code",
            "def repack(codes):\n"
            "    rows, columns = codes.shape\n"
            "    out = np.zeros((rows, math.ceil(columns / 64), 32), np.uint8)\n"
            "    for column in range(columns):\n"
            "        group, j = divmod(column, 64)\n"
            "        out[:, group, j % 32] += codes[:, column] * (16 if j >= 32 else 1)\n"
            "    return out\n",
        ),
    ),
)

# 3. gemv_numba


def grouped(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in groups and the sum of each, as the kernel takes them."""
    groups = np.pad(x, (0, -len(x) % 64)).reshape(-1, 64).astype(np.float32)
    return groups, groups.sum(1)


def matrix(g: np.random.Generator, rows: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A packed matrix with other scales and zero points in each group."""
    scale = (g.uniform(0.1, 1, (rows, groups)) * 0.1).astype(np.float32)
    return g.integers(0, 256, (rows, groups, 32), np.uint8), scale, g.integers(0, 16, (rows, groups), np.uint8)


def numba_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "gemv_numba")
    n = 0 if visible else 1

    def case(name: str, rows: int, columns: int, *names: str, loud: float = 1.0, **fixed: int) -> Case:
        packed, scale, zero = matrix(g, rows, math.ceil(columns / 64))
        if "code" in fixed:
            packed[:] = fixed["code"] * 17
        if "zero" in fixed:
            zero[:] = fixed["zero"]
        return Case(name, (packed, scale, zero, *grouped(loud * g.standard_normal(columns))), tags=tags(*names))

    rows, groups = 1024 + 37 * n, 32
    sizes = {"seed": int(g.integers(2**31)), "shape": (rows, groups, 32)}
    _, scale, zero = matrix(g, rows, groups)
    layer = (Ref("random_array", {"kind": "uint8", **sizes}), scale, zero, *grouped(g.standard_normal(64 * groups)))
    return [
        case("one group", 3 + n, 64, "small"),
        case("several groups", 8, 64 * (3 + n), "small"),
        case("one row", 1, 256, "rows"),
        case("an odd number of rows", 7 + 2 * n, 128, "rows"),
        case("a last group that is not full", 5, 64 + 40 + n, "rows"),
        case("only codes of 15, zero points of 0", 4, 128, "extreme", code=15, zero=0),
        case("only codes of 0, zero points of 15", 4, 128 + 64 * n, "extreme", code=0, zero=15),
        case("loud inputs", 6 + n, 192, "extreme", loud=1e4),
        Case("a large matrix", layer, tags=tags("large")),
    ]


RACE_ROWS, RACE_GROUPS, RACE_CALLS = 2048, 64, 16


def race_on(seed: int, each: tuple[tuple[np.ndarray, ...], ...], source: str) -> Race:
    """A matrix of 8 million weights with other codes, scales and zero points in each round, times 16 vectors."""
    shape = (RACE_ROWS, RACE_GROUPS)
    case = Case(
        "the race",
        (
            Ref("random_array", {"kind": "uint8", "shape": (*shape, 32), "seed": seed}),
            Ref("random_array", {"kind": "float32", "shape": shape, "seed": seed + 1}),
            Ref("random_array", {"kind": "uint8", "shape": shape, "seed": seed + 2, "high": 16}),
        ),
    )
    return Race("at most 2.5 times the time of our numba kernel", case, each, times=2.5, weight=2.0, source=source)


def numba_race(seed: int) -> Race:
    g = generator(seed, False, "gemv_numba race")
    each = tuple(grouped(g.standard_normal(64 * RACE_GROUPS)) for _ in range(RACE_CALLS))
    return race_on(int(g.integers(2**31)), each, "")


NUM_DOT = "np.float32(byte & 15) * x[g, j] + np.float32(byte >> 4) * x[g, j + HALF]"
NUM_TOTAL = "scale[row, g] * (dot - np.float32(zero[row, g]) * sums[g])"
GEMV = Exercise(
    "gemv_numba",
    points=13,
    difficulty=2,
    cases=numba_cases,
    properties=(
        Property("the product", hold.multiplies, 3, tags=tags("small")),
        Property("any number of rows and inputs", hold.multiplies, 2, tags=tags("rows")),
        Property("extreme codes, zero points and inputs", hold.multiplies, 2, tags=tags("extreme")),
        Property("a large matrix", hold.multiplies, 1, tags=tags("large")),
    ),
    mistakes=(
        mistake(
            "halves-swapped",
            "low and high halves exchanged",
            "layout",
            "You multiply the low halves with the inputs of the high ones. Byte j holds code j low and code j + 32 "
            "high.",
            (NUM_DOT, "np.float32(byte >> 4) * x[g, j] + np.float32(byte & 15) * x[g, j + HALF]"),
        ),
        mistake(
            "neighbors",
            "inputs taken as neighbors",
            "layout",
            "You multiply with inputs 2j and 2j + 1, as if neighbors shared a byte. In this layout they do not.",
            (NUM_DOT, "np.float32(byte & 15) * x[g, 2 * j] + np.float32(byte >> 4) * x[g, 2 * j + 1]"),
        ),
        mistake(
            "not-shifted",
            "the high half without a shift",
            "layout",
            "You mask the high half and do not shift it down: each of its codes counts sixteen times.",
            (NUM_DOT, "np.float32(byte & 15) * x[g, j] + np.float32(byte & 240) * x[g, j + HALF]"),
        ),
        mistake(
            "zero-forgotten",
            "no zero point",
            "zero-point",
            "You leave the zero point out. Codes start at 0, weights do not: each group is off by zero times scale "
            "times the sum of its inputs.",
            (NUM_TOTAL, "scale[row, g] * dot"),
        ),
        mistake(
            "zero-without-inputs",
            "the zero point without the inputs",
            "zero-point",
            "You subtract the zero point itself. It belongs to each weight, so the group loses zero times the *sum of "
            "its inputs*.",
            (NUM_TOTAL, "scale[row, g] * (dot - np.float32(zero[row, g]))"),
        ),
        mistake(
            "zero-times-group",
            "64 times the zero point",
            "zero-point",
            "You subtract the zero point 64 times. That is right only where every input is 1.",
            (NUM_TOTAL, "scale[row, g] * (dot - np.float32(zero[row, g]) * np.float32(GROUP))"),
        ),
        mistake(
            "zero-is-8",
            "a zero point of 8 for all",
            "zero-point",
            "You take 8 for every zero point. Symmetric formats such as Q4_0 do; here each group has its own.",
            (NUM_TOTAL, "scale[row, g] * (dot - np.float32(8) * sums[g])"),
        ),
        mistake(
            "scale-of-the-row",
            "one scale for the whole row",
            "zero-point",
            "You use the scale of the row's first group for all of its groups.",
            (NUM_TOTAL, NUM_TOTAL.replace("scale[row, g]", "scale[row, 0]")),
        ),
        mistake(
            "last-group-only",
            "groups overwrite each other",
            "layout",
            "You assign a group's part to the total in place of adding it, so only the last group is left.",
            ("total += scale", "total = scale"),
        ),
        mistake(
            "rows-in-fours",
            "the last rows are left out",
            "layout",
            "You work on four rows at a time and forget those that remain. Kernels that are tuned on one shape carry "
            "such bugs for years.",
            ("for row in range(rows):", "for row in range(rows // 4 * 4):"),
        ),
    ),
    alternatives=(
        Alternative(
            "two sums over slices",
            "@njit(fastmath=True)\n"
            "def gemv_numba(packed, scale, zero, x, sums):\n"
            "    y = np.empty(len(packed), np.float32)\n"
            "    for r in range(len(packed)):\n"
            "        acc = np.zeros(32, np.float32)\n"
            "        shift = np.float32(0)\n"
            "        for g in range(packed.shape[1]):\n"
            "            s = scale[r, g]\n"
            "            for j in range(32):\n"
            "                acc[j] += s * np.float32(packed[r, g, j] % 16) * x[g, j]\n"
            "            for j in range(32):\n"
            "                acc[j] += s * np.float32(packed[r, g, j] // 16) * x[g, 32 + j]\n"
            "            shift += s * zero[r, g] * sums[g]\n"
            "        y[r] = acc.sum() - shift\n"
            "    return y\n",
        ),
    ),
    seconds=20.0,
    race=numba_race,
)

# 4. quantize_activations


def quantized(x: np.ndarray) -> dict[str, np.ndarray]:
    """Activations for the cases of later exercises."""
    groups = np.pad(x.astype(np.float32), (0, -len(x) % 64)).reshape(-1, 64)
    scale = np.maximum(np.abs(groups).max(1) / np.float32(127), np.float32(1e-30))
    codes = np.rint(groups / scale[:, None]).astype(np.int8)
    return {"codes": codes, "scale": scale, "sum": codes.sum(1, dtype=np.int32)}


def activation_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "quantize_activations")
    n = 0 if visible else 1

    def clear(x: np.ndarray) -> bool:
        groups = np.pad(x, (0, -len(x) % 64)).reshape(-1, 64).astype(np.float64)
        steps = groups / (np.abs(groups).max(1, keepdims=True) / 127)
        return bool((np.abs(np.abs(steps - np.rint(steps)) - 0.5) > 1e-3).all())

    def draw(columns: int, spread: float = 0.0) -> np.ndarray:
        while True:
            x = (g.standard_normal(columns) * np.exp(spread * g.standard_normal(columns))).astype(np.float32)
            if clear(x):
                return x

    halves = np.zeros(64 + 32 * n, np.float32)
    halves[:8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 3]  # the scale is exactly 1
    spiked = draw(128 + 64 * n)
    spiked[70] = -25.0  # one loud input, negative
    silent = np.concatenate([draw(64), np.zeros(64, np.float32), draw(32 + n)])
    units = np.zeros(64)  # multiples of the smallest positive float32
    units[:4] = [143 + n, 100, -143, 7]
    return [
        Case("one group", (draw(64),), tags=tags("usual")),
        Case("several groups of other sizes", (draw(192 + 64 * n, 1.0),), tags=tags("usual")),
        Case("a loud negative input", (spiked,), tags=tags("usual")),
        Case("a last group that is not full", (draw(64 + 21 + n),), tags=tags("ragged")),
        Case("fewer than a group", (draw(9 + n),), tags=tags("ragged")),
        Case("exact halves", (halves,), tags=tags("ties")),
        Case("a silent group", (silent,), tags=tags("edges")),
        Case("all inputs positive", (np.abs(draw(128)),), tags=tags("usual")),
        Case("as small as floats get", ((units * 2.0**-149).astype(np.float32),), tags=tags("edges")),
    ]


ACT_SCALE = "np.abs(groups).max(1) / np.float32(127)"
ACT_CODES = "np.clip(np.rint(groups / scale[:, None]), -127, 127).astype(np.int8)"
ACT_SUM = "codes.sum(1, dtype=np.int32)"
ACTIVATIONS = Exercise(
    "quantize_activations",
    points=8,
    difficulty=2,
    cases=activation_cases,
    properties=(
        Property("a scale for each group", hold.has_the_scales, 1.5, tags=tags("usual", "ragged")),
        Property("the codes", hold.has_the_codes, 2, tags=tags("usual", "ragged")),
        Property("halves go to even", hold.has_the_codes, 0.75, tags=tags("ties")),
        Property("silent and tiny groups", hold.handles_the_edges, 1, tags=tags("edges")),
        Property("the sum of the codes", hold.keeps_the_sums, 1.5),
    ),
    mistakes=(
        mistake(
            "one-scale",
            "one scale for the whole vector",
            "int8-activations",
            "You take one scale for all groups. One loud channel, and every language model has some, then takes the "
            "resolution of all others.",
            (ACT_SCALE, "np.full(len(groups), np.abs(groups).max() / np.float32(127), np.float32)"),
        ),
        mistake(
            "divided-by-128",
            "128 steps",
            "int8-activations",
            "You divide by 128. The largest input then gets 128, which int8 does not have: positive ones are cut off.",
            ("np.float32(127)", "np.float32(128)"),
        ),
        mistake(
            "maximum-not-magnitude",
            "the largest value, not the largest magnitude",
            "int8-activations",
            "You take the maximum without the absolute value. A group whose loudest input is negative is cut off.",
            (ACT_SCALE, "groups.max(1) / np.float32(127)"),
        ),
        mistake(
            "truncated",
            "cut off instead of rounded",
            "int8-activations",
            "You cut the fraction off, as a cast to int8 does. The error doubles and pulls everything to zero.",
            ("np.rint(groups / scale[:, None])", "np.trunc(groups / scale[:, None])"),
        ),
        mistake(
            "halves-up",
            "halves go up",
            "int8-activations",
            "You add a half and take the floor: exact halves always go up, which is a small bias. Processors round "
            "halves to even, and so does rint.",
            ("np.rint(groups / scale[:, None])", "np.floor(groups / scale[:, None] + np.float32(0.5))"),
        ),
        mistake(
            "silent-scale",
            "a silent group has scale 0",
            "int8-activations",
            "A group of zeros gets the scale 0, and 0 / 0 is not a number. It comes from a padded or dead channel one "
            "day, and then the whole output is gone.",
            ("    scale[scale == 0] = 1\n", ""),
            ("np.rint(groups / scale[:, None])", "np.nan_to_num(np.rint(groups / scale[:, None]))"),
        ),
        mistake(
            "wraps-around",
            "codes wrap around",
            "int8-activations",
            "You cast without clamping. Where the scale is so small that float32 rounds it by much, a code beyond 127 "
            "becomes a negative one.",
            (
                "np.clip(np.rint(groups / scale[:, None]), -127, 127).astype(np.int8)",
                "np.rint(groups / scale[:, None]).astype(np.int32).astype(np.int8)",
            ),
        ),
        mistake(
            "sum-in-8-bits",
            "the sum overflows",
            "int8-activations",
            "You add the codes in 8 bits, where the sum wraps around. 64 codes of up to 127 need 14 bits.",
            (ACT_SUM, "codes.sum(1, dtype=np.int8).astype(np.int32)"),
        ),
        mistake(
            "sum-of-inputs",
            "the sum of the inputs",
            "zero-point",
            "You keep the sum of the inputs. The zero point multiplies the *codes*, whose sum differs by the rounding "
            "errors and by the scale.",
            (ACT_SUM, "np.rint(groups.sum(1)).astype(np.int32)"),
        ),
        mistake(
            "sum-before-rounding",
            "the sum before rounding",
            "zero-point",
            "You add up x / scale and round the sum. The kernel multiplies rounded codes, so their sum is what cancels "
            "the zero point exactly.",
            (ACT_SUM, "np.rint((groups / scale[:, None]).sum(1)).astype(np.int32)"),
        ),
    ),
    alternatives=(
        Alternative(
            "group by group",
            "def quantize_activations(x):\n"
            "    codes, scales, sums = [], [], []\n"
            "    for start in range(0, len(x), 64):\n"
            "        part = np.zeros(64, np.float32)\n"
            "        part[: len(x[start : start + 64])] = x[start : start + 64]\n"
            "        top = max(part.max(), -part.min())\n"
            "        step = np.float32(top / np.float32(127)) or np.float32(1)\n"
            "        row = (part / step).round().clip(-127, 127)\n"
            "        codes.append(row.astype(np.int8))\n"
            "        scales.append(step)\n"
            "        sums.append(int(row.sum()))\n"
            "    scales, sums = np.array(scales, np.float32), np.array(sums, np.int32)\n"
            "    return {'codes': np.stack(codes), 'scale': scales, 'sum': sums}\n",
        ),
    ),
)

# 5. int8_gemv


def loud_codes(g: np.random.Generator, groups: int, sign: int = 0) -> dict[str, np.ndarray]:
    """Activations whose codes are all at the ends of the range; with a sign, all at the same end."""
    signs = np.full((groups, 64), sign) if sign else g.choice([-1, 1], (groups, 64))
    codes = (127 * signs).astype(np.int8)
    scale = g.uniform(0.001, 0.1, groups).astype(np.float32)
    return {"codes": codes, "scale": scale, "sum": codes.sum(1, dtype=np.int32)}


def int8_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "int8_gemv")
    n = 0 if visible else 1
    full, empty = matrix(g, 3 + n, 2), matrix(g, 3, 2 + n)
    full[0][:], empty[0][:] = 255, 0
    return [
        Case("one group", (*matrix(g, 4 + n, 1), quantized(g.standard_normal(64))), tags=tags("usual")),
        Case("several groups", (*matrix(g, 6, 3 + n), quantized(g.standard_normal(64 * (3 + n)))), tags=tags("usual")),
        Case("one row", (*matrix(g, 1, 5), quantized(g.standard_normal(64 * 4 + 30 + n))), tags=tags("usual")),
        Case(
            "groups of other sizes",
            (*matrix(g, 7, 4), quantized(g.standard_normal(256) * np.repeat([1, 9, 0.1, 40], 64))),
            tags=tags("usual"),
        ),
        Case("all codes are 15, all activations 127", (*full, loud_codes(g, 2, 1)), tags=tags("extreme")),
        Case("all codes are 15, all activations -127", (*full, loud_codes(g, 2, -1)), tags=tags("extreme")),
        Case("all codes are 0", (*empty, loud_codes(g, 2 + n, 1)), tags=tags("extreme")),
        Case("activations at both ends", (*matrix(g, 5, 3), loud_codes(g, 3)), tags=tags("extreme")),
    ]


I8_CODES = "np.concatenate([packed & 15, packed >> 4], -1).astype(np.int32)"
I8_DOTS = '(codes * q["codes"].astype(np.int32)).sum(-1, dtype=np.int32)'
I8_CENTER = 'dots - zero.astype(np.int32) * q["sum"]'
I8_Y = '(scale * q["scale"] * centered).sum(-1)'
INT8 = Exercise(
    "int8_gemv",
    points=10,
    difficulty=2,
    cases=int8_cases,
    properties=(
        Property("the integers, exactly", hold.has_the_dots, 2, tags=tags("usual")),
        Property("no integer overflows", hold.has_the_dots, 1, tags=tags("extreme")),
        Property("the results", hold.has_the_results, 3, tags=tags("usual")),
        Property("the results at the ends of the range", hold.has_the_results, 1, tags=tags("extreme")),
    ),
    mistakes=(
        mistake(
            "halves-swapped",
            "low and high halves exchanged",
            "layout",
            "You take the high halves first. Byte j of a group holds code j low and code j + 32 high.",
            (I8_CODES, "np.concatenate([packed >> 4, packed & 15], -1).astype(np.int32)"),
        ),
        mistake(
            "neighbors",
            "codes taken as neighbors",
            "layout",
            "You lay the two codes of a byte side by side. In this layout they are 32 places apart.",
            (I8_CODES, "np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1).astype(np.int32)"),
        ),
        mistake(
            "signed-codes",
            "codes read as signed",
            "zero-point",
            "You read codes above 7 as negative, as formats with signed nibbles do. These are unsigned and have a zero "
            "point.",
            (I8_CODES, "((np.concatenate([packed & 15, packed >> 4], -1).astype(np.int32) + 8) % 16 - 8)"),
        ),
        mistake(
            "sixteen-bits",
            "sums of 16 bits",
            "saturation",
            "You add 64 products in 16 bits. 64 * 15 * 127 is 121,920, and the sum wraps around.",
            (I8_DOTS, '(codes * q["codes"].astype(np.int32)).sum(-1, dtype=np.int16).astype(np.int32)'),
        ),
        mistake(
            "eight-bits",
            "products of 8 bits",
            "saturation",
            "You multiply in 8 bits, where 15 * 127 has no room. Widen the codes before you multiply.",
            (I8_DOTS, '(codes.astype(np.int8) * q["codes"]).sum(-1, dtype=np.int32)'),
        ),
        mistake(
            "zero-forgotten",
            "no zero point",
            "zero-point",
            "You leave the zero point out. Each group is then off by zero times the sum of its activations.",
            (I8_CENTER, "dots"),
        ),
        mistake(
            "zero-without-activations",
            "the zero point without the activations",
            "zero-point",
            "You subtract the zero point itself, where each of 64 weights has it: zero times the *sum of the "
            "activations* must go.",
            (I8_CENTER, "dots - zero.astype(np.int32)"),
        ),
        mistake(
            "zero-in-8-bits",
            "the correction overflows",
            "zero-point",
            "You multiply zero point and sum in 16 bits or fewer. The sum alone needs 14 bits, its product with the "
            "zero point 18.",
            (I8_CENTER, '(dots.astype(np.int16) - zero.astype(np.int16) * q["sum"].astype(np.int16)).astype(np.int32)'),
        ),
        mistake(
            "scales-after-the-sum",
            "groups are added before they are scaled",
            "zero-point",
            "You add the integers of all groups and scale once. Each group has a scale of its own, so integers of two "
            "groups are in different units.",
            (I8_Y, '(scale.mean(-1) * q["scale"].mean() * centered.sum(-1))'),
        ),
        mistake(
            "activation-scale-forgotten",
            "the activations' scale is forgotten",
            "zero-point",
            "You multiply by the weights' scale alone. The result is in steps of the activations.",
            (I8_Y, "(scale * centered).sum(-1)"),
        ),
    ),
    alternatives=(
        Alternative(
            "einsum, half by half",
            "def int8_gemv(packed, scale, zero, q):\n"
            "    a = q['codes'].astype(np.int64)\n"
            "    dots = np.einsum('rgj,gj->rg', (packed % 16).astype(np.int64), a[:, :32])\n"
            "    dots += np.einsum('rgj,gj->rg', (packed // 16).astype(np.int64), a[:, 32:])\n"
            "    y = (scale.astype(np.float64) * q['scale'] * (dots - zero * a.sum(1))).sum(1)\n"
            "    return {'dots': dots.astype(np.int32), 'y': y.astype(np.float32)}\n",
        ),
    ),
)

# 6. simd_dot


def simd_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "simd_dot")
    n = 0 if visible else 1

    def nibbles(k: int) -> tuple[np.ndarray, np.ndarray]:
        return g.integers(0, 16, (k, 32), np.uint8), g.integers(-127, 128, (k, 32), np.int8)

    def bytes_(k: int) -> tuple[np.ndarray, np.ndarray]:
        return g.integers(100, 256, (k, 32), np.uint8), g.integers(-128, 128, (k, 32), np.int8)

    def all_of(k: int, u: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((k, 32), u, np.uint8), np.full((k, 32), s, np.int8)

    return [
        Case("one vector of 4-bit codes", nibbles(1), tags=tags("nibbles")),
        Case("two vectors of 4-bit codes", nibbles(2 + n), tags=tags("nibbles")),
        Case("eight vectors at the end of the range", all_of(8, 15, -127 if n else 127), tags=tags("nibbles")),
        Case("nine vectors at the end of the range", all_of(9 + n, 15, 127), tags=tags("wraps")),
        Case("one vector of 8-bit codes", bytes_(1), tags=tags("saturates")),
        Case("three vectors of 8-bit codes", bytes_(3 + n), tags=tags("saturates", "wraps")),
        Case("the largest pair", all_of(1, 255, 127 - n), tags=tags("saturates")),
        Case("the smallest pair", all_of(1 + n, 255, -128), tags=tags("saturates")),
    ]


SIM_PAIRS = "np.clip(products[:, ::2] + products[:, 1::2], -32768, 32767).astype(np.int16)"
SIM_TOTAL = "pairs.sum(0, dtype=np.int16)"
SIM_LANES = "total[::2].astype(np.int32) + total[1::2].astype(np.int32)"
SIMD = Exercise(
    "simd_dot",
    points=8,
    difficulty=2,
    cases=simd_cases,
    properties=(
        Property("pairs of 4-bit codes", hold.has_the_pairs, 1, tags=tags("nibbles")),
        Property("pairs saturate", hold.has_the_pairs, 2, tags=tags("saturates")),
        Property("lanes of 32 bits", hold.has_the_lanes, 2, tags=tags("nibbles")),
        Property("sums of 16 bits wrap around", hold.has_the_lanes, 1, tags=tags("wraps")),
    ),
    mistakes=(
        mistake(
            "pairs-wrap",
            "pairs wrap around",
            "saturation",
            "You let too large a pair wrap around. vpmaddubsw saturates: 64,770 becomes 32,767, which is silent and "
            "still wrong.",
            (SIM_PAIRS, "(products[:, ::2] + products[:, 1::2]).astype(np.int16)"),
        ),
        mistake(
            "lower-end-wrong",
            "saturated to -32767",
            "saturation",
            "You saturate to -32767. 16 bits reach one further down than up.",
            ("-32768, 32767", "-32767, 32767"),
        ),
        mistake(
            "pairs-of-halves",
            "partners half a vector apart",
            "intrinsics",
            "You add product i to product i + 16. The instruction adds neighbors.",
            (SIM_PAIRS, "np.clip(products[:, :16] + products[:, 16:], -32768, 32767).astype(np.int16)"),
        ),
        mistake(
            "operands-swapped",
            "signed and unsigned exchanged",
            "intrinsics",
            "You read the first operand as signed and the second as unsigned. The order matters, and a compiler cannot "
            "warn: both are vectors of bytes.",
            (
                "u.astype(np.int32) * s.astype(np.int32)",
                "u.view(np.int8).astype(np.int32) * s.view(np.uint8).astype(np.int32)",
            ),
        ),
        mistake(
            "widened-early",
            "vectors are added in 32 bits",
            "saturation",
            "You add the vectors in 32 bits. That is safe, and takes two instructions more for each: vpaddw adds "
            "16-bit numbers, and wraps.",
            (SIM_TOTAL, "pairs.sum(0, dtype=np.int32)"),
        ),
        mistake(
            "sums-saturate",
            "sums saturate too",
            "saturation",
            "You saturate the sum of the vectors. There is an instruction that does (vpaddsw); vpaddw wraps around.",
            (SIM_TOTAL, "np.clip(pairs.sum(0, dtype=np.int32), -32768, 32767).astype(np.int16)"),
        ),
        mistake(
            "lanes-of-halves",
            "lanes half a vector apart",
            "intrinsics",
            "You add the halves of the 16 sums. vpmaddwd, too, adds neighbors.",
            (SIM_LANES, "total[:8].astype(np.int32) + total[8:].astype(np.int32)"),
        ),
        mistake(
            "lanes-in-16-bits",
            "lanes of 16 bits",
            "saturation",
            "You add neighbors in 16 bits and widen afterwards. The point of vpmaddwd is that its sums have 32.",
            (SIM_LANES, "(total[::2] + total[1::2]).astype(np.int32)"),
        ),
    ),
    alternatives=(
        Alternative(
            "in Python's integers",
            "def simd_dot(u, s):\n"
            "    def wrap(v):\n"
            "        return (v + 32768) % 65536 - 32768\n"
            "    rows = []\n"
            "    for a, b in zip(u.tolist(), s.tolist()):\n"
            "        sums = [a[i] * b[i] + a[i + 1] * b[i + 1] for i in range(0, 32, 2)]\n"
            "        rows.append([max(-32768, min(32767, v)) for v in sums])\n"
            "    total = [0] * 16\n"
            "    for row in rows:\n"
            "        total = [wrap(t + v) for t, v in zip(total, row)]\n"
            "    lanes = [total[i] + total[i + 1] for i in range(0, 16, 2)]\n"
            "    return {'pairs': np.array(rows, np.int16), 'lanes': np.array(lanes, np.int32)}\n",
        ),
    ),
)

# 7. gemv_fast


def fast_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "gemv_fast")
    n = 0 if visible else 1

    def case(name: str, rows: int, groups: int, *names: str, **fixed: Any) -> Case:
        packed, scale, zero = fixed.get("matrix") or matrix(g, rows, groups)
        q = fixed.get("q") or quantized(g.standard_normal(64 * groups))
        return Case(name, (packed, scale, zero, q["codes"], q["scale"], q["sum"]), tags=tags(*names))

    full = matrix(g, 5, 9 + n)
    full[0][:] = 255
    rows, groups = 1024 + 37 * n, 32
    sizes = {"seed": int(g.integers(2**31)), "shape": (rows, groups, 32)}
    _, scale, zero = matrix(g, rows, groups)
    q = quantized(g.standard_normal(64 * groups))
    layer = (Ref("random_array", {"kind": "uint8", **sizes}), scale, zero, q["codes"], q["scale"], q["sum"])
    return [
        case("one group", 3 + n, 1, "small"),
        case("several groups", 8, 3 + n, "small"),
        case(
            "groups of other sizes", 4, 4, "small", q=quantized(g.standard_normal(256) * np.repeat([1, 30, 0.1, 7], 64))
        ),
        case("one row", 1, 5 + n, "rows"),
        case("an odd number of rows", 7 + 2 * n, 2, "rows"),
        case("many more rows than groups", 130 + n, 1, "rows"),
        case("codes of 15, activations of 127", 5, 9 + n, "extreme", matrix=full, q=loud_codes(g, 9 + n, 1)),
        case("codes of 15, activations of -127", 5, 9 + n, "extreme", matrix=full, q=loud_codes(g, 9 + n, -1)),
        case("activations at both ends", 6, 33, "extreme", q=loud_codes(g, 33)),
        Case("a large matrix", layer, tags=tags("large")),
    ]


NUMBA_ALONE = (
    "@njit(nogil=True)\n"
    "def _gemv(packed, scale, zero, codes, code_scale, code_sum):\n"
    "    y = np.empty(len(packed), np.float32)\n"
    "    for r in range(len(packed)):\n"
    "        t = np.float32(0)\n"
    "        for g in range(packed.shape[1]):\n"
    "            lo = hi = np.int32(0)\n"
    "            for j in range(32):\n"
    "                lo += np.int32(packed[r, g, j] % 16) * np.int32(codes[g, j])\n"
    "                hi += np.int32(packed[r, g, j] // 16) * np.int32(codes[g, 32 + j])\n"
    "            t += np.float32(lo + hi - code_sum[g] * zero[r, g]) * (scale[r, g] * code_scale[g])\n"
    "        y[r] = t\n"
    "    return y\n"
    "@kernel\n"
    "def gemv_fast(tool):\n"
    "    return _gemv if tool == 'numba' else None\n"
)


def fast_race(seed: int) -> Race:
    g = generator(seed, False, "gemv_fast race")
    some = [quantized(g.standard_normal(64 * RACE_GROUPS)) for _ in range(RACE_CALLS)]
    each = tuple((q["codes"], q["scale"], q["sum"]) for q in some)
    return race_on(int(g.integers(2**31)), each, NUMBA_ALONE)


def in_both(c: tuple[str, str], numba: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    """A mistake in the C text and in the numba function."""
    return c, numba


C_FIRST, C_SECOND = "_mm256_and_si256(bytes, low)", "_mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)"
C_PLAIN = "(w[j] & 15) * a[j] + (w[j] >> 4) * a[j + 32]"
C_CENTER, N_CENTER = "- zero[i] * code_sum[g];", "dot - np.int32(zero[row, g]) * code_sum[g]"
C_TOTAL, N_TOTAL = "total += scale[i] * code_scale[g]", "total += scale[row, g] * code_scale[g]"
FAST = Exercise(
    "gemv_fast",
    points=12,
    difficulty=3,
    cases=fast_cases,
    properties=(
        Property("the product", hold.multiplies_integers, 3, tags=tags("small")),
        Property("any number of rows and groups", hold.multiplies_integers, 2, tags=tags("rows")),
        Property("nothing overflows", hold.multiplies_integers, 2, tags=tags("extreme")),
        Property("a large matrix", hold.multiplies_integers, 1, tags=tags("large")),
    ),
    mistakes=(
        mistake(
            "halves-swapped",
            "low and high halves exchanged",
            "layout",
            "You multiply the low halves with the activations of the high ones. Byte j holds code j low and code j + "
            "32 high.",
            (f"first = {C_FIRST}", f"first = {C_SECOND}"),
            (f"second = {C_SECOND}", f"second = {C_FIRST}"),
            (C_PLAIN, "(w[j] >> 4) * a[j] + (w[j] & 15) * a[j + 32]"),
            ("low, high = np.int32(byte & 15)", "high, low = np.int32(byte & 15)"),
        ),
        mistake(
            "shifted-without-mask",
            "shifted and not masked",
            "intrinsics",
            "You shift the high halves down and do not mask them. There is no shift of bytes: the 16-bit shift drags "
            "the low half of the next byte in.",
            (f"second = {C_SECOND}", "second = _mm256_srli_epi16(bytes, 4)"),
            (C_PLAIN, "(w[j] & 15) * a[j] + ((w[j] | (j % 2 ? 0 : w[j + 1] << 8)) >> 4 & 255) * a[j + 32]"),
            (
                "low, high = np.int32(byte & 15), np.int32(byte >> 4)",
                "beyond = np.int32(packed[row, g, j + 1]) << 8 if j % 2 == 0 else 0\n"
                "                        low, high = np.int32(byte & 15), np.int32((byte | beyond) >> 4 & 255)",
            ),
        ),
        mistake(
            "same-activations",
            "both halves with the same activations",
            "intrinsics",
            "You multiply both halves with activations 0 to 31. The high halves belong to 32 to 63.",
            ("(const __m256i *)(a + 32)", "(const __m256i *)a"),
            (C_PLAIN, C_PLAIN.replace("a[j + 32]", "a[j]")),
            ("np.int32(codes[g, j + HALF])", "np.int32(codes[g, j])"),
        ),
        mistake(
            "operands-swapped",
            "signed and unsigned exchanged",
            "intrinsics",
            "You hand the signed activations to maddubs first. Its first operand is unsigned, its second signed, and "
            "both are just vectors of bytes to the compiler.",
            (
                "_mm256_maddubs_epi16(first, _mm256_loadu_si256((const __m256i *)a))",
                "_mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)a), first)",
            ),
            (
                "_mm256_maddubs_epi16(second, _mm256_loadu_si256((const __m256i *)(a + 32)))",
                "_mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)(a + 32)), second)",
            ),
            (C_PLAIN, "(w[j] & 15) * (uint8_t)a[j] + (w[j] >> 4) * (uint8_t)a[j + 32]"),
            ("np.int32(codes[g, j])", "(np.int32(codes[g, j]) & 255)"),
            ("np.int32(codes[g, j + HALF])", "(np.int32(codes[g, j + HALF]) & 255)"),
        ),
        mistake(
            "zero-forgotten",
            "no zero point",
            "zero-point",
            "You leave the zero point out. Each group is off by zero times the sum of its activations.",
            *in_both((C_CENTER, ";"), (N_CENTER, "dot")),
        ),
        mistake(
            "zero-without-activations",
            "the zero point without the activations",
            "zero-point",
            "You subtract the zero point itself. Each of 64 weights has it: zero times the sum of the activations must "
            "go.",
            *in_both((C_CENTER, "- zero[i];"), (N_CENTER, "dot - np.int32(zero[row, g])")),
        ),
        mistake(
            "zero-of-the-row",
            "the zero point of the row's first group",
            "zero-point",
            "You index zero points by the row. There is one for each row *and* group, as for scales.",
            *in_both(
                (C_CENTER, "- zero[row * groups] * code_sum[g];"),
                (N_CENTER, "dot - np.int32(zero[row, 0]) * code_sum[g]"),
            ),
        ),
        mistake(
            "activation-scale-forgotten",
            "the activations' scale is forgotten",
            "zero-point",
            "You multiply by the weights' scale alone. The result is in steps of the activations.",
            *in_both((C_TOTAL, "total += scale[i]"), (N_TOTAL, "total += scale[row, g]")),
        ),
        mistake(
            "sixteen-bits",
            "sums of 16 bits",
            "saturation",
            "Your sum over a group has 16 bits. Its two vectors of pairs fit, but the whole group does not: 64 * 15 * "
            "127 is 121,920.",
            (
                "int32_t centered = dot64(packed + 32 * i, codes + 64 * g)",
                "int32_t centered = (int16_t)dot64(packed + 32 * i, codes + 64 * g)",
            ),
            (
                "total += scale[row, g] *",
                "dot = (dot + np.int32(32768)) % np.int32(65536) - np.int32(32768)\n"
                "                    total += scale[row, g] *",
            ),
        ),
        mistake(
            "rows-in-fours",
            "the last rows are left out",
            "intrinsics",
            "You work on four rows at a time and forget those that remain.",
            *in_both(
                (
                    "    for (int64_t row = 0; row < rows; row++) {",
                    "    for (int64_t row = 0; row < rows; row++) y[row] = 0;\n"
                    "    for (int64_t row = 0; row < rows / 4 * 4; row++) {",
                ),
                ("for row in range(rows):", "for row in range(rows // 4 * 4):"),
            ),
        ),
        mistake(
            "counter-of-8-bits",
            "a counter that is too small",
            "intrinsics",
            "Your results beyond row 127 are missing: a loop counter, or the type that an index was cast to, has too "
            "few bits.",
            *in_both(
                (
                    "    for (int64_t row = 0; row < rows; row++) {",
                    "    for (int64_t row = 0; row < rows; row++) y[row] = 0;\n"
                    "    for (int64_t row = 0; row < (rows < 127 ? rows : 127); row++) {",
                ),
                ("for row in range(rows):", "for row in range(min(rows, 127)):"),
            ),
        ),
    ),
    alternatives=(
        Alternative("numba alone", NUMBA_ALONE),
        Alternative(
            "plain C",
            "@kernel\n"
            "def gemv_fast(tool):\n"
            "    if tool == 'numba':\n"
            "        def slow(packed, scale, zero, codes, code_scale, code_sum):\n"
            "            q = {'codes': codes, 'scale': code_scale, 'sum': code_sum}\n"
            "            return int8_gemv(packed, scale, zero, q)['y']\n"
            "        return slow\n"
            "    return '''\n"
            "void gemv(const uint8_t *p, const float *s, const uint8_t *z, const int8_t *a, const float *as,\n"
            "          const int32_t *am, float *y, int64_t rows, int64_t groups) {\n"
            "    for (int64_t r = 0; r < rows; r++) {\n"
            "        double t = 0;\n"
            "        for (int64_t g = 0; g < groups; g++, p += 32, s++, z++) {\n"
            "            int d = 0;\n"
            "            for (int j = 0; j < 32; j++)\n"
            "                d += (p[j] % 16) * a[64 * g + j] + (p[j] / 16) * a[64 * g + 32 + j];\n"
            "            t += (double)*s * as[g] * (d - *z * am[g]);\n"
            "        }\n"
            "        y[r] = t;\n"
            "    }\n"
            "}'''\n",
        ),
    ),
    seconds=20.0,
    race=fast_race,
)

# 8. partition


def partition_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "partition")
    n = 0 if visible else 1
    cases = {
        "an even split": (16 * 8 * (2 + n), 4, "even"),
        "lines that do not divide evenly": (16 * (11 + 3 * n), 4, "uneven"),
        "a last line that is not full": (16 * 9 + int(g.integers(1, 16)), 3, "uneven"),
        "one thread": (100 + 13 * n, 1, "even"),
        "more threads than lines": (16 * 2 + 5 + n, 5 + n, "few"),
        "fewer rows than a line": (7 + n, 3, "few"),
        "no rows": (0, 2 + n, "few"),
        "a layer of a 7B": (11008 if visible else 4096, 6 + n, "uneven"),
        "one line too many": (16 * (8 * (1 + n) + 1), 8, "uneven"),
    }
    return [Case(name, case[:2], tags=tags(case[2])) for name, case in cases.items()]


PAR_LINES = "math.ceil(rows / 16)"
PAR_NEXT = "start, start + lines // threads + (thread < lines % threads)"
PAR_PART = "[min(16 * start_line, rows), min(16 * start, rows)]"
PARTITION = Exercise(
    "partition",
    points=7,
    difficulty=1,
    cases=partition_cases,
    properties=(
        Property("each row in exactly one part", hold.splits_all_rows, 2, gate=True),
        Property("no two parts share a line", hold.shares_no_line, 2),
        Property("parts are fair", hold.is_fair, 2, tags=tags("even", "uneven")),
        Property("fewer rows than threads", hold.is_fair, 1, tags=tags("few")),
    ),
    mistakes=(
        mistake(
            "lines-shared",
            "parts meet within a line",
            "threads",
            "You split rows evenly, wherever that falls. Two threads then write into one line of 64 bytes, which "
            "travels between their cores with each write.",
            (PAR_LINES, "rows"),
            (PAR_PART, "[start_line, start]"),
        ),
        mistake(
            "rest-to-the-last",
            "the last thread gets the rest",
            "threads",
            "You give each thread the same whole number of lines and the last one all that remains. Everybody then "
            "waits for it.",
            (PAR_NEXT, "start, lines if thread == threads - 1 else start + lines // threads"),
        ),
        mistake(
            "rounded-up",
            "parts are rounded up",
            "threads",
            "You give each thread the rounded-up share until the rows run out. 9 lines for 8 threads make parts of "
            "two, and three threads have nothing to do.",
            (PAR_NEXT, "start, min(start + math.ceil(lines / threads), lines)"),
        ),
        mistake(
            "last-line-lost",
            "a last line that is not full is lost",
            "threads",
            "You divide the rows by 16 and drop the rest: up to 15 rows are never computed.",
            (PAR_LINES, "rows // 16"),
        ),
        mistake(
            "remainder-lost",
            "the lines that do not divide evenly are lost",
            "threads",
            "You give each thread lines // threads lines; those that remain belong to nobody.",
            (PAR_NEXT, "start, start + lines // threads"),
        ),
        mistake(
            "past-the-end",
            "parts reach past the last row",
            "threads",
            "Your last part ends at a multiple of 16 behind the matrix: a kernel would read and write what is not its "
            "own.",
            (PAR_PART, "[16 * start_line, 16 * start]"),
        ),
        mistake(
            "inclusive",
            "ends are included",
            "threads",
            "You name the last row of a part as its stop. Slices and loops exclude the stop, so one row of each part "
            "is left out.",
            (PAR_PART, "[min(16 * start_line, rows), max(min(16 * start, rows) - 1, 0)]"),
        ),
        mistake(
            "empty-parts-dropped",
            "fewer parts than threads",
            "threads",
            "You leave empty parts out. A thread that finds no part of its own has to be handled somewhere else.",
            ("        parts.append(", "        if start > start_line or thread == 0:\n            parts.append("),
        ),
        mistake(
            "lines-of-64",
            "lines of 64 rows",
            "threads",
            "You round to 64 rows. A line has 64 *bytes*, 16 results in float32; coarser parts are less fair.",
            (PAR_LINES, "math.ceil(rows / 64)"),
            (PAR_PART, "[min(64 * start_line, rows), min(64 * start, rows)]"),
        ),
    ),
    alternatives=(
        Alternative(
            "borders first",
            "def partition(rows, threads):\n"
            "    lines = -(-rows // 16)\n"
            "    borders = [min(rows, 16 * (lines * t // threads)) for t in range(threads + 1)]\n"
            "    return [list(pair) for pair in zip(borders, borders[1:])]\n",
        ),
        Alternative(
            "numpy",
            "def partition(rows, threads):\n"
            "    parts, at = [], 0\n"
            "    for lines in map(len, np.array_split(np.arange((rows + 15) // 16), threads)):\n"
            "        stop = min(rows, at + 16 * lines)\n"
            "        parts.append((at, stop))\n"
            "        at = stop\n"
            "    return parts\n",
        ),
    ),
    same_form=False,
)

# 9. tile_schedule


def tile_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "tile_schedule")
    n = 0 if visible else 1
    row, token = int(g.integers(90, 130)), int(g.integers(40, 60))
    few = int(g.integers(5, 8))
    return [
        Case("all tokens fit", (40 + 3 * n, 12, row, token, 12 * token + row + 5), tags=tags("tokens")),
        Case("some tokens fit", (60 + n, 33 + n, row, token, few * token + row + 7), tags=tags("tokens")),
        Case("tokens and a row fit exactly", (50 + n, 24, row, token, 8 * token + row), tags=tags("tokens")),
        Case("rows are few and small", (11 + n, 60 + n, 30 + n, 200, 11 * 31 + 12 * 31 * n + 400), tags=tags("rows")),
        Case("rows are cheaper to hold", (26 + n, 50, 25, 160 + n, 4 * 185 + 9 * 25), tags=tags("rows")),
        Case("a small cache", (30 + n, 31, row, token, 4 * (row + token)), tags=tags("small")),
        Case("one token", (21 + n, 1, row, token, 4 * (row + token)), tags=tags("small")),
        Case("two rows", (2, 45 + n, row, token, 4 * (row + token)), tags=tags("small")),
    ]


TIL_TOKENS = "if fit * token_bytes + row_bytes <= cache:"
TIL_ROWS = "if fit * row_bytes + 2 * token_bytes <= cache:"
TIL_LAST = "return np.array(min(plans, key=lambda plan: plan[0])[1])"
TILES = Exercise(
    "tile_schedule",
    points=10,
    difficulty=3,
    cases=tile_cases,
    properties=(
        Property("each product exactly once", hold.covers_each_product_once, 1, gate=True),
        Property("few bytes where tokens are held", hold.fetches_little, 3, tags=tags("tokens")),
        Property("few bytes where rows are held", hold.fetches_little, 2, tags=tags("rows")),
        Property("few bytes with a small cache, one token or two rows", hold.fetches_little, 2, tags=tags("small")),
    ),
    mistakes=(
        mistake(
            "token-by-token",
            "one token after the other",
            "tiles",
            "You take one token through all rows, then the next: the whole matrix passes once for each token, as in "
            "decoding. A prompt is there at once; hold some of its tokens.",
            (TIL_LAST, "return np.array([[0, rows, t, t + 1] for t in range(tokens)])"),
        ),
        mistake(
            "one-tile",
            "one tile for everything",
            "tiles",
            "You compute all in one tile. Its tokens do not fit, and each row drives out what the next one needs: "
            "nothing is ever used twice.",
            (TIL_LAST, "return np.array([[0, rows, 0, tokens]])"),
        ),
        mistake(
            "one-token-too-many",
            "no room for the row that passes",
            "tiles",
            "You fill the cache with tokens and leave no room for the row that passes. Each row then drives a token "
            "out just before it is needed, and the next one, and the next.",
            (TIL_TOKENS, "if fit * token_bytes <= cache:"),
        ),
        mistake(
            "always-tokens",
            "rows are never held",
            "tiles",
            "You always hold tokens and let rows pass. Where tokens are large and rows few, it is cheaper the other "
            "way around.",
            (TIL_ROWS, "if fit * row_bytes + 2 * token_bytes <= 0:"),
        ),
        mistake(
            "always-rows",
            "tokens are never held",
            "tiles",
            "You always hold rows and let tokens pass. With many rows, every token then passes again and again.",
            (TIL_TOKENS, "if fit == 1:"),
            (TIL_LAST, "return np.array(min(plans[1:], key=lambda plan: plan[0])[1])"),
        ),
        mistake(
            "half-of-the-cache",
            "half of the cache is left empty",
            "tiles",
            "Your tiles fill half of the cache. A larger tile needs fewer passes; leave room for what passes and no "
            "more.",
            (TIL_TOKENS, "if fit * token_bytes + row_bytes <= cache / 2 or fit == 1:"),
            (TIL_ROWS, "if fit * row_bytes + 2 * token_bytes <= cache / 2:"),
        ),
        mistake(
            "sizes-exchanged",
            "sizes of rows and tokens exchanged",
            "tiles",
            "You take the bytes of a row for those of a token, so your tiles are too large or too small.",
            (TIL_TOKENS, "if fit * row_bytes + token_bytes <= cache:"),
            (TIL_ROWS, "if fit * token_bytes + 2 * row_bytes <= cache:"),
        ),
        mistake(
            "remainder-lost",
            "the last tile is lost",
            "tiles",
            "You plan whole tiles only. Tokens or rows that do not fill one are never computed.",
            ("for t in range(0, tokens, fit)]", "for t in range(0, tokens - fit + 1, fit)]"),
            ("for r in range(0, rows, fit)]", "for r in range(0, rows - fit + 1, fit)]"),
        ),
        mistake(
            "past-the-end",
            "tiles reach past the end",
            "tiles",
            "Your last tile reaches past the last token or row: a kernel would read what is not there.",
            ("min(t + fit, tokens)", "t + fit"),
            ("min(r + fit, rows)", "r + fit"),
        ),
    ),
    alternatives=(
        Alternative(
            "tried out with replay",
            "def tile_schedule(rows, tokens, row_bytes, token_bytes, cache):\n"
            "    best = None\n"
            "    tries = [('tokens', n) for n in range(1, tokens + 1)] + [('rows', n) for n in range(1, rows + 1)]\n"
            "    for held, n in tries:\n"
            "        if held == 'tokens':\n"
            "            tiles = [(0, rows, a, min(a + n, tokens)) for a in range(0, tokens, n)]\n"
            "        else:\n"
            "            tiles = [(a, min(a + n, rows), t, t + 1) for a in range(0, rows, n) for t in range(tokens)]\n"
            "        cost = replay(tiles, row_bytes, token_bytes, cache)\n"
            "        if best is None or cost < best[0]:\n"
            "            best = cost, tiles\n"
            "    return np.asarray(best[1])\n",
        ),
    ),
    seconds=5.0,
    same_form=False,
)

# 10. tokens_per_second


def rate_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "tokens_per_second")
    n = 0 if visible else 1
    layers = int(g.integers(8, 30))
    shapes = [(4096, 4096, 4 * layers), (11008, 4096, 2 * layers), (4096, 11008, layers), (32000, 4096, 1)]
    small = [(576, 576 + 64 * n, 30), (1536, 576, 60)]
    bandwidth, rate = float(g.uniform(15e9, 40e9)), float(g.uniform(5e9, 9e9))
    width = 37 / 64 if visible else 4.5 / 8
    return [
        Case("a kernel that waits for its instructions", (shapes, width, rate, bandwidth, 1), tags=tags("compute")),
        Case("a slow kernel on many cores", (shapes, width, rate / 20, bandwidth, 8 + n), tags=tags("compute")),
        Case("enough cores to wait for memory", (shapes, width, 4 * rate, bandwidth, 4 + n), tags=tags("memory")),
        Case("dense weights", (small, 4.0, 2 * rate, bandwidth / 2, 2), tags=tags("memory")),
        Case("with time for the rest", (small, width, rate, bandwidth, 1, 0.05 + 0.01 * n), tags=tags("rest")),
        Case(
            "rest, and memory decides",
            (shapes, 2.0, 3 * rate, bandwidth, 3),
            {"rest": 0.05 + 0.01 * n},
            tags=tags("rest"),
        ),
        Case("both take the same time", ([(100 + 100 * n, 16, 5)], 0.5, 1024.0, 1024.0, 2), tags=tags("equal")),
    ]


RATE_WEIGHTS = "sum(rows * columns * count for rows, columns, count in shapes)"
RATE_COMPUTE = "weights / (weights_per_second * threads)"
RATE_TOTAL = "1 / (max(fetching, computing) + rest)"
RATE = Exercise(
    "tokens_per_second",
    points=6,
    difficulty=1,
    cases=rate_cases,
    properties=(
        Property("a kernel that waits for instructions", hold.predicts_the_rate, 1.5, tags=tags("compute")),
        Property("a kernel that waits for memory", hold.predicts_the_rate, 1.5, tags=tags("memory")),
        Property("with the rest of a token", hold.predicts_the_rate, 1, tags=tags("rest")),
        Property("names what bounds it", hold.names_the_bound, 2),
    ),
    mistakes=(
        mistake(
            "bandwidth-for-each-core",
            "a memory for each core",
            "roofs",
            "You multiply the bandwidth by the threads. All cores read through the same door; the figure is for all of "
            "them.",
            ("bytes_per_weight / bandwidth", "bytes_per_weight / (bandwidth * threads)"),
        ),
        mistake(
            "one-core",
            "only one core computes",
            "roofs",
            "You let one thread do all the work. The rows are shared evenly.",
            (RATE_COMPUTE, "weights / weights_per_second"),
        ),
        mistake(
            "added",
            "both times are added",
            "roofs",
            "You add the time for bytes and the time for instructions. A processor fetches ahead while it computes; "
            "the slower one decides.",
            ("max(fetching, computing)", "(fetching + computing)"),
        ),
        mistake(
            "the-faster-decides",
            "the faster one decides",
            "roofs",
            "You take the smaller of the two times. A product is done when its last byte has come *and* its last "
            "instruction has run.",
            ("max(fetching, computing)", "min(fetching, computing)"),
        ),
        mistake(
            "count-forgotten",
            "each shape once",
            "roofs",
            "You count each shape once. A model has it in every layer.",
            (RATE_WEIGHTS, "sum(rows * columns for rows, columns, _ in shapes)"),
        ),
        mistake(
            "rest-forgotten",
            "the rest is forgotten",
            "roofs",
            "You leave out what is not in the matrices. Attention, norms and sampling come on top.",
            (RATE_TOTAL, "1 / max(fetching, computing)"),
        ),
        mistake(
            "rest-hidden",
            "the rest is hidden behind the matrices",
            "roofs",
            "You take the rest as a third clock that runs beside the others. It needs the same cores, before or after.",
            (RATE_TOTAL, "1 / max(fetching, computing, rest)"),
        ),
        mistake(
            "bound-swapped",
            "the other bound is named",
            "roofs",
            "You name the clock that is done first. What bounds a kernel is what it waits for at the end.",
            ('"memory" if fetching > computing', '"memory" if fetching < computing'),
        ),
        mistake(
            "bits-for-bytes",
            "bits taken for bytes",
            "roofs",
            "You divide by eight. The argument is bytes for each weight.",
            ("weights * bytes_per_weight", "weights * bytes_per_weight / 8"),
        ),
        mistake(
            "seconds",
            "seconds of a token",
            "roofs",
            "You return the seconds of a token. Its inverse was asked for.",
            (RATE_TOTAL, "max(fetching, computing) + rest"),
        ),
        mistake(
            "tie-to-memory",
            "equal times count as memory",
            "roofs",
            "You call it memory where both take the same time. The contract calls it compute, as lab 00 did on the "
            "ridge.",
            ("fetching > computing else", "fetching >= computing else"),
        ),
    ),
    alternatives=(
        Alternative(
            "matrix by matrix",
            "def tokens_per_second(shapes, bytes_per_weight, weights_per_second, bandwidth, threads, rest=0.0):\n"
            "    total, memory = rest, False\n"
            "    for rows, columns, count in shapes:\n"
            "        w = rows * columns\n"
            "        a, b = w * bytes_per_weight / bandwidth, w / weights_per_second / threads\n"
            "        total += count * max(a, b)\n"
            "        memory = a > b\n"
            "    return {'tokens_per_second': 1 / total, 'bound': 'memory' if memory else 'compute'}\n",
        ),
    ),
)

# 11. is_right_kernel

RIGHT = ("none", "float64", "integers first")
GROUPS = {
    "right": RIGHT,
    "layout": ("swapped nibbles", "neighbors", "signed codes", "zero is 8", "top code missing", "first scale"),
    "edges": (
        "tail left out",
        "rows in pairs",
        "256 rows",
        "loud inputs clipped",
        "loud inputs overflow",
        "zero over zero",
    ),
    "memory": ("cached by shape", "cached by weights", "cached by inputs", "tired"),
    "conduct": ("one buffer", "changes x", "changes weights", "changes scales"),
}
WORDS = {
    "none": "a plain kernel", "float64": "a kernel in float64", "integers first": "a kernel that sums codes first",
    "swapped nibbles": "a kernel with the halves of a byte exchanged", "neighbors": "a kernel for neighbors in a byte",
    "signed codes": "a kernel that reads codes as signed", "zero is 8": "a kernel that takes every zero point for 8",
    "top code missing": "a kernel without the code 15", "first scale": "a kernel with one scale for a row",
    "tail left out": "a kernel without the inputs of a last group that is not full",
    "rows in pairs": "a kernel for an even number of rows", "256 rows": "a kernel that counts rows in 8 bits",
    "loud inputs overflow": "a kernel whose sums overflow",
    "loud inputs clipped": "a kernel that clips inputs beyond 100", "zero over zero": "a kernel that divides 0 by 0",
    "cached by shape": "a kernel that remembers results by shape",
    "cached by weights": "a kernel that remembers results by weights",
    "cached by inputs": "a kernel that remembers results by inputs",
    "tired": "a kernel that works while it is watched", "one buffer": "a kernel with one buffer for all results",
    "changes x": "a kernel that empties the inputs", "changes weights": "a kernel that empties the codes",
    "changes scales": "a kernel that empties the scales",
}  # fmt: skip


def suspect_cases(seed: int, visible: bool) -> list[Case]:
    """Which flaws there are is no secret; the hidden exam asks in another order, and the flaws show elsewhere."""
    flaws = [(flaw, tag) for tag, names in GROUPS.items() for flaw in names]
    assert {flaw for flaw, _ in flaws} == set(FLAWS)
    if not visible:
        order = generator(seed, visible, "is_right_kernel").permutation(len(flaws))
        flaws = [flaws[i] for i in order]
    variant = 0 if visible else 1
    return [
        Case(WORDS[flaw], (Ref("suspect", {"flaw": flaw, "variant": variant}),), tags=tags(tag)) for flaw, tag in flaws
    ]


SUS_SHAPES = "((1, 64), (5, 130), (301, 70))"
SUS_BEFORE = """            if not all(map(np.array_equal, before, (packed, scale, zero, x))):
                return False
"""
SUS_BOUND = "1e-4 * np.abs(weights) @ np.abs(x)"
SUS_KEEP = "            earlier.append("
SUSPECTS = Exercise(
    "is_right_kernel",
    points=8,
    difficulty=3,
    cases=suspect_cases,
    properties=(
        Property("accepts every right kernel", hold.accepts, 2, gate=True, tags=tags("right")),
        Property("refuses kernels for another layout", hold.refuses, 2, tags=tags("layout")),
        Property("refuses kernels that are wrong at an edge", hold.refuses, 2, tags=tags("edges")),
        Property("refuses kernels that remember", hold.refuses, 2, tags=tags("memory")),
        Property("refuses kernels that touch what is not theirs", hold.refuses, 2, tags=tags("conduct")),
    ),
    mistakes=(
        mistake(
            "one-shape",
            "only one shape is tried",
            "honest-races",
            "You try one comfortable shape. Kernels are tuned on such shapes; what breaks are an odd row, a last group "
            "that is not full, and row 257.",
            (SUS_SHAPES, "((8, 64),)"),
        ),
        mistake(
            "one-call",
            "each kernel is called once",
            "honest-races",
            "You call a kernel once for each shape. What it remembers from one call to the next shows at the second.",
            ("range(6)", "range(1)"),
        ),
        mistake(
            "inputs-not-compared",
            "inputs are not looked at afterwards",
            "honest-races",
            "You do not look at the inputs after the call. A kernel that empties them gives the right result and "
            "leaves nothing for the next one.",
            (SUS_BEFORE, ""),
        ),
        mistake(
            "earlier-results-forgotten",
            "earlier results are not looked at again",
            "honest-races",
            "You look at a result when it comes and never again. A kernel that hands out one buffer overwrites it with "
            "the next call.",
            (SUS_KEEP, "            earlier = []\n            earlier.append("),
        ),
        mistake(
            "weights-never-change",
            "the weights never change",
            "honest-races",
            "You vary the inputs and keep the weights. A kernel that remembers results by inputs passes.",
            (
                "elif trial == 3:\n                packed[:] = random.integers(0, 256, packed.shape)\n",
                "elif trial == 3:\n                x[:] = x[::-1]\n",
            ),
            ("                scale[:] = scale[:, ::-1] / 2\n", "                x[:] = x[::-1] / 2\n"),
        ),
        mistake(
            "zeros-of-8",
            "every zero point is 8",
            "honest-races",
            "Your zero points are all 8. Test data that are special hide every kernel for which they are special.",
            ("zero = random.integers(0, 16, (rows, groups), np.uint8)", "zero = np.full((rows, groups), 8, np.uint8)"),
        ),
        mistake(
            "quiet-inputs",
            "inputs are never loud",
            "honest-races",
            "Your inputs are standard normal throughout. Real activations have channels hundreds of times as loud; a "
            "kernel that clips them passes your test and ruins a model.",
            ("1000 * random.standard_normal(columns)", "random.standard_normal(columns)"),
        ),
        mistake(
            "never-silent",
            "inputs are never silent",
            "honest-races",
            "You never try inputs of zero. They divide 0 by 0 in kernels that scale by the largest.",
            ("                x[:] = 0\n", "                x[:] = -x\n"),
        ),
        mistake(
            "equality",
            "float results must be equal",
            "honest-races",
            "You ask for the exact result. Sums of floats depend on their order, and every fast kernel sums in another "
            "one: you refuse right kernels.",
            (SUS_BOUND, "0 * (np.abs(weights) @ np.abs(x))"),
        ),
        mistake(
            "too-loose",
            "a bound that is too loose",
            "honest-races",
            "Your bound lets an error pass that is as large as the result. Take the bound of the contract, row by row.",
            (SUS_BOUND, "0.5 * np.abs(weights) @ np.abs(x)"),
        ),
        mistake(
            "nan-passes",
            "what is not a number passes",
            "honest-races",
            "You ask whether an error is *larger* than the bound. Comparisons with NaN are false, so NaN passes; ask "
            "whether it is at most the bound.",
            ("if not all((np.abs(got - wanted) <= bound).all()", "if any((np.abs(got - wanted) > bound).any()"),
        ),
    ),
    alternatives=(
        Alternative(
            "many random calls",
            "def is_right_kernel(gemv):\n"
            "    rng = np.random.default_rng(1)\n"
            "    for rows in (1, 2, 3, 17, 300):\n"
            "        columns = int(rng.integers(65, 190))\n"
            "        g = -(-columns // 64)\n"
            "        p, s = rng.integers(0, 256, (rows, g, 32), np.uint8), rng.random((rows, g), np.float32)\n"
            "        z, x = rng.integers(0, 16, (rows, g), np.uint8), rng.standard_normal(columns).astype(np.float32)\n"
            "        history = []\n"
            "        for step in range(8):\n"
            "            x *= np.float32([1, -1, 0, 1, 1, 1, 1, 1][step])\n"
            "            if step >= 3:\n"
            "                x += (10.0 ** (step - 4) * rng.standard_normal(columns)).astype(np.float32)\n"
            "            if step in (4, 6):\n"
            "                p[...], z[...] = rng.integers(0, 256, p.shape), rng.integers(0, 16, z.shape)\n"
            "            saved = [v.tobytes() for v in (p, s, z, x)]\n"
            "            w = dequantized(p, s, z)[:, :columns].astype(float)\n"
            "            wanted, slack = w @ x.astype(float), 1e-4 * (abs(w) @ abs(x))\n"
            "            if step in (4, 6):\n"
            "                old = x.copy()\n"
            "            y = gemv(p, s, z, x)\n"
            "            history.append((y, np.array(y)))\n"
            "            if saved != [v.tobytes() for v in (p, s, z, x)] or not (abs(y - wanted) <= slack).all():\n"
            "                return False\n"
            "            if step in (4, 6):  # other weights, the same inputs\n"
            "                p ^= 255\n"
            "                w = dequantized(p, s, z)[:, :columns].astype(float)\n"
            "                apart = abs(gemv(p, s, z, old) - w @ old.astype(float))\n"
            "                if not (apart <= 1e-4 * (abs(w) @ abs(old))).all():\n"
            "                    return False\n"
            "            if any(not np.array_equal(a, b) for a, b in history):\n"
            "                return False\n"
            "    return True\n",
        ),
    ),
    seconds=5.0,
)


EXAM = Exam(
    "05-kernels",
    (
        TRAFFIC,
        REPACK,
        GEMV,
        ACTIVATIONS,
        INT8,
        SIMD,
        FAST,
        PARTITION,
        TILES,
        RATE,
        SUSPECTS,
    ),
)
