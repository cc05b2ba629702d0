"""Words that two layers of T4 move against the size of the buffer, in three orders of computation."""

import matplotlib.pyplot as plt
from _energy import CONVS, DATAFLOWS, measured
from matplotlib.figure import Figure

TITLES = {"conv1": "conv1: 14×14 pixels, 9,216 weights", "conv6": "conv6: 3×3 pixels, 73,728 weights"}


def draw() -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9, 4))
    for axes, (name, conv) in zip(panels, CONVS.items(), strict=True):
        rows = measured()[name]
        sizes = [row["capacity"] for row in rows]
        for flow, color, marker in zip(DATAFLOWS, ("C0", "C1", "C2"), "os^", strict=True):
            axes.loglog(sizes, [sum(row[flow].values()) for row in rows], marker + "-", color=color, lw=1.6, label=flow)
        axes.axhline(conv.least, color="C6", ls="--", lw=1.2)
        axes.text(sizes[0], conv.least * 0.94, "each word once", color="C6", va="top")
        axes.set_title(TITLES[name])
        axes.set_xlabel("words that the buffer holds")
        axes.set_ylim(conv.least / 1.5, 4e6 if name == "conv1" else 6e5)
        axes.minorticks_off()
    panels[0].set_ylabel("words moved")
    panels[1].set_ylabel("words moved")
    for row, (flow, color) in enumerate(zip(DATAFLOWS, ("C0", "C1", "C2"), strict=True)):
        panels[1].text(0.97, 0.93 - 0.08 * row, flow, color=color, ha="right", transform=panels[1].transAxes)
    return figure
