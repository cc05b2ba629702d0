"""The bytes of the artifact after each stage of Deep Compression."""

import matplotlib.pyplot as plt
from _quantization import measured, stages
from matplotlib.figure import Figure

NAMES = {
    "float32": "float32",
    "pruned": "pruned: float32\nvalues, 8-bit gaps",
    "shared": "shared: 4- and 5-bit\ncodes, 8-bit gaps",
    "Huffman": "Huffman: the file",
}


def draw() -> Figure:
    found = stages(measured()["artifact"])
    figure, (wide, close) = plt.subplots(1, 2, figsize=(7.4, 3.4), width_ratios=(1, 1.5))
    for row, (name, parts) in enumerate(found.items()):
        total = sum(parts.values())
        wide.barh(row, total / 1000, color="C0", height=0.6)
        if name != "float32":
            left = 0.0
            for kind, color in (("values", "C0"), ("positions", "C1"), ("rest", "C6")):
                close.barh(row, parts[kind] / 1000, left=left / 1000, color=color, height=0.6)
                left += parts[kind]
            times = found["float32"]
            close.text(total / 1000 + 3, row, f"{sum(times.values()) / total:.1f}×", va="center")
    for place, (text, color) in enumerate((("values", "C0"), ("positions", "C1"), ("the rest", "C6"))):
        close.text(100 + 55 * place, -0.1, text, color=color)
    wide.set_yticks(range(4), list(NAMES.values()))
    close.set_yticks([])
    close.set_xlim(0, 245)
    for axes in (wide, close):
        axes.set_ylim(3.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("kB")
    wide.set_ylabel("stage", visible=False)
    return figure
