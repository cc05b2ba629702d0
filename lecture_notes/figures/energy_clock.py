"""Energy of a job against the clock: one that computes, and one that waits for memory."""

import matplotlib.pyplot as plt
import numpy as np
from _energy import MEMORY, best_clock, run_energy
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    clock = np.linspace(0.15, 1, 200)
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for name, memory, color, x, offset in (
        ("one second of arithmetic", 0.0, "C0", 0.8, (6, -14)),
        (f"the same, beside {MEMORY:g} seconds of memory traffic", MEMORY, "C1", 0.75, (-8, 10)),
    ):
        (line,) = axes.plot(clock, [run_energy(float(f), memory) for f in clock], color=color)
        label_line(line, name, x=x, xytext=offset, ha="left" if memory == 0 else "right")
    axes.plot([best_clock()], [run_energy(best_clock())], "o", color="C0", ms=7)
    axes.set_ylim(0, 15)
    axes.set_xlabel("clock, as a share of the highest")
    axes.set_ylabel("energy of the job, J")
    return figure
