"""The loudest channels that q, k and v and that gate and up read, over the median channel, by layer."""

import matplotlib.pyplot as plt
from _outliers import loudness, measured
from matplotlib.figure import Figure

COLORS = {247: "C1", 17: "C2", 507: "C0", 308: "C3", 14: "C4", 260: "C5"}


def draw() -> Figure:
    data = measured()
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 4), sharey=True)
    for axes, kind, title in zip(
        panels, ("q_proj", "gate_proj"), ("read by q, k and v", "read by gate and up"), strict=True
    ):
        for layer, row in enumerate(loudness(data, kind)):
            for channel, ratio in zip(row["loudest"], row["loudest over median"], strict=True):
                shape = "^" if channel == 260 else "o"
                axes.plot(layer, ratio, shape, color=COLORS.get(channel, "C6"), ms=4 if channel in COLORS else 2.5)
        axes.set_title(title)
        axes.set_xlabel("layer")
        axes.set_ylabel("mean |x| of a channel, median channel is 1")
    panels[0].set_yscale("log")
    panels[0].set_ylim(1.8, 130)
    panels[0].set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    panels[0].minorticks_off()
    texts = ((247, 13, 105), (17, 26.5, 50), (260, 4.5, 37), (507, 1, 72), (308, 9, 12.3), (14, 19, 14.4))
    for channel, x, y in texts:
        panels[0].text(
            x, y, f"channel {channel}" if channel == 247 else f"{channel}", color=COLORS[channel], ha="center"
        )
    return figure
