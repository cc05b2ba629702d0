"""Divergence of ways to eight bits by how loud the loudest 1 % of the channels are made."""

import matplotlib.pyplot as plt
from _outliers import interval, measured
from matplotlib.figure import Figure

from fourbit.plots import label_line

LINES = (
    ("tensor", "C1", "one scale", 6),
    ("token", "C0", "one for each token", -5),
    ("smooth", "C2", "smoothed, one scale", 0),
    ("mixed", "C3", "loud channels in float", 0),
    ("W8", "C6", "weights alone", 0),
)


def draw() -> Figure:
    part = measured()["dial"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, color, text, lift in LINES:
        found = [interval(values) for values in part[name]]
        axes.fill_between(part["k"], [f.low for f in found], [f.high for f in found], color=color, alpha=0.2, lw=0)
        (line,) = axes.plot(part["k"], [f.mean for f in found], "o-", color=color, ms=4)
        label_line(line, text, xytext=(7, lift))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.92, 130)
    axes.set_xticks(part["k"], [f"{k}" for k in part["k"]])
    axes.set_yticks([0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], ["0.003", "0.01", "0.03", "0.1", "0.3", "1", "3", "10"])
    axes.minorticks_off()
    axes.set_xlabel("k: how many times louder the loudest 1 % of the channels")
    axes.set_ylabel("divergence, nats per token")
    return figure
