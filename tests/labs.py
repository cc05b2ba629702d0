"""A lab folder for tests: the mini lab's notebook with any answers, and its exam pack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fourbit.exam.reference import load_lab, write_pack

MINI = Path(__file__).resolve().parent / "fixtures" / "00-mini"
SETUP = "import torch\nfrom torch import Tensor\nfrom fourbit.exam import check\n"


def write_mini_lab(course: Path, answers: Mapping[str, str], *, measurement: str = "measured = 1") -> Path:
    """Make ``course/labs/00-mini`` and return its notebook.

    Args:
        answers: exercise -> source of its cell; an exercise without one stands as its stub.
        measurement: source of the cell that grading leaves out.
    """
    lab = load_lab(MINI)
    cells = [new_markdown_cell("# Mini lab"), new_code_cell(SETUP)]
    for exercise in lab.exam.exercises:
        source = answers.get(exercise.name, lab.stub(exercise.name))
        cells.append(new_code_cell(source, metadata={"nbgrader": {"grade_id": exercise.name}}))
        cells.append(new_code_cell(f'check("{exercise.name}")'))
    cells.append(new_code_cell(measurement, metadata={"tags": ["skip-execution"]}))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    folder = course / "labs" / "00-mini"
    write_pack(lab, folder / "exam", visible=True)
    path = folder / "00-mini.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def reference(exercise: str) -> str:
    """The reference's cell."""
    return load_lab(MINI).source(exercise)
