"""The best of k seeds when nothing changed: what is expected of normal numbers, and what seeds of S5 did."""

import random
import statistics

import matplotlib.pyplot as plt
from _claims import best_beats, expected_best, measured
from matplotlib.figure import Figure

from fourbit.plots import label_line

COUNTS = range(1, 17)


def draw() -> Figure:
    runs, shuffle = measured()["seeds"]["test"], random.Random(0)
    mean, spread = statistics.fmean(runs), statistics.stdev(runs)
    seen = [statistics.fmean(max(shuffle.sample(runs, k)) - mean for _ in range(2000)) for k in COUNTS]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    (line,) = left.plot(COUNTS, [spread * expected_best(k) for k in COUNTS], color="C0")
    label_line(line, "normal numbers", x=11, xytext=(0, -18))
    (line,) = left.plot(COUNTS, seen, "o", color="C1")
    label_line(line, "S5 from k of 16 seeds", x=9, xytext=(-34, 16))
    left.set_ylim(0, None)
    left.set_xlabel("seeds of which the best is reported")
    left.set_ylabel("gain over the mean, points")
    for gain, color, name in ((0.0, "C0", "at all"), (0.5, "C2", "by half a point"), (1.0, "C3", "by one point")):
        (line,) = right.plot(COUNTS, [100 * best_beats(k, gain / spread) for k in COUNTS], color=color)
        label_line(line, name, x=11, xytext=(0, 5))
    right.set_ylim(0, 100)
    right.set_xlabel("seeds of which the best is reported")
    right.set_ylabel("beats one run of the same, % of cases")
    return figure
