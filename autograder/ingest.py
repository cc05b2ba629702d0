"""From a submission's bytes to a notebook that can be trusted in everything but the answers.

The notebook is rebuilt from the instructor's template: cells, order, ids, tags, points, kernel and tests are the
template's; only the text of the answer cells is the student's. Other code that the student wrote runs where the
student put it. Deleted cells come back, edits of locked cells are undone, and every such repair is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autograder.files import keep_files
from autograder.matching import Matching, match_cells
from autograder.results import plain
from autograder.template import STUDENT_ROLES, NotebookTemplate, Template, TemplateCell
from autograder.untrusted import Caps, RawSubmission, StudentCell, UnreadableError, parse_notebook

Origin = Literal["template", "student", "edited", "extra"]


@dataclass(frozen=True)
class RebuiltCell:
    """One cell of the notebook that is graded.

    Attributes:
        origin: "template" (as the instructor wrote it), "student" (an answer), "edited" (the student's version of a
            cell that was theirs to edit) or "extra" (a cell that the student added).
        cell: the template cell, or None for an extra one.
        answered: for answer cells, whether the text differs from what was handed out.
    """

    kind: str
    source: str
    origin: Origin
    cell: TemplateCell | None = None
    answered: bool = False
    attachments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        return self.kind == "code" and (self.cell is None or self.cell.runs)


@dataclass(frozen=True)
class Ingested:
    """One notebook of a submission, rebuilt.

    Attributes:
        problem: why the student's notebook could not be read ("" when it was); `cells` are then the template's own.
        prefix_untouched: nothing of the student's stands among the cells that are the same for the whole class.
    """

    name: str
    cells: tuple[RebuiltCell, ...]
    notes: tuple[str, ...] = ()
    problem: str = ""
    prefix_untouched: bool = True


@dataclass(frozen=True)
class IngestedSubmission:
    """A submission, rebuilt: its notebooks in the template's order, and the files beside them by path."""

    notebooks: tuple[Ingested, ...]
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether at least one notebook could be read."""
        return any(not notebook.problem for notebook in self.notebooks)


def ingest(template: Template, raw: RawSubmission, caps: Caps | None = None) -> IngestedSubmission:
    """Rebuild every notebook of `template` from a submission; never raises for what the submission holds."""
    caps = caps or Caps()
    parsed: dict[str, list[StudentCell] | UnreadableError] = {}
    for name, data in raw.files.items():
        if _is_notebook(name):
            try:
                parsed[name] = parse_notebook(data, caps)
            except UnreadableError as error:
                parsed[name] = error
    chosen, notes = _choose(template, parsed)
    notebooks = tuple(_ingest_one(nb, chosen.get(nb.name), parsed, caps) for nb in template.notebooks)
    files, file_notes = keep_files(template.files, {n: d for n, d in raw.files.items() if not _is_notebook(n)})
    return IngestedSubmission(notebooks, files, (*raw.notes, *notes, *file_notes))


def rebuild(template: NotebookTemplate, cells: Sequence[StudentCell], extra: int = 500) -> Ingested:
    """Put the student's answers and own cells into the template."""
    matching = match_cells(template, cells)
    notes = list(matching.notes)
    added = _extras(template, cells, matching, notes)
    if sum(map(len, added.values())) > extra:
        notes.append(f"more than {extra} cells were added; the ones after that are left out")
    rebuilt = _trimmed(added.get(-1, []), extra)
    last_prefix = max(template.prefix(), default=-1)
    untouched = not rebuilt
    for position, cell in enumerate(template.cells):
        theirs = matching.pairs.get(position)
        rebuilt.append(_fill(cell, None if theirs is None else cells[theirs], notes))
        if position <= last_prefix:
            untouched = (
                untouched and rebuilt[-1].origin == "template" and not (position in added and position < last_prefix)
            )
        room = extra - sum(c.origin == "extra" for c in rebuilt)
        rebuilt.extend(_trimmed(added.get(position, []), room))
    return Ingested(template.name, tuple(rebuilt), tuple(notes), prefix_untouched=untouched)


def _ingest_one(
    template: NotebookTemplate, file: str | None, parsed: Mapping[str, list[StudentCell] | UnreadableError], caps: Caps
) -> Ingested:
    found = parsed.get(file) if file is not None else None
    if isinstance(found, list):
        return rebuild(template, found, caps.extra_cells)
    empty = rebuild(template, [StudentCell(i, c.kind, c.release, c.grade_id) for i, c in enumerate(template.cells)])
    problem = f"{template.name}.ipynb is not in the submission" if found is None else f"{plain(file, 200)}: {found}"
    return Ingested(template.name, empty.cells, (), problem)


def _is_notebook(name: str) -> bool:
    return bool(re.search(r"\.ipynb(\.(txt|json))?$", name, re.IGNORECASE))


def _choose(
    template: Template, parsed: Mapping[str, list[StudentCell] | UnreadableError]
) -> tuple[dict[str, str], list[str]]:
    """Return which file is which notebook: by name, else by the one file that is clearly meant."""
    chosen = {nb.name: f"{nb.name}.ipynb" for nb in template.notebooks if f"{nb.name}.ipynb" in parsed}
    notes = []
    for notebook in template.notebooks:
        if notebook.name in chosen:
            continue
        spare = [name for name in parsed if name not in chosen.values()]
        found = _meant(notebook, spare, parsed, alone=len(template.notebooks) == 1)
        if len(found) == 1:
            chosen[notebook.name] = found[0]
            notes.append(f"{plain(found[0], 200)} was taken for {notebook.name}.ipynb, which it should be called")
        elif spare:
            names = ", ".join(plain(name, 80) for name in spare[:5])
            notes.append(f"{notebook.name}.ipynb is missing; rename the right one of: {names}")
    return chosen, notes


