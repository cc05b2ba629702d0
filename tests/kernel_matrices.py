"""Random matrices of every kind, their exact values, and how far a product may be from the exact one."""

from __future__ import annotations

import os
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from fourbit.errors import KernelError
from fourbit.kernels import Kernels, Matrix
from fourbit.kernels.matrix import BLOCKS
from fourbit.kernels.native import NativeKernels, isas

try:
    SETS = list(isas())  # instruction sets of the C kernels on this machine
except KernelError:
    if os.environ.get("CI"):
        raise
    SETS = []
BACKENDS = ["c", "numba"] if SETS else ["numba"]

# Where the float16 factors of a block are, the largest |code| before a format's offset is taken away, and the largest
# whole number that multiplies the first and the second factor besides.
_FACTORS = {
    "Q8_0": ((0,), 256, 1), "Q4_0": ((0,), 16, 1), "Q4_1": ((0, 2), 15, 1), "Q4_K": ((0, 2), 15, 63),
    "Q5_K": ((0, 2), 31, 63), "Q6_K": ((208,), 64, 128),
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A matrix, its values (out, in) float64, and for each weight the size of the terms of which sums are made."""

    matrix: Matrix
    values: np.ndarray
    terms: np.ndarray


def known(kind: str, rows: int, columns: int, seed: int, group: int = 32) -> Known:
    random = np.random.default_rng(seed)
    if kind in ("F32", "F16"):
        values = random.standard_normal((rows, columns)).astype(np.float32 if kind == "F32" else np.float16)
        exact = values.astype(np.float64)
        return Known(Matrix(kind, (rows, columns), values.view(np.uint8).reshape(rows, -1)), exact, np.abs(exact))
    if kind.startswith("GROUP"):
        return _grouped(kind, rows, columns, group, random)
    size, block = BLOCKS[kind]
    places, largest, times = _FACTORS[kind]
    data = random.integers(0, 256, (rows, columns // block, size), np.uint8)
    terms = np.zeros((rows, columns // block, 1))
    for place, code in zip(places, (largest, 1), strict=False):
        factor = ((random.random((rows, columns // block, 1)) - 0.3) * 0.02).astype(np.float16)
        data[:, :, place : place + 2] = factor.view(np.uint8)
        terms += np.abs(factor.astype(np.float64)) * code * times
    data = data.reshape(rows, -1)
    exact = gguf.dequantize(data, Kind[kind]).astype(np.float64)
    return Known(Matrix(kind, (rows, columns), data), exact, np.repeat(terms, block, 2).reshape(rows, columns))


def _grouped(kind: str, rows: int, columns: int, group: int, random: np.random.Generator) -> Known:
    levels, groups = 16 if kind == "GROUP4" else 256, -(-columns // group)
    codes = random.integers(0, levels, (rows, columns + columns % 2), np.uint8)
    scale = (random.random((rows, groups)) * 0.02).astype(np.float16)
    zero = random.integers(0, levels, (rows, groups), np.uint8)
    data = codes[:, ::2] | codes[:, 1::2] << 4 if kind == "GROUP4" else np.ascontiguousarray(codes[:, :columns])
    wide_scale, wide_zero = (np.repeat(part.astype(np.float64), group, 1)[:, :columns] for part in (scale, zero))
    exact = (codes[:, :columns] - wide_zero) * wide_scale
    return Known(Matrix(kind, (rows, columns), data, scale, zero, group), exact, 2 * levels * wide_scale)


def all_awake(k: Kernels) -> Kernels:
    """Let every product use all threads, however small it is."""
    if isinstance(k, NativeKernels):
        k.worth = 1
    return k


def has_codes(m: Matrix) -> bool:
    """Whether the kernels round activations for this matrix."""
    return m.kind not in ("F32", "F16") and (m.group % 32 == 0 or m.group >= m.columns)


def half_steps(x: np.ndarray) -> np.ndarray:
    """Half the step to which each activation (T, in) is rounded: a 254th of the largest of its block of 32.

    A block whose largest is below 2^-120 becomes zero as a whole.
    """
    tokens, columns = x.shape
    blocks = np.pad(np.abs(x.astype(np.float64)), ((0, 0), (0, -columns % 32))).reshape(tokens, -1, 32)
    largest = blocks.max(2)
    return np.repeat(np.where(largest < 2.0**-120, largest, largest / 254), 32, 1)[:, :columns]


def allowed(m: Known, x: np.ndarray, exact_codes: bool = False) -> np.ndarray:
    """How far a result (T, out) may be from values @ x.

    Rounding x moves each product by at most |w| * half a step (nothing when x is made of whole steps: `exact_codes`). A
    sum of n floats is off by at most n * 2^-24 times the sum of its terms' sizes (Higham, Accuracy and Stability,
    2nd ed., eq. 4.4), here with 64 more for the roundings of factors; 2^-149 is float32's smallest number.
    """
    step = half_steps(x) if has_codes(m.matrix) else np.zeros(x.shape)
    rounding = np.zeros((len(x), m.matrix.rows)) if exact_codes else step * (1 + 2.0**-20) @ np.abs(m.values).T
    size = np.abs(x.astype(np.float64)) + step
    return rounding + (m.matrix.columns + 64) * (2.0**-24 * (size @ m.terms.T) + 2.0**-149)


def whole_activations(tokens: int, columns: int, seed: int) -> np.ndarray:
    """Activations that 8 bits hold without error: whole numbers, in each block one of 127, times a power of 2."""
    random = np.random.default_rng(seed)
    blocks = -(-columns // 32)
    codes = random.integers(-127, 128, (tokens, blocks, 32)).astype(np.float32)
    codes[:, :, 0] = 127 * random.choice([-1, 1], (tokens, blocks))
    scales = 2.0 ** random.integers(-3, 4, (tokens, blocks, 1))
    return np.ascontiguousarray((codes * scales.astype(np.float32)).reshape(tokens, -1)[:, :columns])
