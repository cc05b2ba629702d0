"""What the straight-through estimator descends on, and what a weight does that should lie between two codes."""

import matplotlib.pyplot as plt
import numpy as np
from _quantization_training import TARGET, dithering
from matplotlib.figure import Figure


def draw() -> Figure:
    w = np.linspace(-1.7, 2.3, 801)
    loss = 0.5 * (w - TARGET) ** 2
    rounded = 0.5 * (np.floor(w + 0.5) - TARGET) ** 2
    corners = np.arange(-2.5, 3.0)
    straight = np.interp(w, corners, 0.5 * (corners - TARGET) ** 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 4.0))
    left.plot(w, loss, color="C6", lw=1.3, ls="--")
    left.plot(w, rounded, color="C1")
    left.plot(w, straight, color="C0")
    left.plot([0.5], [0.5 * (0.5 - TARGET) ** 2], "o", color="C0", ms=8)
    left.plot([0], [0.5 * TARGET**2], "D", color="C1", ms=7)
    left.annotate("its minimum:\na border", (0.5, 0.02), xytext=(0.75, -0.28), color="C0", va="center")
    left.annotate("best code", (0, 0.045), xytext=(-0.5, -0.22), color="C1", ha="center", va="center")
    left.text(-1.3, 1.85, "loss of the code", color="C1")
    left.text(-0.85, 1.2, "what straight-through\ndescends on", color="C0")
    left.set_ylim(-0.4, 2.1)
    left.set_xlabel("weight, steps")
    left.set_ylabel("loss")
    weights, codes = dithering(1.2, 80)
    right.step(range(80), codes, where="post", color="C1", lw=1.4)
    right.plot(weights, color="C0")
    right.axhline(TARGET, color="C6", lw=1.3, ls="--")
    right.axhline(0.5, color="C6", lw=0.9)
    right.text(1, 0.52, "border", color="C6", va="bottom")
    right.text(1, TARGET - 0.03, "target", color="C6", va="top")
    right.text(50, 1.03, "code", color="C1")
    right.set_ylim(-0.08, 1.3)
    right.text(3, 1.22, "weight", color="C0")
    right.set_xlabel("step")
    right.set_ylabel("steps of the grid")
    return figure
