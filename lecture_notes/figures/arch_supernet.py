"""27 networks: trained alone against cut from one supernet, with statistics of their own or those of the whole."""

import matplotlib.pyplot as plt
from _architectures import measured
from matplotlib.figure import Figure

from fourbit.plots import COLORS


def draw() -> Figure:
    rows = measured()["supernet"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    alone = [row["alone"] for row in rows]
    for key, color, mark, words in (
        ("shared", "blue", "o", "own statistics"),
        ("stale", "vermilion", "x", "statistics of the whole supernet"),
    ):
        axes.plot(alone, [row[key] for row in rows], mark, color=COLORS[color], label=words, ms=6)
    low, high = min(alone) - 1, max(alone) + 1
    axes.plot([low, high], [low, high], color=COLORS["gray"], ls=":", lw=1.4)
    axes.set_xlabel("accuracy when trained alone, %")
    axes.set_ylabel("accuracy with the supernet's weights, %")
    axes.legend(loc="center right")
    return figure
