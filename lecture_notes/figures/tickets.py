"""Lottery tickets: accuracy against what is left, for the ticket and for what it must be compared with."""

import statistics

import matplotlib.pyplot as plt
from _sparse_training import arm, tickets
from matplotlib.figure import Figure

ARMS = {  # kind -> color, label, vertical shift of the label in points
    "ticket": ("C0", "the ticket, from its own start", 8),
    "tuned": ("C2", "cut at once, trained on", -2),
    "reinit": ("C1", "same mask, another start", 0),
    "random": ("C3", "random mask, same start", -4),
}


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.4))
    dense = statistics.fmean(row["dense"] for row in tickets())
    axes.axhline(dense, color="C6", lw=1.2, ls="--")
    axes.text(1.02, dense - 0.25, "dense", color="C6", va="top")
    for kind, (color, label, shift) in ARMS.items():
        rounds = range(1, 6) if kind == "ticket" else (3, 4, 5)
        runs = {k: arm(kind, k) for k in rounds}
        axes.plot(list(runs), [statistics.fmean(r) for r in runs.values()], "o-", color=color)
        for k, r in runs.items():
            axes.plot([k, k], [min(r), max(r)], color=color, lw=4, alpha=0.35)
        axes.annotate(
            label,
            (5, statistics.fmean(runs[5])),
            xytext=(9, shift),
            textcoords="offset points",
            color=color,
            va="center",
        )
    axes.set_xlim(0.9, 7.1)
    axes.set_xticks(range(1, 6), ["50", "25", "12.5", "6.25", "3.1"])
    axes.set_xlabel("weights left, %")
    axes.set_ylabel("test accuracy, %")
    return figure
