"""Ingest: whatever a student hands in, the notebook that is graded is the instructor's with the student's answers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from autograder.files import keep_files
from autograder.ingest import Ingested, ingest
from autograder.results import GradingError
from autograder.template import Template
from autograder.untrusted import Caps, RawSubmission, UnreadableError, parse_notebook, read_folder
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


def test_format_3_is_read(template: Template) -> None:
    new = released(template, GOOD)
    cells = [
        {"cell_type": "code", "input": c["source"], "language": "python", "metadata": c["metadata"], "outputs": []}
        if c["cell_type"] == "code"
        else {"cell_type": "markdown", "source": [c["source"]], "metadata": c["metadata"]}
        for c in new["cells"]
    ]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells, "metadata": {}}]}
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
        parse_notebook(data)
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
    assert [c.source for c in parse_notebook(json.dumps(odd).encode())] == ["", "ab"]
    surrogate = b'{"cells": [{"cell_type": "code", "source": "x = \'\\ud800\'"}]}'
    parse_notebook(surrogate)[0].source.encode()
    text = json.dumps(released(template, GOOD))
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
        assert answers(rebuilt(template, data)) == GOOD


@pytest.mark.parametrize(
    "name", ["PS1.ipynb", "ps1 (1).ipynb", "ps1-Copy1.ipynb", "lab/ps1.ipynb", "my work.ipynb", "ps1.ipynb.txt"]
)
def test_the_one_file_that_is_meant_is_taken_and_told(template: Template, name: str) -> None:
    data = json.dumps(released(template, GOOD)).encode()
    found = ingest(template, RawSubmission({name: data, "scratch.ipynb": b"{}"}))
    assert answers(found.notebooks[0]) == GOOD
    assert any(name in note for note in found.notes)


def test_two_candidates_are_not_guessed_between(template: Template) -> None:
    data = json.dumps(released(template, GOOD)).encode()
    found = ingest(template, RawSubmission({"one.ipynb": data, "two.ipynb": data}))
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
