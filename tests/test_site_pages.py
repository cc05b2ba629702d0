"""The site's own pages: the glossary, what is new and its feed; and how the site is served."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from fourbit import __version__
from tests.scripts import load_script
from tests.test_site import spoil

ATOM = {"a": "http://www.w3.org/2005/Atom"}
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def site(root: Path) -> ModuleType:
    return load_script(root / "site" / "stage.py", "stage_for_pages")


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """The sources of the two pages, to spoil."""
    for name in ("terms.md", "changelog.md"):
        (tmp_path / name).write_text((root / "site" / name).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


# glossary


def test_the_glossary_is_in_order_and_each_term_can_be_linked_to(site: ModuleType, folder: Path) -> None:
    page = site.site_files(folder, "")["glossary.md"]
    found = re.findall(r'<dt id="([a-z0-9-]+)">([^<]+)</dt>\n<dd markdown="span">(.+)</dd>', page)
    assert len(found) >= 60
    assert len({anchor for anchor, _, _ in found}) == len(found)
    names = [name.lower() for _, name, _ in found]
    assert names == sorted(names)
    assert sorted({name[0].upper() for name in names}) == re.findall(r"^## (\w) \{", page, re.MULTILINE)
    for anchor, _, text in found:
        sentences = re.sub(r" \[[^]]+\]\([^)]+\)$", "", text)
        assert 20 < len(sentences) < 320, anchor
        assert sentences.endswith("."), anchor


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("* **AWQ**", "**AWQ**", "a term is written"),
        ("* **AWQ**", "* **kv cache**", "'KV cache' is there already"),
        (" [AWQ](lecture_notes/four-bits.md#awq)", "", "'AWQ' does not end in a link"),
    ],
)
def test_a_fault_in_a_term_stops_the_build_and_is_named(
    site: ModuleType, folder: Path, old: str, new: str, said: str
) -> None:
    spoil(folder / "terms.md", old, new)
    with pytest.raises(Exception, match=re.escape(said)):
        site.site_files(folder, "")


# what is new


def test_the_feed_is_valid_atom_with_an_entry_for_each_version(site: ModuleType, folder: Path) -> None:
    feed = ElementTree.fromstring(site.site_files(folder, "")["feed.xml"])
    assert feed.tag == f"{{{ATOM['a']}}}feed"
    headings = re.findall(r"^## ([\d.]+), ", (folder / "changelog.md").read_text(encoding="utf-8"), re.MULTILINE)
    entries = feed.findall("a:entry", ATOM)
    assert [entry.findtext("a:title", "", ATOM) for entry in entries] == [f"Fourbit {version}" for version in headings]
    for node in (feed, *entries):  # what RFC 4287 requires of a feed and of an entry
        assert node.findtext("a:id", "", ATOM).startswith("urn:uuid:")
        assert DATE_TIME.fullmatch(node.findtext("a:updated", "", ATOM))
        assert node.findtext("a:title", "", ATOM)
    assert feed.findtext("a:author/a:name", "", ATOM)
    ids = [node.text for node in feed.iter(f"{{{ATOM['a']}}}id")]
    assert len(set(ids)) == len(ids)
    content = entries[0].findtext("a:content", "", ATOM)
    assert len(content.splitlines()) >= 3
    assert "](" not in content


def test_the_newest_version_is_the_packages(site: ModuleType, folder: Path) -> None:
    assert site.read_changelog((folder / "changelog.md").read_text(encoding="utf-8"))[0].version == __version__


def test_links_of_the_feed_are_absolute_where_the_site_knows_its_address(site: ModuleType, folder: Path) -> None:
    def links(address: str) -> list[str]:
        feed = ElementTree.fromstring(site.site_files(folder, address)["feed.xml"])
        return [link.attrib["href"] for link in feed.iter(f"{{{ATOM['a']}}}link")]

    assert links("") == [link.removeprefix("https://example.org/x/") for link in links("https://example.org/x/")]
    assert all(link.startswith("https://example.org/x/") for link in links("https://example.org/x/"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("## 0.1.0, 2026-11-28 { #v0.1.0 }", "## 0.1.0 (today)", "each heading of a version"),
        ("## 0.1.0,", "## 0.0.9, 2026-01-01 { #v0.0.9 }\n\n* Older.\n\n## 0.1.0,", "the newest version stands first"),
    ],
)
def test_a_fault_in_the_changelog_stops_the_build(
    site: ModuleType, folder: Path, old: str, new: str, said: str
) -> None:
    spoil(folder / "changelog.md", old, new)
    with pytest.raises(Exception, match=re.escape(said)):
        site.site_files(folder, "")


# make site


@pytest.fixture
def tiny_site(root: Path, tmp_path: Path) -> Path:
    """A checkout with nothing in it but the server and a built page."""
    (tmp_path / "site").mkdir()
    shutil.copy(root / "site" / "serve.py", tmp_path / "site")
    (tmp_path / "build" / "site").mkdir(parents=True)
    (tmp_path / "build" / "site" / "index.html").write_text("<h1>It is here</h1>", encoding="utf-8")
    return tmp_path


@pytest.mark.linux
def test_the_site_is_served_at_the_address_that_is_said_until_ctrl_c(tiny_site: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "site/serve.py", "0"]
    at_a_terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs these tests may ignore Ctrl-C
    server = subprocess.Popen(
        command, cwd=tiny_site, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=at_a_terminal
    )
    try:
        os.close(theirs)
        said = os.read(ours, 1000).decode()
        with urllib.request.urlopen(re.search(r"http://127\.0\.0\.1:\d+/", said)[0], timeout=10) as answer:
            assert b"It is here" in answer.read()
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()
        os.close(ours)


def test_where_nobody_can_press_ctrl_c_nothing_is_served(tiny_site: Path) -> None:
    command = [sys.executable, "site/serve.py"]
    done = subprocess.run(command, cwd=tiny_site, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "site/serve.py" in done.stdout
    (tiny_site / "build" / "site" / "index.html").unlink()
    done = subprocess.run(command, cwd=tiny_site, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "make site" in done.stderr
