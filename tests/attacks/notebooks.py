"""Notebooks whose structure is broken, forged or clumsy: what can be read is graded as if nothing had happened."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.attacks.model import FULL, Attack, Notebook, Points, cheat
from tests.plain_course import cell_of, code

Cells = list[dict[str, Any]]


def forged(name: str, change: Callable[[dict[str, Any]], Any], which: str = "test_mean", **outcome: Any) -> Attack:
    """Wrong answers, and one cell of the instructor's changed by the student."""

    def edit(notebook: Notebook) -> Notebook:
        change(cell_of(notebook, which))
        return notebook

    return cheat(name, edit=edit, **outcome)


def clumsy(name: str, change: Callable[[Notebook], Any], points: Points | None = FULL, **outcome: Any) -> Attack:
    """Right answers in a notebook that is not as it was handed out; `change` may return the bytes to hand in."""

    def edit(notebook: Notebook) -> Notebook | bytes:
        made = change(notebook)
        return made if isinstance(made, bytes | dict) else notebook

    return Attack(name, edit=edit, points=points, **outcome)


def _nbgrader(cell: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cell["metadata"]["nbgrader"]
    return found


def _all_tests(notebook: Notebook, change: Callable[[dict[str, Any]], Any]) -> None:
    for cell in [cell_of(notebook, name) for name in ("test_mean", "test_population", "test_primes")]:
        change(cell)


def _swap_ids(notebook: Notebook) -> None:
    first, last = _nbgrader(cell_of(notebook, "test_mean")), _nbgrader(cell_of(notebook, "test_primes"))
    first["grade_id"], last["grade_id"] = last["grade_id"], first["grade_id"]


METADATA = [
    forged("skips-tests", lambda cell: cell["metadata"].update(tags=["skip-execution"])),
    forged("errors-allowed", lambda cell: cell["metadata"].update(tags=["raises-exception"])),
    forged("removes-points", lambda cell: _nbgrader(cell).update(grade=False)),
    forged("wants-more-points", lambda cell: _nbgrader(cell).update(points=1000)),
    forged("wants-less-than-nothing", lambda cell: _nbgrader(cell).update(points=-5)),
    forged("makes-the-test-an-answer", lambda cell: _nbgrader(cell).update(solution=True, locked=False)),
    forged("makes-the-test-text", lambda cell: cell.update(cell_type="markdown")),
    forged("makes-the-test-raw", lambda cell: cell.update(cell_type="raw")),
    forged("empties-the-test", lambda cell: cell.update(source="")),
    forged("writes-its-own-test", lambda cell: cell.update(source="assert True")),
    forged("forges-the-checksum", lambda cell: _nbgrader(cell).update(checksum="0" * 32)),
    forged("unlocks-the-setup", lambda cell: cell.update(source="def close(*a): return True"), which="setup"),
    forged(
        "brings-outputs-along",
        lambda cell: cell.update(
            outputs=[{"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": "4"}, "metadata": {}}]
        ),
        which="test_primes",
    ),
    cheat("swaps-ids", edit=lambda nb: (_swap_ids(nb), nb)[1]),
    cheat("swaps-ids-of-text", edit=lambda nb: (_nbgrader(cell_of(nb, "why")).update(grade_id="test_mean"), nb)[1]),
    cheat("doubles-a-test", edit=lambda nb: (nb["cells"].append(code("4", nbgrader=copy.deepcopy(_nbgrader(cell_of(nb, "test_primes"))))), nb)[1]),
    clumsy("schema-of-tomorrow", lambda nb: _all_tests(nb, lambda cell: _nbgrader(cell).update(schema_version=99))),
    clumsy("schema-of-yesterday", lambda nb: _all_tests(nb, lambda cell: _nbgrader(cell).update(schema_version=1))),
    clumsy("metadata-of-wrong-types", lambda nb: _all_tests(nb, lambda cell: cell.update(metadata=[1, "x"]))),
    clumsy("ids-of-wrong-types", lambda nb: _all_tests(nb, lambda cell: _nbgrader(cell).update(grade_id=["x"], points="all"))),
    clumsy("same-cell-ids", lambda nb: [cell.update(id="same") for cell in nb["cells"]]),
    clumsy("kernel-of-another-language", lambda nb: nb["metadata"].update(kernelspec={"name": "bash", "language": "bash", "display_name": "Bash"})),
    clumsy("notebook-metadata-of-wrong-types", lambda nb: nb.update(metadata="none")),
]  # fmt: skip


def _deleted(*names: str) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        for name in names:
            notebook["cells"].remove(cell_of(notebook, name))

    return change


