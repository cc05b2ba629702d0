"""The graded notebook: the rebuilt cells with what they displayed, as nbgrader's own tools expect to find it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autograder.judging.sanitize import safe_attachments, safe_markdown, safe_outputs
from autograder.reading.ingest import Ingested, RebuiltCell
from autograder.reading.template import NotebookTemplate

_ESCAPED = str.maketrans({char: "\\" + char for char in "\\`*_{}[]<>#|$"})


def graded_notebook(
    template: NotebookTemplate,
    ingested: Ingested,
    outputs: Mapping[int, Sequence[Mapping[str, Any]]],
    verdicts: Mapping[int, Mapping[str, Any]],
) -> str:
    """Return the notebook as JSON text.

    Args:
        outputs: nbformat outputs by position in `ingested.cells`, from the student's process; they are made harmless.
        verdicts: one output each for the questions that were examined from outside.
    """
    with_ids = template.nbformat_minor >= 5
    cells = [_cell(position, cell, outputs.get(position, ())) for position, cell in enumerate(ingested.cells)]
    for position, verdict in verdicts.items():
        cells[position]["outputs"] = [dict(verdict)]
    told = _notes_cell(ingested)
    if told:
        cells.insert(0, told)
    if not with_ids:
        for entry in cells:
            entry.pop("id", None)
    metadata = json.loads(json.dumps(template.metadata))
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": template.nbformat_minor}
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cell(position: int, cell: RebuiltCell, outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_student = cell.origin != "template"
    attachments = safe_attachments(cell.attachments) if by_student else json.loads(json.dumps(cell.attachments))
    source = safe_markdown(cell.source, attachments) if by_student and cell.kind != "code" else cell.source
    entry: dict[str, Any] = {
        "cell_type": cell.kind,
        "id": cell.cell.id if cell.cell and cell.cell.id else f"cell-{position}",
        "metadata": json.loads(json.dumps(cell.cell.metadata)) if cell.cell else {},
        "source": source,
    }
    if cell.kind == "code":
        entry |= {"execution_count": None, "outputs": safe_outputs(outputs)}
    elif attachments:
        entry["attachments"] = attachments
    return entry


def _notes_cell(ingested: Ingested) -> dict[str, Any] | None:
    """Return a cell that tells what was mended, for the human who reads the graded notebook."""
    lines = [f"**This notebook could not be read:** {_text(ingested.problem)}"] if ingested.problem else []
    lines += [f"- {_text(note)}" for note in ingested.notes]
    if not lines:
        return None
    text = "*Noticed while reading the submission:*\n\n" + "\n".join(lines)
    return {"cell_type": "markdown", "id": "grader-notes", "metadata": {}, "source": text}


def _text(text: str) -> str:
    return text.translate(_ESCAPED)
