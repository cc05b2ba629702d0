"""Make a course folder in which stock nbgrader, formgrader and `fourbit grade` all work.

    nbgrader_config.py    settings, read by all three
    source/NN-name/       the instructor's notebook and the visible exam, which releases and grading copy
    exams/NN-name/        the hidden exam; FOURBIT_EXAMS names the folder that holds it
    submitted/            one folder for each student

The hidden exam stays out of source/, or ``nbgrader generate_assignment`` would release it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from autograder.builder.write import Writer, Written
from fourbit.errors import FourbitError

CONFIG, MANIFEST = "nbgrader_config.py", ".fourbit-course.json"

_CONFIG = Template('''\
"""Settings of nbgrader, formgrader and `fourbit grade` for this course folder. Yours to change."""

import os
import sys
from pathlib import Path

from autograder.builder.release import GENERATE

c = get_config()  # noqa: F821
HERE = Path(__file__).resolve().parent

c.CourseDirectory.root = str(HERE)
c.CourseDirectory.course_id = $course_id
c.CourseDirectory.db_url = f"sqlite:///{HERE / 'gradebook.db'}"

# nbgrader's own list, in which the stub names its exercise and a prediction keeps its text.
c.GenerateAssignment.preprocessors = list(GENERATE)

# Feedback pages without hidden tests and without a script, from formgrader's buttons too.
c.GenerateFeedback.exporter_class = "autograder.reports.nbgrader_feedback.FeedbackExporter"

# Kernels inherit these: where the hidden exams lie, and one thread for each, or kernels side by side are slow.
os.environ["FOURBIT_EXAMS"] = str(HERE / "exams")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nbgrader starts alembic by name, which an environment that is not activated does not find.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))

# Seconds for one cell. nbgrader's 30 end a slow but correct cell, and the next one then fails with a NameError.
c.Execute.timeout = $timeout
''')


class CourseError(FourbitError):
    """A course folder that cannot be made."""


@dataclass(frozen=True)
class CourseReport:
    """A course folder and what became of each of its files."""

    path: Path
    labs: tuple[str, ...]
    files: tuple[Written, ...]


def create_course(
    path: Path, labs: Sequence[str], *, build: Path = Path("build"), course_id: str = "fourbit", timeout: int = 120
) -> CourseReport:
    """Make `path` a course folder with the named labs, or bring the labs of one made before up to date.

    Args:
        path: the course folder; made where it does not exist.
        labs: names of labs that were built.
        build: where they were built; it holds source/ and exams/.
        course_id: nbgrader's name of the course.
        timeout: seconds that stock nbgrader gives one cell.

    Raises:
        CourseError: when a lab was not built, or when a file of the course differs both from what would be written and
            from what this function wrote there before: it is somebody's, and nothing at all is written then.
    """
    files = {CONFIG: _CONFIG.substitute(course_id=repr(course_id), timeout=int(timeout)).encode()}
    for lab in labs:
        for step in ("source", "exams"):
            files |= _built_files(build / step / lab, Path(step) / lab)
    written_before = _read_manifest(path / MANIFEST)
    theirs = [name for name, data in files.items() if _is_theirs(path / name, data, written_before.get(name))]
    if theirs:
        raise CourseError(
            f"{path} holds files that were changed since, or that come from elsewhere: {', '.join(sorted(theirs))}. "
            "Nothing was written. Move them away, or make the course in another folder."
        )
    writer = Writer(path)
    (path / "submitted").mkdir(parents=True, exist_ok=True)
    report = tuple(writer.file(path / name, data) for name, data in files.items())
    manifest = written_before | {name: _sha256(data) for name, data in files.items()}
    writer.file(path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
    return CourseReport(path, tuple(labs), report)


def _built_files(folder: Path, into: Path) -> dict[str, bytes]:
    """The files of a built folder by the names that they get in the course."""
    if not folder.is_dir():
        raise CourseError(f"{folder} does not exist. Build the lab first: `fourbit build {folder.name}`.")
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_leftover(file.relative_to(folder)))
    return {(into / file.relative_to(folder)).as_posix(): file.read_bytes() for file in found}


def _is_leftover(file: Path) -> bool:
    """Whether a file is a tool's and no part of a lab, or a build that stood back behind an edited notebook."""
    hidden = any(part.startswith(".") or part == "__pycache__" for part in file.parts)
    return hidden or any(suffix.startswith(".new") for suffix in file.suffixes)


def _is_theirs(path: Path, data: bytes, written: str | None) -> bool:
    if not path.exists() and not path.is_symlink():
        return False
    if not path.is_file():
        return True
    there = path.read_bytes()
    return there != data and _sha256(there) != written


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise CourseError(f"{path} is damaged ({error}). Make the course in another folder.") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
