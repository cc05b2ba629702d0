"""Read a lab's source: a notebook in jupytext's percent format, with one short header for each cell.

    # %% [markdown]                             prose
    # %% role="setup"                           locked code that everything needs
    # %% exercise="magnitude_mask"              the student's cell, its reference between solution markers
    # %% check="magnitude_mask"                 empty; the builder writes the call
    # %% prediction="cliff"                     a number to commit to before measuring
    # %% role="measure"                         locked measurement, not run when grading
    # %% [markdown] written="why-cliff" points=3    an answer graded by hand; the source holds the model answer

Every line that starts with `# %%` begins a cell.
"""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

from fourbit.errors import FourbitError

ROLES = ("prose", "setup", "exercise", "check", "prediction", "measure", "written")
HEADER = re.compile(r"\s*#\s*(%%|In\[|<codecell>)")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
_NAMED = ("exercise", "check", "prediction", "written")
_JUPYTEXT_KEYS = {"lines_to_next_cell", "lines_to_end_of_cell_marker", "cell_marker"}
_NO_ROLE = (
    'this code cell has no role. Give it one (role="setup", role="measure", exercise=, check= or prediction=); '
    "if the line is part of the cell above, reword it: every line that starts with `# %%` begins a cell"
)


class SourceError(FourbitError):
    """A lab's source that cannot be built: the message names the file, the line, the cell's header and the remedy."""


@dataclass(frozen=True)
class SourceCell:
    """One cell as its author wrote it.

    Attributes:
        role: one of `ROLES`.
        name: of the exercise, prediction or written question; "" for the other roles.
        source: the cell's text, without its header.
        points: of a written question; None elsewhere, where the exam knows them.
        line: line of the header in the source file, from 1; 0 for a cell that the builder added.
        header: the header as written.
    """

    role: str
    name: str = ""
    source: str = ""
    points: float | None = None
    line: int = 0
    header: str = ""

    @property
    def cell_type(self) -> str:
        return "markdown" if self.role in ("prose", "written") else "code"


@dataclass(frozen=True)
class LabSource:
    """The cells of one lab; `name` is its folder's name, "01-pruning"."""

    name: str
    path: Path
    cells: tuple[SourceCell, ...]

    def named(self, role: str) -> dict[str, SourceCell]:
        """The cells of a named role, by name, in their order."""
        return {cell.name: cell for cell in self.cells if cell.role == role}

    def error(self, cell: SourceCell, message: str) -> SourceError:
        return SourceError(f"{self.path}:{cell.line}: `{cell.header}`: {message}.")


