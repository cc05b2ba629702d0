"""Kernels under suspicion: what a learner's test of kernels is tried on in lab 05.

A right kernel takes packed (rows, groups, 32) uint8, scale (rows, groups) float32, zero (rows, groups) uint8 and x
(columns,) float32 and returns y (rows,) float32; the layout is that of the lab's `repack`. Each flaw is one that
kernels or entries to kernel contests have had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fourbit.errors import ExamError

Array = np.ndarray[Any, Any]
Suspect = Callable[[Array, Array, Array, Array], Array]


def suspect(flaw: str, variant: int = 0) -> Suspect:
    """A fresh kernel with one flaw; "none", "float64" and "integers first" are right.

    Args:
        variant: with 1, some flaws show elsewhere: at another code, row, size of input or call.

    Raises:
        ExamError: for a flaw that does not exist here.
    """
    wrong = (_ELSEWHERE if variant and flaw in _ELSEWHERE else _VALUES).get(flaw)
    if wrong is not None:
        return lambda packed, scale, zero, x: wrong(packed, scale, zero, x).astype(np.float32)
    if flaw == "tired":
        return _tired(4 if variant else 3)
    if flaw in _CONDUCT:
        return _CONDUCT[flaw]()
    raise ExamError(f"no suspect with the flaw {flaw!r}; this exam pack needs a newer Fourbit")


def _codes(packed: Array) -> Array:
    return np.concatenate([packed & 15, packed >> 4], -1).astype(np.float64)  # (rows, groups, 64)


def _grouped(x: Array) -> Array:
    return np.pad(x, (0, -len(x) % 64)).reshape(-1, 64).astype(np.float64)  # (groups, 64)


def _product(codes: Array, scale: Array, zero: Array, x: Array) -> Array:
    return np.asarray(((codes - zero[..., None]) * scale[..., None] * _grouped(x)).sum((1, 2)))  # (rows,)


def _right(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    return _product(_codes(packed), scale, zero, x)


def _single(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    weights = ((_codes(packed) - zero[..., None]) * scale[..., None]).astype(np.float32)
    return np.asarray(weights.reshape(len(packed), -1) @ _grouped(x).ravel().astype(np.float32))


def _integers_first(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    groups = _grouped(x)
    return np.asarray((scale * ((_codes(packed) * groups).sum(-1) - zero * groups.sum(-1))).sum(1))


def _with_codes(change: Callable[[Array], Array]) -> Suspect:
    return lambda packed, scale, zero, x: _product(change(packed), scale, zero, x)


def _tail(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    whole = np.where(np.arange(len(x)) < len(x) // 64 * 64, x, 0)
    return _right(packed, scale, zero, whole)


def _pairs(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    return np.where(np.arange(len(packed)) < len(packed) // 2 * 2, _right(packed, scale, zero, x), 0)


def _counting_to(most: int) -> Suspect:
    return lambda packed, scale, zero, x: np.where(np.arange(len(packed)) < most, _right(packed, scale, zero, x), 0)


def _zero_over_zero(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
    return _right(packed, scale, zero, x) * (1.0 if x.any() else np.nan)


_VALUES: dict[str, Suspect] = {
    "none": _single,
    "float64": _right,
    "integers first": _integers_first,
    "swapped nibbles": _with_codes(lambda p: np.concatenate([p >> 4, p & 15], -1).astype(np.float64)),
    "neighbors": _with_codes(lambda p: np.stack([p & 15, p >> 4], -1).reshape(*p.shape[:2], 64).astype(np.float64)),
    "signed codes": _with_codes(lambda p: (_codes(p) + 8) % 16 - 8),
    "top code missing": _with_codes(lambda p: _codes(p).clip(max=14)),
    "zero is 8": lambda p, s, z, x: _right(p, s, np.full_like(z, 8), x),
    "first scale": lambda p, s, z, x: _right(p, s[:, :1] * np.ones_like(s), z, x),
    "tail left out": _tail,
    "rows in pairs": _pairs,
    "256 rows": _counting_to(256),
    "loud inputs clipped": lambda p, s, z, x: _right(p, s, z, x.clip(-100, 100)),
    "loud inputs overflow": lambda p, s, z, x: _right(p, s, z, x) * (np.nan if np.abs(x).max() > 200 else 1.0),
    "zero over zero": _zero_over_zero,
}


_ELSEWHERE: dict[str, Suspect] = {
    "top code missing": _with_codes(lambda p: np.where(_codes(p) == 11, 10, _codes(p))),
    "256 rows": _counting_to(127),
    "first scale": lambda p, s, z, x: _right(p, s[:, -1:] * np.ones_like(s), z, x),
    "loud inputs clipped": lambda p, s, z, x: _right(p, s, z, x.clip(-500, 500)),
    "loud inputs overflow": lambda p, s, z, x: _right(p, s, z, x) * (np.nan if np.abs(x).max() > 800 else 1.0),
}


def _cached(key: Callable[..., Any]) -> Callable[[], Suspect]:
    def make() -> Suspect:
        kept: dict[Any, Array] = {}

        def run(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
            return kept.setdefault(key(packed, x), _single(packed, scale, zero, x)).copy()

        return run

    return make


def _one_buffer() -> Suspect:
    buffers: dict[int, Array] = {}

    def run(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
        buffer = buffers.setdefault(len(packed), np.empty(len(packed), np.float32))
        buffer[:] = _single(packed, scale, zero, x)
        return buffer

    return run


def _changing(place: int) -> Callable[[], Suspect]:
    def run(*arrays: Array) -> Array:
        y = _single(*arrays)
        arrays[place][...] = 0  # so that the next call has less to do
        return y

    return lambda: run


def _tired(last: int) -> Suspect:
    """Right at first, when it is watched; from call `last` on with half of the rows."""
    calls = 0

    def run(packed: Array, scale: Array, zero: Array, x: Array) -> Array:
        nonlocal calls
        calls += 1
        y = _single(packed, scale, zero, x)
        return y if calls < last else np.where(np.arange(len(y)) < (len(y) + 1) // 2, y, 0).astype(np.float32)

    return run


_CONDUCT: dict[str, Callable[[], Suspect]] = {
    "cached by shape": _cached(lambda packed, x: (packed.shape, x.shape)),
    "cached by weights": _cached(lambda packed, x: (packed.tobytes(), x.shape)),
    "cached by inputs": _cached(lambda packed, x: (packed.shape, x.tobytes())),
    "one buffer": _one_buffer,
    "changes x": _changing(3),
    "changes weights": _changing(0),
    "changes scales": _changing(1),
}
FLAWS = (*_VALUES, *_CONDUCT, "tired")
