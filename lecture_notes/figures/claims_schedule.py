"""A cosine schedule stepped after each epoch and after each batch, and what the network makes of it."""

import math

import matplotlib.pyplot as plt
from _claims import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    rate, period = data["settings"]["rate"], data["settings"]["period"]
    batches = data["settings"]["images"] // 128
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2))
    steps = range(period * batches)
    for when, color, each in (("batch", "C1", 1), ("epoch", "C0", batches)):
        values = [rate * (1 + math.cos(math.pi * (step // each) / period)) / 2 for step in steps]
        left.plot(steps, values, color=color, lw=1 if when == "batch" else 2.4)
    left.set_ylim(0, 1.25 * rate)
    left.text(0.03, 0.92, "stepped after each epoch", color="C0", transform=left.transAxes)
    left.text(0.97, 0.92, "after each batch", color="C1", ha="right", transform=left.transAxes)
    left.set_xlabel("batch")
    left.set_ylabel("learning rate")
    for row, (when, color) in enumerate((("epoch", "C0"), ("batch", "C1"))):
        right.plot(data["schedule"][when], [row] * len(data["schedule"][when]), "o", color=color)
    right.set_yticks([0, 1], ["each epoch", "each batch"])
    right.set_ylim(1.6, -0.6)
    right.set_xlabel("test accuracy, %")
    right.set_ylabel("stepped after", visible=False)
    return figure
