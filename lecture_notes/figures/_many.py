"""Hundreds of equal marks as a few lines: a browser takes a millisecond for each marker of a plot."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

_TOGETHER = 40  # of longer lines (128 points) matplotlib leaves parts out that have no length


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], *, size: float, color: str, alpha: float = 1.0) -> None:
    """Draw round dots of a diameter in points: lines of no length with round ends."""
    strokes(axes, x, y, x, y, lw=size, color=color, alpha=alpha, solid_capstyle="round")


def strokes(
    axes: Axes, x: Sequence[float], y: Sequence[float], to_x: Sequence[float], to_y: Sequence[float], **line: Any
) -> None:
    """Draw a line from each (x, y) to its (to_x, to_y); `line`: options of :meth:`matplotlib.axes.Axes.plot`."""
    gap = float("nan")
    for start in range(0, len(x), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        xs = [value for pair in zip(x[part], to_x[part], strict=True) for value in (*pair, gap)]
        ys = [value for pair in zip(y[part], to_y[part], strict=True) for value in (*pair, gap)]
        axes.plot(xs, ys, "-", **line)
