"""The README says nothing that is not so: its paths, links, targets and commands are all there."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from autograder.demo_class import CLASS
from fourbit import cli


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_links_and_pictures_lead_to_files(root, readme):
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    assert targets
    assert [target for target in targets if not (root / target).is_file()] == []


def test_the_map_names_folders_that_are_there_and_misses_none(root, readme):
    named = {name for line in readme.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)/`", line)}
    assert [name for name in named if name != "build" and not (root / name).is_dir()] == []
    here = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert {name for name in here if not name.endswith((".egg-info", "_cache"))} <= named | {"shared"}


def test_every_command_exists(readme):
    cli.load_commands()
    commands = set(get_command(cli.app).commands)
    assert set(re.findall(r"^\S*bin/fourbit (\w+)", readme, re.MULTILINE)) <= commands
    assert set(re.findall(r"`fourbit (\w+)", readme)) <= commands


def test_every_target_exists(root, readme):
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make (\w+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_class_has_as_many_students_as_it_says(readme):
    assert f"a simulated class of {len(CLASS)} " in readme


def test_every_lab_has_its_row(root, readme):
    """A row begins with the lab's number, and the chapters that it names send their reader to that lab."""
    rows = re.findall(r"^\| \[?(\d\d) [^|]*\|", readme, re.MULTILINE)
    labs = {lab.name[:2]: lab.name for lab in (root / "labs").iterdir()}
    assert rows == sorted(labs)
    for row in re.findall(r"^\| \[?\d\d [^|]*\|", readme, re.MULTILINE):
        chapters = re.findall(r"\]\((lecture_notes/[^)]+\.md)\)", row)
        assert chapters, row
        lab = labs[re.search(r"\d\d", row).group()]
        for chapter in chapters:
            assert f"../labs/{lab}/{lab}.ipynb" in (root / chapter).read_text(encoding="utf-8"), (row, chapter)
