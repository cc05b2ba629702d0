"""Three bits, and a share of the input channels that stay as they are: which ones makes the difference."""

import matplotlib.pyplot as plt
from _four_bits import interval, measured
from matplotlib.figure import Figure

WORDS = {"random": ("any channels", "C6"), "weight": ("largest weights", "C1"), "activation": ("loudest inputs", "C0")}

HEIGHTS = {"random": 0.06, "weight": -0.06, "activation": 0.0}  # where the words stand beside the last point


def draw() -> Figure:
    part = measured()["keep"]
    shares = [100 * share for share in part["shares"]]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    none = interval(part["none"])
    axes.axhline(none.mean, color="C6", lw=1.2, ls="--")
    axes.text(0.27, none.mean + 0.03, "all channels at 3 bits", color="C6", va="bottom")
    for name, (text, color) in WORDS.items():
        found = [interval(values) for values in part[name]]
        axes.plot(shares, [f.mean for f in found], "o-", color=color)
        for share, one in zip(shares, found, strict=True):
            axes.plot([share] * 2, [one.low, one.high], color=color, lw=4, alpha=0.3, solid_capstyle="butt")
        axes.text(11, found[-1].mean + HEIGHTS[name], text, color=color, va="center")
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(0.26, 24)
    axes.set_ylim(0, 1.75)
    axes.set_xlabel("input channels that stay in 16 bits, %")
    axes.set_ylabel("divergence, nats per token")
    return figure
