"""Probability of the right one of six names, by how far back the sentence stands that said it."""

import matplotlib.pyplot as plt
from _long_context import measured
from matplotlib.figure import Figure

LABELS = {"dense": "everything kept", "pages": "256 read of all", "heavy": "heavy hitters", "sinks": "sinks and window"}


def draw() -> Figure:
    data = measured()["needle"]
    figure, axes = plt.subplots(figsize=(7, 3.9))
    for i, (name, label) in enumerate(LABELS.items()):
        values = [100 * sure for sure in data[name]]
        axes.plot(data["distances"], values, "o-", color=f"C{i}", ms=4, label=label)
    axes.axvline(256, color="C6", lw=1, ls=":")
    axes.axhline(100 / len(data["names"]), color="C6", lw=1.2, ls="--")
    axes.annotate("a guess", (data["distances"][0], 100 / len(data["names"])), xytext=(0, 4),
                  textcoords="offset points", color="C6")  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_ylim(0, 103)
    axes.set_xlabel("tokens between the sentence and the question")
    axes.set_ylabel("probability of the right name, %")
    return figure
