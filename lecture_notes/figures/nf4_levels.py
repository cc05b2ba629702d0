"""Sixteen levels for a normal density, equally spaced and NormalFloat's, and where the weights of a block lie."""

import statistics

import matplotlib.pyplot as plt
import numpy as np
from _four_bits import measured
from matplotlib.figure import Figure

ROWS = (("even, 15", "evenly spaced", "C1"), ("NF4", "NF4", "C0"), ("best", "least squared error", "C2"))


def draw() -> Figure:
    part = measured()["levels"]
    edges, count = np.array(part["edge"]), np.array(part["count"], dtype=float)
    density = count / count.sum() / np.diff(edges)
    figure, axes = plt.subplots(figsize=(7, 4.4))
    axes.stairs(density, edges, fill=True, color="C5", alpha=0.45)
    normal = statistics.NormalDist(0, 1 / part["largest, standard deviations of the block"])
    x = np.linspace(-1.12, 1.12, 300)
    axes.plot(x, [normal.pdf(v) for v in x], color="C6", lw=1.3)
    end = statistics.NormalDist().inv_cdf(1 - (1 / 32 + 1 / 30) / 2)
    wide = statistics.NormalDist(0, 1 / end)
    axes.plot(x, [wide.pdf(v) for v in x], color="C0", lw=1.3, ls="--")
    top = float(density.max())
    for i, (name, text, color) in enumerate(ROWS):
        place = -top * (0.13 + 0.19 * i)
        axes.plot(part["levels"][name], [place] * len(part["levels"][name]), "|", color=color, ms=12, mew=2)
        axes.text(1.1, place, text, color=color, va="center")
    axes.text(0.16, 0.92 * top, "weights of a block of 64,\nover the largest of them", color="C5", va="center")
    axes.annotate("the density whose\nquantiles NF4 takes", (0.62, wide.pdf(0.62)), xytext=(14, 10),
                  textcoords="offset points", color="C0")  # fmt: skip
    axes.axhline(0, color="C6", lw=0.8)
    axes.set_xlim(-1.12, 1.75)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("weight over the largest magnitude of its block")
    return figure
