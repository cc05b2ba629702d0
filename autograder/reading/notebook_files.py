"""Which of the files that a student handed in is which notebook: by name, else by the cells it holds.

Browsers, mail programs and hurried hands rename what they touch. A file is taken under another name only when it is
clear which one is meant, and that is told; where two could be meant, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from autograder.reading.template import NotebookTemplate, Template
from autograder.reading.untrusted import Caps, StudentNotebook, UnreadableError, read_notebook
from autograder.results import plain

_ENDING = re.compile(r"\.ipynb(\.(txt|json))?$", re.IGNORECASE)
_EXPORTS = {
    ".html": "a web page", ".htm": "a web page", ".pdf": "a PDF", ".py": "a script", ".md": "a text",
    ".docx": "a document", ".png": "a picture", ".jpg": "a picture",
}  # fmt: skip
_ADDED = re.compile(r"\s*\(\d+\)$|[-_ ]+(copy|kopie|copie)\s*\d*$|^(copy|kopie|copie)[-_ ](of|von|de)[-_ ]|-\d+$")
_ARCHIVES = frozenset({".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"})
_LOST_ENDINGS = ("", ".json", ".txt")

Parsed = StudentNotebook | UnreadableError


@dataclass(frozen=True)
class Found:
    """The notebooks of a submission.

    Attributes:
        parsed: every notebook among the files, read or not readable, by path.
        chosen: which path is which notebook of the template, by the notebook's name.
        others: the files that are no notebooks.
        missing: what can be said about a notebook that was not found, by its name.
    """

    parsed: Mapping[str, Parsed]
    chosen: Mapping[str, str]
    others: Mapping[str, bytes]
    missing: Mapping[str, str]
    notes: tuple[str, ...]


def find_notebooks(template: Template, files: Mapping[str, bytes], caps: Caps) -> Found:
    """Return which of `files` is which notebook of `template`."""
    data = _notebooks(files)
    parsed = {name: _parse(content, caps) for name, content in data.items()}
    others = {name: content for name, content in files.items() if name not in data}
    chosen, notes = _choose(template, parsed, data)
    missing = {nb.name: _export(nb.name, others) for nb in template.notebooks if nb.name not in chosen}
    return _at_the_top(Found(parsed, chosen, others, missing, tuple(notes)))


def holds_notebook(files: Mapping[str, bytes], caps: Caps) -> bool:
    """Whether at least one notebook among `files` can be read."""
    return any(isinstance(_parse(data, caps), StudentNotebook) for data in _notebooks(files).values())


def _notebooks(files: Mapping[str, bytes]) -> dict[str, bytes]:
    data = {name: content for name, content in files.items() if _ENDING.search(name)}
    if not data:  # the ending can be lost altogether
        data = {name: content for name, content in files.items() if _looks_like_notebook(name, content)}
    return data


def _parse(data: bytes, caps: Caps) -> Parsed:
    try:
        return read_notebook(data, caps)
    except UnreadableError as error:
        return error


def _looks_like_notebook(name: str, data: bytes) -> bool:
    if PurePosixPath(name).suffix.lower() not in _LOST_ENDINGS:
        return False
    return b'"nbformat"' in data and (b'"cells"' in data or b'"worksheets"' in data)


def _choose(
    template: Template, parsed: Mapping[str, Parsed], data: Mapping[str, bytes]
) -> tuple[dict[str, str], list[str]]:
    """Return which file is which notebook: by name, else by the one file that is clearly meant."""
    chosen = {nb.name: f"{nb.name}.ipynb" for nb in template.notebooks if f"{nb.name}.ipynb" in parsed}
    notes = []
    for notebook in template.notebooks:
        if notebook.name in chosen:
            exact = chosen[notebook.name]
            copies = [name for name in parsed if name != exact and is_called(name, notebook.name)]
            notes += [
                f"{plain(n, 200)} is there too and differs; {exact} was graded"
                for n in copies
                if data[n] != data[exact]
            ]
            continue
        spare = [name for name in parsed if name not in chosen.values()]
        found = _meant(notebook, spare, parsed, alone=len(template.notebooks) == 1)
        if len({data[name] for name in found}) == 1:  # copies of one file are no doubt
            chosen[notebook.name] = found[0]
            notes.append(f"{plain(found[0], 200)} was taken for {notebook.name}.ipynb, which it should be called")
        elif spare:
            names = ", ".join(plain(name, 80) for name in spare[:5])
            notes.append(f"{notebook.name}.ipynb is missing; rename the right one of: {names}")
    return chosen, notes


def _meant(notebook: NotebookTemplate, spare: Sequence[str], parsed: Mapping[str, Parsed], alone: bool) -> list[str]:
    """Return the files that could be meant by `notebook`, judged by name, then by the cells they hold."""
    by_name = [name for name in spare if is_called(name, notebook.name)]
    if len(by_name) == 1:
        return by_name
    ids = {cell.grade_id for cell in notebook.cells if cell.grade_id}
    held = {name: _held(parsed[name], ids) for name in by_name or spare}
    most = max(held.values(), default=0)
    if most:
        return [name for name, count in held.items() if count == most]
    return list(spare) if alone and len(spare) == 1 else []


def _held(found: Parsed, ids: set[str]) -> int:
    return 0 if isinstance(found, UnreadableError) else len(ids & {cell.grade_id for cell in found.cells})


def is_called(file: str, notebook: str) -> bool:
    """Whether a file's name is the notebook's, but for what browsers, copies and hurried hands add to it."""
    stem, wanted = _ENDING.sub("", file.rsplit("/", 1)[-1]).casefold(), _letters(notebook.casefold())
    while True:
        if _letters(stem) == wanted:
            return True
        shorter = _ADDED.sub("", stem, count=1)
        if shorter == stem:
            return False
        stem = shorter


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name)


def _export(name: str, others: Mapping[str, bytes]) -> str:
    """Say what was handed in instead of a notebook, where that can be told."""
    for file in others:
        path = PurePosixPath(file)
        if path.suffix.lower() in _EXPORTS and is_called(path.stem, name):
            kind = _EXPORTS[path.suffix.lower()]
            return f"{plain(file, 200)} is {kind} made from it, which cannot be run; hand in the .ipynb file itself"
    archives = [file for file in others if PurePosixPath(file).suffix.lower() in _ARCHIVES]
    if archives:
        return f"{plain(archives[0], 200)} is an archive, which nothing opens here; hand in the .ipynb file itself"
    return ""


def _at_the_top(found: Found) -> Found:
    """Put files beside the notebook when the whole submission lies in a folder of its own."""
    folders = {str(PurePosixPath(path).parent) for path in found.chosen.values()}
    if len(folders) != 1 or folders == {"."}:
        return found
    folder = f"{folders.pop()}/"
    others = {name.removeprefix(folder): data for name, data in found.others.items() if name.startswith(folder)}
    others |= {name: data for name, data in found.others.items() if not name.startswith(folder) and name not in others}
    return Found(found.parsed, found.chosen, others, found.missing, found.notes)
