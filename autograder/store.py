"""The only writer: nbgrader's gradebook, the autograded notebooks and the journal.

One database transaction per submission. What humans put into the gradebook (manual scores, comments, extra
credit, extensions) is never touched. The order is record, database, notebooks, journal; whatever is interrupted
in between is simply graded again, for the journal's line is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from autograder.gradebook import open_gradebook
from autograder.journal import Journal, journal_of, write_atomically
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, QuestionRecord, SubmissionRecord
from autograder.template import NotebookTemplate, Template, TemplateCell

_READ_ONLY = 0o444


class Store:
    """An open gradebook of a course, for one assignment.

    Raises:
        GradingError: when the database cannot be opened or does not fit the assignment.
    """

    def __init__(self, course: NbgraderCourse, template: Template) -> None:
        self.course = course
        self.template = template
        self.journal: Journal = journal_of(course.root, template.assignment)
        self.gradebook = open_gradebook(course)
        # The rows of the assignment are the same for the whole class: no need to read them again after each commit.
        self.gradebook.db().expire_on_commit = False
        try:
            self._register()
        except BaseException:
            self.gradebook.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gradebook.close()

    def students(self) -> set[str]:
        """Return the ids of the students that the gradebook knows."""
        from nbgrader.api import Student

        return {row[0] for row in self.gradebook.db.query(Student.id)}

    def submitted(self) -> set[str]:
        """Return the ids of the students who have a row for this assignment."""
        return {submission.student_id for submission in self.gradebook.assignment_submissions(self.template.assignment)}

    def write(
        self, record: SubmissionRecord, notebooks: Mapping[str, str], files: Mapping[str, bytes], when: str = ""
    ) -> None:
        """Store one result: gradebook, ``autograded/`` and journal.

        Args:
            notebooks: graded notebooks as JSON text, by notebook name.
            files: the student's own files that belong beside them.
            when: time of submission as nbgrader writes it ("" = unknown).
        """
        before = self.journal.record(record.student)
        self.journal.keep(record)
        try:
            self._write_grades(record, before, _parse_time(when))
            self.gradebook.db.commit()
        except BaseException:
            self.gradebook.db.rollback()
            raise
        self._write_files(record.student, notebooks, files, when)
        self.journal.finish(record)

    def _register(self) -> None:
        """Put the assignment into the gradebook if ``nbgrader generate_assignment`` has not, or bring it up to date."""
        from nbgrader.preprocessors import SaveCells

        self.gradebook.update_or_create_assignment(self.template.assignment)
        known = {nb.name: nb for nb in self.gradebook.find_assignment(self.template.assignment).notebooks}
        for notebook in self.template.notebooks:
            if notebook.name in known and _same_cells(known[notebook.name], notebook):
                continue
            where = {"notebook": notebook.name, "assignment": self.template.assignment, "db_url": self.course.db_url}
            self.gradebook.db.commit()
            try:
                SaveCells(config=self.course.config).preprocess(_as_nbformat(notebook), {"nbgrader": where})
            except RuntimeError:
                raise GradingError(
                    f"the cells of {notebook.name!r} in source/ are not those in the gradebook, which already holds "
                    "submissions of it. Restore the grade ids in source/, or start with a fresh gradebook."
                ) from None
            self.gradebook.db.expire_all()

    def _write_grades(self, record: SubmissionRecord, before: SubmissionRecord | None, when: datetime | None) -> None:
        submission = self._submission(record.student)
        if when is not None:
            submission.timestamp = when
        questions = {(q.notebook, q.name): q for q in record.questions}
        earlier = {(q.notebook, q.name): q for q in before.questions} if before else {}
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                key = (notebook.name, grade.name)
                if key in questions:
                    look = record.outcome != "graded"
                    _set_grade(grade, questions[key], earlier.get(key), look)
            self._comment(notebook, questions)
        self.gradebook.db.flush()
        self._late_penalties(submission)

    def _submission(self, student: str) -> Any:
        """Return the submission row of `student` with a grade for every graded cell, creating what is missing."""
        from nbgrader.api import Comment, Grade, MissingEntry, Student, SubmittedAssignment, SubmittedNotebook

        db = self.gradebook.db
        assignment = self.gradebook.find_assignment(self.template.assignment)
        try:
            submission = self.gradebook.find_submission(self.template.assignment, student)
        except MissingEntry:
            person = db.get(Student, student)
            if person is None:
                person = Student(id=student)
                db.add(person)
            submission = SubmittedAssignment(assignment=assignment, student=person)
            db.add(submission)
        there = {notebook.notebook_id or notebook.notebook.id: notebook for notebook in submission.notebooks}
        for notebook in assignment.notebooks:
            mine = there.get(notebook.id)
            if mine is None:
                mine = SubmittedNotebook(notebook=notebook, assignment=submission)
                db.add(mine)
            graded = {grade.cell_id for grade in mine.grades}
            noted = {comment.cell_id for comment in mine.comments}
            for cell in (*notebook.grade_cells, *notebook.task_cells):
                if cell.id not in graded:
                    db.add(Grade(cell_id=cell.id, notebook=mine))
            for cell in (*notebook.solution_cells, *notebook.task_cells):
                if cell.id not in noted:
                    db.add(Comment(cell_id=cell.id, notebook=mine))
        db.flush()
        return submission

    def _comment(self, notebook: Any, questions: Mapping[tuple[str, str], QuestionRecord]) -> None:
        """Set nbgrader's automatic comment on answers that were left as they were handed out."""
        for comment in notebook.comments:
            question = questions.get((notebook.name, comment.name))
            if question is not None:
                comment.auto_comment = "No response." if question.status == "missing" else None

    def _late_penalties(self, submission: Any) -> None:
        from nbgrader.preprocessors import AssignLatePenalties

        stage = AssignLatePenalties(config=self.course.config)
        stage.init_plugin()
        late = submission.total_seconds_late
        for notebook in submission.notebooks:
            self.gradebook.db.refresh(notebook)
            notebook.late_submission_penalty = None
            if late > 0:
                penalty = stage.plugin_inst.late_submission_penalty(submission.student.id, notebook.score, late)
                if penalty is not None:
                    notebook.late_submission_penalty = min(max(penalty, 0), notebook.score)

    def _write_files(self, student: str, notebooks: Mapping[str, str], files: Mapping[str, bytes], when: str) -> None:
        """Replace the student's folder in ``autograded/`` file by file, then remove what no longer belongs there."""
        folder = self.course.path("autograded", student, self.template.assignment)
        wanted = {f"{name}.ipynb": text.encode() for name, text in notebooks.items()} | dict(files)
        if when:
            wanted["timestamp.txt"] = f"{when}\n".encode()
        for name, data in wanted.items():
            _make_room(folder, name)
            write_atomically(folder / name, data, _READ_ONLY)
        for path in sorted(folder.rglob("*"), reverse=True):
            inside = path.relative_to(folder).as_posix()
            if inside not in wanted and not any(name.startswith(inside + "/") for name in wanted):
                _remove(path)


