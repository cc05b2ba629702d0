"""Output error of two matrices of the pocket model against sparsity, for three ways to prune them."""

import matplotlib.pyplot as plt
from _sparse_training import LAYERS, measured
from matplotlib.figure import Figure

COLORS = {"magnitude": "C1", "Wanda": "C4", "SparseGPT": "C0"}
TITLES = {"q": "q, layer 5: 576 inputs", "down": "down, layer 15: 1,536 inputs"}


def draw() -> Figure:
    part = measured()["errors"]
    x = [100 * s for s in part["sparsities"]]
    figure, both = plt.subplots(1, 2, figsize=(8.2, 4.0), sharey=True)
    for axes, (key, layer) in zip(both, LAYERS.items(), strict=True):
        for method, color in COLORS.items():
            row = part[layer][method]
            axes.plot(x, [100 * e for e in row["curve"]], "o-", color=color)
            axes.plot(50, 100 * row["2:4"], "D", color=color, ms=7, mfc="none")
            axes.annotate(
                method,
                (x[-1], 100 * row["curve"][-1]),
                xytext=(6, {"Wanda": 5, "SparseGPT": -6}.get(method, 0)),
                textcoords="offset points",
                color=color,
                va="center",
            )
        axes.set_title(TITLES[key])
        axes.set_yscale("log")
        axes.set_ylim(0.15, 45)
        axes.set_yticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
        axes.minorticks_off()
        axes.set_xlim(28, 99)
        axes.set_xlabel("weights removed, %")
    both[0].set_ylabel("squared output error, % of the output")
    both[1].set_ylabel("error", visible=False)
    return figure
