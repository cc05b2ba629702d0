"""What a lab's source must satisfy before anything is built from it.

`check_cells` needs the source alone, `check_against_exam` also the exam. Each rule guards something that would
otherwise surface as a broken notebook, a leaked solution or a student's lost grade.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable

from autograder.builder.names import bound_names, calls, parse_cell, read_names
from autograder.builder.source import LabSource, SourceCell, SourceError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_MARKERS = tuple(f"{edge} {what}" for what in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME") for edge in ("BEGIN", "END"))


def check_cells(lab: LabSource) -> None:
    """Check everything that the source alone can tell.

    Raises:
        SourceError: at the first cell that breaks a rule.
    """
    _check_unique(lab)
    for position, cell in enumerate(lab.cells):
        _CHECKS[cell.role](lab, cell)
        if cell.role == "written":
            _check_question(lab, position)
        if cell.role not in ("exercise", "written"):
            _check_no_markers(lab, cell)
    _check_imports(lab)
    _check_measured(lab)


def check_against_exam(lab: LabSource, exercises: Iterable[str]) -> None:
    """Check that the exercises, their checks and the exam, which holds `exercises`, speak of the same names."""
    exercises = list(exercises)
    cells, checks = lab.named("exercise"), lab.named("check")
    for name, cell in cells.items():
        if name not in exercises:
            known = ", ".join(exercises) or "none"
            raise lab.error(cell, f"exam.py has no exercise {name!r} (it has: {known}). Add it there, or mend the name")
        if name not in checks:
            raise lab.error(cell, f'no check for this exercise. Add a cell `# %% check="{name}"` after it')
        if checks[name].line < cell.line:
            raise lab.error(checks[name], "stands before its exercise. Move it below")
    for name, cell in checks.items():
        if name not in cells:
            raise lab.error(cell, f'no cell with exercise="{name}". Add the exercise, or mend the name')
    missing = [name for name in exercises if name not in cells]
    if missing:
        names = ", ".join(missing)
        raise SourceError(
            f"{lab.path}: exam.py has exercises without a cell: {names}. Add them, or take them out of exam.py."
        )


def secret_lines(cell: SourceCell) -> list[str]:
    """The lines of a cell that no student may see: between solution markers, or all of a written answer without any."""
    lines = cell.source.splitlines()
    if cell.role == "written" and not any(line.strip() == BEGIN for line in lines):
        return lines
    secret, inside = [], False
    for line in lines:
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
        elif inside:
            secret.append(line)
    return secret


def _check_unique(lab: LabSource) -> None:
    seen: dict[tuple[str, str], SourceCell] = {}
    for cell in lab.cells:
        key = (cell.role, cell.name)
        if cell.name and key in seen:
            other = seen[key].line
            raise lab.error(cell, f"the name is taken by the cell at line {other}. Each {cell.role} needs its own name")
        seen[key] = cell


def _check_prose(lab: LabSource, cell: SourceCell) -> None:
    if not cell.source.strip():
        raise lab.error(cell, "an empty cell. Write its text, or remove the header")


def _check_code(lab: LabSource, cell: SourceCell) -> None:
    _check_prose(lab, cell)
    _tree(lab, cell)


def _check_exercise(lab: LabSource, cell: SourceCell) -> None:
    _check_code(lab, cell)
    _check_markers(lab, cell)
    if not any(line.strip() for line in secret_lines(cell)):
        raise lab.error(cell, f"no solution. Put the reference between `{BEGIN}` and `{END}`")


def _check_check(lab: LabSource, cell: SourceCell) -> None:
    if cell.source.strip():
        raise lab.error(cell, "a check cell is empty in the source; the builder writes its call. Remove its text")


def _check_prediction(lab: LabSource, cell: SourceCell) -> None:
    found = [call for call in calls(_tree(lab, cell), "predict") if _first_text(call) == cell.name]
    if len(found) != 1:
        raise lab.error(cell, f'the cell has to call predict("{cell.name}", ..., "what, with its unit") once')
    if not any(isinstance(a, ast.Constant) and a.value is ... for a in found[0].args):
        raise lab.error(cell, "the guess is filled in. Write `...` in its place, for the student to replace")


def _check_measure(lab: LabSource, cell: SourceCell) -> None:
    _check_code(lab, cell)
    predictions = lab.named("prediction")
    for call in calls(_tree(lab, cell), "confront"):
        name = _first_text(call)
        if name is not None and (name not in predictions or predictions[name].line > cell.line):
            header = f'# %% prediction="{name}"'
            raise lab.error(cell, f'confront("{name}") has no prediction before it. Add a cell `{header}` above')


def _check_written(lab: LabSource, cell: SourceCell) -> None:
    if not cell.source.strip():
        raise lab.error(cell, "no model answer. Write the answer that earns full marks; students do not get it")
    _check_markers(lab, cell)


def _check_question(lab: LabSource, position: int) -> None:
    before = lab.cells[position - 1] if position else None
    if before is None or before.role != "prose":
        cell = lab.cells[position]
        raise lab.error(cell, "no question. Put it into a `# %% [markdown]` cell of its own directly above")


def _check_markers(lab: LabSource, cell: SourceCell) -> None:
    inside = False
    for line in cell.source.splitlines():
        text = line.strip()
        if any(marker in line for marker in _MARKERS) and text not in (BEGIN, END):
            wanted = f"Write `{BEGIN}` and `{END}`, each on a line of its own"
            raise lab.error(cell, f"cannot read the marker {text!r}. {wanted}")
        if text in (BEGIN, END) and inside == (text == BEGIN):
            raise lab.error(cell, f"{text!r} out of place. Solution markers come in pairs and do not nest")
        inside = text == BEGIN if text in (BEGIN, END) else inside
    if inside:
        raise lab.error(cell, f"`{BEGIN}` without `{END}`. Close it, or the rest of the cell is lost")


def _check_no_markers(lab: LabSource, cell: SourceCell) -> None:
    for marker in _MARKERS:
        if marker in cell.source:
            remedy = "Only exercises and written answers have solutions; hidden cases belong in exam.py"
            raise lab.error(cell, f"holds the marker {marker!r}. {remedy}")


def _check_imports(lab: LabSource) -> None:
    """Every name of the exam that cells call has to come from a setup cell, or each student meets a NameError."""
    have = set().union(*(bound_names(_tree(lab, c)) for c in lab.cells if c.role == "setup"))
    for role, name in (("check", "check"), ("prediction", "predict")):
        cell = next((c for c in lab.cells if c.role == role), None)
        if cell is not None and name not in have:
            raise lab.error(cell, f"no setup cell imports {name}. Add `from fourbit.exam import {name}` to one")


def _check_measured(lab: LabSource) -> None:
    """Cells that run when grading must not need a name that only a measure cell, which does not run then, makes."""
    trees = [(cell, _tree(lab, cell)) for cell in lab.cells if cell.cell_type == "code" and cell.role != "check"]
    graded = set(dir(builtins)).union(*(bound_names(t) for c, t in trees if c.role != "measure"))
    measured = set().union(*(bound_names(t) for c, t in trees if c.role == "measure")) - graded
    for cell, tree in trees:
        needed = sorted(read_names(tree) & measured) if cell.role != "measure" else []
        if needed:
            remedy = "which does not run when grading. Make it in a setup cell"
            raise lab.error(cell, f"needs {', '.join(needed)} from a measure cell, {remedy}")


def _tree(lab: LabSource, cell: SourceCell) -> ast.Module:
    try:
        return parse_cell(cell.source)
    except SyntaxError as error:
        line = cell.line + (error.lineno or 0)
        hint = "If a line of this cell's text starts with `# %%`, reword it: it begins a new cell"
        raise lab.error(cell, f"not valid Python at line {line}: {error.msg}. {hint}") from None


def _first_text(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


_CHECKS: dict[str, Callable[[LabSource, SourceCell], None]] = {
    "prose": _check_prose,
    "setup": _check_code,
    "exercise": _check_exercise,
    "check": _check_check,
    "prediction": _check_prediction,
    "measure": _check_measure,
    "written": _check_written,
}
