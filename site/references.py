"""Citations: ``[@key]`` in a note, from references.bib to footnotes."""

from __future__ import annotations

import re
from pathlib import Path

from problems import StageError
from pybtex.database import Entry, Person, parse_string
from pybtex.exceptions import PybtexError

CITATION = re.compile(r"[ ]?\[(@[\w:-]+(?:[;,]\s*@[\w:-]+)*)\]")
FOOTNOTE = re.compile(r"\[\^([\w:-]+)\]")


class Bibliography:
    """The entries of one .bib file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.entries = parse_string(path.read_text(encoding="utf-8"), "bibtex").entries
        except (OSError, PybtexError) as error:
            raise StageError(f"{path.name} cannot be read: {error}") from error

    def cite(self, text: str, source: str) -> str:
        """Turn the citations of `text` into footnote references."""

        def references(match: re.Match[str]) -> str:
            keys = [key.strip().lstrip("@") for key in re.split(r"[;,]", match.group(1))]
            unknown = [key for key in keys if key not in self.entries]
            if unknown:
                missing = ", ".join(unknown)
                raise StageError(f"{source}: no entry {missing} in {self.path.name}. Add it, or mend the key.")
            return "".join(f"[^{key}]" for key in keys)

        return CITATION.sub(references, text)

    def footnotes(self, text: str) -> str:
        """The notes that `text` refers to, in the order of their first mention."""
        keys = [key for key in dict.fromkeys(FOOTNOTE.findall(text)) if key in self.entries]
        return "\n\n" + "\n".join(f"[^{key}]: {describe(self.entries[key])}" for key in keys) + "\n" if keys else ""


def describe(entry: Entry) -> str:
    """One line: authors, title, where, year, link."""
    fields = entry.fields
    authors = entry.persons.get("author", [])
    names = [surname(person) for person in authors[:3]] + (["et al."] if len(authors) > 3 else [])
    where = next((fields[key] for key in ("journal", "booktitle", "howpublished", "publisher") if key in fields), "")
    parts = [", ".join(names), f"*{plain(fields['title'])}*", plain(where), fields.get("year", "")]
    line = " ".join(part if part.rstrip("*")[-1] in ".?!" else f"{part}." for part in parts if part)
    address = fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else "")
    note = f" {plain(fields['note'])}." if "note" in fields else ""
    return line + note + (f" [{re.sub(r'^https?://(www[.])?', '', address)}]({address})" if address else "")


def surname(person: Person) -> str:
    """The family name, with initials before it."""
    initials = "".join(f"{name[0]}. " for name in person.first_names + person.middle_names)
    return initials + plain(" ".join(person.prelast_names + person.last_names))


def plain(text: str) -> str:
    """BibTeX text without its braces and dashes."""
    return re.sub(r"[{}]", "", text).replace("--", "-")
