"""What collecting is asked for, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from autograder.collect.times import parse_time
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, plain


@dataclass(frozen=True)
class Options:
    """How to collect.

    Attributes:
        roster: CSV files that say who is who.
        pattern: a regular expression with named groups, for names that no system here gives.
        deadline: a time that overrides the gradebook's date.
        received: when everything was handed in whose time nothing else tells; "now" is a time too.
        zone: name of the time zone of times without one.
        new_students: take ids that neither gradebook nor roster knows.
        dry_run: only say what would be done.
    """

    roster: tuple[Path, ...] = ()
    pattern: str = ""
    deadline: str = ""
    received: str = ""
    zone: str | None = None
    new_students: bool = False
    dry_run: bool = False


def downloads_folder(course: NbgraderCourse, assignment: str) -> Path:
    """Return the folder where ``nbgrader zip_collect`` looks for downloads.

    Raises:
        GradingError: when there is nothing in it.
    """
    app = course.config.get("ZipCollectApp", {})
    shape = app.get("collect_directory_structure", "{downloaded}/{assignment_id}/{collect_step}")
    folder = course.root / shape.format(
        downloaded=app.get("downloaded_directory", "downloaded"),
        assignment_id=assignment,
        collect_step=app.get("archive_directory", "archive"),
    )
    if not folder.is_dir() or not any(folder.iterdir()):
        raise GradingError(
            f"nothing to collect: {folder} is empty or not there. Put the downloads there, or name them: "
            f"fourbit collect {assignment} DOWNLOAD.zip"
        )
    return folder


def stated_time(text: str, zone: tzinfo, option: str) -> datetime | None:
    """Return the time (UTC) that was given with an option of the command; None for "".

    Raises:
        GradingError: when it is no time.
    """
    if not text:
        return None
    moment = datetime.now(UTC) if text == "now" else parse_time(text, zone)
    if moment is None:
        raise GradingError(f"{option} {plain(text, 80)!r} is no time; write it like 2026-11-20 23:59")
    return moment


def name_pattern(course: NbgraderCourse, text: str) -> re.Pattern[str] | None:
    """Return the pattern given, else the one that the course has set for nbgrader's collector; None where neither is.

    Raises:
        GradingError: when it is no regular expression, or has no group for the student.
    """
    text = text or str(course.config.get("FileNameCollectorPlugin", {}).get("named_regexp", ""))
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise GradingError(f"the pattern {plain(text, 200)!r} is no regular expression: {error}") from None
    if not {"student", "student_id"} & set(pattern.groupindex):
        raise GradingError(
            f"the pattern {plain(text, 200)!r} does not say whose a file is: it needs a group (?P<student>...), and "
            "may have (?P<at>...), (?P<attempt>...) and (?P<file>...)"
        )
    return pattern
