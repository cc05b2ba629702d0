"""Training from scratch with weights that are stored on a grid: rounded to the nearest value, or at random."""

import statistics

import matplotlib.pyplot as plt
from _quantization_training import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line

STEPS = (4, 6, 8, 10)


def draw() -> Figure:
    rows = measured()["stored"]
    figure, axes = plt.subplots(figsize=(7, 4))
    for kind, color in (("nearest", "C1"), ("stochastic", "C0")):
        runs = {k: rows[f"{kind} {k}"] for k in STEPS}
        (line,) = axes.plot(list(runs), [statistics.fmean(r) for r in runs.values()], "o-", color=color)
        for k, r in runs.items():
            axes.plot([k, k], [min(r), max(r)], color=color, lw=4, alpha=0.35)
        up = kind == "stochastic"
        label_line(line, kind, x=6, xytext=(-6, 8) if up else (8, -8), ha="right" if up else "left", va="center")
    dense = statistics.fmean(rows["float 0"])
    axes.axhline(dense, color="C6", lw=1.2, ls="--")
    axes.text(4, dense + 1, "float32", color="C6", va="bottom")
    axes.set_ylim(0, 100)
    axes.set_xticks(STEPS, [f"1/{2**k:,}" for k in STEPS])
    axes.set_xlabel("distance of neighboring values of a weight")
    axes.set_ylabel("test accuracy, %")
    return figure
