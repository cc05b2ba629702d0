"""All mixtures of 3, 4 and 6 bits for five kinds of matrices: divergence against bytes."""

import matplotlib.pyplot as plt
from _four_bits import front, uniform
from matplotlib.figure import Figure

from fourbit.recipes.llm_mixed import read_table


def draw() -> Figure:
    table = read_table()
    figure, axes = plt.subplots(figsize=(7, 4.2))
    plans = [(plan["bytes"] / 1e6, plan["kl"]["evaluation"]) for plan in table["plans"]]
    axes.plot(*zip(*plans, strict=True), "o", color="C6", ms=3, alpha=0.5)
    best = [(plan["bytes"] / 1e6, plan["kl"]["evaluation"]) for plan in front(table)]
    axes.plot(*zip(*best, strict=True), "o-", color="C0", ms=3.5, lw=1.5)
    for bits in table["choices"]:
        plan = uniform(table, bits)
        size, kl = plan["bytes"] / 1e6, plan["kl"]["evaluation"]
        axes.plot(size, kl, "D", color="C1", ms=7)
        place = {3: (10, 2, "left"), 4: (-8, -12, "right"), 6: (-10, 0, "right")}[bits]
        axes.annotate(f"{bits} bits everywhere", (size, kl), xytext=place[:2], textcoords="offset points", color="C1",
                      ha=place[2], va="center")  # fmt: skip
    axes.text(70.5, 0.075, "best mixtures", color="C0", ha="right")
    axes.set_yscale("log")
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    axes.minorticks_off()
    axes.set_xlabel("bytes of the matrices, MB")
    axes.set_ylabel("divergence, nats per token")
    return figure
