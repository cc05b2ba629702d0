"""Accuracy after the same two epochs on grids whose steps are fixed or learned, for two to four bits."""

import statistics

import matplotlib.pyplot as plt
from _quantization_training import measured
from matplotlib.figure import Figure

LABELS = {
    "largest": ("C1", "steps from the largest values, fixed"),
    "start": ("C4", "steps from the mean magnitude, fixed"),
    "clip": ("C3", "the same, end of activations learned"),
    "lsq": ("C0", "all steps learned"),
}
LEFT = 68  # an arm whose mean is further left is named with its mean


def draw() -> Figure:
    rows = measured()["methods"]
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for place, (arm, (color, label)) in enumerate(LABELS.items()):
        for group, bits in enumerate((4, 3, 2)):
            runs, y = rows[f"{arm} {bits}"]["after"], 5 * group + place
            mean, shown = statistics.fmean(runs), max(*runs, LEFT)
            if mean > LEFT:
                axes.plot(runs, [y] * len(runs), "o", color=color, ms=5, alpha=0.6)
                axes.plot(mean, y, "|", color=color, ms=16, mew=2.5)
            else:
                axes.plot(LEFT + 0.4, y, "<", color=color, ms=8)
                label = f"{label}: {mean:.1f}"
            if bits == 2:
                axes.annotate(label, (shown, y), xytext=(18, 0), textcoords="offset points", color=color, va="center")
    axes.set_xlim(LEFT, 92)
    axes.axvline(statistics.fmean(rows["float"]), color="C6", lw=1.2, ls="--")
    axes.text(
        statistics.fmean(rows["float"]) - 0.25, -1.1, "float32, the same epochs", color="C6", ha="right", va="center"
    )
    axes.set_yticks([1.5, 6.5, 11.5], ["4 bits", "3 bits", "2 bits"])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test accuracy, %")
    axes.set_ylabel("bits", visible=False)
    return figure
