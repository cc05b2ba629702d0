"""Fingerprints of answers: winnowing over runs of tokens, blind to what is changed to hide a copy.

S. Schleimer, D. Wilkerson, A. Aiken, "Winnowing: local algorithms for document fingerprinting", SIGMOD 2003: hash
every run of `RUN` tokens and keep the smallest hash of each `WINDOW` neighbors. Two texts that share a run of
`RUN + WINDOW - 1` tokens share a fingerprint.

In code, comments, layout, docstrings, the texts of strings and the names that a student can choose are all alike;
keywords, built-in names, numbers and what follows a dot stay. Prose is compared by its words.
"""

from __future__ import annotations

import builtins
import keyword
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

RUN = 8
WINDOW = 4
_MOST_TOKENS = 20_000  # of one answer

_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|\s+|\\\n)
    |(?P<string>(?i:[rbuf]{0,2})(?:\"{3}[\s\S]*?(?:\"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)
        |"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))
    |(?P<name>[^\W\d]\w*)
    |(?P<other>\d[\w.]*|->|(?:\*\*|//|<<|>>|[-+*/%&|^@=<>!:])=|[^\s\w])""",
    re.VERBOSE,
)
_WORD = re.compile(r"\w+")
_KEPT = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "np", "torch"}


@dataclass(frozen=True)
class Tokens:
    """A text as numbers that stand for its tokens, and where in the text each token lies."""

    codes: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def runs(self) -> list[int]:
        """Return the hash of every run of `RUN` tokens, by the position of its first token."""
        return [hash(self.codes[i : i + RUN]) for i in range(len(self.codes) - RUN + 1)]


def tokens(text: str, kind: str) -> Tokens:
    """Return the tokens of an answer.

    Args:
        kind: nbformat's type of the cell; everything but "code" is prose.
    """
    if kind != "code":
        words = [(found[0].casefold(), found.span()) for found in _WORD.finditer(text)][:_MOST_TOKENS]
        return Tokens(tuple(_code("word " + word) for word, _ in words), tuple(span for _, span in words))
    codes, spans = [], []
    previous = ""
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "skip" or found[0].endswith(('"""', "'''")):
            continue
        codes.append(_code(_alike(found, previous)))
        spans.append(found.span())
        previous = found[0]
        if len(codes) == _MOST_TOKENS:
            break
    return Tokens(tuple(codes), tuple(spans))


def fingerprints(runs: Sequence[int], known: Collection[int] = frozenset()) -> set[int]:
    """Return the winnowed hashes of `runs` that are not `known`."""
    own = [run for run in runs if run not in known]
    if len(own) <= WINDOW:
        return {min(own)} if own else set()
    return {min(own[i : i + WINDOW]) for i in range(len(own) - WINDOW + 1)}


def _alike(found: re.Match[str], previous: str) -> str:
    """Return what stands for a token: the same for everything that a student can choose freely."""
    if found.lastgroup == "string":
        return "a string"
    if found.lastgroup == "name" and previous != "." and found[0] not in _KEPT:
        return "a name"
    return found[0]


def _code(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "replace"))
