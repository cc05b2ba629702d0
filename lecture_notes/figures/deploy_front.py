"""Score against speed of every model, format and cache on a laptop with 16 GB, and what of it fits."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fourbit.recipes.deployments import deployments

MEMORY, BANDWIDTH, CONTEXT, MOST = 12 * 2**30, 50.0, 8192, 0.05
SIDE = {"Qwen2.5-0.5B": (0, 9), "Mistral-7B": (0, -15), "Llama-3-8B": (0, 9), "Qwen2.5-3B": (0, 9)}


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    found = list(deployments(BANDWIDTH, CONTEXT))
    runs = [c for c in found if c["bytes"] <= MEMORY and c["divergence"] <= MOST]
    axes.plot([c["speed"] for c in found], [c["score"] for c in found], "o", color="C6", ms=3, alpha=0.35)
    axes.plot([c["speed"] for c in runs], [c["score"] for c in runs], "o", color="C0", ms=4)
    best: list[dict] = []
    for c in sorted(runs, key=lambda c: -c["speed"]):
        if not best or c["score"] > best[-1]["score"]:
            best.append(c)
    fastest = {c["score"]: c for c in sorted(best, key=lambda c: c["speed"])}
    line = sorted(fastest.values(), key=lambda c: c["speed"])
    axes.plot([c["speed"] for c in line], [c["score"] for c in line], "D-", color="C1", ms=6, lw=1.4)
    shown = {c["model"]: c for c in sorted(found, key=lambda c: c["speed"]) if c["divergence"] <= MOST}
    for name, c in shown.items():
        offset = SIDE.get(name, (0, 9))
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
        axes.annotate(name, (c["speed"], c["score"]), xytext=offset, **place)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_ylim(42, 90)
    axes.set_xlabel("at most, tokens/s with 8,192 tokens in the cache, 50 GB/s")
    axes.set_ylabel("MMLU of the base model, %")
    return figure
