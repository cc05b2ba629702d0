"""Which cell of a student's notebook is which cell of the template.

In order of trust: the grade id (the last copy that was written in counts), the cell id, the same text, and where all of
that was lost (metadata stripped by another editor), the functions a cell defines and its place between its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from autograder.reading.template import STUDENT_ROLES, NotebookTemplate, TemplateCell, defined_names
from autograder.reading.untrusted import StudentCell

_SIMILAR = 0.5
_COMPARED = 4_000


@dataclass
class Matching:
    """Pairs of positions, template to student, with the reasons for the unusual ones.

    Attributes:
        joined: for a written answer that lies in several of the student's cells, all of them; its pair is the last.
    """

    pairs: dict[int, int] = field(default_factory=dict)
    joined: dict[int, tuple[int, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def student(self) -> dict[int, int]:
        paired = {theirs: ours for ours, theirs in self.pairs.items()}
        return paired | {theirs: ours for ours, several in self.joined.items() for theirs in several}


def match_cells(template: NotebookTemplate, cells: Sequence[StudentCell]) -> Matching:
    """Return which of the student's cells fills each template cell; unmatched ones are absent."""
    matching = Matching()
    _by_grade_id(template, cells, matching)
    _by_cell_id(template, cells, matching)
    _by_text(template, cells, matching)
    _swapped_answers(template, cells, matching)
    _by_likeness(template, cells, matching)
    return matching


def _by_grade_id(template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching) -> None:
    places = {cell.grade_id: position for position, cell in enumerate(template.cells) if cell.grade_id}
    copies: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        if cell.grade_id in places:
            copies.setdefault(cell.grade_id, []).append(position)
    for grade_id, found in copies.items():
        ours = places[grade_id]
        handed_out = template.cells[ours].release.strip()
        written = [position for position in found if cells[position].source.strip() != handed_out]
        if template.cells[ours].role not in STUDENT_ROLES:
            written = []
        matching.pairs[ours] = (written or found)[-1]
        if len(found) > 1 and template.cells[ours].role in STUDENT_ROLES:
            copies_told = f"cell {grade_id!r} is there {len(found)} times"
            matching.notes.append(f"{copies_told}; the last one that was written in counts, others run where they are")


def _by_cell_id(template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching) -> None:
    taken = set(matching.pairs.values())
    places = {cell.id: position for position, cell in enumerate(cells) if cell.id and position not in taken}
    known = {cell.grade_id for cell in template.cells if cell.grade_id}
    for ours, wanted in enumerate(template.cells):
        theirs = places.get(wanted.id) if wanted.id else None
        if ours in matching.pairs or theirs is None or cells[theirs].grade_id in known:
            continue
        if wanted.kind != cells[theirs].kind and wanted.role not in STUDENT_ROLES:
            continue
        matching.pairs[ours] = theirs
        if wanted.role in STUDENT_ROLES:
            matching.notes.append(f"the answer to {wanted.grade_id!r} had lost its grade id; its cell id told")


def _by_text(template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching) -> None:
    """Pair cells of the same text, in order: anchors for everything that stands between them."""
    taken = set(matching.pairs.values())
    waiting: dict[tuple[str, str], list[int]] = {}
    for position, cell in enumerate(cells):
        if position not in taken:
            waiting.setdefault((cell.kind, cell.source.strip()), []).append(position)
    for ours, wanted in enumerate(template.cells):
        found = waiting.get((wanted.kind, wanted.release.strip()))
        if ours not in matching.pairs and found:
            matching.pairs[ours] = found.pop(0)


def _swapped_answers(template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching) -> None:
    """Undo renumbered grade ids: an answer that defines another question's function belongs to that question."""
    wrong: dict[int, frozenset[str]] = {}
    for ours, theirs in matching.pairs.items():
        cell = template.cells[ours]
        wanted = defined_names(cell.release)
        if cell.role == "answer" and wanted and not wanted & defined_names(cells[theirs].source):
            wrong[ours] = wanted
    claims = {
        ours: theirs
        for ours, wanted in wrong.items()
        for other, theirs in matching.pairs.items()
        if other in wrong and other != ours and wanted <= defined_names(cells[theirs].source)
    }
    freed = {ours for ours in wrong if ours in claims or matching.pairs[ours] in claims.values()}
    for ours in freed:
        matching.pairs.pop(ours)
    for ours, theirs in claims.items():
        matching.pairs[ours] = theirs
        grade_id = template.cells[ours].grade_id
        matching.notes.append(f"the answer to {grade_id!r} carried another cell's grade id; it was put back")


def _by_likeness(template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching) -> None:
    """Fill what is left between matched neighbours: editable cells whose identity was lost."""
    for ours, cell in enumerate(template.cells):
        if ours in matching.pairs or not (cell.role in STUDENT_ROLES or (cell.role == "free" and cell.kind == "code")):
            continue
        taken = set(matching.pairs.values())
        known = {c.grade_id for c in template.cells if c.grade_id}
        open_cells = [
            p for p, c in enumerate(cells) if p not in taken and c.kind == cell.kind and c.grade_id not in known
        ]
        gap = _gap(ours, len(cells), matching)
        found = _best(cell, cells, open_cells, gap)
        if found is None:
            _join(ours, cell, [position for position in open_cells if position in gap], matching)
            continue
        matching.pairs[ours] = found
        if cell.role in STUDENT_ROLES:
            lost = f"the answer to {cell.grade_id!r} had lost its grade id"
            matching.notes.append(f"{lost}; cell {found + 1} was taken for it")


def _join(ours: int, cell: TemplateCell, inside: Sequence[int], matching: Matching) -> None:
    """Take several cells for one written answer: some editors make a cell of each paragraph."""
    if cell.role != "manual" or cell.kind != "markdown" or len(inside) < 2:
        return
    matching.pairs[ours] = inside[-1]
    matching.joined[ours] = tuple(inside)
    listed = ", ".join(str(position + 1) for position in inside[:10])
    matching.notes.append(f"the answer to {cell.grade_id!r} had lost its grade id; cells {listed} were taken for it")


def _best(cell: TemplateCell, cells: Sequence[StudentCell], open_cells: Sequence[int], gap: range) -> int | None:
    wanted = defined_names(cell.release)
    if wanted:
        named = [p for p in open_cells if wanted <= defined_names(cells[p].source)]
        return named[-1] if named else None
    inside = [p for p in open_cells if p in gap]
    scored = sorted(((_likeness(cell.release, cells[p].source), -p) for p in inside), reverse=True)
    if scored and scored[0][0] >= _SIMILAR:
        return -scored[0][1]
    only_one = len(inside) == 1 and cell.role in STUDENT_ROLES
    return inside[0] if only_one else None


def _gap(ours: int, count: int, matching: Matching) -> range:
    """Positions in the student's notebook between the nearest matched neighbours of a template cell."""
    before = [theirs for other, theirs in matching.pairs.items() if other < ours]
    after = [theirs for other, theirs in matching.pairs.items() if other > ours]
    start = max(before, default=-1) + 1
    return range(start, min((p for p in after if p >= start), default=count))


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a[:_COMPARED], b[:_COMPARED], autojunk=False).ratio()
