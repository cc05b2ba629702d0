"""Downloads as learning management systems give them out, made for the tests of `fourbit collect`."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from autograder.books.gradebook import open_gradebook
from autograder.collect.collector import collect
from autograder.collect.options import Options
from autograder.collect.records import Collected
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from tests.plain_course import GOOD, released

STUDENTS = {
    "ben": {"first_name": "Ben", "last_name": "Bitdiddle", "email": "ben@u.edu", "lms_user_id": "12345"},
    "alyssa": {"first_name": "Alyssa P.", "last_name": "Hacker", "email": "aph@u.edu", "lms_user_id": "777"},
    "lem": {"first_name": "Lem", "last_name": "Reasoner", "email": "lem@u.edu", "lms_user_id": "778"},
    "eva": {"first_name": "Eva Lu", "last_name": "Ator", "email": "eva@u.edu", "lms_user_id": "779"},
    "louis": {"first_name": "Louis", "last_name": "O'Räsoner", "email": "louis@u.edu", "lms_user_id": "780"},
}


def notebook(template: Template, **answers: str) -> bytes:
    """A student's notebook with every answer right, but for `answers`."""
    return json.dumps(released(template, {**GOOD, **answers})).encode()


def zipped(path: Path, entries: Mapping[str, bytes | str], when: datetime | None = None) -> Path:
    path.write_bytes(zip_bytes(entries, when))
    return path


def zip_bytes(entries: Mapping[str, bytes | str], when: datetime | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (when or datetime(2026, 11, 27, 12)).timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return stream.getvalue()


def roster_csv() -> str:
    """The class as ``nbgrader db student import`` reads it."""
    head = "id,first_name,last_name,email,lms_user_id\n"
    return head + "".join(",".join([student, *columns.values()]) + "\n" for student, columns in STUDENTS.items())


def enroll(course: NbgraderCourse, assignment: str = "ps1", due: str | None = None) -> None:
    """Put the class into the gradebook, and the date when the assignment is due (UTC)."""
    gradebook = open_gradebook(course)
    try:
        for student, columns in STUDENTS.items():
            gradebook.update_or_create_student(student, **columns)
        gradebook.update_or_create_assignment(assignment, duedate=due)
    finally:
        gradebook.close()


def collected(course: NbgraderCourse, *places: Path, **options: Any) -> Collected:
    return collect(course.root, "ps1", places, Options(**options))


def counting(found: Collected) -> dict[str, str]:
    """Where the attempt that counts came from, by student."""
    return {taken.student: taken.origin for taken in found.taken if taken.counts}


def submitted(course: NbgraderCourse, student: str) -> dict[str, bytes]:
    folder = course.path("submitted", student, "ps1")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything on disk below `folder`: bytes of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
