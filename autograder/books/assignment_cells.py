"""The cells of an assignment in nbgrader's gradebook: put there, or brought up to date with source/."""

from __future__ import annotations

import json
from typing import Any

from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import NotebookTemplate, Template, TemplateCell
from autograder.results import GradingError


def register_cells(course: NbgraderCourse, gradebook: Any, template: Template) -> None:
    """Put the assignment into the gradebook if ``nbgrader generate_assignment`` has not, or bring it up to date.

    Once there are submissions, nbgrader refuses an assignment with more cells or fewer. More are added here: every
    submission gets a row for them when it is graded. A question that is gone is refused here as well, for what
    humans gave for it would be lost.

    Raises:
        GradingError: when a graded cell is gone of which the gradebook holds submissions.
    """
    gradebook.update_or_create_assignment(template.assignment)
    known = {nb.name: nb for nb in gradebook.find_assignment(template.assignment).notebooks}
    for notebook in template.notebooks:
        there = known.get(notebook.name)
        if there is not None and _same_cells(there, notebook):
            continue
        if there is not None and there.submissions:
            _refuse_lost_questions(there, notebook)
            _add_cells(gradebook, there, notebook, template.assignment)
        gradebook.db.commit()
        _save(course, notebook, template.assignment)
        gradebook.db.expire_all()


def _save(course: NbgraderCourse, notebook: NotebookTemplate, assignment: str) -> None:
    """Have nbgrader write the cells as it does when it generates the assignment."""
    from nbgrader.preprocessors import SaveCells

    where = {"notebook": notebook.name, "assignment": assignment, "db_url": course.db_url}
    SaveCells(config=course.config).preprocess(_as_nbformat(notebook), {"nbgrader": where})


def _refuse_lost_questions(known: Any, notebook: NotebookTemplate) -> None:
    """Refuse when a question is gone, or an answer that a human has commented on."""
    lost = sorted(_names((*known.grade_cells, *known.task_cells)) - {cell.grade_id for cell in notebook.graded})
    lost += [cell.name for cell in _gone_answers(known, notebook) if any(c.manual_comment for c in cell.comments)]
    if lost:
        raise GradingError(
            f"{notebook.name} in source/ lacks {', '.join(lost)}, for which the gradebook holds grades or comments "
            "already. Restore the grade ids in source/ (a question that should not count is worth 0 points), or "
            "start with a fresh gradebook."
        )


def _add_cells(gradebook: Any, known: Any, notebook: NotebookTemplate, assignment: str) -> None:
    """Add the cells that are new, and take out those that hold nothing of a human's: nbgrader refuses a difference."""
    where = (notebook.name, assignment)
    graded, answers, tasks = _names(known.grade_cells), _names(known.solution_cells), _names(known.task_cells)
    for cell in notebook.cells:
        worth = {"max_score": cell.points, "cell_type": cell.kind}
        if cell.role in ("test", "manual") and cell.grade_id not in graded:
            gradebook.add_grade_cell(cell.grade_id, *where, **worth)
        if cell.role in ("answer", "manual") and cell.grade_id not in answers:
            gradebook.add_solution_cell(cell.grade_id, *where)
        if cell.role == "task" and cell.grade_id not in tasks:
            gradebook.add_task_cell(cell.grade_id, *where, **worth)
        if cell.role != "free" and cell.grade_id not in _names(known.source_cells):
            gradebook.add_source_cell(cell.grade_id, *where, source=cell.source, cell_type=cell.kind)
    for gone in _gone_answers(known, notebook):
        for comment in gone.comments:
            gradebook.db.delete(comment)
        gradebook.db.delete(gone)
    for source in list(known.source_cells):
        if source.name not in {cell.grade_id for cell in notebook.cells if cell.role != "free"}:
            gradebook.db.delete(source)
    gradebook.db.commit()
    gradebook.db.expire_all()


def _gone_answers(known: Any, notebook: NotebookTemplate) -> list[Any]:
    """Return the answer cells that source/ no longer has."""
    kept = {cell.grade_id for cell in notebook.cells if cell.role in ("answer", "manual")}
    return [cell for cell in known.solution_cells if cell.name not in kept]


def _names(cells: Any) -> set[str]:
    return {cell.name for cell in cells}


def _same_cells(known: Any, notebook: NotebookTemplate) -> bool:
    """Whether the gradebook holds exactly the cells of the template."""
    stored = {cell.name: (cell.source, cell.cell_type, bool(cell.locked)) for cell in known.source_cells}
    wanted = {cell.grade_id: (cell.source, cell.kind, cell.is_locked) for cell in notebook.cells if cell.role != "free"}
    points = {cell.name: float(cell.max_score) for cell in (*known.grade_cells, *known.task_cells)}
    return stored == wanted and points == {cell.grade_id: cell.points for cell in notebook.graded}


def _as_nbformat(notebook: NotebookTemplate) -> Any:
    from nbformat import from_dict

    return from_dict(
        {
            "cells": [_cell_json(cell) for cell in notebook.cells],
            "metadata": json.loads(json.dumps(notebook.metadata)),
            "nbformat": 4,
            "nbformat_minor": notebook.nbformat_minor,
        }
    )


def _cell_json(cell: TemplateCell) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "cell_type": cell.kind,
        "metadata": json.loads(json.dumps(cell.metadata)),
        "source": cell.source,
    }
    return entry | ({"outputs": [], "execution_count": None} if cell.kind == "code" else {})
