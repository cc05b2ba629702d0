"""The drawings of the class report, as SVG that follows the page's colors.

Drawn at two thirds of the page's width, so that the words are still read where a phone shrinks them to fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autograder.reports.statistics import Item, Spread
from autograder.reports.wide import number

if TYPE_CHECKING:
    import numpy as np

WIDTH = 4.8  # inches
_BINS = 20
# From a dot to its number, in points; the first of those with the same room is taken.
_SIDES = ((8.0, 7.0), (0.0, 10.0), (11.0, 0.0), (-8.0, 7.0), (8.0, -7.0), (-11.0, 0.0), (0.0, -10.0), (-8.0, -7.0))


def histogram(scores: Sequence[float], most: float, marks: Spread) -> str:
    """Return the distribution of `scores`, 0 to `most` points, as an ``<svg>`` element.

    Its box plot stands in a row of its own above the bars: bars may be anywhere, and words over them are not read.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from fourbit.plots import COLORS, style, to_svg

    with style():
        figure = Figure(figsize=(WIDTH, 2.7))
        above, axes = figure.subplots(2, sharex=True, height_ratios=(1, 3.2))
        low, high = min(0.0, marks.least), max(most, marks.most) or 1.0
        _box(above, marks, low, high)
        axes.hist(scores, bins=_edges(scores, low, high), color=COLORS["blue"], rwidth=0.92)
        axes.set_xlabel("points")
        axes.set_ylabel("students")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="x", visible=False)
        return to_svg(figure, "scores")


def _edges(scores: Sequence[float], low: float, high: float) -> list[float]:
    """The bins' edges: a bin around each whole number of points where there are only these, and few."""
    if high - low <= _BINS and all(value.is_integer() for value in map(float, (*scores, low, high))):
        return [value - 0.5 for value in range(round(low), round(high) + 2)]
    return [low + (high - low) * step / _BINS for step in range(_BINS + 1)]


def _box(axes: Any, marks: Spread, low: float, high: float) -> None:
    """Draw lowest, quartiles, median and highest into `axes`, with one line of words above."""
    from fourbit.plots import COLORS

    color = COLORS["vermilion"]
    axes.set_axis_off()
    axes.set_ylim(0, 1)
    axes.hlines(0.25, marks.least, marks.most, color=color, linewidth=1.2)
    axes.hlines(0.25, marks.lower, marks.upper, color=color, linewidth=7)
    axes.plot(marks.median, 0.25, "D", color=color, markersize=9)
    share = (marks.median - low) / (high - low)
    side, place = ("left", 0.0) if share < 0.4 else ("right", 1.0) if share > 0.6 else ("center", 0.5)
    lower, median, upper = (number(round(value, 1)) for value in (marks.lower, marks.median, marks.upper))
    half = f"at {lower}" if lower == upper else f"from {lower} to {upper}"
    axes.text(
        place, 0.62, f"median {median}, the middle half {half}", color=color, fontsize=10, ha=side,
        transform=axes.transAxes,
    )  # fmt: skip


def item_map(items: Sequence[Item]) -> str:
    """Return difficulty against discrimination, a numbered dot for each exercise that has both; "" for none."""
    from matplotlib.figure import Figure

    from fourbit.plots import COLORS, style, to_svg

    drawn = [
        (place, item.difficulty, item.discrimination)
        for place, item in enumerate(items, 1)
        if item.difficulty is not None and item.discrimination is not None
    ]
    if not drawn:
        return ""
    with style():
        figure = Figure(figsize=(WIDTH, 3.2))
        axes = figure.add_subplot()
        axes.axhline(0.2, color=COLORS["vermilion"], linewidth=1.2, dashes=(3, 2))
        axes.set_xlim(-0.03, 1.05)
        axes.set_ylim(min(0.0, *(discrimination for *_, discrimination in drawn)) - 0.08, 1.05)
        axes.set_xlabel("difficulty: share of the points earned")
        axes.set_ylabel("discrimination")
        figure.draw_without_rendering()
        dots = axes.transData.transform([dot[1:] for dot in drawn]) * 72 / figure.dpi
        for (place, x, y), offset in zip(drawn, _offsets(dots), strict=True):
            axes.plot(x, y, "o", color=COLORS["blue"])
            axes.annotate(str(place), (x, y), offset, textcoords="offset points", ha="center", va="center")
        return to_svg(figure, "items")


def _offsets(dots: np.ndarray) -> list[tuple[float, float]]:
    """Where each dot's number stands beside it, in points: on the side with the most room.

    Args:
        dots: (n, 2) places of the dots, in points.
    """
    taken = [(float(x), float(y)) for x, y in dots]
    found = []
    for x, y in taken[:]:
        others = [other for other in taken if other != (x, y)]
        best = max(_SIDES, key=lambda side: _room((x + side[0], y + side[1]), others))
        taken.append((x + best[0], y + best[1]))
        found.append(best)
    return found


def _room(place: tuple[float, float], others: Sequence[tuple[float, float]]) -> float:
    return min((math.dist(place, other) for other in others), default=math.inf)
