"""The committed labs: what a build makes today, with nothing in them that a student should find out alone."""

import contextlib
import json
import re
from pathlib import Path

import nbformat
import pytest

from autograder import exams
from autograder.builder import lab_names
from autograder.builder.build import render_lab
from autograder.builder.pack import pack_files, same_pack
from autograder.builder.release import to_bytes
from autograder.builder.rules import BEGIN, END, secret_lines
from autograder.builder.source import read_source

ROOT = Path(__file__).resolve().parent.parent
LABS = lab_names(ROOT)
TRIVIAL = 12  # characters; shorter lines ("return mask") are in every program
# So are imports and headers of blocks: they tell where a program goes, and a leaked solution shows by their bodies.
HEADER = re.compile(r"import |from \S+ import |(for|while|if|elif|else|with|try|except)\b.*:$")
BUILD = "Run `fourbit build` and commit labs/."


@pytest.fixture(scope="module")
def rendered():
    return {name: render_lab(ROOT / "solutions" / name) for name in LABS}


def committed(name):
    """The files that belong to a lab; what a student's work leaves beside them does not."""
    folder = ROOT / "labs" / name
    return [folder / f"{name}.ipynb", folder / "exam" / exams.PACK, folder / "exam" / exams.PROPERTIES]


def test_there_are_labs_and_each_has_a_folder():
    assert LABS
    built = sorted(path.name for path in (ROOT / "labs").iterdir() if path.is_dir())
    assert built == LABS, BUILD
    assert [str(path) for name in LABS for path in committed(name) if not path.is_file()] == [], BUILD


@pytest.mark.parametrize("name", LABS)
def test_the_committed_notebook_is_a_fresh_build(name, rendered):
    assert committed(name)[0].read_bytes() == to_bytes(rendered[name].student), f"{name}.ipynb is out of date. {BUILD}"


@pytest.mark.slow
@pytest.mark.parametrize("name", LABS)
def test_the_committed_exam_is_a_fresh_build(name, rendered):
    # Decoded and up to float noise: another CPU sums in another order.
    fresh = pack_files(rendered[name].exam, visible=True, seed=exams.PUBLIC_SEED)
    pack, properties = (path.read_bytes() for path in committed(name)[1:])
    assert properties == fresh[exams.PROPERTIES], BUILD
    assert same_pack(pack, fresh[exams.PACK]), f"the exam of {name} is out of date. {BUILD}"


@pytest.mark.parametrize("name", LABS)
def test_a_lab_holds_what_every_lab_holds(name, rendered):
    source, exam = rendered[name].source, rendered[name].exam.exam
    headers = [line for line in source.path.read_text().splitlines() if line.startswith("# %%")]
    assert len(headers) == len(source.cells)
    assert 6 <= len(source.named("exercise")) <= 12
    assert list(source.named("check")) == list(source.named("exercise"))
    assert source.named("written")
    assert source.named("prediction")
    assert {e.name: len(e.mistakes) for e in exam.exercises if len(e.mistakes) < 6} == {}
    notebook = nbformat.read(committed(name)[0], as_version=4)
    checks = [cell.metadata.fourbit.exercise for cell in notebook.cells if cell.metadata.fourbit.role == "check"]
    assert checks == list(source.named("exercise"))


# A line is secret when it stands between markers, or in an alternative or the patch of a mistake, and is given away
# by no source: the reference may well contain a line that another cell shows on purpose.


def significant(lines):
    stripped = {line.strip() for line in lines}
    return {line for line in stripped if len(line) >= TRIVIAL and not HEADER.match(line)}


def shown_lines(folder):
    """Lines that a lab's source gives to students."""
    shown = set()
    for cell in read_source(folder / f"{folder.name}.py").cells:
        secret = set(secret_lines(cell))
        shown |= {line.strip() for line in cell.source.splitlines() if line not in secret}
    return shown - {BEGIN, END}


def secrets_of(lab):
    """Each secret line with where it comes from."""
    found = {line: "the reference" for cell in lab.source.cells for line in significant(secret_lines(cell))}
    for exercise in lab.exam.exam.exercises:
        for mistake in exercise.mistakes:
            patched = mistake.apply(lab.exam.source(exercise.name)).splitlines()
            found |= dict.fromkeys(significant(patched) - found.keys(), f"mistake {mistake.id}")
        for alternative in exercise.alternatives:
            lines = significant(alternative.source.splitlines())
            found |= dict.fromkeys(lines - found.keys(), f"alternative {alternative.name!r}")
    return found


def texts(path):
    """The lines of a file as a reader finds them: of a notebook its cells, of a pack the strings in its tree."""
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        return {line.strip() for cell in notebook.cells for line in cell.source.splitlines()}
    if path.suffix == ".safetensors":
        data = path.read_bytes()
        head = data[8 : 8 + int.from_bytes(data[:8], "little")]
        return {line.strip() for text in strings(json.loads(head)) for line in text.splitlines()}
    return {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}


def strings(tree):
    """All strings in a JSON tree, those inside of JSON strings included."""
    if isinstance(tree, str):
        yield tree
        if tree[:1] in ("{", "["):
            with contextlib.suppress(json.JSONDecodeError):  # a case's text may begin so and be no JSON
                yield from strings(json.loads(tree))
    elif isinstance(tree, dict | list):
        for part in tree if isinstance(tree, list) else [*tree, *tree.values()]:
            yield from strings(part)


def test_no_line_of_a_solution_is_in_any_lab(rendered):
    shown = set().union(*(shown_lines(ROOT / "solutions" / name) for name in LABS))
    secrets = {line: (name, origin) for name in LABS for line, origin in secrets_of(rendered[name]).items()}
    assert len(secrets) > 100
    leaks = [
        f"{path.relative_to(ROOT)}: {line!r} of {secrets[line]}"
        for name in LABS
        for path in committed(name)
        for line in sorted(texts(path) & secrets.keys() - shown)
    ]
    assert leaks == []


def test_a_leak_would_be_found(root, tmp_path):
    lab = render_lab(root / "tests/fixtures/tiny-lab/solutions/07-tiny")
    secrets = secrets_of(lab)
    assert "multiples = torch.round(x / step)" in secrets
    assert secrets["multiples = torch.floor(x / step)"] == "mistake floor"
    assert secrets["return torch.floor(x / step + 0.5) * step"] == "alternative 'half up'"
    path = tmp_path / "leaky.ipynb"
    path.write_bytes(to_bytes(lab.instructor))
    found = texts(path) & secrets.keys()
    assert {"multiples = torch.round(x / step)", "The floor of 0.9 is 0, an error of 0.9 steps."} <= found
    path.write_bytes(to_bytes(lab.student))
    assert texts(path) & secrets.keys() - shown_lines(lab.source.path.parent) == set()


def test_no_notebook_holds_an_output_or_an_examination():
    for name in LABS:
        notebook = nbformat.read(committed(name)[0], as_version=4)
        assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
        assert not [cell.id for cell in notebook.cells if "examine(" in cell.source or "SOLUTION" in cell.source]
