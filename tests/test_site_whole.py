"""The built site as a whole: nothing leaks, nothing lies about unused, pages are accessible and chapters light."""

from __future__ import annotations

import gzip
import html
import io
import json
import re
import zipfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

from tests.pages import serving
from tests.test_site import Page, built, pages  # noqa: F401

TEXTS = (".html", ".ipynb", ".json", ".js", ".css", ".txt", ".md", ".py", ".xml", ".toml", ".yml", ".svg", ".c", ".h")
LEAST = 25  # characters of a line that tells its origin; shorter ones (`return x`) anybody writes
FIRST, WHOLE = 700_000, 2_000_000  # bytes as gzip sends them: before anything is scrolled into view, and after


# what must not be shown


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON document; a notebook's cell may be a list of lines."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def texts(name: str, data: bytes) -> Iterator[str]:
    """The text of a file, and of the files in it if it is an archive."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inside in archive.namelist():
                yield from texts(inside, archive.read(inside))
    elif name.endswith(TEXTS):
        text = data.decode("utf-8")
        yield text
        if name.endswith((".json", ".ipynb")):
            parts = "\n".join(strings(json.loads(text)))
            yield parts
            text = parts
        yield html.unescape(re.sub(r"<[^>]+>", "", text))


def lines_shown(folder: Path) -> set[str]:
    """Every line of every text below `folder`, without its margins."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for text in texts(path.name, path.read_bytes()):
                found.update(line.strip() for line in text.splitlines())
    return found


def secrets(root: Path) -> set[str]:
    """Lines of solutions, exams and patches of mistakes that stand in no file that students get."""
    exams = pytest.importorskip("autograder.exams")
    block = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.DOTALL)
    hidden, given = [], [p.read_text(encoding="utf-8") for p in (root / "fourbit").rglob("*.py")]
    for folder in sorted((root / "solutions").iterdir()):
        if not (folder / "exam.py").is_file():
            continue
        source = (folder / f"{folder.name}.py").read_text(encoding="utf-8")
        given += [block.sub("", source), (folder / "properties.py").read_text(encoding="utf-8")]
        hidden += [*block.findall(source), (folder / "exam.py").read_text(encoding="utf-8")]
        for exercise in exams.load_lab(folder).exam.exercises:
            hidden += [new for mistake in exercise.mistakes for _, new in mistake.patch]
    known = {line.strip() for text in given for line in text.splitlines()}
    lines = {line.strip() for text in hidden for line in text.splitlines()}
    return {line for line in lines - known if len(line) >= LEAST and not line.startswith(("from ", "import "))}


def test_no_line_of_a_solution_exam_or_mistake_is_on_the_site(root: Path, built: Path) -> None:  # noqa: F811
    shown, secret = lines_shown(built), secrets(root)
    assert len(shown) > 20_000
    assert len(secret) > 2000
    assert shown & secret == set()


LINE = 'scores = weights.abs() if x < 1 and "&" else None  # kept'


@pytest.mark.parametrize("form", ["html", "ipynb", "json", "zip", "search"])
def test_a_leak_would_be_found(tmp_path: Path, form: str) -> None:
    spans = "".join(f"<span>{html.escape(word)}</span> " for word in LINE.split(" "))
    notebook = json.dumps({"cells": [{"source": ["x = 1\n", f"    {LINE}\n"]}]})
    (tmp_path / "harmless.html").write_text("<p>Nothing.</p>", encoding="utf-8")
    if form == "html":
        (tmp_path / "a.html").write_text(f"<pre>x = 1\n    {spans}\n</pre>", encoding="utf-8")
    elif form == "search":
        (tmp_path / "a.json").write_text(json.dumps({"docs": [{"text": f"<p>{spans}</p>\n"}]}), encoding="utf-8")
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("lab/a.ipynb", notebook)
    else:
        (tmp_path / f"a.{form}").write_text(notebook, encoding="utf-8")
    assert LINE in lines_shown(tmp_path)


# what must be reachable, and used


def targets(name: str, page: Page) -> Iterator[str]:
    """The files of the site that a page links to."""
    for link in page.links:
        address = urlsplit(urldefrag(urljoin(f"http://here/{name}", link))[0])
        if address.netloc == "here":
            path = unquote(address.path).lstrip("/")
            yield path + ("index.html" if not path or path.endswith("/") else "")


