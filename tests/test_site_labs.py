"""Labs on the site: what their pages say, and archives in which a student can work with nothing else at hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from fourbit.exam.reference import load_lab
from tests.scripts import load_script
from tests.test_site import LABS, copy_source

# The archive's own package, and no grader: as on a student's machine. This checkout is installed as well, and the one
# that is found first counts; a package that is not installed offers no commands.
ALONE = """
import importlib.metadata, pathlib, sys
sys.modules["autograder"] = None
if not list(pathlib.Path({home!r}).glob("fourbit-*.dist-info")):
    every = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **of: () if of.get("group", "").startswith("fourbit.") else every(**of)
import fourbit
assert fourbit.__file__.startswith({home!r}), fourbit.__file__
from fourbit.cli import main
sys.argv = ["fourbit", *{arguments!r}]
main()
"""


@pytest.fixture(scope="module")
def site(root: Path) -> ModuleType:
    return load_script(root / "site" / "stage.py", "stage_for_labs")


@pytest.fixture(scope="module")
def staged(root: Path, site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | bytes]:
    return site.lab_files(site.Tree.read(copy_source(root, tmp_path_factory.mktemp("labs"))))


@pytest.fixture(scope="module")
def published(root: Path) -> dict[str, list[dict]]:
    return json.loads((root / "site" / "kill-matrix.json").read_text(encoding="utf-8"))


def unpack(staged: dict[str, str | bytes], name: str, folder: Path) -> Path:
    path = folder / f"{name}.zip"
    path.write_bytes(staged[f"labs/{name}/{name}.zip"])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder / f"fourbit-{name}"


def student(home: Path, package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `fourbit` in the unpacked archive `home`, from the package in `package`."""
    program = ALONE.format(home=str(package), arguments=arguments)
    env = os.environ | {"PYTHONPATH": str(package), "COLUMNS": "120"}
    command = [sys.executable, "-P", "-c", program]  # without -P the working folder would come first
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)


# pages


@pytest.mark.parametrize("name", LABS)
def test_a_page_shows_every_question_with_points_and_difficulty(root: Path, staged: dict, name: str) -> None:
    page = staged[f"labs/{name}.md"]
    exercises = {e.name: e for e in load_lab(root / "solutions" / name).exam.exercises}
    assert len(exercises) >= 6
    for exercise in exercises.values():
        row = (
            rf"^\| \[`{exercise.name}`\]\(#{exercise.name}\) \| {exercise.points:g} \| {exercise.difficulty} of 3 \| \w"
        )
        assert re.search(row, page, re.MULTILINE), exercise.name
    assert re.search(r"^\| \*\*all\*\* \| \*\*100\*\* \| \| \*\*about \d+ min\*\* \|$", page, re.MULTILINE)


def test_the_time_that_the_list_says_is_the_measured_one(root: Path, staged: dict) -> None:
    for name in LABS:
        measured = json.loads((root / "solutions" / name / "minutes.json").read_text())["total_minutes"]
        row = next(line for line in staged["labs/index.md"].splitlines() if f"({name}.md)" in line)
        said = int(re.search(r"about (\d+) min", row)[1])
        assert said == pytest.approx(measured, abs=1), row


def test_the_list_says_which_labs_need_a_network(staged: dict) -> None:
    rows = [line.split(" | ") for line in staged["labs/index.md"].splitlines() if re.match(r"\| \[Lab \d\d", line)]
    assert [row[3] for row in rows] == ["no"] * 4 + ["once"] * 4


# the published kill matrix


def test_every_mistake_of_every_exam_is_published_and_loses_points(root: Path, published: dict) -> None:
    assert set(published) == set(LABS)
    for name in LABS:
        exam = load_lab(root / "solutions" / name).exam
        assert [entry["exercise"] for entry in published[name]] == [e.name for e in exam.exercises]
        for entry, exercise in zip(published[name], exam.exercises, strict=True):
            assert [m["id"] for m in entry["mistakes"]] == [m.id for m in exercise.mistakes], exercise.name
            assert all(0 < m["lost"] <= exercise.points for m in entry["mistakes"]), exercise.name
            assert entry["impostors_at_most"] < exercise.points / 2


@pytest.mark.parametrize("name", LABS)
def test_a_page_shows_the_matrix_and_no_code_of_a_mistake(root: Path, staged: dict, published: dict, name: str) -> None:
    page, _, table = staged[f"labs/{name}.md"].partition("{#kill-matrix}")
    exercises = load_lab(root / "solutions" / name).exam.exercises
    assert len(re.findall(r"^\| \[.+\| [\d.]+ \| (?:yes|no) \|$", table, re.MULTILINE)) == sum(
        len(entry["mistakes"]) for entry in published[name]
    )
    patches = {line.strip() for e in exercises for m in e.mistakes for _, new in m.patch for line in new.splitlines()}
    long = {line for line in patches if len(line) > 24}
    assert len(long) > 10
    assert {line for line in long if line in table} == set()
    assert page


