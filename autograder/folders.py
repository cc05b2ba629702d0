"""Replacing what a folder holds, so that it is never without the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from autograder.books.journal import sync_folder, write_atomically

_READ_ONLY = 0o444


def replace_folder(folder: Path, wanted: Mapping[str, bytes]) -> None:
    """Replace what `folder` holds by the `wanted` files (read-only, by relative path), on disk when this returns.

    File by file, and only then is removed what no longer belongs there, leftovers of a killed run included.
    """
    for name, data in wanted.items():
        _make_room(folder, name)
        write_atomically(folder / name, data, _READ_ONLY)
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = path.relative_to(folder).as_posix()
        if inside not in wanted and not any(name.startswith(inside + "/") for name in wanted):
            _remove(path)
    for place in {(folder / name).parent for name in wanted}:
        sync_folder(place)


def _make_room(folder: Path, name: str) -> None:
    """Remove a folder that stands where a file belongs, and files and links that stand where its folders belong."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        _remove(path)
    for parent in path.relative_to(folder).parents:
        place = folder / parent
        if place != folder and (place.is_symlink() or place.is_file()):
            _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
