"""Why speculation is exact: what the draft has in common with the target, and what it leaves over."""

import matplotlib.pyplot as plt
from _inference import DRAFT, TARGET
from matplotlib.figure import Figure


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for i, (p, q) in enumerate(zip(TARGET, DRAFT, strict=True)):
        common = min(p, q)
        axes.bar(i - 0.2, common, 0.36, color="C0")
        axes.bar(i - 0.2, p - common, 0.36, bottom=common, color="C2")
        axes.bar(i + 0.2, common, 0.36, color="C0")
        axes.bar(i + 0.2, q - common, 0.36, bottom=common, color="C6", alpha=0.6)
        axes.text(i - 0.2, p + 0.01, "p", ha="center", fontsize=9)
        axes.text(i + 0.2, q + 0.01, "q", ha="center", fontsize=9)
    for place, (text, color) in enumerate((
        ("accepted: min(p, q)", "C0"),
        ("left over for the second draw: max(p − q, 0)", "C2"),
        ("refused: max(q − p, 0)", "C6"),
    )):  # fmt: skip
        axes.text(0.98, 0.93 - 0.09 * place, text, color=color, ha="right", transform=axes.transAxes)
    axes.set_xticks(range(len(TARGET)), [f"token {i + 1}" for i in range(len(TARGET))])
    axes.set_ylim(0, 0.52)
    axes.set_xlabel("token of a vocabulary of five")
    axes.set_ylabel("probability")
    return figure
