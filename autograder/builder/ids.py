"""Names of cells that stay the same from build to build.

No text format keeps nbformat's cell ids, so they are derived: an id that changed at each build would make every
build a difference in git and detach a student's answers from the template.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from autograder.builder.source import SourceCell

_CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def grade_ids(cells: Sequence[SourceCell]) -> list[str]:
    """nbgrader's name for each cell: "magnitude_mask", "check-magnitude_mask", "written-why-cliff", "prose-3".

    Unnamed cells count up within their role and not by their text, so that a mended typo changes no name: nbgrader
    refuses an assignment whose set of names changed after the first submission.
    """
    counts: dict[str, int] = {}
    names = []
    for cell in cells:
        if cell.role == "exercise":
            names.append(cell.name)
        elif cell.name:
            names.append(f"{cell.role}-{cell.name}")
        else:
            counts[cell.role] = counts.get(cell.role, 0) + 1
            names.append(f"{cell.role}-{counts[cell.role]}")
    return names


def cell_id(grade_id: str) -> str:
    """The nbformat id of a cell: its grade id where the format allows it, else a hash of it."""
    if _CELL_ID.fullmatch(grade_id):
        return grade_id
    return hashlib.sha256(grade_id.encode()).hexdigest()[:16]
