"""Grading an assignment of a course: read, grade what has changed, write, report as it goes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import fourbit
from autograder.capacity import capacity
from autograder.fleet import Finished, Fleet
from autograder.jail import JailMode, Limits, detect
from autograder.nbgrader_course import NbgraderCourse, load_template, open_course
from autograder.processes import preheat
from autograder.results import GradingError, Outcome, SubmissionRecord, files_hash, key_of, plain
from autograder.sanitize import safe_name
from autograder.settings import settings_of
from autograder.store import Store
from autograder.template import Template
from autograder.untrusted import Caps, RawSubmission, read_folder
from autograder.worker import Bundle, Task, given_up, required_exercises

# Raise when a change of the grader can change a grade: everything is then graded anew.
ENGINE = 1
_EXAM_FILES = ("pack.safetensors", "properties.py")


@dataclass(frozen=True)
class Progress:
    """One submission is settled.

    Attributes:
        done, total: submissions settled so far, of all.
        changed: False when an earlier result still held and nothing was run.
        seconds: since grading began.
    """

    done: int
    total: int
    record: SubmissionRecord
    changed: bool
    seconds: float


@dataclass(frozen=True)
class ClassResult:
    """The state of an assignment after grading it.

    Attributes:
        records: one for each student asked for, in the order of their ids.
        graded: students whose submission was graded now; `unchanged`: those whose earlier result still held.
        added: students who handed in but were not in the gradebook, which had others.
        jail: the isolation that was in force.
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


