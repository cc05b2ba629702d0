"""Labs on the site: a student notebook as a page, with its exercises titled and a download.

Reads what the builder wrote into each cell's metadata (``fourbit``: role and name, ``nbgrader``: points) and the line
of facts under an exercise's heading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from problems import StageError

HIDDEN = ("BEGIN SOLUTION", "BEGIN HIDDEN TESTS", "BEGIN MARK SCHEME")
FACTS = re.compile(r"^\*(?:Exercise `\w+`|Written answer): (?P<facts>[^*]+?)\.?\*\n*", re.MULTILINE)
DIFFICULTY = re.compile(r"difficulty (\d of \d)")
RUNS = re.compile(r"runs in (?P<about>under a second|about (?P<number>\d+) (?P<unit>s|min))")
TITLES = {"exercise": "Exercise", "written": "Written answer", "prediction": "Prediction"}


@dataclass(frozen=True)
class Question:
    """One thing that a student answers; `role` is "exercise" or "written", `facts` is "5 points, difficulty 2 of 3"."""

    name: str
    role: str
    points: float
    facts: str

    @property
    def difficulty(self) -> str:
        """ "2 of 3", or nothing for a written answer."""
        found = DIFFICULTY.search(self.facts)
        return found[1] if found else ""

    @property
    def runs(self) -> str:
        """ "about 12 s", or nothing where it was not measured."""
        found = RUNS.search(self.facts)
        return found["about"] if found else ""

    @property
    def seconds(self) -> float:
        """What `runs` says as a number; half a second stands for less than one."""
        found = RUNS.search(self.facts)
        if not found:
            return 0.0
        return float(found["number"]) * (60 if found["unit"] == "min" else 1) if found["number"] else 0.5


@dataclass(frozen=True)
class Lab:
    """One student notebook and the addresses of what is made of it."""

    name: str
    title: str
    cells: tuple[dict[str, Any], ...]
    questions: tuple[Question, ...]

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
        return sum(question.points for question in self.questions)

    @property
    def minutes(self) -> int:
        """How long the reference's cells run in all, on one core; at least 1."""
        return max(1, round(sum(question.seconds for question in self.questions) / 60))

    @cached_property
    def needs_model(self) -> bool:
        """Whether its cells read the pocket language model, which is fetched once."""
        return any("smollm2" in source_of(cell) for cell in self.cells)

    @cached_property
    def needs_hollow(self) -> bool:
        """Whether its cells make a hollow model, which takes disk and memory."""
        return any("write_hollow" in source_of(cell) for cell in self.cells)


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
    return Lab(path.stem, heading, tuple(cells), tuple(questions(cells)))


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text; the format allows a string or a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def role_of(cell: dict[str, Any]) -> tuple[str, str]:
    """The role and the name that the builder gave to a cell."""
    fourbit = cell.get("metadata", {}).get("fourbit", {})
    return fourbit.get("role", "prose"), fourbit.get("exercise", fourbit.get("name", ""))


def questions(cells: list[dict[str, Any]]) -> Iterator[Question]:
    """What a notebook asks, in order; the facts of a question stand in the prose before it."""
    points = {}
    for cell in cells:
        role, name = role_of(cell)
        if role in ("check", "written"):
            points[name] = float(cell["metadata"]["nbgrader"]["points"])
    facts = ""
    for cell in cells:
        role, name = role_of(cell)
        if role == "prose" and (found := FACTS.findall(source_of(cell))):
            facts = found[-1]
        elif role in ("exercise", "written"):
            yield Question(name, role, points.get(name, 0.0), facts)
            facts = ""


def lab_page(lab: Lab, relink: Callable[[str], str]) -> str:
    """The page of a lab: what it is worth, how to get it, then its cells, the links in its text changed by `relink`."""
    head, body = [], []
    for cell in lab.cells:
        text = FACTS.sub("", source_of(cell)).strip()
        if not head and re.match(r"# .+", text):
            title, _, text = text.partition("\n")
            head = [title, downloads(lab), contents(lab)]
        if text.strip():
            body.append(fenced(text) if cell["cell_type"] == "code" else relink(text.strip()))
        if title := heading(cell, lab):
            body.insert(len(body) - bool(text.strip()), title)
    head = head or [f"# {lab.title}", downloads(lab), contents(lab)]
    return "\n\n".join([*head, *body]) + "\n"


def heading(cell: dict[str, Any], lab: Lab) -> str:
    """The bar above a cell that the student fills in; links can point to it."""
    role, name = role_of(cell)
    if role not in TITLES:
        return ""
    facts = next((question.facts for question in lab.questions if (question.role, question.name) == (role, name)), "")
    anchor = name if role == "exercise" else f"{role}-{name}"
    small = f" <small>{facts}</small>" if facts else ""
    return f'<p class="exercise" id="{anchor}">{TITLES[role]} <code>{name}</code>{small}</p>'


def fenced(code: str) -> str:
    """A fenced block; the fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def downloads(lab: Lab) -> str:
    """Buttons for all that a student needs, and for the notebook alone."""
    return (
        f"[Download the lab]({lab.name}/{lab.name}.zip){{ .md-button .md-button--primary download }} "
        f"[Notebook only]({lab.name}/{lab.name}.ipynb){{ .md-button download }}\n\n"
        "The archive holds the notebook, its visible exam, the toolkit, the data that this lab reads and a README with "
        f"three commands ([what they do](../start.md#archive)). {needs(lab)}"
    )


def needs(lab: Lab) -> str:
    """What doing the lab takes, in sentences."""
    runs = f"Its cells run for about {lab.minutes} min in all on one core of a laptop; no GPU is needed."
    model = " A language model is fetched once (93 MB), then all is offline." if lab.needs_model else " All is offline."
    hollow = " A hollow 7B takes 4 GB of disk while it runs, or a hollow 1.1B less, where memory is short."
    return runs + model + (hollow if lab.needs_hollow else "")


def contents(lab: Lab) -> str:
    """A table of what the lab asks, with what is known of each."""
    rows = []
    for question in lab.questions:
        anchor = question.name if question.role == "exercise" else f"{question.role}-{question.name}"
        difficulty = question.difficulty or "graded by hand"
        rows.append(f"| [`{question.name}`](#{anchor}) | {question.points:g} | {difficulty} | {question.runs} |")
    head = ["| question | points | difficulty | its cells run in |", "|---|--:|---|---|"]
    return "\n".join([*head, *rows, f"| **all** | **{lab.points:g}** | | **about {lab.minutes} min** |"])
