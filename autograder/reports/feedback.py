"""A student's feedback: one self-contained page per notebook, with no script and no request to anywhere.

Hidden tests are not on it, only what they said. Everything of the student's is escaped or passes an allowlist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from autograder.gradebook import Standing
from autograder.journal import write_atomically
from autograder.nbgrader_course import NbgraderCourse
from autograder.reports.rows import Row
from autograder.reports.wide import number
from autograder.results import QuestionRecord
from autograder.sanitize import safe_html, safe_outputs

_WORDS = {
    "passed": "Passed", "partly": "Partly right", "failed": "Not right yet", "error": "Stopped with an error",
    "timeout": "Ran out of time", "crashed": "Crashed", "out of memory": "Ran out of memory",
    "missing": "Not answered", "tampered": "Did not run as it should", "manual": "Waits for a person",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One answer cell as the student wrote it; `shown` is what it displayed, already harmless HTML."""

    text: Markup
    shown: tuple[Markup, ...]


@dataclass(frozen=True)
class Section:
    """One question on the page."""

    question: QuestionRecord
    standing: Standing
    status: str
    answers: tuple[Answer, ...]
    comment: Markup

    @property
    def points(self) -> str:
        waits = self.standing.needs_manual_grade and self.standing.manual_score is None
        return f"{'?' if waits else number(self.standing.score)} / {number(self.standing.max_score)}"


def write_feedback(course: NbgraderCourse, rows: Sequence[Row], notes_url: str = "") -> list[str]:
    """Write a page for each notebook of each row into the course's ``feedback/``, where nbgrader's tools look for it.

    Args:
        notes_url: where the lecture notes can be read ("" = their place in the repository is named instead).

    Returns:
        The paths written.
    """
    written = []
    for row in rows:
        folder = course.path("autograded", row.student, row.record.assignment)
        target = course.path("feedback", row.student, row.record.assignment)
        for name in dict.fromkeys(q.notebook for q in row.record.questions):
            notebook = _read(folder / f"{name}.ipynb")
            path = target / f"{name}.html"
            write_atomically(path, render(row, name, notebook, notes_url).encode("utf-8"))
            written.append(str(path))
    return written


def render(row: Row, notebook_name: str, notebook: Mapping[str, Any], notes_url: str = "") -> str:
    """Return one notebook's feedback as an HTML page.

    Args:
        notebook: the graded notebook as JSON; {} when there is none.
    """
    answers = _answers(notebook)
    questions = [q for q in row.record.questions if q.notebook == notebook_name]
    sections = [_section(row, question, answers.get(question.name, ())) for question in questions]
    return _template().render(
        row=row,
        record=row.record,
        notebook=notebook_name,
        sections=sections,
        score=number(sum(s.standing.score for s in sections)),
        max_score=number(sum(s.standing.max_score for s in sections)),
        waiting=sum(s.standing.needs_manual_grade for s in sections),
        penalty=number(row.standing.late_penalty) if row.standing and row.standing.late_penalty else "",
        link=lambda link: f"{notes_url.rstrip('/')}/{link.removeprefix('lecture_notes/')}" if notes_url else "",
        number=number,
    )


def markdown(text: str) -> Markup:
    """Return Markdown as harmless HTML; raw HTML in it shows as text."""
    return Markup(safe_html(_markdown().render(text)))


def _section(row: Row, question: QuestionRecord, cells: Sequence[Mapping[str, Any]]) -> Section:
    standing = row.of(question)
    status = "Graded by hand" if standing.manual_score is not None else _WORDS[question.status]
    comment = standing.comment if standing.comment != "No response." else ""
    return Section(question, standing, status, tuple(map(_answer, cells)), markdown(comment))


def _answers(notebook: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the answer cells that belong to each graded cell, by its grade id."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    pending: list[Mapping[str, Any]] = []
    for cell in notebook.get("cells", ()):
        nbgrader = cell.get("metadata", {}).get("nbgrader", {})
        if nbgrader.get("grade") and nbgrader.get("solution"):
            found[nbgrader["grade_id"]] = [cell]
        elif nbgrader.get("grade"):
            found[nbgrader["grade_id"]], pending = pending, []
        elif nbgrader.get("solution"):
            pending.append(cell)
    return found


def _answer(cell: Mapping[str, Any]) -> Answer:
    source = str(cell.get("source", ""))
    if cell.get("cell_type") == "markdown":
        return Answer(markdown(source), ())
    return Answer(Markup("<pre><code>{}</code></pre>").format(source), tuple(_shown(cell.get("outputs", ()))))


def _shown(outputs: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return what an answer displayed; only its pictures, tables, text and error."""
    shown = []
    for output in safe_outputs(outputs):
        data = output.get("data", {})
        image = next((mime for mime in data if mime.startswith("image/")), None)
        if image is not None:
            shown.append(Markup('<img alt="output" src="data:{};base64,{}">').format(image, data[image].strip()))
        elif "text/html" in data:
            shown.append(Markup(safe_html(data["text/html"])))
        else:
            text = output.get("text") or data.get("text/plain") or f"{output.get('ename')}: {output.get('evalue')}"
            shown.append(Markup("<pre>{}</pre>").format(str(text)[:4_000]))
    return shown


def _read(path: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


@cache
def _template() -> Template:
    source = files("autograder.reports").joinpath("feedback.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
