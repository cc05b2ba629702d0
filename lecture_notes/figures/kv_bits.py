"""What a rounded cache costs: divergence by bits, for four ways of sharing scales."""

import matplotlib.pyplot as plt
from _inference import WAYS, measured
from matplotlib.figure import Figure

from fourbit.llm.evaluate import Interval


def draw() -> Figure:
    table = measured()["rounded"]["kl"]
    figure, axes = plt.subplots(figsize=(7, 4))
    shift = {"tt": -0.06, "tc": 0.06, "cc": -0.03, "ct": 0.03}
    for i, (way, label) in enumerate(WAYS.items()):
        points = [(bits, Interval.of(table[f"{bits} {way}"])) for bits in (2, 3, 4)]
        x = [bits + shift[way] for bits, _ in points]
        axes.plot(x, [kl.mean for _, kl in points], "o-", color=f"C{i}", ms=4)
        for at, (_, kl) in zip(x, points, strict=True):
            axes.plot([at, at], [kl.low, kl.high], color=f"C{i}", lw=1.5)
        place = {"tt": (16, -6), "tc": (8, 8), "cc": (8, 2), "ct": (8, -3)}[way]
        axes.annotate(label, (x[-1], points[-1][1].mean), xytext=place, textcoords="offset points", color=f"C{i}")
    axes.set_yscale("log")
    axes.set_xlim(1.8, 5)
    axes.set_xticks([2, 3, 4])
    axes.set_yticks([0.01, 0.03, 0.1, 0.3, 1, 3], ["0.01", "0.03", "0.1", "0.3", "1", "3"])
    axes.minorticks_off()
    axes.set_xlabel("bits of keys and values")
    axes.set_ylabel("divergence, nats per token")
    return figure
