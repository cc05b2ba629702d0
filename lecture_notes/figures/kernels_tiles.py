"""Bytes fetched for each weight while a prompt is read, against the tokens that are held at a time."""

import matplotlib.pyplot as plt
from _kernels import CACHE, ROW_BYTES, TILES, TOKEN_BYTES, fetched, predicted
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    tiles = TILES
    (line,) = axes.plot(tiles, [fetched(t) for t in tiles], "o-", color="C0")
    label_line(line, "counted, cache of 256 KB", x=2, xytext=(8, 6), ha="left")
    (line,) = axes.plot(tiles, [predicted(t) for t in tiles], ls=":", color="C1")
    label_line(line, "formula, if all fits", x=16, xytext=(-8, -12), ha="right")
    fits = (CACHE - ROW_BYTES) / TOKEN_BYTES
    axes.axvline(fits, color="C6", lw=1)
    axes.text(fits * 1.05, 30, "the cache is full", color="C6")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(tiles, [str(t) for t in tiles])
    axes.set_xlabel("tokens held at a time, of 128")
    axes.set_ylabel("bytes fetched for each weight")
    return figure
