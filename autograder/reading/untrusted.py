"""Reading what a student handed in as bytes that may be anything.

Nothing here follows a link, opens a device, a pipe or a socket, or reads more than it was told to. What cannot
be read becomes a note, and the rest of the submission is still graded.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.results import GradingError, plain

_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive", b"%PDF": "a PDF", b"\x1f\x8b": "a gzip archive", b"Rar!": "an archive",
    b"7z\xbc\xaf": "an archive", b"\xd0\xcf\x11\xe0": "an Office document", b"\x89PNG": "a picture",
    b"{\\rtf": "a text document",
}  # fmt: skip
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
SKIPPED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints", "__MACOSX", "feedback"})


@dataclass(frozen=True)
class Caps:
    """Upper bounds on a submission; sizes in bytes."""

    notebook: int = 64 * 2**20
    file: int = 32 * 2**20
    total: int = 128 * 2**20
    files: int = 500
    depth: int = 8
    json_depth: int = 64
    cells: int = 10_000
    extra_cells: int = 500
    cell: int = 2**20


@dataclass(frozen=True)
class RawSubmission:
    """The files of one submission by their path inside its folder ("/" between parts), and what was left out."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudentCell:
    """One cell of a student's notebook: its text, and what it claims to be."""

    index: int
    kind: str
    source: str
    grade_id: str = ""
    id: str = ""
    attachments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudentNotebook:
    """A student's notebook: its cells, and the language of the kernel that it says it was written for ("" = unsaid)."""

    cells: tuple[StudentCell, ...]
    language: str = ""


class UnreadableError(GradingError):
    """A notebook that cannot be read; the message says where and why."""


def read_folder(folder: Path, caps: Caps | None = None) -> RawSubmission:
    """Read a submission's folder.

    Raises:
        GradingError: when `folder` is not a real folder (a link, a file, missing).
    """
    caps = caps or Caps()
    if not stat.S_ISDIR(_mode(folder)):
        raise GradingError(
            f"{plain(folder)} is not a folder of its own (a link or a file); put the submission itself there"
        )
    files: dict[str, bytes] = {}
    notes: list[str] = []
    total = 0
    for name, path, problem in _walk(folder, caps):
        if problem is None and len(files) >= caps.files:
            notes.append(f"only the first {caps.files} files were read")
            break
        limit = min(caps.notebook if name.endswith(".ipynb") else caps.file, caps.total - total)
        data, problem = (None, problem) if problem else read_file(path, limit)
        if data is None:
            notes.append(f"{plain(name, 200)}: not read, because it is {problem}")
        else:
            files[name] = data
            total += len(data)
    return RawSubmission(files, tuple(notes))


def read_notebook(data: bytes, caps: Caps | None = None) -> StudentNotebook:
    """Return a student's notebook; formats 2, 3 and 4 are understood, outputs are not read.

    Raises:
        UnreadableError: when `data` is not a notebook, with the position of the trouble.
    """
    caps = caps or Caps()
    for mark, kind in _OTHER_KINDS.items():
        if data.startswith(mark):
            raise UnreadableError(f"it is not a notebook but {kind}, whatever its name says; hand in the .ipynb file")
    tree = _load_json(_decode(data), caps.json_depth)
    if not isinstance(tree, dict):
        raise UnreadableError(f"it is JSON, but a {type(tree).__name__}, not a notebook")
    raw_cells = _raw_cells(tree)
    if len(raw_cells) > caps.cells:
        raise UnreadableError(f"it has {len(raw_cells):,} cells; at most {caps.cells:,} are read")
    cells = (_cell(index, cell, caps) for index, cell in enumerate(raw_cells) if isinstance(cell, dict))
    return StudentNotebook(tuple(cells), _language(tree.get("metadata")))


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (OSError, ValueError):
        return 0


def _walk(folder: Path, caps: Caps) -> Iterator[tuple[str, Path, str | None]]:
    """Yield (name, path, problem) of every file, in a stable order, without following anything."""
    stack = [("", folder, 1)]
    while stack:
        prefix, where, depth = stack.pop()
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            yield prefix or ".", where, f"a folder that cannot be opened ({error.strerror})"
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                yield name, Path(entry.path), "a link"
            elif entry.is_dir(follow_symlinks=False):
                if depth >= caps.depth:
                    yield name, Path(entry.path), f"a folder more than {caps.depth} deep"
                elif entry.name not in SKIPPED_FOLDERS:
                    stack.append((name + "/", Path(entry.path), depth + 1))
            else:
                yield name, Path(entry.path), None