def test_a_matrix_that_cannot_be_read_stops_the_build(root: Path, site: ModuleType, tmp_path: Path) -> None:
    folder = copy_source(root, tmp_path)
    (folder / "site" / "kill-matrix.json").write_text("{", encoding="utf-8")
    with pytest.raises(Exception, match=r"kill-matrix\.json cannot be read"):
        site.lab_files(site.Tree.read(folder))


# archives


def test_archives_are_the_same_bytes_each_time(root: Path, site: ModuleType, staged: dict, tmp_path: Path) -> None:
    again = site.lab_files(site.Tree.read(copy_source(root, tmp_path)))
    assert {name for name in staged if name.endswith(".zip") and staged[name] != again[name]} == set()


@pytest.mark.parametrize("name", LABS)
def test_an_archive_holds_what_a_student_needs_and_no_more(root: Path, staged: dict, tmp_path: Path, name: str) -> None:
    home = unpack(staged, name, tmp_path)
    assert {"README.txt", "LICENSE", "pyproject.toml", "environment.yml"} <= {path.name for path in home.iterdir()}
    assert not (home / "autograder").exists()
    assert not (home / "solutions").exists()
    assert [path.name for path in (home / "labs").iterdir()] == [name]
    text = (home / "labs" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((\.\./[^)#\s]+\.md)", text):
        assert (home / "labs" / name / target).is_file(), target
    manifest = json.loads((home / "fourbit" / "assets" / "MANIFEST.json").read_text(encoding="utf-8"))["assets"]
    there = {
        path.relative_to(home / "fourbit" / "assets").as_posix() for path in (home / "fourbit/assets").rglob("*.*")
    }
    assert {entry["file"] for entry in manifest} | {entry["license_file"] for entry in manifest} <= there
    assert "texts/sense-and-sensibility.txt.xz" not in there  # the hidden exam's


def test_archives_are_no_larger_than_their_lab_needs(staged: dict) -> None:
    sizes = {name: len(staged[f"labs/{name}/{name}.zip"]) for name in LABS}
    assert max(sizes.values()) < 20e6
    assert all(sizes[name] < 4e6 for name in LABS if name >= "04")  # language models read no Fashion-MNIST


@pytest.mark.slow
def test_an_archive_installs_and_checks_the_untouched_notebook(staged: dict, tmp_path: Path) -> None:
    home, target = unpack(staged, "00-measure", tmp_path), tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(home)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    done = student(home, target, "check", "00")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^total +0 / 94$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["01-pruning", "03-distillation", "07-deploy"])
def test_a_right_notebook_passes_in_an_archive(root: Path, staged: dict, tmp_path: Path, name: str) -> None:
    home = unpack(staged, name, tmp_path)
    lab, path = load_lab(root / "solutions" / name), home / "labs" / name / f"{name}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        about = cell["metadata"].get("fourbit", {})
        if about.get("role") == "exercise":
            cell["source"] = lab.source(about["exercise"])
    path.write_text(json.dumps(notebook), encoding="utf-8")
    done = student(home, home, "check", name[:2])
    assert done.returncode == 0, done.stderr
    verdicts = dict(re.findall(r"^(\w+) +(\w[\w ]*?) +[\d.]+ / [\d.]+$", done.stdout, re.MULTILINE))
    assert set(verdicts) == {exercise.name for exercise in lab.exam.exercises}
    # A machine that does much else may be too slow for a student's limits; what is missing would be an error.
    assert set(verdicts.values()) <= {"passed", "timeout"}, done.stdout
    assert list(verdicts.values()).count("passed") > len(verdicts) / 2


def test_the_readme_of_an_archive_names_commands_that_exist(staged: dict, tmp_path: Path) -> None:
    home = unpack(staged, "04-llm-quantization", tmp_path)
    text = (home / "README.txt").read_text(encoding="utf-8")
    assert (home / "fourbit" / "bootstrap.py").is_file()
    assert ".venv/bin/fourbit lab 04" in text
    assert "fourbit models fetch smollm2" in text
    for command in set(re.findall(r"bin/fourbit (\w+)", text)):
        done = student(home, home, command, "--help")
        assert done.returncode == 0, done.stderr
