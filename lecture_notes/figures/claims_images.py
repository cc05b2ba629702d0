"""How many test images it takes to see a difference, with two test sets and with one that both networks answer."""

import matplotlib.pyplot as plt
import numpy as np
from _claims import images_paired, images_unpaired
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    gains = np.geomspace(0.1, 3, 60)
    figure, axes = plt.subplots(figsize=(7, 4))
    (line,) = axes.loglog(gains, [images_unpaired(g / 100) for g in gains], color="C1")
    label_line(line, "two test sets", x=0.1, xytext=(-6, 4), ha="right")
    for share, color in ((10, "C0"), (5, "C2"), (1, "C3")):
        kept = [g for g in gains if g < share]
        (line,) = axes.loglog(kept, [images_paired(g / 100, share / 100) for g in kept], color=color)
        label_line(line, f"one, {share} % discordant", x=0.1, xytext=(-6, -4), ha="right")
    axes.axhline(10_000, color="C6", ls="--", lw=1.2)
    axes.text(3, 11_000, "10,000 images", color="C6", ha="right")
    axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    axes.set_xlim(0.03, 3.2)
    axes.set_ylim(100, 2e6)
    axes.minorticks_off()
    axes.set_xlabel("difference of two accuracies near 90 %, points")
    axes.set_ylabel("test images needed")
    return figure
