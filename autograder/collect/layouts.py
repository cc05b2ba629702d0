"""Whose file is it: the names that learning management systems and exchanges give to what students hand in.

* Canvas, "Download Submissions": ``bitdiddleben_LATE_12345_67890_ps1-1.ipynb`` is the name for sorting without
  anything but letters, LATE, Canvas's numbers of the user and of the file, and the student's own name of the file
  (instructure/canvas-lms, lib/content_zipper.rb). It holds no time.
* Moodle, "Download all submissions": ``Ben Bitdiddle_1234567_assignsubmission_file_``, a folder or the beginning of a
  file's name; the number is that of the participant in the grading worksheet (moodle/moodle, mod/assign/locallib.php).
* Blackboard, "Assignment File Download": ``Problem Set 1_bitdiddle_attempt_2026-11-20-23-59-01_ps1.ipynb``.
* Gradescope, "Export submissions": folders ``submission_123`` beside ``submission_metadata.yml``.
* nbgrader's exchange: ``bitdiddle+ps1+2026-11-20 23:59:01 UTC+random``.
* GitHub Classroom: ``assignment-username`` for each repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any, Literal

from autograder.collect.times import parse_time

EXCHANGE = "nbgrader's exchange"

Kind = Literal["id", "lms", "participant", "email", "name"]
Handle = tuple[Kind, str]

_EXCHANGE = re.compile(
    r"(?P<id>.+)\+(?P<assignment>[^+]+)\+(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \S+?)(?:\+[^+]*)?"
)
_BLACKBOARD = re.compile(
    r"(?P<rest>.+?)_attempt_(?P<at>\d{4}(?:-\d\d){5})(?:_(?P<file>.+)|(?P<note>\.txt))?", re.DOTALL
)
_MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?P<type>file|onlinetext)_?(?P<file>.*)", re.DOTALL
)
_CANVAS_PAGE = re.compile(r"\w+_(?P<user>\d+)_(?:text|link)\.html")
_CANVAS_HIDDEN = re.compile(r"(?:LATE_)?anon_\w+?_\d+_.+", re.DOTALL)
_GRADESCOPE_FILE = "submission_metadata.yml"


@dataclass(frozen=True)
class Claim:
    """What a name says.

    Attributes:
        layout: who gives such names.
        handles: ways to tell the student, the most reliable first.
        fresh: the student's id as the name has it, for a course whose students nobody has listed; "" = it has none.
        file: the student's own name of a file; "" when the name is that of a folder or archive with everything in it.
        at: time of submission in UTC by the clock of whoever gave the name, with `at_from` to say so.
        late: what the name says about lateness.
        order: the number of the attempt, where the name has one.
        problem: why it is no submission, though the name is understood.
        aside: the system put it beside each submission: it is nobody's work and nobody misses it.
    """

    layout: str
    handles: tuple[Handle, ...]
    fresh: str = ""
    file: str = ""
    at: datetime | None = None
    at_from: str = ""
    late: bool | None = None
    order: str = ""
    problem: str = ""
    aside: bool = False


def read_name(name: str, assignment: str, zone: tzinfo) -> tuple[Claim, ...]:
    """Return what the name of a file or folder says, when a system that is known here gave it.

    Several claims are different readings of one name; students choose the ends of most names, and some their own.
    """
    for reader in (_exchange, _blackboard, _moodle, _canvas):
        claims = reader(name, assignment, zone)
        if claims:
            return claims
    return ()


def plain_name(name: str) -> Claim:
    """Return the claim of a folder or file that is called like its student."""
    stem = re.sub(r"\.(ipynb|zip|tar|tar\.gz|tgz)$", "", name, flags=re.IGNORECASE)
    handles: tuple[Handle, ...] = (("id", stem), ("email", stem), ("lms", stem), ("name", stem))
    return Claim("called like the student", handles, fresh=stem)


def classroom_names(names: Iterable[str], assignment: str) -> dict[str, Claim]:
    """Return the claims of folders ``assignment-username``, as GitHub Classroom clones them."""
    slug = re.sub(r"[^\w]+", "-", assignment.casefold()).strip("-")
    found = {}
    for name in names:
        user = name[len(slug) + 1 :] if name.casefold().startswith(slug + "-") else ""
        if user and not user.isdecimal():
            handles: tuple[Handle, ...] = (("lms", user), ("id", user))
            found[name] = Claim("GitHub Classroom", handles, fresh=user)
    return found


def read_gradescope(text: bytes, zone: tzinfo) -> dict[str, list[Claim]]:
    """Return the claims of each folder that a ``submission_metadata.yml`` describes; several for a group."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; results of a class can take megabytes
    try:
        tree = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError):
        return {}
    if not isinstance(tree, dict):
        return {}
    return {str(folder): _submitters(entry, zone) for folder, entry in tree.items() if isinstance(entry, dict)}


def is_gradescope_file(name: str) -> bool:
    """Whether this is the file in which Gradescope says whose folders they are."""
    return name.casefold() in (_GRADESCOPE_FILE, _GRADESCOPE_FILE.replace(".yml", ".yaml"))


