"""Accuracy against bits: shared values, and grids that many or few weights share."""

import matplotlib.pyplot as plt
from _quantization import measured
from matplotlib.figure import Figure

NAMES = {
    "tensor": ("one symmetric grid\nfor each layer", 10),
    "channel": ("for each channel:\n3 values at 2 bits", 34),
    "codebook": ("a codebook\nfor each layer", 66),
    "32": ("for 32 weights\n(costs one more bit)", 82),
    "affine": ("for each channel, smallest to\nlargest: 4 values at 2 bits", 97),
}


def draw() -> Figure:
    grids = measured()["grids"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, (text, place) in NAMES.items():
        (line,) = axes.plot(grids["bits"], grids[name], "o-")
        axes.text(1.85, place, text, color=line.get_color(), ha="right", va="center")
    axes.plot([2, 8.3], 2 * [grids["dense"]], color="C6", lw=1.2, ls="--")
    axes.text(8.2, grids["dense"] + 1.2, "float32", color="C6", ha="right", va="bottom")
    axes.set_xlim(-1.3, 8.3)
    axes.set_xticks([2, 3, 4, 5, 6, 8])
    axes.set_ylim(0, 104)
    axes.set_yticks([0, 20, 40, 60, 80])
    axes.set_xlabel("bits for each weight")
    axes.set_ylabel("test accuracy, %, no training")
    return figure
