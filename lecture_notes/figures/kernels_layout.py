"""Two layouts of 4-bit codes, and the vectors that come out when they are unpacked."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SHOWN = 16  # codes of a group; a real one has 64


def box(axes: Axes, x: float, y: float, width: float, code: int, color: str) -> None:
    axes.add_patch(plt.Rectangle((x, y), width, 0.8, facecolor=color, alpha=0.28, edgecolor=color))
    axes.text(x + width / 2, y + 0.4, str(code), ha="center", va="center", fontsize=8.5)


def draw() -> Figure:
    figure, both = plt.subplots(1, 2, figsize=(7.6, 3.1), sharey=True)
    half = SHOWN // 2
    layouts = {
        "neighbors in a byte": [(2 * j, 2 * j + 1) for j in range(half)],
        "halves of the group in a byte": [(j, j + half) for j in range(half)],
    }
    for axes, (title, codes) in zip(both, layouts.items(), strict=True):
        for j, (low, high) in enumerate(codes):
            box(axes, j, 2.4, 0.48, low, "C0")
            box(axes, j + 0.5, 2.4, 0.48, high, "C1")
            box(axes, j, 1.2, 0.95, low, "C0")
            box(axes, j, 0, 0.95, high, "C1")
        axes.set_xlim(-0.1, half)
        axes.set_ylim(-0.1, 3.4)
        axes.set_title(title)
        axes.set_xlabel("byte; place in the vector")
        axes.grid(visible=False)
    both[0].set_yticks([2.8, 1.6, 0.4], ["in memory", "bytes & 15", "bytes >> 4"])
    for axes in both:
        axes.set_ylabel("codes, by their input")
    return figure
