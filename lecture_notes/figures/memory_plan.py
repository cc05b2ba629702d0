"""What four models of seven or eight billion weights take in Q4_K_M, by context, against the memories of GPUs."""

import matplotlib.pyplot as plt
from _deployment import BESIDE, NAMES, SEVENS
from matplotlib.figure import Figure

from fourbit.llm.plan import plan

PARTS = (("weights", "C0"), ("kv_cache", "C1"), ("activations", "C2"), ("overhead", "C6"))


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.2))
    rows, names = 0, []
    for key, config in SEVENS.items():
        for context in (4096, 32_768):
            if context > config.context:
                continue
            found, left = plan(config, "Q4_K_M", context, baseline=BESIDE), 0.0
            for part, color in PARTS:
                size = getattr(found, part) / 2**30
                axes.barh(rows, size, left=left, color=color, height=0.72)
                left += size
            names.append(f"{NAMES[key]}, {context // 1024}k")
            rows += 1
    axes.set_yticks(range(rows), names)
    axes.invert_yaxis()
    for size in (6, 8, 12):
        axes.axvline(size, color="C6", lw=1, ls="--")
        axes.text(size, -0.75, f"{size} GiB", ha="center", va="bottom", color="C6", fontsize=9)
    axes.text(2.1, 0, "weights", color="white", va="center", ha="center", fontsize=9)
    axes.text(4.8, 0, "KV cache", color="white", va="center", ha="center", fontsize=9)
    axes.set_xlabel("GiB (the small parts behind: buffers, and Python with the vocabulary)")
    axes.set_ylabel("model and context")
    axes.set_xlim(0, 13)
    axes.grid(axis="y", visible=False)
    return figure
