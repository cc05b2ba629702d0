"""A page with one explorable, served with the site's own script and style, for tests that drive it in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pages import serving

PATIENCE = 120_000  # milliseconds
PAPER = {"default": "#fff", "slate": "hsl(210deg 15% 14%)"}  # Material's backgrounds of pages
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A page</title><link rel="icon" href="data:,"><link rel="stylesheet" href="assets/course.css">
<style>body {{ --md-default-bg-color: {paper}; background: {paper}; color: var(--md-default-fg-color); }}</style>
<body data-md-color-scheme="{scheme}">
<script>window.document$ = {{ subscribe: (shown) => shown() }};</script>
<article class="md-typeset"><h1>A page</h1><div style="height: {above}px"></div>
<p><fourbit-{name}>Fallback.</fourbit-{name}></p></article><script src="assets/page.js"></script></body></html>"""


@contextmanager
def served(root: Path, folder: Path, *names: str) -> Iterator[str]:
    """Serve NAME.html (light), NAME-dark.html and NAME-far.html (where one must scroll), and yield their address."""
    shutil.copytree(root / "site" / "assets" / "explorables", folder / "assets" / "explorables")
    for asset in ("course.css", "page.js"):
        shutil.copy(root / "site" / "assets" / asset, folder / "assets")
    for name in names:
        for kind, scheme, above in (("", "default", 0), ("-dark", "slate", 0), ("-far", "default", 4000)):
            page = PAGE.format(name=name, scheme=scheme, paper=PAPER[scheme], above=above)
            (folder / f"{name}{kind}.html").write_text(page, encoding="utf-8")

    with serving(folder, []) as address:
        yield address


@dataclass
class Explorable:
    """One explorable on a page, with what the page asked for and what its console complained about."""

    page: Any
    name: str
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def element(self) -> Any:
        return self.page.locator(f"fourbit-{self.name}")

    def open(self, address: str, kind: str = "") -> None:
        self.page.goto(f"{address}{self.name}{kind}.html")
        self.page.wait_for_selector(f"fourbit-{self.name}[data-ready]", timeout=PATIENCE)

    def guess(self, steps: int = 0) -> None:
        """Commit the guess that the slider stands at after `steps` presses of an arrow key."""
        self.page.locator(f"fourbit-{self.name} .guess input").focus()
        self.press("ArrowRight" if steps > 0 else "ArrowLeft", abs(steps))
        self.press("Tab")
        self.press("Enter")

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)

    def violations(self) -> list[str]:
        """What axe-core finds against WCAG 2.1 AA in the explorable as it is now."""
        from axe_playwright_python.base import AXE_SCRIPT

        self.page.evaluate(AXE_SCRIPT)
        options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
        found = self.page.evaluate("([name, options]) => axe.run(name, options)", [f"fourbit-{self.name}", options])
        return [f"{fault['id']}: {node['html']}" for fault in found["violations"] for node in fault["nodes"]]

    def settled(self, **expected: object) -> dict[str, str]:
        """Wait until data-* say so (and the state is done), and return all of them."""
        wanted = "".join(f'[data-{key}="{value}"]' for key, value in {"state": "done", **expected}.items())
        self.page.wait_for_selector(f"fourbit-{self.name}{wanted}", timeout=PATIENCE)
        found: dict[str, str] = self.element.evaluate("element => ({...element.dataset})")
        return found


@contextmanager
def visited(browser: Any, address: str, name: str, **context: Any) -> Iterator[Explorable]:
    """A browser that has never been here; a fault on the console or a request to another host fails the test."""
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    found = Explorable(opened.new_page(), name)
    found.page.on("console", lambda said: found.faults.append(said.text) if said.type == "error" else None)
    found.page.on("pageerror", lambda error: found.faults.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    yield found
    opened.close()
    assert found.faults == []
    assert [url for url in found.requests if not url.startswith((address, "data:", "blob:"))] == []
