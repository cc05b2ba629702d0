"""Build labs: ``solutions/NN-name/`` to ``labs/NN-name/`` for students and ``build/`` for instructors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat.notebooknode import NotebookNode

from autograder import exams
from autograder.builder import release
from autograder.builder.metadata import Fact, expand
from autograder.builder.pack import ExamSeed, exam_facts, find_seed, pack_files, same_pack
from autograder.builder.rules import check_against_exam, check_cells
from autograder.builder.source import LabSource, SourceError, read_source
from autograder.builder.write import Writer, Written

LAB_NAME = re.compile(r"\d\d-[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Rendered:
    """A lab before anything is written: its checked source, its exam, and both notebooks."""

    source: LabSource
    exam: exams.Lab
    facts: dict[str, Fact]
    instructor: NotebookNode
    student: NotebookNode


@dataclass(frozen=True)
class BuildReport:
    """What one build made.

    Attributes:
        lab: the folder's name.
        cells: number of cells in the notebook, with those that the builder added.
        exercises: names, in order.
        points: sum over exercises and written answers.
        written, predictions: how many of each.
        files: everything that was looked at, written or not.
        seed: what the hidden cases were drawn from.
    """

    lab: str
    cells: int
    exercises: tuple[str, ...]
    points: float
    written: int
    predictions: int
    files: tuple[Written, ...]
    seed: ExamSeed

    @property
    def kept(self) -> tuple[Written, ...]:
        """Notebooks with somebody's work that were left alone; each says where the new version is."""
        return tuple(file for file in self.files if file.action == "kept")


def lab_names(root: Path) -> list[str]:
    """The labs that have a source under `root`/solutions, in order."""
    folder = root / "solutions"
    if not folder.is_dir():
        return []
    return sorted(d.name for d in folder.iterdir() if LAB_NAME.fullmatch(d.name) and (d / f"{d.name}.py").is_file())


def build_lab(
    name: str, root: Path, *, labs: Path | None = None, build: Path | None = None, seed: ExamSeed | None = None
) -> BuildReport:
    """Build one lab.

    Writes `labs`/NAME (notebook and exam/, for students), `build`/source/NAME (the same with solutions, for nbgrader),
    `build`/exams/NAME (the hidden pack) and `build`/cache, and nothing else. A notebook that somebody edited or ran
    stays as it is; the new one then goes beside it.

    Args:
        name: of the lab's folder, "01-pruning".
        root: the checkout, which holds solutions/.
        labs, build: where to write; `root`/labs and `root`/build by default.
        seed: of the hidden cases; see :func:`autograder.builder.find_seed`, which is asked by default.

    Raises:
        SourceError: for a lab that does not exist or a source that breaks a rule; nothing is written then.
        ExamError: when the exam does not fit the reference; nothing is written then.
        WriteError: when a file may not or cannot be written.
    """
    labs, build = labs or root / "labs", build or root / "build"
    seed = seed or find_seed(build)
    lab = render_lab(_folder(name, root))
    cache = build / "cache" / "packs"
    visible = pack_files(lab.exam, visible=True, seed=exams.PUBLIC_SEED, cache=cache)
    hidden = pack_files(lab.exam, visible=False, seed=seed.value, cache=cache)
    writer = Writer(labs, build)
    files = [
        writer.notebook(labs / name / f"{name}.ipynb", release.to_bytes(lab.student)),
        writer.notebook(build / "source" / name / f"{name}.ipynb", release.to_bytes(lab.instructor)),
    ]
    for folder, pack in (
        (labs / name / "exam", visible), (build / "source" / name / "exam", visible), (build / "exams" / name, hidden),
    ):  # fmt: skip
        files += [_write_pack_file(writer, folder / file, data) for file, data in pack.items()]
    return _report(lab, tuple(files), seed)


def build_all(
    root: Path,
    names: Sequence[str] | None = None,
    *,
    labs: Path | None = None,
    build: Path | None = None,
    seed: ExamSeed | None = None,
) -> tuple[BuildReport, ...]:
    """Build the named labs, or every lab under `root`/solutions; see :func:`build_lab`."""
    found = lab_names(root) if names is None else list(names)
    if not found:
        files = "NN-name.py, exam.py and properties.py"
        raise SourceError(f"{root / 'solutions'}: no lab here. A lab is a folder NN-name with {files}.")
    return tuple(build_lab(name, root, labs=labs, build=build, seed=seed) for name in found)


def render_lab(folder: Path) -> Rendered:
    """Read and check one lab's source and make both notebooks, without writing anything."""
    source = read_source(folder / f"{folder.name}.py")
    check_cells(source)
    exam, minutes = exams.load_lab(folder), _read_minutes(folder / "minutes.json")
    if exam.exam.lab != folder.name:
        raise SourceError(
            f"{folder / 'exam.py'}: the exam is of lab {exam.exam.lab!r}. Give it the folder's name, {folder.name!r}."
        )
    facts = exam_facts(exam, minutes)
    check_against_exam(source, facts)
    instructor, student = release.stamp(expand(source.cells, facts), folder.name)
    return Rendered(source, exam, facts, instructor, student)


def _folder(name: str, root: Path) -> Path:
    known = lab_names(root)
    if name not in known:
        raise SourceError(f"{root / 'solutions'}: no lab {name!r}. There are: {', '.join(known) or 'none'}.")
    return root / "solutions" / name


def _read_minutes(path: Path) -> dict[str, float]:
    """CPU minutes of the reference by exercise; empty where nobody has measured yet."""
    if not path.is_file():
        return {}
    try:
        minutes = json.loads(path.read_text(encoding="utf-8"))["minutes"]
        return {str(name): float(value) for name, value in minutes.items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        example = '{"minutes": {"magnitude_mask": 0.05}}'
        raise SourceError(f"{path}: no measured minutes ({error!r}). It looks like {example}; measure again.") from None


def _write_pack_file(writer: Writer, path: Path, data: bytes) -> Written:
    return writer.file(path, data, same_pack if path.name == exams.PACK else None)


def _report(lab: Rendered, files: tuple[Written, ...], seed: ExamSeed) -> BuildReport:
    written = lab.source.named("written")
    return BuildReport(
        lab=lab.source.name,
        cells=len(lab.student.cells),
        exercises=tuple(lab.source.named("exercise")),
        points=sum(f.points for f in lab.facts.values()) + sum(cell.points or 0.0 for cell in written.values()),
        written=len(written),
        predictions=len(lab.source.named("prediction")),
        files=files,
        seed=seed,
    )
