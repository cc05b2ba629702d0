"""The class report: one HTML page about an assignment for whoever teaches it, with no script and no request.

It answers, in this order: how did the class do, which exercises worked, what went wrong and how often, what did it
cost, whose work needs a person, and who may have worked together. Tables that would not be read are cut, and say so.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from autograder.books.journal import journal_of, write_atomically
from autograder.books.regrade import Change
from autograder.nbgrader_course import NbgraderCourse, load_template
from autograder.reports.attention import Look, limit_name, needs_a_look, used_up
from autograder.reports.charts import histogram, item_map
from autograder.reports.rows import Row
from autograder.reports.similarity import (
    ENOUGH,
    LEAST_SCORE,
    Answers,
    Pair,
    Passage,
    Similarity,
    compare,
    known_runs,
    side_by_side,
)
from autograder.reports.statistics import MIN_CLASS, Item, Spread, items, percentile, spread
from autograder.reports.wide import number
from autograder.results import GradingError

MOST_LOOKS = 200
MOST_CHANGES = 100
_MOST_PASSAGES = 12
_LONGEST_PASSAGE = 6_000


@dataclass(frozen=True)
class Cost:
    """Seconds that grading one submission took, over the class, and the limits that were hit."""

    total: float
    median: float
    slowest: float
    limits: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PairView:
    """A pair of similar submissions and their answers side by side."""

    pair: Pair
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class ClassReport:
    """All that the page shows.

    Attributes:
        graded: rows whose submission could be graded; statistics are about these.
        changes: (time, change) of regrades that changed points, the newest first.
        unread: why the template could not be left out of the comparison, or "".
    """

    assignment: str
    rows: tuple[Row, ...]
    graded: tuple[Row, ...]
    spread: Spread | None
    items: tuple[Item, ...]
    cost: Cost | None
    looks: tuple[Look, ...]
    similarity: Similarity
    pairs: tuple[PairView, ...]
    changes: tuple[tuple[str, Change], ...]
    unread: str = ""


def write_class_report(course: NbgraderCourse, assignment: str, rows: Sequence[Row]) -> Path:
    """Write the page of an assignment to ``reports/`` in the course, and return its path."""
    path = course.root / "reports" / f"{assignment}.html"
    report = make_report(course, assignment, rows)
    names = sorted({q.notebook for row in rows for q in row.record.questions})
    text = render(report, lambda student: _feedback_links(course, path, student, assignment, names))
    write_atomically(path, text.encode("utf-8"))
    return path


def make_report(course: NbgraderCourse, assignment: str, rows: Sequence[Row]) -> ClassReport:
    """Gather what the page shows: from records, gradebook, graded notebooks and the history of regrades."""
    graded = tuple(row for row in rows if row.record.outcome == "graded")
    found = tuple(items(rows))
    handed_out, unread = _handed_out(course, assignment)
    submissions = {row.student: read_answers(course, row) for row in graded}
    similarity = compare(submissions, handed_out)
    known = known_runs(handed_out) if similarity.pairs else frozenset()
    views = tuple(
        PairView(pair, _passages(submissions[pair.first], submissions[pair.second], known)) for pair in similarity.pairs
    )
    return ClassReport(
        assignment, tuple(rows), graded, spread([row.score for row in graded]), found, _cost(graded),
        tuple(needs_a_look(rows, found)), similarity, views, _changes(course, assignment), unread,
    )  # fmt: skip


def render(report: ClassReport, links: Any = lambda student: ()) -> str:
    """Return the page as HTML.

    Args:
        links: (student) -> (notebook, address) of each of the student's feedback pages.
    """
    scores = [row.score for row in report.graded]
    most = max((row.max_score for row in report.graded), default=0.0)
    return _template().render(
        report=report,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        mean=math.fsum(scores) / len(scores) if scores else 0.0,
        most=most,
        histogram=Markup(histogram(scores, most, report.spread)) if report.spread else "",
        item_map=Markup(item_map(report.items)),
        outcomes=Counter(row.record.outcome for row in report.rows).most_common(),
        jails=Counter(row.record.jail for row in report.graded if row.record.jail).most_common(),
        several=len({item.notebook for item in report.items}) > 1,
        waiting=sum(row.waiting() for row in report.graded),
        waiters=sum(bool(row.waiting()) for row in report.graded),
        looks=report.looks[:MOST_LOOKS],
        links=links,
        number=number,
        limit_name=limit_name,
        least=LEAST_SCORE,
        enough=ENOUGH,
        min_class=MIN_CLASS,
    )


def read_answers(course: NbgraderCourse, row: Row) -> Answers:
    """Return what a student wrote, from the graded notebooks: every cell that is neither locked nor a test."""
    folder = course.path("autograded", row.student, row.record.assignment)
    found: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(q.notebook for q in row.record.questions):
        for position, cell in enumerate(_cells(folder / f"{name}.ipynb")):
            nbgrader = cell.get("metadata", {}).get("nbgrader", {})
            solution = bool(nbgrader.get("solution"))
            if solution or (cell.get("cell_type") == "code" and not nbgrader.get("locked")):
                label = nbgrader.get("grade_id") or f"cell {position + 1}"
                found[f"{name}: {label}"] = (str(cell.get("cell_type")), str(cell.get("source", "")))
    return found


def _cells(path: Path) -> list[Mapping[str, Any]]:
    try:
        return list(json.loads(path.read_bytes())["cells"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _handed_out(course: NbgraderCourse, assignment: str) -> tuple[list[tuple[str, str]], str]:
    """Return the cells that students were given, or why they could not be read."""
    try:
        template = load_template(course, assignment)
    except GradingError as error:
        return [], str(error)
    return [(cell.kind, cell.release) for notebook in template.notebooks for cell in notebook.cells], ""


def _passages(first: Answers, second: Answers, known: frozenset[int]) -> tuple[Passage, ...]:
    found = side_by_side(first, second, known)[:_MOST_PASSAGES]
    return tuple(Passage(p.cell, _cut(p.first), _cut(p.second)) for p in found)


def _cut(pieces: Sequence[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    kept, room = [], _LONGEST_PASSAGE
    for text, shared in pieces:
        kept.append((text if len(text) <= room else text[:room] + " …", shared))
        room -= len(text)
        if room <= 0:
            break
    return tuple(kept)


def _cost(rows: Sequence[Row]) -> Cost | None:
    seconds = [row.record.seconds for row in rows]
    if not seconds:
        return None
    limits = Counter(limit for row in rows for limit in {used_up(q) for q in row.record.questions} if limit)
    return Cost(math.fsum(seconds), percentile(seconds, 0.5), percentile(seconds, 0.9), tuple(limits.most_common()))


def _changes(course: NbgraderCourse, assignment: str) -> tuple[tuple[str, Change], ...]:
    """Return each student's last regrade that changed points, the newest first."""
    last: dict[str, tuple[str, Change]] = {}
    for at, change in journal_of(course.root, assignment).history():
        if change.old != change.new or change.questions:
            last[change.student] = (at, change)
    return tuple(sorted(last.values(), key=lambda entry: entry[0], reverse=True)[:MOST_CHANGES])


def _feedback_links(
    course: NbgraderCourse, page: Path, student: str, assignment: str, notebooks: Sequence[str]
) -> list[tuple[str, str]]:
    folder = course.path("feedback", student, assignment)
    found = [(name, folder / f"{name}.html") for name in notebooks if (folder / f"{name}.html").is_file()]
    up = "../" * (len(page.relative_to(course.root).parts) - 1)
    return [(name, quote(up + path.relative_to(course.root).as_posix())) for name, path in found]


@cache
def _template() -> Template:
    source = files("autograder.reports").joinpath("class_report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
