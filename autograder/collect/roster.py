"""Who is in the course: nbgrader's gradebook, and lists that learning management systems export.

A student is told by id, by a system's own number or user name, by address, and last by name; never by likeness.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from autograder.books.gradebook import open_gradebook
from autograder.collect.layouts import Claim, Handle, Kind
from autograder.collect.paths import shown, valid_id
from autograder.collect.times import parse_time
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, plain

# Columns that can hold the id under which nbgrader knows a student, the likeliest first, and how people call them.
_IDS = ("id", "student_id", "student", "username", "sis login id", "id number", "sis user id", "sid", "identifier",
        "email", "email address")  # fmt: skip
_NUMBERS = ("lms_user_id", "github_username", "github_id", "username", "sis login id",
            "sid", "id number", "sis user id")  # fmt: skip
_ADDRESSES = ("email", "email address", "e-mail")
_FULL_NAMES = ("full name", "name", "student")
_HOW = {"id": "id", "lms": "number or user name", "participant": "number", "email": "address", "name": "name"}
_TIMES = ("last modified (submission)", "submitted at", "submission time", "timestamp")


@dataclass(frozen=True)
class Told:
    """Whose something is: the student's id and how that was told, or "" and why it was not."""

    student: str
    how: str


@dataclass
class Roster:
    """The students of a course.

    Attributes:
        students: ids that the gradebook or a list knows; empty when nobody has listed any.
        due: when the assignment is due (UTC), without and with a student's extension.
        times: when a list says that somebody handed in (UTC), with the name of the list.
    """

    students: set[str] = field(default_factory=set)
    due: datetime | None = None
    extensions: dict[str, timedelta] = field(default_factory=dict)
    times: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    _index: dict[Handle, set[str]] = field(default_factory=dict)

    def deadline(self, student: str, stated: datetime | None = None) -> datetime | None:
        """Return when `student` had to hand in: `stated` or the gradebook's date, with the student's extension."""
        due = stated or self.due
        return None if due is None else due + self.extensions.get(student, timedelta(0))

    def add(self, student: str, handles: Iterable[Handle]) -> None:
        """Let `student` be found by `handles`."""
        self.students.add(student)
        for kind, value in (("id", student), *handles):
            if value.strip():
                self._index.setdefault((kind, _key(kind, value)), set()).add(student)

    def find(self, kind: Kind, value: str) -> set[str]:
        """Return the ids of the students whom this handle fits."""
        if kind == "id" and value in self.students:
            return {value}
        return self._index.get((kind, _key(kind, value)), set())

    def tell(self, claims: Sequence[Claim], *, new: bool = False) -> tuple[Told, Claim]:
        """Return whose a file is, and which of the readings of its name that rests on.

        Args:
            new: take ids that nobody has listed.
        """
        found = [(told, claim) for claim in claims if (told := self._tell_one(claim)).student]
        if len({told.student for told, _ in found}) > 1:
            named = [(told, claim) for told, claim in found if self._name_agrees(told.student, claim)]
            found = named if len({told.student for told, _ in named}) == 1 else []
            if not found:
                return Told("", "its name can be read as that of several students; rename it"), claims[0]
        if found:
            return found[0]
        claim = claims[0]
        if claim.fresh and (new or not self.students):
            if re.fullmatch(r"[\w.@-]+", claim.fresh) and valid_id(claim.fresh):
                return Told(claim.fresh, "id as written" if not self.students else "id as written, new"), claim
            return Told("", f"{shown(claim.fresh)!r} cannot be an id; give --roster FILE.csv to say whose it is"), claim
        return Told("", self._tell_one(claim).how), claim

    def _tell_one(self, claim: Claim) -> Told:
        for kind, value in claim.handles:
            found = self.find(kind, value)
            if len(found) == 1:
                how = _HOW[kind]
                return Told(next(iter(found)), how)
            if found:
                listed = ", ".join(sorted(found)[:4])
                return Told("", f"the {kind} {shown(value)!r} fits several students ({listed}); give --roster FILE.csv")
        return Told("", _unknown(claim, bool(self.students)))

    def _name_agrees(self, student: str, claim: Claim) -> bool:
        return any(kind == "name" and student in self.find(kind, value) for kind, value in claim.handles)


def read_gradebook(course: NbgraderCourse, assignment: str) -> Roster:
    """Return the roster that the gradebook holds, with the date of `assignment` and the students' extensions."""
    from nbgrader.api import MissingEntry

    roster = Roster()
    if course.db_url.startswith("sqlite:///") and not Path(course.db_url.removeprefix("sqlite:///")).exists():
        return roster  # opening would make one, and collecting writes no gradebook
    gradebook = open_gradebook(course)
    try:
        for row in gradebook.students:
            names = _both_ways(row.first_name or "", row.last_name or "")
            handles: list[Handle] = [("lms", row.lms_user_id or ""), ("email", row.email or "")]
            handles += [("name", name) for name in names]
            roster.add(str(row.id), handles)
        try:
            due = gradebook.find_assignment(assignment).duedate
        except MissingEntry:
            return roster
        roster.due = parse_time(due, UTC) if due is not None else None
        for submission in gradebook.assignment_submissions(assignment):
            if submission.extension is not None:
                roster.extensions[str(submission.student_id)] = submission.extension
    finally:
        gradebook.close()
    return roster


