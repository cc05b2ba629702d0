"""The only writer: nbgrader's gradebook, the autograded notebooks and the journal.

One database transaction per submission. What humans put into the gradebook (manual scores, comments, extra
credit, extensions) is never touched. The order is: record put aside, database, notebooks, journal. Whatever is
interrupted in between is simply graded again, for the journal's line is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

from autograder.books.arrival import TIMESTAMP, Arrival
from autograder.books.assignment_cells import register_cells
from autograder.books.grade_rows import (
    SubmissionRow,
    ensure_submission,
    find_submissions,
    read_assignment,
    read_scores,
    submitted_students,
    write_comments,
    write_grades,
    write_time,
)
from autograder.books.gradebook import open_gradebook, shown_url
from autograder.books.journal import FOLDER, Journal, journal_of
from autograder.books.lock import CourseLock
from autograder.books.penalties import Penalties
from autograder.books.regrade import Change, compare
from autograder.books.transactions import Transactions
from autograder.folders import replace_folder
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from autograder.results import LateRecord, SubmissionRecord

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A result as it was stored: with its lateness, and with what grading again has changed, if it was that."""

    record: SubmissionRecord
    change: Change | None = None


class Store:
    """An open gradebook of a course, for one assignment. Nobody else can open a store of the course meanwhile.

    Args:
        patience: seconds to wait for a database that has gone away, before giving up.
        tell: called with a line for the user when the database is waited for; None = the line is logged.

    Raises:
        GradingError: when the database cannot be opened or does not fit the assignment, or the course is being
            graded by somebody else.
    """

    def __init__(
        self,
        course: NbgraderCourse,
        template: Template,
        patience: float = 300.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.course, self.template = course, template
        self.journal: Journal = journal_of(course.root, template.assignment)
        self._lock = CourseLock(course.root / FOLDER / "lock")
        try:
            self.gradebook = open_gradebook(course)
        except BaseException:
            self._lock.release()
            raise
        self._transactions = Transactions(self.gradebook, shown_url(course), patience, tell or _LOG.warning)
        try:
            self._transactions.run(lambda: register_cells(course, self.gradebook, template))
            self.assignment = self._transactions.run(lambda: read_assignment(self.gradebook, template.assignment))
            self.penalties = Penalties(course, self.gradebook, self.assignment)
            self._last_changes = {change.student: change for _, change in self.journal.history()}
            self.journal.sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.gradebook.close()
        self._lock.release()

    def students(self) -> set[str]:
        """Return the ids of the students that the gradebook knows."""
        from nbgrader.api import Student

        return self._transactions.run(lambda: {row[0] for row in self.gradebook.db.query(Student.id)})

    def submitted(self) -> set[str]:
        """Return the ids of the students who have a row for this assignment."""
        return self._transactions.run(lambda: submitted_students(self.gradebook.db, self.assignment))

    def write(
        self,
        record: SubmissionRecord,
        notebooks: Mapping[str, str],
        files: Mapping[str, bytes],
        arrival: Arrival | None = None,
        parts: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> Stored:
        """Store one result: gradebook, ``autograded/`` and journal.

        Args:
            notebooks: graded notebooks as JSON text, by notebook name.
            files: the student's own files that belong beside them.
            arrival: when the submission came in; None = unknown.
            parts: hashes of what went into the record's key, for the journal.
            reason: why it was graded again (see :mod:`autograder.books.regrade`); "" = for the first time.

        Raises:
            GradingError: when the database stays away; what was stored before is complete.
        """
        arrival = arrival or Arrival()
        before = self.journal.record(record.student)
        ours = self._our_lateness(record.student, before)
        record = self._transactions.run(lambda: self._write_rows(record, before, ours, arrival))
        self._write_files(record.student, notebooks, files, arrival.text)
        change = compare(before, record, reason)
        if change is not None and change != self._last_changes.get(change.student):
            self.journal.note(change)  # a run that was killed after this line writes no second one
            self._last_changes[change.student] = change
        self.journal.finish(record, parts)
        return Stored(record, change)

    def refresh_late(self, records: Mapping[str, SubmissionRecord], arrivals: Mapping[str, Arrival]) -> list[Stored]:
        """Bring times and late penalties up to date where nothing was run: due dates, extensions and scores change.

        Args:
            records: what was graded before, by student.
            arrivals: when their submissions came in.
        """
        if not records:
            return []
        rows, scores = self._transactions.run(
            lambda: (
                find_submissions(self.gradebook.db, self.assignment),
                read_scores(self.gradebook.db, self.assignment) if self.assignment.duedate else {},
            )
        )
        entries, found = self.journal.entries(), []
        for row in rows:
            if row.student not in records:
                continue
            record, arrival = records[row.student], arrivals[row.student]
            timed = arrival.known(row.timestamp)
            late = self.penalties.judge(row, scores, timed)
            if self._is_current(record.late, late, row) and row.timestamp == timed.at:
                continue
            ours = self._our_lateness(row.student, record)
            fresh = self._transactions.run(lambda: self._write_lateness(record, row, timed, late, ours))  # noqa: B023 - runs now
            entry = entries.get(row.student)
            self.journal.finish(fresh, entry.parts if entry else None)
            found.append(Stored(fresh))
        return found

    def _write_rows(
        self, record: SubmissionRecord, before: SubmissionRecord | None, ours: list[LateRecord], arrival: Arrival
    ) -> SubmissionRecord:
        """Write everything that the gradebook holds of one submission, within a transaction."""
        db = self.gradebook.db
        submission = ensure_submission(db, self.assignment, record.student)
        scores = {}
        for notebook in self.assignment.notebooks:
            own = submission.notebooks[notebook.id]
            scores[own] = write_grades(db, notebook, own, record, before)
            write_comments(db, notebook, own, record)
        timed = arrival.known(submission.timestamp)
        return self._write_lateness(record, submission, timed, self.penalties.judge(submission, scores, timed), ours)

    def _write_lateness(
        self,
        record: SubmissionRecord,
        submission: SubmissionRow,
        arrival: Arrival,
        late: LateRecord,
        ours: list[LateRecord],
    ) -> SubmissionRecord:
        """Write time and penalties, and put the record aside that says which penalties are the grader's own."""
        write_time(self.gradebook.db, submission, arrival.at)
        settled = self.penalties.settle(self.gradebook.db, submission, late, ours)
        old = record.late.note if record.late else ""
        notes = (*(note for note in record.notes if not old or note != old), *((settled.note,) if settled.note else ()))
        record = replace(record, late=settled, notes=notes)
        self.journal.keep(record)
        return record

    def _our_lateness(self, student: str, before: SubmissionRecord | None) -> list[LateRecord]:
        """Return what the grader has written about lateness, or may have before it was killed."""
        return [found.late for found in (before, self.journal.kept(student)) if found is not None and found.late]

    def _is_current(self, known: LateRecord | None, late: LateRecord, row: SubmissionRow) -> bool:
        if known is None or replace(known, by_hand=()) != late:
            return False
        by_hand = []
        for notebook in self.assignment.notebooks:
            stored = row.penalties.get(row.notebooks.get(notebook.id, ""))
            if stored != late.penalties.get(notebook.name):
                by_hand.append(notebook.name)
        return tuple(by_hand) == known.by_hand

    def _write_files(self, student: str, notebooks: Mapping[str, str], files: Mapping[str, bytes], when: str) -> None:
        wanted = {f"{name}.ipynb": text.encode() for name, text in notebooks.items()} | dict(files)
        if when:
            wanted[TIMESTAMP] = f"{when}\n".encode()
        replace_folder(self.course.path("autograded", student, self.template.assignment), wanted)
