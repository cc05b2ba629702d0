"""Building a lab: what is written where, and what is never written."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from autograder import exams
from autograder.builder import ExamSeed, build_all, build_lab, find_seed, lab_names
from autograder.builder.pack import pack_files, same_pack
from autograder.builder.source import SourceError
from autograder.builder.write import WriteError, Writer, is_edited
from autograder.cli import register
from autograder.course import CourseError, create_course
from autograder.exams import coincide
from fourbit.codec import encode
from fourbit.errors import ExamError

LAB = "07-tiny"


@pytest.fixture
def checkout(root, tmp_path):
    """A checkout that holds the tiny lab alone."""
    return Path(shutil.copytree(root / "tests/fixtures/tiny-lab", tmp_path / "checkout"))


@pytest.fixture
def built(checkout):
    build_lab(LAB, checkout)
    return checkout


def files_under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def student_notebook(checkout):
    return checkout / "labs" / LAB / f"{LAB}.ipynb"


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def test_a_build_makes_these_files_and_reports_them(checkout):
    before = files_under(checkout)
    report = build_lab(LAB, checkout)
    made = files_under(checkout).keys() - before.keys()
    expected = {
        f"labs/{LAB}/{LAB}.ipynb", f"labs/{LAB}/exam/pack.safetensors", f"labs/{LAB}/exam/properties.py",
        f"build/source/{LAB}/{LAB}.ipynb", f"build/source/{LAB}/exam/pack.safetensors",
        f"build/source/{LAB}/exam/properties.py",
        f"build/exams/{LAB}/pack.safetensors", f"build/exams/{LAB}/properties.py",
    }  # fmt: skip
    assert {name for name in made if not name.startswith("build/cache/")} == expected
    assert {file.path.relative_to(checkout).as_posix() for file in report.files} == expected
    assert {file.action for file in report.files} == {"created"}
    assert (report.exercises, report.points, report.written, report.predictions) == (("snap", "error"), 7.0, 2, 1)
    assert report.cells == len(nbformat.read(student_notebook(checkout), 4).cells) == 16
    assert {name: data for name, data in files_under(checkout).items() if name in before} == before


def test_the_student_gets_no_solution_and_no_output(built):
    notebook = nbformat.read(student_notebook(built), as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    assert 'raise NotImplementedError("snap is not written yet")' in cells["snap"].source
    assert "tensor([0.5000, 1.0000])" in cells["snap"].source
    assert cells["check-snap"].source == 'check("snap")'
    assert cells["prediction-worst"].source == 'predict("worst", ..., "largest error on a grid of step 0.5")'
    assert cells["written-why-half"].source == "YOUR ANSWER HERE"
    assert cells["written-why-floor"].source == "Start from $x = 0.9$.\n\nYOUR ANSWER HERE"
    assert cells["measure-1"].metadata.tags == ["skip-execution"]
    assert not any(cell.get("outputs") for cell in notebook.cells)
    everything = b"".join(files_under(built / "labs").values())
    for secret in (b"multiples = torch", b"difference", b"examine", b"SOLUTION", b"half their distance", b"0.9 steps"):
        assert secret not in everything


def test_cells_are_locked_and_worth_what_the_exam_says(built):
    notebook = nbformat.read(student_notebook(built), as_version=4)
    cells = {cell.id: cell.metadata for cell in notebook.cells}
    points = {name: meta.nbgrader.points for name, meta in cells.items() if meta.nbgrader.grade}
    assert points == {"check-snap": 2, "check-error": 1.5, "written-why-half": 2, "written-why-floor": 1.5}
    editable = {name for name, meta in cells.items() if meta.get("editable", True)}
    assert editable == {"snap", "error", "prediction-worst", "written-why-half", "written-why-floor"}
    assert not any(meta.deletable for meta in cells.values())
    assert all(len(meta.nbgrader.checksum) == 32 for meta in cells.values())


def test_the_hidden_exam_lies_outside_of_source_and_differs(built):
    visible, hidden = (exams.load_pack(built / path) for path in (f"labs/{LAB}/exam", f"build/exams/{LAB}"))
    assert visible.visible
    assert not hidden.visible
    assert not torch.equal(visible["snap"].cases[0].args[0], hidden["snap"].cases[0].args[0])
    data = (built / f"build/exams/{LAB}/pack.safetensors").read_bytes()
    assert data not in files_under(built / "build/source").values()
    assert data not in files_under(built / "labs").values()


def test_a_second_build_changes_nothing_and_runs_nothing(built, monkeypatch):
    before = files_under(built)
    monkeypatch.setattr(exams, "write_pack", None)  # a call would raise
    assert {file.action for file in build_lab(LAB, built).files} == {"unchanged"}
    assert files_under(built) == before


def test_builds_in_different_places_are_equal(built, root, tmp_path):
    build_lab(LAB, root / "tests/fixtures/tiny-lab", labs=tmp_path / "labs", build=tmp_path / "build")
    assert files_under(tmp_path / "labs") == files_under(built / "labs")
    assert files_under(tmp_path / "build") == files_under(built / "build")


def test_a_case_that_forgets_its_generator_is_the_same_in_every_build(checkout):
    exam = checkout / "solutions" / LAB / "exam.py"
    exam.write_text(exam.read_text().replace("torch.randn(n, generator=g)", "torch.randn(n)"))
    lab = exams.load_lab(exam.parent)
    state = torch.get_rng_state()
    first = pack_files(lab, visible=True, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert pack_files(lab, visible=True, seed=5) == first


def test_a_changed_exam_is_examined_again(built):
    exam = built / "solutions" / LAB / "exam.py"
    exam.write_text(exam.read_text().replace("points=2,", "points=4,"))
    assert build_lab(LAB, built).points == 9.0
    assert exams.load_pack(built / f"labs/{LAB}/exam")["snap"].points == 4.0


def test_a_damaged_cache_is_not_believed(built):
    before = files_under(built / "labs")
    cache = built / "build/cache/packs" / LAB / "visible/pack.safetensors"
    cache.write_bytes(cache.read_bytes()[:-1] + b"x")
    build_lab(LAB, built)
    assert files_under(built / "labs") == before


def test_a_pack_that_differs_by_float_noise_stays(built):
    pack = built / f"labs/{LAB}/exam/pack.safetensors"
    data = pack.read_bytes()
    noisy = data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]  # the last bit of the last number
    assert noisy != data
    pack.write_bytes(noisy)
    build_lab(LAB, built)
    assert pack.read_bytes() == noisy
    pack.write_bytes(b"not a pack")
    build_lab(LAB, built)
    assert pack.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda v: v, True),
        (lambda v: {**v, "t": v["t"] * (1 + 1e-6)}, True),
        (lambda v: {**v, "t": v["t"] * 1.01}, False),
        (lambda v: {**v, "t": v["t"].double()}, False),
        (lambda v: {**v, "x": float("nan")}, False),
        (lambda v: {**v, "l": [1, 3]}, False),
        (lambda v: {**v, "l": (1, 2)}, False),
        (lambda v: {**v, "new": 1}, False),
        (lambda v: {**v, "m": nn.Sequential(nn.Linear(2, 3))}, False),
    ],
)
def test_packs_are_compared_by_what_they_hold(change, same):
    value = {
        "t": torch.linspace(0, 1, 5),
        "x": 0.5,
        "l": [1, 2],
        "m": nn.Sequential(nn.Linear(2, 2)),
        "n": float("nan"),
    }
    assert coincide(value, change(value)) is same
    assert same_pack(encode(value), encode(change(value))) is same


EDITS = {
    "an answer": lambda nb: nb.cells[3].__setitem__("source", "def snap(x, step):\n    return x\n"),
    "a cell more": lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("My notes.")),
    "an output": lambda nb: nb.cells[1].outputs.append(nbformat.v4.new_output("stream", text="hello")),
    "no record": lambda nb: nb.metadata.pop("fourbit"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_notebook_with_work_in_it_is_left_alone(built, case):
    path = student_notebook(built)
    fresh = path.read_bytes()
    edit(path, EDITS[case])
    work = path.read_bytes()
    (kept,) = build_lab(LAB, built).kept
    assert path.read_bytes() == work
    assert kept.kept == path
    assert kept.path == path.with_name(f"{LAB}.new.ipynb")
    assert kept.path.read_bytes() == fresh
    assert str(path) in str(kept)
    assert str(kept.path) in str(kept)
    edit(kept.path, EDITS[case])
    (again,) = build_lab(LAB, built).kept
    assert again.path == path.with_name(f"{LAB}.new-2.ipynb")


def test_an_opened_and_saved_notebook_is_brought_up_to_date(built):
    path = student_notebook(built)
    edit(path, lambda nb: nb.metadata.update(widgets={}, kernelspec={"name": "other", "display_name": "Other"}))
    edit(path, lambda nb: nb.cells[1].update(execution_count=3))
    assert not is_edited(path)
    assert build_lab(LAB, built).kept == ()


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[]", b'{"cells": []}', b"\xff\xfe"])
def test_a_file_that_is_no_notebook_is_somebodys(built, content):
    student_notebook(built).write_bytes(content)
    (kept,) = build_lab(LAB, built).kept
    assert student_notebook(built).read_bytes() == content
    assert kept.path.name == f"{LAB}.new.ipynb"


def test_an_instructors_edited_source_is_left_alone_too(built):
    path = built / f"build/source/{LAB}/{LAB}.ipynb"
    edit(path, EDITS["an answer"])
    (kept,) = build_lab(LAB, built).kept
    assert kept.kept == path


def test_nothing_is_written_through_a_link_that_leads_out(built, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    shutil.rmtree(built / "labs" / LAB)
    (built / "labs" / LAB).symlink_to(outside)
    with pytest.raises(WriteError, match="lies outside the folders to write to"):
        build_lab(LAB, built)
    assert list(outside.iterdir()) == []


def test_a_writer_leaves_whole_files_and_no_scraps(tmp_path, monkeypatch):
    writer = Writer(tmp_path)
    writer.file(tmp_path / "a" / "b.txt", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WriteError, match="No space left on device"):
        writer.file(tmp_path / "a" / "b.txt", b"new")
    assert files_under(tmp_path) == {"a/b.txt": b"old"}
    (tmp_path / "c").mkdir()
    with pytest.raises(WriteError, match="is a folder"):
        writer.file(tmp_path / "c", b"")


def test_a_source_with_an_error_writes_nothing(checkout):
    source = checkout / "solutions" / LAB / f"{LAB}.py"
    source.write_text(source.read_text().replace("### END SOLUTION", ""))
    with pytest.raises(SourceError):
        build_lab(LAB, checkout)
    exam = checkout / "solutions" / LAB / "exam.py"
    shutil.copy(Path(__file__).parent / "fixtures/tiny-lab/solutions" / LAB / source.name, source)
    exam.write_text(exam.read_text().replace('"torch.round"', '"torch.rounds"'))
    with pytest.raises(ExamError, match="floor"):
        build_lab(LAB, checkout)
    assert not (checkout / "labs").exists()
    assert not (checkout / "build/source").exists()


def test_labs_are_found_and_unknown_ones_named(checkout, tmp_path):
    assert lab_names(checkout) == [LAB]
    assert lab_names(tmp_path / "nowhere") == []
    assert [report.lab for report in build_all(checkout)] == [LAB]
    for name in ("08-tiny", "..", "../07-tiny"):
        with pytest.raises(SourceError, match=r"There are: 07-tiny\."):
            build_lab(name, checkout)
    with pytest.raises(SourceError, match="no lab here"):
        build_all(tmp_path / "nowhere")


def test_where_the_seed_of_the_hidden_exam_comes_from(tmp_path):
    default = find_seed(tmp_path, environment={})
    assert default.public
    assert default.value == exams.PUBLIC_SEED
    (tmp_path / "exam-seed").write_text("in the build folder\n")
    (tmp_path / "mine").write_text("by hand\n")
    found = [
        find_seed(tmp_path, environment={}),
        find_seed(tmp_path, environment={"FOURBIT_EXAM_SEED": "by environment"}),
        find_seed(tmp_path, tmp_path / "mine", {"FOURBIT_EXAM_SEED": "by environment"}),
    ]
    assert not any(seed.public for seed in found)
    assert len({seed.value for seed in found} | {default.value}) == 4
    assert all(0 <= seed.value < 2**31 and str(seed.value) not in repr(seed) for seed in found)
    assert found[2] == find_seed(tmp_path, tmp_path / "mine", {})
    with pytest.raises(SourceError, match="no such seed file"):
        find_seed(tmp_path, tmp_path / "gone")
    with pytest.raises(SourceError, match="holds no seed"):
        find_seed(tmp_path, environment={"FOURBIT_EXAM_SEED": " "})


def test_a_secret_seed_changes_the_hidden_exam_alone(built, tmp_path):
    report = build_lab(
        LAB, built, labs=tmp_path / "labs", build=tmp_path / "build", seed=ExamSeed(123, "a test", False)
    )
    assert not report.seed.public
    assert files_under(tmp_path / "labs") == files_under(built / "labs")
    hidden = [exams.load_pack(folder / "exams" / LAB) for folder in (built / "build", tmp_path / "build")]
    assert not torch.equal(hidden[0]["snap"].cases[0].args[0], hidden[1]["snap"].cases[0].args[0])


def test_a_course_is_made_once_and_brought_up_to_date(built, tmp_path):
    course = tmp_path / "course"
    report = create_course(course, [LAB], build=built / "build")
    assert {file.action for file in report.files} == {"created"}
    assert (course / "exams" / LAB / "pack.safetensors").is_file()
    assert not list((course / "source").rglob("exams"))
    assert (course / "submitted").is_dir()
    (course / "submitted" / "ada").mkdir()
    assert {file.action for file in create_course(course, [LAB], build=built / "build").files} == {"unchanged"}
    source = built / "solutions" / LAB / f"{LAB}.py"
    source.write_text(source.read_text().replace("holds the multiples", "consists of the multiples"))
    build_lab(LAB, built)
    updated = [
        file.path.name for file in create_course(course, [LAB], build=built / "build").files if file.action == "updated"
    ]
    assert updated == [f"{LAB}.ipynb"]


def repaired(built, file, old, new):
    """Change a file of the lab as its authors would, and build it."""
    path = built / "solutions" / LAB / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    build_lab(LAB, built)
    return built / "build"


def test_settings_that_an_instructor_changed_let_a_repaired_exam_in(built, tmp_path):
    course = tmp_path / "course"
    create_course(course, [LAB], build=built / "build")
    config = course / "nbgrader_config.py"
    mine = config.read_bytes() + b"c.Execute.timeout = 7\n"
    config.write_bytes(mine)
    build = repaired(built, "exam.py", "seed + visible", "seed + 2 * visible")
    for action in ("updated", "unchanged"):
        report = create_course(course, [LAB], build=build)
        actions = {file.path.relative_to(course).as_posix(): file.action for file in report.files}
        assert actions["nbgrader_config.py"] == "kept"
        assert actions[f"source/{LAB}/exam/pack.safetensors"] == action
        assert config.read_bytes() == mine
        for file in (f"exams/{LAB}/pack.safetensors", f"exams/{LAB}/properties.py", f"source/{LAB}/{LAB}.ipynb"):
            assert (course / file).read_bytes() == (build / file).read_bytes()
    assert not list(course.rglob("*.new*"))


def test_new_settings_are_put_beside_those_that_an_instructor_changed(built, tmp_path):
    course, build = tmp_path / "course", built / "build"
    create_course(course, [LAB], build=build)
    config = course / "nbgrader_config.py"
    mine = config.read_bytes() + b"c.ClearSolutions.code_stub = {}\n"
    config.write_bytes(mine)
    (course / "nbgrader_config.py.new").write_text("somebody's")
    build = repaired(built, "exam.py", "seed + visible", "seed + 2 * visible")
    report = create_course(course, [LAB], build=build, timeout=77)
    (kept,) = [file for file in report.files if file.action == "kept"]
    assert (kept.kept, kept.path) == (config, course / "nbgrader_config.py.new-2")
    assert "c.Execute.timeout = 77" in kept.path.read_text()
    assert config.read_bytes() == mine
    assert (course / "nbgrader_config.py.new").read_text() == "somebody's"
    pack = f"exams/{LAB}/pack.safetensors"
    assert (course / pack).read_bytes() == (build / pack).read_bytes()
    # It is told once: what was offered counts as known, whether it was taken over or not.
    again = create_course(course, [LAB], build=build, timeout=77)
    assert [file.path for file in again.files if file.action == "kept"] == [config]


def test_a_file_of_a_lab_that_both_changed_is_a_conflict_and_can_be_settled(built, tmp_path):
    course, build = tmp_path / "course", built / "build"
    create_course(course, [LAB], build=build)
    notebook = course / "source" / LAB / f"{LAB}.ipynb"
    edit(notebook, EDITS["an answer"])
    mine = notebook.read_bytes()
    assert create_course(course, [LAB], build=build)
    assert notebook.read_bytes() == mine
    repaired(built, "exam.py", "seed + visible", "seed + 2 * visible")
    repaired(built, f"{LAB}.py", "holds the multiples", "consists of the multiples")
    before = files_under(course)
    with pytest.raises(CourseError, match=rf"the build changed too: source/{LAB}/{LAB}\.ipynb\..*nothing was written"):
        create_course(course, [LAB], build=build)
    assert files_under(course) == before
    notebook.rename(tmp_path / "mine.ipynb")
    create_course(course, [LAB], build=build)
    assert notebook.read_bytes() == (build / f"source/{LAB}/{LAB}.ipynb").read_bytes()
    shutil.copy(tmp_path / "mine.ipynb", notebook)
    create_course(course, [LAB], build=build)
    assert notebook.read_bytes() == mine


def test_a_course_keeps_its_name_when_it_is_brought_up_to_date(built, tmp_path):
    course = tmp_path / "course"
    create_course(course, [LAB], build=built / "build", course_id="cs101")
    report = create_course(course, [LAB], build=built / "build")
    assert {file.action for file in report.files} == {"unchanged"}
    assert "course_id = 'cs101'" in (course / "nbgrader_config.py").read_text()


def test_a_loop_in_a_lab_costs_what_it_costs_in_any_course(built, tmp_path):
    pytest.importorskip("nbgrader")
    from autograder.jail import Limits
    from autograder.nbgrader_course import open_course
    from autograder.settings import settings_of

    create_course(tmp_path, [LAB], build=built / "build")
    course = open_course(tmp_path)
    assert course.config["Execute"]["timeout"] > Limits().cell_seconds
    assert settings_of(course).limits == Limits()


def test_the_command_says_what_was_kept(built, tmp_path, monkeypatch):
    monkeypatch.chdir(built)
    app = typer.Typer()
    register(app)
    course, build = tmp_path / "course", built / "build"
    config = course / "nbgrader_config.py"

    def said():
        done = CliRunner().invoke(app, ["course", str(course), LAB])
        assert done.exit_code == 0, done.output
        return done.output

    assert f"{course} holds {LAB}; 6 files written." in said()
    config.write_text(config.read_text() + "# mine\n")
    assert f"no files written.\n  {config} stays as you changed it.\n" in said()
    mine = config.read_bytes()
    create_course(course, [LAB], build=build, timeout=77)
    assert config.read_bytes() == mine
    assert f"{config} stays as you changed it. There is a new version, in {config}.new-2: put what you want" in said()


def test_a_foreign_folder_is_not_taken_over(built, tmp_path):
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n")
    with pytest.raises(CourseError, match="come from elsewhere"):
        create_course(tmp_path, [LAB], build=built / "build")
    assert not (tmp_path / "source").exists()
    with pytest.raises(CourseError, match=r"fourbit build 01-gone"):
        create_course(tmp_path / "course", ["01-gone"], build=built / "build")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".fourbit-course.json").write_text("[]")
    with pytest.raises(CourseError, match="is damaged"):
        create_course(tmp_path / "other", [LAB], build=built / "build")


def test_what_stood_back_beside_an_edited_source_does_not_enter_a_course(built, tmp_path):
    edit(built / f"build/source/{LAB}/{LAB}.ipynb", EDITS["an answer"])
    build_lab(LAB, built)
    create_course(tmp_path / "course", [LAB], build=built / "build")
    notebooks = sorted(path.name for path in (tmp_path / "course").rglob("*.ipynb"))
    assert notebooks == [f"{LAB}.ipynb"]
    assert json.loads((tmp_path / "course/.fourbit-course.json").read_text()).keys() >= {f"source/{LAB}/{LAB}.ipynb"}
