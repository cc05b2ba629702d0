"""One look for every figure: readable on light and dark pages, as an image and as SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from fourbit.errors import FourbitError
from fourbit.plots import COLORS, INK, PALETTE, label_line, style, to_svg

WHITE, JUPYTER_DARK, SITE_DARK = "#ffffff", "#111111", "#1e2429"


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two colors."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def draw() -> Figure:
    with style():
        made, axes = plt.subplots()
        for k, name in enumerate(COLORS):
            (line,) = axes.plot([0, 1, 2], [k, k + 1, k + 3], label=name)
            label_line(line)
        axes.axhline(1, color="#000000")
        axes.set_xlabel("time, ms")
    return made


@pytest.fixture
def figure() -> Iterator[Figure]:
    made = draw()
    yield made
    plt.close(made)


@pytest.mark.parametrize("name", PALETTE)
def test_colors_are_readable_on_either_page(name: str) -> None:
    shades = PALETTE[name]
    assert min(contrast(shades.raster, WHITE), contrast(shades.raster, JUPYTER_DARK)) >= 3  # graphical objects
    assert contrast(shades.light, WHITE) >= 4.5  # labels are text
    assert contrast(shades.dark, SITE_DARK) >= 4.5


def test_text_of_an_image_is_readable_on_either_page() -> None:
    assert min(contrast(INK, WHITE), contrast(INK, JUPYTER_DARK)) >= 4


def test_the_style_ends_with_its_block() -> None:
    before = mpl.rcParams["text.color"]
    with style():
        assert mpl.rcParams["text.color"] == INK
    assert mpl.rcParams["text.color"] == before


def test_an_svg_takes_every_color_from_the_page(figure: Figure) -> None:
    drawn = re.sub(r"<style>.*?</style>", "", to_svg(figure, "demo"))
    outside = re.sub(r"var\(--plot-\w+, #[0-9a-f]{6}\)", "", drawn)
    assert not re.findall(r"(?:fill|stroke): #[0-9a-fA-F]{3,6}", outside)
    assert "currentColor" in drawn
    assert all(f"var(--plot-{name}," in drawn for name in PALETTE)


def test_an_svg_keeps_its_text_and_brings_no_font(figure: Figure) -> None:
    svg = to_svg(figure, "demo")
    assert "time, ms</text>" in svg
    assert "font-family:" not in svg
    assert ET.fromstring(svg).tag.endswith("svg")


def test_an_svg_says_a_number_as_it_was_written(figure: Figure) -> None:
    figure.axes[0].set_title("0.0886 of 1.2345")
    assert "0.0886 of 1.2345</text>" in to_svg(figure, "demo")


def test_two_figures_share_no_id_and_the_same_figure_is_the_same_bytes(figure: Figure) -> None:
    again = draw()
    one, other = to_svg(figure, "one"), to_svg(figure, "other")
    assert to_svg(again, "one") == one
    plt.close(again)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:"#|url\(#)([\w.-]+)', one))
    assert used <= ids[0]


def test_an_svg_asks_no_host_for_anything(figure: Figure) -> None:
    addresses = set(re.findall(r"https?://[^\"\s)]+", to_svg(figure, "demo")))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not requests


def test_a_label_stands_at_the_line_in_its_color() -> None:
    with style():
        figure, axes = plt.subplots()
        (line,) = axes.plot([0, 1, 2], [5, 6, 7], color="C1", label="loss")
        end, middle = label_line(line), label_line(line, "here", x=0.9)
        assert (end.get_text(), end.xy) == ("loss", (2, 7))
        assert (middle.get_text(), middle.xy) == ("here", (1, 6))
        assert end.get_color() == COLORS["vermilion"]
        plt.close(figure)


def test_a_line_that_is_not_drawn_cannot_be_labeled() -> None:
    with pytest.raises(FourbitError, match=r"axes\.plot"):
        label_line(mpl.lines.Line2D([0, 1], [0, 1]))


def test_the_site_gives_the_palette_the_same_colors(root: Path) -> None:
    css = (root / "site" / "assets" / "course.css").read_text(encoding="utf-8")
    for name, shades in PALETTE.items():
        assert re.findall(rf"--plot-{name}: (#\w+)", css) == [shades.light, shades.dark]
