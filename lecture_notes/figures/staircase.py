"""A grid of eight values: what comes out, the error, and the slope that training pretends."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import label_line

LOW, HIGH, BITS = -1.0, 2.0, 3


def draw() -> Figure:
    step = (HIGH - LOW) / (2**BITS - 1)
    zero = round(-LOW / step)
    x = np.linspace(-1.7, 2.7, 4401)
    code = np.clip(np.round(x / step) + zero, 0, 2**BITS - 1)
    y = step * (code - zero)
    figure, (value, error, slope) = plt.subplots(3, 1, figsize=(7, 5.6), sharex=True, height_ratios=(3, 1.6, 1))
    value.plot(x, x, ":", color="C6")
    value.plot(x, y)
    value.plot([0], [0], "D", color="C1", ms=7)
    value.annotate("zero is on the grid", (0, 0), xytext=(12, -10), textcoords="offset points", color="C1")
    value.set_ylabel("value of the code")
    error.axhspan(-step / 2, step / 2, color="C6", alpha=0.2, lw=0)
    error.plot(x, y - x, color="C1")
    error.text(-0.9, 0.56 * step, "± half a step", color="C6", va="bottom")
    error.set_ylim(-0.75, 0.75)
    error.set_ylabel("error")
    inside = (x >= step * (0 - zero)) & (x <= step * (2**BITS - 1 - zero))
    slope.plot(x, np.zeros_like(x), color="C0")
    (line,) = slope.plot(x, inside.astype(float), color="C2")
    label_line(line, "straight-through", x=0.5, xytext=(0, -5), va="top")
    slope.text(-1.65, 0.12, "true slope: 0", color="C0", va="bottom")
    slope.set_ylim(-0.15, 1.2)
    slope.set_yticks([0, 1])
    slope.set_ylabel("slope")
    for axes in (value, error, slope):
        axes.set_xlabel("x" if axes is slope else " ")
    return figure
