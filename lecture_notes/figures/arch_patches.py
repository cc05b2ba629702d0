"""Memory of T4 layer by layer, whole and with its first layers in patches, and the price in extra work."""

import matplotlib.pyplot as plt
from _architectures import live, patched
from _patches import cost, windows
from matplotlib.figure import Figure

from fourbit.models import build
from fourbit.plots import COLORS, label_line

NAMES = ("conv0", "conv1", "pool2", "conv3", "conv4", "pool5", "conv6")


def draw() -> Figure:
    net = build("T4", seed=0)
    whole = [value / 1e3 for value in live(windows(net, "fc2"))]
    stage = windows(net, "pool2")
    figure, (memory, price) = plt.subplots(1, 2, figsize=(8.4, 3.8))
    places = range(len(NAMES))
    memory.bar(places, whole, color=COLORS["blue"], width=0.62)
    for parts, color in ((2, "vermilion"), (3, "green")):
        level = cost(stage, parts).peak / 1e3
        (line,) = memory.plot([-0.45, 2.45], [level, level], color=COLORS[color], lw=2.4)
        label_line(line, f"{parts} x {parts}" + " patches" * (parts == 2))
    memory.set_xticks(list(places), NAMES, rotation=45)
    memory.set_xlabel("layer")
    memory.set_ylabel("alive while it runs, kB in 8 bits")
    for upto, color, most in (("pool2", "green", 7), ("pool5", "vermilion", 3)):
        points = [patched(upto, parts) for parts in range(1, most + 1)]
        (line,) = price.plot([e for _, e in points], [p / 1e3 for p, _ in points], "o-", color=COLORS[color], ms=4)
        words = {"pool2": "patches up to pool2", "pool5": "up to pool5"}[upto]
        options = {"pool2": {"xytext": (10, 2)}, "pool5": {"xytext": (0, -8), "ha": "right", "va": "top"}}[upto]
        label_line(line, words, **options)
    price.axhline(max(whole), color=COLORS["gray"], ls=":", lw=1.4)
    price.text(75, max(whole) + 0.1, "no patches", color=COLORS["gray"], va="bottom")
    price.set_ylim(0, 16)
    price.set_xlabel("extra MACs, % of the network")
    price.set_ylabel("peak of the network, kB")
    return figure
