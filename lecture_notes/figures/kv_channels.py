"""Keys and values of one layer by channel: the range that holds nine tokens of ten, and the median."""

import matplotlib.pyplot as plt
from _inference import measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()["channels"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, name in zip(panels, ("keys", "values"), strict=True):
        low, middle, high = data[name]
        axes.vlines(range(len(low)), low, high, color="C0", lw=1)
        axes.plot(middle, ".", color="C1", ms=3)
        axes.set_title(name)
        axes.set_xlabel("channel (three heads of 64)")
        axes.set_ylabel("value" if name == "keys" else "")
    panels[1].set_ylabel("value")
    return figure