def _tests_first(notebook: Notebook) -> None:
    tests = [cell_of(notebook, name) for name in ("test_mean", "test_population", "test_primes")]
    notebook["cells"] = tests + [cell for cell in notebook["cells"] if cell not in tests]


def _renumbered(notebook: Notebook) -> None:
    for number, cell in enumerate(notebook["cells"]):
        if "nbgrader" in cell["metadata"]:
            _nbgrader(cell)["grade_id"] = f"cell-{number}"


STRUCTURE = [
    clumsy("deletes-tests", _deleted("test_mean", "test_population", "test_primes"), notes="was deleted; it came back"),
    clumsy("deletes-the-setup", _deleted("setup")),
    clumsy("deletes-an-answer", _deleted("mean"), points=(0, 3, 4), status="missing"),
    clumsy("moves-tests-up", _tests_first),
    clumsy("turns-around", lambda nb: nb["cells"].reverse()),
    clumsy("renumbers", _renumbered),
    clumsy("loses-all-metadata", lambda nb: [cell.update(metadata={}) for cell in nb["cells"]]),
    clumsy("answers-twice", lambda nb: nb["cells"].insert(2, {**copy.deepcopy(cell_of(nb, "mean")), "id": "twice", "source": "def mean(x): return 7"})),
    clumsy("adds-3000-cells", lambda nb: nb["cells"].extend(code(f"x{i} = {i}") for i in range(3000)), notes="cells were added"),
    clumsy("adds-a-huge-cell", lambda nb: nb["cells"].append(code("x = '" + "y" * 2**22 + "'"))),
    clumsy("text-as-lines-and-numbers", lambda nb: nb["cells"].append({**code(""), "source": ["x = 1\n", 5, None, "y = 2"]})),
    clumsy("cells-that-are-none", lambda nb: nb["cells"].extend([None, 5, "cell", [], {"cell_type": 7}])),
    clumsy("scripts-in-text", lambda nb: cell_of(nb, "why").update(source="<script>alert('canary-script')</script><img src=x onerror=alert(1)>")),
]  # fmt: skip


def _worksheets(notebook: Notebook) -> Notebook:
    cells = [
        {("input" if cell["cell_type"] == "code" and key == "source" else key): value for key, value in cell.items()}
        for cell in notebook["cells"]
    ]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": "x"}, "worksheets": [{"cells": cells}]}


def _dumped(notebook: Notebook, encoding: str = "utf-8") -> bytes:
    return json.dumps(notebook).encode(encoding)


FILES = [
    clumsy("format-3", _worksheets),
    clumsy("format-2", lambda nb: _worksheets(nb) | {"nbformat": 2}),
    clumsy("format-99", lambda nb: nb.update(nbformat=99)),
    clumsy("no-format", lambda nb: nb.pop("nbformat")),
    clumsy("utf-16", lambda nb: _dumped(nb, "utf-16")),
    clumsy("byte-order-mark", lambda nb: b"\xef\xbb\xbf" + _dumped(nb)),
    clumsy("numbers-beyond-all", lambda nb: _dumped(nb)[:-1] + b', "x": 1e999, "y": NaN, "z": ' + b"9" * 4000 + b"}"),
    clumsy("lone-surrogates", lambda nb: _dumped(nb)[:-1] + b', "x": "\\ud800"}'),
    clumsy("cut-off", lambda nb: _dumped(nb)[:900], None, says="not JSON"),
    clumsy("empty", lambda nb: b"", None, says="empty"),
    clumsy("zeros", lambda nb: bytes(5000), None, says="empty"),
    clumsy("a-list", lambda nb: b"[1, 2]", None, says="not a notebook"),
    clumsy("a-web-page", lambda nb: b"<!DOCTYPE html><title>Log in</title>", None, says="web page"),
    clumsy("a-script", lambda nb: b"import os\nprint(1)\n", None, says="Python script"),
    clumsy("an-image", lambda nb: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, says="not JSON|picture"),
    clumsy("deep-json", lambda nb: b'{"cells":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, says="nested|recursion"),
    clumsy("deep-metadata", lambda nb: _dumped(nb)[:-1] + b', "x": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", None, says="nested"),
    clumsy("merge-conflict", lambda nb: b"<<<<<<< HEAD\n" + _dumped(nb), None, says="git"),
    clumsy("no-cells", lambda nb: b'{"nbformat": 4, "metadata": {}}', None, says="no cells"),
]  # fmt: skip

ATTACKS = [*METADATA, *STRUCTURE, *FILES]
