"""Opening nbgrader's gradebook, and reading from it what humans and the grader have put there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autograder.books.standings import Standing, StudentStanding, standings
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, plain

__all__ = ["Standing", "StudentStanding", "open_gradebook", "read_standings", "shown_url"]

# Rows are looked up by these columns for each submission, and nbgrader's own keys do not begin with them: without an
# index each look-up reads the whole table, and time grows with the square of the class (formgrader's list of 3,000
# submissions takes 8.1 s of CPU time in the database without these and 0.3 s with them).
_INDEXES = {"grade": ("notebook_id",), "comment": ("notebook_id",), "submitted_notebook": ("assignment_id",)}
# Lists of students join the total scores to all of a student's columns. SQLite reads all scores again for each student
# unless one index holds these columns (3,000 students: 0.36 s of CPU time without it and 0.01 s with it).
_SQLITE_INDEXES = {"student": ("id", "first_name", "last_name", "email", "lms_user_id")}
_BUSY_MILLISECONDS = 30_000


def open_gradebook(course: NbgraderCourse) -> Any:
    """Return nbgrader's `Gradebook` of a course, made where there is none, with the indexes that a large class needs.

    Raises:
        GradingError: when the database cannot be reached or is none of nbgrader's.
    """
    from nbgrader.api import Gradebook
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _schema_head_in_process():
            gradebook = Gradebook(course.db_url, course.course_id)
        _prepare(gradebook.engine)
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise GradingError(f"the gradebook {shown_url(course)} cannot be used: {_reason(error)}") from None
    return gradebook


def shown_url(course: NbgraderCourse) -> str:
    """Return the address of a course's database without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return str(make_url(course.db_url).render_as_string(hide_password=True))
    except ArgumentError:
        return "(an invalid db_url)"


def _prepare(engine: Any) -> None:
    """Have connections wait for each other, and add the indexes that are not there, where that is allowed."""
    from sqlalchemy import event, inspect, text
    from sqlalchemy.exc import DBAPIError

    wanted: dict[str, tuple[str, ...]] = dict(_INDEXES)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _wait_when_busy)
        engine.dispose()  # the connections made so far do not know
        wanted |= _SQLITE_INDEXES
    found = inspect(engine)
    missing = {table: columns for table, columns in wanted.items() if _is_missing(found, table, columns)}
    if not missing:
        return
    with suppress(DBAPIError), engine.begin() as connection:  # a gradebook that may only be read is read without them
        for table, columns in missing.items():
            name = f"fourbit_{table}_{columns[0]}"
            connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({', '.join(columns)})"))


def _is_missing(found: Any, table: str, columns: tuple[str, ...]) -> bool:
    """Whether no index begins with `columns`, all of which the table has: an old gradebook may lack some."""
    if any(tuple(index["column_names"][: len(columns)]) == columns for index in found.get_indexes(table)):
        return False
    return set(columns) <= {column["name"] for column in found.get_columns(table)}


def _wait_when_busy(connection: Any, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")


def _reason(error: BaseException) -> str:
    """Return in words why a database does not work, and what to install when it is the driver."""
    driver = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if driver:
        return f"its driver {driver} is not installed. `pip install {driver}` adds it, in this environment"
    return plain(getattr(error, "orig", None) or error, 500)


def read_standings(
    course: NbgraderCourse, assignment: str, students: Collection[str] | None = None
) -> dict[str, StudentStanding]:
    """Return how everybody with a row for `assignment` stands, by student id; a few queries for a class of any size.

    Args:
        students: only these; None = everybody.
    """
    gradebook = open_gradebook(course)
    try:
        return standings(gradebook.db, assignment, students)
    finally:
        gradebook.close()


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
