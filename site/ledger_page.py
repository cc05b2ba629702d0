"""The claims ledger: a page with every number of every chapter and what accounts for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ledger import CODE, VALUE, blocks, claims, mask

ANCHOR = re.compile(r'<a id="([\w-]+)">')
INTRO = """---
search:
  exclude: true
---

# Claims ledger

Every number in the chapters, and what accounts for it. This page is made anew with the site, and the site is not built
when a number has changed in the code and not in the text, when a source is missing, or when nothing accounts for one.

- **Made by code**: a script of `lecture_notes/figures/` computes it, or measured it; the key finds it there.
- **Cited**: it stands in a block that names its source.
- **Given**: a choice, a definition, arithmetic that you can redo, or what your own machine will show.
"""


def ledger_page(folder: Path) -> str:
    """The page in Markdown, its citations still keys; chapters as the folder's README lists them."""
    parts, contents = [INTRO], (folder / "README.md").read_text(encoding="utf-8")
    chapters = [path for path in sorted(folder.glob("*.md")) if path.name != "README.md"]
    for path in sorted(chapters, key=lambda path: contents.find(f"({path.name})")):
        text = path.read_text(encoding="utf-8")
        tables = [made_by_code(text, path.name), cited(text, path.name), given(text, path.name)]
        if any(tables):
            title = re.sub(r"[*_`]", "", text.partition("\n")[0].lstrip("# "))
            parts.append(f"## {title}\n\n" + "\n".join(table for table in tables if table))
    return "\n".join(parts)


def section(text: str, page: str) -> Callable[[int], str]:
    """A function from a line of the chapter to a link to the last anchor at or above it."""
    marks = [(text.count("\n", 0, found.start()) + 1, found[1]) for found in ANCHOR.finditer(text)]

    def link(line: int) -> str:
        names = [name for above, name in marks if above <= line]
        return f"[{names[-1]}]({page}#{names[-1]})" if names else f"[beginning]({page})"

    return link


def table(heading: str, columns: str, rows: Mapping[str, list[str]]) -> str:
    """One table of the page; `rows` is {cells before the last: entries of the last}."""
    lines = [f"| {cells} | {', '.join(dict.fromkeys(entries))} |" for cells, entries in rows.items()]
    rule = "|---" * (columns.count("|") + 1) + "|"
    return "\n".join([f"### {heading}\n", f"| {columns} |", rule, *lines, ""]) if lines else ""


def made_by_code(text: str, page: str) -> str:
    where, rows = section(text, page), dict[str, list[str]]()
    for found in VALUE.finditer(mask(text, CODE)):
        line = text.count("\n", 0, found.start()) + 1
        rows.setdefault(where(line), []).append(f"{found['text']} `{found['key']}`")
    return table("Made by code", "where | value and key", rows)


def cited(text: str, page: str) -> str:
    where, rows = section(text, page), dict[str, list[str]]()
    numbers = claims(text)
    for block in blocks(text):
        inside = range(block.line, block.line + block.text.count("\n") + 1)
        own = [claim.number for claim in numbers if claim.line in inside and claim.sources]
        for key in block.sources:
            rows.setdefault(f"[@{key}] | {where(block.line)}", []).extend(own)
    return table("Cited", "source | where | numbers", rows)


def given(text: str, page: str) -> str:
    where, rows = section(text, page), dict[str, list[str]]()
    for claim in claims(text):
        if claim.given:
            rows.setdefault(f"{claim.given} | {where(claim.line)}", []).append(claim.number)
    return table("Given", "reason | where | numbers", rows)
