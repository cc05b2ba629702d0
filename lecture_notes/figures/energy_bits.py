"""What an operation costs against its bits: multipliers grow with the square, adders and reads in proportion."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.measure import HOROWITZ45


def draw() -> Figure:
    mult, add, access = HOROWITZ45["mult"], HOROWITZ45["add"], HOROWITZ45["access"]
    bits = np.array([8.0, 32.0])
    figure, axes = plt.subplots(figsize=(7, 4.2))
    rows = [
        ("read, DRAM", "C1", [access["dram"] * b / 64 for b in bits], 1),
        ("read, SRAM 8 KB", "C4", [access["sram 8 KB"] * b / 64 for b in bits], 1),
        ("multiply, integers", "C0", [mult["int8"], mult["int32"]], 2),
        ("add, integers", "C2", [add["int8"], add["int32"]], 1),
    ]
    for name, color, values, power in rows:
        axes.loglog(bits, values, "o", color=color)
        law = values[0] * (bits / 8) ** power
        axes.loglog(bits, law, color=color, lw=1.6, ls="-" if name.startswith("read") else "--")
        label = f"{name}\n(line: bits{' squared' if power == 2 else ''})"
        drop = -14 if power == 2 else 6 if name == "read, SRAM 8 KB" else 0
        axes.annotate(label, (32, law[-1]), xytext=(8, drop), textcoords="offset points", color=color, va="center")
    axes.loglog([16, 32], [mult["fp16"], mult["fp32"]], "s", color="C6")
    place = {"xytext": (6, -12), "textcoords": "offset points"}
    axes.annotate("multiply, floats", (16, mult["fp16"]), color="C6", **place)
    axes.set_xlim(7, 90)
    axes.set_xticks([8, 16, 32], ["8", "16", "32"])
    axes.minorticks_off()
    axes.set_xlabel("bits")
    axes.set_ylabel("energy, pJ (45 nm)")
    return figure
