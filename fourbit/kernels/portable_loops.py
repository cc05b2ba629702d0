"""The loops of the numba backend. Each is the portable form of a file in c/, which has the explanations."""

from __future__ import annotations

import numpy as np

from fourbit.kernels.portable_formats import HALVES, Q6_K, Array, compiled, decode, unpack


@compiled
def round_activations(x: Array, codes: Array, scale: Array, sums: Array) -> None:
    """x (T, in) to codes int8 (T, 32 * blocks), scale and sums (T, blocks); sums are those of scale * code."""
    for t in range(len(x)):
        for b in range(scale.shape[1]):
            most, usable = np.float32(0), True
            block = x[t, 32 * b : 32 * b + 32]
            for value in block:
                usable = usable and np.isfinite(value)
                most = max(most, abs(value))
            small = most < np.float32(2.0**-120)
            scale[t, b] = np.nan if not usable else 0.0 if small else most / np.float32(127)
            inverse = np.float32(0) if small or not usable else np.float32(127) / most
            total = np.int32(0)
            for j in range(len(block)):
                code = np.int32(np.rint(block[j] * inverse)) if usable else np.int32(0)
                codes[t, 32 * b + j] = code
                total += code
            sums[t, b] = scale[t, b] * total


@compiled
def multiply_codes(
    kind: int, first: int, last: int, columns: int, data: Array, factor: Array, zero: Array, group: int,
    x: Array, x_scale: Array, x_sum: Array, halves: Array, out: Array,
) -> None:  # fmt: skip
    """Rows first to last of a matrix, unpacked once, times the codes of all tokens."""
    blocks = x_scale.shape[1]
    step = 16 if kind == Q6_K else 32
    codes = np.zeros(blocks * 32, np.int8)
    scale, least = np.zeros(blocks * 32 // step, np.float32), np.zeros(blocks * 32 // step, np.float32)
    for r in range(first, last):
        unpack(kind, data[r], factor[r], zero[r], group, columns, halves, codes, scale, least)
        for t in range(len(x)):
            total = np.float32(0)
            for b in range(blocks):
                part = np.float32(0)
                for s in range(b * 32 // step, (b + 1) * 32 // step):
                    w, a = codes[s * step : (s + 1) * step], x[t, s * step : (s + 1) * step]
                    dot = np.int32(0)
                    for j in range(step):
                        dot += np.int32(w[j]) * np.int32(a[j])
                    part += scale[s] * np.float32(dot)
                total += x_scale[t, b] * part
            if step == 32:
                for b in range(blocks):
                    total += least[b] * x_sum[t, b]
            out[t, r] = total


@compiled
def multiply_floats(
    kind: int, first: int, last: int, columns: int, data: Array, factor: Array, zero: Array, group: int,
    x: Array, halves: Array, out: Array,
) -> None:  # fmt: skip
    """Rows of float weights, and of groups that 32 does not divide, times the exact activations."""
    row = np.empty(columns, np.float32)
    codes = np.empty(columns, np.int8)
    scale, least = np.empty(columns // 16 + 1, np.float32), np.zeros(columns // 16 + 1, np.float32)
    for r in range(first, last):
        decode(kind, data[r], factor[r], zero[r], group, columns, halves, codes, scale, least, row)
        for t in range(len(x)):
            total = np.float32(0)
            for c in range(columns):
                total += row[c] * x[t, c]
            out[t, r] = total


@compiled
def decode_rows(
    kind: int, columns: int, data: Array, factor: Array, zero: Array, group: int, ids: Array, halves: Array, out: Array
) -> None:
    codes = np.empty(columns, np.int8)
    scale, least = np.empty(columns // 16 + 1, np.float32), np.zeros(columns // 16 + 1, np.float32)
    for i in range(len(ids)):
        r = ids[i]
        decode(kind, data[r], factor[r], zero[r], group, columns, halves, codes, scale, least, out[i])


@compiled
def norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    for t in range(len(x)):
        total = np.float32(0)
        for value in x[t]:
            total += value * value
        scale = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + np.float32(eps))
        for i in range(x.shape[1]):
            out[t, i] = x[t, i] * scale * weight[i]


@compiled
def turn(x: Array, cosine: Array, sine: Array, neighbors: bool) -> None:
    half = x.shape[2] // 2
    for t in range(x.shape[0]):
        for h in range(x.shape[1]):
            for i in range(half):
                one, two = (2 * i, 2 * i + 1) if neighbors else (i, i + half)
                left, right = x[t, h, one], x[t, h, two]
                x[t, h, one] = left * cosine[t, i] - right * sine[t, i]
                x[t, h, two] = left * sine[t, i] + right * cosine[t, i]


@compiled
def swiglu(gate: Array, up: Array, out: Array) -> None:
    for i in range(len(gate)):
        out[i] = gate[i] / (np.float32(1) + np.exp(-gate[i])) * up[i]


@compiled
def load_row(kind: int, row: Array, halves: Array, out: Array) -> None:
    """A row of the cache, of kind f32, f16, q8, q4 (0 to 3), as floats."""
    if kind == 0:
        out[:] = row.view(np.float32)
    elif kind == 1:
        for i in range(len(out)):
            out[i] = halves[np.uint16(row[2 * i]) | np.uint16(row[2 * i + 1]) << np.uint16(8)]
    else:
        size = 34 if kind == 2 else 18
        for b in range(len(out) // 32):
            d = halves[np.uint16(row[b * size]) | np.uint16(row[b * size + 1]) << np.uint16(8)]
            for j in range(32):
                if kind == 2:
                    out[32 * b + j] = d * np.int8(row[b * size + 2 + j])
                else:
                    out[32 * b + j] = d * (np.float32(row[b * size + 2 + j % 16] >> (j // 16 * 4) & 15) - 8)


@compiled
def attend_head(
    kind: int, head: int, keys: Array, values: Array, q: Array, start: int, halves: Array, out: Array
) -> None:
    """All queries of one key head. keys and values (capacity, bytes), q (T, heads, width), out (T, heads, width)."""
    tokens, _, width = q.shape
    row, scores = np.empty(width, np.float32), np.empty(start + tokens, np.float32)
    scale = np.float32(1 / np.sqrt(width))
    for t in range(tokens):
        end = start + t + 1
        for p in range(end):
            load_row(kind, keys[p], halves, row)
            total = np.float32(0)
            for i in range(width):
                total += q[t, head, i] * row[i]
            scores[p] = total * scale
        most = np.max(scores[:end])
        total = np.float32(0)
        for p in range(end):
            scores[p] = np.exp(scores[p] - most)
            total += scores[p]
        mixed = out[t, head]
        mixed[:] = 0
        for p in range(end):
            load_row(kind, values[p], halves, row)
            for i in range(width):
                mixed[i] += scores[p] / total * row[i]


__all__ = ["HALVES", "attend_head", "decode_rows", "multiply_codes", "multiply_floats", "norm", "swiglu", "turn"]
