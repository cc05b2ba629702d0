"""How strongly the teacher pulls at the student's logits, against temperature, with the factor T^2 and without."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    found = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))["gradients"]
    t = found["temperature"]
    figure, axes = plt.subplots(figsize=(7, 3.7))
    (line,) = axes.loglog(t, [size * x**2 for size, x in zip(found["size"], t, strict=True)], "o-")
    label_line(line, "with T²", x=16, xytext=(0, 8))
    (line,) = axes.loglog(t, found["size"], "o-")
    label_line(line, "without", x=16, xytext=(8, 4), ha="left")
    axes.axhline(found["labels"][0], color="C6", lw=1.2, ls="--")
    axes.text(64, 1.1 * found["labels"][0], "the labels' gradient", color="C6", ha="right", va="bottom")
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.minorticks_off()
    axes.set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["0.0001", "0.001", "0.01", "0.1", "1"])
    axes.set_xlabel("temperature T")
    axes.set_ylabel("mean norm of the gradient")
    return figure
