"""Forty repetitions of the same benchmark: where its mean and its median land."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import COLORS

RUNS, REPEATS, RANK = 20, 40, 6  # the 6th of 20 sorted runs encloses the median with 95.9 %


def runs(generator: np.random.Generator, count: int) -> np.ndarray:
    """Times in ms with a floor at 10, jitter, and one run in fifteen disturbed by another process."""
    jitter = 10 + generator.gamma(2.0, 0.15, count)
    return jitter + generator.exponential(6.0, count) * (generator.random(count) < 1 / 15)


def draw() -> Figure:
    generator = np.random.default_rng(7)
    samples = np.sort([runs(generator, RUNS) for _ in range(REPEATS)], axis=1)  # (repeats, runs)
    truth = float(np.median(runs(generator, 200_000)))
    x = np.arange(1, REPEATS + 1)
    figure, axes = plt.subplots(figsize=(7, 3.6))
    axes.hlines(truth, 0, REPEATS + 0.6, color=COLORS["gray"], lw=1.2)
    axes.vlines(x, samples[:, RANK - 1], samples[:, RUNS - RANK], color=COLORS["blue"], alpha=0.45, lw=4)
    axes.plot(x, np.median(samples, axis=1), "o", color=COLORS["blue"], ms=4.5)
    axes.plot(x, samples.mean(1), "x", color=COLORS["vermilion"], ms=6, mew=1.8)
    axes.text(REPEATS + 0.9, truth, "true median", color=COLORS["gray"], va="center")
    axes.text(1, float(samples.mean(1).max()), "mean of 20 runs", color=COLORS["vermilion"], va="top")
    axes.text(1, samples[:, RANK - 1].min() - 0.06, "median and its interval", color=COLORS["blue"], va="top")
    axes.set_ylim(bottom=samples[:, RANK - 1].min() - 0.25)
    axes.set_xlim(0, REPEATS + 7)
    axes.set_xlabel("repetition of the whole benchmark")
    axes.set_ylabel("reported time, ms")
    return figure
