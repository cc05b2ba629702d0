"""From a submission's bytes to a notebook that can be trusted in everything but the answers.

The notebook is rebuilt from the instructor's template: cells, order, ids, tags, points, kernel and tests are the
template's; only the text of the answer cells is the student's. Other code that the student wrote runs where the
student put it. Deleted cells come back, edits of locked cells are undone, and every such repair is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autograder.reading.files import keep_files
from autograder.reading.matching import Matching, match_cells
from autograder.reading.notebook_files import Found, find_notebooks
from autograder.reading.template import STUDENT_ROLES, NotebookTemplate, Template, TemplateCell, defined_names
from autograder.reading.untrusted import Caps, RawSubmission, StudentCell, StudentNotebook
from autograder.results import plain

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
    found = find_notebooks(template, raw.files, caps)
    notebooks = tuple(_ingest_one(notebook, found, caps) for notebook in template.notebooks)
    files, file_notes = keep_files(template.files, found.others)
    return IngestedSubmission(notebooks, files, (*raw.notes, *found.notes, *file_notes))


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
    defined = frozenset[str]().union(*(defined_names(cell.source) for cell in cells if cell.kind == "code"))
    for position, cell in enumerate(template.cells):
        filled = _fill(cell, _student_cell(cells, matching, position), defined, notes)
        rebuilt.append(_with_own_cells(filled, added.get(position, []), notes))
        if position <= last_prefix:
            untouched = (
                untouched and rebuilt[-1].origin == "template" and not (position in added and position < last_prefix)
            )
        room = extra - sum(c.origin == "extra" for c in rebuilt)
        rebuilt.extend(_trimmed(added.get(position, []), room))
    return Ingested(template.name, tuple(rebuilt), tuple(notes), prefix_untouched=untouched)


def _ingest_one(template: NotebookTemplate, found: Found, caps: Caps) -> Ingested:
    path = found.chosen.get(template.name)
    theirs = found.parsed[path] if path is not None else None
    if isinstance(theirs, StudentNotebook):
        rebuilt = rebuild(template, theirs.cells, caps.extra_cells)
        note = _other_language(template, theirs.language)
        return replace(rebuilt, notes=(note, *rebuilt.notes)) if note else rebuilt
    empty = rebuild(template, [StudentCell(i, c.kind, c.release, c.grade_id) for i, c in enumerate(template.cells)])
    if theirs is not None:
        return Ingested(template.name, empty.cells, (), f"{plain(path, 200)}: {theirs}")
    said = found.missing.get(template.name)
    problem = f"{template.name}.ipynb is not in the submission" + (f": {said}" if said else "")
    return Ingested(template.name, empty.cells, (), problem)


def _other_language(template: NotebookTemplate, language: str) -> str:
    """Say so when a notebook was written for another language than the assignment's."""
    kernel = template.metadata.get("kernelspec", {})
    wanted = str(kernel.get("language") or "python") if isinstance(kernel, Mapping) else "python"
    if not language or language.casefold() == wanted.casefold() or language.casefold().startswith("ipython"):
        return ""
    return f"the notebook was saved for {language}; it is graded as {wanted}, which the assignment is in"


def _student_cell(cells: Sequence[StudentCell], matching: Matching, position: int) -> StudentCell | None:
    """Return what the student has in the place of a template cell: one cell, or several as one."""
    several = [cells[theirs] for theirs in matching.joined.get(position, ())]
    if not several:
        return cells[matching.pairs[position]] if position in matching.pairs else None
    pictures = {name: bundle for cell in several for name, bundle in cell.attachments.items()}
    return replace(several[-1], source="\n\n".join(cell.source for cell in several), attachments=pictures)


def _with_own_cells(filled: RebuiltCell, own: Sequence[RebuiltCell], notes: list[str]) -> RebuiltCell:
    """Count a written answer as given when the student wrote into new cells below it, and left its own as it was."""
    cell = filled.cell
    if cell is None or cell.role != "manual" or filled.answered or not any(extra.kind == cell.kind for extra in own):
        return filled
    notes.append(
        f"the answer cell {cell.grade_id!r} is as it was handed out, but own cells follow it: somebody should look"
    )
    return replace(filled, answered=True)


def _fill(cell: TemplateCell, theirs: StudentCell | None, defined: frozenset[str], notes: list[str]) -> RebuiltCell:
    """Return one template cell with the student's text where it is theirs to write.

    Args:
        defined: functions and classes that the student's notebook defines anywhere.
    """
    if cell.role in STUDENT_ROLES:
        wanted = defined_names(cell.release)
        if theirs is None and wanted and wanted <= defined:
            # What was handed out would take the place of the student's own function.
            names = ", ".join(sorted(wanted))
            notes.append(f"the answer cell {cell.grade_id!r} was deleted; {names} is defined in another cell")
            return RebuiltCell(cell.kind, f"# {names}: defined in another cell", "student", cell, True)
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
    """Whether an unmatched cell is a second copy of what was handed out: a test that would only run twice, or an
    answer cell that nobody wrote in, which would undo the answer.
    """
    for ours in template.cells:
        if not ours.grade_id or cell.kind != ours.kind:
            continue
        same_text = cell.source.strip() == ours.release.strip()
        if same_text or (cell.grade_id == ours.grade_id and ours.role not in STUDENT_ROLES):
            return True
    return False


def _trimmed(cells: Iterable[RebuiltCell], room: int) -> list[RebuiltCell]:
    return list(cells)[: max(room, 0)]
