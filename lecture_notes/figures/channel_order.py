"""What two of four keep of each layer: with its channels as they are, in a searched order, and with no pattern."""

import matplotlib.pyplot as plt
from _sparse_training import measured
from matplotlib.figure import Figure

KINDS = {"given": ("C1", "as it is", "o"), "searched": ("C0", "searched order", "D"), "free": ("C6", "no pattern", "s")}


def draw() -> Figure:
    part = measured()["permutations"]
    figure, both = plt.subplots(1, 2, figsize=(8.2, 3.6), sharey=True)
    for axes, pattern in zip(both, ("2:4", "1:4"), strict=True):
        rows = part[pattern]["kept"]
        for place, row in enumerate(rows.values()):
            axes.plot([100 * row["given"], 100 * row["free"]], [place, place], color="C6", lw=1, alpha=0.6)
            for kind, (color, _, marker) in KINDS.items():
                axes.plot(100 * row[kind], place, marker, color=color, ms=7)
            drawn = [100 * x for x in row["random"]]
            axes.plot(drawn, [place] * len(drawn), "|", color="C1", ms=12)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_title(pattern)
        axes.set_xlabel("magnitude kept, %")
        axes.set_ylabel("layer", visible=False)
    both[0].invert_yaxis()
    first = next(iter(part["2:4"]["kept"].values()))
    for kind, (color, label, _) in KINDS.items():
        place = ("right", -7) if kind == "given" else ("left", 6)
        both[0].annotate(
            label, (100 * first[kind], 0), xytext=(place[1], 9), textcoords="offset points", color=color, ha=place[0]
        )
    both[0].set_ylim(4.4, -0.9)
    return figure
