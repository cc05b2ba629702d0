"""`fourbit grade` against `nbgrader autograde` on the same submissions, on this machine, in one run.

    python -m benchmarks.grading [--students 40] [--jobs 2] [--only lab|light]

Two classes: honest submissions of lab 01 (right, partly right, named mistakes, untouched; no loops and no crashes,
which only the sandbox survives), and a light plain-nbgrader assignment: a cell that imports torch, numpy and
matplotlib, one function, two test cells.

Both graders get their own copy of the course folder, the same machine and one thread for each slot; each is one
command for the whole class. Prints wall seconds, the ratio, and every point on which the two disagree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HONEST = ("amara", "bruno", "chen", "dana", "elif", "farid", "greta", "hiro", "ines", "jonas")
RIGHT = "def clip(x, low, high):\n    return torch.clamp(x, low, high)"
WRONG = "def clip(x, low, high):\n    return torch.clamp(x, low, None)"


def lab_course(folder: Path, students: int) -> str:
    """A course with lab 01 and honest submissions of it."""
    from rich.console import Console

    from autograder.builder.build import build_lab
    from autograder.course import create_course
    from autograder.demo import released_notebook
    from autograder.demo_class import CLASS, Classroom, hand_in
    from autograder.exams import load_lab

    lab = "01-pruning"
    with Console().status("Building lab 01"):
        build_lab(lab, ROOT)
    create_course(folder, [lab], build=ROOT / "build", course_id="benchmark")
    handed_out = nbformat.read(released_notebook(ROOT, lab), as_version=4)
    room = Classroom(load_lab(ROOT / "solutions" / lab), folder)
    honest = [s for s in CLASS if s.id in HONEST]
    for number in range(students):
        student = honest[number % len(honest)]
        path = folder / "submitted" / f"{student.id}{number:02}" / lab / f"{lab}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(hand_in(student, room, handed_out))
    return lab


def light_course(folder: Path, students: int) -> str:
    """A plain nbgrader course: an import cell, one function, two test cells."""
    cells = [
        _cell("imports", "import matplotlib.pyplot as plt\nimport numpy as np\nimport torch", locked=True),
        _cell(
            "clip", "def clip(x, low, high):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION", solution=True
        ),
        _cell("test-low", "assert clip(torch.tensor([-5.0]), -1, 1).item() == -1", grade=True),
        _cell("test-high", "assert clip(torch.tensor([5.0]), -1, 1).item() == 1", grade=True),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Light"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = folder / "source" / "light" / "light.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    (folder / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'light'\n")
    for number in range(students):
        notebook.cells[2].source = (RIGHT, WRONG)[number % 2]
        path = folder / "submitted" / f"student{number:02}" / "light" / "light.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    return "light"


def _cell(name: str, source: str, *, grade: bool = False, solution: bool = False, locked: bool = False):
    data = {"grade_id": name, "schema_version": 3, "grade": grade, "solution": solution, "locked": locked or grade}
    data |= {"task": False} | ({"points": 1} if grade else {})
    return new_code_cell(source, id=name, metadata={"nbgrader": data})


def timed(command: list[str | Path], folder: Path) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - start


def points(folder: Path, assignment: str) -> dict[tuple[str, str], float]:
    """Automatic points by student and cell, as the gradebook has them."""
    from nbgrader.api import Gradebook

    from autograder.nbgrader_course import open_course

    found = {}
    course = open_course(folder)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            for notebook in submission.notebooks:
                for grade in notebook.grades:
                    found[submission.student.id, grade.name] = grade.auto_score
    return found


def compare(make, students: int, jobs: int, scratch: Path) -> float:
    course, stock = scratch / make.__name__, scratch / f"{make.__name__}-stock"
    assignment = make(course, students)
    shutil.copytree(course, stock)
    timed([BIN / "nbgrader", "generate_assignment", assignment, "--force"], stock)
    ours = timed([BIN / "fourbit", "grade", assignment, "--jobs", str(jobs)], course)
    theirs = timed([BIN / "nbgrader", "autograde", assignment], stock)
    mine, other = points(course, assignment), points(stock, assignment)
    apart = {
        key: (mine.get(key), other.get(key)) for key in mine.keys() | other.keys() if mine.get(key) != other.get(key)
    }
    print(
        f"{assignment}: {students} submissions; fourbit ({jobs} slots) {ours:.1f} s, nbgrader autograde {theirs:.1f} s"
    )
    print(
        f"  ratio {theirs / ours:.1f}; {len(mine)} points compared, {len(apart)} differ{f': {apart}' if apart else ''}"
    )
    return theirs / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=("lab", "light"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("light", light_course), ("lab", lab_course)):
            if options.only in (None, name):
                compare(make, options.students, options.jobs, Path(scratch))


if __name__ == "__main__":
    main()
