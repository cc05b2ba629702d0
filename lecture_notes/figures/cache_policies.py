"""What a bounded cache costs, by what stays in it, paired with the unbounded one."""

import matplotlib.pyplot as plt
from _long_context import POLICIES, cost, measured
from matplotlib.figure import Figure


def draw() -> Figure:
    data = measured()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    names = list(POLICIES)
    for i, name in enumerate(names):
        interval = cost(data, name)
        color = "C1" if name == "window" else "C2" if name in ("heavy", "pages") else "C0"
        axes.plot([interval.low, interval.high], [i, i], color=color, lw=1.6)
        axes.plot([interval.mean], [i], "o", color=color)
        axes.annotate(f"{interval.mean:.3f}", (interval.mean, i), xytext=(0, 6), textcoords="offset points",
                      ha="center", color=color)  # fmt: skip
    axes.axvline(0, color="C6", lw=1, ls="--")
    axes.set_yticks(range(len(names)), [POLICIES[name] for name in names])
    axes.invert_yaxis()
    axes.set_ylabel("what stays of the text")
    axes.set_xlabel("cost, nats per token above the unbounded cache")
    return figure
