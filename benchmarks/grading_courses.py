"""The classes that benchmarks/grading.py grades: honest submissions, which stock nbgrader survives."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from benchmarks.contestants import ROOT

# Of the demonstration's class: right, partly right, named mistakes, untouched; no loops and no crashes.
HONEST = ("amara", "bruno", "chen", "dana", "elif", "farid", "greta", "hiro", "ines", "jonas")
RIGHT = "def clip(x, low, high):\n    return torch.clamp(x, low, high)"
MEANT = "def clip(x, low, high):\n    return torch.minimum(torch.maximum(x, torch.tensor(low)), torch.tensor(high))"
HALF = "def clip(x, low, high):\n    return torch.clamp(x, low, None)"
ANSWERS = (RIGHT, HALF, MEANT, "def clip(x, low, high):\n    raise NotImplementedError")


def lab_course(folder: Path, students: int) -> str:
    """A course with lab 01 and honest submissions of it; returns the assignment's name."""
    from autograder.builder.build import build_lab
    from autograder.course import create_course
    from autograder.demo import released_notebook
    from autograder.demo_class import CLASS, Classroom, hand_in
    from autograder.exams import load_lab

    lab = "01-pruning"
    build_lab(lab, ROOT)
    create_course(folder, [lab], build=ROOT / "build", course_id="benchmark")
    handed_out = nbformat.read(released_notebook(ROOT, lab), as_version=4)
    room = Classroom(load_lab(ROOT / "solutions" / lab), folder)
    honest = {student.id: student for student in CLASS if student.id in HONEST}
    notebooks = {name: hand_in(honest[name], room, handed_out) for name in HONEST}
    for number in range(students):
        name = HONEST[number % len(HONEST)]
        path = folder / "submitted" / f"{number:03}-{name}" / lab / f"{lab}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(notebooks[name])
    return lab


def light_course(folder: Path, students: int) -> str:
    """A plain nbgrader course: a cell that imports torch, numpy and matplotlib, one function, two test cells."""
    solution = RIGHT.replace("    return", "    ### BEGIN SOLUTION\n    return") + "\n    ### END SOLUTION"
    cells = [
        _cell("imports", "import matplotlib.pyplot as plt\nimport numpy as np\nimport torch", locked=True),
        _cell("clip", solution, solution=True),
        _cell("test-low", "assert clip(torch.tensor([-5.0]), -1, 1).item() == -1", grade=True),
        _cell("test-high", "assert clip(torch.tensor([5.0]), -1, 1).item() == 1", grade=True),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Light", id="title"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = folder / "source" / "light" / "light.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    (folder / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'light'\n")
    texts = []
    for answer in ANSWERS:
        handed_in = copy.deepcopy(notebook)
        handed_in.cells[2].source = answer
        texts.append(nbformat.writes(handed_in))
    for number in range(students):
        path = folder / "submitted" / f"student{number:04}" / "light" / "light.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(texts[number % len(texts)])
    return "light"


def _cell(name: str, source: str, *, grade: bool = False, solution: bool = False, locked: bool = False) -> Any:
    data = {"grade_id": name, "schema_version": 3, "grade": grade, "solution": solution, "locked": locked or grade}
    data |= {"task": False} | ({"points": 1} if grade else {})
    return new_code_cell(source, id=name, metadata={"nbgrader": data})


def points(folder: Path, assignment: str) -> dict[str, dict[str, float | None]]:
    """Automatic points by student and cell, as the course's gradebook has them."""
    from nbgrader.api import Gradebook

    from autograder.nbgrader_course import open_course

    found: dict[str, dict[str, float | None]] = {}
    course = open_course(folder)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            found[submission.student.id] = {grade.name: grade.auto_score for grade in grades}
    return found
