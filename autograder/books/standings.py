"""How students stand in an assignment, read from nbgrader's database in a few queries for a class of any size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Standing:
    """What the gradebook says about one question of one student; None where nothing is set.

    Attributes:
        score: what counts: the manual score, else the automatic one, and extra credit.
    """

    score: float
    max_score: float
    auto_score: float | None = None
    manual_score: float | None = None
    extra_credit: float | None = None
    needs_manual_grade: bool = False
    comment: str = ""

    @property
    def waits(self) -> bool:
        """Whether `score` says nothing yet: a person has to give points and has not."""
        return self.needs_manual_grade and self.manual_score is None


@dataclass(frozen=True)
class StudentStanding:
    """A student and how they stand in one assignment; `questions` by (notebook, question).

    Attributes:
        lms_id: the student's id in a learning management system, where the gradebook has one.
        handed_in, due: in UTC without a zone, as nbgrader stores them; `due` with the student's extension.
    """

    student: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    late_penalty: float = 0.0
    questions: Mapping[tuple[str, str], Standing] = field(default_factory=dict)
    lms_id: str = ""
    handed_in: datetime | None = None
    due: datetime | None = None

    @property
    def score(self) -> float:
        """Points that count, the late penalty taken off."""
        return sum(standing.score for standing in self.questions.values()) - self.late_penalty

    @property
    def max_score(self) -> float:
        return sum(standing.max_score for standing in self.questions.values())


def standings(db: Any, assignment: str, students: Collection[str] | None = None) -> dict[str, StudentStanding]:
    """Return how everybody with a row for `assignment` stands, by student id.

    Args:
        db: the session of an nbgrader `Gradebook`.
        students: only these; None = everybody.
    """
    tables = _Tables(db, assignment, students)
    questions, penalties = tables.questions(), tables.penalties()
    found = {}
    for student, first, last, email, lms_id, handed_in, extension, due in tables.people():
        names = (first or "", last or "", email or "")
        late = due + extension if due and extension else due
        found[student] = StudentStanding(
            student, *names, penalties.get(student, 0.0), questions.get(student, {}), lms_id or "", handed_in, late
        )
    return found


class _Tables:
    """The rows of one assignment; every query starts at its submissions."""

    def __init__(self, db: Any, assignment: str, students: Collection[str] | None) -> None:
        from nbgrader import api

        self.api, self.db = api, db
        self._mine: list[Any] = [api.Assignment.name == assignment]
        if students is not None:
            self._mine.append(api.SubmittedAssignment.student_id.in_(list(students)))

    def people(self) -> Any:
        person, handed_in = self.api.Student, self.api.SubmittedAssignment
        who = (person.first_name, person.last_name, person.email, person.lms_user_id)
        when = (handed_in.timestamp, handed_in.extension, self.api.Assignment.duedate)
        return self._submissions(*who, *when).join(person, handed_in.student_id == person.id)

    def penalties(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for student, _, penalty in self._notebooks(self.api.SubmittedNotebook.late_submission_penalty):
            found[student] = found.get(student, 0.0) + float(penalty or 0.0)
        return found

    def questions(self) -> dict[str, dict[tuple[str, str], Standing]]:
        graded = (self.api.GradeCell, self.api.TaskCell)
        cells = {cell.id: (cell.name, float(cell.max_score)) for kind in graded for cell in self.db.query(kind)}
        comments, grade = self._comments(), self.api.Grade
        scores = (grade.score, grade.auto_score, grade.manual_score, grade.extra_credit, grade.needs_manual_grade)
        rows = self._notebooks(grade.cell_id, *scores).join(grade, grade.notebook_id == self.api.SubmittedNotebook.id)
        found: dict[str, dict[tuple[str, str], Standing]] = {}
        for student, notebook, cell, score, auto, manual, extra, needs in rows:
            name, most = cells.get(cell, ("", 0.0))
            if name:
                said = comments.get((student, notebook, name), "")
                standing = Standing(float(score), most, auto, manual, extra, bool(needs), said)
                found.setdefault(student, {})[notebook, name] = standing
        return found

    def _comments(self) -> dict[tuple[str, str, str], str]:
        names = dict(self.db.query(self.api.BaseCell.id, self.api.BaseCell.name).all())
        said = self.api.Comment
        rows = self._notebooks(said.cell_id, said.comment).join(said, said.notebook_id == self.api.SubmittedNotebook.id)
        return {(student, notebook, names.get(cell, "")): text for student, notebook, cell, text in rows if text}

    def _submissions(self, *columns: Any) -> Any:
        handed_in = self.api.SubmittedAssignment
        rows = self.db.query(handed_in.student_id, *columns).select_from(handed_in)
        return rows.join(self.api.Assignment, handed_in.assignment_id == self.api.Assignment.id).filter(*self._mine)

    def _notebooks(self, *columns: Any) -> Any:
        """Return rows of (student, notebook's name, columns), one for each notebook and what is joined to it."""
        sheet, handed_in = self.api.SubmittedNotebook, self.api.SubmittedAssignment
        rows = self._submissions(self.api.Notebook.name, *columns)
        return rows.join(sheet, sheet.assignment_id == handed_in.id).join(
            self.api.Notebook, sheet.notebook_id == self.api.Notebook.id
        )
