"""Stock nbgrader in a course folder: it releases what the builder releases, and grades to the same points."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.utils import determine_grade

from autograder import exams
from autograder.builder import build_lab
from autograder.builder.build import render_lab
from autograder.builder.release import GENERATE, ClearLabSolutions
from autograder.course import create_course
from fourbit.exam.check import examination

LAB = "07-tiny"
FLOOR = {"snap": ("torch.round", "torch.floor")}


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """The tiny lab's labs/ and build/, in a folder of their own."""
    folder = tmp_path_factory.mktemp("built")
    build_lab(LAB, root / "tests/fixtures/tiny-lab", labs=folder / "labs", build=folder / "build")
    return folder


def nbgrader(course, *command):
    """Run a stock command as an instructor would in an environment that was not activated."""
    environment = {**os.environ, "PATH": os.defpath, "PYTHONWARNINGS": "ignore"}
    environment.pop("FOURBIT_EXAMS", None)
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command], cwd=course, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def answers(built, patches=None):
    """The reference's answer cells by grade id, each changed by its patch."""
    source = nbformat.read(built / f"build/source/{LAB}/{LAB}.ipynb", as_version=4)
    found = {cell.id: cell.source for cell in source.cells if cell.metadata.fourbit.role == "exercise"}
    for name, (old, new) in (patches or {}).items():
        found[name] = found[name].replace(old, new)
    return found


def submit(built, course, student, sources):
    """What a student hands in: the released notebook with `sources` in its cells."""
    folder = Path(shutil.copytree(built / "labs" / LAB, course / "submitted" / student / LAB))
    notebook = nbformat.read(folder / f"{LAB}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id, cell.source)
    nbformat.write(notebook, folder / f"{LAB}.ipynb")


def points_of(built, notebook_sources):
    """Points of each exercise by the hidden exam, without any notebook machinery."""
    namespace = {}
    exec("import torch", namespace)
    for source in notebook_sources.values():
        exec(source, namespace)
    pack = exams.load_pack(built / f"build/exams/{LAB}")
    return {f"check-{name}": examination(pack[name], namespace).points for name in pack.exercises}


def test_only_one_step_of_nbgraders_list_is_exchanged():
    stock = GenerateAssignment.preprocessors.default_args[0]
    assert [step.__name__ for step in stock] == [s.__name__.replace("ClearLab", "Clear") for s in GENERATE]
    changed = [ours for ours, theirs in zip(GENERATE, stock, strict=True) if ours is not theirs]
    assert changed == [ClearLabSolutions]


@pytest.mark.slow
def test_stock_nbgrader_releases_grades_and_exports_what_the_builder_made(built, tmp_path):
    course = tmp_path / "course"
    create_course(course, [LAB], build=built / "build")
    submissions = {
        "reference": answers(built),
        "floor": answers(built, FLOOR),
        "stub": {},
        "writer": {"written-why-half": "Because.", "prediction-worst": 'predict("worst", 0.25, "largest error")'},
    }
    nbgrader(course, "generate_assignment", LAB)
    for path in (f"{LAB}.ipynb", "exam/pack.safetensors", "exam/properties.py"):
        assert (course / "release" / LAB / path).read_bytes() == (built / "labs" / LAB / path).read_bytes()
    for student, sources in submissions.items():
        submit(built, course, student, sources)
    nbgrader(course, "autograde", LAB)
    nbgrader(course, "generate_feedback", LAB)
    nbgrader(course, "export")
    assert len((course / "grades.csv").read_text().splitlines()) == 1 + len(submissions)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for student, sources in submissions.items():
            (notebook,) = gradebook.find_submission(LAB, student).notebooks
            grades = {grade.name: grade for grade in notebook.grades}
            expected = points_of(built, sources) if "snap" in sources else {"check-snap": 0.0, "check-error": 0.0}
            assert {name: grades[name].auto_score for name in expected} == expected
            by_hand = {name for name, grade in grades.items() if grade.needs_manual_grade}
            assert by_hand == {name for name in sources if name.startswith("written")}
            assert notebook.max_score == 7.0
            assert (course / "feedback" / student / LAB / f"{LAB}.html").is_file()
    graded = nbformat.read(course / "autograded" / "writer" / LAB / f"{LAB}.ipynb", as_version=4)
    cells = {cell.id: cell for cell in graded.cells}
    assert "Noted: 0.25" in str(cells["prediction-worst"].outputs)
    assert cells["measure-1"].outputs == []


@pytest.fixture
def in_lab(built, monkeypatch, tmp_path):
    """Work in the built lab's folder, as its notebook does."""
    monkeypatch.chdir(built / "labs" / LAB)
    monkeypatch.setenv("FOURBIT_EXAMS", str(built / "build/exams"))
    monkeypatch.setenv("FOURBIT_HOME", str(tmp_path))


def run(notebook):
    """Run the code cells; yield each with what it ended in: its last value or its error."""
    namespace = {}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        *body, last = ast.parse(cell.source.replace("%matplotlib inline", "")).body
        try:
            if not isinstance(last, ast.Expr):
                body, last = [*body, last], ast.parse("None").body[0]
            exec(compile(ast.Module(body, []), cell.id, "exec"), namespace)
            yield cell, eval(compile(ast.Expression(last.value), cell.id, "eval"), namespace)
        except Exception as error:
            yield cell, error


def test_the_instructors_notebook_runs_and_scores_everything(root, in_lab):
    instructor = render_lab(root / "tests/fixtures/tiny-lab/solutions" / LAB).instructor
    results = {cell.id: result for cell, result in run(instructor)}
    assert not [result for result in results.values() if isinstance(result, Exception)]
    for cell in instructor.cells:
        if cell.id.startswith("check-"):
            output = nbformat.v4.new_output("execute_result", {"text/plain": repr(results[cell.id])})
            cell.outputs = [output]
            assert determine_grade(cell) == (cell.metadata.nbgrader.points,) * 2


def test_the_students_notebook_scores_nothing_and_fails_only_where_nothing_is_written(root, in_lab):
    student = render_lab(root / "tests/fixtures/tiny-lab/solutions" / LAB).student
    results = {cell.id: result for cell, result in run(student)}
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    assert {name: type(error) for name, error in errors.items()} == {"measure-1": NotImplementedError}
    assert "error is not written yet" in str(errors["measure-1"])
    assert {float(repr(results[f"check-{name}"])) for name in ("snap", "error")} == {0.0}
