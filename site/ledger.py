"""Every number in a chapter says where it comes from: the scanner that finds those that do not, and the claims ledger.

    python site/ledger.py [CHAPTER ...]        names every number that has neither mark, source nor reason

A *claim* is a number with a decimal point, a number with a unit (UNITS), or a number of at least 1,000. Code, formulas,
link targets, HTML, headings and the answers of self-checks are not searched, nor are years, names (Llama-2-7B) and
shapes (3 × 3). A claim is accounted for when

* it has a mark, ``12.7<!--=key-->``: code made it;
* its block (a paragraph, list item, table row, caption) cites a source, ``[@key]``; a table's first row speaks for all;
* its block has ``<!--given: reason-->``, the reason one of REASONS, with more words behind a colon if they help; on a
  line of its own it speaks for the paragraph, table or list above it;
* the chapter lists it among its settings, ``<!--settings: 50 %; 2.5 GB-->``: amounts that somebody chose.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from problems import StageError
from references import CITATION

REASONS = ("chosen", "definition", "worked here", "lab")
UNITS = (
    r"%|percent\b|(?:percentage )?points?\b|times\b|x\b|×(?!\s*[\d$])|(?:thousand|million|billion|trillion)\b"
    r"|(?:[mµn]?s|milliseconds?|microseconds?|seconds?|minutes?|hours?)\b"
    r"|(?:[kMGT]i?B|[kMGT]bit|B(?=/))(?:/s)?\b|[pnµm]?J\b|[mk]?W\b|Wh\b|[kMG]?Hz\b"
    r"|[kMGTP]?FLOPs?(?:/s)?\b|[KMGT]?MACs?\b|T?OPS\b|tokens?(?:/s| per second| a second)\b"
    r"|bits per \w+|standard errors?\b"
)
NUMBER = re.compile(
    r"(?<![\w.,:/×@#])(?<![A-Za-z0-9]-)(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?![\w:])(?!,\d)(?!\.\d)(?!-[A-Z\d])"
    rf"(?P<unit>[\s\u00a0\u202f-]?(?:{UNITS}))?"
)
YEAR = re.compile(r"(?:19[5-9]\d|20[0-3]\d)")
SHAPE = re.compile(r"\b\d[\d,]*(?:\s?×\s?\d[\d,]*\b)+(?!\s*(?:%|ms|=))")
VALUE = re.compile(r"(?P<text>[^\s(*_|]+?)(?P<close>[*_]*)<!--=(?P<key>[\w.-]+)-->")
GIVEN = re.compile(r"[ ]?<!--given: *(?P<reason>[^>]*?) *-->")
SETTINGS = re.compile(r"<!--settings: *(?P<list>[^>]*?) *-->\n?")
CODE = (re.compile(r"^(```+|~~~+).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE), re.compile(r"`[^`\n]+`"))
HIDDEN = (  # in this order; a value's mark goes with its number
    re.compile(r"<details\b.*?</details>", re.DOTALL),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"(?<![\\$])\$(?=\S)[^$\n]*?\$"),
    VALUE,
    re.compile(r"^#{1,6} .*$", re.MULTILINE),
    re.compile(r"\]\([^)\s]*\)"),
    re.compile(r"<!--.*?-->|</?[A-Za-z][^>]*>", re.DOTALL),
    SHAPE,
)
ITEM = re.compile(r"[ >]*(?:[-*+]|\d+\.) ")
SETTING = "chosen: a setting of this chapter"


@dataclass(frozen=True)
class Claim:
    """A number of a chapter and what accounts for it: a `given` reason, citation keys, or nothing."""

    line: int
    number: str
    given: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A paragraph, list item, table row or caption; blocks of one table or list share `group`."""

    line: int
    group: int
    text: str
    masked: str

    @property
    def given(self) -> str:
        return "; ".join(GIVEN.findall(self.text))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(key.strip(" @") for keys in CITATION.findall(self.text) for key in re.split("[;,]", keys))


def mask(text: str, patterns: Iterable[re.Pattern[str]] = (*CODE, *HIDDEN)) -> str:
    """`text` with all that is not prose blanked, every other character in its place."""
    for pattern in patterns:
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)
    return text


