"""The most tokens per second of a split model, by the GPU's memory and by the share of bytes that is there."""

import matplotlib.pyplot as plt
import numpy as np
from _deployment import GPU, MEMORY, NAMES, SEVENS, parts, split
from matplotlib.figure import Figure

from fourbit.plots import label_line


def draw() -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.7), width_ratios=(2, 3))
    share = np.linspace(0, 1, 201)
    ratio = GPU["bandwidth"] / MEMORY
    left.plot(100 * share, 1 / (1 - share + share / ratio), color="C0")
    left.plot(100 * share, 1 + share * (ratio - 1), color="C6", ls=":")
    left.text(38, 7.4, "if speeds were\naveraged", color="C6", ha="center")
    left.set_xlabel("bytes on the GPU, %")
    left.set_ylabel("times as fast as the CPU alone")
    sizes = np.arange(0, 8.3, 0.1)
    for key in ("llama2", "mistral", "qwen"):
        config = SEVENS[key]
        layer, cache, head = parts(config, 4096)
        speeds = [split(config.layers, layer, cache, head, float(gib))[1] for gib in sizes]
        (line,) = right.plot(sizes, speeds)
        place = {"llama2": (7.6, (-4, -14)), "mistral": (6.6, (-4, -14)), "qwen": (6.9, (-16, 8))}[key]
        label_line(line, NAMES[key], x=place[0], xytext=place[1], ha="left")
    right.set_xlabel("memory of the GPU, GiB")
    right.set_ylabel("at most, tokens/s")
    return figure