def orphans(known: dict[str, Page]) -> set[str]:
    """Pages that no chain of links from the home page reaches."""
    reached, ahead = {"index.html", "404.html"}, deque(["index.html"])
    while ahead:
        name = ahead.popleft()
        new = {target for target in targets(name, known[name]) if target in known} - reached
        reached |= new
        ahead.extend(sorted(new))
    return set(known) - reached


def test_every_page_is_reached_by_links_from_the_home_page(built: Path) -> None:  # noqa: F811
    known = pages(built)
    assert len(known) > 20
    assert orphans(known) == set()
    assert orphans(known | {"lost/index.html": Page("<p>Nobody links here.</p>")}) == {"lost/index.html"}


def unused(root: Path, folder: Path) -> set[str]:
    """Files of site/assets whose name stands in no page, style, script or test, nor in the README."""
    readers = [p for p in folder.rglob("*") if p.suffix in (".html", ".css", ".js")]
    readers += [
        root / "mkdocs.yml",
        root / "README.md",
        *(root / "tests").rglob("*.py"),
        *(root / "tests").rglob("*.mjs"),
    ]
    text = "\n".join(p.read_text(encoding="utf-8") for p in readers if "javascripts" not in p.parts)
    text += "".join(f"{tag}.js " for tag in set(re.findall(r"<fourbit-([\w-]+)", text)))
    named = ("LICENSE", "VERSION.txt")
    files = [p for p in (root / "site" / "assets").rglob("*") if p.is_file() and p.name not in named]
    return {
        p.relative_to(root / "site").as_posix()
        for p in files
        if p.name.removeprefix(f"{p.name.partition('-vectors')[0]}-") not in text
    }


def test_every_asset_is_used(root: Path, built: Path) -> None:  # noqa: F811
    assert unused(root, built) == set()


# every page in a browser

OWN = ("data:", "blob:")
NARROW, WIDE = {"width": 390, "height": 900}, {"width": 1280, "height": 900}
TYPESET = "!document.querySelector('.arithmatex:not([data-typeset])')"
FONTS = "document.fonts.ready.then(() => true)"
SCROLL = """async () => {
    for (const answer of document.querySelectorAll("article details")) answer.open = true;
    const rest = () => new Promise(done => setTimeout(done, 30));
    for (let y = 0; y < document.documentElement.scrollHeight; y += 800) { scrollTo(0, y); await rest(); }
    scrollTo(0, 0); await rest();
}"""
ARRIVED = """() => ![...document.querySelectorAll("article *")].some(
    e => e.localName.startsWith("fourbit-") && !e.hasAttribute("data-ready"))"""
STATE = """() => ({"pixels too wide": document.documentElement.scrollWidth - innerWidth,
    "formulas not typeset": document.querySelectorAll(".arithmatex:not(:has(.katex)), .katex-error").length,
    "broken images": [...document.images].filter(i => !i.naturalWidth).length})"""
# Contrast is the slow rule, and it depends on styles alone: of texts with the same path of tags, classes and styles to
# the root, one is examined (a lab has thousands of colored words). All other rules see the whole page.
CONTRAST = """async () => {
    const path = e => e ? path(e.parentElement) + "/" + e.localName + "." + e.classList + e.getAttribute("style") : "";
    const texts = [...document.querySelectorAll("body *")].filter(e => !e.checkVisibility || e.checkVisibility())
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
    const one = [...new Map(texts.map(e => [path(e), e]).reverse()).values()];
    const include = [...one, ...document.querySelectorAll("[data-ready]")];
    return violations({include}, {runOnly: {type: "rule", values: ["color-contrast"]}});
}"""
OTHER_RULES = """rules => violations(document, {runOnly: rules, rules: {"color-contrast": {enabled: false}}})"""
VIOLATIONS = """window.violations = async (where, options) => {
    const found = (await axe.run(where, {resultTypes: ["violations"], ...options})).violations;
    return found.flatMap(v => v.nodes.map(n => `${v.id}: ${n.target.flat().join(" ")}: ${n.failureSummary}`));
}; null"""
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The tabs fade in once the window is wide enough for them, and colors fade into each other: measured after that.
TABS = "!document.querySelector('.md-tabs[hidden]')"
SETTLED = "!document.getAnimations().some(animation => animation instanceof CSSTransition)"
SWITCH = "scheme => document.querySelector(`input[data-md-color-scheme=${scheme}]`).click()"
SWITCHED = "scheme => document.body.dataset.mdColorScheme === scheme"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@dataclass(frozen=True)
class Visit:
    """What is wrong with a page, and the paths that it asked for: until anything is scrolled into view, and in all."""

    faults: list[str]
    first: list[str]
    whole: list[str]


