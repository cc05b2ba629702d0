"""`fourbit grade` against `nbgrader autograde` and against the floor, in one run on this machine.

    python -m benchmarks.grading                       100 submissions of lab 01 and of a light course, about 40 minutes
    python -m benchmarks.grading --only light          the light course alone, about 10 minutes
    python -m benchmarks.grading --students 20         a look, about 8 minutes
    python -m benchmarks.grading --stock 20            nbgrader grades only the first 20 of each class
    python -m benchmarks.grading --class 3000          3,000 submissions of the light course in one go, then formgrader

Each class is graded three times, each time in a fresh copy of its course folder: by `fourbit grade` with one slot and
with two, and by `nbgrader autograde` as shipped, one submission after the other. Every slot and every kernel has one
thread. The floor is what the same cells take in one warm process without a sandbox (benchmarks/grading_floor.py),
measured before and after the run with one slot.

Wall seconds of whole commands contain starting, feedback pages and reports; those of one submission are the slope
between the first and the last result. Processor seconds contain all processes. Memory of a worker is the proportional
size of all processes of its slot, at the most. All points of all submissions that both have graded are compared.
Writes benchmarks/results/grading.json. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.contestants import ROOT
from benchmarks.grading_class import grade_large_class
from benchmarks.grading_courses import lab_course, light_course, points
from benchmarks.grading_meter import Run, measured
from benchmarks.grading_report import show, targets
from fourbit.llm.card import processor

RESULTS = ROOT / "benchmarks" / "results" / "grading.json"
BIN = Path(sys.executable).parent
COURSES: dict[str, Callable[[Path, int], str]] = {"light": light_course, "lab": lab_course}
# These are removed from a folder that is to be graded afresh.
_GRADED = ("autograded", "feedback", "reports", ".autograder", "gradebook.db", "grades.csv")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=100, help="submissions in each class; default 100")
    parser.add_argument("--stock", type=int, metavar="N", help="nbgrader grades the first N only; default: all")
    parser.add_argument("--only", choices=sorted(COURSES), help="one of the two courses")
    parser.add_argument("--class", dest="large", type=int, metavar="N", help="grade a light class of N instead")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where results go; parts not measured now stay")
    options = parser.parse_args()
    if min(options.students, options.stock or 2, options.large or 2) < 2:
        parser.error("a class has at least two students")
    found = json.loads(options.json.read_text()) if options.json.is_file() else {}
    began = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:  # fmt: skip
        steps = Steps(bar)
        if options.large:
            found["class"] = {"machine": machine(), **grade_large_class(options.large, steps.measured, steps.say)}
        else:
            for name in [options.only] if options.only else list(COURSES):
                stock = min(options.stock or options.students, options.students)
                found[name] = {"machine": machine(), **compare(name, options.students, stock, steps)}
    found["targets"] = targets(found)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes; written: {options.json}")
    return 0


class Steps:
    """The progress of the benchmark: one bar for each command."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def say(self, text: str) -> None:
        self.bar.console.print(text, style="dim", highlight=False)

    def measured(self, title: str, command: list[str], folder: Path, assignment: str, total: int) -> Run:
        """Run a command that grades `total` submissions."""
        task = self.bar.add_task(title, total=total)
        graded = folder / "autograded"

        def done() -> int:
            return len(list(graded.glob(f"*/{assignment}/*.ipynb"))) if graded.is_dir() else 0

        run = measured(command, folder, lambda count: self.bar.update(task, completed=count), done)
        self.bar.update(task, completed=total)
        return run


def compare(name: str, students: int, stock: int, steps: Steps) -> dict[str, Any]:
    """Return everything that is measured on one course."""
    with tempfile.TemporaryDirectory(prefix="fourbit-benchmark-") as scratch:
        course, other = Path(scratch) / "ours", Path(scratch) / "stock"
        steps.say(f"{name}: making {students} submissions")
        assignment = COURSES[name](course, students)
        shutil.copytree(course, other)
        for folder in sorted((other / "submitted").iterdir())[stock:]:
            shutil.rmtree(folder)
        floors = [floor(course, assignment, steps)]
        ours = {}
        for jobs in (1, 2):
            for left in _GRADED:
                _remove(course / left)
            ours[jobs] = steps.measured(f"{name}: fourbit, {jobs} slot(s)", ours_command(assignment, jobs), course,
                                        assignment, students)  # fmt: skip
            if jobs == 1:
                floors.append(floor(course, assignment, steps))
        released = [str(BIN / "nbgrader"), "generate_assignment", assignment, "--force"]
        measured(released, other, lambda count: None, lambda: 0)
        command = [str(BIN / "nbgrader"), "autograde", assignment]
        theirs = steps.measured(f"{name}: nbgrader autograde", command, other, assignment, stock)
        apart = differing(points(course, assignment), points(other, assignment))
    first = ours[1].lines[0]["student"]  # the slope begins after it, so the floor leaves it out as well
    each = [value for one in floors for student, value in one["seconds"].items() if student != first]
    count = 2 * students
    return {
        "assignment": assignment, "students": students,
        "floor": {"each": sum(each) / len(each), "runs": [sum(one["seconds"].values()) / students for one in floors],
                  "cpu": sum(one["cpu"] for one in floors) / count,
                  **{part: sum(one[part] for one in floors) / count for part in ("asking", "judging")}},
        "ours": {str(jobs): numbers(run, students, jobs) for jobs, run in ours.items()},
        "stock": {"students": stock, "wall": theirs.wall, "cpu": theirs.cpu, "by": theirs.by,
                  "each": theirs.wall / stock, "cpu_each": theirs.cpu / stock},
        "points": apart,
    }  # fmt: skip


def ours_command(assignment: str, jobs: int) -> list[str]:
    return [str(BIN / "fourbit"), "grade", assignment, "--jobs", str(jobs), "--json"]


def numbers(run: Run, students: int, jobs: int) -> dict[str, Any]:
    """Return what one run of `fourbit grade` took."""
    each, cpu_each = run.each()
    return {
        "wall": run.wall, "cpu": run.cpu, "by": run.by, "whole_each": run.wall / students,
        "each": each, "cpu_each": cpu_each, "first": run.settled[0][0], "after": run.wall - run.settled[-1][0],
        "worker_bytes": run.peak / jobs, "own_bytes": max((rss for _, rss in run.own), default=0),
    }  # fmt: skip


def floor(course: Path, assignment: str, steps: Steps) -> dict[str, Any]:
    """Return what :func:`benchmarks.grading_floor.measure` finds, in a process of its own."""
    steps.say(f"{assignment}: the floor, the same cells in a warm process")
    command = [sys.executable, "-m", "benchmarks.grading_floor", str(course), assignment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the floor failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def differing(ours: dict[str, dict[str, Any]], stock: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return how many points were compared, and those on which the two graders disagree."""
    compared, apart = 0, []
    for student in sorted(stock):
        for cell in sorted(stock[student].keys() | ours.get(student, {}).keys()):
            compared += 1
            mine, theirs = ours.get(student, {}).get(cell), stock[student].get(cell)
            if mine != theirs:
                apart.append({"student": student, "cell": cell, "ours": mine, "stock": theirs})
    return {"students": len(stock), "compared": compared, "differ": apart}


def machine() -> dict[str, Any]:
    return {
        "cpu": processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
        "torch": version("torch"), "nbgrader": version("nbgrader"), "load_before": os.getloadavg()[0],
    }  # fmt: skip


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
