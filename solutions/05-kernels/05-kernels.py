# %% [markdown]
# # Lab 05. Kernels: from slower at 4 bits to the roof
#
# Lab 04 left you with a model in 4 bits. It takes an eighth of the bytes of float32, and since decoding waits for
# memory it ought to be nearly eight times as fast. Run it with plain tools, and it is thirty times *slower*.
#
# Compression is not speed until there is a **kernel**, a loop that reads the packed bytes and multiplies. In this
# lab you climb from the slow end of the ladder to the roof of your machine, a factor of 200 and more, and each rung
# is one idea: do not materialize, lay the bytes out for the loop, multiply integers, use the wide instructions,
# split the rows among cores, tile a prompt. You guess before each rung.
#
# You need no compiler: [numba](https://numba.pydata.org) compiles Python loops on any system, and every point can be
# reached with it. Where there is a C compiler, the steepest rung is written in C. Points are for what a kernel
# *computes* and for the bytes that a plan moves, counted. Times that you measure here are yours alone; for two kernels
# the grader holds a race with a clock of its own, in turns with ours, and whoever needs at most 2.5 times as long as
# our *numba* kernel has all points. The lecture note is [Kernels and
# co-design](../../lecture_notes/kernels.md).

# %% role="setup"
import math

import numpy as np
from numba import njit

from fourbit.exam import check, confront, predict
from fourbit.measure.native import kernel
from fourbit.measure.traffic import Ledger, replay

GROUP = 64  # weights that share a scale and a zero point; a number that the compiler knows
HALF = GROUP // 2  # bytes of a group


def dequantized(packed, scale, zero):
    """The weights (rows, 64 groups), float32, that a packed matrix stands for."""
    codes = np.concatenate([packed & 15, packed >> 4], -1).astype(np.float32)  # (rows, groups, 64)
    return ((codes - zero[..., None]) * scale[..., None]).reshape(len(packed), -1)

# %% [markdown]
# The object of the whole lab: a matrix of a 7B, 11,008 outputs for 4,096 inputs, 45 million weights. In float32 it is
# 180 MB, more than any cache holds. One token multiplies it with one vector.

# %% role="measure"
import time

import matplotlib.pyplot as plt
import torch

from fourbit.measure.race import interleaved
from fourbit.measure.reading import read_roof
from fourbit.plots import COLORS, use_style

use_style()
torch.set_num_threads(1)
ROWS, COLUMNS = 11008, 4096
WEIGHTS = ROWS * COLUMNS
draw = np.random.default_rng(5)
dense = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(5)) * 0.02
x = draw.standard_normal(COLUMNS, np.float32)


def quantize(w):
    """Round to nearest in groups, as in lab 04: codes (out, in), scale and zero (out, groups)."""
    groups = w.view(len(w), -1, GROUP)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    codes = (groups / scale[..., None]).round_().add_(zero[..., None]).clamp_(0, 15)
    return codes.byte().view(w.shape).numpy(), scale.numpy(), zero.byte().numpy()


codes, scale, zero = quantize(dense)
rungs = {}  # name -> (seconds, bytes that one product moves)
(rungs["dense float32"],) = [(s, 4 * WEIGHTS) for s in interleaved(
    {"dense": lambda: torch.mv(dense, torch.from_numpy(x))}).values()]  # fmt: skip
roof = max(read_roof().bandwidth, 4 * WEIGHTS / rungs["dense float32"][0])  # the most that was seen
print(f"dense float32: {1e3 * rungs['dense float32'][0]:.1f} ms; one core reads {roof / 1e9:.1f} GB/s at best")

# %% [markdown]
# ## 1 · The obvious way
#
# The first idea of everybody, and of many a published "4-bit" layer: turn the codes back into floating-point weights,
# then call the fast matrix product. What does that move? Count bytes between memory and processor for three kernels
# that multiply one vector:
#
# * **dense** reads float32 weights;
# * **materialize** reads the packed matrix, writes float32 weights, and reads them again to multiply;
# * **fused** reads the packed matrix and never writes a weight anywhere.
#
# The packed matrix has 32 bytes of codes, a float32 scale and a zero point of one byte for each group of 64 inputs of
# a row; the last group of a row is filled up. (Lab 04 stored scales in 16 bits; numba cannot compute with these, so
# this lab keeps 32.) The vector is read once and the result is written once: both stay in a cache.

# %% exercise="gemv_traffic"
def gemv_traffic(rows, columns, kind):
    """Bytes that a matrix-vector product moves between memory and processor.

    Args:
        rows, columns: outputs and inputs of the matrix.
        kind: "dense", "materialize" or "fused". Float32 weights are written and read without the filling of the last
            group.

    Returns:
        {"read": bytes, "written": bytes, "per_weight": read and written bytes for each of the rows * columns weights}

    Example:
        >>> gemv_traffic(2, 96, "fused")  # 4 groups of 37 bytes and 96 inputs; 2 results
        {'read': 532, 'written': 8, 'per_weight': 2.8125}
    """
    ### BEGIN SOLUTION
    packed = rows * math.ceil(columns / GROUP) * (HALF + 4 + 1)
    weights = 4 * rows * columns
    read, written = 4 * columns, 4 * rows
    if kind != "dense":
        read += packed
    if kind != "fused":
        read += weights
    if kind == "materialize":
        written += weights
    return {"read": read, "written": written, "per_weight": (read + written) / (rows * columns)}
    ### END SOLUTION

# %% check="gemv_traffic"

# %% [markdown]
# A formula is a claim. Arrays that count can test it: a `Ledger` wraps arrays so that each access by index adds its
# bytes. Here are the three kernels in plain Python, on a small matrix, with one row at a time as the unit of work.

# %% role="measure"
def counted(kind, rows=6, columns=200):
    """What a kernel's accesses really add up to."""
    groups = math.ceil(columns / GROUP)
    ledger = Ledger()
    packed, scales, zeros, weights, inputs, y = ledger.trace(
        packed=np.zeros((rows, groups, HALF), np.uint8), scale=np.ones((rows, groups), np.float32),
        zero=np.zeros((rows, groups), np.uint8), weights=np.zeros((rows, columns), np.float32),
        x=np.ones(columns, np.float32), y=np.zeros(rows, np.float32),
    )  # fmt: skip
    vector = inputs[:]  # into a register or cache, once
    for row in range(rows) if kind == "materialize" else ():
        weights[row] = dequantized(packed[row][None], scales[row][None], zeros[row][None])[0, :columns]
    for row in range(rows):
        if kind == "fused":
            w = dequantized(packed[row][None], scales[row][None], zeros[row][None])[0, :columns]
        else:
            w = weights[row]
        y[row] = w @ vector
    return sum(ledger.read.values()), sum(ledger.written.values())


