"""Inputs of one matrix by token and channel, before and after smoothing: a line along the tokens for each channel."""

import matplotlib.pyplot as plt
from _outliers import measured
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

POOL = 8  # neighboring channels of which the loudest is shown: see measure_llm_outliers.py
LOUD = 1.5


def draw() -> Figure:
    surface = measured()["surface"]
    top = 1.02 * max(map(max, surface["before"]))
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 3.9), subplot_kw={"projection": "3d"})
    for axes, when, title in zip(panels, ("before", "after"), ("|x| as it is", "smoothed, α = ½"), strict=True):
        rows = surface[when]
        for i in range(len(rows[0])):
            heights = [row[i] for row in rows]
            loud = max(row[i] for row in surface["before"]) > LOUD
            line = [(POOL * i, token, height) for token, height in enumerate(heights)]
            width, alpha, color = (1.1, 0.95, "C1") if loud else (0.7, 0.55, "C0")
            axes.add_collection3d(Line3DCollection([line], colors=color, lw=width, alpha=alpha))
        axes.set(xlim=(0, POOL * len(rows[0])), ylim=(0, len(rows)), zlim=(0, top))
        axes.set_xticks([0, 200, 400])
        axes.set_yticks([0, 20, 40])
        axes.set_zticks([0, 2, 4, 6, 8])
        axes.set_xlabel("channel", labelpad=-4)
        axes.set_ylabel("token", labelpad=-6)
        axes.tick_params(pad=-3)
        axes.set_title(title, y=0.94, x=0.5, ha="center")
        axes.view_init(elev=24, azim=-62)
        axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((0, 0, 0, 0))
            axis.pane.set_edgecolor("none")
    return figure
