"""Orders of pruning, quantization and distillation of the same student, to files of about the same size."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def draw() -> Figure:
    lab = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))["lab"]
    rows = sorted(lab["composition"], key=lambda row: -row["accuracy"])
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for place, row in enumerate(rows):
        ends = row["order"][-1] in ("distill", "train")
        axes.plot(row["accuracies"], [place] * len(row["accuracies"]), "o", color="C0" if ends else "C1")
    axes.set_yticks(range(len(rows)), [", ".join(row["order"]) for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(78, 92)
    axes.set_xlabel("validation accuracy, %")
    axes.set_ylabel("order of steps", visible=False)
    return figure
