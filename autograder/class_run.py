"""One pass over a class: what has to be run and why, and what becomes of the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from autograder.books.arrival import Arrival, Receipts
from autograder.books.journal import Entry
from autograder.books.regrade import Change, reason_for
from autograder.books.store import Store
from autograder.judging.sanitize import safe_name
from autograder.judging.worker import Bundle, Task, given_up
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from autograder.reading.untrusted import RawSubmission, read_folder
from autograder.results import GradingError, Outcome, SubmissionRecord, files_hash, key_of, plain
from autograder.terminal.log import write_log
from autograder.workers.fleet import Finished, Fleet


@dataclass(frozen=True)
class Progress:
    """One submission is settled.

    Attributes:
        done, total: submissions settled so far, of all.
        changed: False when an earlier result still held and nothing was run.
        seconds: since grading began.
        running: how many submissions are being graded now; `flying` are their students.
        failed: submissions settled so far without a grade: unreadable, refused, crashed, not handed in.
        reason: why it was graded again (see :mod:`autograder.books.regrade`); "" = for the first time, or not at all.
    """

    done: int
    total: int
    record: SubmissionRecord
    changed: bool
    seconds: float
    running: int = 0
    failed: int = 0
    reason: str = ""
    flying: tuple[str, ...] = ()


Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class _Job:
    """What the coordinator has to remember of a submission while it is being graded."""

    raw: RawSubmission
    parts: Mapping[str, str]
    reason: str


class ClassRun:
    """Decides what to run, writes what comes back, keeps count.

    Args:
        parts: hashes of what every result depends on (see `regrade.PARTS`).
        started: monotonic time at which grading began.
    """

    def __init__(
        self,
        course: NbgraderCourse,
        template: Template,
        store: Store,
        bundle: Bundle,
        parts: Mapping[str, str],
        receipts: Receipts,
        force: bool,
        listener: Listener | None,
        started: float,
    ) -> None:
        self.course, self.template, self.store, self.bundle = course, template, store, bundle
        self.parts, self.receipts = parts, receipts
        self.force, self.listener, self.started = force, listener, started
        self.records: dict[str, SubmissionRecord] = {}
        self.graded: list[str] = []
        self.unchanged: list[str] = []
        self.added: list[str] = []
        self.retimed: list[str] = []
        self.changes: list[Change] = []
        self.total = self._failed = 0
        self._roster = store.students()
        self._stored = store.submitted()
        self._finished: dict[str, Entry] = store.journal.entries()
        self._jobs: dict[str, _Job] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._fleet: Fleet | None = None

    def settle(self, chosen: Mapping[str, Path | None], fleet: Fleet) -> None:
        self.total, self._fleet = len(chosen), fleet
        for finished in fleet.run(self._tasks(chosen)):
            self._write(finished)
        earlier = {student: self.records[student] for student in self.unchanged}
        for stored in self.store.refresh_late(earlier, self._arrivals):
            self.records[stored.record.student] = stored.record
            self.retimed.append(stored.record.student)

    def _tasks(self, chosen: Mapping[str, Path | None]) -> Iterator[Task]:
        """Yield what has to be run, settling everything else on the way."""
        for student, folder in chosen.items():
            problem = self._refusal(student, folder)
            if problem is not None:
                self._settle(problem)
                continue
            assert folder is not None
            try:
                raw = read_folder(folder, self.bundle.caps)
            except GradingError as error:
                self._settle(self._record(student, "refused", str(error)))
                continue
            content = files_hash(raw.files)
            key = key_of({"bundle": self.bundle.key, "files": content, "left out": raw.notes})
            parts = {**self.parts, "submission": key_of({"files": content, "left out": raw.notes})}
            earlier = None if self.force else self._still_valid(student, key)
            if earlier is not None:
                self.unchanged.append(student)
                self._arrivals[student] = self.receipts.arrival(student, raw.files)
                self._settle(earlier, changed=False)
                continue
            before = self._finished.get(student)
            reason = reason_for(before.parts, before.key, parts, self.force) if before else ""
            self._jobs[student] = _Job(raw, parts, reason)
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
        entry = self._finished.get(student)
        if entry is None or entry.key != key or student not in self._stored:
            return None
        folder = self.course.path("autograded", student, self.template.assignment)
        if not all((folder / f"{nb.name}.ipynb").is_file() for nb in self.template.notebooks):
            return None
        record = self.store.journal.record(student)
        return record if record is not None and record.key == key else None

    def _write(self, finished: Finished) -> None:
        """Store one result."""
        job = self._jobs.pop(finished.task.student)
        graded = finished.graded or given_up(self.template, finished.task.student, finished.reason)
        files = {safe_name(name): job.raw.files[name] for name in graded.kept if name in job.raw.files}
        arrival = self.receipts.arrival(finished.task.student, job.raw.files)
        stored = self.store.write(graded.record, graded.notebooks, files, arrival, job.parts, job.reason)
        self.graded.append(finished.task.student)
        write_log(self.store.journal, stored.record, graded.cells, job.reason, stored.change)
        if stored.change is not None and stored.change.questions:
            self.changes.append(stored.change)
        self._settle(stored.record, reason=job.reason)

    def _record(self, student: str, outcome: Outcome, message: str) -> SubmissionRecord:
        return SubmissionRecord(self.template.assignment, plain(student, 300), outcome, message=plain(message))

    def _settle(self, record: SubmissionRecord, *, changed: bool = True, reason: str = "") -> None:
        self.records[record.student] = record
        self._failed += record.outcome != "graded"
        if self.listener is not None:
            seconds = time.monotonic() - self.started
            flying = self._fleet.running if self._fleet is not None else ()
            counts = (len(flying), self._failed, reason, flying)
            self.listener(Progress(len(self.records), self.total, record, changed, seconds, *counts))
