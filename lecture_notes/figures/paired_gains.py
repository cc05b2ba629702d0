"""The gain of each pair of runs, and the interval of the mean: where a teacher helps, and where it does not."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from _distillation import SETTINGS, interval
from matplotlib.figure import Figure


def draw() -> Figure:
    lab = json.loads((Path(__file__).parent / "distillation.json").read_text(encoding="utf-8"))["lab"]
    rows = {row["setting"]: row for row in lab["paired"]}
    figure, axes = plt.subplots(figsize=(7, 4.4))
    names = []
    for place, (key, (setting, words)) in enumerate(SETTINGS.items()):
        mean, half = interval(rows[setting])
        gains = [kd - ce for ce, kd in zip(rows[setting]["ce"], rows[setting]["kd"], strict=True)]
        color = "C0" if mean - half > 0 else "C6"
        axes.plot([mean - half, mean + half], [place, place], color=color, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(gains, [place] * len(gains), "o", color=color)
        names.append(words)
        assert key
    axes.axvline(0, color="C1", lw=1.2, ls="--")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("gain in test accuracy, percentage points")
    axes.set_ylabel("student, labels, teacher", visible=False)
    return figure
