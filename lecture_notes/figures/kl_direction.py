"""A student with one hump against a teacher with two: what each direction of the divergence settles on."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fourbit.plots import label_line

PLACES = np.linspace(-6, 6, 241)


def bell(center: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((PLACES - center) / width) ** 2) / width


def draw() -> Figure:
    teacher = 0.6 * bell(-2, 0.7) + 0.4 * bell(2.4, 0.7) + 1e-12
    teacher /= teacher.sum()
    family = np.stack([bell(c, w) for c in np.arange(-3, 3, 0.1) for w in np.arange(0.4, 4, 0.1)]) + 1e-12
    family /= family.sum(1, keepdims=True)
    forward = (teacher * np.log(teacher / family)).sum(1)
    reverse = (family * np.log(family / teacher)).sum(1)
    figure, axes = plt.subplots(figsize=(7, 3.5))
    axes.fill_between(PLACES, teacher, color="C6", alpha=0.35, lw=0)
    axes.text(-3.1, 0.016, "teacher", color="C6", ha="right")
    (line,) = axes.plot(PLACES, family[forward.argmin()])
    label_line(line, "KL(teacher ‖ student) covers both", x=0.9, xytext=(4, 6), ha="left")
    (line,) = axes.plot(PLACES, family[reverse.argmin()])
    label_line(line, "KL(student ‖ teacher) picks one", x=-1.5, xytext=(8, 0), ha="left")
    axes.set_yticks([])
    axes.set_ylim(0, None)
    axes.set_xlabel("output")
    axes.set_ylabel("probability")
    return figure
