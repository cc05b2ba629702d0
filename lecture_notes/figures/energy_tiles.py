"""Energy of a matrix product against the size of its tiles: the far memory fades, the buffer grows."""

import matplotlib.pyplot as plt
from _energy import MATRIX, best_tile, tile_energy
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    sizes = sorted({round(2 ** (k / 4)) for k in range(4 * 10 + 1)})
    rows = [tile_energy(MATRIX, b) for b in sizes]
    figure, axes = plt.subplots(figsize=(7, 4))
    places = {"dram": (4, (0, 8)), "buffer": (256, (-4, 8)), "arithmetic": (2, (0, 6))}
    for color, (part, (x, offset)) in zip(("C1", "C4", "C0"), places.items(), strict=True):
        (line,) = axes.loglog(sizes, [row[part] for row in rows], color=color, lw=1.5)
        name = {"dram": "words from DRAM", "buffer": "reads of the buffer", "arithmetic": "arithmetic"}[part]
        ha = "right" if part == "buffer" else "left"
        label_line(line, name, x=x, xytext=offset, ha=ha)
    totals = [sum(row.values()) for row in rows]
    (total,) = axes.loglog(sizes, totals, color="C3", lw=2.6)
    label_line(total, "sum", x=12, xytext=(8, 6), ha="left")
    best = best_tile(MATRIX)
    axes.plot([best], [sum(tile_energy(MATRIX, best).values())], "o", color="C3", ms=7)
    axes.set_ylim(0.3, 3000)
    axes.set_xlabel("rows and columns of a tile (logarithmic)")
    axes.set_ylabel("energy of a MAC, pJ (logarithmic)")
    return figure