for kind in ("dense", "materialize", "fused"):
    claim, large = gemv_traffic(6, 200, kind), gemv_traffic(ROWS, COLUMNS, kind)
    print(f"{kind:12} claimed {claim['read']:6} read, {claim['written']:5} written; counted {counted(kind)};"
          f"  the large matrix: {large['per_weight']:.3f} bytes a weight")  # fmt: skip

# %% [markdown]
# Materializing moves 15 times the bytes of a fused kernel, and that is not all: unpacking in torch takes several
# passes over the data, each with a result of its own that goes out to memory and comes back.

# %% prediction="materialize"
predict("materialize", ..., "time of dequantize-then-multiply in torch, in multiples of the dense product")

# %% role="measure"
pairs = torch.from_numpy(codes[:, ::2] | codes[:, 1::2] << 4)  # two neighbors in a byte, the first one low
scale_t, zero_t = torch.from_numpy(scale)[..., None], torch.from_numpy(zero).float()[..., None]


def materialize():
    unpacked = torch.stack([pairs & 15, pairs >> 4], -1).view(ROWS, -1, GROUP).float()
    return torch.mv(((unpacked - zero_t) * scale_t).view(ROWS, COLUMNS), torch.from_numpy(x))


right = materialize().numpy()
seconds = interleaved({"materialize": materialize}, rounds=3)["materialize"]
rungs["materialize in torch"] = (seconds, gemv_traffic(ROWS, COLUMNS, "materialize")["per_weight"] * WEIGHTS)
confront("materialize", seconds / rungs["dense float32"][0])

# %% [markdown]
# ## 2 · Four bits in a loop
#
# So fuse: one loop that takes two codes out of each byte, scales them and multiplies, and writes no weight. numba
# compiles it. The bytes are those of the file, two neighbors in each.

# %% prediction="loops"
predict("loops", ..., "time of this loop over packed bytes, in multiples of the dense product")

