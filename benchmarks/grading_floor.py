"""The floor under grading: the cells' own execution time, in one warm process without any sandbox.

    python -m benchmarks.grading_floor COURSE ASSIGNMENT

Every submission's notebook is rebuilt as for grading, which is not timed. Timed is what nobody can leave out: the
student's cells and the test cells in an IPython shell, one thread, in a fresh namespace that begins with what the
cells above the first question made. Those ran once before, as everything a class has in common: imports, the exam,
its data sets; the first submission is run twice, and timed the second time. The check cells of a Fourbit lab make the
same calls on the same hidden inputs as the grader, and judge the outcomes, as they do under `nbgrader autograde`.

No process is forked, no file is written, no outputs are kept, and nobody is kept from anything: a class that hangs or
ends its process has no floor.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from autograder.engine.executor import seed_all
from autograder.grade import find_exam
from autograder.judging.causes import check_name
from autograder.nbgrader_course import load_template, open_course
from autograder.reading.ingest import Ingested, ingest
from autograder.reading.template import NotebookTemplate
from autograder.reading.untrusted import read_folder

SEED = 20


class Floor:
    """A warm process for one notebook of an assignment."""

    def __init__(self, template: NotebookTemplate, exam: Any) -> None:
        self.exam = exam
        self.judging = self.asking = 0.0
        self.shell = InteractiveShell.instance()
        self.shell.history_manager.enabled = False
        self.prefix = len(template.prefix())
        for position in template.prefix():
            self.shell.run_cell(template.cells[position].source).raise_error()
        self.start = dict(self.shell.user_ns)
        gc.collect()
        gc.freeze()  # a warm process of a grader's would not go through all of torch again and again

    def run(self, ingested: Ingested) -> float:
        """Return the seconds that the cells of one submission take."""
        self.shell.user_ns.clear()
        self.shell.user_ns.update(self.start)
        seed_all(SEED)
        cells = [cell for cell in ingested.cells if cell.runs][self.prefix :]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            began = time.perf_counter()
            for cell in cells:
                exercise = check_name(cell.cell) if cell.cell and self.exam is not None else ""
                if exercise:
                    self.examine(exercise)
                else:
                    self.shell.run_cell(cell.source)
            return time.perf_counter() - began

    def examine(self, name: str) -> None:
        from autograder import exams
        from fourbit.exam.call import read_outcome

        packed = self.exam[name]
        began = time.perf_counter()

        def call(inputs: bytes) -> exams.Outcome:
            argument = {"entry": packed.entry, "seconds": packed.seconds}
            return read_outcome(exams.answer(self.shell.user_ns, argument, inputs))

        outcomes = exams.ask(packed, call)
        asked = time.perf_counter()
        exams.judge(packed, outcomes)
        self.asking += asked - began
        self.judging += time.perf_counter() - asked


def measure(folder: Path, assignment: str) -> dict[str, Any]:
    """Return {seconds: {student: floor}, asking, judging: parts of their sum} for every submission of a class."""
    course = open_course(folder)
    template = load_template(course, assignment)
    exam = _exam(find_exam(course, template))
    (notebook,) = template.notebooks
    with tempfile.TemporaryDirectory() as work:
        for name, data in template.files.items():
            path = Path(work, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        os.chdir(work)
        sys.path.insert(0, "")
        floor = Floor(notebook, exam)
        submissions = {
            student: ingest(template, read_folder(path)).notebooks[0]
            for student, path in course.submissions(assignment).items()
        }
        floor.run(next(iter(submissions.values())))
        floor.asking = floor.judging = 0.0
        cpu = time.process_time()
        seconds = {student: floor.run(ingested) for student, ingested in submissions.items()}
        cpu = time.process_time() - cpu
        os.chdir("/")
    return {"seconds": seconds, "cpu": cpu, "asking": floor.asking, "judging": floor.judging}


def _exam(files: dict[str, bytes]) -> Any:
    if not files:
        return None
    from autograder import exams

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        return exams.load_pack(folder)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))


if __name__ == "__main__":
    main()
