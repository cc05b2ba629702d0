"""Energy of one operation and of one memory access of 32 bits, from the table that the labs use."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.measure import HOROWITZ45
from fourbit.plots import COLORS


def draw() -> Figure:
    mult, add, access = HOROWITZ45["mult"], HOROWITZ45["add"], HOROWITZ45["access"]
    half = 32 / HOROWITZ45["word_bits"]  # the table prices words of 64 bits
    bars = [
        ("add, int8", add["int8"]),
        ("add, int32", add["int32"]),
        ("multiply, int8", mult["int8"]),
        ("add, fp32", add["fp32"]),
        ("multiply, fp16", mult["fp16"]),
        ("multiply, fp32", mult["fp32"]),
        ("read, SRAM 8 KB", half * access["sram 8 KB"]),
        ("read, SRAM 1 MB", half * access["sram 1 MB"]),
        ("read, DRAM", half * access["dram"]),
    ]
    figure, axes = plt.subplots(figsize=(7, 3.5))
    colors = [COLORS["vermilion" if name.startswith("read") else "blue"] for name, _ in bars]
    axes.barh([name for name, _ in bars], [value for _, value in bars], color=colors, height=0.62)
    for row, (_, value) in enumerate(bars):
        axes.annotate(f"{value:g}", (value, row), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(0.01, 4000)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("energy, pJ (45 nm, 0.9 V; reads of 32 bits; logarithmic)")
    axes.set_ylabel("one operation")
    return figure