def add_list(roster: Roster, path: Path, zone: tzinfo) -> None:
    """Add what a CSV file says about students to `roster`.

    Understood are nbgrader's own (``nbgrader db student import``), Canvas's export of the gradebook, Moodle's grading
    worksheet and list of participants, Gradescope's and GitHub Classroom's rosters, and any file with a column
    `student` or `id` beside others.

    Raises:
        GradingError: when the file cannot be read, or says nothing about anybody's id.
    """
    rows = _rows(path)
    known = set(roster.students)
    for row in rows:
        student = _student(row, known, roster)
        if not student:
            continue
        roster.add(student, _handles(row))
        for column in _TIMES:
            if row.get(column) and (at := parse_time(row[column], zone)) is not None:
                roster.times[student] = (at, f"{column!r} in {path.name}")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise GradingError(f"the roster {path} cannot be read: {error.strerror}") from None
    try:
        delimiter = csv.Sniffer().sniff(text.split("\n", 1)[0], ",;\t").delimiter
    except csv.Error:
        delimiter = ","
    try:
        table = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise GradingError(f"the roster {path} is not a CSV file: {plain(error, 200)}") from None
    head = [cell.strip().casefold() for cell in table[0]] if table else []
    if "sis login id" in head or "sis user id" in head:  # Canvas: its ID is the number of the user
        head = ["lms_user_id" if name == "id" else "full name" if name == "student" else name for name in head]
    if not set(head) & set(_IDS):
        raise GradingError(
            f"the roster {path} has no column with ids. Its first line has to name the columns: id (the student's id), "
            "and any of first_name, last_name, email, lms_user_id; exports of Canvas and Moodle work as they are"
        )
    return [dict(zip(head, (cell.strip() for cell in row), strict=False)) for row in table[1:]]


def _student(row: Mapping[str, str], known: set[str], roster: Roster) -> str:
    """Return the id of the student of a row: the gradebook's, when it knows somebody who fits."""
    candidates = [row[column] for column in _IDS if row.get(column)]
    if not known:
        return next((value for value in candidates if valid_id(value)), "")
    for value in candidates:
        if value in known:
            return value
    for kind, value in (*(("id", value) for value in candidates), *_handles(row)):
        found = roster.find(kind, value)
        if len(found) == 1:
            return next(iter(found))
    return next((value for value in candidates if valid_id(value)), "")


def _handles(row: Mapping[str, str]) -> list[Handle]:
    handles: list[Handle] = []
    for column in ("identifier", "participant"):  # Moodle's number of a person in one assignment, not of its user
        if found := re.fullmatch(r"(?:\w+\s+)?(\d+)", row.get(column, "")):
            handles.append(("participant", found[1]))
    handles += [("lms", row.get(column, "")) for column in _NUMBERS]
    handles += [("email", row.get(column, "")) for column in _ADDRESSES]
    names = [row.get(column, "") for column in _FULL_NAMES]
    first = row.get("first_name") or row.get("first name") or ""
    last = row.get("last_name") or row.get("last name") or row.get("surname") or ""
    handles += [("name", name) for name in (*names, *_both_ways(first, last))]
    for name in names:
        if "," in name:
            handles.append(("name", " ".join(reversed(name.split(",", 1)))))
    return [handle for handle in handles if handle[1].strip()]


def _both_ways(first: str, last: str) -> tuple[str, ...]:
    """Return a person's name as systems write it; half a name tells nobody."""
    return (f"{first} {last}", f"{last} {first}") if first.strip() and last.strip() else ()


def _key(kind: str, value: str) -> str:
    """Return what two spellings of a handle have in common: case, and for names everything but letters."""
    text = value.strip().casefold()
    if kind != "name":
        return text
    letters = unicodedata.normalize("NFKD", text)
    return "".join(char for char in letters if char.isalnum())


def _unknown(claim: Claim, listed: bool) -> str:
    """Say what to do about somebody whom nobody has listed."""
    who = (
        shown(claim.handles[-1][1] if claim.layout != "called like the student" else claim.fresh)
        if claim.handles
        else ""
    )
    advice = {
        "Canvas": "give --roster with Canvas's export of the gradebook",
        "Moodle": "give --roster with Moodle's grading worksheet or list of participants",
        "GitHub Classroom": "give --roster with a column github_username",
        "Gradescope": "give --roster with Gradescope's roster",
    }.get(claim.layout)
    if advice:
        return f"no student is known as {who!r}; {advice}"
    if listed:
        return f"no student {who!r} in the gradebook or roster; add them there, or take new ids with --new-students"
    return f"whose it is cannot be told from {who!r}; give --roster FILE.csv"
