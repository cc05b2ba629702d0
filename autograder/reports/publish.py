"""Everything that is written and shown after a class was graded, or after people graded by hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from autograder.books.gradebook import shown_url
from autograder.nbgrader_course import CONFIG, NbgraderCourse, open_course
from autograder.reports.class_report import write_class_report
from autograder.reports.feedback import write_feedback
from autograder.reports.rows import Row, class_rows
from autograder.reports.table import class_table, mistakes_table
from autograder.reports.wide import write_csv
from autograder.results import GradingError, SubmissionRecord

# Makes nbgrader's feedback command and formgrader's buttons write the page that this package writes.
EXPORTER = "autograder.reports.nbgrader_feedback.FeedbackExporter"


def show_class(folder: Path, assignment: str, records: Sequence[SubmissionRecord] | None, console: Console) -> None:
    """Print the class table and the most common mistakes; write feedback, ``grades.csv`` and the class report.

    Args:
        records: who was graded now, for the table and feedback; None = everybody who was ever graded.

    Raises:
        GradingError: when there is no such course or assignment, or nobody was graded.
    """
    course = open_course(folder)
    course.require(assignment)
    everybody = class_rows(course, assignment)
    rows = everybody if records is None else _rows_of(records, everybody)
    if not rows:
        raise GradingError(
            f"nobody's {assignment} has been graded in {course.root}; `fourbit grade {assignment}` does that"
        )
    console.print(class_table(rows, assignment))
    if (mistakes := mistakes_table(rows)) is not None:
        console.print(mistakes)
    pages = write_feedback(course, rows)
    grades = course.root / "grades.csv"
    write_csv(grades, everybody or rows)
    page = write_class_report(course, assignment, _with_ungraded(everybody, rows))
    for title, text in (
        ("Report", str(page)),
        ("Feedback", f"{len(pages)} pages in {course.root / 'feedback'}"),
        *_warnings(course, everybody),
        ("Grades", f"{grades} (for Canvas and Moodle: fourbit export {assignment})"),
        ("Gradebook", shown_url(course)),
        ("By hand", "formgrader (menu Nbgrader) in the JupyterLab that this starts:"),
        ("", f"cd {course.root} && {sys.executable} -m jupyterlab"),
    ):
        console.print(f"{title:<10} {text}", soft_wrap=True, highlight=False, markup=False)


def _warnings(course: NbgraderCourse, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return what to tell the owner of a course about nbgrader's own pages, which are not ours to mend."""
    told = []
    if "exporter_class" not in course.config.get("GenerateFeedback", {}):
        line = f'c.GenerateFeedback.exporter_class = "{EXPORTER}"'
        told.append(("", f"nbgrader's own pages would show hidden tests; in {CONFIG}: {line}"))
    markup = [row.student for row in rows if set(row.name) & set('<>"')]
    if markup:
        listed = ", ".join(markup[:5])
        told.append(("Names", f"{len(markup)} hold markup, which formgrader would obey; change them first: {listed}"))
    return told


def _rows_of(records: Sequence[SubmissionRecord], everybody: Sequence[Row]) -> list[Row]:
    """Return a row for each record, with the standing that was read for the class."""
    standings = {row.student: row.standing for row in everybody}
    return [Row(record, standings.get(record.student)) for record in records]


def _with_ungraded(everybody: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the class and those of `rows` that have no result: nobody sees them otherwise."""
    there = {row.student for row in everybody}
    return sorted([*everybody, *(row for row in rows if row.student not in there)], key=lambda row: row.student)