def _meant(
    notebook: NotebookTemplate,
    spare: Sequence[str],
    parsed: Mapping[str, list[StudentCell] | UnreadableError],
    alone: bool,
) -> list[str]:
    """Return the files that could be meant by `notebook`, judged by name, then by the cells they hold."""
    wanted = _plain_name(notebook.name)
    by_name = [name for name in spare if _plain_name(_stem(name)) == wanted]
    if len(by_name) == 1:
        return by_name
    ids = {cell.grade_id for cell in notebook.cells if cell.grade_id}
    held = {name: _held(parsed[name], ids) for name in by_name or spare}
    most = max(held.values(), default=0)
    if most:
        return [name for name, count in held.items() if count == most]
    return list(spare) if alone and len(spare) == 1 else []


def _held(cells: list[StudentCell] | UnreadableError, ids: set[str]) -> int:
    return 0 if isinstance(cells, UnreadableError) else len(ids & {cell.grade_id for cell in cells})


def _stem(name: str) -> str:
    return re.sub(r"\.ipynb(\.(txt|json))?$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE)


def _plain_name(name: str) -> str:
    """Return a file name without what browsers, copies and hurried hands add to it."""
    name = re.sub(r"\s*\(\d+\)$|[-_ ]copy\s*\d*$|^copy[-_ ]of[-_ ]", "", name.casefold())
    return re.sub(r"[\W_]+", "", name)


def _fill(cell: TemplateCell, theirs: StudentCell | None, notes: list[str]) -> RebuiltCell:
    """Return one template cell with the student's text where it is theirs to write."""
    if cell.role in STUDENT_ROLES:
        if theirs is None:
            notes.append(f"the answer cell {cell.grade_id!r} was deleted; it came back as it was handed out")
            return RebuiltCell(cell.kind, cell.release, "student", cell)
        answered = theirs.source.strip() != cell.release.strip() or bool(theirs.attachments)
        return RebuiltCell(cell.kind, theirs.source, "student", cell, answered, theirs.attachments)
    if theirs is None:
        if cell.kind == "code":
            notes.append(f"{_label(cell)} was deleted; it came back")
    elif theirs.source.strip() != cell.release.strip():
        if cell.role == "free" and cell.kind == "code":
            return RebuiltCell("code", theirs.source, "edited", cell)
        if cell.kind == "code":
            notes.append(f"{_label(cell)} was edited; the instructor's text was put back")
    return RebuiltCell(cell.kind, cell.source, "template", cell, attachments=cell.attachments)


def _label(cell: TemplateCell) -> str:
    kind = {"test": "the test cell", "locked": "the read-only cell"}.get(cell.role, "the cell")
    first = next((line.strip() for line in cell.release.splitlines() if line.strip()), "")
    return f"{kind} {cell.grade_id!r}" if cell.grade_id else f"{kind} that starts with {plain(first, 40)!r}"


def _extras(
    template: NotebookTemplate, cells: Sequence[StudentCell], matching: Matching, notes: list[str]
) -> dict[int, list[RebuiltCell]]:
    """Return the student's own cells by the template cell that they follow; -1 is the top of the notebook."""
    ours_of = matching.student()
    early = _moved_up(template, matching)
    added: dict[int, list[RebuiltCell]] = {}
    anchor = -1
    for position, cell in enumerate(cells):
        ours = ours_of.get(position)
        if ours is None and not _is_copy_of_template(template, cell):
            kind = "code" if cell.kind == "code" else "markdown"
            if cell.source.strip() or cell.attachments:
                added.setdefault(anchor, []).append(
                    RebuiltCell(kind, cell.source, "extra", attachments=cell.attachments)
                )
        elif ours is not None and ours in early:
            added.setdefault(anchor, []).append(RebuiltCell("code", cell.source, "extra"))
            notes.append(
                f"the answer {template.cells[ours].grade_id!r} was moved up; it runs there and at its own place"
            )
        elif ours is not None:
            anchor = ours
            edited_prose = template.cells[ours].kind == "markdown" and template.cells[ours].role not in STUDENT_ROLES
            if edited_prose and cell.source.strip() != template.cells[ours].release.strip():
                added.setdefault(ours, []).append(
                    RebuiltCell("markdown", cell.source, "extra", attachments=cell.attachments)
                )
    return added


def _moved_up(template: NotebookTemplate, matching: Matching) -> set[int]:
    """Return the code answers that the student placed before an earlier code answer of the template."""
    placed = sorted((t, s) for t, s in matching.pairs.items() if template.cells[t].role == "answer")
    return {t for i, (t, s) in enumerate(placed) if any(s < other for _, other in placed[:i])}


def _is_copy_of_template(template: NotebookTemplate, cell: StudentCell) -> bool:
    """Whether an unmatched cell is a second copy of a test or locked cell: it would only run twice."""
    return any(
        cell.grade_id == ours.grade_id or cell.source.strip() == ours.release.strip()
        for ours in template.cells
        if ours.grade_id and ours.role not in STUDENT_ROLES and cell.kind == ours.kind
    )


def _trimmed(cells: Iterable[RebuiltCell], room: int) -> list[RebuiltCell]:
    return list(cells)[: max(room, 0)]
