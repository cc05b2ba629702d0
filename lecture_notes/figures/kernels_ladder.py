"""Time of one product of a 7B's matrix with a vector, for each rung of the ladder, and the roof."""

import matplotlib.pyplot as plt
from _kernels import NAMES, PACKED, WEIGHTS, measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()["ladder"]
    rows = [(label, data["ms"][name]) for name, (_, label) in NAMES.items()]
    rows.sort(key=lambda row: -row[1])
    figure, axes = plt.subplots(figsize=(7.4, 4.2))
    ours = {"ONNX Runtime": "C6", "fourbit.kernels": "C2", "dense float32": "C1"}
    axes.barh([name for name, _ in rows], [ms for _, ms in rows], color=[ours.get(name, "C0") for name, _ in rows])
    for place, (_, ms) in enumerate(rows):
        axes.text(ms * 1.07, place, f"{ms:.0f}" if ms >= 20 else f"{ms:.1f}", va="center")
    roof = PACKED * WEIGHTS / data["roof"] * 1e3
    axes.axvline(roof, color="C3", lw=1.3)
    axes.text(700, len(rows) - 1, "line: packed bytes at the memory roof", ha="right", va="center", color="C3")
    axes.set_xscale("log")
    axes.set_xlim(roof / 2, 900)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time of one product, ms (one thread)")
    axes.set_ylabel("kernel")
    return figure
