"""The rows of nbgrader's gradebook that hold one assignment's grades, read and written without its object mapper.

The mapper loads a graph of objects for each student and reads it again after each change; a handful of statements
on the same tables does the same for a class of thousands. What a human enters (manual scores, comments, extra
credit, extensions, names) is read here and never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from autograder.results import QuestionRecord, SubmissionRecord


@dataclass(frozen=True)
class NotebookRow:
    """A notebook of the assignment; `graded` and `answered`: names of its graded and its answer cells by row id."""

    id: str
    name: str
    graded: Mapping[str, str]
    answered: Mapping[str, str]


@dataclass(frozen=True)
class AssignmentRow:
    """An assignment; `duedate` in UTC without a zone, as nbgrader stores it."""

    id: str
    name: str
    duedate: datetime | None
    notebooks: tuple[NotebookRow, ...]


@dataclass(frozen=True)
class SubmissionRow:
    """A student's submission.

    Attributes:
        notebooks: row ids of the submitted notebooks, by the notebook's row id.
        penalties: late penalties by row id of the submitted notebook; a row that was made just now is not there.
    """

    id: str
    student: str
    timestamp: datetime | None
    extension: timedelta | None
    notebooks: Mapping[str, str]
    penalties: Mapping[str, float | None]


def seconds_late(assignment: AssignmentRow, submission: SubmissionRow, at: datetime | None) -> float:
    """Return by how much work that came in `at` missed the due date, extension included; 0 without a time or date."""
    if at is None or assignment.duedate is None:
        return 0.0
    due = assignment.duedate + (submission.extension or timedelta())
    return max(0.0, (at - due).total_seconds())


def read_assignment(gradebook: Any, name: str) -> AssignmentRow:
    """Return the rows of an assignment that is in the gradebook."""
    assignment = gradebook.find_assignment(name)
    notebooks = tuple(
        NotebookRow(
            notebook.id,
            notebook.name,
            {cell.id: cell.name for cell in (*notebook.grade_cells, *notebook.task_cells)},
            {cell.id: cell.name for cell in (*notebook.solution_cells, *notebook.task_cells)},
        )
        for notebook in assignment.notebooks
    )
    return AssignmentRow(assignment.id, assignment.name, assignment.duedate, notebooks)


def submitted_students(db: Any, assignment: AssignmentRow) -> set[str]:
    """Return the ids of the students who have a row for the assignment."""
    from nbgrader.api import SubmittedAssignment
    from sqlalchemy import select

    table = SubmittedAssignment.__table__
    return set(db.execute(select(table.c.student_id).where(table.c.assignment_id == assignment.id)).scalars())


def find_submission(db: Any, assignment: AssignmentRow, student: str) -> SubmissionRow | None:
    """Return a student's submission, or None."""
    return next(iter(find_submissions(db, assignment, student)), None)


def find_submissions(db: Any, assignment: AssignmentRow, student: str | None = None) -> list[SubmissionRow]:
    """Return everybody's submissions by student id, or those of one student."""
    from nbgrader.api import SubmittedAssignment, SubmittedNotebook
    from sqlalchemy import select

    whole, part = SubmittedAssignment.__table__, SubmittedNotebook.__table__
    query = (
        select(
            whole.c.id, whole.c.student_id, whole.c.timestamp, whole.c.extension,
            part.c.id, part.c.notebook_id, part.c.late_submission_penalty,
        )
        .select_from(whole.outerjoin(part, part.c.assignment_id == whole.c.id))
        .where(whole.c.assignment_id == assignment.id)
        .order_by(whole.c.student_id)
    )  # fmt: skip
    if student is not None:
        query = query.where(whole.c.student_id == student)
    found: dict[str, SubmissionRow] = {}
    for row in db.execute(query):
        submission = found.setdefault(row[0], SubmissionRow(row[0], row[1], row[2], row[3], {}, {}))
        if row[4] is not None:
            submission.notebooks[row[5]] = row[4]  # type: ignore[index]  # filled here, read-only for others
            submission.penalties[row[4]] = row[6]  # type: ignore[index]
    return list(found.values())


def ensure_submission(db: Any, assignment: AssignmentRow, student: str) -> SubmissionRow:
    """Return a student's submission with a row for every notebook, creating what is missing, the student included."""
    from nbgrader.api import Student, SubmittedAssignment, SubmittedNotebook, new_uuid
    from sqlalchemy import insert, select

    found = find_submission(db, assignment, student)
    if found is None:
        people = Student.__table__
        if db.execute(select(people.c.id).where(people.c.id == student)).first() is None:
            db.execute(insert(people).values(id=student))
        found = SubmissionRow(new_uuid(), student, None, None, {}, {})
        db.execute(
            insert(SubmittedAssignment.__table__).values(id=found.id, assignment_id=assignment.id, student_id=student)
        )
    missing = {nb.id: new_uuid() for nb in assignment.notebooks if nb.id not in found.notebooks}
    if not missing:
        return found
    rows = [{"id": own, "assignment_id": found.id, "notebook_id": notebook} for notebook, own in missing.items()]
    db.execute(insert(SubmittedNotebook.__table__), rows)
    return replace(found, notebooks={**found.notebooks, **missing})


