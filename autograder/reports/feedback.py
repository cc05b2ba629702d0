"""A student's feedback: one self-contained page per notebook, with no script and no request to anywhere.

Hidden tests are not on it, only what they said. Everything of the student's is escaped or passes an allowlist.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from autograder.books.gradebook import Standing
from autograder.books.journal import journal_of, write_atomically
from autograder.books.regrade import Change
from autograder.judging.sanitize import safe_attachments, safe_html, safe_outputs
from autograder.nbgrader_course import NbgraderCourse
from autograder.reports.attention import limit_name
from autograder.reports.rows import Row
from autograder.reports.wide import number
from autograder.results import QuestionRecord

_WORDS = {
    "passed": "Passed", "partly": "Partly right", "failed": "Not right yet", "error": "Stopped with an error",
    "timeout": "Ran out of time", "crashed": "Crashed", "out of memory": "Ran out of memory",
    "missing": "Not answered", "tampered": "Did not run as it should", "manual": "Waits for a person",
}  # fmt: skip


# How a question was judged, so that everybody knows what a verdict is worth.
_JUDGED = {
    "exam": "judged outside your program, on inputs that you have not seen",
    "isolated": "judged outside your program, in a process of its own",
    "in process": "judged by a test cell in the same process as your code",
}
_CLOCKS = {
    "receipt": "by the course's own clock",
    "timestamp.txt": "by the time stamp that came with the submission",
    "gradebook": "as the gradebook has it",
    "": "",
}


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
    def judged(self) -> str:
        """How the question was judged, in words; "" when nothing was."""
        return _JUDGED.get(self.question.mode, "")

    @property
    def limit(self) -> str:
        """The limit that was hit, in words; "" for none."""
        return limit_name(self.question.limit)

    @property
    def points(self) -> str:
        return f"{'?' if self.standing.waits else number(self.standing.score)} / {number(self.standing.max_score)}"


def write_feedback(course: NbgraderCourse, rows: Sequence[Row], notes_url: str = "") -> list[str]:
    """Write a page for each notebook of each row into the course's ``feedback/``, where nbgrader's tools look for it.

    Args:
        notes_url: where the lecture notes can be read ("" = their place in the repository is named instead).

    Returns:
        The paths written.
    """
    written = []
    histories: dict[str, dict[str, tuple[str, Change]]] = {}
    for row in rows:
        assignment = row.record.assignment
        if assignment not in histories:
            histories[assignment] = last_changes(course, assignment)
        folder = course.path("autograded", row.student, assignment)
        target = course.path("feedback", row.student, assignment)
        for name in dict.fromkeys(q.notebook for q in row.record.questions):
            page = render(row, name, _read(folder / f"{name}.ipynb"), notes_url, histories[assignment].get(row.student))
            path = target / f"{name}.html"
            if _bytes(path) != (data := page.encode("utf-8")):  # to wait for the disk 3,000 times takes minutes
                write_atomically(path, data)
            written.append(str(path))
    return written


def render(
    row: Row,
    notebook_name: str,
    notebook: Mapping[str, Any],
    notes_url: str = "",
    regraded: tuple[str, Change] | None = None,
) -> str:
    """Return one notebook's feedback as an HTML page.

    Args:
        notebook: the graded notebook as JSON; {} when there is none.
        regraded: when the work was last graded again, and what that changed.
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
        judged=_mostly(sections),
        late=_late(row),
        penalty=number(row.standing.late_penalty) if row.standing and row.standing.late_penalty else "",
        regraded=regraded,
        link=lambda link: f"{notes_url.rstrip('/')}/{link.removeprefix('lecture_notes/')}" if notes_url else "",
        number=number,
    )


def markdown(text: str) -> Markup:
    """Return Markdown as harmless HTML; raw HTML in it shows as text."""
    return Markup(safe_html(_markdown().render(text))) if text else Markup()


def _mostly(sections: Sequence[Section]) -> str:
    """Return how most questions of a notebook were judged; it is said once, and exceptions where they are."""
    ways = Counter(section.judged for section in sections if section.judged)
    return ways.most_common(1)[0][0] if ways else ""


def _late(row: Row) -> str:
    """Say when late work came in and by whose clock; "" for work in time."""
    late = row.record.late
    if late is None or (not late.seconds and not late.note):
        return ""
    told = []
    if late.at and late.seconds:
        told.append(f"Handed in {_ago(late.seconds)} after the due date, on {_time(late.at)} {_CLOCKS[late.source]}.")
    return " ".join([*told, *([late.note] if late.note else [])])


def _time(at: str) -> str:
    """Return a time of the records (UTC, ISO 8601) for people."""
    try:
        return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return at


def _ago(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds / size
            return f"{count:.0f} {unit}{'' if round(count) == 1 else 's'}"
    return "less than a minute"


def last_changes(course: NbgraderCourse, assignment: str) -> dict[str, tuple[str, Change]]:
    """Return each student's last regrade that changed points."""
    history = journal_of(course.root, assignment).history()
    return {change.student: (_time(at), change) for at, change in history if change.old != change.new}


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


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
        return Answer(markdown(source), tuple(_attached(cell.get("attachments"))))
    return Answer(Markup("<pre><code>{}</code></pre>").format(source), tuple(_shown(cell.get("outputs", ()))))


def _attached(attachments: Any) -> list[Markup]:
    """Return the pictures of a written answer, which stand below its text."""
    pictures = safe_attachments(attachments) if isinstance(attachments, Mapping) else {}
    image = Markup('<img alt="{}" src="data:{};base64,{}">')
    return [
        image.format(name, mime, data.strip()) for name, bundle in pictures.items() for mime, data in bundle.items()
    ]


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
