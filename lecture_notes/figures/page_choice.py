"""The share of attention that 16 of 124 pages hold, by layer and by how they are chosen."""

import matplotlib.pyplot as plt
from _long_context import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line

LABELS = {"best": "the best pages", "bound": "by bound", "mean": "by mean key", "ends": "first and newest"}


def draw() -> Figure:
    ways = measured()["pages"]["ways"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for i, (name, label) in enumerate(LABELS.items()):
        (line,) = axes.plot([100 * share for share in ways[name]], color=f"C{i}", ls="--" if name == "best" else "-")
        label_line(line, label, xytext=(6, {"ends": 5, "bound": -6}.get(name, 0)))
    axes.set_ylim(0, 102)
    axes.set_xlabel("layer")
    axes.set_ylabel("share of the attention held, %")
    return figure