def read_source(path: Path) -> LabSource:
    """Read `path`, whose folder names the lab.

    Raises:
        SourceError: when the file is missing, is not UTF-8, or holds a header that is not understood.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such source. A lab is solutions/NN-name/NN-name.py.") from None
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise SourceError(f"{path}: not UTF-8 ({reason}). Save the file as UTF-8.") from None
    return LabSource(path.parent.name, path, tuple(parse_source(text, path)))


def parse_source(text: str, path: Path) -> list[SourceCell]:
    """Split percent-format `text` into cells; `path` only serves the messages."""
    lines = text.splitlines()
    headers = _header_lines(lines, path)
    cells = jupytext.reads("\n".join(lines) + "\n", fmt="py:percent").cells
    if len(cells) != len(headers):
        raise _hidden_header(text, headers, len(cells), path)
    return [
        _read_cell(cell, number, lines[number - 1].strip(), path) for cell, number in zip(cells, headers, strict=True)
    ]


def _header_lines(lines: list[str], path: Path) -> list[int]:
    """Line numbers of the headers; the first must precede any other text, and none may be indented."""
    numbers = [i for i, line in enumerate(lines, 1) if HEADER.match(line)]
    for number in numbers:
        line = lines[number - 1]
        if not line.startswith("# %% ") and line.rstrip() != "# %%":
            raise SourceError(
                f"{path}:{number}: `{line.strip()}`: reads as the start of a cell, but a header starts with `# %%` "
                "and a space at the left margin. Mend it if a cell starts here; reword it if it is text of a cell."
            )
    before = next((i for i, line in enumerate(lines, 1) if line.strip()), 0)
    if before and (not numbers or before < numbers[0]):
        raise SourceError(
            f"{path}:{before}: `{lines[before - 1].strip()}`: text before the first cell. "
            "Put a header such as `# %% [markdown]` above it."
        )
    if not numbers:
        raise SourceError(f"{path}: no cell in this file. Cells start with a header such as `# %% [markdown]`.")
    return numbers


def _hidden_header(text: str, headers: list[int], found: int, path: Path) -> SourceError:
    """The error for a header line that is text inside a string or a fenced block."""
    inside = _string_lines(text)
    number = next((n for n in headers if n in inside), headers[0])
    return SourceError(
        f"{path}:{number}: {len(headers)} lines start with `# %%`, but there are {found} cells: one such line stands "
        "inside a string or a fenced block. Reword it; every line that starts with `# %%` has to begin a cell."
    )


def _string_lines(text: str) -> set[int]:
    """Lines after the first of every string that spans lines, as far as the file can be tokenized."""
    inside: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                inside.update(range(token.start[0] + 1, token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        pass
    return inside


def _read_cell(cell: Any, line: int, header: str, path: Path) -> SourceCell:
    def fail(message: str) -> SourceError:
        return SourceError(f"{path}:{line}: `{header}`: {message}.")

    keys = {key: value for key, value in cell.metadata.items() if key not in _JUPYTEXT_KEYS}
    unread = [str(keys.pop(key)) for key in ("title", "incorrectly_encoded_metadata") if key in keys]
    if unread:
        raise fail(f'cannot read {" ".join(unread)!r}. A header holds only key="value" pairs, with quotes around text')
    role, name, points = _role(cell.cell_type, keys, fail)
    return SourceCell(role, name, cell.source.strip("\n"), points, line, header)


def _role(cell_type: str, keys: dict[str, Any], fail: Any) -> tuple[str, str, float | None]:
    """Role, name and points that a header's keys stand for."""
    allowed = {"markdown": ("written", "points"), "code": ("role", "exercise", "check", "prediction")}.get(cell_type)
    if allowed is None:
        raise fail(f"cells of type {cell_type} have no use in a lab. Use [markdown] or a code cell")
    unknown = [key for key in keys if key not in allowed]
    if unknown:
        raise fail(f"unknown key {', '.join(map(repr, unknown))}. A {cell_type} cell takes {', '.join(allowed)}")
    if "points" in keys and "written" not in keys:
        raise fail("points= belongs to a written= cell; an exercise's points stand in exam.py")
    if len(keys) - ("points" in keys) > 1:
        raise fail(f"a cell has one role; this one has {' and '.join(keys)}")
    if not keys:
        if cell_type == "code":
            raise fail(_NO_ROLE)
        return "prose", "", None
    key = next(k for k in keys if k != "points")
    if key == "role":
        if keys["role"] not in ("setup", "measure"):
            raise fail(f'unknown role {keys["role"]!r}. It is "setup" or "measure"')
        return keys["role"], "", None
    return key, _name(key, keys[key], fail), _points(keys, fail) if key == "written" else None


def _name(key: str, value: Any, fail: Any) -> str:
    pattern, kind = (NAME, "letters, digits, - and _")
    if key in ("exercise", "check"):
        pattern, kind = IDENTIFIER, "a Python name"
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise fail(f"{key}={value!r} is no name. It takes {kind}, at most 48 characters")
    return value


def _points(keys: dict[str, Any], fail: Any) -> float:
    value = keys.get("points")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1000:
        raise fail(f"a written answer needs its points, a number above 0, such as points=3 (there is {value!r})")
    return float(value)
