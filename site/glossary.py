"""The glossary: from the terms in terms.md, one a line, to a page in alphabetical order with an anchor for each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from problems import StageError

LINE = re.compile(r"^\* \*\*(?P<name>[^*]+)\*\*: (?P<text>\S.*)$")
HEAD = """\
---
title: Glossary
---

# Glossary

The course's words, one word for one thing, each in a sentence or two. The link leads to where a chapter explains it.

"""


@dataclass(frozen=True)
class Term:
    """One term; `text` is Markdown that ends in a link."""

    name: str
    text: str

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def read_terms(path: Path) -> list[Term]:
    """The terms in alphabetical order; one that has no link, is there twice or is badly written stops the build."""
    terms: dict[str, Term] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("<!--"):
            continue
        where, found = f"site/{path.name}:{number}", LINE.match(line)
        if not found:
            raise StageError(f"{where}: a term is written `* **term**: What it is. [Where](page.md#x)`.")
        term = Term(found["name"], found["text"])
        if not re.search(r"\]\([\w./-]+\.md#[\w-]+\)$", term.text):
            raise StageError(f"{where}: {term.name!r} does not end in a link to where it is explained.")
        if term.anchor in terms:
            raise StageError(f"{where}: {term.name!r} is there already.")
        terms[term.anchor] = term
    return sorted(terms.values(), key=lambda term: term.name.lower())


def glossary_page(terms: Iterable[Term]) -> str:
    """The page, with the letters that occur as headings."""
    letters = {letter: list(group) for letter, group in groupby(terms, key=lambda term: term.name[0].upper())}
    index = " · ".join(f"[{letter}](#letter-{letter.lower()})" for letter in letters)
    parts = [HEAD + index]
    for letter, group in letters.items():
        parts.append(f'## {letter} {{ #letter-{letter.lower()} }}\n\n<dl class="glossary" markdown="1">')
        parts += [f'<dt id="{t.anchor}">{t.name}</dt>\n<dd markdown="span">{t.text}</dd>' for t in group]
        parts.append("</dl>")
    return "\n\n".join(parts) + "\n"
