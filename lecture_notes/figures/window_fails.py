"""Perplexity by place in a text of 1,024 tokens: the whole cache, a window of 256, and one with four sinks."""

import math

import matplotlib.pyplot as plt
from _long_context import measured
from matplotlib.figure import Figure

LABELS = {"window": "window of 256", "sinks 4": "4 sinks + 252", "dense": "whole cache"}


def draw() -> Figure:
    rows = measured()["policies"]
    figure, axes = plt.subplots(figsize=(7, 3.7))
    colors = {"window": "C1", "sinks 4": "C0", "dense": "C2"}
    for name, label in LABELS.items():
        values = [math.exp(loss) for loss in rows[f"{name}, bins"][1:]]
        places = [64 * (i + 1.5) for i in range(len(values))]
        axes.plot(places, values, "o-", color=colors[name], ms=3.5)
        below = name == "dense"
        axes.annotate(label, (places[9], values[9]), xytext=(0, -15 if below else 9), textcoords="offset points",
                      color=colors[name], ha="center")  # fmt: skip
    axes.axvline(256, color="C6", lw=1, ls=":")
    axes.set_ylim(0)
    axes.set_xlabel("place in the text, tokens (bins of 64)")
    axes.set_ylabel("perplexity")
    return figure