def visit(browser: Any, server: str, asked: list[str], address: str, axe: str) -> Visit:
    """One page for a reader who was never here: on a phone in light and dark, then in a wide window in dark and light.

    It is loaded once and scrolled through, and widened where it stands.
    """
    faults: list[str] = []
    context = browser.new_context(viewport=NARROW, color_scheme="light")
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith((*OWN, server)) else faults.append(sent.url))

    def look(where: str, scheme: str) -> None:
        faults.extend(f"{where}: {count} {what}" for what, count in page.evaluate(STATE).items() if count > 0)
        faults.extend(f"{where}, {scheme}: {violation}" for violation in page.evaluate(CONTRAST))

    def switch(scheme: str) -> None:
        page.evaluate(SWITCH, scheme)
        page.wait_for_function(SWITCHED, arg=scheme)
        page.wait_for_function(SETTLED)

    asked.clear()
    page.goto(server + address, wait_until="networkidle")
    page.wait_for_function(TYPESET)
    page.wait_for_function(FONTS)
    first = list(asked)
    page.evaluate(SCROLL)
    page.wait_for_function(ARRIVED, timeout=60_000)
    whole = list(asked)
    page.evaluate(axe)
    page.evaluate(VIOLATIONS)
    faults += page.evaluate(OTHER_RULES, WCAG)
    look("narrow", "light")
    switch("slate")
    look("narrow", "dark")
    page.set_viewport_size(WIDE)
    page.evaluate(DRAWN)
    page.wait_for_function(TABS)
    page.wait_for_function(SETTLED)
    faults += page.evaluate(OTHER_RULES, WCAG)
    look("wide", "dark")
    switch("default")
    look("wide", "light")
    context.close()
    return Visit(faults, first, whole)


@pytest.fixture(scope="module")
def visits(built: Path, browser: Any) -> dict[str, Visit]:  # noqa: F811
    """Each page's file below the site, and what was seen of it with all other hosts blocked."""
    axe = pytest.importorskip("axe_playwright_python.base").AXE_SCRIPT
    names = sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))
    asked: list[str] = []
    with serving(built, asked) as server:
        return {name: visit(browser, server, asked, name.removesuffix("index.html"), axe) for name in names}


@pytest.mark.browser
@pytest.mark.slow
def test_every_page_is_whole_and_accessible_with_all_other_hosts_blocked(visits: dict[str, Visit]) -> None:
    assert [f"{name}: {fault}" for name, seen in visits.items() for fault in seen.faults] == []


def sent(folder: Path, path: str) -> int:
    """Bytes of a file as a host sends it."""
    name = unquote(urlsplit(path).path).lstrip("/")
    file = folder / name / "index.html" if not name or name.endswith("/") else folder / name
    data = file.read_bytes() if file.is_file() else b""
    return min(len(data), len(gzip.compress(data)))


@pytest.mark.browser
@pytest.mark.slow
def test_a_chapter_is_light(built: Path, visits: dict[str, Visit]) -> None:  # noqa: F811
    heavy = []
    chapters = {name: seen for name, seen in visits.items() if re.fullmatch(r"lecture_notes/[^/]+/index\.html", name)}
    assert chapters
    for name, seen in chapters.items():
        assert "/search/search_index.json" in seen.first, "the requests were not counted"
        first = {path: sent(built, path) for path in seen.first if "/explorables/" not in path}
        whole = {path: sent(built, path) for path in seen.whole}
        for what, weights, most in (("first load", first, FIRST), ("in all", whole, WHOLE)):
            if sum(weights.values()) > most:
                largest = sorted(weights.items(), key=lambda item: -item[1])[:5]
                heavy.append(f"{name}, {what}: {sum(weights.values()):,} bytes, most of it {largest}")
    assert heavy == []
