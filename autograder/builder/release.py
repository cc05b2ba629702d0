"""From the instructor's notebook to the student's, by nbgrader's own preprocessors, in process.

The list is that of ``nbgrader generate_assignment`` less the two that do nothing here (header and footer, autotests)
and the one that writes to the gradebook. A course made by :mod:`autograder.course` configures stock nbgrader with
:class:`ClearLabSolutions`, so that ``nbgrader generate_assignment`` gives the same bytes as :func:`release`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import nbformat
from nbformat.notebooknode import NotebookNode
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    IncludeHeaderFooter,
    InstantiateTests,
    LockCells,
    SaveCells,
)


class ClearLabSolutions(ClearSolutions):
    """nbgrader's ClearSolutions, with two differences that its options cannot express.

    The stub names the exercise, so that the error of an unwritten one says which it is. A prediction, whose cell is
    the student's to edit but holds no solution, keeps its text: ClearSolutions would replace the whole cell.
    """

    code_stub: Any  # nbgrader's option, of which a type checker sees nothing

    def preprocess_cell(self, cell: NotebookNode, resources: Any, cell_index: int) -> tuple[NotebookNode, Any]:
        fourbit = cell.metadata.get("fourbit", {})
        if fourbit.get("role") == "prediction":
            return cell, resources
        stubs = self.code_stub
        try:
            if "exercise" in fourbit:
                self.code_stub = {**stubs, "python": stub(fourbit["exercise"])}
            return super().preprocess_cell(cell, resources, cell_index)
        finally:
            self.code_stub = stubs


STEPS = (
    LockCells, ClearLabSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums, ClearHiddenTests, ClearMarkScheme,
    ComputeChecksums, CheckCellMetadata,
)  # fmt: skip
# For `c.GenerateAssignment.preprocessors`: nbgrader's default list with one class exchanged.
GENERATE = (
    IncludeHeaderFooter, InstantiateTests, LockCells, ClearLabSolutions, ClearOutput, CheckCellMetadata,
    ComputeChecksums, SaveCells, ClearHiddenTests, ClearMarkScheme, ComputeChecksums, CheckCellMetadata,
)  # fmt: skip


def stub(exercise: str) -> str:
    """What stands in a student's notebook in place of the solution."""
    return f'# Your code here.\nraise NotImplementedError("{exercise} is not written yet")'


def release(source: NotebookNode) -> NotebookNode:
    """Return the student's form of an instructor's notebook, which stays as it is."""
    notebook = copy.deepcopy(source)
    resources: dict[str, Any] = {"metadata": {}}
    for step in STEPS:
        notebook, resources = step().preprocess(notebook, resources)
    return notebook


def sources_hash(notebook: NotebookNode) -> str:
    """A hash of what a person edits in a notebook: the types and sources of its cells, in order."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stamp(source: NotebookNode, lab: str) -> tuple[NotebookNode, NotebookNode]:
    """Return the instructor's and the student's notebook, both recording the hashes of what was generated.

    Both carry both hashes: nbgrader copies notebook metadata from the one to the other, and the two have to agree.
    """
    source = copy.deepcopy(source)
    source.metadata["fourbit"] = {"lab": lab, "generated": [sources_hash(release(source)), sources_hash(source)]}
    return source, release(source)


def to_bytes(notebook: NotebookNode) -> bytes:
    """The notebook as a file, as nbgrader writes it."""
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, version=4)
    return (text if text.endswith("\n") else text + "\n").encode()
