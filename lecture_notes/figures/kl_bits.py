"""Divergence and perplexity against the bits that a weight really takes, for every scheme of the table."""

import matplotlib.pyplot as plt
from _four_bits import interval, measured, perplexity, row
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FAMILIES = (  # method, color, (bits, groups) along one line, more about the row
    ("RTN", "C0", ((3, (128, 64, 32)), (4, (None, 128, 64, 32)), (5, (64,)), (6, (64,))), {}),
    ("AWQ", "C1", ((3, (128, 64, 32)), (4, (128, 64, 32))), {}),
    ("GPTQ", "C2", ((3, (64,)), (4, (64,))), {"tokens": 16384, "damp": 0.1}),
)
SINGLE = (  # method, color, group, what the figure calls it, place of the text in points
    ("keep 1 %, activation", "C6", 3, 128, "3 bits, loudest\n1 % kept", (8, -44), "center"),
    ("NF4, double", "C3", 4, 64, "NF4, double", (-6, -13), "right"),
    ("NF4", "C3", 4, 64, "NF4", (5, -11), "left"),
    ("even, 15", "C3", 4, 64, "15 even\nlevels", (5, 0), "left"),
    ("MXFP4", "C4", 4, 32, "MXFP4", (-6, 4), "right"),
    ("Q4_0", "C4", 4, 32, "", (0, 0), "left"),
    ("Q5_0", "C4", 5, 32, "Q5_0", (6, 2), "left"),
)


def draw() -> Figure:
    data = measured()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 7.4), height_ratios=(3, 2))
    for method, color, lines, more in FAMILIES:
        for bits, groups in lines:
            rows = [row(data, method, bits, group, **more) for group in groups]
            whole = [interval(r["kl"]).mean for r in rows]
            top.plot([r["stored"] for r in rows], whole, "-", color=color, lw=1.2, alpha=0.7)
            for one, group in zip(rows, groups, strict=True):
                mark(top, one, color)
                mark(bottom, one, color)
                if method == "RTN" and bits == 4:
                    text = f"g{group}" if group else "whole rows"
                    place = (one["stored"], interval(one["kl"]).high)
                    top.annotate(text, place, xytext=(0, 4), textcoords="offset points", color=color, ha="center",
                                 fontsize=8.5)  # fmt: skip
    for method, color, bits, group, text, offset, side in SINGLE:
        line = {"arrowstyle": "-", "color": color, "lw": 0.8} if max(map(abs, offset)) > 20 else None
        one = row(data, method, bits, group)
        mark(top, one, color)
        mark(bottom, one, color)
        top.annotate(text, (one["stored"], interval(one["kl"]).mean), xytext=offset, textcoords="offset points",
                     color=color, ha=side, va="center", arrowprops=line)  # fmt: skip
    finish(top, bottom, perplexity(data["table"]["reference"]["ppl"]).mean)
    return figure


def mark(axes: Axes, one: dict, color: str) -> None:
    """A scheme with its interval; the lower axes show perplexity."""
    found = perplexity(one["ppl"]) if axes.get_subplotspec().is_last_row() else interval(one["kl"])
    axes.plot([one["stored"]] * 2, [found.low, found.high], color=color, lw=4, alpha=0.3, solid_capstyle="butt")
    axes.plot(one["stored"], found.mean, "o", color=color, ms=4.5)


def finish(top: Axes, bottom: Axes, reference: float) -> None:
    top.set_yscale("log")
    bottom.set_yscale("log")
    top.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"])
    bottom.set_yticks([50, 100, 200], ["50", "100", "200"])
    for axes in (top, bottom):
        axes.set_xlim(3.05, 6.55)
        axes.minorticks_off()
        axes.set_xlabel("bits for each weight, scales and zeros included")
    top.text(6.3, 0.024, "round to nearest", color="C0", ha="right")
    top.text(3.28, 0.62, "AWQ", color="C1", ha="right")
    top.text(4.41, 0.165, "GPTQ", color="C2", ha="left", va="center")
    top.text(4.53, 0.34, "Q4_0", color="C4", va="center")
    bottom.axhline(reference, color="C6", lw=1.2, ls="--")
    bottom.text(6.45, reference * 0.97, "reference", color="C6", ha="right", va="top")
    top.set_ylabel("divergence from the reference, nats per token")
    bottom.set_ylabel("perplexity")
