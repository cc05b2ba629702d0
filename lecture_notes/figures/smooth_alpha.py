"""SmoothQuant in the whole model: divergence by alpha, for weights alone and for inputs with one scale or many."""

import matplotlib.pyplot as plt
from _outliers import interval, measured
from matplotlib.figure import Figure

LINES = (
    ("tensor", "C1", "one scale for each matrix's inputs", "tensor", (0.02, 2.75)),
    ("token", "C0", "one for each token", "token", (0.2, 0.06)),
    ("W8", "C2", "weights alone", "W8", (0.01, 0.0018)),
)


def draw() -> Figure:
    data = measured()
    part, plain = data["smooth"], data["w8a8"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, color, text, without, place in LINES:
        found = [interval(values) for values in part[name]]
        means = [f.mean for f in found]
        axes.fill_between(part["alphas"], [f.low for f in found], [f.high for f in found], color=color, alpha=0.2, lw=0)
        axes.plot(part["alphas"], means, "o-", color=color, ms=4)
        best = means.index(min(means))
        axes.plot(part["alphas"][best], means[best], "o", color=color, ms=8)
        axes.axhline(interval(plain[without]).mean, color=color, lw=1.2, ls="--")
        axes.text(*place, text, color=color, va="center")
    axes.annotate("dashed: not smoothed", (1.0, 0.744), xytext=(0, 5), textcoords="offset points", color="C6",
                  ha="right")  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(0.0012, 4)
    axes.set_yticks([0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], ["0.003", "0.01", "0.03", "0.1", "0.3", "1", "3"])
    axes.minorticks_off()
    axes.set_xlabel("α, the share of the range that moves into the weights")
    axes.set_ylabel("divergence, nats per token")
    return figure
