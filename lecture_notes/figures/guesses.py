"""Speed-up by speculation against the number of guesses, from the measured costs of judging them."""

import matplotlib.pyplot as plt
from _inference import ALPHAS, DRAFT_COST, measured, rising, speedups
from matplotlib.figure import Figure


def draw() -> Figure:
    judging = rising(measured()["chunks"]["judging"])
    figure, axes = plt.subplots(figsize=(7, 4))
    for i, alpha in enumerate(ALPHAS):
        gains = speedups(alpha, DRAFT_COST, judging)
        free = speedups(alpha, DRAFT_COST, [judging[0]] * len(judging))
        axes.plot(gains, "o-", color=f"C{i}", ms=3.5)
        axes.plot(free, ":", color=f"C{i}", lw=1.2)
        best = gains.index(max(gains))
        axes.plot(best, gains[best], "D", color=f"C{i}", ms=7)
        axes.annotate(f"α = {alpha:g}", (len(gains) - 1, gains[-1]), xytext=(6, -3), textcoords="offset points",
                      color=f"C{i}")  # fmt: skip
    axes.axhline(1, color="C6", ls="--", lw=1)
    axes.set_xlim(0, 13.6)
    axes.set_xticks(range(0, 13, 2))
    axes.set_xlabel("guesses in a round")
    axes.set_ylabel("times as fast")
    return figure
