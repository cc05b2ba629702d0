"""Expand source cells into a notebook with nbgrader's metadata, schema version 3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder.builder.ids import cell_id, grade_ids
from autograder.builder.source import SourceCell

SKIP = "skip-execution"  # nbclient passes cells with this tag over
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_FLAGS: dict[str, tuple[bool, bool, bool]] = {  # role: (grade, solution, locked)
    "prose": (False, False, True),
    "setup": (False, False, True),
    "measure": (False, False, True),
    "exercise": (False, True, False),
    "prediction": (False, True, False),
    "check": (True, False, True),
    "written": (True, True, False),
}
_HEADING = re.compile(r"#{1,6}\s")


@dataclass(frozen=True)
class Fact:
    """What is known of an exercise.

    Attributes:
        points, difficulty: from its exam; 1 is a warm-up, 3 is hard.
        minutes: CPU time that the reference and what follows it up to the next exercise took, where it was measured.
    """

    points: float
    difficulty: int
    minutes: float | None = None

    def line(self, name: str) -> str:
        """The line that a student reads under the exercise's heading."""
        runs = "" if self.minutes is None else f"; runs in {duration(self.minutes)}"
        return f"*Exercise `{name}`: {count(self.points, 'point')}, difficulty {self.difficulty} of 3{runs}.*"


def duration(minutes: float) -> str:
    """ "under a second", "about 12 s", "about 3 min"."""
    seconds = minutes * 60
    if seconds < 1:
        return "under a second"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {minutes:.0f} min"


def count(number: float, noun: str) -> str:
    """ "1 point", "2.5 points"."""
    return f"{number:g} {noun}" + ("" if number == 1 else "s")


def expand(cells: Sequence[SourceCell], facts: Mapping[str, Fact]) -> NotebookNode:
    """Return the instructor's notebook: solutions in place, hidden examination in each check cell, no outputs.

    Args:
        cells: a checked source.
        facts: by exercise.
    """
    cells = add_fact_lines(cells, facts)
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": dict(KERNELSPEC), "language_info": {"name": "python"}})
    notebook.cells = [_cell(cell, name, facts) for cell, name in zip(cells, grade_ids(cells), strict=True)]
    return notebook


def add_fact_lines(cells: Sequence[SourceCell], facts: Mapping[str, Fact]) -> list[SourceCell]:
    """Put the line of each exercise and question under its heading, or into a cell of its own without one."""
    out: list[SourceCell] = []
    for cell in cells:
        line = _fact_line(cell, facts)
        if line:
            told = _under_heading(out[-1].source, line) if out and out[-1].role == "prose" else None
            if told is None:
                out.append(SourceCell("prose", source=line))
            else:
                out[-1] = replace(out[-1], source=told)
        out.append(cell)
    return out


def check_source(exercise: str) -> str:
    """The instructor's check cell: the student sees its first line, nbgrader reads the value of its last."""
    # Imported here: what the student's notebook calls `examine` must not stand in for it.
    hidden = ("from fourbit.exam import examine", f'examine("{exercise}")')
    return "\n".join((f'check("{exercise}")', "### BEGIN HIDDEN TESTS", *hidden, "### END HIDDEN TESTS"))


def _fact_line(cell: SourceCell, facts: Mapping[str, Fact]) -> str:
    if cell.role == "exercise":
        return facts[cell.name].line(cell.name)
    if cell.role == "written":
        return f"*Written answer: {count(cell.points or 0, 'point')}, graded by hand.*"
    return ""


def _under_heading(source: str, line: str) -> str | None:
    """`source` with `line` after its last heading; None when it has no heading."""
    lines = source.split("\n")
    fenced, last = False, None
    for i, text in enumerate(lines):
        fenced ^= text.lstrip().startswith("```")
        if not fenced and _HEADING.match(text):
            last = i
    if last is None:
        return None
    rest = lines[last + 1 :]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return "\n".join([*lines[: last + 1], "", line, *(["", *rest] if rest else [])])


def _cell(cell: SourceCell, grade_id: str, facts: Mapping[str, Fact]) -> NotebookNode:
    source = check_source(cell.name) if cell.role == "check" else cell.source
    make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
    node = make(source=source, metadata=_metadata(cell, grade_id, facts))
    node.id = cell_id(grade_id)
    return node


def _metadata(cell: SourceCell, grade_id: str, facts: Mapping[str, Fact]) -> dict[str, Any]:
    grade, solution, locked = _FLAGS[cell.role]
    nbgrader: dict[str, Any] = {
        "schema_version": 3, "grade_id": grade_id,
        "grade": grade, "solution": solution, "locked": locked, "task": False,
    }  # fmt: skip
    if grade:
        nbgrader["points"] = _whole(facts[cell.name].points if cell.role == "check" else cell.points or 0.0)
    fourbit = {"role": cell.role}
    if cell.name:
        fourbit["exercise" if cell.role in ("exercise", "check") else "name"] = cell.name
    metadata: dict[str, Any] = {"nbgrader": nbgrader, "fourbit": fourbit}
    if cell.role == "measure":
        metadata["tags"] = [SKIP]
    return metadata


def _whole(points: float) -> int | float:
    return int(points) if float(points).is_integer() else float(points)
