"""GPTQ's output error against the number of calibration tokens: on the tokens that it saw, and on others."""

import statistics

import matplotlib.pyplot as plt
from _four_bits import measured
from matplotlib.figure import Figure

DAMPS = {"0.0001": ("damping 0.0001", "C1"), "0.01": ("0.01", "C4"), "0.1": ("0.1", "C0")}
TITLES = {"layers.15.mlp.down_proj": "down, layer 15: 1,536 columns",
          "layers.5.self_attn.q_proj": "q, layer 5: 576 columns"}  # fmt: skip


def draw() -> Figure:
    part = measured()["gptq"]
    figure, both = plt.subplots(1, 2, figsize=(8.2, 4.2))
    for axes, (name, title) in zip(both, TITLES.items(), strict=True):
        curve, tokens = part[name], part[name]["tokens"]
        for damp, (_, color) in DAMPS.items():
            draws = curve["unseen"][damp]
            columns = list(zip(*draws, strict=True))
            axes.fill_between(
                tokens, [min(c) for c in columns], [max(c) for c in columns], color=color, alpha=0.2, lw=0
            )
            axes.plot(tokens, [statistics.median(c) for c in columns], "o-", color=color, ms=3.5)
        seen = [statistics.median(c) for c in zip(*curve["seen"]["0.0001"], strict=True)]
        axes.plot(tokens, seen, color="C1", lw=1.3, ls=":")
        axes.axhline(1, color="C6", lw=1.2, ls="--")
        axes.axvline(curve["columns"], color="C6", lw=0.9)
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_xticks([16, 128, 1024, 8192], ["16", "128", "1,024", "8,192"])
        axes.minorticks_off()
        axes.set_ylim(0, 3.5)
        axes.set_xlabel("calibration tokens")
        axes.set_ylabel("output error, round to nearest is 1")
    left = both[0]
    left.text(90, 2.45, "damping\n0.0001", color="C1", ha="right")
    left.text(300, 1.58, "0.01", color="C4", ha="center")
    left.text(90, 0.72, "0.1", color="C0", ha="center")
    left.text(40, 0.15, "on the tokens it saw", color="C1", ha="left")
    both[1].text(9500, 1.04, "round to nearest", color="C6", ha="right", va="bottom")
    return figure
