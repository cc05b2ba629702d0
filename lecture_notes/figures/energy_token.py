"""Modelled energy of a token of the pocket language model against the number of texts that share a pass."""

import matplotlib.pyplot as plt
from _energy import pocket, token_bill
from matplotlib.figure import Figure

from fourbit.plots import label_line

BATCHES = [2**k for k in range(11)]


def draw() -> Figure:
    config = pocket()
    figure, axes = plt.subplots(figsize=(7, 4))
    ways = {
        "16 bits, no context": ("C1", 16, 0, 1, (4, 6)),
        "4.5 bits, no context": ("C0", 4.5, 0, 4, (-10, -8)),
        "4.5 bits, 4,096 tokens before it": ("C3", 4.5, 4096, 64, (0, 7)),
    }
    for name, (color, bits, context, x, offset) in ways.items():
        values = [sum(token_bill(config, bits, context, batch).values()) / 1e3 for batch in BATCHES]
        (line,) = axes.loglog(BATCHES, values, "o-", color=color, lw=1.6)
        label_line(line, name, x=x, xytext=offset, ha="right" if offset[0] < 0 else "left")
    floor = token_bill(config, 4.5, 0)["arithmetic"] / 1e3
    axes.axhline(floor, color="C6", ls="--", lw=1.2)
    axes.text(1, floor * 1.12, "arithmetic in int8 alone", color="C6")
    axes.set_ylim(0.02, 120)
    axes.set_xlabel("texts that are continued together")
    axes.set_ylabel("energy of one token, mJ (45 nm)")
    return figure
