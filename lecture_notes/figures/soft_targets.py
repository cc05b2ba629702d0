"""A shirt as the teacher sees it: the probabilities of the ten classes at three temperatures."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def draw() -> Figure:
    example = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))["example"]
    figure, panels = plt.subplots(1, 3, figsize=(7, 3.4), sharey=True, sharex=True)
    for axes, (temperature, row) in zip(panels, example["probabilities"].items(), strict=True):
        colors = ["C1" if name == "Shirt" else "C0" for name in example["classes"]]
        axes.barh(range(10), [100 * p for p in row], color=colors)
        axes.set_title(f"temperature {temperature}")
        axes.set_yticks(range(10), example["classes"])
        axes.set_xlabel("probability, %")
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("class")
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
        axes.set_ylabel("class", visible=False)
    return figure
