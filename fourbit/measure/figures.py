"""The figures of lab 00. Each takes numbers that the reader has measured and returns a matplotlib Figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourbit.measure.probe import Roofline
from fourbit.plots import COLORS, label_line, style

Point = tuple[float, float]


def shares(columns: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Bars of each layer's share, in percent, of several quantities: {quantity: {layer: amount}}."""
    with style():
        figure, axes = _axes(3.2)
        names = list(next(iter(columns.values())))
        height = 0.8 / len(columns)
        for i, ((label, amounts), color) in enumerate(zip(columns.items(), COLORS.values(), strict=False)):
            rows = [row + (i - (len(columns) - 1) / 2) * height for row in range(len(names))]
            total = sum(amounts.values())
            axes.barh(rows, [100 * amounts[name] / total for name in names], height * 0.95, color=color)
            _note(axes, 0.98, 0.90 - 0.09 * i, label, color)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("share of the whole network, %")
        axes.set_title(title)
    return figure


def times(seconds: Sequence[float], warmup: int, interval: tuple[float, float, float], title: str) -> Figure:
    """Histogram of run times with (low, median, high); the dashed line is the mean of all runs, warm-up included."""
    with style():
        figure, axes = _axes(3.0)
        kept = [1e3 * s for s in seconds[warmup:]]
        low, median, high = (1e3 * s for s in interval)
        mean = 1e3 * statistics.fmean(seconds)
        right = max(statistics.quantiles(kept, n=20)[-1], 1.05 * mean)
        axes.hist(kept, bins=60, range=(min(kept), right), color=COLORS["blue"], alpha=0.6)
        axes.axvspan(low, high, color=COLORS["vermilion"], alpha=0.4, lw=0)
        axes.axvline(median, color=COLORS["vermilion"])
        axes.axvline(mean, color=COLORS["purple"], ls="--")
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "va": "top"}
        axes.text(median, 0.97, "  median and its 95 % interval", color=COLORS["vermilion"], **place)
        axes.text(mean, 0.84, "  mean, warm-up kept", color=COLORS["purple"], **place)
        axes.set_xlabel("time of one image, ms (the slowest 5 % of the runs lie outside)")
        axes.set_ylabel("runs")
        axes.set_title(title)
    return figure


def roofline(machine: Roofline, groups: Mapping[str, Mapping[str, Point]], title: str) -> Figure:
    """The roofline of a machine with dots on it: {group: {name: (FLOP per byte, FLOP/s)}}."""
    with style():
        figure, axes = _axes(4.4)
        ridge = machine.peak_flops / machine.peak_bandwidth
        reach = [p[0] for points in groups.values() for p in points.values()] + [ridge]
        grid = [min(reach) / 2, ridge, 3 * max(reach)]
        roof = [min(machine.peak_flops, x * machine.peak_bandwidth) / 1e9 for x in grid]
        axes.loglog(grid, roof, color=COLORS["gray"])
        peak, stream = machine.peak_flops / 1e9, machine.peak_bandwidth / 1e9
        axes.text(grid[-1], peak * 1.1, f"{peak:.0f} GFLOP/s", ha="right", va="bottom", color=COLORS["gray"])
        axes.text(grid[0], roof[0] * 2.5, f"{stream:.0f} GB/s", ha="left", va="bottom", color=COLORS["gray"])
        for i, ((label, points), color) in enumerate(zip(groups.items(), COLORS.values(), strict=False)):
            axes.scatter([p[0] for p in points.values()], [p[1] / 1e9 for p in points.values()], color=color, zorder=3)
            for k, (name, (x, y)) in enumerate(sorted(points.items(), key=lambda item: item[1])):
                # Above and below in turn, since neighbors in intensity are often neighbors in speed too.
                side: dict[str, Any] = {"xytext": (0, 6 if k % 2 else -6), "va": "bottom" if k % 2 else "top"}
                place = {"textcoords": "offset points", "ha": "center", "fontsize": 8, **side}
                axes.annotate(name, (x, y / 1e9), color=color, **place)
            _note(axes, 0.98, 0.06 + 0.07 * (len(groups) - 1 - i), label, color)
        axes.set_ylim(top=2.5 * peak)
        axes.set_xlabel("arithmetic intensity, FLOP/byte")
        axes.set_ylabel("GFLOP/s")
        axes.set_title(title)
    return figure


def lines(
    curves: Mapping[str, Sequence[Point]],
    xlabel: str,
    ylabel: str,
    title: str,
    *,
    log: bool = False,
    dots: bool = False,
    at: Mapping[str, float] | None = None,
) -> Figure:
    """Labeled curves through (x, y) points; labels stand at the right end, or above the x that `at` gives.

    Curves whose label begins with "no " or "perfect" are ideals, drawn dotted.
    """
    with style():
        figure, axes = _axes(3.9)
        palette = iter(COLORS.values())
        for label, points in curves.items():
            bound = label.startswith(("no ", "perfect"))
            form: dict[str, Any] = {"color": COLORS["gray"], "ls": ":"} if bound else {"color": next(palette)}
            marker = "o" if dots and not bound else ""
            (line,) = axes.plot([p[0] for p in points], [p[1] for p in points], marker=marker, **form)
            label_line(line, label, x=(at or {}).get(label))
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.margins(y=0.12)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title)
    return figure


def bills(energies: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Stacked bars of modelled energy in microjoules: {variant: {"mac": ..., level: ..., "total": ...}}."""
    with style():
        figure, axes = _axes(2.8)
        for row, bill in enumerate(energies.values()):
            arithmetic, total = bill["mac"], bill["total"]
            axes.barh(row, arithmetic, color=COLORS["blue"])
            axes.barh(row, total - arithmetic, left=arithmetic, color=COLORS["vermilion"])
            text = f"  {total:.3g} µJ, {100 * arithmetic / total:.0f} % of it arithmetic"
            axes.text(total, row, text, va="center")
        axes.set_yticks(range(len(energies)), list(energies))
        axes.invert_yaxis()
        axes.set_xlim(right=1.7 * max(bill["total"] for bill in energies.values()))
        axes.set_xlabel("modelled energy of one image, µJ")
        _note(axes, 0.98, 0.24, "arithmetic", COLORS["blue"])
        _note(axes, 0.98, 0.12, "moving weights", COLORS["vermilion"])
        axes.set_title(title)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7.0, height))
    plt.close(figure)  # the notebook shows the returned figure; an open one would be shown twice
    return figure, axes


def _note(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    axes.text(x, y, text, color=color, transform=axes.transAxes, ha="right", va="center")
