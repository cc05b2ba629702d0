"""Grading an assignment of a course: read, grade what has changed, write, report as it goes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import fourbit
from autograder.books.arrival import receipts_of
from autograder.books.regrade import Change
from autograder.books.store import Store
from autograder.class_run import ClassRun, Listener, Progress
from autograder.jail import JailMode, Limits, detect
from autograder.jail.warden import remove_leftovers
from autograder.judging.worker import Bundle, required_exercises
from autograder.nbgrader_course import NbgraderCourse, load_template, open_course
from autograder.reading.template import Template
from autograder.reading.untrusted import Caps
from autograder.results import GradingError, SubmissionRecord, files_hash, key_of
from autograder.settings import settings_of
from autograder.workers.capacity import capacity
from autograder.workers.fleet import Fleet
from autograder.workers.processes import preheat

__all__ = ["ClassResult", "Listener", "Progress", "find_exam", "grade_assignment"]

# Raise when a change of the grader can change a grade: everything is then graded anew.
ENGINE = 2
_EXAM_FILES = ("pack.safetensors", "properties.py")


@dataclass(frozen=True)
class ClassResult:
    """The state of an assignment after grading it.

    Attributes:
        records: one for each student asked for, in the order of their ids.
        graded: students whose submission was graded now; `unchanged`: those whose earlier result still held.
        added: students who handed in but were not in the gradebook, which had others.
        jail: the isolation that was in force.
        changes: regrades whose points differ from the earlier ones, by student id.
        retimed: students for whom nothing was run, but whose time or late penalty is another now.
    """

    course: Path
    assignment: str
    records: tuple[SubmissionRecord, ...]
    graded: tuple[str, ...]
    unchanged: tuple[str, ...]
    added: tuple[str, ...]
    jail: str
    jobs: int
    seconds: float
    changes: tuple[Change, ...] = ()
    retimed: tuple[str, ...] = ()


def grade_assignment(
    course_dir: Path | str,
    assignment: str,
    *,
    jobs: int | None = None,
    students: Sequence[str] | None = None,
    force: bool = False,
    limits: Limits | None = None,
    jail: JailMode | None = None,
    caps: Caps | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    on_progress: Listener | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> ClassResult:
    """Grade the submissions of `assignment` into the course's own gradebook and ``autograded/``.

    Only what has changed since the last time is run. One submission never stops another; each gets a record.

    Args:
        jobs: grading slots, one thread each; None = the course's setting, else one for each processor.
        students: ids to grade; None = everybody who handed in.
        force: run everything again.
        limits: what one submission may use; None = the course's settings.
        jail: the isolation to use; None takes the course's setting, else the strongest that this machine enforces.
            `JailMode.PLAIN`, which limits only time and size, has to be asked for.
        executor: where to run; None = a cluster, or processes of this machine.
        cluster: address of a Dask scheduler; None = the course's setting, "" = this machine.
        on_progress: called in this thread after each submission.
        on_notice: called with a line for the user when the gradebook's server is waited for; None = it is logged.

    Raises:
        GradingError: for an unknown course or assignment, a missing exam, a gradebook that cannot be used, or a
            course that is being graded already.
        EngineError: when this machine cannot run submissions in the isolation asked for.
    """
    if platform.system() != "Linux":
        raise GradingError("grading needs Linux, whose kernel isolates submissions; use a Linux machine, WSL2 or a VM")
    started = time.monotonic()
    if executor is None and not cluster:
        # Workers of a course with exams judge with torch; both are imported while this process imports nbgrader.
        exams = (Path(course_dir) / "exams").is_dir()
        preheat(["autograder.workers.processes", *(["autograder.exams"] if exams else [])])
    with ThreadPoolExecutor(1) as aside:
        strongest = aside.submit(detect)  # in a process of its own, while this one imports nbgrader
        course = open_course(course_dir)
        template = load_template(course, assignment)
        exam = find_exam(course, template)
    settings = settings_of(course)
    asked = jail or (JailMode(settings.jail) if settings.jail else None)
    limits, caps = limits or settings.limits, caps or Caps()
    address = settings.cluster if cluster is None else cluster
    hub = None
    if address and executor is None:
        from autograder.cluster import connect

        hub = connect(address, jail=asked, wait_seconds=settings.cluster_patience, notice=on_notice)
    mode = hub.mode if hub is not None else asked or strongest.result()
    if mode is JailMode.PLAIN and asked is not JailMode.PLAIN:
        raise GradingError(
            "this machine cannot isolate submissions (see `fourbit doctor`). To grade work that you trust, with limits "
            "on time and size only, ask for it: --jail plain"
        )
    parts = _parts(template, exam, limits, caps, mode)
    bundle = Bundle(key_of(parts), template.to_bytes(), exam, limits, caps, mode)
    slots = hub.slots if hub is not None else jobs or settings.jobs or capacity().slots(limits, exam=bool(exam))
    receipts = receipts_of(course, assignment, strict=settings.timestamps == "receipts")
    with hub or nullcontext(), Store(course, template, settings.database_patience, on_notice) as store:
        run = ClassRun(course, template, store, bundle, parts, receipts, force, on_progress, started)
        run.settle(_chosen(course, assignment, students), Fleet(bundle, slots, hub or executor))
    remove_leftovers()  # a worker that was killed as its zygote started has left a folder
    return ClassResult(
        course.root,
        assignment,
        tuple(run.records[student] for student in sorted(run.records)),
        tuple(sorted(run.graded)),
        tuple(sorted(run.unchanged)),
        tuple(sorted(run.added)),
        str(mode),
        slots,
        time.monotonic() - started,
        tuple(sorted(run.changes, key=lambda change: change.student)),
        tuple(sorted(run.retimed)),
    )


def find_exam(course: NbgraderCourse, template: Template) -> dict[str, bytes]:
    """Return the files of the hidden exam that the template's check cells need; {} when it has no check cells.

    Raises:
        GradingError: when a check cell has no exam; the message says where one was looked for.
    """
    if not required_exercises(template):
        return {}
    places = [Path(place) for place in (os.environ.get("FOURBIT_EXAMS", ""),) if place] + [course.root / "exams"]
    for place in places:
        folder = place / template.assignment
        if (folder / _EXAM_FILES[0]).is_file():
            return {name: (folder / name).read_bytes() for name in _EXAM_FILES if (folder / name).is_file()}
    looked = ", ".join(str(place / template.assignment) for place in places)
    raise GradingError(
        f"the hidden exam of {template.assignment} is missing (looked in {looked}). Build the labs, or set "
        "FOURBIT_EXAMS in nbgrader_config.py to the folder of the hidden exams"
    )


def _chosen(course: NbgraderCourse, assignment: str, students: Sequence[str] | None) -> dict[str, Path | None]:
    """Return the folder of every student to grade; None for one who handed nothing in."""
    handed_in = course.submissions(assignment)
    if students is None:
        if not handed_in:
            where = course.path("submitted", "STUDENT", assignment)
            raise GradingError(f"nobody has handed {assignment} in yet: a submission is a folder {where}")
        return dict(handed_in)
    return {student: handed_in.get(student) for student in students}


def _parts(template: Template, exam: Mapping[str, bytes], limits: Limits, caps: Caps, mode: JailMode) -> dict[str, str]:
    """Return hashes of what every result of the class depends on, by the names that a reason for regrading gives."""
    return {
        "source": template.sha256,
        "exam": files_hash(exam),
        "limits": key_of({"limits": limits, "caps": caps, "jail": mode}),
        "engine": f"{ENGINE}/{fourbit.__version__}/{platform.python_version()}",
    }
