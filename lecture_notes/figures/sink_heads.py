"""The share of attention that each head gives to the first token, by layer."""

import statistics

import matplotlib.pyplot as plt
from _long_context import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    first = measured()["attention"]["first"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for layer, row in enumerate(first):
        shift = [layer + 0.07 * (head - 4) for head in range(len(row))]
        axes.plot(shift, [100 * share for share in row], "o", color="C0", ms=3.2, alpha=0.75)
    means = [100 * statistics.fmean(row) for row in first]
    axes.step(range(len(first)), means, where="mid", color="C1", lw=1.8)
    axes.annotate("mean of nine heads", (7, means[7]), xytext=(0, 24), textcoords="offset points",
                  color="C1", ha="center")  # fmt: skip
    axes.set_ylim(-3, 103)
    axes.set_xlabel("layer")
    axes.set_ylabel("attention to the first token, %")
    return figure
