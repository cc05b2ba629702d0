"""The whole course in one run: labs built, a simulated class handed in, graded in the sandbox and reported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from rich.console import Console

from autograder.builder.build import BuildReport, build_all
from autograder.builder.write import Writer
from autograder.course import create_course
from autograder.demo_class import CLASS, Classroom, Student, hand_in
from autograder.exams import load_lab
from autograder.grade import ClassResult, grade_assignment
from autograder.nbgrader_course import open_course
from autograder.terminal.grading_command import summary
from autograder.terminal.live import grading_progress

LAB = "01-pruning"


@dataclass(frozen=True)
class Demo:
    """What the demonstration made: the course folder and the graded class."""

    course: Path
    result: ClassResult


def run_demo(root: Path, console: Console, *, lab: str = LAB, jobs: int | None = None) -> Demo:
    """Build every lab under `root`, put the class into `root`/build/demo, grade `lab` and write the reports.

    A second run grades only what has changed since the first.
    """
    started = time.monotonic()
    console.print("[bold]1. Labs[/]  from solutions/ to labs/ (students) and build/ (instructor, hidden exam)")
    with console.status("Every reference and every mistake runs on every case of its exam"):
        reports = build_all(root)
    for report in reports:
        console.print(f"  {report.lab}: {len(report.exercises)} exercises, {report.points:g} points")
    console.print(f"[bold]2. Class[/]  {len(CLASS)} simulated students hand in {lab}")
    course = make_course(root, reports)
    hand_in_class(root, course, lab)
    console.print("[bold]3. Grading[/]  in the sandbox, hidden cases, judged outside the student's process")
    with grading_progress(console, "Grading") as settled:
        result = grade_assignment(course, lab, jobs=jobs, on_progress=settled)
    console.print(f"  {summary(result)}")
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return Demo(course, result)


def make_course(root: Path, reports: Sequence[BuildReport]) -> Path:
    """The course folder `root`/build/demo with every lab that was built, and the class in its gradebook."""
    course = root / "build" / "demo"
    create_course(course, [report.lab for report in reports], build=root / "build", course_id="fourbit-demo")
    enroll(course, CLASS)
    return course


def enroll(course: Path, students: Sequence[Student]) -> None:
    """Put the students' names into the gradebook, as ``nbgrader db student add`` does."""
    from nbgrader.api import Gradebook

    opened = open_course(course)
    with Gradebook(opened.db_url, opened.course_id) as gradebook:
        for student in students:
            gradebook.update_or_create_student(student.id, first_name=student.first_name, last_name=student.last_name)


def hand_in_class(root: Path, course: Path, lab: str, students: Sequence[Student] = CLASS) -> None:
    """Write every student's submission of `lab`; what is there already and says the same stays untouched."""
    notebook = nbformat.read(released_notebook(root, lab), as_version=4)
    room = Classroom(load_lab(root / "solutions" / lab), course.resolve())
    writer = Writer(course)
    for student in students:
        writer.file(course / "submitted" / student.id / lab / f"{lab}.ipynb", hand_in(student, room, notebook))


def released_notebook(root: Path, lab: str) -> Path:
    """The student's notebook as built: beside the one in labs/ where somebody has worked in that one."""
    folder = root / "labs" / lab
    newer = folder / f"{lab}.new.ipynb"
    return newer if newer.is_file() else folder / f"{lab}.ipynb"
