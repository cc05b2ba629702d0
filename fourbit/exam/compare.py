"""Comparing outputs: form (type, shape, dtype), closeness, and words for both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from fourbit.exam.author import Raised

# Float noise between two CPUs is a few ulp per operation; mistakes differ by orders of magnitude more.
RTOL, ATOL = 1e-4, 1e-6


def describe(value: Any) -> str:
    """A few words for a value: "float32 tensor (3, 4)", "list of 5", "None"."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    if isinstance(value, nn.Sequential):
        return f"nn.Sequential of {len(value)} layers"
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Raised):
        return f"{value.type}: {value.message}" if value.message else value.type
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def form_mismatch(output: Any, expected: Any, where: str = "the result") -> str | None:
    """None when `output` has the form of `expected`, else what differs and where.

    An int passes for a float; a bool is not an int. Tensors must agree in dtype and shape.
    """
    if isinstance(expected, float) and isinstance(output, int) and not isinstance(output, bool):
        return None
    if type(output) is not type(expected):
        return f"{where} is a {describe(output)}; a {describe(expected)} was expected"
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        if output.dtype != expected.dtype or tuple(output.shape) != tuple(expected.shape):
            return f"{where} is a {describe(output)}; a {describe(expected)} was expected"
        return None
    if isinstance(expected, dict):
        missing, extra = expected.keys() - output.keys(), output.keys() - expected.keys()
        if missing or extra:
            return f"{where} has keys {sorted(map(str, output))}; {sorted(map(str, expected))} were expected"
        pairs = [(f"{where}[{key!r}]", output[key], expected[key]) for key in expected]
    elif isinstance(expected, (list, tuple)):
        if len(output) != len(expected):
            return f"{where} has {len(output)} items; {len(expected)} were expected"
        pairs = [(f"{where}[{i}]", output[i], expected[i]) for i in range(len(expected))]
    else:
        return None
    return next((m for m in (form_mismatch(o, e, w) for w, o, e in pairs) if m), None)


def coincide(a: Any, b: Any, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Whether two outputs are the same up to float noise; NaN equals NaN; models compare layer by layer."""
    if isinstance(a, Raised) and isinstance(b, Raised):
        return a.type == b.type
    if form_mismatch(a, b) or form_mismatch(b, a):
        return False
    if isinstance(a, np.ndarray):
        return coincide(torch.from_numpy(a), torch.from_numpy(b), rtol, atol)
    if isinstance(a, torch.Tensor):
        if not a.dtype.is_floating_point:
            return torch.equal(a, b)
        return torch.allclose(a.double(), b.double(), rtol=rtol, atol=atol, equal_nan=True)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=rtol, abs_tol=atol)
    if isinstance(a, dict):
        return all(coincide(a[key], b[key], rtol, atol) for key in a)
    if isinstance(a, (list, tuple)):
        return all(coincide(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if isinstance(a, nn.Sequential):
        return _same_chain(a, b, rtol, atol)
    return bool(a == b)


def _same_chain(a: nn.Sequential, b: nn.Sequential, rtol: float, atol: float) -> bool:
    if str(a) != str(b):  # names, kinds and options of every layer
        return False
    ours, theirs = a.state_dict(), b.state_dict()
    return all(coincide(ours[key], theirs[key], rtol, atol) for key in ours)
