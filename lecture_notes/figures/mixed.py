"""Mixed precision: accuracy against bytes, each layer with its own bits, and all layers with the same."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.recipes.mixed_precision import read_front


def draw() -> Figure:
    stored = read_front()
    figure, axes = plt.subplots(figsize=(7, 3.9))
    front = [(row["bytes"] / 1000, row["accuracy"]) for row in stored["front"]]
    front.append((240, front[-1][1]))
    axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="C0")
    axes.plot(*zip(*front[:-1], strict=True), "o", color="C0", ms=3.5)
    axes.text(133, 78, "bits for each layer", color="C0", ha="left")
    for row in stored["uniform"][:3]:
        size = row["bytes"] / 1000
        axes.plot(size, row["accuracy"], "D", color="C1", ms=7)
        place = {"xytext": (10, -4), "ha": "left"} if row["bits"] == 2 else {"xytext": (0, -16), "ha": "center"}
        text = f"{row['bits']} bits everywhere"
        axes.annotate(text, (size, row["accuracy"]), textcoords="offset points", color="C1", **place)
    axes.set_xlim(115, 245)
    axes.set_ylim(25, 95)
    axes.set_xlabel("whole file, kB")
    axes.set_ylabel("validation accuracy, %")
    return figure
