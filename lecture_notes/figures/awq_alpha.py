"""Output error on unseen text by the exponent of AWQ's scales, at 4 bits in groups of 64, for each kind of matrix."""

import statistics

import matplotlib.pyplot as plt
from _four_bits import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line

KINDS = {"o_proj": "o", "down_proj": "down", "gate_proj": "gate and up", "q_proj": "q, k and v"}
HEIGHTS = {"o_proj": 7, "gate_proj": -6, "down_proj": 4, "q_proj": -4}  # points


def draw() -> Figure:
    rows = [r for r in measured()["awq"]["rows"] if r["bits"] == 4]
    alphas = [i / 20 for i in range(20)]
    figure, axes = plt.subplots(figsize=(7, 4))
    for kind, text in KINDS.items():
        curves = [r["unseen"] for r in rows if r["kind"] == kind]
        middle = [statistics.median(curve[i] for curve in curves) for i in range(len(alphas))]
        (line,) = axes.plot(alphas, middle)
        best = middle.index(min(middle))
        axes.plot(alphas[best], middle[best], "o", color=line.get_color())
        label_line(line, text, xytext=(6, HEIGHTS[kind]))
    axes.axhline(1, color="C6", lw=1.2, ls="--")
    axes.axvline(0.5, color="C6", lw=1.2, ls=":")
    axes.text(0.51, 0.32, "theory: ½", color="C6")
    axes.set_xlim(0, 1.16)
    axes.set_xticks([0, 0.25, 0.5, 0.75])
    axes.set_ylim(0.3, 2)
    axes.set_xlabel("α: scales are the mean magnitude of the input to the power α")
    axes.set_ylabel("output error, α = 0 is 1")
    return figure
