"""CPU time of a pass: over n tokens of one text, and over one token of each of n texts."""

import matplotlib.pyplot as plt
from _inference import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    chunks, batches = data["chunks"], data["batches"]
    figure, axes = plt.subplots(figsize=(7, 4))
    lines = (
        (chunks["chunks"], chunks["seconds"], "C0", "n tokens of one text", (-12, 4), "left"),
        (batches["batches"], batches["64"], "C2", "n texts of 64 tokens", (-4, 9), "right"),
        (batches["batches"], batches["512"], "C1", "n texts of 512 tokens", (-2, 12), "right"),
    )
    for counts, seconds, color, label, place, side in lines:
        axes.plot(counts, [1e3 * s for s in seconds], "o-", color=color, ms=4)
        axes.annotate(label, (counts[-1], 1e3 * seconds[-1]), xytext=place, textcoords="offset points", color=color,
                      ha=side if label != lines[0][3] else "right", va="center")  # fmt: skip
    one = 1e3 * chunks["seconds"][0]
    axes.plot([1, 16], [one, 16 * one], color="C6", ls="--", lw=1)
    axes.text(4.2, 5.6 * one, "one after the other", color="C6", ha="right", fontsize=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(chunks["chunks"], [str(n) for n in chunks["chunks"]])
    ticks = [50, 100, 200, 500, 1000]
    axes.set_yticks(ticks, [f"{t:,}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("tokens in one pass")
    axes.set_ylabel("CPU time of the pass, ms")
    return figure
