"""Blocks of 64 channels on the example roofline, and what separable convolutions gain on machines with other ridges."""

import matplotlib.pyplot as plt
import numpy as np
from _architectures import BANDWIDTH, PEAK, blocks, speedup
from matplotlib.figure import Figure

from fourbit.plots import COLORS, label_line


def draw() -> Figure:
    figure, (roof, gain) = plt.subplots(1, 2, figsize=(8.4, 3.9))
    grid = np.logspace(-0.3, 2.5, 300)
    roof.loglog(grid, np.minimum(PEAK, grid * BANDWIDTH) / 1e9, color=COLORS["gray"])
    found = blocks()
    names = {"standard": "3x3", "grouped": "3x3, 4 groups", "depthwise": "depthwise 3x3", "pointwise": "1x1"}
    marks = {"standard": (0, 7), "grouped": (0, -15), "depthwise": (8, -5), "pointwise": (0, 7)}
    for (name, words), color in zip(names.items(), ("blue", "green", "vermilion", "purple"), strict=True):
        (conv,) = found[name]
        x, y = conv.intensity, min(PEAK, conv.intensity * BANDWIDTH) / 1e9
        roof.plot(x, y, "o", color=COLORS[color], ms=7)
        side = "left" if marks[name][0] else "center"
        roof.annotate(words, (x, y), xytext=marks[name], textcoords="offset points", color=COLORS[color], ha=side)
    roof.set_ylim(8, 160)
    roof.set_xticks([1, 10, 100], ["1", "10", "100"])
    roof.set_yticks([10, 100], ["10", "100"])
    roof.set_xlabel("arithmetic intensity, FLOP/byte")
    roof.set_ylabel("attainable, GFLOP/s")
    ridges = np.logspace(-0.5, 2.7, 200)
    for c, color in ((256, "purple"), (64, "blue"), (16, "green")):
        (line,) = gain.semilogx(ridges, [speedup(ridge, c) for ridge in ridges], color=COLORS[color])
        label_line(line, f"{c} channels", x=ridges[0], ha="left", xytext=(2, 4))
    gain.axhline(1, color=COLORS["gray"], lw=1.2, ls=":")
    gain.set_ylim(0, 9.8)
    gain.set_xticks([1, 10, 100], ["1", "10", "100"])
    gain.set_xlabel("ridge of the machine, FLOP/byte")
    gain.set_ylabel("most speed-up of separable over 3x3")
    return figure
