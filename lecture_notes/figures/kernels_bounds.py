"""Cycles of a weight against its instructions: what each kernel waits for."""

import matplotlib.pyplot as plt
from _kernels import COUNTED, NAMES, PACKED, cycles, measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    ladder = data["ladder"]
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    grid = [0.1, 60]
    for rate, color in ((6, "C6"), (1, "C6")):
        axes.plot(grid, [x / rate for x in grid], color=color, lw=1, ls="--" if rate == 1 else "-")
        words = "six instructions in a cycle" if rate == 6 else "one instruction in a cycle"
        x = 1.6 if rate == 1 else 6
        axes.text(x, x / rate * 1.12, words, rotation=31, rotation_mode="anchor", color=color)
    for width, words, color in ((4.0, "float32", "C1"), (PACKED, "4 bits", "C3")):
        level = width / ladder["roof"] * ladder["clock"]
        axes.axhline(level, color=color, lw=1.3)
        axes.text(55, level * 0.93, f"bytes of {words} at the roof", ha="right", va="top", color=color)
    places = {"C, loops": (-8, 6, "right"), "dense": (-8, 6, "right")}
    places |= {"C, plain": (4, -15, "left"), "C, intrinsics": (-8, 6, "right")}
    for counted, name in COUNTED.items():
        x, y = data["counts"][counted]["instructions"], cycles(data, name)
        axes.plot(x, y, "o", color="C1" if name == "dense" else "C0", ms=7)
        right, up, side = places[name]
        axes.annotate(NAMES[name][1], (x, y), xytext=(right, up), textcoords="offset points", ha=side)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.1, 60)
    axes.set_ylim(0.05, 12)
    axes.set_xlabel("instructions for each weight (counted)")
    axes.set_ylabel("cycles for each weight (measured)")
    return figure