# %% role="measure"
@njit(nogil=True)
def gemv_loops(pairs, scale, zero, x):
    y = np.zeros(len(pairs), np.float32)
    for row in range(len(pairs)):
        for j in range(len(x)):
            byte = pairs[row, j // 2]
            code = byte >> 4 if j % 2 else byte & 15
            y[row] += (np.float32(code) - np.float32(zero[row, j // 64])) * scale[row, j // 64] * x[j]
    return y


neighbors = pairs.numpy()
assert np.allclose(gemv_loops(neighbors, scale, zero, x), right, atol=1e-4)  # and compiles
seconds = interleaved({"loops": lambda: gemv_loops(neighbors, scale, zero, x)}, rounds=3)["loops"]
rungs["4-bit loops"] = (seconds, gemv_traffic(ROWS, COLUMNS, "fused")["per_weight"] * WEIGHTS)
confront("loops", seconds / rungs["dense float32"][0])
print(f"{1e9 * seconds / WEIGHTS:.2f} ns a weight: {1e-9 * rungs['4-bit loops'][1] / seconds:.2f} GB/s of packed bytes")

# %% [markdown]
# A seventh of the dense product's traffic, compiled code, and *still slower than dense float32* by far. It no longer
# waits for memory. It waits for its own instructions: a choice between two halves of a byte, two indices to compute and
# an addition that must wait for the one before it, for each weight, one weight at a time.
#
# ## 3 · A layout for the loop
#
# Processors work on **vectors**: one instruction adds or multiplies 8 or 16 numbers that lie side by side. With
# neighbors in one byte, unpacking yields the even codes in one vector and the odd codes in another, and neither lies
# beside the inputs that it is to be multiplied with. So choose the layout for the kernel: byte $j$ of a group holds
# code $j$ in its low half and code $j + 32$ in its high half. One *and* gives codes 0 to 31 in order, one shift gives
# 32 to 63. The maintained engines do the same: llama.cpp's Q4_0 pairs $j$ with $j + 16$ in blocks of 32.

# %% exercise="repack"
def repack(codes):
    """Codes in the kernel's layout.

    Args:
        codes: uint8 (rows, columns), 0 to 15.

    Returns:
        uint8 (rows, groups, 32), groups = ceil(columns / 64): byte j of a group holds the group's code j in its low
        four bits and code j + 32 in its high four bits. Where a row ends within a group, the codes that are missing
        are 0.

    Example:
        >>> repack(np.arange(96, dtype=np.uint8)[None] % 16)[0, :, :5].tolist()
        [[0, 17, 34, 51, 68], [0, 1, 2, 3, 4]]
    """
    ### BEGIN SOLUTION
    rows, columns = codes.shape
    filled = np.pad(codes, ((0, 0), (0, -columns % GROUP)))
    groups = filled.reshape(rows, -1, GROUP)
    return groups[..., :HALF] | groups[..., HALF:] << 4
    ### END SOLUTION

# %% check="repack"

# %% [markdown]
# Now the kernel. Three things make it fast, and all are about what the *compiler* can see:
#
# * the inner loop runs over one group and its length is the constant `HALF`, so that the compiler unrolls it and
#   uses vectors (with a length that it learns only at run time, the loop is two to three times slower);
# * scale and zero point leave the inner loop: $\sum_j s\,(q_j - z)\,x_j = s\,\big(\sum_j q_j x_j - z \sum_j x_j\big)$,
#   and the sum of the inputs of a group is the same for all rows;
# * the sum may be taken in any order, which a compiler allows itself only with `fastmath`.

# %% exercise="gemv_numba"
@njit(fastmath=True, nogil=True)
def gemv_numba(packed, scale, zero, x, sums):
    """A 4-bit matrix times a vector, compiled by numba.

    Args:
        packed: uint8 (rows, groups, 32) in the layout of `repack`; scale: float32 (rows, groups); zero: uint8 (rows,
            groups).
        x: float32 (groups, 64), the inputs, filled up with zeros; sums: float32 (groups,), the sum of each group.

    Returns:
        y float32 (rows,): for each row the sum of (code - zero) * scale * x.

    Example:
        >>> packed = np.full((3, 1, 32), 0x52, np.uint8)  # 32 codes of 2, then 32 of 5
        >>> scale, zero = np.full((3, 1), 0.5, np.float32), np.array([[0], [2], [5]], np.uint8)
        >>> x = np.ones((1, 64), np.float32)
        >>> gemv_numba(packed, scale, zero, x, x.sum(1)).tolist()
        [112.0, 48.0, -48.0]
    """
    ### BEGIN SOLUTION
    rows, groups, _ = packed.shape
    y = np.zeros(rows, np.float32)
    for row in range(rows):
        total = np.float32(0)
        for g in range(groups):
            dot = np.float32(0)
            for j in range(HALF):
                byte = packed[row, g, j]
                dot += np.float32(byte & 15) * x[g, j] + np.float32(byte >> 4) * x[g, j + HALF]
            total += scale[row, g] * (dot - np.float32(zero[row, g]) * sums[g])
        y[row] = total
    return y
    ### END SOLUTION

# %% check="gemv_numba"

# %% prediction="layout"
predict("layout", ..., "your kernel's speed, in multiples of the dense product's (above 1 is faster)")

# %% [markdown]
# The packed matrix is 25 MB, which a large cache could keep between two runs; a model reads all of its other matrices
# in between. So the measurement takes turns among copies, more than any cache holds.

# %% role="measure"
COPIES = 4
packed = [repack(codes) for _ in range(COPIES)]
turn = iter(range(10**9))


def taking_turns(gemv, *arguments):
    """A run of `gemv` on the next copy of the packed matrix."""
    return lambda: gemv(packed[next(turn) % COPIES], scale, zero, *arguments)


groups = x.reshape(-1, GROUP)
inputs = (groups, groups.sum(1))
assert np.allclose(gemv_numba(packed[0], scale, zero, *inputs), right, atol=1e-4)
times = interleaved({"dense": lambda: torch.mv(dense, torch.from_numpy(x)), "numba": taking_turns(gemv_numba, *inputs)})
rungs["numba, layout"] = (times["numba"], rungs["4-bit loops"][1])
confront("layout", times["dense"] / times["numba"])
print(f"dense {1e3 * times['dense']:.1f} ms, yours {1e3 * times['numba']:.1f} ms")

# %% [markdown]
# Look at what the compiler made of the two loops. Vector registers are called `xmm` (4 floats), `ymm` (8) and `zmm`
# (16) on x86, `v` on ARM; a fused multiply-add of vectors ends in `ps` ("packed single") there, one of single
# numbers in `ss`.

# %% role="measure"
import re

for function in (gemv_loops, gemv_numba):
    text = "\n".join(function.inspect_asm().values())
    kinds = {name: len(re.findall(pattern, text)) for name, pattern in {
        "wide registers": r"%[yz]mm|v\d+\.4s", "packed multiplications": r"v(?:mul|fn?madd\w*)ps|fmla",
        "single multiplications": r"v(?:mul|fn?madd\w*)ss|fmul\s+s"}.items()}  # fmt: skip
    print(f"{function.__name__:12} {kinds}")

# %% [markdown]
# ## 4 · Integers
#
# The loop now spends most of its instructions on turning codes into floats. So do not: multiply integers. That needs
# the *activations* in integers too. Eight bits each, one scale for each group, made once for a token and used by all
# 11,008 rows. Their sum is kept as well, for the zero point.

# %% exercise="quantize_activations"
def quantize_activations(x):
    """Activations in eight bits, group by group.

    Args:
        x: float32 (columns,), finite.

    Returns:
        {"codes": int8 (groups, 64), "scale": float32 (groups,), "sum": int32 (groups,)}. The inputs are filled up with
        zeros to whole groups. The scale is the largest magnitude of the group / 127 in float32, 1 where that is 0;
        codes are x / scale, rounded half to even and clamped to -127 .. 127; sum is the sum of a group's codes.

    Example:
        >>> q = quantize_activations(np.array([0.5, -63.5, 0.75, 2.0], np.float32))
        >>> q["codes"][0, :5].tolist(), q["scale"].tolist(), q["sum"].tolist()
        ([1, -127, 2, 4, 0], [0.5], [-120])
    """
    ### BEGIN SOLUTION
    groups = np.pad(x, (0, -len(x) % GROUP)).reshape(-1, GROUP)
    scale = np.abs(groups).max(1) / np.float32(127)
    scale[scale == 0] = 1
    codes = np.clip(np.rint(groups / scale[:, None]), -127, 127).astype(np.int8)
    return {"codes": codes, "scale": scale, "sum": codes.sum(1, dtype=np.int32)}
    ### END SOLUTION

# %% check="quantize_activations"

# %% [markdown]
# With weights $s\,(q_j - z)$ and activations $s_x a_j$, a group contributes
#
# $$\sum_j s\,(q_j - z)\, s_x a_j \;=\; s\,s_x \Big(\underbrace{\textstyle\sum_j q_j a_j}_{\text{dot, integers}} \;-\;
# z \underbrace{\textstyle\sum_j a_j}_{\text{kept}}\Big).$$
#
# Everything in the parentheses is an exact integer. Before you write it in the fastest way, write it in the plainest:
# this is the reference that all faster versions are compared with.

# %% exercise="int8_gemv"
def int8_gemv(packed, scale, zero, q):
    """A 4-bit matrix times 8-bit activations, in exact integers within each group.

    Args:
        packed, scale, zero: as for `gemv_numba`; q: what `quantize_activations` returns.

    Returns:
        {"dots": int32 (rows, groups), the sums of code times code, before any zero point or scale; "y": float32
        (rows,)}

    Example:
        >>> packed = np.full((1, 1, 32), 0xF1, np.uint8)  # 32 codes of 1, then 32 of 15
        >>> q = quantize_activations(np.full(64, -2.54, np.float32))
        >>> out = int8_gemv(packed, np.full((1, 1), 0.5, np.float32), np.array([[8]], np.uint8), q)
        >>> out["dots"].tolist(), out["y"].round(3).tolist()
        ([[-65024]], [0.0])
    """
    ### BEGIN SOLUTION
    codes = np.concatenate([packed & 15, packed >> 4], -1).astype(np.int32)  # (rows, groups, 64)
    dots = (codes * q["codes"].astype(np.int32)).sum(-1, dtype=np.int32)  # (rows, groups)
    centered = dots - zero.astype(np.int32) * q["sum"]
    y = (scale * q["scale"] * centered).sum(-1)
    return {"dots": dots, "y": y.astype(np.float32)}
    ### END SOLUTION

# %% check="int8_gemv"

# %% role="measure"
q = quantize_activations(x)
some = slice(0, 512)
ours = int8_gemv(packed[0][some], scale[some], zero[some], q)["y"]
error = np.linalg.norm(ours - right[some]) / np.linalg.norm(right[some])
exact = (dense[some] @ torch.from_numpy(x)).numpy()
rounding = np.linalg.norm(right[some] - exact) / np.linalg.norm(exact)
print(f"8-bit activations change the product by {error:.2%}, 4-bit weights by {rounding:.1%}")

# %% [markdown]
# Half a percent, on top of nine: that is cheap. Now the instruction. On x86, `vpmaddubsw` multiplies 32 *unsigned*
# bytes with 32 *signed* ones and adds neighbors: 32 products, 16 sums of 16 bits each, in one instruction. A sum
# that does not fit into 16 bits is **saturated** to the nearest that does, without a word. (ARM's `sdot` adds four
# products into 32 bits; so does `vpdpbusd` on newer x86. The trap is AVX2's, and many laptops have nothing newer.)
# Several results may be added in 16 bits before `vpmaddwd` adds neighbors into 32. Emulate it, so that you know
# when it is right.

# %% exercise="simd_dot"
def simd_dot(u, s):
    """The dot product as an AVX2 kernel takes it, trap included.

    Args:
        u: uint8 (k, 32), k vectors of unsigned bytes; s: int8 (k, 32), of signed ones.

    Returns:
        {"pairs": int16 (k, 16), u[2i] * s[2i] + u[2i + 1] * s[2i + 1], saturated to -32768 .. 32767 (vpmaddubsw);
        "lanes": int32 (8,): the k vectors of pairs are added in 16 bits, where too large a sum wraps around (vpaddw),
        then the neighbors 2i and 2i + 1 of the 16 sums are added in 32 bits (vpmaddwd with ones)}

    Example:
        >>> u, s = np.full((2, 32), 255, np.uint8), np.full((2, 32), 127, np.int8)
        >>> out = simd_dot(u, s)
        >>> out["pairs"][0, :2].tolist(), out["lanes"][:2].tolist()  # 64770 is too large; 32767 + 32767 wraps to -2
        ([32767, 32767], [-4, -4])
    """
    ### BEGIN SOLUTION
    products = u.astype(np.int32) * s.astype(np.int32)  # (k, 32)
    pairs = np.clip(products[:, ::2] + products[:, 1::2], -32768, 32767).astype(np.int16)
    total = pairs.sum(0, dtype=np.int16)  # (16,)
    lanes = total[::2].astype(np.int32) + total[1::2].astype(np.int32)
    return {"pairs": pairs, "lanes": lanes}
    ### END SOLUTION

# %% check="simd_dot"

# %% [markdown]
# **Question 1.** Can a pair ever saturate with 4-bit codes and activations of −127 to 127? With 8-bit codes? And how
# many vectors of pairs of 4-bit codes may be added in 16 bits before the sum can wrap? Give the numbers.

# %% [markdown] written="saturation" points=1
# A pair of 4-bit codes is at most 2 * 15 * 127 = 3810, far below 32767: never. With 8-bit codes 2 * 255 * 127 = 64770
# saturates. 32767 / 3810 = 8.6, so eight vectors of pairs can be added safely, four groups of 64; the ninth can wrap.

# %% [markdown]
# ## 5 · The instructions of your processor
#
# Now write it. Your function hands over a kernel: the text of a C function where this machine has a compiler (`tool`
# is "c"), or a numba function ("numba"). **Both ways lead to all points; return None for "c" if you would rather not
# write C.** The C text is compiled for your processor, and what stands before it is this:

# %% role="measure"
from fourbit.measure.native import HEADER, compiler

print(*compiler() or ["no compiler here: the numba version will be used"])
print(HEADER)

# %% [markdown]
# In C, one group is eight intrinsics on x86: load 32 bytes (`_mm256_loadu_si256`), mask the low halves
# (`_mm256_and_si256`), shift the high ones down and mask (`_mm256_srli_epi16`), two times `_mm256_maddubs_epi16`
# (first the unsigned, then the signed), add, `_mm256_madd_epi16` with ones, `sum8`. Put it between `#ifdef __AVX2__`
# and `#else`, with a plain loop for all other machines. (A plain loop alone is right, too, and about half as fast: the
# compiler finds the vectors itself.) In numba, it is `gemv_numba` with `np.int32` in place of `np.float32`, and one
# trap: there the sum of two 32-bit integers has 64 bits, and so has all that follows. Cast each sum back,
# `dot = np.int32(dot + ...)`, and the compiler finds instructions for small integers, nearly twice as fast.

# %% exercise="gemv_fast"
@kernel
def gemv_fast(tool):
    """A 4-bit matrix times 8-bit activations, as fast as you can: what this returns is compiled and called.

    Args:
        tool: "c" or "numba".

    Returns:
        For "c", None, or C text that defines `gemv` as declared above: packed (rows, groups, 32), scale and zero (rows,
        groups), codes (groups, 64), code_scale and code_sum (groups,), all dense; it writes y (rows,).
        For "numba", a function compiled by njit: (packed, scale, zero, codes, code_scale, code_sum) -> y float32.

    Example:
        >>> packed = np.full((1, 1, 32), 0x52, np.uint8)
        >>> q = quantize_activations(np.ones(64, np.float32))
        >>> scale, zero = np.full((1, 1), 0.5, np.float32), np.array([[2]], np.uint8)
        >>> gemv_fast(packed, scale, zero, q["codes"], q["scale"], q["sum"]).round(3).tolist()
        [48.0]
    """
    ### BEGIN SOLUTION
    if tool == "numba":

        @njit(nogil=True)
        def gemv(packed, scale, zero, codes, code_scale, code_sum):
            rows, groups, _ = packed.shape
            y = np.zeros(rows, np.float32)
            for row in range(rows):
                total = np.float32(0)
                for g in range(groups):
                    dot = np.int32(0)
                    for j in range(HALF):
                        byte = packed[row, g, j]
                        low, high = np.int32(byte & 15), np.int32(byte >> 4)
                        dot = np.int32(dot + low * np.int32(codes[g, j]) + high * np.int32(codes[g, j + HALF]))
                    total += scale[row, g] * code_scale[g] * np.float32(dot - np.int32(zero[row, g]) * code_sum[g])
                y[row] = total
            return y

        return gemv
    return r"""
static inline int32_t dot64(const uint8_t *w, const int8_t *a) {
#ifdef __AVX2__
    const __m256i low = _mm256_set1_epi8(15);
    __m256i bytes = _mm256_loadu_si256((const __m256i *)w);
    __m256i first = _mm256_and_si256(bytes, low);
    __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
    first = _mm256_maddubs_epi16(first, _mm256_loadu_si256((const __m256i *)a));
    second = _mm256_maddubs_epi16(second, _mm256_loadu_si256((const __m256i *)(a + 32)));
    return sum8(_mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1)));
#else
    int32_t total = 0;
    for (int j = 0; j < 32; j++)
        total += (w[j] & 15) * a[j] + (w[j] >> 4) * a[j + 32];
    return total;
#endif
}

void gemv(const uint8_t *packed, const float *scale, const uint8_t *zero, const int8_t *codes,
          const float *code_scale, const int32_t *code_sum, float *y, int64_t rows, int64_t groups) {
    for (int64_t row = 0; row < rows; row++) {
        float total = 0;
        for (int64_t g = 0; g < groups; g++) {
            int64_t i = row * groups + g;
            int32_t centered = dot64(packed + 32 * i, codes + 64 * g) - zero[i] * code_sum[g];
            total += scale[i] * code_scale[g] * (float)centered;
        }
        y[row] = total;
    }
}
"""
    ### END SOLUTION

# %% check="gemv_fast"

# %% prediction="fast"
predict("fast", ..., "its speed, in multiples of the dense product's")

# %% role="measure"
integers = (q["codes"], q["scale"], q["sum"])
ours = gemv_fast(packed[0], scale, zero, *integers)
assert np.linalg.norm(ours - right) <= 0.02 * np.linalg.norm(right)
times = interleaved({"dense": lambda: torch.mv(dense, torch.from_numpy(x)), "numba": taking_turns(gemv_numba, *inputs),
                     "fast": taking_turns(gemv_fast, *integers)})  # fmt: skip
rungs[f"{gemv_fast.tool}, integers"] = (times["fast"], rungs["4-bit loops"][1])
confront("fast", times["dense"] / times["fast"])
rate = 1e-9 * rungs["4-bit loops"][1] / times["fast"]
print(f"written in {gemv_fast.tool}: {1e3 * times['fast']:.2f} ms, {rate:.1f} GB/s of packed bytes")
print(f"{times['numba'] / times['fast']:.1f} times as fast as the numba kernel")

# %% [markdown]
# Times on a busy machine wobble; counts do not. Where valgrind is installed, this counts the instructions and the
# cache lines fetched from memory, for each weight, as a simulated processor runs your C text. The numbers are the same
# to the last digit each time.

# %% role="measure"
from fourbit.measure.callgrind import available, count

if gemv_fast.tool == "c" and available():
    print(f"{'':28}{'instructions':>13}{'lines':>9}{'bytes':>8}   for each weight")
    for name, found in count(HEADER + gemv_fast.source).items():
        lines = found.lines
        print(f"{name:28}{found.instructions:13.3f}{lines:9.5f}{64 * lines:8.3f}")
else:
    print("needs C and valgrind: the chapter has the numbers")

# %% [markdown]
# The 4-bit kernel fetches 0.58 bytes a weight and dense 4: what `gemv_traffic` said. It *executes* about as many
# instructions as the dense one. A processor can start about four instructions in each cycle, so instructions are a
# roof as well, and a kernel that has both few bytes and few instructions gets near the roof of memory.
#
# **Question 2.** The plain 4-bit loop of section 2 moved as few bytes as the fast kernel. By the figures that you have
# seen, what did it wait for, and by what did each later rung shorten that wait? Which rung would have brought nothing
# without the one before?

# %% [markdown] written="what-it-waits-for" points=2
# For its instructions: about 20 for each weight, one weight at a time, so far below the memory roof (under 1 GB/s of
# packed bytes where memory gives 20 and more). The layout lets one instruction unpack and multiply 8 to 32 neighbors,
# taking the scale and the zero point out of the loop removes their share, integers drop the conversions to float and
# put 32 products into one instruction. Integers bring little without the layout: the codes of one vector must lie
# beside their activations. (One point for the instructions, one for a rung with its reason.)

# %% [markdown]
# ## 6 · Cores
#
# Written in C, one core now reads more than half of what memory gives. Let others help: split the rows. Every row is
# a job of the same size, so no scheduler is needed, only a fair split, with one trap. Memory travels in **lines** of
# 64 bytes, 16 results in float32. When two cores write into the same line, the line is sent to and fro between them
# though they share no number: *false sharing*. So let each part begin at a multiple of 16.

# %% exercise="partition"
def partition(rows, threads):
    """Split the rows of a matrix among threads.

    Args:
        rows: at least 0; threads: at least 1.

    Returns:
        A list of `threads` pairs [start, stop], in order: each row is in exactly one part, every start and stop is a
        multiple of 16 or equal to `rows`, and no two parts differ by more than one *line* of 16 rows (a last line
        that is not full counts as one). Parts may be empty.

    Example:
        >>> partition(100, 3)  # 7 lines: 3, 2 and 2
        [[0, 48], [48, 80], [80, 100]]
    """
    ### BEGIN SOLUTION
    lines = math.ceil(rows / 16)
    parts, start = [], 0
    for thread in range(threads):
        start_line, start = start, start + lines // threads + (thread < lines % threads)
        parts.append([min(16 * start_line, rows), min(16 * start, rows)])
    return parts
    ### END SOLUTION

# %% check="partition"

# %% prediction="threads"
predict("threads", ..., "speed with two threads, in multiples of one (this is wall time: close other programs)")

# %% role="measure"
import os
from concurrent.futures import ThreadPoolExecutor

cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threaded(threads, pool):
    """One product by several threads, on the next copy; compiled kernels let go of Python's lock."""
    matrix = packed[next(turn) % COPIES]
    jobs = [pool.submit(gemv_fast, matrix[a:b], scale[a:b], zero[a:b], *integers) for a, b in partition(ROWS, threads)]
    return np.concatenate([job.result() for job in jobs])


with ThreadPoolExecutor(cores) as pool:
    counts = sorted({1, 2, min(4, cores), cores} - {0})
    times = interleaved({n: lambda n=n: threaded(n, pool) for n in counts if n <= max(2, cores)}, clock="wall")
    assert np.array_equal(threaded(2, pool), ours)  # to the bit: no sum is split
for threads, seconds in times.items():
    rate = rungs["4-bit loops"][1] / seconds
    print(f"{threads} threads: {1e3 * seconds:.2f} ms, {rate / 1e9:.1f} GB/s")
confront("threads", times[1] / times[2])
rungs[f"{max(times)} threads"] = (times[max(times)], rungs["4-bit loops"][1])

# %% [markdown]
# Two threads are rarely twice as fast: memory serves all cores through the same door, and a kernel that comes near its
# roof with one leaves the second little to gain.
#
# ## 7 · A prompt: many tokens at once
#
# Reading a prompt, all tokens are there at once, and every weight can serve all of them: one fetch, many products.
# If they fit. A cache holds a few hundred kilobytes; 512 tokens of 4,096 numbers are more, and so are 11,008 rows. So
# cut the product into **tiles**, some rows times some tokens, and compute tile after tile. What is fetched depends on
# the order.
#
# Your plan is played against a memory that counts: `replay(tiles, row_bytes, token_bytes, cache)` goes through each
# tile's rows, and for each row through the tile's tokens; what the cache lacks is fetched, and what was used longest
# ago makes room. You may call it to try things out.

# %% exercise="tile_schedule"
def tile_schedule(rows, tokens, row_bytes, token_bytes, cache):
    """Design: in which tiles, and in which order, to multiply all rows with all tokens.

    Args:
        rows, tokens: how many there are; row_bytes, token_bytes: size of each.
        cache: bytes that the cache holds, at least 4 * (row_bytes + token_bytes).

    Returns:
        An integer array (tiles, 4) of row, row_stop, token and token_stop, in the order of computation; each product of
        a row and a token is in exactly one tile.

    Scored on the bytes that `replay` counts: 0 for one token after the other through all rows, 1 for what our plan
    fetches, in between by the logarithm.

    Example:
        >>> tiles = tile_schedule(6, 4, 100, 10, 500)  # all four tokens fit: each row and token is fetched once
        >>> replay(tiles, 100, 10, 500)
        640
    """
    ### BEGIN SOLUTION
    plans = []
    for fit in range(1, tokens + 1):  # hold some tokens, let the rows pass
        if fit * token_bytes + row_bytes <= cache:
            fetched = math.ceil(tokens / fit) * rows * row_bytes + tokens * token_bytes
            plans.append((fetched, [[0, rows, t, min(t + fit, tokens)] for t in range(0, tokens, fit)]))
    for fit in range(1, rows + 1):  # hold some rows, let the tokens pass; a token that leaves is still there
        if fit * row_bytes + 2 * token_bytes <= cache:
            fetched = math.ceil(rows / fit) * tokens * token_bytes + rows * row_bytes
            held = [(r, min(r + fit, rows)) for r in range(0, rows, fit)]
            plans.append((fetched, [[r, stop, t, t + 1] for r, stop in held for t in range(tokens)]))
    return np.array(min(plans, key=lambda plan: plan[0])[1])
    ### END SOLUTION

# %% check="tile_schedule"

# %% [markdown]
# How does the traffic depend on the tile? Take 1,024 rows of our matrix (more rows only take longer to count), 128
# tokens in 8 bits, and a cache of 256 KB. Hold $T$ tokens at a time, and all weights pass $128/T$ times.

# %% prediction="tile"
predict("tile", ..., "bytes fetched for each weight when 16 of the 128 tokens are held at a time")

# %% role="measure"
few, tokens, cache = 1024, 128, 2**18
row_bytes, token_bytes = 37 * COLUMNS // GROUP, 72 * COLUMNS // GROUP
held, fetched = [], []
for fit in (1, 2, 4, 8, 16, 32, 64, 128):
    plan = [(0, few, t, t + fit) for t in range(0, tokens, fit)]
    held.append(fit)
    fetched.append(replay(plan, row_bytes, token_bytes, cache) / (few * COLUMNS))
plan = tile_schedule(few, tokens, row_bytes, token_bytes, cache)
best = replay(plan, row_bytes, token_bytes, cache) / (few * COLUMNS)
confront("tile", fetched[held.index(16)])
_, axes = plt.subplots(figsize=(7, 3.6))
axes.plot(held, fetched, "o-", color=COLORS["blue"])
axes.axhline(best, color=COLORS["vermilion"], linewidth=1)
axes.annotate("your plan", (1, best), xytext=(4, 5), textcoords="offset points", color=COLORS["vermilion"])
axes.set(xscale="log", yscale="log", xlabel="tokens held at a time", ylabel="bytes fetched for each weight")
axes.set_xticks(held, [str(fit) for fit in held])
axes.set_title("128 tokens through one matrix, a cache of 256 KB")
plt.show()

# %% [markdown]
# Twice the tokens, half the traffic, until they no longer fit: then each row drives out what the next one needs, and
# everything is fetched again and again. A tile one size too large is worse than one far too small.
#
# And time? A tile's weights are unpacked once for all of its tokens.

# %% role="measure"
@njit(nogil=True)
def gemm_tiled(packed, scale, zero, codes, code_scale, code_sum, y, tile):
    """y (tokens, rows): `tile` tokens at a time; each group is unpacked once for all of them."""
    rows, groups, _ = packed.shape
    unpacked = np.empty(64, np.int16)
    for first in range(0, len(codes), tile):
        stop = min(first + tile, len(codes))
        for row in range(rows):
            y[first:stop, row] = 0
            for g in range(groups):
                for j in range(32):
                    unpacked[j], unpacked[j + 32] = packed[row, g, j] & 15, packed[row, g, j] >> 4
                for t in range(first, stop):
                    dot = np.int32(0)
                    for j in range(64):
                        dot = np.int32(dot + np.int32(unpacked[j]) * np.int32(codes[t, g, j]))
                    centered = np.float32(dot - np.int32(zero[row, g]) * code_sum[t, g])
                    y[t, row] += scale[row, g] * code_scale[t, g] * centered


prompt = [quantize_activations(v) for v in draw.standard_normal((32, COLUMNS), np.float32)]
stacked = [np.stack([one[key] for one in prompt]) for key in ("codes", "scale", "sum")]
part = slice(0, ROWS // 16)
y = np.empty((32, ROWS // 16), np.float32)


def prefill(tile):
    gemm_tiled(packed[0][part], scale[part], zero[part], *stacked, y, tile)


prefill(1)
once = interleaved({tile: lambda tile=tile: prefill(tile) for tile in (1, 2, 4, 8, 16, 32)}, rounds=3)
for tile, seconds in once.items():
    print(f"{tile:2} tokens at a time: {1e9 * seconds / (32 * WEIGHTS / 16):.3f} ns for each weight and token")

# %% [markdown]
# ## 8 · What does it make of a 7B?
#
# A token needs every matrix of the model once. For each of them two clocks run: the bytes must come from memory, and
# the instructions must be executed. Cores share the first and divide the second. The slower one decides.

# %% exercise="tokens_per_second"
def tokens_per_second(shapes, bytes_per_weight, weights_per_second, bandwidth, threads, rest=0.0):
    """Predict how fast a kernel decodes a model.

    Args:
        shapes: list of (rows, columns, count): matrices of these shapes, `count` times each.
        bytes_per_weight: of the packed matrices; weights_per_second: what the kernel computes with one thread when
            nothing waits for memory; bandwidth: bytes/s that memory gives, to all threads together.
        threads: they share the rows evenly; rest: seconds of a token that are not in the matrices.

    Returns:
        {"tokens_per_second": float, "bound": "memory" or "compute"}. The time of a matrix is the larger of its time
        for bytes and its time for instructions; bound says which of the two is larger (equal counts as "compute").

    Example:
        >>> tokens_per_second([(100, 10, 2), (50, 10, 1)], 0.5, 1000.0, 400.0, 1)  # 3.125 s of bytes, 2.5 s of work
        {'tokens_per_second': 0.32, 'bound': 'memory'}
    """
    ### BEGIN SOLUTION
    weights = sum(rows * columns * count for rows, columns, count in shapes)
    fetching = weights * bytes_per_weight / bandwidth
    computing = weights / (weights_per_second * threads)
    bound = "memory" if fetching > computing else "compute"
    return {"tokens_per_second": 1 / (max(fetching, computing) + rest), "bound": bound}
    ### END SOLUTION

# %% check="tokens_per_second"

# %% [markdown]
# The kernel's own speed is measured where nothing waits for memory: on a matrix so small that it stays in a cache.

# %% role="measure"
small = slice(0, 1024)  # 2.4 MB
matrix = packed[0][small].copy(), scale[small].copy(), zero[small].copy()
functions = {"numba, layout": lambda: [gemv_numba(*matrix, *inputs) for _ in range(10)],
             f"{gemv_fast.tool}, integers": lambda: [gemv_fast(*matrix, *integers) for _ in range(10)]}  # fmt: skip
speeds = {name: 10 * 1024 * COLUMNS / seconds for name, seconds in interleaved(functions).items()}
loops = WEIGHTS / rungs["4-bit loops"][0]
llama = [(4096, 4096, 4 * 32), (11008, 4096, 2 * 32), (4096, 11008, 32), (32000, 4096, 1)]
for name, speed in {"4-bit loops": loops, **speeds}.items():
    for threads in sorted({1, cores}):
        found = tokens_per_second(llama, 37 / 64, speed, roof, threads)
        print(f"{name:16} {threads} thread(s): {found['tokens_per_second']:5.2f} tokens/s, bound by {found['bound']}")

# %% [markdown]
# This is Llama-2-7B without its attention and norms. Lab 06 builds the engine around such a kernel, and in lab 07 you
# will see what becomes of this number.
#
# ## 9 · Trust nobody
#
# Kernels are judged by contests, and contests are gamed. Entries have returned outputs that they had kept, checked
# only the shape they were tested with, changed their inputs so that the second run had less to do, done the work only
# while they were watched, and handed out one buffer for all results. Some did it by accident.
#
# Write the test. You get a kernel that you can call as often as you like, on inputs that you choose, and you have
# your own reference. You get no list of the flaws: think about everything that a caller relies on.

# %% exercise="is_right_kernel"
def is_right_kernel(gemv):
    """A test of kernels: does this one always compute the product, and nothing else?

    Args:
        gemv: (packed, scale, zero, x) -> y, with packed, scale and zero as for `gemv_numba`, x float32 (columns,) for
            any columns from 1 to 64 groups, and y float32 (rows,).

    A right kernel's results lie within 1e-4 times the sum of |weight * x| of the exact ones, for any number of rows and
    groups, any codes and zeros, and finite inputs of any size. It may be called again and again with the same or other
    arrays, or with arrays that its caller has changed; it changes none of them, and a result stays as it is when the
    next one is computed.

    Returns:
        True for every right kernel, False for every other.

    Example:
        >>> def right(packed, scale, zero, x):
        ...     return dequantized(packed, scale, zero)[:, : len(x)] @ x
        >>> is_right_kernel(right), is_right_kernel(lambda packed, scale, zero, x: 0 * right(packed, scale, zero, x))
        (True, False)
    """
    ### BEGIN SOLUTION
    random = np.random.default_rng(9)
    for rows, columns in ((1, 64), (5, 130), (301, 70)):
        groups = math.ceil(columns / GROUP)
        packed = random.integers(0, 256, (rows, groups, HALF), np.uint8)
        scale = random.uniform(0.1, 1, (rows, groups)).astype(np.float32)
        zero = random.integers(0, 16, (rows, groups), np.uint8)
        x = random.standard_normal(columns, np.float32)
        earlier = []
        for trial in range(6):  # the same arrays throughout, with one of them changed before each call
            if trial == 1:
                x[:] = 0
            elif trial in (2, 5):
                x[:] = 1000 * random.standard_normal(columns)
            elif trial == 3:
                packed[:] = random.integers(0, 256, packed.shape)
            elif trial == 4:
                scale[:] = scale[:, ::-1] / 2
            before = [array.copy() for array in (packed, scale, zero, x)]
            weights = dequantized(packed, scale, zero)[:, :columns].astype(np.float64)
            y = gemv(packed, scale, zero, x)
            if not all(map(np.array_equal, before, (packed, scale, zero, x))):
                return False
            earlier.append((y, weights @ x, 1e-4 * np.abs(weights) @ np.abs(x)))
            if not all((np.abs(got - wanted) <= bound).all() for got, wanted, bound in earlier):
                return False
    return True
    ### END SOLUTION

# %% check="is_right_kernel"

# %% [markdown]
# And the clock? `race` in `fourbit/measure/race.py` is a referee that trusts nothing: fresh inputs in each round,
# outputs checked, clocks that nobody could have exchanged. Some entries of the kind that won contests:

# %% role="measure"
from fourbit.measure.race import race

ROUND = 1024  # rows of the race: small enough to check every output


def fresh(number):
    """Other weights and activations in each round."""
    random = np.random.default_rng([1, number])
    rows = random.permutation(ROWS)[:ROUND]
    one = quantize_activations(random.standard_normal(COLUMNS, np.float32))
    return [packed[0][rows], scale[rows], zero[rows], one["codes"], one["scale"], one["sum"]]


def exact(packed, scale, zero, codes, code_scale, code_sum):
    return int8_gemv(packed, scale, zero, {"codes": codes, "scale": code_scale, "sum": code_sum})["y"]


kept = {}
entries = {
    "yours": gemv_fast,
    "keeps its outputs": lambda *arrays: kept.setdefault(arrays[0].shape, gemv_fast(*arrays)).copy(),
    "puts the work off": lambda *arrays: (lambda: gemv_fast(*arrays)),
    "empties its inputs": lambda *arrays: [gemv_fast(*arrays), arrays[0].fill(0)][0],
}
for name, lap in race(entries, fresh, exact, lambda *arrays: 1e-3).items():
    print(f"{name:20} {lap.fault or lap.timing}")

# %% [markdown]
# ## 10 · The race
#
# Last, against others, on the same matrix, one thread, in turns: the 4-bit product of ONNX Runtime, a maintained engine
# with kernels for every processor (8-bit activations, groups of 64, like ours), and `fourbit.kernels`, which labs 06
# and 07 run on (8-bit activations in groups of 32, scales of 16 bits). And llama.cpp, where it is installed and the
# pocket model is there; it runs whole models only, so its bytes are those of a token.

# %% role="measure"
from fourbit import kernels
from fourbit.measure.rivals import llama_cpp_rate, onnx_matmul

rival = onnx_matmul(codes, scale, zero, GROUP)
theirs = rival(x)
print(f"apart by {np.linalg.norm(theirs - ours) / np.linalg.norm(ours):.2%}")
rivals = [rival] + [onnx_matmul(codes, scale, zero, GROUP) for _ in range(COPIES - 1)]
engine = kernels.load(threads=1)
parts = {"codes": pairs, "scale": torch.from_numpy(scale).half(), "zero": torch.from_numpy(zero)}
parts = [{key: part.clone() for key, part in parts.items()} for _ in range(COPIES)]
matrices = [kernels.Matrix.from_artifact(one, 4, GROUP, (ROWS, COLUMNS)) for one in parts]
out, row = torch.empty(1, ROWS), torch.from_numpy(x)[None]
times = interleaved({"yours": taking_turns(gemv_fast, *integers),
                     "onnxruntime": lambda: rivals[next(turn) % COPIES](x),
                     "fourbit.kernels": lambda: engine.matmul([matrices[next(turn) % COPIES]], row, [out])},
                    rounds=15)  # fmt: skip
assert torch.allclose(out[0], torch.from_numpy(right), atol=0.02 * float(np.abs(right).max()))
for name, seconds in times.items():
    size = 35 if name == "fourbit.kernels" else 37  # bytes of a group
    rate = size / GROUP * WEIGHTS / seconds
    print(f"{name:16} {1e3 * seconds:5.2f} ms, {rate / 1e9:5.1f} GB/s of packed bytes: {rate / roof:.0%} of the roof")
rate = llama_cpp_rate("smollm2")
if rate:
    print(f"{'llama.cpp':16} {'':8} {rate / 1e9:5.1f} GB/s on the pocket model: {rate / roof:.0%} of the roof")
else:
    print("llama.cpp: not here, or no pocket model (`fourbit models fetch smollm2`)")

# %% role="measure"
_, axes = plt.subplots(figsize=(8, 3.8))
names = sorted(rungs, key=lambda name: -rungs[name][0])
spans = [1e3 * rungs[name][0] for name in names]
least = 1e3 * rungs["4-bit loops"][1] / roof
axes.barh(names, spans, color=[COLORS["gray" if name.startswith("dense") else "blue"] for name in names])
for place, span in enumerate(spans):
    axes.annotate(f"{span:.3g} ms", (span, place), xytext=(4, 0), textcoords="offset points", va="center")
axes.axvline(least, color=COLORS["vermilion"])
axes.annotate("the roof at 4 bits, one thread", (least, 0), xytext=(-4, 0), textcoords="offset points", rotation=90,
              ha="right", color=COLORS["vermilion"])  # fmt: skip
axes.set(xscale="log", xlabel="time of one product, ms", xlim=(least / 2.2, 4 * max(spans)))
axes.invert_yaxis()
axes.set_title(f"The ladder: a factor of {max(spans) / min(spans):.0f}")
plt.show()

# %% [markdown]
# **Question 3.** How many per cent of the roof does your fastest kernel reach with one thread, and what would you try
# next to get nearer? What would make *this* matrix product faster even if the kernel were perfect?

# %% [markdown] written="next" points=2
# Any honest account with the own number. Next, for a kernel well below the roof: fewer instructions for each weight
# (several groups before the horizontal sum, vpdpbusd where the processor has it, two rows at a time), or more threads;
# near the roof: only fewer bytes. Those: scales of 16 bits instead of 32 (4.38 instead of 4.63 bits), larger groups,
# three bits, or several tokens for one fetch (a batch, or speculative decoding).
