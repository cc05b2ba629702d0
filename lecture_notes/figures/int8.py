"""Times of float32 and int8 in one engine, for one image and for 64."""

import matplotlib.pyplot as plt
from _quantization import measured
from matplotlib.figure import Figure

NAMES = {
    "PyTorch float32": ("PyTorch, float32", "C6"),
    "float32": ("ONNX Runtime, float32", "C0"),
    "int8": ("ONNX Runtime, int8", "C1"),
    "int8, 7-bit weights": ("the same, 7-bit weights", "C1"),
}


def draw() -> Figure:
    times = measured()["speed"]["ms"]
    figure, both = plt.subplots(1, 2, figsize=(7.4, 3))
    for axes, (count, title) in zip(both, (("1", "one image"), ("64", "64 images")), strict=True):
        for row, (name, (_, color)) in enumerate(NAMES.items()):
            timing = times[count][name]
            axes.barh(row, timing["median"], color=color, height=0.6)
            axes.plot(timing["interval"], [row, row], color="C2", lw=3)
            text = f"{timing['median']:.2f}"
            axes.annotate(text, (timing["interval"][1], row), xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_title(title)
        axes.set_yticks(*((range(4), [text for text, _ in NAMES.values()]) if axes is both[0] else ([],)))
        axes.invert_yaxis()
        axes.margins(x=0.22)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("ms, median")
    both[0].set_ylabel("engine", visible=False)
    return figure
