"""Our feedback page wherever nbgrader makes feedback: `nbgrader generate_feedback` and formgrader's buttons.

nbgrader's own page shows the graded notebook as it is, hidden tests included, and runs what a student's output
holds. One line in ``nbgrader_config.py`` puts this in its place; `fourbit course` writes it:

    c.GenerateFeedback.exporter_class = "autograder.reports.nbgrader_feedback.FeedbackExporter"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbconvert.exporters import Exporter

from autograder.books.gradebook import read_standings
from autograder.books.journal import journal_of
from autograder.books.regrade import Change
from autograder.books.standings import Standing, StudentStanding
from autograder.nbgrader_course import NbgraderCourse
from autograder.reports.feedback import last_changes, render
from autograder.reports.rows import Row
from autograder.results import QuestionRecord, Status, SubmissionRecord


class FeedbackExporter(Exporter):
    """Makes a student's feedback page from the record of the last grading and what the gradebook says now.

    Work that only stock nbgrader has graded has no record; its page then shows the gradebook's points.
    """

    file_extension = ".html"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # An exporter lives for one run of nbgrader's command, in which the gradebook stays as it is.
        self._read: dict[str, tuple[dict[str, StudentStanding], dict[str, tuple[str, Change]]]] = {}

    def from_filename(self, filename: str, resources: Any = None, **_: Any) -> Any:
        """Return the page and nbconvert's resources, in which nbgrader names student, assignment and notebook."""
        converter: Any = self.parent
        directory = converter.coursedir
        course = NbgraderCourse(Path(directory.root).resolve(), self.config, directory)
        named = resources["nbgrader"]
        student, assignment, notebook = named["student"], named["assignment"], named["notebook"]
        if assignment not in self._read:
            wanted = None if directory.student_id == "*" else [student]
            self._read[assignment] = read_standings(course, assignment, wanted), last_changes(course, assignment)
        standings, changes = self._read[assignment]
        standing = standings.get(student)
        record = journal_of(course.root, assignment).record(student) or _from_gradebook(assignment, student, standing)
        graded = json.loads(Path(filename).read_bytes())
        shown = graded if isinstance(graded, Mapping) else {}
        page = render(Row(record, standing), notebook, shown, "", changes.get(student))
        resources["output_extension"] = self.file_extension
        return page, resources


def _from_gradebook(assignment: str, student: str, standing: StudentStanding | None) -> SubmissionRecord:
    """Return a record that says what the gradebook knows about work that `fourbit grade` has not graded."""
    found = standing.questions.items() if standing else ()
    questions = tuple(
        QuestionRecord(notebook, name, _status(mark), _points(mark), mark.max_score, "in process")
        for (notebook, name), mark in found
    )
    return SubmissionRecord(assignment, student, "graded", questions)


def _status(mark: Standing) -> Status:
    if mark.auto_score is None:
        return "manual"
    return "passed" if mark.auto_score >= mark.max_score else "partly" if mark.auto_score > 0 else "failed"


def _points(mark: Standing) -> float | None:
    return None if mark.auto_score is None else min(max(mark.auto_score, 0.0), mark.max_score)
