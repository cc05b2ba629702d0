"""Bits per weight of a sparse matrix against those of a dense one with fewer bits."""

import matplotlib.pyplot as plt
import numpy as np
from _sparse_training import bits_per_weight
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    sparsity = np.linspace(0, 0.95, 96)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for bits, color, at in ((16, "C0", 22), (8, "C2", 22), (4, "C1", 22)):
        (line,) = axes.plot(100 * sparsity, [bits_per_weight(bits, 1 - s, "bitmap") for s in sparsity], color=color)
        label_line(line, f"{bits}-bit values and a bitmap", x=at, xytext=(6, 3), ha="left")
        axes.plot(50, bits_per_weight(bits, 0.5, "n:4"), "D", color=color, ms=7)
    for bits in (4, 3):
        axes.axhline(bits, color="C6", lw=1.2, ls="--")
        axes.text(95, bits + 0.12, f"dense, {bits} bits", color="C6", ha="right", va="bottom")
    axes.annotate("2:4", (50, 9), xytext=(8, 4), textcoords="offset points", color="C0")
    axes.set_yscale("log", base=2)
    axes.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.set_ylim(1.2, 20)
    axes.set_xlabel("weights removed, %")
    axes.set_ylabel("bits per weight")
    return figure
