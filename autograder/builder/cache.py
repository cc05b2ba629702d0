"""Packs of the last build, kept under build/cache: running every mistake on every case takes most of a build's time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import fourbit
from autograder import exams
from autograder.builder.write import Writer

_INDEX = "index.json"


def cached(folder: Path, key: str, make: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
    """The files that `make` returned for `key` the last time, else what it returns now, which `folder` then keeps."""
    found = _read(folder, key)
    if found is not None:
        return found
    files, writer = make(), Writer(folder)
    (folder / _INDEX).unlink(missing_ok=True)  # a build that is cut short leaves no index, and so no pack to trust
    for name, data in files.items():
        writer.file(folder / name, data)
    index = {"key": key, "files": {name: _sha256(data) for name, data in files.items()}}
    writer.file(folder / _INDEX, json.dumps(index).encode())
    return files


def pack_key(lab: exams.Lab, *, visible: bool, seed: int) -> str:
    """A hash of everything that a pack is made from: the exam, the graded cells, the toolkit and what it calls."""
    digest = hashlib.sha256(json.dumps([visible, seed, lab.exam.lab, lab.cells]).encode())
    for package in ("torch", "numpy", "safetensors"):
        digest.update(f"{package} {version(package)}\n".encode())
    for path in _inputs(lab.folder):
        digest.update(f"{path.name} {_sha256(path.read_bytes())}\n".encode())
    return digest.hexdigest()


def _inputs(folder: Path) -> Iterator[Path]:
    # Of the lab's own source only the graded cells count, which the key holds; a typo in its prose changes no pack.
    yield from sorted(path for path in folder.glob("*.py") if path.stem != folder.name)
    toolkit = Path(fourbit.__file__).parent
    yield from sorted(path for path in toolkit.rglob("*.py"))
    yield from sorted(path for path in (toolkit / "assets").rglob("*") if path.is_file() and path.suffix != ".py")


def _read(folder: Path, key: str) -> dict[str, bytes] | None:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        files = {name: (folder / name).read_bytes() for name in index["files"]}
        whole = all(_sha256(data) == index["files"][name] for name, data in files.items())
        return files if whole and index["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
