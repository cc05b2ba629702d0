"""Predict, run, confront: a numeric guess is stored first and shown beside the measurement afterwards.

Predictions are never graded.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from types import EllipsisType

from fourbit import progress


@dataclass(frozen=True)
class Prediction:
    """A guess at one number; `what` names it with its unit, "top-1 accuracy at 90 % sparsity, %"."""

    name: str
    value: float | None
    what: str
    measured: float | None = None

    def __repr__(self) -> str:
        if self.value is None:
            return f"No guess yet for {self.what}: replace the ... by a number and run the cell before you go on."
        if self.measured is None:
            return f"Noted: {self.value:g} ({self.what})."
        return f"{self.what}: you predicted {self.value:g}, measured {self.measured:.4g}; {self._verdict()}."

    def _verdict(self) -> str:
        assert self.value is not None
        assert self.measured is not None
        factor = off_by(self.value, self.measured)
        if factor <= 1.1:
            return "within 10 %"
        return f"off by a factor of {factor:.3g}" if math.isfinite(factor) else "of the wrong sign or zero"

    def _repr_html_(self) -> str:
        return (
            f'<div style="border-left:4px solid #0072b2;padding:4px 12px;margin:4px 0">{html.escape(repr(self))}</div>'
        )


def off_by(predicted: float, measured: float) -> float:
    """max(p/m, m/p), the factor between two numbers of one sign; infinite for others."""
    if predicted == measured:
        return 1.0
    if predicted * measured <= 0:
        return math.inf
    return max(predicted / measured, measured / predicted)


def predict(name: str, value: float | EllipsisType, what: str) -> Prediction:
    """Store a guess before measuring. `value` is a number, or `...` while there is none.

    Raises:
        TypeError: when `value` is neither.
    """
    if value is ...:
        return Prediction(name, None, what)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"predict({name!r}, ...): replace the ... by one number, not a {type(value).__name__}")
    progress.record("predictions", name, {"value": float(value), "what": what})
    return Prediction(name, float(value), what)


def confront(name: str, measured: float) -> Prediction:
    """Show the stored guess beside what was measured, and by which factor it was off."""
    noted = progress.read().get("predictions", {}).get(name)
    if not noted:
        return Prediction(name, None, name)
    progress.record("predictions", name, {**noted, "measured": float(measured)})
    return Prediction(name, float(noted["value"]), str(noted["what"]), float(measured))
