"""LLM.int8 in the whole model: divergence against the share of channels that stay in floating point."""

import matplotlib.pyplot as plt
from _outliers import interval, measured
from matplotlib.figure import Figure

PLACES = {"inf": (0, -20, "left"), "6.0": (8, 6, "left"), "1.0": (-8, -3, "right")}


def draw() -> Figure:
    rows = measured()["mixed"]["rows"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    found = [interval(row["kl"]) for row in rows]
    shares = [100 * row["channels"] for row in rows]
    axes.fill_between(shares, [f.low for f in found], [f.high for f in found], color="C0", alpha=0.2, lw=0)
    axes.plot(shares, [f.mean for f in found], "o-", color="C0", ms=4)
    for row, share, one in zip(rows, shares, found, strict=True):
        text = {"inf": "∞: all in integers", "6.0": "6, as published"}.get(
            row["threshold"], f"{float(row['threshold']):g}"
        )
        x, y, side = PLACES.get(row["threshold"], (4, 7, "left"))
        color = "C1" if row["threshold"] == "6.0" else "C0"
        if color == "C1":
            axes.plot(share, one.mean, "o", color=color, ms=8)
        axes.annotate(text, (share, one.mean), xytext=(x, y), textcoords="offset points", color=color, ha=side)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_yscale("log")
    axes.set_ylim(0.001, 0.06)
    axes.set_xticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
    axes.set_yticks([0.001, 0.003, 0.01, 0.03], ["0.001", "0.003", "0.01", "0.03"])
    axes.minorticks_off()
    axes.set_xlabel("input channels in floating point, %")
    axes.set_ylabel("divergence, nats per token")
    return figure
