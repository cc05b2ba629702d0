"""Write what was built: whole files or none, inside the given folders only, and never over somebody's work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat

from autograder.builder.release import sources_hash
from fourbit.data.cache import write_atomically
from fourbit.errors import FourbitError

Action = Literal["created", "updated", "unchanged", "kept"]


class WriteError(FourbitError):
    """A file that may not or cannot be written."""


@dataclass(frozen=True)
class Written:
    """One file of a build.

    Attributes:
        path: the file that now holds what was built.
        action: "created", "updated", "unchanged" (what lies there says the same), or "kept".
        kept: with "kept", the edited notebook that was left alone; `path` then lies beside it.
    """

    path: Path
    action: Action
    kept: Path | None = None

    def __str__(self) -> str:
        if self.kept is None:
            return f"{self.action} {self.path}"
        return f"{self.kept} holds somebody's work and was left alone; the new version is {self.path}"


class Writer:
    """Writes files under the given folders and nowhere else, links followed."""

    def __init__(self, *folders: Path) -> None:
        self._folders = tuple(folder.resolve() for folder in folders)

    def file(self, path: Path, data: bytes, same: Callable[[bytes, bytes], bool] | None = None) -> Written:
        """Put `data` at `path`, unless what is there equals it or `same(there, data)`."""
        self._guard(path)
        there = path.read_bytes() if path.is_file() else None
        if there is not None and (there == data or (same is not None and same(there, data))):
            return Written(path, "unchanged")
        _replace(path, data)
        return Written(path, "created" if there is None else "updated")

    def notebook(self, path: Path, data: bytes) -> Written:
        """Put a notebook at `path`, or beside it where a notebook with somebody's work lies there."""
        if not is_edited(path):
            return self.file(path, data)
        number, new = 2, path.with_suffix(".new.ipynb")
        while is_edited(new):
            new = path.with_suffix(f".new-{number}.ipynb")
            number += 1
        return Written(self.file(new, data).path, "kept", path)

    def _guard(self, path: Path) -> None:
        real = path.resolve()
        if not any(real.is_relative_to(folder) for folder in self._folders):
            where = ", ".join(map(str, self._folders))
            raise WriteError(
                f"{path} lies outside the folders to write to ({where}). Remove the link that leads there."
            )
        if path.is_dir():
            raise WriteError(f"{path} is a folder where the build writes a file. Move it away.")


def is_edited(path: Path) -> bool:
    """Whether `path` holds work that is nowhere else: sources that no build made, or outputs.

    A file that cannot be read as a notebook, or that carries no record of its build, counts as somebody's work.
    """
    if not path.exists() and not path.is_symlink():
        return False
    try:
        notebook: Any = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        generated = notebook.metadata["fourbit"]["generated"]
        outputs = any(cell.get("outputs") for cell in notebook.cells)
        return outputs or sources_hash(notebook) not in generated
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError):
        return True


def _replace(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        hint = "Check the folder's permissions and the free space"
        raise WriteError(f"{path} cannot be written: {error.strerror}. {hint}.") from error