Listener = Callable[[Progress], None]


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
    on_progress: Listener | None = None,
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
        executor: where to run, such as a cluster's; None = processes of this machine.
        on_progress: called in this thread after each submission.

    Raises:
        GradingError: for an unknown course or assignment, a missing exam, or a gradebook that cannot be used.
        EngineError: when this machine cannot run submissions in the isolation asked for.
    """
    if platform.system() != "Linux":
        raise GradingError("grading needs Linux, whose kernel isolates submissions; use a Linux machine, WSL2 or a VM")
    started = time.monotonic()
    if executor is None:
        # Workers of a course with exams judge with torch; both are imported while this process imports nbgrader.
        exams = (Path(course_dir) / "exams").is_dir()
        preheat(["autograder.processes", *(["autograder.exams"] if exams else [])])
    with ThreadPoolExecutor(1) as aside:
        strongest = aside.submit(detect)  # in a process of its own, while this one imports nbgrader
        course = open_course(course_dir)
        template = load_template(course, assignment)
        exam = find_exam(course, template)
    settings = settings_of(course)
    asked = jail or (JailMode(settings.jail) if settings.jail else None)
    limits, caps, mode = limits or settings.limits, caps or Caps(), asked or strongest.result()
    if mode is JailMode.PLAIN and asked is not JailMode.PLAIN:
        raise GradingError(
            "this machine cannot isolate submissions (see `fourbit doctor`). To grade work that you trust, with limits "
            "on time and size only, ask for it: --jail plain"
        )
    bundle = Bundle(_bundle_key(template, exam, limits, caps, mode), template.to_bytes(), exam, limits, caps, mode)
    slots = jobs or settings.jobs or capacity().slots(limits, exam=bool(exam))
    with Store(course, template) as store:
        run = _ClassRun(course, template, store, bundle, force, on_progress, started)
        run.settle(_chosen(course, assignment, students), Fleet(bundle, slots, executor))
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


class _ClassRun:
    """One pass over a class: decides what to run, writes what comes back, keeps count."""

    def __init__(
        self,
        course: NbgraderCourse,
        template: Template,
        store: Store,
        bundle: Bundle,
        force: bool,
        listener: Listener | None,
        started: float,
    ) -> None:
        self.course, self.template, self.store, self.bundle = course, template, store, bundle
        self.force, self.listener, self.started = force, listener, started
        self.records: dict[str, SubmissionRecord] = {}
        self.graded: list[str] = []
        self.unchanged: list[str] = []
        self.added: list[str] = []
        self.total = 0
        self._roster = store.students()
        self._stored = store.submitted()
        self._finished = store.journal.finished()
        self._raws: dict[str, RawSubmission] = {}

    def settle(self, chosen: Mapping[str, Path | None], fleet: Fleet) -> None:
        self.total = len(chosen)
        for finished in fleet.run(self._tasks(chosen)):
            self._write(finished)

    def _tasks(self, chosen: Mapping[str, Path | None]) -> Iterator[Task]:
        """Yield what has to be run, settling everything else on the way."""
        for student, folder in chosen.items():
            problem = self._refusal(student, folder)
            if problem is not None:
                self._settle(problem, changed=True)
                continue
            assert folder is not None
            try:
                raw = read_folder(folder, self.bundle.caps)
            except GradingError as error:
                self._settle(self._record(student, "refused", str(error)), changed=True)
                continue
            key = key_of({"bundle": self.bundle.key, "files": files_hash(raw.files), "left out": raw.notes})
            earlier = None if self.force else self._still_valid(student, key)
            if earlier is not None:
                self.unchanged.append(student)
                self._settle(earlier, changed=False)
                continue
            self._raws[student] = raw
            yield Task(student, key, raw)

    def _refusal(self, student: str, folder: Path | None) -> SubmissionRecord | None:
        """Return the record of somebody whose work is not graded at all, or None."""
        shown = plain(student, 200)
        if folder is None:
            return self._record(student, "no submission", self._no_submission(student))
        # formgrader puts an id into its pages as it stands, so markup in one would be obeyed there.
        if shown != student or len(student) > 120 or set(student) & set('\n\t<>"'):
            return self._record(student, "refused", "the folder's name is not a student id; rename it")
        if self._roster and student not in self._roster:
            create = self.course.config.get("Autograde", {}).get("create_student", True)
            if not create:
                message = "not in the gradebook; add the student with `nbgrader db student add`, or rename the folder"
                return self._record(student, "refused", message)
            self.added.append(student)
        return None

    def _no_submission(self, student: str) -> str:
        where = self.course.path("submitted", student, self.template.assignment)
        others = list(self.course.submissions(self.template.assignment))
        close = get_close_matches(student, others, 1)
        hint = f"; did you mean {plain(close[0], 80)}?" if close else ""
        return plain(f"nothing handed in: {where} does not exist{hint}", 1000)

    def _still_valid(self, student: str, key: str) -> SubmissionRecord | None:
        """Return the earlier record when everything that it depends on and led to is still there."""
        if self._finished.get(student) != key or student not in self._stored:
            return None
        folder = self.course.path("autograded", student, self.template.assignment)
        if not all((folder / f"{nb.name}.ipynb").is_file() for nb in self.template.notebooks):
            return None
        record = self.store.journal.record(student)
        return record if record is not None and record.key == key else None

    def _write(self, finished: Finished) -> None:
        """Store one result."""
        student = finished.task.student
        raw = self._raws.pop(student)
        graded = finished.graded or given_up(self.template, student, finished.reason)
        files = {safe_name(name): raw.files[name] for name in graded.kept if name in raw.files}
        when = raw.files.get("timestamp.txt", b"")[:100].decode("utf-8", "replace").strip()
        self.store.write(graded.record, graded.notebooks, files, when)
        self.graded.append(student)
        self._settle(graded.record, changed=True)

    def _record(self, student: str, outcome: Outcome, message: str) -> SubmissionRecord:
        return SubmissionRecord(self.template.assignment, plain(student, 300), outcome, message=plain(message))

    def _settle(self, record: SubmissionRecord, *, changed: bool) -> None:
        self.records[record.student] = record
        if self.listener is not None:
            seconds = time.monotonic() - self.started
            self.listener(Progress(len(self.records), self.total, record, changed, seconds))


def _chosen(course: NbgraderCourse, assignment: str, students: Sequence[str] | None) -> dict[str, Path | None]:
    """Return the folder of every student to grade; None for one who handed nothing in."""
    handed_in = course.submissions(assignment)
    if students is None:
        if not handed_in:
            where = course.path("submitted", "STUDENT", assignment)
            raise GradingError(f"nobody has handed {assignment} in yet: a submission is a folder {where}")
        return dict(handed_in)
    return {student: handed_in.get(student) for student in students}


def _bundle_key(template: Template, exam: Mapping[str, bytes], limits: Limits, caps: Caps, mode: JailMode) -> str:
    return key_of({
        "template": template.sha256,
        "exam": files_hash(exam),
        "limits": limits,
        "caps": caps,
        "jail": mode,
        "engine": f"{ENGINE}/{fourbit.__version__}/{platform.python_version()}",
    })  # fmt: skip
