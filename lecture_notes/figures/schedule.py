"""The cubic schedule beside a linear one, and how many of the remaining weights each step removes."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import label_line

FINAL = 0.95


def draw() -> Figure:
    t = np.linspace(0, 1, 201)
    curves = {"cubic": FINAL * (1 - (1 - t) ** 3), "linear": FINAL * t}
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
    for name, s in curves.items():
        (line,) = left.plot(t, 100 * s, label=name)
        label_line(line, x=0.35, xytext=(6, -4), ha="left", va="top")
        removed = 100 * np.diff(s[::10]) / (1 - s[:-1:10])  # of what was left, for each of 20 steps
        (line,) = right.plot(np.arange(1, 21), removed, "o-", ms=4, label=name)
        label_line(line, x=19 if name == "linear" else 12, xytext=(-8, 2), ha="right")
    left.set_xlabel("share of the pruning phase")
    left.set_ylabel("sparsity, %")
    right.set_xticks([1, 5, 10, 15, 20])
    right.set_xlabel("pruning step, of 20")
    right.set_ylabel("removed, % of what was left")
    return figure
