"""Opening nbgrader's gradebook, and reading from it what humans and the grader have put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, plain


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


@dataclass(frozen=True)
class StudentStanding:
    """A student and how they stand in one assignment; `questions` by (notebook, question)."""

    student: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    late_penalty: float = 0.0
    questions: Mapping[tuple[str, str], Standing] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Points that count, the late penalty taken off."""
        return sum(standing.score for standing in self.questions.values()) - self.late_penalty

    @property
    def max_score(self) -> float:
        return sum(standing.max_score for standing in self.questions.values())


def open_gradebook(course: NbgraderCourse) -> Any:
    """Return nbgrader's `Gradebook` of a course, made where there is none.

    Raises:
        GradingError: when the database cannot be reached or is none of nbgrader's.
    """
    from nbgrader.api import Gradebook
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _schema_head_in_process():
            return Gradebook(course.db_url, course.course_id)
    except (SQLAlchemyError, ImportError, OSError) as error:
        reason = plain(getattr(error, "orig", None) or error, 500)
        raise GradingError(f"the gradebook {_shown(course.db_url)} cannot be used: {reason}") from None


def read_standings(course: NbgraderCourse, assignment: str) -> dict[str, StudentStanding]:
    """Return how everybody with a row for `assignment` stands, by student id."""
    gradebook = open_gradebook(course)
    try:
        return {row.student_id: _student(row) for row in gradebook.assignment_submissions(assignment)}
    finally:
        gradebook.close()


def _student(submission: Any) -> StudentStanding:
    questions = {}
    for notebook in submission.notebooks:
        comments = {comment.name: comment.comment or "" for comment in notebook.comments}
        for grade in notebook.grades:
            questions[notebook.name, grade.name] = Standing(
                float(grade.score),
                float(grade.max_score),
                grade.auto_score,
                grade.manual_score,
                grade.extra_credit,
                bool(grade.needs_manual_grade),
                comments.get(grade.name, ""),
            )
    person = submission.student
    penalty = sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks)
    names = (person.first_name or "", person.last_name or "", person.email or "")
    return StudentStanding(person.id, *names, float(penalty), questions)


@contextmanager
def _schema_head_in_process() -> Iterator[None]:
    """Ask the library for the revision that marks a new database.

    nbgrader runs the program `alembic` for it, which takes seconds and is found only in an activated environment.
    """
    from nbgrader import api

    before = api.get_alembic_version
    api.get_alembic_version = _schema_head
    try:
        yield
    finally:
        api.get_alembic_version = before


def _schema_head() -> str:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from nbgrader import api

    config = Config()
    config.set_main_option("script_location", str(Path(api.__file__).parent / "alembic"))
    return str(ScriptDirectory.from_config(config).get_current_head())


def _shown(url: str) -> str:
    """Return a database URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return str(make_url(url).render_as_string(hide_password=True))
    except ArgumentError:
        return "(an invalid db_url)"
