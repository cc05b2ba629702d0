"""Two equal programs on a machine that slows down, one after the other and in turns: a simulation."""

import statistics

import matplotlib.pyplot as plt
from _claims import session
from _many import dots
from matplotlib.figure import Figure


def draw() -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, (order, title) in zip(panels, (("blocks", "first A, then B"), ("turns", "in turns")), strict=True):
        rows = session(order)
        for who, color, place in (("A", "C0", 0.92), ("B", "C1", 0.84)):
            points = [(at, ms) for at, name, ms in rows if name == who]
            median = statistics.median(ms for _, ms in points)
            dots(axes, *zip(*points, strict=True), size=2, color=color, alpha=0.6)
            axes.axhline(median, color=color, lw=1.4)
            axes.text(0.03, place, f"{who}: median {median:.2f} ms", color=color, transform=axes.transAxes)
        axes.set_title(title)
        axes.set_xlabel("run")
    panels[0].set_ylabel("time, ms")
    panels[1].set_ylabel("time, ms", visible=False)
    return figure
