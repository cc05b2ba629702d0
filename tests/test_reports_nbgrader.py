"""What nbgrader's own feedback command and formgrader's buttons hand out: our page, without a line of a hidden test."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from rich.console import Console

from autograder.grade import grade_assignment
from autograder.nbgrader_course import NbgraderCourse, load_template
from autograder.reports.publish import show_class
from tests.plain_course import GOOD, make_course, nbgrader, released, submit

pytestmark = [pytest.mark.linux, pytest.mark.slow]

EXPORTER = 'c.GenerateFeedback.exporter_class = "autograder.reports.nbgrader_feedback.FeedbackExporter"\n'
ANSWERS = {
    "good": GOOD,
    "wrong": GOOD | {"mean": "def mean(numbers):\n    return sum(numbers) / len(numbers) if numbers else 1.0"},
    "raises": GOOD | {"mean": "def mean(numbers):\n    return numbers[0]"},
    "empty": {},
}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> NbgraderCourse:
    course, template = make_course(tmp_path_factory.mktemp("reports") / "course")
    config = course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + EXPORTER)
    for student, answers in ANSWERS.items():
        submit(course, student, released(template, answers))
    submit(course, "broken", b'{"cells": [')
    result = grade_assignment(course.root, "ps1", jobs=1)
    show_class(course.root, "ps1", result.records, Console(quiet=True))
    return course


def hidden_lines(course: NbgraderCourse) -> list[str]:
    """The lines of the source that students are not given."""
    found = []
    for cell in load_template(course, "ps1").notebooks[0].cells:
        given = set(cell.release.splitlines())
        found += [line.strip() for line in cell.source.splitlines() if line not in given and len(line.strip()) > 4]
    assert len(found) > 3
    return found


def pages(course: NbgraderCourse) -> dict[str, str]:
    found = {path.parts[-3]: path.read_text() for path in (course.root / "feedback").glob("*/ps1/ps1.html")}
    assert set(found) == {*ANSWERS, "broken"}
    return found


def visible(page: str) -> str:
    """A page's text with tags taken out and entities read, so that no coloring can hide a line."""
    import html

    return html.unescape(re.sub(r"<[^>]+>", "", page))


def no_line_of(hidden: list[str], found: dict[str, str]) -> None:
    # What stands in an answer cell of the source is a solution, which a student may well have written alike.
    for student, page in found.items():
        for line in hidden:
            if "assert" in line or "HIDDEN" in line:
                assert line not in visible(page), (student, line)


def test_no_page_holds_a_line_of_a_hidden_test(course: NbgraderCourse) -> None:
    hidden = hidden_lines(course)
    no_line_of(hidden, pages(course))
    report = (course.root / "reports" / "ps1.html").read_text()
    no_line_of(hidden, {"report": report})
    # The message of a hidden test is for the student.
    assert "the mean of nothing is 0.0 here" in pages(course)["wrong"]


def test_nbgraders_command_writes_the_same_pages(course: NbgraderCourse) -> None:
    before = pages(course)
    nbgrader(course.root, "generate_feedback", "ps1", "--force")
    assert pages(course) == before


def test_the_gradebook_has_the_last_word_there_too(course: NbgraderCourse) -> None:
    from autograder.books.gradebook import open_gradebook

    gradebook = open_gradebook(course)
    gradebook.find_grade("why", "ps1", "ps1", "good").manual_score = 1.75
    gradebook.find_grade("why", "ps1", "ps1", "good").needs_manual_grade = False
    gradebook.find_comment("why", "ps1", "ps1", "good").manual_comment = "Well *argued*."
    gradebook.db.commit()
    gradebook.close()
    nbgrader(course.root, "generate_feedback", "ps1", "--force", "--student", "good")
    page = pages(course)["good"]
    assert "1.75 / 2" in page
    assert "<em>argued</em>" in page


def test_work_that_stock_nbgrader_graded_gets_a_page_without_hidden_tests(tmp_path: Path) -> None:
    course, template = make_course(tmp_path / "course")
    config = course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + EXPORTER)
    submit(course, "wrong", released(template, ANSWERS["wrong"]))
    nbgrader(course.root, "generate_assignment", "ps1", "--force")
    nbgrader(course.root, "autograde", "ps1", "--create")
    nbgrader(course.root, "generate_feedback", "ps1")
    page = (course.root / "feedback" / "wrong" / "ps1" / "ps1.html").read_text()
    assert "test_mean" in page
    no_line_of(hidden_lines(course), {"wrong": page})
    assert "<script" not in page


def test_what_formgrader_would_obey_or_show_is_told(tmp_path: Path) -> None:
    """A course without the exporter, and a name that is markup: nbgrader's pages take both as they are."""
    from autograder.books.gradebook import open_gradebook

    course, template = make_course(tmp_path / "course")
    submit(course, "eve", released(template, GOOD))
    result = grade_assignment(course.root, "ps1", jobs=1)
    gradebook = open_gradebook(course)
    gradebook.update_or_create_student("eve", first_name="<script>alert(1)</script>")
    gradebook.close()
    output = io.StringIO()
    show_class(course.root, "ps1", result.records, Console(file=output, width=300))
    assert f"in nbgrader_config.py: {EXPORTER.strip()}" in output.getvalue()
    assert "1 hold markup, which formgrader would obey; change them first: eve" in output.getvalue()


def test_report_and_export_commands_say_what_they_wrote(course: NbgraderCourse) -> None:
    import sys

    def fourbit(*arguments: str) -> str:
        command = [sys.executable, "-m", "fourbit", *arguments, "--course", str(course.root)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = fourbit("report", "ps1")
    assert "hidden tests" not in said  # the course's configuration has the exporter
    page = course.root / "reports" / "ps1.html"
    assert str(page) in said
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "5 submissions, 4 graded, 1 unreadable" in text
    assert 'href="../feedback/broken/ps1/ps1.html"' in text
    said = fourbit("export", "ps1", "--format", "long")
    path = course.root / "exports" / "ps1-long.csv"
    assert str(path) in said
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["student_id"] for row in rows} == {*ANSWERS, "broken"}
