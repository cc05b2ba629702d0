"""Names from an archive, made safe or refused: what is written from them stays inside one folder.

A name that would leave its folder is refused, not mended: whoever made it meant harm, or another place.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from autograder.results import plain

MAX_PARTS = 8
_MAX_PART, _MAX_NAME = 200, 600  # bytes of UTF-8; file systems end at 255
_DRIVE = re.compile(r"[A-Za-z]:")
# Files that Windows opens as devices, whatever their extension.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_JUNK = frozenset({
    "__macosx", ".ds_store", "thumbs.db", "desktop.ini", ".git", ".ipynb_checkpoints", "__pycache__", ".svn", ".hg",
    ".trash", ".spotlight-v100", ".virtual_documents",
})  # fmt: skip


class RefusedError(Exception):
    """Something that is not taken in; the message says why, in words that follow "because"."""


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path inside an archive or folder.

    A backslash separates, as in archives that Windows programs write; "." and empty parts are dropped.

    Raises:
        RefusedError: for a name that points elsewhere, or that no file system would hold.
    """
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise RefusedError("its path is absolute")
    if plain(name, len(name) + 1) != name or "\n" in name or "\t" in name:
        raise RefusedError("its name holds control characters")
    split = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    parts = tuple(part for part in split if part not in ("", "."))
    if ".." in parts:
        raise RefusedError('its path leaves the folder (it holds "..")')
    if not parts:
        raise RefusedError("it has no name")
    if len(parts) > MAX_PARTS:
        raise RefusedError(f"it lies more than {MAX_PARTS} folders deep")
    if len(name.encode()) > _MAX_NAME or any(len(part.encode()) > _MAX_PART for part in parts):
        raise RefusedError(f"its name is too long (more than {_MAX_PART} bytes)")
    return parts


def check_portable(parts: tuple[str, ...]) -> None:
    """Check that a file may be written under this name on every system.

    Raises:
        RefusedError: for the names of devices and of streams on Windows.
    """
    if any(":" in part or _DEVICES.match(part) for part in parts):
        raise RefusedError("its name is that of a device or a stream on Windows")


def is_junk(parts: tuple[str, ...]) -> bool:
    """Whether this is what operating systems and editors leave behind, and nobody handed in."""
    return any(part.casefold() in _JUNK or part.startswith("._") for part in parts)


def valid_id(student: str) -> bool:
    """Whether `student` can be a student's id, and so the name of a folder."""
    return (
        0 < len(student) <= 120
        and len(quote(student.encode("utf-8", "replace"))) <= 200
        and plain(student) == student
        and student == student.strip()
        and not student.startswith((".", "-", "~"))
        and not re.search(r"[/\\:*?\"<>|+\n\t]", student)
        and not _DEVICES.match(student)
    )


def shown(name: str) -> str:
    """Return a name as it can be printed."""
    return plain(name, 120).replace("\n", " ").replace("\t", " ")
