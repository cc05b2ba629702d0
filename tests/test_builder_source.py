"""Reading a lab's source: what the short headers mean, and what an author is told when one is wrong."""

import shutil
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbgrader.nbgraderformat import MetadataValidator

from autograder.builder.build import render_lab
from autograder.builder.metadata import Fact, expand
from autograder.builder.names import bound_names, parse_cell, read_names
from autograder.builder.release import release, stamp
from autograder.builder.source import SourceCell, SourceError, parse_source, read_source
from fourbit.errors import FourbitError

PATH = Path("solutions/07-tiny/07-tiny.py")


@pytest.fixture
def tiny(root, tmp_path):
    """A copy of the tiny lab's folder, to spoil."""
    return Path(shutil.copytree(root / "tests/fixtures/tiny-lab/solutions/07-tiny", tmp_path / "07-tiny"))


def spoil(folder, old, new, name="07-tiny.py"):
    text = (folder / name).read_text()
    assert text.count(old) == 1
    (folder / name).write_text(text.replace(old, new))


def test_headers_give_role_name_points_and_line(tiny):
    cells = read_source(tiny / "07-tiny.py").cells
    roles = [cell.role for cell in cells]
    assert roles == [
        "prose", "setup", "prose", "exercise", "check", "exercise", "check", "prose", "prediction", "measure",
        "prose", "written", "prose", "written",
    ]  # fmt: skip
    written = cells[11]
    assert (written.name, written.points, written.cell_type) == ("why-half", 2.0, "markdown")
    lines = (tiny / "07-tiny.py").read_text().splitlines()
    assert all(lines[cell.line - 1] == cell.header for cell in cells)
    assert cells[9].source.startswith("%matplotlib inline\n")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ('# %% excercise="snap"', "unknown key 'excercise'"),
        ('# %% role="demo"', "unknown role 'demo'"),
        ("# %% role=setup", "cannot read 'role=setup'"),
        ("# %% A title", "cannot read 'A title'"),
        ("# %%", "this code cell has no role"),
        ('# %% exercise="snap" points=2', "unknown key 'points'"),
        ('# %% exercise="two words"', "is no name"),
        ('# %% exercise="snap" check="snap"', "a cell has one role"),
        ("# %% [raw]", "cells of type raw"),
        ("# %% [markdown] points=3", "points= belongs to a written= cell"),
        ('# %% [markdown] written="why"', "needs its points"),
        ('# %% [markdown] written="why" points=0', "above 0"),
        ('# %% [markdown] written="why" points=true', "above 0"),
        ('# %% [markdown] exercise="snap"', "unknown key 'exercise'"),
        ('  # %% role="setup"', "at the left margin"),
        ("#%% [markdown]", "a header starts with `# %%`"),
        ("# In[1]:", "a header starts with `# %%`"),
    ],
)
def test_a_wrong_header_is_quoted_with_file_and_line(header, complaint):
    with pytest.raises(SourceError) as error:
        parse_source(f"# %% [markdown]\n# Text.\n\n{header}\nx = 1\n", PATH)
    assert str(error.value).startswith(f"{PATH}:4: `{header.strip()}`: ")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no cell in this file"),
        ("x = 1\n", "text before the first cell"),
        ('"""A docstring."""\n\n# %% role="setup"\nx = 1\n', ':1: `"""A docstring."""`: text before'),
        ('# %% role="setup"\nx = """\n# %% [markdown]\n"""\n', ":3: 2 lines start with `# %%`, but there are 1"),
        ("# %% [markdown]\n# ```\n# %% flow\n# ```\n", "inside a string or a fenced block"),
    ],
)
def test_text_that_is_no_sequence_of_cells_is_refused(text, complaint):
    with pytest.raises(SourceError, match=r"07-tiny\.py") as error:
        parse_source(text, PATH)
    assert complaint in str(error.value)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such source"):
        read_source(tmp_path / "01-gone" / "01-gone.py")
    (tmp_path / "latin.py").write_bytes(b"# %% [markdown]\n# \xe9t\xe9\n")
    with pytest.raises(SourceError, match="not UTF-8"):
        read_source(tmp_path / "latin.py")