def _set_grade(grade: Any, question: QuestionRecord, earlier: QuestionRecord | None, look: bool) -> None:
    """Set what the grader found; a human's score stays, and is looked at again only if the answer has changed.

    Args:
        look: a human should look in any case, because the submission could not be graded.
    """
    same_answer = earlier is not None and earlier.answer == question.answer and grade.auto_score == question.points
    grade.auto_score = question.points
    if grade.manual_score is None:
        grade.needs_manual_grade = look or question.points is None
    elif not same_answer:
        grade.needs_manual_grade = True


def _same_cells(known: Any, notebook: NotebookTemplate) -> bool:
    """Whether the gradebook holds exactly the cells of the template."""
    stored = {cell.name: (cell.source, cell.cell_type, bool(cell.locked)) for cell in known.source_cells}
    wanted = {cell.grade_id: (cell.source, cell.kind, cell.is_locked) for cell in notebook.cells if cell.role != "free"}
    points = {cell.name: float(cell.max_score) for cell in (*known.grade_cells, *known.task_cells)}
    return stored == wanted and points == {cell.grade_id: cell.points for cell in notebook.graded}


def _as_nbformat(notebook: NotebookTemplate) -> Any:
    from nbformat import from_dict

    return from_dict(
        {
            "cells": [_cell_json(cell) for cell in notebook.cells],
            "metadata": json.loads(json.dumps(notebook.metadata)),
            "nbformat": 4,
            "nbformat_minor": notebook.nbformat_minor,
        }
    )


def _cell_json(cell: TemplateCell) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "cell_type": cell.kind,
        "metadata": json.loads(json.dumps(cell.metadata)),
        "source": cell.source,
    }
    return entry | ({"outputs": [], "execution_count": None} if cell.kind == "code" else {})


def _make_room(folder: Path, name: str) -> None:
    """Remove a folder that stands where a file belongs, and files and links that stand where its folders belong."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        _remove(path)
    for parent in path.relative_to(folder).parents:
        place = folder / parent
        if place != folder and (place.is_symlink() or place.is_file()):
            _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _parse_time(when: str) -> datetime | None:
    """Return a submission time in UTC without its zone, as nbgrader stores it; None when it is not a time."""
    from nbgrader.utils import parse_utc

    if not when.strip():
        return None
    try:
        moment = parse_utc(when.strip())
    except (ValueError, OverflowError, TypeError):
        return None
    return moment if moment.year > 1970 and moment <= datetime.now(UTC).replace(tzinfo=None) else None
