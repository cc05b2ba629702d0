"""What cheap looks say of the final accuracy, over all networks and among those of about 200,000 MACs."""

import matplotlib.pyplot as plt
from _architectures import PROXIES, chance, measured, middle, taus
from matplotlib.figure import Figure

from fourbit.plots import COLORS


def draw() -> Figure:
    rows = measured()["search"]
    group = middle(rows)
    figure, axes = plt.subplots(figsize=(7.4, 3.9))
    names = {"seed": "the other seed", **PROXIES}
    places = list(range(len(names)))[::-1]
    for chosen, color, mark, words, lift in (
        (rows, "blue", "o", f"all {len(rows)} networks", 0.13),
        (group, "vermilion", "s", f"the {len(group)} of about 200,000 MACs", -0.13),
    ):
        found = taus(chosen)
        values = [found[key] for key in names]
        axes.plot(values, [place + lift for place in places], mark, color=COLORS[color], ms=8, label=words)
    width = 2 * chance(len(group))
    axes.axvspan(-width, width, color=COLORS["gray"], alpha=0.15, lw=0)
    axes.text(0, len(names) - 0.42, "chance, for the squares", color=COLORS["gray"], ha="center")
    axes.set_yticks(places, list(names.values()))
    axes.set_ylim(-0.6, len(names) - 0.1)
    axes.set_xlim(-1.02, 1.02)
    axes.set_xlabel("Kendall's tau with the final accuracy")
    axes.set_ylabel("what ranks the networks")
    axes.legend(loc="lower left")
    return figure
