"""Where "up to" is: the gain of 4.25 bits over 16 against the batch, and of a whole against its faster part."""

import matplotlib.pyplot as plt
import numpy as np
from _claims import amdahl, batch_speedup
from matplotlib.figure import Figure


def draw() -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    batches = np.arange(1, 33)
    left.plot(batches, [batch_speedup(int(b)) for b in batches], "o-", color="C0", ms=4)
    left.set_ylim(0, 4.2)
    left.set_xlabel("vectors at once")
    left.set_ylabel("times faster, 4.25 bits over 16")
    shares = np.linspace(0, 1, 101)
    for row, (factor, color) in enumerate(((100, "C1"), (5, "C0"), (2, "C2"))):
        right.semilogy(100 * shares, [amdahl(s, factor) for s in shares], color=color)
        right.text(0.03, 0.92 - 0.08 * row, f"part {factor} times faster", color=color, transform=right.transAxes)
    right.set_yticks([1, 2, 5, 10, 100], ["1", "2", "5", "10", "100"])
    right.minorticks_off()
    right.set_xlabel("share of the time that became faster, %")
    right.set_ylabel("times faster as a whole")
    return figure
