"""Make the README's pictures from what the programs really show.

    python benchmarks/readme_pictures.py

Writes `site/assets/check-panel.png`, a verdict as a notebook shows it (a Chromium photographs it), and
`site/assets/class-table.svg`, the class table of the demonstration; run `make demo` before.
"""

from __future__ import annotations

import html
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from autograder.demo import LAB
from autograder.nbgrader_course import open_course
from autograder.reports import class_rows, class_table, mistakes_table
from fourbit.errors import FourbitError
from fourbit.exam.check import examination
from fourbit.exam.pack import load_pack
from fourbit.exam.reference import load_lab, variant
from fourbit.exam.verdict import Verdict

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "site" / "assets"
EXERCISE, MISTAKE = "nm_mask", 1
WIDTH = 118

_PAGE = """<!doctype html><meta charset="utf-8">
<body style="margin:0;background:#fff;color:#1f2328">
<div id="picture" style="padding:14px;width:640px">
<pre style="font:13px/1.5 ui-monospace,'DejaVu Sans Mono',monospace;background:#f6f8fa;border:1px solid #d0d7de;
border-radius:4px;padding:8px 12px;margin:0 0 8px">{source}</pre>{panel}</div></body>"""


def wrong_verdict() -> Verdict:
    """The visible exam's verdict on a named mistake of lab 01."""
    lab = load_lab(ROOT / "solutions" / LAB)
    source = lab.exam[EXERCISE].mistakes[MISTAKE].apply(lab.source(EXERCISE))
    exercise = load_pack(ROOT / "labs" / LAB / "exam")[EXERCISE]
    return examination(exercise, variant(lab.namespace(), source, EXERCISE))


def photograph(verdict: Verdict, target: Path) -> None:
    """Save the verdict's HTML panel, under the line that asks for it, as a PNG at twice the size."""
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        raise FourbitError("no chromium or google-chrome on the PATH; install one to photograph the panel")
    page_source = _PAGE.format(source=html.escape(f'check("{verdict.exercise}")'), panel=verdict._repr_html_())
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "panel.html"
        file.write_text(page_source, encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(device_scale_factor=2)
        page.goto(file.as_uri())
        page.locator("#picture").screenshot(path=str(target))
        browser.close()


def draw_table(target: Path) -> None:
    """Save the demonstration's class table and its three most common mistakes as an SVG without any outside font."""
    course = ROOT / "build" / "demo"
    rows = class_rows(open_course(course), LAB)
    if not rows:
        raise FourbitError(f"{course} holds no graded class; run `make demo` first")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(class_table(rows))
    if (mistakes := mistakes_table(rows, most=3)) is not None:
        console.print(mistakes)
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    target.write_text(
        console.export_svg(title=f"fourbit grade {LAB}", code_format=form, unique_id="class"), encoding="utf-8"
    )


def main() -> int:
    """Write both pictures."""
    try:
        photograph(wrong_verdict(), ASSETS / "check-panel.png")
        draw_table(ASSETS / "class-table.svg")
    except FourbitError as error:
        print(f"readme_pictures: {error}", file=sys.stderr)
        return 1
    print(f"Wrote check-panel.png and class-table.svg into {ASSETS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
