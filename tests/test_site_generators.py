"""The staged pages are plain Markdown: the successor of MkDocs builds the same site from them, while it can be had."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.test_site import NOTES, Page, copy_source, run

# what only MkDocs does: it stages by itself, from the sources
OURS = {"docs_dir: site\n": "docs_dir: build/docs\n", "site_dir: build/site\n": "site_dir: build/next\n",
        "hooks: [site/hooks.py]\n": "", "watch: [lecture_notes, labs]\n": ""}  # fmt: skip


@pytest.fixture(scope="module")
def staged(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with its staged pages and a configuration for the successor."""
    folder = copy_source(root, tmp_path_factory.mktemp("next"))
    done = run(folder, "site/stage.py")
    assert done.returncode == 0, done.stderr
    text = (root / "mkdocs.yml").read_text(encoding="utf-8")
    for old, new in OURS.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "next.yml").write_text(text, encoding="utf-8")
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("zensical", reason="the successor of MkDocs is not installed (extra `dev`)")
    return run(folder, "-m", "zensical", "build", "-f", "next.yml", "--strict")


@pytest.fixture(scope="module")
def site(staged: Path) -> Path:
    done = build(staged)
    assert done.returncode == 0, done.stdout + done.stderr
    return staged / "build" / "next"


def test_the_successor_builds_every_page(staged: Path, site: Path) -> None:
    sources = [
        p.relative_to(staged / "build" / "docs").with_suffix("") for p in (staged / "build" / "docs").rglob("*.md")
    ]
    assert len(sources) > 20
    addresses = {(p.parent if p.name == "index" else p) / "index.html" for p in sources}
    assert {p.relative_to(site) for p in site.rglob("index.html")} == addresses


@pytest.mark.parametrize("name", NOTES)
def test_a_chapter_is_the_same_for_the_successor(staged: Path, site: Path, name: str) -> None:
    source = (staged / "build" / "docs" / "lecture_notes" / f"{name}.md").read_text(encoding="utf-8")
    text = (site / "lecture_notes" / name / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r'class="arithmatex">\s*\\[(\[]', text)) > 15
    assert text.count('<figure class="plot"') == source.count('<figure class="plot"') >= 3
    assert re.findall(r"<fourbit-[\w-]+", text) == re.findall(r"<fourbit-[\w-]+", source)
    assert set(re.findall(r" \{#([\w-]+)\}\n", source)) <= Page(text).ids
    assert text.count('<li id="fn:') == len(re.findall(r"^\[\^[\w:-]+\]: ", source, re.MULTILINE)) > 0
    assert "<!--=" not in text
    assert "page.js" in text
    assert "course.css" in text


def test_some_chapter_has_an_explorable(site: Path) -> None:
    assert any("<fourbit-prune" in p.read_text(encoding="utf-8") for p in site.rglob("index.html"))
