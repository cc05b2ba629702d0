"""Divergence of W8A8 by how many numbers share a scale, and by which matrices get rounded inputs."""

import matplotlib.pyplot as plt
from _outliers import interval, measured
from matplotlib.figure import Figure

ROWS = (
    ("W8", "weights alone", "C2"),
    ("tensor", "one scale for all tokens and channels", "C1"),
    ("tensor, self_attn.q_proj", "   only into q", "C6"),
    ("tensor, self_attn.o_proj", "   only into o", "C6"),
    ("tensor, mlp.gate_proj", "   only into gate", "C6"),
    ("tensor, mlp.down_proj", "   only into down", "C6"),
    ("tensor, massive three", "   only into down of layers 11, 28 and 29", "C6"),
    ("first apart", "the first token has its own scale", "C0"),
    ("token", "a scale for each token", "C0"),
    ("channel", "a scale for each channel (no kernel can)", "C3"),
)


def draw() -> Figure:
    data = measured()["w8a8"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for place, (key, _, color) in enumerate(ROWS):
        found = interval(data[key])
        axes.plot([found.low, found.high], [place, place], color=color, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(found.mean, place, "o", color=color)
        text = f"{found.mean:.3f}" if found.mean >= 0.1 else f"{found.mean:.4f}"
        axes.annotate(text, (found.high, place), xytext=(8, 0), textcoords="offset points", color=color, va="center")
    axes.set_yticks(range(len(ROWS)), [text for _, text, _ in ROWS])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xscale("log")
    axes.set_xlim(0.002, 2)
    axes.set_xticks([0.003, 0.01, 0.03, 0.1, 0.3, 1], ["0.003", "0.01", "0.03", "0.1", "0.3", "1"])
    axes.minorticks_off()
    axes.set_ylabel("what is rounded")
    axes.set_xlabel("divergence from the reference, nats per token")
    return figure
