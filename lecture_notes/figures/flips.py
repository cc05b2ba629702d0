"""Oscillation at three bits: where the weights lie in their cells, and how many codes change in each step."""

import matplotlib.pyplot as plt
import numpy as np
from _quantization_training import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    part = measured()["oscillation"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.8))
    edges = np.linspace(-0.5, 0.5, 21)
    for counts, color, label, height in (
        (part["places"][0], "C6", "before", 0.058),
        (part["places"][1], "C0", "after two epochs", 0.068),
    ):
        share = np.array(counts) / sum(counts)
        left.stairs(share, edges, color=color, lw=2)
        left.text(0, height, label, color=color, ha="center")
    left.axhline(0.05, color="C6", lw=0.9, ls="--")
    left.set_ylim(0, 0.085)
    left.set_xlabel("place in the cell, steps from the code")
    left.set_ylabel("share of the weights")
    flips = 100 * np.array(part["flips"])
    right.plot(flips, color="C0", lw=1.2, alpha=0.5)
    right.plot(range(4, len(flips) - 4), np.convolve(flips, np.ones(9) / 9, mode="valid"), color="C0")
    right.set_ylim(0, None)
    right.set_xlabel("training step")
    right.set_ylabel("weights whose code changes, %")
    return figure
