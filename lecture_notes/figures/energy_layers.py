"""The bill of T4 for one image, layer by layer, in float32 and in int8."""

import matplotlib.pyplot as plt
from _energy import bill, t4_layers
from matplotlib.figure import Figure

PARTS = {"weights": "C1", "arithmetic": "C0", "activations": "C4"}


def draw() -> Figure:
    layers = t4_layers()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.7), sharey=True)
    titles = {"fp32": "float32, weights from DRAM", "int8": "int8, weights from DRAM"}
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        left = [0.0] * len(layers)
        for part, color in PARTS.items():
            values = [bill(layer, kind, "dram")[part] for layer in layers]
            axes.barh([layer.name for layer in layers], values, left=left, color=color, height=0.64)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set_title(title)
        axes.set_xlabel("energy of one image, µJ")
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("layer")
    panels[1].set_ylabel("layer", visible=False)
    for row, (part, color) in enumerate(PARTS.items()):
        panels[0].text(0.97, 0.92 - 0.09 * row, part, color=color, ha="right", transform=panels[0].transAxes)
    return figure
