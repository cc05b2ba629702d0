"""Ingest: whatever a student hands in, the notebook that is graded is the instructor's with the student's answers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.reading.files import keep_files
from autograder.reading.ingest import Ingested, ingest
from autograder.reading.template import Template
from autograder.reading.untrusted import Caps, RawSubmission, UnreadableError, read_folder, read_notebook
from autograder.results import GradingError
from tests.plain_course import GOOD, cell_of, code, make_course, released


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return make_course(tmp_path_factory.mktemp("course") / "plain")[1]


def rebuilt(template: Template, notebook: Any, name: str = "ps1.ipynb") -> Ingested:
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    return ingest(template, RawSubmission({name: data})).notebooks[0]


def answers(result: Ingested) -> dict[str, str]:
    return {c.cell.grade_id: c.source for c in result.cells if c.cell and c.origin == "student"}


def order(result: Ingested) -> list[str]:
    return [c.cell.grade_id or c.cell.id if c.cell else c.source for c in result.cells]


def in_order(template: Template) -> list[str]:
    return [c.grade_id or c.id for c in template.notebooks[0].cells]


def test_an_honest_submission_is_the_template_with_its_answers(template: Template) -> None:
    result = rebuilt(template, released(template, GOOD))
    assert answers(result) == GOOD
    assert order(result) == in_order(template)
    assert result.notes == ()
    assert result.prefix_untouched
    hidden = next(c for c in result.cells if c.cell and c.cell.grade_id == "test_mean")
    assert "HIDDEN" in hidden.source


def test_tests_tags_points_and_kernel_come_from_the_template(template: Template) -> None:
    notebook = released(template, GOOD)
    test = cell_of(notebook, "test_mean")
    test["source"] = "pass"
    test["cell_type"] = "raw"
    test["metadata"] |= {"tags": ["skip-execution"]}
    test["metadata"]["nbgrader"] |= {"points": 1000, "grade": False, "schema_version": 99}
    notebook["metadata"]["kernelspec"] = {"name": "bash", "display_name": "x"}
    result = rebuilt(template, notebook)
    cell = next(c for c in result.cells if c.cell and c.cell.grade_id == "test_mean")
    assert cell.origin == "template"
    assert cell.kind == "code"
    assert cell.cell is not None
    assert cell.cell.points == 2
    assert "tags" not in cell.cell.metadata
    assert any("test_mean" in note for note in result.notes)


def test_deleted_cells_come_back(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] not in ("t-mean", "a-pop", "imports")]
    result = rebuilt(template, notebook)
    assert order(result) == in_order(template)
    assert "NotImplementedError" in answers(result)["population"]
    assert sum("came back" in note for note in result.notes) == 3


def test_the_last_copy_counts_and_earlier_ones_run_before_it(template: Template) -> None:
    notebook = released(template, GOOD)
    first = json.loads(json.dumps(cell_of(notebook, "mean")))
    first["source"] = "half = 0.5"
    notebook["cells"].insert(3, first)
    result = rebuilt(template, notebook)
    assert answers(result) == GOOD
    assert order(result)[3:5] == ["half = 0.5", "mean"]
    assert any("2 times" in note for note in result.notes)


def test_copies_of_test_cells_do_not_run_twice(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"].append(json.loads(json.dumps(cell_of(notebook, "test_mean"))))
    assert order(rebuilt(template, notebook)) == in_order(template)


def test_own_cells_run_where_they_were_put(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"].insert(4, code("after_mean = 1"))
    notebook["cells"].insert(0, code("first = 1"))
    result = rebuilt(template, notebook)
    names = order(result)
    assert names[0] == "first = 1"
    assert names.index("after_mean = 1") == names.index("mean") + 1
    assert not result.prefix_untouched


def test_an_own_cell_after_the_first_answer_leaves_the_prefix_shared(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"].insert(4, code("after_mean = 1"))
    assert rebuilt(template, notebook).prefix_untouched


def test_editable_cells_of_the_instructor_keep_the_students_edits(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"][1]["source"] = "import csv\nimport math\nimport statistics"
    result = rebuilt(template, notebook)
    assert result.cells[1].source.endswith("statistics")
    assert result.cells[1].origin == "edited"
    assert not result.prefix_untouched


def test_moved_cells_return_to_their_order_and_still_run_early(template: Template) -> None:
    notebook = released(template, GOOD)
    moved = cell_of(notebook, "primes")
    notebook["cells"].remove(moved)
    notebook["cells"].insert(3, moved)
    result = rebuilt(template, notebook)
    names = [n for n in order(result) if n != GOOD["primes"]]
    assert names == in_order(template)
    assert order(result).index(GOOD["primes"]) < order(result).index("mean")


def test_renumbered_answers_find_their_questions(template: Template) -> None:
    notebook = released(template, GOOD)
    a, b = cell_of(notebook, "mean"), cell_of(notebook, "primes")
    a["metadata"]["nbgrader"]["grade_id"], b["metadata"]["nbgrader"]["grade_id"] = "primes", "mean"
    assert answers(rebuilt(template, notebook)) == GOOD


@pytest.mark.parametrize("ids", [True, False])
def test_stripped_metadata_costs_nothing(template: Template, ids: bool) -> None:
    notebook = released(template, GOOD)
    for position, cell in enumerate(notebook["cells"]):
        cell["metadata"] = {}
        cell["id"] = cell["id"] if ids else f"new-{position}"
    result = rebuilt(template, notebook)
    assert answers(result) == GOOD
    assert order(result) == in_order(template)


def test_pictures_of_a_written_answer_stay_and_nothing_else_does(template: Template) -> None:
    notebook = released(template, GOOD)
    cell_of(notebook, "why")["attachments"] = {"a.png": {"image/png": "aGk="}, "b": {"text/html": "<script>"}}
    cell = next(c for c in rebuilt(template, notebook).cells if c.cell and c.cell.grade_id == "why")
    assert cell.attachments == {"a.png": {"image/png": "aGk="}}


@pytest.mark.parametrize("version", [2, 3])
def test_old_formats_are_read(template: Template, version: int) -> None:
    """Format 2 had no metadata of cells, so the answers are found by what they define and where they stand."""
    new = released(template, GOOD)
    cells = [
        {"cell_type": "code", "input": c["source"], "language": "python", "metadata": c["metadata"], "outputs": []}
        if c["cell_type"] == "code"
        else {"cell_type": "markdown", "source": [c["source"]], "metadata": c["metadata"]}
        for c in new["cells"]
    ]
    for cell in cells if version == 2 else ():
        del cell["metadata"]
    old = {"nbformat": version, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells, "metadata": {}}]}
    assert answers(rebuilt(template, old)) == GOOD


def deep() -> bytes:
    return b'{"cells":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\x00\x00", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"cells": [{"source": "abc', "cut off"),
        (b"[1, 2]", "a list, not a notebook"),
        (b"null", "not a notebook"),
        (b'{"nbformat": 7}', "nbformat: 7"),
        (b"<!DOCTYPE html><p>Sign in", "web page"),
        (b"import torch\n", "Python script"),
        (b'{"cells": [\n<<<<<<< HEAD\n1', "merge conflict"),
        (deep(), "nested"),
        (b'{"cells": ' + b"[" * 90 + b"]" * 90 + b"}", "nested"),
        (b'{"cells": [' + b"1," * 10_000 + b"1]}", "10,001 cells"),
        (b'{"cells": [], "x": ' + b"9" * 5000 + b"}", "cannot be read"),
        (os.urandom(4096), "not JSON"),
    ],
)
def test_unreadable_notebooks_say_where_and_why(data: bytes, said: str, template: Template) -> None:
    with pytest.raises(UnreadableError) as error:
        read_notebook(data)
    assert said in str(error.value).replace("maximum recursion depth", "nested")
    result = rebuilt(template, data)
    assert "ps1.ipynb" in result.problem
    assert order(result) == in_order(template)


def test_odd_notebooks_are_read(template: Template) -> None:
    odd = {
        "cells": [
            None,
            3,
            {"cell_type": 7, "source": {"a": 1}, "metadata": []},
            {"source": ["a", 5, "b"], "metadata": {"nbgrader": 1}},
        ]
    }
    assert [c.source for c in read_notebook(json.dumps(odd).encode()).cells] == ["", "ab"]
    surrogate = b'{"cells": [{"cell_type": "code", "source": "x = \'\\ud800\'"}]}'
    read_notebook(surrogate).cells[0].source.encode()
    text = json.dumps(released(template, GOOD))
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
        assert answers(rebuilt(template, data)) == GOOD


@pytest.mark.parametrize(
    "name",
    [
        "PS1.ipynb", "ps1 (1).ipynb", "ps1-Copy1.ipynb", "lab/ps1.ipynb", "my work.ipynb", "ps1.ipynb.txt",
        "ps1-2.ipynb", "Copy of ps1.ipynb", "Copy of Copy of ps1 (3).ipynb", "Kopie von ps1.ipynb",
        "ps1 - Copy (2).ipynb", "ps1.ipynb.json",
    ],
)  # fmt: skip
def test_the_one_file_that_is_meant_is_taken_and_told(template: Template, name: str) -> None:
    data = json.dumps(released(template, GOOD)).encode()
    found = ingest(template, RawSubmission({name: data, "scratch.ipynb": b"{}"}))
    assert answers(found.notebooks[0]) == GOOD
    assert any(name in note for note in found.notes)


def test_a_copy_beside_the_notebook_is_told(template: Template) -> None:
    data, other = (json.dumps(released(template, answers)).encode() for answers in (GOOD, {**GOOD, "mean": "pass"}))
    found = ingest(template, RawSubmission({"ps1.ipynb": data, "ps1 (1).ipynb": other, "ps1-Copy1.ipynb": data}))
    assert answers(found.notebooks[0]) == GOOD
    assert [note for note in found.notes if "(1)" in note] == [
        "ps1 (1).ipynb is there too and differs; ps1.ipynb was graded"
    ]
    assert not any("Copy1" in note for note in found.notes)


def test_two_candidates_are_not_guessed_between(template: Template) -> None:
    data, other = (json.dumps(released(template, answers)).encode() for answers in (GOOD, {**GOOD, "mean": "pass"}))
    assert ingest(template, RawSubmission({"one.ipynb": data, "two.ipynb": data})).readable
    found = ingest(template, RawSubmission({"one.ipynb": data, "two.ipynb": other}))
    assert not found.readable
    assert any("one.ipynb, two.ipynb" in note for note in found.notes)


def test_nothing_but_plain_files_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    folder = tmp_path / "work"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "ok.txt").write_text("ok")
    (folder / "link").symlink_to(secret)
    (folder / "all").symlink_to("/")
    os.mkfifo(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    (folder / "huge.bin").write_bytes(b"x" * 5000)
    (folder / "new\nline\x1b[31m").write_text("odd name")
    found = read_folder(folder, Caps(file=4000, depth=2))
    listener.close()
    assert set(found.files) == {"ok.txt", "new\nline\x1b[31m"}
    told = "\n".join(found.notes)
    assert all(word in told for word in ("link: ", "all: ", "pipe: ", "socket: ", "huge.bin: ", "deep/er: "))
    assert "\x1b" not in told
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(GradingError, match="not a folder"):
        read_folder(tmp_path / "alias")


def test_no_more_files_and_bytes_than_the_caps(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i:02}.txt").write_bytes(b"x" * 100)
    assert len(read_folder(tmp_path, Caps(files=10)).files) == 10
    assert len(read_folder(tmp_path, Caps(total=1000)).files) == 10


def test_the_instructors_files_win_and_modules_are_not_shadowed() -> None:
    mine = {"helpers.py": b"mine", "cities.csv": b"mine"}
    refused = (
        "helpers.py", "helpers/__init__.py", "helpers/data.txt", "math.py", "json/__init__.py", "sitecustomize.py",
        ".ipython/startup.py", "fast.so",
    )  # fmt: skip
    theirs = dict.fromkeys(refused, b"theirs") | {"my_tools.py": b"ok", "data/mine.csv": b"ok"}
    theirs |= {"cities.csv/x": b"", "timestamp.txt": b"2026-01-01"}
    kept, notes = keep_files(mine, theirs)
    assert kept == {**mine, "my_tools.py": b"ok", "data/mine.csv": b"ok"}
    assert all(any(name in note for note in notes) for name in refused)


def test_too_many_own_cells_are_cut(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["cells"] += [code(f"x = {i}") for i in range(3000)]
    result = rebuilt(template, notebook)
    assert sum(c.origin == "extra" for c in result.cells) == 500
    assert answers(result) == GOOD


def test_a_split_answer_runs_whole(template: Template) -> None:
    """JupyterLab gives both halves of a cell that is split the same grade id."""
    notebook = released(template, GOOD)
    whole = cell_of(notebook, "primes")
    first, second = json.loads(json.dumps(whole)), json.loads(json.dumps(whole))
    first["source"] = "def is_prime(k):\n    return all(k % d for d in range(2, k))"
    second["source"] = "def primes(n):\n    return [k for k in range(2, n) if is_prime(k)]"
    at = notebook["cells"].index(whole)
    notebook["cells"][at : at + 1] = [first, second]
    result = rebuilt(template, notebook)
    assert answers(result)["primes"] == second["source"]
    assert order(result).index(first["source"]) < order(result).index("primes")


def test_an_empty_copy_does_not_undo_the_answer(template: Template) -> None:
    notebook = released(template, GOOD)
    stub = json.loads(json.dumps(cell_of(released(template), "mean")))
    notebook["cells"].insert(5, stub)
    notebook["cells"].append({**stub, "id": "pasted", "metadata": {}})
    result = rebuilt(template, notebook)
    assert answers(result) == GOOD
    assert order(result) == in_order(template)


def test_answers_merged_into_one_cell_lose_nothing(template: Template) -> None:
    notebook = released(template, GOOD)
    cell_of(notebook, "mean")["source"] += "\n\n" + GOOD["primes"]
    notebook["cells"].remove(cell_of(notebook, "primes"))
    result = rebuilt(template, notebook)
    assert "NotImplementedError" not in answers(result)["primes"]
    assert any("primes is defined in another cell" in note for note in result.notes)


@pytest.mark.parametrize("with_stub", [True, False])
def test_a_written_answer_in_other_cells_is_found(template: Template, with_stub: bool) -> None:
    """Some editors make a cell of each paragraph; some people write below the cell that waits for them."""
    notebook = released(template, {**GOOD, "why": cell_of(released(template), "why")["source"]})
    at = notebook["cells"].index(cell_of(notebook, "why"))
    parts = ["Divisors come in pairs.", "One of a pair is at most the root."]
    own = [{"cell_type": "markdown", "id": f"own-{i}", "metadata": {}, "source": part} for i, part in enumerate(parts)]
    notebook["cells"][at + with_stub : at + 1] = own
    result = rebuilt(template, notebook)
    cell = next(c for c in result.cells if c.cell and c.cell.grade_id == "why")
    assert cell.answered
    assert all(any(part in c.source for c in result.cells) for part in parts)
    assert result.notes


def test_what_other_editors_do_to_a_notebook_costs_nothing(template: Template) -> None:
    colab = released(template, GOOD)
    colab["nbformat_minor"] = 0
    colab["metadata"] |= {"colab": {"provenance": []}, "language_info": {"name": "python"}, "accelerator": "GPU"}
    for position, cell in enumerate(colab["cells"]):
        del cell["id"]
        cell["metadata"] |= {"id": f"AbC{position}", "colab": {"base_uri": "https://localhost:8080/"}}
        cell["source"] = cell["source"].splitlines(keepends=True)
    code_editor = released(template, GOOD)
    for position, cell in enumerate(code_editor["cells"]):
        cell["id"] = f"{position:08x}"
        cell["metadata"] |= {"vscode": {"languageId": "python"}}
        cell["source"] = cell["source"].replace("\n", "\r\n").splitlines(keepends=True)
    deepnote = released(template, GOOD)
    for position, cell in enumerate(deepnote["cells"]):
        del cell["id"]
        cell["metadata"] = {
            "cell_id": f"{position:032x}",
            "deepnote_cell_type": cell["cell_type"],
            "source_hash": "1a2b",
        }
    for notebook in (colab, code_editor, deepnote):
        result = rebuilt(template, notebook)
        assert answers(result) == GOOD
        assert order(result) == in_order(template)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_cost_nothing(template: Template, encoding: str, ends: str) -> None:
    notebook = json.dumps(released(template, GOOD), indent=1).replace("\n", ends).replace("\\n", json.dumps(ends)[1:-1])
    assert answers(rebuilt(template, notebook.encode(encoding))) == GOOD


def test_another_language_is_told_and_graded_as_the_assignment_s(template: Template) -> None:
    notebook = released(template, GOOD)
    notebook["metadata"] = {"kernelspec": {"name": "ir", "language": "R"}, "language_info": {"name": "R"}}
    result = rebuilt(template, notebook)
    assert answers(result) == GOOD
    assert "saved for R" in result.notes[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04...", "a zip archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "pointer of git-lfs"),
    ],
)
def test_what_is_only_called_a_notebook_is_named(template: Template, data: bytes, said: str) -> None:
    assert said in rebuilt(template, data).problem


def test_an_export_instead_of_the_notebook_is_named(template: Template) -> None:
    found = ingest(template, RawSubmission({"ps1 (1).html": b"<html>", "notes.txt": b"hello"}))
    assert not found.readable
    assert "ps1 (1).html is a web page made from it" in found.notebooks[0].problem


def test_an_archive_instead_of_the_notebook_is_named(template: Template) -> None:
    found = ingest(template, RawSubmission({"work.zip": b"PK\x03\x04"}))
    assert "work.zip is an archive" in found.notebooks[0].problem


@pytest.mark.parametrize("name", ["ps1.json", "ps1.txt", "ps1"])
def test_a_notebook_whose_ending_got_lost_is_taken(template: Template, name: str) -> None:
    data = json.dumps(released(template, GOOD)).encode()
    found = ingest(template, RawSubmission({name: data, "data.json": b'{"cells": 3}'}))
    assert answers(found.notebooks[0]) == GOOD
    assert "data.json" in found.files
    assert name not in found.files


def test_files_beside_a_notebook_in_a_folder_stay_beside_it(template: Template) -> None:
    data = json.dumps(released(template, GOOD)).encode()
    found = ingest(template, RawSubmission({"work/ps1.ipynb": data, "work/mine/a.csv": b"1", "b.csv": b"2"}))
    assert {name: data for name, data in found.files.items() if name not in template.files} == {
        "mine/a.csv": b"1",
        "b.csv": b"2",
    }


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["delete", "duplicate", "move", "rename", "swap", "retype", "strip", "tag"]),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=12,
)


def change(cells: list[dict[str, Any]], what: str, here: int, there: int) -> None:
    """Do to a notebook's cells what a clumsy or a clever hand can do."""
    if not cells:
        return
    cell, other = cells[here % len(cells)], cells[there % len(cells)]
    mine, theirs = cell["metadata"].get("nbgrader", {}), other["metadata"].get("nbgrader", {})
    if what == "delete":
        cells.remove(cell)
    elif what in ("duplicate", "move"):
        copy = json.loads(json.dumps(cell))
        if what == "move":
            cells.remove(cell)
        cells.insert(there % (len(cells) + 1), copy)
    elif what == "rename":
        mine["grade_id"] = "other"
    elif what == "swap" and "grade_id" in mine and "grade_id" in theirs:
        mine["grade_id"], theirs["grade_id"] = theirs["grade_id"], mine["grade_id"]
    elif what == "retype":
        cell["cell_type"] = ("code", "markdown", "raw")[there % 3]
    elif what == "strip":
        cell["metadata"] = {}
    elif what == "tag":
        cell["metadata"] |= {
            "tags": ["skip-execution"],
            "nbgrader": {**mine, "points": 99, "locked": False, "grade": True},
        }


@settings(deadline=None, max_examples=200)
@given(changes=CHANGES)
def test_whatever_is_done_to_cells_the_tests_are_the_instructors(
    template: Template, changes: list[tuple[str, int, int]]
) -> None:
    notebook = released(template, GOOD)
    for done in changes:
        change(notebook["cells"], *done)
    result = rebuilt(template, notebook)
    cells = [cell for cell in result.cells if cell.cell is not None]
    assert [cell.cell for cell in cells] == list(template.notebooks[0].cells)
    for cell in cells:
        assert cell.cell is not None
        assert cell.kind == cell.cell.kind
        if cell.cell.role in ("test", "locked", "task"):
            assert (cell.origin, cell.source) == ("template", cell.cell.source)
    if {what for what, _, _ in changes} <= {"duplicate", "tag", "move"}:
        assert answers(result) == GOOD
