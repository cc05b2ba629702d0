"""The residual stream by layer: its largest number at the first token and elsewhere; attention to the first token."""

import matplotlib.pyplot as plt
from _outliers import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    rows = measured()["massive"]["layers"]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5.4), sharex=True, height_ratios=(3, 2))
    layers = [row["layer"] for row in rows]
    for key, color, text, x in (
        ("first", "C1", "largest at the first token", 19),
        ("rest", "C0", "largest elsewhere", 19),
        ("rest, median", "C6", "median", 19),
    ):
        (line,) = top.plot(layers, [row[key] for row in rows], color=color)
        label_line(line, text, x=x)
    top.set_yscale("log")
    top.set_ylim(0.4, 90_000)
    top.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    top.minorticks_off()
    top.set_ylabel("magnitude behind the layer")
    shares = [100 * row["attention"] for row in rows]
    bottom.bar([i - 0.5 for i in layers], shares, color="C1", width=0.7)  # a layer reads what the one before wrote
    bottom.set_ylabel("attention to the\nfirst token, %")
    top.set_xlabel("layer")
    bottom.set_xlabel("layer")
    return figure
