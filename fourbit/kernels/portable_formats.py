"""What c/unpack.h does, for numba: rows of every format as signed codes, a scale and a least for each block.

A row is `bytes` uint8. `halves` holds the value of every float16 by its bits. Scales are those of 16 columns
with Q6_K, of 32 with all else. c/formats.h describes the formats.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]
F32, F16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, GROUP4, GROUP8 = range(10)  # as in matrix.KINDS
HALVES = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
compiled: Any = numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@compiled
def half(data: Array, at: int, halves: Array) -> float:
    return halves[np.uint16(data[at]) | np.uint16(data[at + 1]) << np.uint16(8)]


@compiled
def nibbles(data: Array, at: int, count: int, minus: int, codes: Array, low: int, high: int) -> None:
    for j in range(count):
        codes[low + j] = np.int8(data[at + j] & 15) - np.int8(minus)
        codes[high + j] = np.int8(data[at + j] >> 4) - np.int8(minus)


@compiled
def unpack_32(kind: int, data: Array, halves: Array, codes: Array, scale: Array, least: Array) -> None:
    size = 34 if kind == Q8_0 else 18 if kind == Q4_0 else 20
    for b in range(len(data) // size):
        at, c = b * size, b * 32
        scale[b], least[b] = half(data, at, halves), 0.0
        if kind == Q8_0:
            for j in range(32):
                codes[c + j] = np.int8(data[at + 2 + j])
        elif kind == Q4_0:
            nibbles(data, at + 2, 16, 8, codes, c, c + 16)
        else:
            least[b] = half(data, at + 2, halves)
            nibbles(data, at + 4, 16, 0, codes, c, c + 16)


@compiled
def unpack_k(kind: int, data: Array, halves: Array, codes: Array, scale: Array, least: Array) -> None:
    size = 144 if kind == Q4_K else 176
    for i in range(len(data) // size):
        at, low = i * size, i * size + size - 128
        d, dmin = half(data, at, halves), half(data, at + 2, halves)
        for b in range(8):
            p = at + 4 + b % 4
            if b < 4:
                s, m = data[p] & 63, data[p + 4] & 63
            else:
                s = (data[p + 8] & 15) | (data[p] >> 6 << 4)
                m = (data[p + 8] >> 4) | (data[p + 4] >> 6 << 4)
            scale[8 * i + b], least[8 * i + b] = d * s, -dmin * m
        for b in range(0, 8, 2):
            nibbles(data, low + 16 * b, 32, 0, codes, 256 * i + 32 * b, 256 * i + 32 * b + 32)
        if kind == Q5_K:
            for b in range(8):
                for j in range(32):
                    codes[256 * i + 32 * b + j] |= np.int8((data[at + 16 + j] >> b & 1) << 4)


@compiled
def unpack_q6_k(data: Array, halves: Array, codes: Array, scale: Array) -> None:
    for i in range(len(data) // 210):
        at = 210 * i
        d = half(data, at + 208, halves)
        for b in range(16):
            scale[16 * i + b] = d * np.int8(data[at + 192 + b])
        for part in range(2):
            c, high = 256 * i + 128 * part, at + 128 + 32 * part
            nibbles(data, at + 64 * part, 64, 0, codes, c, c + 64)
            for j in range(128):
                upper = data[high + j % 32] >> (j // 32 * 2) & 3
                codes[c + j] = np.int8(codes[c + j] | np.int8(upper << 4)) - np.int8(32)


@compiled
def unpack_group(
    kind: int, data: Array, factor: Array, zero: Array, group: int, columns: int,
    codes: Array, scale: Array, least: Array,
) -> None:  # fmt: skip
    if kind == GROUP8:
        for c in range(columns):
            codes[c] = np.int8(np.int16(data[c]) - 128)
    else:
        for c in range(columns):
            codes[c] = np.int8(data[c // 2] >> (c % 2 * 4) & 15)
    for b in range(-(-columns // 32)):
        g = min(b * 32 // group, len(factor) - 1)
        scale[b] = factor[g]
        least[b] = factor[g] * ((128.0 if kind == GROUP8 else 0.0) - zero[g])


@compiled
def unpack(
    kind: int, data: Array, factor: Array, zero: Array, group: int, columns: int, halves: Array,
    codes: Array, scale: Array, least: Array,
) -> None:  # fmt: skip
    """Unpack a row of any format with codes."""
    if kind in (GROUP4, GROUP8):
        unpack_group(kind, data, factor, zero, group, columns, codes, scale, least)
    elif kind == Q6_K:
        unpack_q6_k(data, halves, codes, scale)
    elif kind in (Q4_K, Q5_K):
        unpack_k(kind, data, halves, codes, scale, least)
    else:
        unpack_32(kind, data, halves, codes, scale, least)


@compiled
def decode(
    kind: int, data: Array, factor: Array, zero: Array, group: int, columns: int, halves: Array,
    codes: Array, scale: Array, least: Array, out: Array,
) -> None:  # fmt: skip
    """Decode a row of any format to float32."""
    if kind == F32:
        out[:] = data.view(np.float32)
    elif kind == F16:
        for c in range(columns):
            out[c] = half(data, 2 * c, halves)
    elif kind in (GROUP4, GROUP8):
        for c in range(columns):
            code = data[c] if kind == GROUP8 else data[c // 2] >> (c % 2 * 4) & 15
            out[c] = factor[c // group] * (np.float32(code) - zero[c // group])
    else:
        unpack(kind, data, factor, zero, group, columns, halves, codes, scale, least)
        step = 16 if kind == Q6_K else 32
        for c in range(columns):
            out[c] = scale[c // step] * codes[c] + (np.float32(0) if kind == Q6_K else least[c // step])
