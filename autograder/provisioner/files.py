"""What of the folder beside a notebook a jailed kernel gets: a private copy of its files, and nothing of others."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from autograder.jail import JailError
from autograder.jail.hits import in_bytes

_MOST_FILES = 1000
_MOST_NAME_BYTES = 48 * 2**10
# A folder with one of these is a whole course: everybody's work, the solutions, the gradebook.
_OF_A_COURSE = ("nbgrader_config.py", "gradebook.db")


def why_not(folder: Path) -> str:
    """Why the files of ``folder`` stay outside; empty when they are copied."""
    folder = folder.resolve()
    home = Path.home().resolve()
    if folder == home or folder in home.parents:
        return f"{folder} holds a home directory"
    found = next((name for name in _OF_A_COURSE if (folder / name).exists()), "")
    return f"{folder} is a course folder (it holds {found})" if found else ""


def files_beside(folder: Path, most_bytes: int) -> dict[str, bytes]:
    """The files in ``folder``, relative POSIX path -> content.

    Left out are notebooks (those being graded hold hidden tests), folders with notebooks (another's work), hidden
    files, links, and whatever is no plain file. Raises :class:`JailError` when there is more than ``most_bytes``.
    """
    found: dict[str, bytes] = {}
    left = most_bytes
    for path in _paths(folder):
        data = _read(path, left)
        left -= len(data)
        found[path.relative_to(folder).as_posix()] = data
        if left < 0 or len(found) > _MOST_FILES:
            break
    if left < 0 or len(found) > _MOST_FILES or len(json.dumps([*found])) > _MOST_NAME_BYTES:
        raise JailError(
            f"The kernel works on a copy of the files beside the notebook, and {folder} holds more than "
            f"{in_bytes(most_bytes)} or {_MOST_FILES} of them. Move the notebook into a folder of its own, raise "
            "c.FourbitGrade.disk_bytes, or show large data with c.JailProvisioner.readable."
        )
    return found


def _paths(folder: Path, *, inside: bool = False) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not _is_kept_out(entry.name)), key=lambda entry: entry.name)
    if inside and any(entry.name.endswith(".ipynb") for entry in shown):
        return
    for entry in shown:
        if entry.is_dir(follow_symlinks=False):
            yield from _paths(Path(entry.path), inside=True)
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(".ipynb"):
            yield Path(entry.path)


def _is_kept_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _read(path: Path, most_bytes: int) -> bytes:
    """At most one byte more than ``most_bytes``; nothing of what has become a link or a pipe since it was listed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise JailError(f"{path}, beside the notebook, cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        return file.read(most_bytes + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
