"""Twelve requests on one machine, one after the other and up to eight together: a simulation with measured costs."""

import matplotlib.pyplot as plt
from _inference import MOST, measured, serve
from _many import strokes
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True)
    for axes, most in zip(panels, (1, MOST), strict=True):
        for row, r in enumerate(serve(data, most)):
            axes.plot([r["arrived"], r["started"]], [row, row], color="C6", lw=1.5)
            axes.plot([r["started"], r["tokens"][0]], [row, row], color="C1", lw=4)
            count = len(r["tokens"])
            strokes(axes, r["tokens"], [row - 0.2] * count, r["tokens"], [row + 0.2] * count, color="C0", lw=1)
        axes.set_title("one after the other" if most == 1 else f"up to {most} together")
        axes.set_xlabel("seconds")
        axes.set_yticks([])
    panels[0].set_ylabel("request")
    panels[0].text(0.97, 0.18, "waits in line", color="C6", ha="right", transform=panels[0].transAxes)
    panels[0].text(0.97, 0.11, "its prompt is read", color="C1", ha="right", transform=panels[0].transAxes)
    panels[0].text(0.97, 0.04, "its tokens", color="C0", ha="right", transform=panels[0].transAxes)
    return figure
