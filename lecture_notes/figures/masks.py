"""Which weights stay, at 50 %, in groups of growing size: one 16 x 16 matrix, six ways."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from fourbit.plots import COLORS

SIZE = 16


def kept(w: np.ndarray, height: int, width: int) -> np.ndarray:
    """The half of the (height x width) groups with the larger sum of magnitudes."""
    groups = np.abs(w).reshape(SIZE // height, height, SIZE // width, width).sum((1, 3))
    keep = groups > np.median(groups)
    return np.repeat(np.repeat(keep, height, 0), width, 1)


def square(row: int, column: int) -> Path:
    """One cell of the matrix, a little smaller than its place."""
    left, top, right, bottom = column + 0.06, row + 0.06, column + 0.94, row + 0.94
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)


def draw() -> Figure:
    generator = np.random.default_rng(3)
    scale = np.exp(0.35 * generator.normal(size=(SIZE, 1)) + 0.3 * generator.normal(size=(1, SIZE)))
    w = generator.normal(size=(SIZE, SIZE)) * scale  # rows and columns differ, as they do in networks
    pairs = np.abs(w).reshape(SIZE, SIZE // 4, 4)
    two_of_four = (pairs >= np.sort(pairs, axis=2)[:, :, 2:3]).reshape(SIZE, SIZE)
    masks = {
        "single weights": kept(w, 1, 1),
        "2 of 4": two_of_four,
        "1 x 4 vectors": kept(w, 1, 4),
        "4 x 4 blocks": kept(w, 4, 4),
        "rows: output channels": kept(w, 1, SIZE),
        "columns: input channels": kept(w, SIZE, 1),
    }
    norm = (np.abs(w) ** 2).sum()
    figure, panels = plt.subplots(2, 3, figsize=(7, 5.2))
    for axes, (name, mask) in zip(panels.flat, masks.items(), strict=True):
        squares = Path.make_compound_path(*(square(row, column) for row, column in np.argwhere(mask)))
        axes.add_patch(PathPatch(squares, facecolor=COLORS["blue"], edgecolor="none"))
        axes.add_patch(Rectangle((0, 0), SIZE, SIZE, fill=False, edgecolor=COLORS["gray"], lw=0.8))
        axes.set_xlim(-0.3, SIZE + 0.3)
        axes.set_ylim(SIZE + 0.3, -0.3)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(f"keeps {100 * (w**2)[mask].sum() / norm:.0f} % of the squared norm", fontsize=9)
    panels[0, 0].set_ylabel("output", fontsize=9)
    panels[1, 0].set_ylabel("output", fontsize=9)
    return figure
