"""The search: accuracy of the tiny networks against their MACs and against their peak of activation memory."""

import matplotlib.pyplot as plt
from _architectures import front, mean, measured
from matplotlib.figure import Figure

from fourbit.plots import COLORS

KINDS = {"standard": ("blue", "o"), "separable": ("vermilion", "s"), "inverted": ("green", "^")}


def draw() -> Figure:
    rows = measured()["search"]
    figure, both = plt.subplots(1, 2, figsize=(8.4, 4), sharey=True)
    for axes, price, words in zip(both, ("macs", "peak"), ("MACs", "peak of activations, bytes"), strict=True):
        best = front(rows, price)
        axes.step([row[price] for row in best], [mean(row) for row in best], where="post", color=COLORS["gray"], lw=1.4)
        for kind, (color, mark) in KINDS.items():
            own = [row for row in rows if row["kind"] == kind]
            x, y = [row[price] for row in own], [mean(row) for row in own]
            axes.plot(x, y, mark, color=COLORS[color], label=kind, ms=6)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlabel(words)
        axes.set_ylabel("accuracy on 12,000 images, %")
    both[0].set_xticks([2e4, 2e5, 2e6], ["20,000", "200,000", "2,000,000"])
    both[1].set_xticks([1e3, 3e3, 1e4], ["1,000", "3,000", "10,000"])
    both[0].legend(loc="lower right")
    return figure
