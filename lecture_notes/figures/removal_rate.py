"""Three ways from all weights to one in a hundred: what is left, and how fast it goes."""

import matplotlib.pyplot as plt
import numpy as np
from _sparse_training import FINAL, density
from matplotlib.figure import Figure

LABELS = {  # kind -> color, label, its place on the left and on the right
    "linear": ("C1", "linear", (0.5, 0.62), (0.74, 10.5)),
    "cubic": ("C0", "cubic", (0.3, 0.33), (0.66, 8.0)),
    "geometric": ("C2", "constant share", (0.02, 0.16), (0.02, 5.0)),
}


def draw() -> Figure:
    t = np.linspace(0, 0.995, 400)
    figure, (left, rate) = plt.subplots(1, 2, figsize=(8.2, 3.9))
    for kind, (color, label, place, other) in LABELS.items():
        kept = np.array([density(kind, x) for x in t])
        left.plot(t, kept, color=color)
        rate.plot(t, -np.gradient(kept, t) / kept, color=color)
        left.text(*place, label, color=color)
        rate.text(*other, label, color=color)
    left.set_yscale("log")
    left.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["1", "3", "10", "30", "100"])
    left.minorticks_off()
    left.axhline(FINAL, color="C6", lw=1.2, ls="--")
    left.set_ylabel("weights left, %")
    rate.set_ylim(0, 12)
    rate.set_ylabel("relative removal per unit of time")
    for axes in (left, rate):
        axes.set_xlabel("time, share of the pruning phase")
    return figure
