"""CPU time of a pass: over n tokens of one text, and over one token of each of n texts."""

import matplotlib.pyplot as plt
from _inference import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    chunks, batches = data["chunks"], data["batches"]
    figure, axes = plt.subplots(figsize=(7, 4))
    lines = (
        (batches["batches"], batches["512"], "C1", "one token of each of n texts of 512 tokens"),
        (batches["batches"], batches["64"], "C2", "one token of each of n texts of 64 tokens"),
        (chunks["chunks"], chunks["seconds"], "C0", "n tokens of one text"),
    )
    for i, (counts, seconds, color, label) in enumerate(lines):
        axes.plot(counts, [1e3 * s for s in seconds], "o-", color=color, ms=4)
        axes.text(0.99, 0.2 - 0.075 * i, label, color=color, ha="right", transform=axes.transAxes)
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
