"""The most tokens per second that memory bandwidth allows a 7B model, by bits per weight."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import label_line

WEIGHTS = 6_738_415_616  # Llama-2-7B
MACHINES = {  # GB/s
    "one laptop core, 12 GB/s": 12,
    "laptop, 50 GB/s": 50,
    "unified memory, 400 GB/s": 400,
    "RTX 4090, 1008 GB/s": 1008,
}


def draw() -> Figure:
    bits = np.linspace(2, 16, 200)
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for name, bandwidth in MACHINES.items():
        (line,) = axes.semilogy(bits, bandwidth * 1e9 / (WEIGHTS * bits / 8))
        label_line(line, name, x=9.5, xytext=(0, 3), ha="left")
        axes.plot([4.25], [bandwidth * 1e9 / (WEIGHTS * 4.25 / 8)], "o", color=line.get_color())
    axes.axhspan(4, 7, color="C6", alpha=0.18, lw=0)
    axes.text(6.2, 5.2, "reading speed", color="C6", va="center")
    axes.set_xlim(2, 16)
    axes.set_xticks([2, 3, 4.25, 6, 8, 12, 16], ["2", "3", "4.25", "6", "8", "12", "16"])
    axes.set_xlabel("bits per weight, scales included")
    axes.set_ylabel("at most, tokens/s")
    return figure
