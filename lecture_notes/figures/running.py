"""Perplexity and divergence of the same roundings, as more of the text is read."""

import matplotlib.pyplot as plt
from _outliers import interval, measured, perplexity
from matplotlib.figure import Figure

LINES = (("reference", "C6", "reference"), ("4 64", "C0", "groups of 64"), ("4 128", "C1", "groups of 128"))


def draw() -> Figure:
    schemes = measured()["perplexity"]["schemes"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.8))
    counts = range(3, len(schemes["reference"]["ppl"]) + 1)
    for key, color, text in LINES:
        for axes, measure, name in ((left, perplexity, "ppl"), (right, interval, "kl")):
            if (key, name) == ("reference", "kl"):
                continue
            found = [measure(schemes[key][name][:n]) for n in counts]
            axes.fill_between(counts, [f.low for f in found], [f.high for f in found], color=color, alpha=0.16, lw=0)
            axes.plot(counts, [f.mean for f in found], color=color)
            up = key == "4 128"
            if name == "kl":
                axes.annotate(text, (counts[-1], found[-1].mean), xytext=(0, 6 if up else -6), color=color, ha="right",
                              textcoords="offset points", va="bottom" if up else "top")  # fmt: skip
    left.text(12, 56, "groups of 128", color="C1", ha="right", va="bottom")
    left.text(12, 47, "groups of 64", color="C0", ha="right")
    left.text(12, 41.5, "reference", color="C6", ha="right", va="top")
    left.set_ylim(0, 120)
    right.set_ylim(0, 0.6)
    left.set_ylabel("perplexity")
    right.set_ylabel("divergence, nats per token")
    for axes in (left, right):
        axes.set_xticks([4, 6, 8, 10, 12])
        axes.set_xlabel("windows of 256 tokens read")
    return figure