def read_pattern(pattern: re.Pattern[str], path: str, zone: tzinfo) -> Claim | None:
    """Return what the instructor's own pattern finds in the path of a file.

    Its groups are student (or nbgrader's student_id), email, first_name, last_name, at (timestamp), attempt, and
    file (file_id); without the last, what stands below the folder that it ends in is the student's own.
    """
    found = pattern.search(path)
    if found is None:
        return None
    groups = {name: value for name, value in found.groupdict().items() if value}
    student = groups.get("student") or groups.get("student_id") or ""
    full = " ".join(groups[part] for part in ("first_name", "last_name") if part in groups)
    pairs: list[Handle] = [
        ("id", student),
        ("lms", student),
        ("email", groups.get("email", student)),
        ("name", full or student),
    ]
    time = groups.get("at") or groups.get("timestamp")
    before, after = path[: found.end()], path[found.end() :]
    inside = after.strip("/") if before.endswith("/") or after.startswith("/") else ""
    file = groups.get("file") or groups.get("file_id") or inside or path.rsplit("/", 1)[-1]
    ending = path.rsplit(".", 1)[-1] if "." in path.rsplit("/", 1)[-1] else ""
    if ending and not file.casefold().endswith("." + ending.casefold()):
        file = f"{file}.{ending}"  # nbgrader's file_id has none
    claim = Claim("by the pattern", tuple(pair for pair in pairs if pair[1]), fresh=student, file=file)
    claim = replace(claim, order=groups.get("attempt", ""))
    at = parse_time(time, zone) if time else None
    return replace(claim, at=at, at_from="time in the name, by the pattern") if at else claim


def _exchange(name: str, assignment: str, zone: tzinfo) -> tuple[Claim, ...]:
    found = _EXCHANGE.fullmatch(name)
    if found is None:
        return ()
    other = found["assignment"]
    problem = "" if other == assignment else f"it was handed in for {other!r}"
    at = parse_time(found["at"], zone)
    said = "time in the exchange's name" if at else ""
    return (Claim(EXCHANGE, (("id", found["id"]),), found["id"], "", at, said, problem=problem),)


def _blackboard(name: str, assignment: str, zone: tzinfo) -> tuple[Claim, ...]:
    found = _BLACKBOARD.fullmatch(name)
    if found is None:
        return ()
    words = found["rest"].split("_")
    handles: list[Handle] = [("id", "_".join(words[start:])) for start in range(len(words))]  # a user name may hold "_"
    handles.append(("lms", words[-1]))
    at = parse_time(found["at"], zone)
    said = "time in Blackboard's name" if at else ""
    return (Claim("Blackboard", tuple(handles), words[-1], found["file"] or "", at, said, aside=bool(found["note"])),)


def _moodle(name: str, assignment: str, zone: tzinfo) -> tuple[Claim, ...]:
    found = _MOODLE.fullmatch(name)
    if found is None:
        return ()
    problem = "it is text typed into Moodle, not a notebook" if found["type"] == "onlinetext" else ""
    handles: list[Handle] = [("participant", found["number"]), ("name", found["name"])]
    if "-" in found["name"]:  # downloads of one group put its name before
        handles.append(("name", found["name"].split("-", 1)[1]))
    return (Claim("Moodle", tuple(handles), file=found["file"], problem=problem),)


def _canvas(name: str, assignment: str, zone: tzinfo) -> tuple[Claim, ...]:
    """Read the two numbers wherever two follow each other: names of people and of files can hold numbers too."""
    if _CANVAS_HIDDEN.fullmatch(name):
        problem = "Canvas hides the names of this assignment; switch that off there and download again"
        return (Claim("Canvas", (), problem=problem),)
    if page := _CANVAS_PAGE.fullmatch(name):
        problem = "it is text or a link given to Canvas, not a notebook"
        return (Claim("Canvas", (("lms", page["user"]),), problem=problem),)
    words = name.split("_")
    claims = []
    for at in range(1, len(words) - 2):
        if words[at].isdecimal() and words[at + 1].isdecimal():
            late = at > 1 and words[at - 1] == "LATE"
            person = "_".join(words[: at - 1 if late else at])
            if re.fullmatch(r"\w+", person) and person == person.lower():
                handles: tuple[Handle, ...] = (("lms", words[at]), ("name", person))
                claims.append(Claim("Canvas", handles, file="_".join(words[at + 2 :]), late=late))
    return tuple(claims)


def _submitters(entry: Mapping[str, Any], zone: tzinfo) -> list[Claim]:
    people = entry.get(":submitters")
    at = parse_time(entry[":created_at"], zone) if entry.get(":created_at") else None
    claims = []
    for person in people if isinstance(people, list) else []:
        if isinstance(person, dict):
            said = {key: str(person.get(f":{key}") or "").strip() for key in ("sid", "email", "name")}
            pairs: list[Handle] = [
                ("id", said["sid"]),
                ("lms", said["sid"]),
                ("email", said["email"]),
                ("name", said["name"]),
            ]
            handles = tuple(pair for pair in pairs if pair[1])
            claims.append(
                Claim("Gradescope", handles, said["sid"], at=at, at_from="time in Gradescope's export" if at else "")
            )
    return claims
