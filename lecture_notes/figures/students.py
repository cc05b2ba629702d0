"""Students of at most 30,000 bytes: accuracy against the size of the file, with and without a teacher."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from _distillation import best_up_to
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    lab = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))["lab"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for distilled, color, words in ((True, "C0", "with the teacher"), (False, "C1", "labels alone")):
        rows = [row for row in lab["front"] if row["distilled"] is distilled]
        axes.plot([row["bytes"] / 1e3 for row in rows], [row["accuracy"] for row in rows], "o", color=color, alpha=0.4)
        front = best_up_to(rows)
        x = [row["bytes"] / 1e3 for row in front] + [30]
        y = [row["accuracy"] for row in front]
        (line,) = axes.step(x, y + y[-1:], where="post", color=color)
        label_line(line, words)
    axes.axvline(30, color="C6", lw=1.2, ls="--")
    axes.set_xscale("log")
    axes.set_xticks([2, 3, 5, 10, 20, 30], ["2", "3", "5", "10", "20", "30"])
    axes.minorticks_off()
    axes.set_ylim(70, 93)
    axes.set_xlim(1.8, 44)
    axes.set_xlabel("file, kB")
    axes.set_ylabel("validation accuracy, %")
    return figure
