"""`fourbit export`: an assignment's grades in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from autograder.books.journal import write_atomically
from autograder.exports import lms, tables
from autograder.exports.lms import Filled
from autograder.exports.sheet import Sheet, read_sheet
from autograder.nbgrader_course import open_course
from autograder.reports.rows import Row, class_rows
from autograder.reports.wide import to_csv
from autograder.results import GradingError, plain

FORMATS = ("csv", "long", "canvas", "moodle", "moodle-worksheet")


def export(
    folder: Path,
    assignment: str,
    form: str,
    template: Path | None,
    output: Path | None,
    column: str,
    console: Console,
) -> Path:
    """Write the grades of `assignment` and return the file's path; tell who could not be written.

    Args:
        form: one of `FORMATS`.
        template: the file that Canvas or Moodle gave out; it is never changed.
        output: where to write; None = ``exports/`` in the course.

    Raises:
        GradingError: for an unknown format, a missing or unfit template, or when nobody was graded.
    """
    if form not in FORMATS:
        raise GradingError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    course = open_course(folder)
    course.require(assignment)
    rows = class_rows(course, assignment)
    if not rows:
        raise GradingError(f"nobody's {assignment} has been graded yet; `fourbit grade {assignment}` does that")
    path = output or course.root / "exports" / f"{assignment}-{form}.csv"
    if template is not None and path.exists() and path.samefile(template):
        raise GradingError(f"{path} is the template itself; give another file with --output")
    made = _made(rows, assignment, form, template, column)
    write_atomically(path, made.data)
    console.print(f"{path}: {made.filled} of {len(rows)} students", soft_wrap=True, highlight=False, markup=False)
    for note in made.notes:
        console.print(f"  {plain(note)}", soft_wrap=True, highlight=False, markup=False)
    return path


def _made(rows: list[Row], assignment: str, form: str, template: Path | None, column: str) -> Filled:
    if form == "canvas":
        return lms.canvas(_needed(template, "the gradebook exported from Canvas"), rows, assignment, column)
    if form == "moodle-worksheet":
        return lms.moodle_worksheet(_needed(template, "the grading worksheet downloaded from Moodle"), rows)
    if form == "moodle":
        text, notes = tables.moodle(rows)
        return Filled(text.encode(), sum(map(lms.ready, rows)), notes)
    return Filled((tables.long(rows) if form == "long" else to_csv(rows)).encode(), len(rows), ())


def _needed(template: Path | None, what: str) -> Sheet:
    if template is None:
        raise GradingError(f"name {what} with --template; it is filled in, and a copy is written")
    return read_sheet(template)