def write_grades(
    db: Any, notebook: NotebookRow, own: str, record: SubmissionRecord, before: SubmissionRecord | None
) -> float:
    """Bring the grades of one submitted notebook up to date, and return its score, late penalty not taken off.

    Args:
        own: row id of the submitted notebook.
        before: the student's earlier record; tells whether an answer has changed since a human looked at it.
    """
    from nbgrader.api import Grade, new_uuid
    from sqlalchemy import bindparam, insert, select, update

    table = Grade.__table__
    columns = (table.c.id, table.c.cell_id, table.c.auto_score, table.c.manual_score, table.c.extra_credit)
    stored = db.execute(select(*columns, table.c.needs_manual_grade).where(table.c.notebook_id == own)).all()
    questions = {q.name: q for q in record.questions if q.notebook == notebook.name}
    earlier = {q.name: q for q in before.questions if q.notebook == notebook.name} if before else {}
    look = record.outcome != "graded"
    changes, score = [], 0.0
    for row in stored:
        auto, needs = row.auto_score, row.needs_manual_grade
        question = questions.get(notebook.graded.get(row.cell_id, ""))
        if question is not None:
            auto, needs = _judged(row, question, earlier.get(question.name), look)
        if (auto, needs) != (row.auto_score, row.needs_manual_grade):
            changes.append({"row": row.id, "auto": auto, "needs": needs})
        score += _score(auto, row.manual_score, row.extra_credit)
    new = []
    for cell in sorted(set(notebook.graded) - {row.cell_id for row in stored}, key=lambda cell: notebook.graded[cell]):
        question = questions.get(notebook.graded[cell])
        auto = question.points if question else None
        needs = look or auto is None
        new.append(
            {"id": new_uuid(), "cell_id": cell, "notebook_id": own, "auto_score": auto, "needs_manual_grade": needs}
        )
        score += auto or 0.0
    if changes:
        change = update(table).where(table.c.id == bindparam("row"))
        db.connection().execute(
            change.values(auto_score=bindparam("auto"), needs_manual_grade=bindparam("needs")), changes
        )
    if new:
        db.execute(insert(table), new)
    return score


def write_comments(db: Any, notebook: NotebookRow, own: str, record: SubmissionRecord) -> None:
    """Set nbgrader's automatic comment on answers that were left as they were handed out."""
    from nbgrader.api import Comment, new_uuid
    from sqlalchemy import bindparam, insert, select, update

    table = Comment.__table__
    stored = db.execute(select(table.c.id, table.c.cell_id, table.c.auto_comment).where(table.c.notebook_id == own))
    there = {row.cell_id: row for row in stored}
    status = {q.name: q.status for q in record.questions if q.notebook == notebook.name}
    changes, new = [], []
    for cell, name in notebook.answered.items():
        said = "No response." if status.get(name) == "missing" else None
        if cell not in there:
            new.append({"id": new_uuid(), "cell_id": cell, "notebook_id": own, "auto_comment": said})
        elif name in status and there[cell].auto_comment != said:
            changes.append({"row": there[cell].id, "said": said})
    if changes:
        change = update(table).where(table.c.id == bindparam("row")).values(auto_comment=bindparam("said"))
        db.connection().execute(change, changes)
    if new:
        db.execute(insert(table), new)


def write_time(db: Any, submission: SubmissionRow, at: datetime | None) -> None:
    """Set when the submission came in."""
    from nbgrader.api import SubmittedAssignment
    from sqlalchemy import update

    if at != submission.timestamp:
        table = SubmittedAssignment.__table__
        db.execute(update(table).where(table.c.id == submission.id).values(timestamp=at))


def write_penalty(db: Any, own: str, penalty: float | None) -> None:
    """Set the late penalty of one submitted notebook; None = no penalty."""
    from nbgrader.api import SubmittedNotebook
    from sqlalchemy import update

    table = SubmittedNotebook.__table__
    db.execute(update(table).where(table.c.id == own).values(late_submission_penalty=penalty))


def read_scores(db: Any, assignment: AssignmentRow) -> dict[str, float]:
    """Return the score of every submitted notebook of an assignment by its row id, late penalties not taken off."""
    from nbgrader.api import Grade, SubmittedNotebook
    from sqlalchemy import select

    grade, part = Grade.__table__, SubmittedNotebook.__table__
    rows = db.execute(
        select(grade.c.notebook_id, grade.c.auto_score, grade.c.manual_score, grade.c.extra_credit)
        .select_from(grade.join(part, part.c.id == grade.c.notebook_id))
        .where(part.c.notebook_id.in_([notebook.id for notebook in assignment.notebooks]))
    )
    scores: dict[str, float] = {}
    for own, *parts in rows:
        scores[own] = scores.get(own, 0.0) + _score(*parts)
    return scores


def _judged(
    row: Any, question: QuestionRecord, earlier: QuestionRecord | None, look: bool
) -> tuple[float | None, bool]:
    """Return the automatic score, and whether a human should look.

    A human's score stays, and is looked at again only if the answer or its automatic score has changed.
    """
    if row.manual_score is None:
        return question.points, look or question.points is None
    same = earlier is not None and earlier.answer == question.answer and row.auto_score == question.points
    return question.points, bool(row.needs_manual_grade) or not same


def _score(auto: float | None, manual: float | None, extra: float | None) -> float:
    """What nbgrader counts: the human's score, else the automatic one, and extra credit on top of either."""
    counted = auto if manual is None else manual
    return 0.0 if counted is None else counted + (extra or 0.0)
