"""The page that shows how an exercise is added is true: its blocks make a lab that builds, tells right from wrong and
grades."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks(root: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer((root / "site" / "contribute.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def clone(root: Path, blocks: list[re.Match[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with no lab but the one that the page adds."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copy(root / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    for shared in ("conftest.py", "pages.py", "postgres.py"):
        shutil.copy(root / "tests" / shared, folder / "tests")
    for block in blocks:
        if block["title"]:
            path = folder / block["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"], encoding="utf-8")
    return folder


def follow(clone: Path, command: str) -> str:
    """Run one block of commands in the clone, with the environment activated."""
    env = os.environ | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    done = subprocess.run(
        ["bash", "-e", "-c", command], cwd=clone, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.linux
def test_who_follows_the_page_gets_a_lab_that_builds_tests_and_grades(clone: Path, blocks: list[re.Match[str]]) -> None:
    commands = [block["text"] for block in blocks if block["language"] == "bash"]
    assert [command.split()[1] for command in commands] == ["build", "-m", "course"]
    said = [follow(clone, command) for command in commands]
    assert "1 exercises, 10 points" in said[0]
    assert "3 passed" in said[1]
    student = (clone / "labs/90-noise/90-noise.ipynb").read_text(encoding="utf-8")
    assert "raise NotImplementedError" in student
    assert "math.log10" not in student
    (row,) = csv.DictReader((clone / "build/trial/grades.csv").read_text(encoding="utf-8").splitlines())
    assert (row["student_id"], float(row["score"])) == ("ada", 8.0)


def test_the_files_of_the_page_keep_the_rules_of_the_house(clone: Path, root: Path) -> None:
    house = ["--no-cache", "--config", 'lint.isort.known-first-party = ["fourbit"]']
    command = [sys.executable, "-m", "ruff", "check", *house, "solutions", "tests/test_lab90.py"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_what_the_page_names_is_there(root: Path, blocks: list[re.Match[str]]) -> None:
    text = (root / "site" / "contribute.md").read_text(encoding="utf-8")
    for path in ("benchmarks/lab_minutes.py", "site/kill_matrix.py", "mkdocs.yml", "lecture_notes/README.md"):
        assert path.removesuffix(".py").replace("/", ".") in text or path in text
        assert (root / path).is_file()
    anchor = re.search(r"lecture_notes/(\w+)\.md#([\w-]+)", text)
    assert f'<a id="{anchor[2]}"></a>' in (root / "lecture_notes" / f"{anchor[1]}.md").read_text(encoding="utf-8")
