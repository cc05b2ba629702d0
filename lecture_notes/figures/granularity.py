"""Accuracy against sparsity for groups of growing size, as measured on the shipped network."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    measured = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))["granularity"]
    x = [100 * s for s in measured["sparsity"]]
    figure, axes = plt.subplots(figsize=(7, 3.8))
    names = {
        "weight": "single weights",
        "four inputs": "vectors of four",
        "kernel": "kernels",
        "channel": "output channels",
    }
    for key, text in names.items():
        (line,) = axes.plot(x, measured[key], "o-")
        label_line(line, text)
    axes.plot([50], [measured["2:4"]], "D", color="C4", ms=7)
    axes.annotate("2 of 4", (50, measured["2:4"]), xytext=(0, 9), textcoords="offset points", color="C4", ha="center")
    axes.set_xlim(22, 104)
    axes.set_xticks([25, 50, 75, 87.5], ["25", "50", "75", "87.5"])
    axes.set_ylim(0, 100)
    axes.set_xlabel("sparsity of each middle layer, %")
    axes.set_ylabel("test accuracy, %, no training")
    return figure
