"""The error of activations on a grid against the end of its range."""

import matplotlib.pyplot as plt
from _quantization import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    calibration = measured()["calibration"]
    shares = [100 * share for share in calibration["share"]]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for bits, errors in calibration["error"].items():
        (line,) = axes.plot(shares, errors)
        least = errors.index(min(errors))
        axes.plot(shares[least], errors[least], "o", color=line.get_color(), ms=7)
        label_line(line, f"{bits} bits")
    axes.annotate("too much cut off", (18, 0.22), color="C6", ha="left", va="bottom")
    axes.annotate("steps too coarse", (88, 0.085), color="C6", ha="center", va="bottom")
    axes.set_yscale("log")
    axes.set_xlim(0, 112)
    axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.set_xlabel("end of the range, % of the largest activation")
    axes.set_ylabel("squared error, share of the signal")
    return figure
