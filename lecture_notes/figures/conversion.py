"""Divergence from the original along a text: a right conversion, and one with the wrong base of the rotation."""

import statistics

import matplotlib.pyplot as plt
from _deployment import measured
from _many import dots
from matplotlib.figure import Figure

STEP = 64


def draw() -> Figure:
    data = measured()["positions"]
    figure, axes = plt.subplots(figsize=(7, 3.5))
    for name, color, text in (("wrong", "C1", "base 10,000"), ("right", "C0", "right")):
        kl = data[name]
        dots(axes, range(len(kl)), kl, size=1.6, color=color, alpha=0.5)
        means = [statistics.fmean(kl[i : i + STEP]) for i in range(0, len(kl), STEP)]
        axes.step([STEP * i for i in range(len(means) + 1)], [*means, means[-1]], where="post", color=color)
        axes.text(1045, means[-1], text, color=color, va="center")
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 5)
    axes.set_xlim(-20, 1250)
    axes.set_xticks(range(0, 1025, 256))
    axes.set_xlabel("position in the text, tokens")
    axes.set_ylabel("divergence, nats")
    return figure
