"""Signal over quantization noise against bits: what theory says, and a layer with one grid or many."""

import matplotlib.pyplot as plt
import numpy as np
from _quantization import measured
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    noise = measured()["noise"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    bits = np.linspace(2, 8, 121)
    axes.plot(bits, 20 * np.log10(2**bits - 2), color="C6", lw=1.2)
    axes.plot(noise["bits"], noise["uniform"], "o", color="C6")
    axes.text(8.15, 49, "equally likely values:\ntheory and experiment", color="C6", va="center")
    names = {"channel": "conv4, a grid\nfor each channel", "tensor": "conv4,\none grid"}
    for name, text in names.items():
        (line,) = axes.plot(noise["bits"], noise[name], "o-")
        label_line(line, text, x=8, xytext=(6, 0), ha="left", va="center")
    axes.set_xticks([2, 3, 4, 5, 6, 8])
    axes.set_xlim(1.8, 10.6)
    axes.set_ylim(0, 52)
    axes.set_xlabel("bits for each weight")
    axes.set_ylabel("signal over noise, dB")
    return figure
