"""The Atom feed of changelog.md: one entry for each version (RFC 4287).

Addresses are relative to the feed unless the site knows its own (`site_url` in mkdocs.yml); ids are made of the
version alone, so that a site that moves tells nobody old news.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from xml.etree import ElementTree

from problems import StageError

ATOM = "http://www.w3.org/2005/Atom"
ENTRY = re.compile(r"^## (?P<version>[\w.]+), (?P<date>\d{4}-\d\d-\d\d) \{ #(?P<anchor>[\w.-]+) \}$", re.MULTILINE)
TITLE, AUTHOR = "Fourbit: what is new", "Fourbit"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "fourbit/changelog")


@dataclass(frozen=True)
class Entry:
    """One version of the changelog; `points` are its list items as plain text."""

    version: str
    date: str
    anchor: str
    points: tuple[str, ...]


def read_changelog(text: str) -> list[Entry]:
    """The versions, as they stand in the changelog: newest first."""
    found = list(ENTRY.finditer(text))
    if not found or len(found) != len(re.findall(r"^## ", text, re.MULTILINE)):
        raise StageError("site/changelog.md: each heading of a version is written `## 1.2.0, 2026-11-28 { #v1.2.0 }`.")
    ends = [match.start() for match in found[1:]] + [len(text)]
    entries = [
        Entry(match["version"], match["date"], match["anchor"], items(text[match.end() : end]))
        for match, end in zip(found, ends, strict=True)
    ]
    if [entry.date for entry in entries] != sorted((entry.date for entry in entries), reverse=True):
        raise StageError("site/changelog.md: the newest version stands first.")
    return entries


def items(text: str) -> tuple[str, ...]:
    """The list items of some Markdown without its marks."""
    lines = re.findall(r"^\* (.+(?:\n  .+)*)", text, re.MULTILINE)
    return tuple(re.sub(r"\[([^\]]+)\]\([^)]+\)|[*`]", r"\1", " ".join(line.split())) for line in lines)


def feed(entries: list[Entry], base: str = "") -> str:
    """The feed as XML; `base` is the site's own address with a slash at its end, or nothing."""
    ElementTree.register_namespace("", ATOM)
    root = ElementTree.Element(f"{{{ATOM}}}feed")
    add(root, "title", TITLE)
    add(root, "id", NAMESPACE.urn)
    add(root, "updated", f"{entries[0].date}T00:00:00Z")
    add(add(root, "author"), "name", AUTHOR)
    add(root, "link", rel="self", href=f"{base}feed.xml")
    add(root, "link", rel="alternate", type="text/html", href=f"{base}changelog/")
    for entry in entries:
        node = add(root, "entry")
        add(node, "title", f"Fourbit {entry.version}")
        add(node, "id", uuid.uuid5(NAMESPACE, entry.version).urn)
        add(node, "updated", f"{entry.date}T00:00:00Z")
        add(node, "link", rel="alternate", type="text/html", href=f"{base}changelog/#{entry.anchor}")
        add(node, "content", "\n".join(entry.points), type="text")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """A child of `parent` in Atom's namespace."""
    child = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    child.text = text or None
    return child
