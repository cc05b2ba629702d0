"""The cliff and the recovery: accuracy against sparsity, as measured on the shipped network."""

import json
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    measured = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))
    curves = measured["one_shot"]
    x = [100 * s for s in curves["sparsity"]]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    (line,) = axes.plot(x, curves["uniform"], "o-")
    label_line(line, "one sparsity for each layer", x=60, xytext=(-7, -2), ha="right", va="top")
    (line,) = axes.plot(x, curves["global"], "o-")
    axes.text(102, 20, "one threshold for\nthe whole network", color=line.get_color(), va="center")
    (line,) = axes.plot(x, curves["refreshed"], "o-")
    axes.text(102, 50, "+ new statistics", color=line.get_color(), va="center")
    tuned = {100 * float(s): runs for s, runs in measured["fine_tuned"].items() if s != "dense"}
    (line,) = axes.plot(list(tuned), [statistics.fmean(runs) for runs in tuned.values()], "o-")
    for s, runs in tuned.items():
        axes.plot([s, s], [min(runs), max(runs)], color=line.get_color(), lw=4, alpha=0.5)
    axes.text(102, 72, "+ one epoch of\nfine-tuning", color=line.get_color(), va="center")
    dense = statistics.fmean(measured["fine_tuned"]["dense"])
    axes.axhline(dense, color="C6", lw=1.2, ls="--")
    axes.text(1, dense + 1.2, "dense, the same epoch", color="C6", va="bottom")
    axes.set_xlim(0, 136)
    axes.set_xticks([0, 20, 40, 60, 80, 90, 100])
    axes.set_ylim(5, 100)
    axes.set_xlabel("sparsity, % of all weights that are zero")
    axes.set_ylabel("test accuracy, %")
    return figure