def read_file(path: Path, limit: int) -> tuple[bytes | None, str | None]:
    """Return the bytes of a regular file, or None and the reason; checks what was opened, not what was listed."""
    try:
        handle = os.open(path, _OPEN)
    except OSError as error:
        return None, f"not readable ({error.strerror})"
    with os.fdopen(handle, "rb") as stream:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            return None, "not a file (a pipe, device or socket)"
        if info.st_size > limit:
            return None, f"too large ({info.st_size:,} bytes; {max(limit, 0):,} were left)"
        data = stream.read(limit + 1)
    return (data, None) if len(data) <= limit else (None, "growing while it was read")


def _decode(data: bytes) -> str:
    if not data.strip(b"\x00 \t\r\n"):
        raise UnreadableError("the file is empty; save the notebook and hand it in again")
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    # A notebook begins with an ASCII character; zeros beside it are UTF-16 that nothing marks.
    if data[1:2] == b"\x00" or data[:1] == b"\x00":
        return data.decode("utf-16-le" if data[1:2] == b"\x00" else "utf-16-be", "replace")
    return data.decode("utf-8", "replace")


def _language(metadata: Any) -> str:
    """Return the language that a notebook's metadata names, where that is a word."""
    found = metadata if isinstance(metadata, dict) else {}
    for part, name in (("kernelspec", "language"), ("language_info", "name")):
        value = found.get(part)
        word = value.get(name) if isinstance(value, dict) else None
        if isinstance(word, str) and word.strip():
            return plain(word.strip(), 40)
    return ""


def _load_json(text: str, depth: int) -> Any:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
        raise UnreadableError(f"it is not JSON: {where}{_hint(text, error)}") from None
    except (RecursionError, ValueError) as error:
        raise UnreadableError(f"its JSON cannot be read ({plain(error, 200)})") from None
    if isinstance(tree, dict | list) and _deeper_than(tree, depth):
        raise UnreadableError(f"its JSON is nested more than {depth} deep; no notebook is")
    return tree


def _hint(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return " (this is a web page, not a notebook: download the .ipynb file itself)"
    if "<<<<<<< " in text:
        return " (there are merge conflict marks of git in it)"
    if start.startswith("version https://git-lfs"):
        return " (this is a pointer of git-lfs to the notebook: hand in the notebook itself)"
    if start.startswith(("#", "import ", "from ", "def ")):
        return " (this is a Python script, not a notebook)"
    if error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg:
        return " (the file ends in the middle: the upload was cut off)"
    return ""


def _deeper_than(tree: Any, depth: int) -> bool:
    level = [tree]
    for _ in range(depth):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _raw_cells(tree: dict[str, Any]) -> list[Any]:
    """Return the list of cells wherever this version of the format keeps it."""
    if isinstance(tree.get("cells"), list):
        return list(tree["cells"])
    sheets = tree.get("worksheets")
    if isinstance(sheets, list):
        return [
            cell
            for sheet in sheets
            if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
            for cell in sheet["cells"]
        ]
    version = plain(tree.get("nbformat", "missing"), 20)
    raise UnreadableError(f"it is JSON but holds no cells (nbformat: {version}); is it the right file?")


def _cell(index: int, cell: dict[str, Any], caps: Caps) -> StudentCell:
    kind = cell.get("cell_type")
    source = _text(cell.get("source", cell.get("input", "")))
    if kind == "heading":  # format 3
        level = cell.get("level", 1)
        source, kind = "#" * (level if isinstance(level, int) and 1 <= level <= 6 else 1) + " " + source, "markdown"
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return StudentCell(
        index=index,
        kind=kind if kind in ("code", "markdown", "raw") else "raw",
        source=_cut(source, caps.cell),
        grade_id=grade_id if isinstance(grade_id, str) else "",
        id=cell["id"] if isinstance(cell.get("id"), str) else "",
        attachments=_attachments(cell.get("attachments"), caps.cell * 8),
    )


def _text(value: Any) -> str:
    """Return a cell's text, given as a string or as a list of lines; lone surrogates cannot be stored."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    return value.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode("utf-8")


def _cut(source: str, limit: int) -> str:
    return source if len(source) <= limit else source[:limit] + "\n# cut: the cell was too long"


def _attachments(value: Any, limit: int) -> dict[str, dict[str, str]]:
    """Keep pasted pictures of a written answer; anything else is dropped."""
    kept: dict[str, dict[str, str]] = {}
    if not isinstance(value, dict):
        return kept
    for name, bundle in value.items():
        if not isinstance(bundle, dict):
            continue
        pictures = {
            mime: _text(data)
            for mime, data in bundle.items()
            if mime in ("image/png", "image/jpeg", "image/gif", "image/webp") and len(_text(data)) <= limit
        }
        if pictures:
            kept[plain(name, 200)] = pictures
    return kept
