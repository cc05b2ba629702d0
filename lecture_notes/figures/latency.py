"""Time of 64 images against the share of weights removed: as zeros in place, and as channels cut out."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    measured = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))["latency"]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    kept = {name: timing for name, timing in measured.items() if name.startswith("channels")}
    zeros = {name: timing for name, timing in measured.items() if name.startswith("zeros")}
    thinner = [(1 - float(name.split()[1]) ** 2, timing) for name, timing in kept.items()]
    rows = {
        "zeros in place: the kernel multiplies them": [(float(name.split()[1]), time) for name, time in zeros.items()],
        "fewer channels: a smaller dense network": [(0.0, measured["zeros 0"]), *thinner],
    }
    places = [(50, {"xytext": (0, 9)}), (44, {"xytext": (9, 3), "ha": "left"})]
    for (name, points), (at, place) in zip(rows.items(), places, strict=True):
        points.sort(key=lambda point: point[0])
        x = [100 * share for share, _ in points]
        (line,) = axes.plot(x, [timing["median"] for _, timing in points], "o-")
        for share, timing in points:
            axes.plot([100 * share] * 2, timing["interval"], color=line.get_color(), lw=4, alpha=0.45)
        label_line(line, name, x=at, **place)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("weights removed from the inner layers, %")
    axes.set_ylabel("64 images, ms (one core)")
    return figure
