"""Labs on the site: a student notebook as a page, with its exercises titled and a download.

Reads only what any nbgrader notebook has: grade_id, points, solution and grade of a cell.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from problems import StageError

HIDDEN = ("BEGIN SOLUTION", "BEGIN HIDDEN TESTS", "BEGIN MARK SCHEME")


@dataclass(frozen=True)
class Exercise:
    """One question of a lab; `kind` is "code" or "written"."""

    name: str
    points: float
    kind: str


@dataclass(frozen=True)
class Lab:
    """One student notebook and the addresses of what is made of it."""

    name: str
    title: str
    cells: tuple[dict[str, Any], ...]
    exercises: tuple[Exercise, ...]

    @property
    def notebook(self) -> str:
        return f"labs/{self.name}/{self.name}.ipynb"

    @property
    def page(self) -> str:
        return f"labs/{self.name}.md"

    @property
    def zip(self) -> str:
        return f"labs/{self.name}/{self.name}.zip"

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)


def read_labs(folder: Path) -> tuple[Lab, ...]:
    """Every labs/NN-name/NN-name.ipynb, in order."""
    return tuple(read_lab(path) for path in sorted(folder.glob("*/*.ipynb")) if path.stem == path.parent.name)


def read_lab(path: Path) -> Lab:
    """Read one student notebook; a notebook that still holds a solution stops the build."""
    where = f"labs/{path.parent.name}/{path.name}"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError) as error:
        raise StageError(f"{where} is not a notebook ({error}). Run `fourbit build`.") from error
    for cell in cells:
        if any(mark in source_of(cell) for mark in HIDDEN):
            raise StageError(f"{where} holds a solution or a hidden test. Run `fourbit build`.")
    heading = next((m[1] for cell in cells if (m := re.search(r"^# (.+)$", source_of(cell), re.MULTILINE))), path.stem)
    return Lab(path.stem, heading, tuple(cells), tuple(filter(None, map(exercise_of, cells))))


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text; the format allows a string or a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def exercise_of(cell: dict[str, Any]) -> Exercise | None:
    """The question whose points this cell carries, if any."""
    nbgrader = cell.get("metadata", {}).get("nbgrader", {})
    if not nbgrader.get("grade"):
        return None
    called = re.search(r'^check\("([\w-]+)"\)', source_of(cell), re.MULTILINE)
    kind = "written" if nbgrader.get("solution") else "code"
    return Exercise(called[1] if called else nbgrader["grade_id"], float(nbgrader.get("points", 0)), kind)


def lab_page(lab: Lab, relink: Callable[[str], str]) -> str:
    """The page of a lab: what it is worth, how to get it, then its cells, the links in its text changed by `relink`."""
    points = {exercise.name: exercise for exercise in lab.exercises}
    head, body = [], []
    for cell in lab.cells:
        text = source_of(cell).strip()
        if not head and re.match(r"# .+", text):
            title, _, text = text.partition("\n")
            head = [title, downloads(lab), contents(lab)]
        if text.strip():
            body.append(render(cell, text.strip() if cell["cell_type"] == "code" else relink(text.strip()), points))
    head = head or [f"# {lab.title}", downloads(lab), contents(lab)]
    return "\n\n".join([*head, *body]) + "\n"


def render(cell: dict[str, Any], text: str, points: dict[str, Exercise]) -> str:
    """One cell as Markdown; a student's cell gets a title that links can point to."""
    nbgrader = cell.get("metadata", {}).get("nbgrader", {})
    code = "" if cell["cell_type"] != "code" else fenced(text)
    if not nbgrader.get("solution"):
        return code or text
    name = next((name for name in points if name == nbgrader["grade_id"] or defines(text, name)), nbgrader["grade_id"])
    exercise = points.get(name)
    what = "Your answer" if cell["cell_type"] != "code" else "Exercise"
    worth = f" <small>{amount(exercise.points)}</small>" if exercise else ""
    return f'<p class="exercise" id="{name}">{what} <code>{name}</code>{worth}</p>\n\n{code or text}'


def defines(source: str, name: str) -> bool:
    """Whether a cell defines the function or class `name`."""
    return re.search(rf"^(?:def|class) {re.escape(name)}\b", source, re.MULTILINE) is not None


def fenced(code: str) -> str:
    """A fenced block; the fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def amount(points: float) -> str:
    """Points in words."""
    return f"{points:g} point{'' if points == 1 else 's'}"


def downloads(lab: Lab) -> str:
    """Buttons for the notebook alone and for the folder, whose exam pack `check` needs."""
    return (
        f"[Download the lab]({lab.name}/{lab.name}.zip){{ .md-button .md-button--primary download }} "
        f"[Notebook only]({lab.name}/{lab.name}.ipynb){{ .md-button download }}"
    )


def contents(lab: Lab) -> str:
    """A table of the exercises with their points."""
    rows = [f"| [`{e.name}`](#{e.name}) | {e.kind} | {e.points:g} |" for e in lab.exercises]
    return "\n".join(["| exercise | answer | points |", "|---|---|--:|", *rows, f"| **all** | | **{lab.points:g}** |"])


def lab_table(labs: tuple[Lab, ...]) -> str:
    """The page that lists the labs."""
    rows = [
        f"| [{lab.title}]({lab.name}.md) | {len(lab.exercises)} | {lab.points:g} | [zip]({lab.name}/{lab.name}.zip) |"
        for lab in labs
    ]
    intro = (
        "Each lab is a notebook that checks itself while you work: write a function, run the cell below it, and read "
        "which property fails, on which input, and, when it is a known one, the name of the mistake. Reading works "
        "here; doing needs the notebook and the `fourbit` package ([start](../index.md#start))."
    )
    table = "\n".join(["| lab | questions | points | download |", "|---|--:|--:|---|", *rows])
    return f"# Labs\n\n{intro}\n\n{table}\n"


def lab_zip(root: Path, lab: Lab) -> bytes:
    """The lab's folder as an archive that is the same bytes on every build."""
    buffer, folder = io.BytesIO(), root / "labs" / lab.name
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts):
                info = zipfile.ZipInfo(f"{lab.name}/{path.relative_to(folder).as_posix()}", (2026, 1, 1, 0, 0, 0))
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(info, path.read_bytes())
    return buffer.getvalue()
