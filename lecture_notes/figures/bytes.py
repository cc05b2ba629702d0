"""Bits per position of a sparse matrix against its sparsity, by format."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    sparsity = np.linspace(0.5, 0.999, 500)
    p = 1 - sparsity
    entropy = -(p * np.log2(p) + sparsity * np.log2(sparsity))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.7))
    for axes, value in ((left, 32), (right, 4)):
        forms = {
            "nonzeros only (not a size)": (p * value, {"ls": ":", "color": "C6"}),
            "entropy bound": (p * value + entropy, {"color": "C2", "lw": 1.3}),
            "bitmap": (p * value + 1, {"color": "C0"}),
            "CSR, 16-bit index": (p * (value + 16), {"color": "C1"}),
            "CSR, 8-bit index": (p * (value + 8), {"color": "C4"}),
        }
        for name, (bits, look) in forms.items():
            (line,) = axes.plot(100 * sparsity, bits, label=name, **look)
            if axes is right and name == "CSR, 16-bit index":
                label_line(line, x=82, xytext=(4, 0), ha="left", va="bottom")
            elif axes is right and name == "CSR, 8-bit index":
                label_line(line, x=56, xytext=(3, 2), ha="left", va="bottom")
            elif axes is left and name in ("bitmap", "nonzeros only (not a size)"):
                up = name == "bitmap"
                label_line(line, x=74 if up else 51, xytext=(3, 30) if up else (0, -26), ha="left", va="bottom")
        axes.axhline(value, color="C6", lw=1)
        axes.set_title(f"{value}-bit values")
        axes.set_xlabel("sparsity, %")
        axes.set_xlim(50, 100)
        axes.set_ylim(0, 1.22 * value)
        axes.text(99.5, value * 1.02, "dense", color="C6", ha="right", va="bottom")
        axes.set_ylabel("bits per position, pointers and header not included")
    label_line(left.lines[1], x=90, xytext=(-4, -6), ha="right", va="top")
    return figure
