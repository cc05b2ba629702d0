"""The drawings of the class report, as SVG that follows the page's colors."""

from __future__ import annotations

from collections.abc import Sequence

from autograder.reports.statistics import Item, Spread


def histogram(scores: Sequence[float], most: float, marks: Spread) -> str:
    """Return the distribution of `scores`, 0 to `most` points, with its quartiles, as an ``<svg>`` element."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from fourbit.plots import COLORS, style, to_svg

    with style():
        figure = Figure(figsize=(7.0, 2.6))
        axes = figure.add_subplot()
        top = max(most, marks.most) or 1.0
        axes.hist(scores, bins=20, range=(min(0.0, marks.least), top), color=COLORS["blue"], rwidth=0.92)
        lines = ((marks.lower, "a quarter below"), (marks.median, "median"), (marks.upper, "a quarter above"))
        for share, label in lines:
            axes.axvline(share, color=COLORS["vermilion"], linewidth=1.2, dashes=(3, 2))
            axes.annotate(
                label, (share, 1), (-3, -3), ("data", "axes fraction"), textcoords="offset points",
                rotation=90, va="top", ha="right", color=COLORS["vermilion"], fontsize=8,
            )  # fmt: skip
        axes.set_xlabel("points")
        axes.set_ylabel("students")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        return to_svg(figure, "scores")


def item_map(items: Sequence[Item]) -> str:
    """Return difficulty against discrimination, a numbered dot for each exercise that has both; "" for none."""
    from matplotlib.figure import Figure

    from fourbit.plots import COLORS, style, to_svg

    drawn = [
        (number, item.difficulty, item.discrimination)
        for number, item in enumerate(items, 1)
        if item.difficulty is not None and item.discrimination is not None
    ]
    if not drawn:
        return ""
    with style():
        figure = Figure(figsize=(7.0, 3.0))
        axes = figure.add_subplot()
        axes.axhline(0.2, color=COLORS["vermilion"], linewidth=1.2, dashes=(3, 2))
        for number, difficulty, discrimination in drawn:
            axes.plot(difficulty, discrimination, "o", color=COLORS["blue"])
            axes.annotate(str(number), (difficulty, discrimination), (5, 4), textcoords="offset points", fontsize=9)
        axes.set_xlim(-0.03, 1.05)
        axes.set_xlabel("difficulty: share of the points that was earned")
        axes.set_ylabel("discrimination")
        return to_svg(figure, "items")
