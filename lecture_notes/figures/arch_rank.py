"""fc1 of the course's network at lower rank: what happens to the weight, to the output and to the accuracy."""

import matplotlib.pyplot as plt
from _architectures import measured
from matplotlib.figure import Figure

from fourbit.plots import COLORS, label_line


def draw() -> Figure:
    rows = measured()["low_rank"][:-1]
    ranks = [row["rank"] for row in rows]
    figure, (errors, accuracy) = plt.subplots(1, 2, figsize=(8.4, 3.8))
    lines = (
        ("weight.error", "blue", "-", "the weight itself", (10, 9)),
        ("weight.output_error", "vermilion", "-", "its output", (10, 7)),
        ("output.output_error", "green", "--", "output, chosen for it", (-4, -24)),
    )
    for key, color, dashes, words, place in lines:
        (line,) = errors.plot(ranks, [100 * row[key] for row in rows], "o", color=COLORS[color], ls=dashes, ms=4)
        label_line(line, words, x=16, xytext=place, ha="left" if place[0] > 0 else "center")
    errors.set_ylabel("relative error, % of the norm")
    for key, color, dashes, words, x in (
        ("weight", "vermilion", "-", "closest weight", 2),
        ("output", "green", "--", "closest output", 12),
    ):
        values = [row[f"{key}.accuracy"] for row in rows]
        (line,) = accuracy.plot(ranks, values, "o", color=COLORS[color], ls=dashes, ms=4)
        label_line(line, words, x=x, xytext=(14, -12), ha="left")
    accuracy.set_ylabel("test accuracy, %")
    for axes in (errors, accuracy):
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        axes.set_ylim(0, 100)
        axes.set_xlabel("rank of fc1")
    return figure