def kind_of(line: str) -> str:
    """What a line of Markdown begins or goes on with."""
    if not line.strip(" >"):
        return "blank"
    return "row" if line.lstrip(" >").startswith("|") else "item" if ITEM.match(line) else "text"


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a chapter; line numbers count from 1."""
    masked, lines = mask(text).split("\n"), mask(text, CODE).split("\n")
    start, group, before, previous = 0, 0, "blank", "blank"
    for i, line in enumerate([*lines, ""]):
        kind = kind_of(line)
        if kind in ("blank", "row", "item") or before in ("blank", "row"):
            if start < i and before != "blank":
                yield Block(start + 1, group, "\n".join(lines[start:i]), "\n".join(masked[start:i]))
            start = i
            same = kind == previous == "item" or (kind == before == "row")
            group += kind != "blank" and not same
        before = kind
        if kind in ("row", "item") or (kind == "text" and previous != "item"):
            previous = kind
        elif kind == "text" and i == start:  # a paragraph of its own ends a list
            previous = "text"


def amounts(masked: str) -> Iterator[tuple[int, str]]:
    """(position, number with its unit) of each claim in prose."""
    for found in NUMBER.finditer(masked):
        digits, unit = found["digits"], found["unit"] or ""
        large = float(digits.replace(",", "")) >= 1000 and not YEAR.fullmatch(digits)
        if "." in digits or unit or large:
            yield found.start(), " ".join(found.group().split())


def settings_of(text: str) -> set[str]:
    """The amounts that a chapter lists as chosen."""
    return {" ".join(part.split()) for found in SETTINGS.findall(mask(text, CODE)) for part in found.split(";")}


def claims(text: str) -> list[Claim]:
    """Every claim without a mark, in order."""
    every = list(blocks(text))
    settings = settings_of(text)
    alone = {block.group - 1: block.given for block in every if GIVEN.sub("", block.text).strip() == ""}
    first = {block.group: block for block in reversed(every)}
    found = []
    for block in every:
        row = block.text.lstrip(" >").startswith("|")
        sources = block.sources or (first[block.group].sources if row else ())
        given = block.given or alone.get(block.group, "") or (first[block.group].given if row else "")
        for position, number in amounts(block.masked):
            line = block.line + block.masked.count("\n", 0, position)
            reason = given or (SETTING if number in settings else "")
            found.append(Claim(line, number, reason, () if reason else sources))
    return found


def faults(text: str, source: str) -> list[str]:
    """What the build stops for, each with file, line and number."""
    every = claims(text)
    said = [
        f"{source}:{claim.line}: {claim.number!r} has no mark, source or reason."
        for claim in every
        if not claim.given and not claim.sources
    ]
    idle = settings_of(text) - {claim.number for claim in every if claim.given == SETTING}
    said += [f"{source}: the setting {number!r} accounts for nothing. Remove it." for number in sorted(idle)]
    for block in blocks(text):
        for reason in GIVEN.findall(block.text):
            if reason.partition(":")[0].strip() not in REASONS:
                said.append(f"{source}:{block.line}: {reason!r} is no reason ({', '.join(REASONS)}).")
    return said


def check(text: str, source: str) -> None:
    """Stop the build for a number that nothing accounts for.

    Raises:
        StageError: naming each such number of the chapter.
    """
    if said := faults(text, source):
        raise StageError("\n".join([f"{len(said)} numbers are not accounted for.", *said, NEXT]))


NEXT = (
    "For each: let code make it (12.7<!--=key-->, see figures/values.py), cite its source in the same block ([@key]), "
    f"or say why it needs none (<!--given: REASON--> at the end of the block; REASON is one of: {', '.join(REASONS)})."
)


def clean(text: str) -> str:
    """Text of a chapter, without its code, less what only this module reads."""
    return SETTINGS.sub("", GIVEN.sub("", text))


def main(names: Iterable[str]) -> int:
    folder = Path(__file__).resolve().parent.parent / "lecture_notes"
    said = []
    for path in sorted(folder.glob("*.md")):
        if not names or path.stem in names:
            said += faults(path.read_text(encoding="utf-8"), f"lecture_notes/{path.name}")
    print("\n".join([*said, NEXT] if said else ["Every number is accounted for."]))
    return bool(said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
