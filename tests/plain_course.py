"""The foreign course of the tests: copies of it, and submissions made from its template."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autograder.nbgrader_course import NbgraderCourse, load_template, open_course
from autograder.reading.template import Template

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "plain-course"

GOOD = {
    "mean": "def mean(numbers):\n    return sum(numbers) / len(numbers) if numbers else 0.0",
    "population": (
        "def population(path):\n    rows = csv.DictReader(open(path))\n"
        "    return sum(int(row['population']) for row in rows)"
    ),
    "primes": "def primes(n):\n    return [k for k in range(2, n) if all(k % d for d in range(2, k))]",
    "why": "Divisors come in pairs.",
    "table": "{n: len(primes(n)) for n in (10, 100)}",
}


def make_course(folder: Path) -> tuple[NbgraderCourse, Template]:
    shutil.copytree(FIXTURE, folder)
    course = open_course(folder)
    return course, load_template(course, "ps1")


def released(template: Template, answers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The notebook as handed out, with `answers` (grade id to text) filled in."""
    notebook = template.notebooks[0]
    cells = []
    for cell in notebook.cells:
        source = (answers or {}).get(cell.grade_id, cell.release)
        metadata = json.loads(json.dumps(cell.metadata))
        entry: dict[str, Any] = {"cell_type": cell.kind, "id": cell.id, "metadata": metadata, "source": source}
        if cell.kind == "code":
            entry |= {"execution_count": None, "outputs": []}
        cells.append(entry)
    return {"cells": cells, "metadata": dict(notebook.metadata), "nbformat": 4, "nbformat_minor": 5}


def submit(course: NbgraderCourse, student: str, notebook: Mapping[str, Any] | bytes, name: str = "ps1.ipynb") -> Path:
    folder = course.path("submitted", student, "ps1")
    folder.mkdir(parents=True, exist_ok=True)
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    (folder / name).write_bytes(data)
    return folder


def cell_of(notebook: Mapping[str, Any], grade_id: str) -> dict[str, Any]:
    return next(c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == grade_id)


def edited(notebook: dict[str, Any], change: Callable[[list[dict[str, Any]]], None]) -> dict[str, Any]:
    change(notebook["cells"])
    return notebook


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "id": f"x{abs(hash(source)) % 10**7}", "metadata": metadata, "source": source,
            "execution_count": None, "outputs": []}  # fmt: skip


def nbgrader(root: Path, *arguments: str) -> None:
    """Run stock nbgrader in a course folder, as its commands do."""
    here = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HOME": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
