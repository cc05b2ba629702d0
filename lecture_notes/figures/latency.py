"""Time of 64 images against the share of weights removed: as zeros in place, and as channels cut out."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    measured = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))["latency"]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    rows = {
        "zeros in place: the kernel multiplies them": [(float(k[6:]), v) for k, v in measured.items() if k[:5] == "zeros"],
        "fewer channels: a smaller dense network": [(0.0, measured["zeros 0"])]
        + [(1 - float(k[9:]) ** 2, v) for k, v in measured.items() if k[:8] == "channels"],
    }
    for (name, points), at in zip(rows.items(), (60, 60), strict=True):
        points.sort(key=lambda point: point[0])
        x = [100 * share for share, _ in points]
        (line,) = axes.plot(x, [timing["median"] for _, timing in points], "o-")
        for share, timing in points:
            axes.plot([100 * share] * 2, timing["interval"], color=line.get_color(), lw=4, alpha=0.45)
        label_line(line, name, x=at, xytext=(0, 9))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("weights removed from the inner layers, %")
    axes.set_ylabel("64 images, ms (one core)")
    return figure
