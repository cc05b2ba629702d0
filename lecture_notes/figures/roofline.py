"""An example roofline with real layers on it."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import COLORS

PEAK, BANDWIDTH = 100e9, 20e9  # FLOP/s and byte/s of the example machine, one core of a laptop
N_IN, N_OUT = 4096, 11008


def intensity(batch: int, weight_bytes: float) -> float:
    """FLOP per byte of a linear layer whose inputs and outputs are fp32."""
    return 2 * batch * N_IN * N_OUT / (N_IN * N_OUT * weight_bytes + 4 * batch * (N_IN + N_OUT))


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7, 4))
    grid = np.logspace(-1, 3, 400)
    axes.loglog(grid, np.minimum(PEAK, grid * BANDWIDTH) / 1e9, color=COLORS["gray"])
    axes.text(0.13, 4.2, "20 GB/s", rotation=39, color=COLORS["gray"], ha="left", va="bottom")
    axes.text(300, 107, "100 GFLOP/s", color=COLORS["gray"], ha="center", va="bottom")
    ridge = PEAK / BANDWIDTH
    axes.plot([ridge, ridge], [1, PEAK / 1e9], ls=":", color=COLORS["gray"], lw=1.3)
    axes.text(ridge * 1.08, 1.25, f"ridge: {ridge:g} FLOP/byte", color=COLORS["gray"])
    points = [
        ("fp32, 1 token", 1, 4.0, "blue", (8, -5)),
        ("fp16, 1 token", 1, 2.0, "blue", (8, -5)),
        ("4 bits, 1 token", 1, 0.5, "blue", (-8, 2)),
        ("fp32, 8 tokens", 8, 4.0, "vermilion", (9, -14)),
        ("fp32, 64 tokens", 64, 4.0, "vermilion", (4, -14)),
        ("fp32, 512 tokens", 512, 4.0, "vermilion", (4, -14)),
    ]
    for text, batch, width, color, offset in points:
        x = intensity(batch, width)
        y = min(PEAK, x * BANDWIDTH) / 1e9
        axes.plot(x, y, "o", color=COLORS[color], ms=7)
        side = "left" if offset[0] > 0 else "right"
        axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", color=COLORS[color], ha=side)
    axes.set_xlim(0.1, 1000)
    axes.set_ylim(1, 200)
    axes.set_xlabel("arithmetic intensity, FLOP/byte")
    axes.set_ylabel("attainable, GFLOP/s")
    return figure
