"""Perplexity of 256 tokens whose context stands further and further away, for three kinds of rotary positions."""

import math

import matplotlib.pyplot as plt
from _long_context import measured
from matplotlib.figure import Figure

LABELS = {"plain": "as trained", "interpolated": "positions / 4", "base": "larger base"}


def draw() -> Figure:
    gaps = measured()["gaps"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    places = [512 + gap for gap in gaps["gaps"]]
    for i, (scheme, label) in enumerate(LABELS.items()):
        values = [math.exp(loss) for loss in gaps[scheme]]
        axes.plot(places, values, "o-", color=f"C{i}", ms=4)
        axes.annotate(label, (places[-1], values[-1]), xytext=(7, 0), textcoords="offset points", color=f"C{i}",
                      va="center", annotation_clip=False)  # fmt: skip
    axes.axhline(math.exp(gaps["alone"]), color="C6", lw=1.2, ls="--")
    axes.annotate("without the context", (512, math.exp(gaps["alone"])), xytext=(0, 5), textcoords="offset points",
                  color="C6")  # fmt: skip
    axes.axvline(8192, color="C6", lw=1, ls=":")
    axes.annotate("trained to here", (8192, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                  textcoords="offset points", color="C6")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([512, 2048, 8192, 32_768], ["512", "2,048", "8,192", "32,768"])
    axes.set_yscale("log")
    axes.set_yticks([25, 50, 100, 200, 400], ["25", "50", "100", "200", "400"])
    axes.minorticks_off()
    axes.set_xlabel("distance to the beginning of the context, tokens")
    axes.set_ylabel("perplexity")
    return figure
