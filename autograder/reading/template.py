"""The instructor's form of an assignment: what the student's answers are put back into.

A template is made from ``source/`` by nbgrader's own preprocessors, so that stock nbgrader and this grader see
the same assignment. Its notebooks hold two texts for each cell: `source`, with the hidden tests, which grading
runs, and `release`, which the student was given. Templates are plain data: they cross to workers as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["answer", "test", "manual", "task", "locked", "free"]

STUDENT_ROLES: frozenset[str] = frozenset({"answer", "manual"})
GRADED_ROLES: frozenset[str] = frozenset({"test", "manual", "task"})


@dataclass(frozen=True)
class TemplateCell:
    """One cell of the instructor's notebook.

    Attributes:
        id: nbformat cell id ("" where the format has none).
        kind: "code", "markdown" or "raw".
        source: the text that grading runs, hidden tests included.
        release: the text that the student was given.
        role: "answer" (code the student writes), "manual" (an answer graded by hand), "test" (graded by running),
            "task" (graded by hand, anchored at a read-only cell), "locked" (restored), "free" (any other cell).
        metadata: the cell's metadata as in the gradebook's form of the notebook.
        solution: the text with the instructor's own solution in it; it never reaches a submission's process.
    """

    id: str
    kind: str
    source: str
    release: str
    role: Role
    grade_id: str
    points: float
    metadata: Mapping[str, Any]
    attachments: Mapping[str, Any] = field(default_factory=dict)
    solution: str = ""

    @property
    def solved(self) -> str:
        """The text as its author wrote it."""
        return self.solution or self.source

    @property
    def fourbit(self) -> Mapping[str, Any]:
        """What Fourbit's builder wrote about this cell (role, exercise); empty in other courses."""
        value = self.metadata.get("fourbit", {})
        return value if isinstance(value, Mapping) else {}

    @property
    def is_locked(self) -> bool:
        """nbgrader's notion of a cell whose text is restored."""
        if self.role in STUDENT_ROLES:
            return False
        return self.role == "test" or bool(self.metadata.get("nbgrader", {}).get("locked", False))

    @property
    def runs(self) -> bool:
        """Whether grading runs this cell: measurements and demonstrations cost time and earn nothing."""
        return self.kind == "code" and self.fourbit.get("role") != "measure"


@dataclass(frozen=True)
class NotebookTemplate:
    """One notebook of an assignment; `name` is its file name without ``.ipynb``."""

    name: str
    cells: tuple[TemplateCell, ...]
    metadata: Mapping[str, Any]
    nbformat_minor: int = 5

    @property
    def graded(self) -> tuple[TemplateCell, ...]:
        return tuple(cell for cell in self.cells if cell.role in GRADED_ROLES)

    def prefix(self) -> tuple[int, ...]:
        """Positions of the code cells that run before anything of the student's: the same for the whole class."""
        found = []
        for position, cell in enumerate(self.cells):
            if cell.role in STUDENT_ROLES or cell.role == "test":
                break
            if cell.runs:
                found.append(position)
        return tuple(found)


@dataclass(frozen=True)
class Template:
    """An assignment: its notebooks and the files that lie beside them."""

    assignment: str
    notebooks: tuple[NotebookTemplate, ...]
    files: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the template as bytes, for a worker that shares no disk with the coordinator."""
        head: dict[str, Any] = {
            "assignment": self.assignment,
            "notebooks": [_notebook_json(nb) for nb in self.notebooks],
        }
        head["files"] = [(name, len(data)) for name, data in sorted(self.files.items())]
        text = json.dumps(head, separators=(",", ":"), sort_keys=True).encode()
        body = b"".join(data for _, data in sorted(self.files.items()))
        return len(text).to_bytes(8, "little") + text + body

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()


def template_from_bytes(data: bytes) -> Template:
    """Return the template that :meth:`Template.to_bytes` wrote."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    offset, files = 8 + length, {}
    for name, size in head["files"]:
        files[name] = data[offset : offset + size]
        offset += size
    notebooks = tuple(
        NotebookTemplate(nb["name"], tuple(TemplateCell(**cell) for cell in nb["cells"]), nb["metadata"], nb["minor"])
        for nb in head["notebooks"]
    )
    return Template(head["assignment"], notebooks, files)


def notebook_template(
    name: str, grading: Mapping[str, Any], release: Mapping[str, Any], solved: Mapping[str, Any] | None = None
) -> NotebookTemplate:
    """Return a template from two forms of one notebook, cell by cell: with and without the hidden tests.

    Args:
        grading: notebook as JSON, format 4, with nbgrader metadata of schema 3.
        release: the same cells in the same order as the student was given them.
        solved: the same cells with the instructor's own solution, where that is known.
    """
    solutions = [str(cell["source"]) for cell in solved["cells"]] if solved else [""] * len(grading["cells"])
    if len(solutions) != len(grading["cells"]):
        solutions = [""] * len(grading["cells"])
    cells = tuple(_cell(*forms) for forms in zip(grading["cells"], release["cells"], solutions, strict=True))
    return NotebookTemplate(name, cells, dict(grading.get("metadata", {})), int(grading.get("nbformat_minor", 5)))


def defined_names(source: str) -> frozenset[str]:
    """Return the functions and classes that `source` defines at its top level, by its text alone."""
    return frozenset(re.findall(r"^(?:async\s+def|def|class)\s+(\w+)", source, re.MULTILINE))


def _cell(grading: Mapping[str, Any], release: Mapping[str, Any], solution: str) -> TemplateCell:
    metadata = dict(grading.get("metadata", {}))
    nbgrader = metadata.get("nbgrader", {})
    role = _role(nbgrader)
    return TemplateCell(
        id=str(grading.get("id", "")),
        kind=grading["cell_type"],
        source=grading["source"],
        release=release["source"],
        role=role,
        grade_id=str(nbgrader.get("grade_id", "")) if role != "free" else "",
        points=float(nbgrader.get("points", 0.0) or 0.0) if role in GRADED_ROLES else 0.0,
        metadata=metadata,
        attachments=grading.get("attachments", {}),
        solution=solution if role in STUDENT_ROLES and grading["cell_type"] == "code" else "",
    )


def _role(nbgrader: Mapping[str, Any]) -> Role:
    grade, solution = nbgrader.get("grade", False), nbgrader.get("solution", False)
    if solution:
        return "manual" if grade else "answer"
    if nbgrader.get("task", False):
        return "task"
    if grade:
        return "test"
    return "locked" if nbgrader.get("locked", False) else "free"


def _notebook_json(notebook: NotebookTemplate) -> dict[str, Any]:
    cells = [
        {
            "id": c.id, "kind": c.kind, "source": c.source, "release": c.release, "role": c.role,
            "grade_id": c.grade_id, "points": c.points, "metadata": c.metadata, "attachments": c.attachments,
            "solution": c.solution,
        }
        for c in notebook.cells
    ]  # fmt: skip
    return {"name": notebook.name, "cells": cells, "metadata": notebook.metadata, "minor": notebook.nbformat_minor}
