"""Any nbgrader course folder: its configuration, its paths and its assignments.

Read with nbgrader's own classes, so that every setting that matters to grading (database, directory structure,
delimiters, header and footer, late penalties) means here what it means there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from autograder.reading.template import NotebookTemplate, Template, notebook_template
from autograder.results import GradingError, plain

CONFIG = "nbgrader_config.py"
_HELPER_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class NbgraderCourse:
    """An opened course folder.

    Attributes:
        config: the traitlets configuration that ``nbgrader_config.py`` makes.
        directory: nbgrader's `CourseDirectory`.
    """

    root: Path
    config: Any
    directory: Any

    @property
    def db_url(self) -> str:
        return str(self.directory.db_url)

    @property
    def course_id(self) -> str:
        return str(self.directory.course_id) or "default_course"

    def path(self, step: str, student: str, assignment: str) -> Path:
        """Return a folder of the course; `step` is nbgrader's name of it ("source", "submitted", ...)."""
        name = getattr(self.directory, f"{step}_directory")
        return Path(os.path.normpath(self.directory.format_path(name, student, assignment)))

    def assignments(self) -> list[str]:
        """Return the names of all assignments that have a source."""
        return sorted(name for name, _ in self._matching("source", ".", None))

    def submissions(self, assignment: str) -> dict[str, Path]:
        """Return the folder (or whatever is in its place) of every student who handed `assignment` in."""
        return dict(sorted(self._matching("submitted", None, assignment)))

    def require(self, assignment: str) -> Path:
        """Return the source folder of `assignment`.

        Raises:
            GradingError: when there is none; the message lists what there is.
        """
        folder = self.path("source", ".", assignment)
        if re.search(r"[/\\+]|^\.*$", assignment) or not folder.is_dir():
            known = self.assignments()
            close = get_close_matches(assignment, known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            listed = ", ".join(known) or "none yet"
            raise GradingError(
                f"no assignment {plain(assignment, 80)!r} in {self.root / 'source'}.{hint} It holds: {listed}."
            )
        return folder

    def _matching(self, step: str, student: str | None, assignment: str | None) -> Iterator[tuple[str, Path]]:
        """Yield (value, path) for every folder that fits the directory structure with one part left open."""
        name = getattr(self.directory, f"{step}_directory")
        mark = "\x00"
        open_path = self.directory.format_path(name, student or mark, assignment or mark)
        parts = Path(os.path.normpath(open_path)).parts
        where = next(i for i, part in enumerate(parts) if mark in part)
        before, after = (re.escape(piece) for piece in parts[where].split(mark, 1))
        base, pattern = Path(*parts[:where]), re.compile(f"{before}(.+){after}", re.DOTALL)
        entries = sorted(base.iterdir()) if base.is_dir() else []
        for entry in entries:
            found = pattern.fullmatch(entry.name)
            path = entry if entry.is_symlink() else entry.joinpath(*parts[where + 1 :])
            hidden = any(fnmatch(entry.name, glob) for glob in (*self.directory.ignore, ".*"))
            if found and not hidden and (path.is_symlink() or path.exists()):
                yield found[1], path


def open_course(folder: Path | str) -> NbgraderCourse:
    """Open the nbgrader course in `folder`; runs its ``nbgrader_config.py``, which is the instructor's own code.

    Raises:
        GradingError: when `folder` is no course, or its configuration does not load.
    """
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    root = Path(folder).resolve()
    if not (root / CONFIG).is_file():
        raise GradingError(
            f"{root} is not a course folder: it has no {CONFIG}. Go to the course, or name it with --course."
        )
    with _inside(root):
        try:
            config = PyFileConfigLoader(CONFIG, path=str(root)).load_config()
            directory = CourseDirectory(config=config)
            directory.root = str(root) if not directory.root or directory.root == os.getcwd() else directory.root
        except Exception as error:
            raise GradingError(f"{root / CONFIG} does not load: {type(error).__name__}: {plain(error, 500)}") from error
    return NbgraderCourse(root, config, directory)


def load_template(course: NbgraderCourse, assignment: str) -> Template:
    """Make the template of `assignment` from its source, as ``nbgrader generate_assignment`` would release it.

    Raises:
        GradingError: for an unknown assignment, or a source that nbgrader would refuse.
    """
    folder = course.require(assignment)
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise GradingError(f"{folder} holds no notebook; build or write the assignment's source first")
    notebooks = tuple(_notebook(course, path) for path in paths)
    if not any(nb.graded for nb in notebooks):
        raise GradingError(
            f"no cell of {folder} is worth points; mark the graded cells with nbgrader's Create Assignment"
        )
    return Template(assignment, notebooks, _helper_files(course, folder))


def _notebook(course: NbgraderCourse, path: Path) -> NotebookTemplate:
    from nbformat import read
    from nbgrader.nbgraderformat import MetadataValidator
    from nbgrader.preprocessors import CheckCellMetadata, ClearSolutions

    before, after = _stages(course)
    keeping = [stage for stage in before if not issubclass(stage, ClearSolutions)]
    try:
        with _inside(course.root):
            notebook = MetadataValidator().upgrade_notebook_metadata(read(path, as_version=4))
            solved = _run(keeping, deepcopy(notebook), course.config, path)
            grading = _run(before, notebook, course.config, path)
            CheckCellMetadata().preprocess(grading, {})
            kept = json.loads(json.dumps(grading))
            release = _run(after, grading, course.config, path)
    except Exception as error:
        raise GradingError(f"{path} cannot be used: {type(error).__name__}: {plain(error, 500)}") from error
    return notebook_template(path.stem, kept, release, solved)


def _stages(course: NbgraderCourse) -> tuple[list[Any], list[Any]]:
    """Return the course's own release stages: up to where the gradebook is written, and from there on."""
    from nbgrader.converters.generate_assignment import GenerateAssignment
    from nbgrader.preprocessors import ClearHiddenTests, SaveCells
    from traitlets.utils.importstring import import_item

    listed = GenerateAssignment(coursedir=course.directory, config=course.config).preprocessors
    stages = [import_item(stage) if isinstance(stage, str) else stage for stage in listed]
    cut = next((i for i, stage in enumerate(stages) if issubclass(stage, ClearHiddenTests)), len(stages))
    return [stage for stage in stages[:cut] if not issubclass(stage, SaveCells)], stages[cut:]


def _run(stages: list[Any], notebook: Any, config: Any, path: Path) -> Any:
    resources = {"metadata": {"path": str(path.parent)}}
    for stage in stages:
        notebook, resources = stage(config=config).preprocess(notebook, resources)
    return notebook


def _helper_files(course: NbgraderCourse, folder: Path) -> dict[str, bytes]:
    """Return the files beside the source's notebooks; links are followed, for they are the instructor's."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(fnmatch(part, glob) for part in relative.parts for glob in course.directory.ignore):
            continue
        if path.is_file() and path.suffix != ".ipynb":
            files[relative.as_posix()] = path.read_bytes()
    total = sum(map(len, files.values()))
    if total > _HELPER_LIMIT:
        limit = _HELPER_LIMIT // 2**20
        raise GradingError(
            f"the files in {folder} take {total // 2**20} MiB; more than {limit} MiB do not fit into a sandbox"
        )
    return files


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in `folder`: relative paths in an nbgrader configuration start at the course."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
