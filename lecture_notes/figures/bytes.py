"""Bits per position of a sparse matrix against its sparsity, by format."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


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
        for row, (name, (bits, look)) in enumerate(forms.items()):
            axes.plot(100 * sparsity, bits, **look)
            if axes is left:
                axes.text(99, 19 + 2.4 * row, name, color=look["color"], ha="right")
        axes.axhline(value, color="C6", lw=1)
        axes.text(99, value * 1.02, "dense", color="C6", ha="right", va="bottom")
        axes.set_title(f"{value}-bit values")
        axes.set_xlabel("sparsity, %")
        axes.set_ylabel("bits per position")
        axes.set_xlim(50, 100)
        axes.set_ylim(0, 1.2 * value)
    return figure
