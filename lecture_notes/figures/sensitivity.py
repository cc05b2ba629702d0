"""Validation accuracy with one layer pruned at a time, as measured on the shipped network."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    measured = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))["sensitivity"]
    x = [100 * s for s in measured["sparsity"]]
    total = sum(measured["weights"].values())
    figure, axes = plt.subplots(figsize=(7, 4))
    ends = sorted(measured["accuracy"].items(), key=lambda item: item[1][-1])
    height = -100.0
    for name, row in ends:
        (line,) = axes.plot(x, row, "o-", ms=4)
        height = max(row[-1], height + 6)  # labels must not overlap
        share = 100 * measured["weights"][name] / total
        lift = (0, 0) if height == row[-1] else (0, height - row[-1])
        label_line(line, f"{name}: {share:.2g} % of the weights", xytext=(6, 2.2 * lift[1]))
    axes.set_xlim(0, 138)
    axes.set_xticks([0, 20, 40, 60, 80, 95])
    axes.set_xlabel("sparsity of this layer alone, %")
    axes.set_ylabel("validation accuracy, %")
    return figure
