"""The picture that other sites show beside a link to this one: python site/social.py writes assets/social.png.

A bell curve of weights, and the sixteen values that four bits leave of it.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

PICTURE = Path(__file__).resolve().parent / "assets" / "social.png"
WIDTH, HEIGHT, DPI = 1200, 630, 100
PAPER, INK, CURVE, BARS = "#0b3a4e", "#ffffff", "#7cc4ee", "#ff9a57"


def draw() -> plt.Figure:
    """The picture as a figure of exactly WIDTH by HEIGHT pixels."""
    figure = plt.figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0.06, 0.06, 0.88, 0.42))
    axes.axis("off")
    x = np.linspace(-3.2, 3.2, 400)
    axes.plot(x, np.exp(-(x**2) / 2), color=CURVE, linewidth=4)
    levels = np.arange(-7.5, 8) * 0.4
    axes.bar(levels, np.exp(-(levels**2) / 2), width=0.3, color=BARS, alpha=0.85)
    figure.text(0.06, 0.80, "Fourbit", color=INK, fontsize=64, fontweight="bold", family="DejaVu Sans")
    figure.text(0.06, 0.68, "Efficient deep learning, measured on your own machine:", color=INK, fontsize=22)
    figure.text(0.06, 0.60, "from counting bytes to a language model in four bits", color=INK, fontsize=22)
    return figure


def main() -> None:
    figure = draw()
    figure.savefig(PICTURE, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
