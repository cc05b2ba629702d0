"""CPU time of one more token by its position, with and without a cache."""

import matplotlib.pyplot as plt
from _inference import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()["positions"]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for key, color, label, at in (("again", "C1", "all over again", 4), ("cached", "C0", "with the cache", 4)):
        axes.plot(data["places"], [1e3 * s for s in data[key]], "o-", color=color)
        axes.annotate(label, (data["places"][at], 1e3 * data[key][at]), xytext=(-8, 10), ha="right" if at else "left",
                      textcoords="offset points", color=color)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("position of the token in the text")
    axes.set_ylabel("CPU time of this token, ms")
    return figure