SPOILED = {
    "no solution markers": ("    ### BEGIN SOLUTION\n    multiples", "    multiples", "out of place"),
    "no markers at all": (
        "    ### BEGIN SOLUTION\n    multiples = torch.round(x / step)\n"
        "    return multiples * step\n    ### END SOLUTION\n",
        "    return torch.round(x / step) * step\n",
        "no solution",
    ),
    "never closed": (
        "    return multiples * step\n    ### END SOLUTION",
        "    return multiples * step",
        "without `### END",
    ),
    "marker with text": (
        "    return multiples * step\n    ### END",
        "    return multiples * step\n    ## END",
        "cannot read the marker",
    ),
    "marker in setup": ("WEIGHTS =", "### BEGIN SOLUTION\nWEIGHTS =", "Only exercises and written answers"),
    "hidden tests by hand": ("WEIGHTS =", "### BEGIN HIDDEN TESTS\nWEIGHTS =", "hidden cases belong in exam.py"),
    "check with text": ('# %% check="snap"\n', '# %% check="snap"\ncheck("snap")\n', "empty in the source"),
    "two exercises of a name": (
        '# %% exercise="error"',
        '# %% exercise="snap"',
        "the name is taken by the cell at line 18",
    ),
    "not in the exam": ('# %% exercise="error"', '# %% exercise="mistake"', "has no cell"),
    "no check": ('# %% check="error"\n', "", "no check for this exercise"),
    "check of nothing": (
        '# %% check="error"',
        '# %% check="terror"\n\n# %% check="error"',
        'no cell with exercise="terror"',
    ),
    "guess filled in": ('predict("worst", ...', 'predict("worst", 0.25', "the guess is filled in"),
    "other prediction": ('predict("worst"', 'predict("best"', 'has to call predict("worst"'),
    "confront nothing": ('confront("worst"', 'confront("best"', "has no prediction before it"),
    "no question": ("# %% [markdown]\n# Where would a floor go wrong?\n\n", "", "no question"),
    "no model answer": (
        "# A number lies between two neighboring multiples, and the nearer is at most half their distance away.\n",
        "",
        "no model answer",
    ),
    "empty prose": ("# Where would a floor go wrong?\n", "", "an empty cell"),
    "no import": ("check, confront, predict", "confront, predict", "no setup cell imports check"),
    "syntax": ("WEIGHTS = torch.linspace(-1.0, 1.0, 9)", "WEIGHTS = = 9", "not valid Python at line 11"),
    "cell split by a stray header": (
        "    return difference",
        "# %% [markdown]\n    return difference",
        "`### BEGIN SOLUTION` without",
    ),
    "measured name": ("    difference = x -", "    difference = worst + x -", "needs worst from a measure cell"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_broken_rule_is_reported_at_its_cell(tiny, case):
    old, new, complaint = SPOILED[case]
    spoil(tiny, old, new)
    with pytest.raises(FourbitError, match=r"07-tiny") as error:
        render_lab(tiny)
    assert complaint in str(error.value)


def test_a_check_stands_below_its_exercise(tiny):
    spoil(tiny, '# %% check="snap"\n', "")
    spoil(tiny, '# %% exercise="snap"', '# %% check="snap"\n\n# %% exercise="snap"')
    with pytest.raises(SourceError, match=r'`# %% check="snap"`: stands before its exercise'):
        render_lab(tiny)


@pytest.mark.parametrize("text", ["[1]", "{", "{}", '{"minutes": {"snap": "long"}}'])
def test_minutes_that_nobody_measured_are_refused(tiny, text):
    (tiny / "minutes.json").write_text(text)
    with pytest.raises(SourceError, match=r"minutes\.json: no measured minutes"):
        render_lab(tiny)


def test_an_exam_of_another_lab_is_refused(tiny):
    spoil(tiny, 'lab="07-tiny"', 'lab="08-tiny"', "exam.py")
    with pytest.raises(SourceError, match=r"the exam is of lab '08-tiny'"):
        render_lab(tiny)


def test_prose_states_points_difficulty_and_measured_minutes(tiny):
    prose = "\n".join(cell.source for cell in render_lab(tiny).student.cells if cell.cell_type == "markdown")
    assert (
        "## Rounding to a grid\n\n*Exercise `snap`: 2 points, difficulty 1 of 3; runs in about 13 s.*\n\nA grid"
        in prose
    )
    assert "*Exercise `error`: 1.5 points, difficulty 2 of 3.*" in prose
    assert "*Written answer: 2 points, graded by hand.*\n\nNo error exceeds" in prose


def test_names_read_and_bound_by_a_cell():
    tree = parse_cell(
        "%time y = f(x)\nimport a.b as c\nfrom m import *\nfor i, (j, k) in z:\n    pass\ndef g(p=q):\n    return p\n"
    )
    assert {"c", "i", "j", "k", "g", "p"} <= bound_names(tree)
    assert {"z", "q"} <= read_names(tree)


# Any lab that can be written is read back as written, and gives a notebook that nbgrader accepts.

# What starts a cell, hides a header or marks a solution has tests of its own above.
MARKS = ("%%", "In[", "<codecell>", "```", "~~~", '"""', "'''", "SOLUTION", "HIDDEN TESTS", "MARK SCHEME", "*")
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30)
markdown = (
    st.lists(words.map(str.rstrip), min_size=1, max_size=4)
    .map("\n".join)
    .map(lambda text: text.strip("\n"))
    .filter(lambda text: text.strip() and not any(mark in text for mark in MARKS))
)
code = st.sampled_from(
    ["x = 1", "def f(a):\n    return a\n\n\nf(2)", "# a comment\ny = [\n    1,\n]", "%matplotlib inline\nx = 2"]
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)


@st.composite
def labs(draw):
    cells, used = [], draw(st.lists(names, unique=True, max_size=4))
    for role in draw(st.lists(st.sampled_from(["prose", "setup", "measure"]), max_size=5)):
        cells.append(SourceCell(role, source=draw(markdown if role == "prose" else code)))
    for name in used:
        kind = draw(st.sampled_from(["exercise", "prediction", "written"]))
        if kind == "exercise":
            source = f"def {name}():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
            cells += [SourceCell(kind, name, source), SourceCell("check", name)]
        elif kind == "prediction":
            cells.append(SourceCell(kind, name, f'predict("{name}", ..., "number")'))
        else:
            points = draw(st.sampled_from([0.5, 1.0, 3.0]))
            cells += [SourceCell("prose", source=draw(markdown)), SourceCell(kind, name, draw(markdown), points)]
    return cells or [SourceCell("prose", source="Text.")]


def percent(cells):
    """Write cells as an author would."""
    out = []
    for cell in cells:
        key = {"prose": "", "setup": ' role="setup"', "measure": ' role="measure"'}.get(
            cell.role, f' {cell.role}="{cell.name}"'
        )
        points = f" points={cell.points:g}" if cell.points else ""
        if cell.cell_type == "markdown":
            body = "\n".join(f"# {line}".rstrip() for line in cell.source.split("\n"))
            out.append(f"# %% [markdown]{key}{points}\n{body}\n")
        else:
            out.append(f"# %%{key}\n{cell.source.replace('%matplotlib', '# %matplotlib')}\n")
    return "\n".join(out)


@settings(deadline=None, max_examples=60)
@given(labs())
def test_what_is_written_is_read_back(cells):
    read = parse_source(percent(cells), PATH)
    assert [(c.role, c.name, c.source, c.points) for c in read] == [(c.role, c.name, c.source, c.points) for c in cells]


@settings(deadline=None, max_examples=25)
@given(labs())
def test_every_lab_gives_notebooks_that_nbgrader_accepts(cells):
    facts = {c.name: Fact(2.5, 1) for c in cells if c.role == "exercise"}
    instructor, student = stamp(expand(cells, facts), "07-tiny")
    for notebook in (instructor, student):
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
    ids = [cell.id for cell in student.cells]
    assert len(set(ids)) == len(ids)
    assert [c.id for c in instructor.cells] == ids
    assert [(c.role, c.name) for c in cells] == roles_of(student, facts)
    for before, after in zip(instructor.cells, student.cells, strict=True):
        if before.metadata.fourbit.role in ("prose", "setup", "measure", "prediction"):
            assert before.source == after.source
    assert release(instructor) == student


def roles_of(notebook, facts):
    """Role and name of every cell that stood in the source, from the notebook's metadata alone."""
    told = [
        cell.metadata.fourbit
        for cell in notebook.cells
        if not cell.source.startswith(("*Exercise `", "*Written answer:"))
    ]
    return [(f.role, f.get("exercise", f.get("name", ""))) for f in told]
