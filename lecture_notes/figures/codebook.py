"""The weights of one layer, and where codebooks and grids of the same size put their values."""

import matplotlib.pyplot as plt
import numpy as np
from _quantization import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    noise = measured()["noise"]
    edges = np.array(noise["histogram"]["edge"])
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.stairs(noise["histogram"]["count"], edges, fill=True, color="C5", alpha=0.6)
    top = max(noise["histogram"]["count"])
    axes.set_ylim(-1.12 * top, 1.05 * top)
    rows = (
        ("4-bit codebook", noise["centroids"]["4"], "C0"),
        ("4-bit grid", [noise["limit"] * k / 7 for k in range(-7, 8)], "C1"),
        ("2-bit codebook", noise["centroids"]["2"], "C0"),
        ("2-bit grid", [noise["limit"] * k for k in (-1, 0, 1)], "C1"),
    )
    for row, (name, values, color) in enumerate(rows):
        place = -top * (0.2 + 0.26 * row)
        axes.plot(values, [place] * len(values), "|", color=color, ms=11, mew=2)
        axes.text(0.255, place, name, color=color, va="center")
    axes.text(0.05, 0.75 * top, "weights of conv4", color="C5")
    axes.axhline(0, color="C6", lw=0.8)
    axes.set_xlim(-0.25, 0.36)
    axes.set_xticks([-0.2, -0.1, 0, 0.1, 0.2])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_xlabel("weight")
    return figure
