"""The `fourbit` command as a person meets it: a process, its output and its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points

import nbformat
import pytest

from fourbit import cli
from tests.labs import reference, write_mini_lab


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def fourbit(tmp_path, monkeypatch, capfd):
    """Run the command in this process, in `cwd` or an empty folder."""

    def run(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["fourbit", *map(str, arguments)])
        for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "FOURBIT_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *capfd.readouterr())

    return run


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "fourbit", "--version"], capture_output=True, text=True, timeout=120, check=True
    )
    assert re.fullmatch(r"fourbit \d+\.\d+\.\d+\n", done.stdout)
    assert "fourbit" in {script.name for script in entry_points(group="console_scripts")}


def test_help_tells_the_story_and_lists_every_command(fourbit, tmp_path):
    done = fourbit("--help")
    assert done.returncode == 0
    commands = ("doctor", "lab", "check", "run", "chat", "serve", "bench", "models", "build", "course", "grade", "demo")
    for word in (*commands, "labs/", "solutions/"):
        assert word in done.stdout


def test_check_prints_panels_and_the_total(fourbit, tmp_path):
    floor = reference("quantize").replace("torch.round", "torch.floor")
    notebook = write_mini_lab(
        tmp_path, {"scale": reference("scale"), "quantize": floor}, measurement="raise SystemExit('ran')"
    )
    done = fourbit("check", notebook.parent)
    assert done.returncode == 0, done.stderr
    assert "scale: passed, 2 of 2 points" in done.stdout
    assert "This looks like: floor rounding" in done.stdout
    assert re.search(r"total +2 / 5", done.stdout)
    assert "did not end well" not in done.stdout


def test_check_of_an_untouched_lab_scores_nothing_and_fails_nothing(fourbit, tmp_path):
    write_mini_lab(tmp_path, {})
    done = fourbit("check", "0")
    assert done.returncode == 0, done.stderr
    assert re.search(r"total +0 / 5", done.stdout)
    assert done.stdout.count("missing") == 2


def test_check_leaves_the_notebook_as_it_was(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {"scale": reference("scale")})
    before = notebook.read_bytes()
    fourbit("check", notebook)
    assert notebook.read_bytes() == before


def test_a_cell_that_raises_costs_that_cell(fourbit, tmp_path):
    write_mini_lab(tmp_path, {"scale": "1 / 0", "quantize": reference("quantize")})
    done = fourbit("check", "00-mini")
    assert done.returncode == 0, done.stderr
    assert "cell 3 (scale): ZeroDivisionError: division by zero" in done.stdout
    assert re.search(r"total +3 / 5", done.stdout)


def test_a_cell_that_loops_is_stopped_and_the_rest_goes_on(fourbit, tmp_path):
    write_mini_lab(tmp_path, {"scale": "while True: pass", "quantize": reference("quantize")})
    done = fourbit("check", "00-mini", "--seconds", "10")
    assert done.returncode == 0, done.stderr
    assert "cell 3 (scale): stopped after 10 s" in done.stdout
    assert re.search(r"total +3 / 5", done.stdout)


def test_a_cell_that_ends_the_process_keeps_what_was_earned_before(fourbit, tmp_path):
    write_mini_lab(tmp_path, {"scale": reference("scale"), "quantize": "import os; os._exit(3)"})
    done = fourbit("check", "00-mini")
    assert done.returncode == 0, done.stderr
    assert "cell 5 (quantize): ended the Python process" in done.stdout
    assert re.search(r"quantize +not checked +0 / 3", done.stdout)
    assert re.search(r"total +2 / 5", done.stdout)


def test_a_cell_that_cannot_be_stopped_ends_the_run(fourbit, tmp_path):
    stubborn = """
import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
    write_mini_lab(tmp_path, {"scale": reference("scale"), "quantize": stubborn})
    done = fourbit("check", "00-mini", "--seconds", "10")
    assert done.returncode == 0, done.stderr
    assert "cell 5 (quantize): did not stop after 10 s" in done.stdout
    assert "Nothing after that cell could run" in done.stdout
    assert re.search(r"total +2 / 5", done.stdout)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"cells": [', "is not a notebook"),
        (b"[1, 2]", "is not a notebook"),
        (b"", "is not a notebook"),
        (b"\xff\xfe\x00", "is not a notebook"),
    ],
)
def test_a_file_that_is_no_notebook_is_told_without_a_traceback(fourbit, tmp_path, content, told):
    notebook = write_mini_lab(tmp_path, {})
    notebook.write_bytes(content)
    done = fourbit("check", notebook)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_notebook_is_upgraded(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {"scale": reference("scale")})
    old = nbformat.convert(nbformat.read(notebook, as_version=4), 3)
    notebook.write_text(nbformat.v3.writes_json(old))
    done = fourbit("check", notebook)
    assert done.returncode == 0, done.stderr
    assert re.search(r"total +2 / 5", done.stdout)


@pytest.mark.parametrize("command", ["check", "run", "lab"])
def test_an_unknown_lab_names_the_labs(fourbit, tmp_path, command):
    write_mini_lab(tmp_path, {})
    done = fourbit(command, "07")
    assert done.returncode == 1
    assert "no lab '07'" in done.stderr
    assert "00-mini" in done.stderr


def test_a_folder_with_two_notebooks_asks_which(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {})
    notebook.rename(notebook.with_name("a.ipynb"))
    notebook.with_name("b.ipynb").write_text("{}")
    done = fourbit("check", notebook.parent)
    assert done.returncode == 1
    assert "2 notebooks: a.ipynb, b.ipynb" in done.stderr


def test_a_lab_without_its_exam_says_so(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {})
    notebook.rename(tmp_path / "alone.ipynb")
    done = fourbit("check", tmp_path / "alone.ipynb")
    assert done.returncode == 1
    assert "no exam pack" in done.stderr


def test_run_executes_measurements_and_writes_a_copy(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {}, measurement="print(6 * 7)")
    done = fourbit("run", "00")
    assert done.returncode == 0, done.stdout + done.stderr
    executed = nbformat.read(tmp_path / "build" / "runs" / notebook.name, as_version=4)
    assert executed.cells[-1].outputs[0]["text"] == "42\n"


def test_run_fails_when_a_cell_fails(fourbit, tmp_path):
    write_mini_lab(tmp_path, {}, measurement="undefined_name")
    done = fourbit("run", "00", "-o", "out.ipynb")
    assert done.returncode == 1
    assert "NameError: name 'undefined_name' is not defined" in done.stdout
    assert (tmp_path / "out.ipynb").exists()


def test_run_never_overwrites_the_lab(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {})
    done = fourbit("run", "00", "-o", notebook)
    assert done.returncode == 1
    assert "the notebook itself" in done.stderr


def test_lab_list_names_the_labs_from_anywhere_inside(fourbit, tmp_path):
    notebook = write_mini_lab(tmp_path, {})
    done = fourbit("lab", "--list", cwd=notebook.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("00-mini")


def test_the_student_profile_reaches_jupyterlab():
    """JupyterLab's own reader of the profile, in a process that has it on its path as `fourbit lab` does."""
    script = """
import json
from jupyterlab_server.config import get_page_config
from jupyterlab_server.settings_utils import _get_overrides
print(json.dumps([get_page_config([]), _get_overrides("nowhere")[0]]))
"""
    from fourbit.lab import lab_environment

    done = subprocess.run(
        [sys.executable, "-c", script], env=lab_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    page, settings = json.loads(done.stdout)
    hidden = set(page["disabledExtensions"])
    assert {"@jupyter/nbgrader:formgrader", "@jupyter/nbgrader:create-assignment"} <= hidden
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
