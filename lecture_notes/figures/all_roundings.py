"""The output error of every way to round the sixteen weights of one output up or down."""

import math

import matplotlib.pyplot as plt
import numpy as np
from _quantization_training import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    row = measured()["roundings"]["3"]["rows"][0]
    counts, edges = np.array(row["histogram"]), np.linspace(-3, 1, 61)
    figure, axes = plt.subplots(figsize=(7, 3.9))
    axes.stairs(counts, edges, fill=True, color="C6", alpha=0.35)
    for kind, color, label in (("nearest", "C1", "all to the nearest"), ("best", "C0", "the best")):
        place = math.log10(row[kind])
        axes.axvline(place, color=color, lw=2)
        axes.text(place - 0.04, counts.max() * 0.92, label, color=color, ha="right")
    axes.set_xlim(-2.6, 0.4)
    axes.set_xticks([-2, -1, 0], ["1", "10", "100"])
    axes.set_xlabel("squared output error, % of the output")
    axes.set_ylabel("number of roundings")
    return figure
