"""One look for every figure: lab notebooks, lecture notes, reports.

Use :func:`use_style` at the top of a notebook, or ``with style():`` around one figure. Lines are labeled directly
(:func:`label_line`), since matching a legend by color costs every reader time and some readers the figure.

Colors are the Okabe-Ito set (Okabe & Ito, "Color universal design", 2008) without its yellow, each shifted in
lightness so that it has at least 3:1 contrast on white *and* on a dark page: an image in a notebook cannot know
which of the two it will stand on. SVG can, so :func:`to_svg` turns the colors into CSS variables with a value for
either, and the ink into ``currentColor``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from fourbit.errors import FourbitError


class Shades(NamedTuple):
    """One color: for raster images on any page, for SVG on a light page, for SVG on a dark page."""

    raster: str
    light: str
    dark: str


PALETTE = MappingProxyType(
    {
        "blue": Shades("#2b7fc0", "#0067a6", "#6db6f0"),
        "vermilion": Shades("#d55e00", "#b34a00", "#ff9a57"),
        "green": Shades("#00936b", "#00734f", "#3fc99f"),
        "purple": Shades("#b765a0", "#9a4282", "#e3a1cf"),
        "orange": Shades("#b97a00", "#8a5a00", "#f0b53c"),
        "sky": Shades("#3f96bd", "#1f7399", "#8fd3f4"),
        "gray": Shades("#8a8a8a", "#6b6b6b", "#a6a6a6"),
    }
)

COLORS = MappingProxyType({name: shades.raster for name, shades in PALETTE.items()})
"""The palette by name, in the order in which lines take it: blue, vermilion, green, purple, orange, sky, gray."""

INK = "#7a7a7a"
"""Text and axes in a raster image: contrast 4.3:1 on white, 4.4:1 on JupyterLab's dark page."""

# Any: matplotlib types the keys of its parameters as one long Literal, which a dict of ours never is.
_RC: Any = {
    "figure.figsize": (7.0, 3.9),
    "figure.dpi": 110,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "grid.color": INK,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "font.size": 10,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.facecolor": "none",
    "savefig.transparent": True,
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's own font
    "svg.hashsalt": "fourbit",  # the same figure gives the same bytes
}


def use_style() -> None:
    """Give every later figure of this process the course's look."""
    mpl.rcParams.update(_RC)


@contextmanager
def style() -> Iterator[None]:
    """Give figures made inside the block the course's look."""
    with mpl.rc_context(_RC):
        yield


def label_line(line: Line2D, text: str | None = None, *, x: float | None = None, **options: Any) -> Annotation:
    """Write `text` beside `line` in the line's color, instead of a legend.

    Args:
        text: the label; by default the line's own ``label=``.
        x: data coordinate at which to label (the nearest point of the line); by default its right end.
        options: passed to :meth:`matplotlib.axes.Axes.annotate`, such as ``xytext=(0, 8)`` (points) or ``ha="center"``.
    """
    axes: Any = line.axes
    if axes is None:
        raise FourbitError("label_line() takes a line that is drawn: `(line,) = axes.plot(...)`, then label_line(line)")
    xs, ys = (np.asarray(values, dtype=float) for values in line.get_data())
    point = len(xs) - 1 if x is None else int(np.nanargmin(abs(xs - x)))
    place = {"xytext": (6, 0), "ha": "left", "va": "center"}
    if x is not None:
        place = {"xytext": (0, 7), "ha": "center", "va": "bottom"}
    return axes.annotate(
        str(line.get_label()) if text is None else text,
        (xs[point], ys[point]),
        textcoords="offset points",
        color=to_hex(line.get_color()),
        annotation_clip=False,
        **{**place, **options},
    )


def to_svg(figure: Figure, name: str = "figure") -> str:
    """Return `figure` as one ``<svg>`` element that follows the page's colors, on light and on dark.

    Ids carry the prefix `name`, so that several figures can stand in one HTML page. Alone, as a file, it follows
    the reader's system setting.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # finer than any screen
    svg = re.sub(r"font-family: [^;\"]*(; |(?=\"))", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    for color in (INK, "#000000"):
        svg = svg.replace(color, "currentColor")
    for color, shades in PALETTE.items():
        svg = svg.replace(shades.raster, f"var(--plot-{color}, {shades.light})")
    head = '<svg class="plot" font-family="system-ui, sans-serif" stroke-linejoin="round"'
    return svg.replace("<defs>", f"<style>{_own_page()}</style><defs>", 1).replace("<svg", head, 1).strip() + "\n"


def _own_page() -> str:
    """CSS that colors an SVG file shown on its own or as an image; in an HTML page the root is not the figure."""
    light = ";".join(f"--plot-{name}:{shades.light}" for name, shades in PALETTE.items())
    dark = ";".join(f"--plot-{name}:{shades.dark}" for name, shades in PALETTE.items())
    root = "svg.plot:root"
    return f"{root}{{color:#333;{light}}}@media(prefers-color-scheme:dark){{{root}{{color:#ccc;{dark}}}}}"
