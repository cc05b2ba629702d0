"""Make a course folder in which stock nbgrader, formgrader and `fourbit grade` all work.

    nbgrader_config.py    settings, read by all three
    source/NN-name/       the instructor's notebook and the visible exam, which releases and grading copy
    exams/NN-name/        the hidden exam; FOURBIT_EXAMS names the folder that holds it
    submitted/            one folder for each student

The hidden exam stays out of source/, or ``nbgrader generate_assignment`` would release it.

A course is brought up to date by hashes of what was written there last. A file that only the instructor changed stays;
one that only this package changed is replaced. One that both changed is a conflict, and is never overwritten: of the
settings, which stand alone, the new version is put beside; the files of labs belong together, so none is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from autograder.builder.write import Writer, Written
from fourbit.errors import FourbitError

CONFIG, MANIFEST = "nbgrader_config.py", ".fourbit-course.json"
_COURSE_ID = "course_id"  # in the manifest, beside names of files, none of which is called so

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
# To nbgrader a check with all its cases is one cell. `fourbit grade` asks its questions from outside, so its cells hold
# students' code alone: there a loop that never ends is stopped sooner.
c.Execute.timeout = $timeout
c.FourbitGrade.cell_seconds = $cell_seconds
''')

_Stand = Literal["ours", "theirs", "both", "foreign"]


class CourseError(FourbitError):
    """A course folder that cannot be made."""


@dataclass(frozen=True)
class CourseReport:
    """A course folder and what became of each of its files.

    Attributes:
        files: with action "kept", a file that the instructor changed and that stays; where this package changed it too,
            `kept` names it and `path` is the new version beside it.
    """

    path: Path
    labs: tuple[str, ...]
    files: tuple[Written, ...]


def create_course(
    path: Path,
    labs: Sequence[str],
    *,
    build: Path = Path("build"),
    course_id: str | None = None,
    timeout: int = 120,
    cell_seconds: int = 60,
) -> CourseReport:
    """Make `path` a course folder with the named labs, or bring the labs of one made before up to date.

    Args:
        path: the course folder; made where it does not exist.
        labs: names of labs that were built.
        build: where they were built; it holds source/ and exams/.
        course_id: nbgrader's name of the course; None = the one that it was made with, "fourbit" for a new one.
        timeout: seconds that stock nbgrader gives one cell; `cell_seconds`: those that `fourbit grade` gives it.

    Raises:
        CourseError: when a lab was not built, when a file that would be written is there and this function never wrote
            it, or when a file of a lab was changed both there and in the build. Nothing at all is written then.
    """
    before = _read_manifest(path / MANIFEST)
    course_id = course_id or before.get(_COURSE_ID, "fourbit")
    settings = {"course_id": repr(course_id), "timeout": int(timeout), "cell_seconds": int(cell_seconds)}
    files = {CONFIG: _CONFIG.substitute(settings).encode()}
    for lab in labs:
        for step in ("source", "exams"):
            files |= _built_files(build / step / lab, Path(step) / lab)
    stands = {name: _stand(path / name, data, before.get(name)) for name, data in files.items()}
    _refuse(path, build, stands)
    writer = Writer(path)
    (path / "submitted").mkdir(parents=True, exist_ok=True)
    report = tuple(_write(writer, path / name, data, stands[name]) for name, data in files.items())
    manifest = before | {name: _sha256(data) for name, data in files.items()} | {_COURSE_ID: course_id}
    writer.file(path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
    return CourseReport(path, tuple(labs), report)


def _refuse(path: Path, build: Path, stands: dict[str, _Stand]) -> None:
    """Raise when files are in the way that may not be overwritten."""
    foreign = sorted(name for name, stand in stands.items() if stand == "foreign")
    if foreign:
        raise CourseError(
            f"{path} holds files that come from elsewhere: {', '.join(foreign)}. "
            "Nothing was written. Move them away, or make the course in another folder."
        )
    both = sorted(name for name, stand in stands.items() if stand == "both" and name != CONFIG)
    if both:
        raise CourseError(
            f"{path} holds files of labs that you changed and that the build changed too: {', '.join(both)}. "
            f"Yours are kept and nothing was written; the new ones are in {build}. Move yours out of the course (a "
            "copy in source/ would be handed out), run the same command, and put your changes into the new files."
        )


def _write(writer: Writer, path: Path, data: bytes, stand: _Stand) -> Written:
    if stand == "theirs":
        return Written(path, "kept")
    if stand == "ours":
        return writer.file(path, data)
    new, number = path.with_name(f"{path.name}.new"), 2
    while new.exists() and (not new.is_file() or new.read_bytes() != data):
        new, number = path.with_name(f"{path.name}.new-{number}"), number + 1
    return Written(writer.file(new, data).path, "kept", path)


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


def _stand(path: Path, data: bytes, written: str | None) -> _Stand:
    """Whose change is at `path`, where `data` is to go and where bytes with the hash `written` were put last."""
    if not path.exists() and not path.is_symlink():
        return "ours"
    there = path.read_bytes() if path.is_file() else None
    if there is not None and (there == data or _sha256(there) == written):
        return "ours"
    if written is None:
        return "foreign"
    return "theirs" if _sha256(data) == written else "both"


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise CourseError(f"{path} is damaged ({error}). Make the course in another folder.") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
