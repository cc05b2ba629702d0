"""One schema-checked record per submission: what each question earned, why, and how that was found out.

Records cross from workers to the coordinator as JSON text, so this module is the whole of what a worker can
say. Everything in a record may be shown to the student it belongs to: no hidden test, no expected value.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from fourbit.errors import FourbitError

Status = Literal[
    "passed", "partly", "failed", "error", "timeout", "crashed", "out of memory", "missing", "tampered", "manual"
]
Outcome = Literal["graded", "unreadable", "no submission", "refused", "crashed"]
Mode = Literal["exam", "isolated", "in process", "by hand", "not run"]

MAX_MESSAGE = 4_000
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")

Name = Annotated[str, Field(max_length=400)]
Text = Annotated[str, Field(max_length=MAX_MESSAGE)]
Count = Annotated[float, Field(ge=0)]


class GradingError(FourbitError):
    """Grading cannot go on as asked: no such course, assignment or student, or a gradebook that disagrees."""


def plain(text: object, limit: int = MAX_MESSAGE) -> str:
    """Return `text` as harmless plain text: no terminal escapes or control characters, at most `limit` characters.

    Newlines and tabs stay. Anything that comes from a submission (names of files, messages of exceptions)
    passes through here before it is logged, stored or shown.
    """
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", str(text)).replace("\r\n", "\n"))
    return clean if len(clean) <= limit else clean[: limit - 2] + " …"


@dataclass(frozen=True, config=_CONFIG)
class MistakeRecord:
    """A named mistake whose outputs coincide with the student's, and the explanation that goes with it."""

    id: Name
    name: Name
    why: Text = ""
    link: Name = ""


@dataclass(frozen=True, config=_CONFIG)
class PropertyRecord:
    """One property of an exam: whether it held, and if not, the smallest counterexample in words."""

    name: Name
    passed: bool
    message: Text = ""


@dataclass(frozen=True, config=_CONFIG)
class QuestionRecord:
    """What one graded cell earned.

    Attributes:
        points: earned points, or None while the question waits for a human.
        name: grade id of the cell; `title` is what people call the question, where that differs.
        mode: "exam" (judged outside the student's process), "isolated" (the test cell ran in a second process), "in
            process" (it ran in the student's), "by hand" or "not run".
        cell: position of the graded cell in the rebuilt notebook, counted from 1; 0 when there is none.
        answer: hash of the answer cells that the question depends on; tells whether a human should look again.
        limit: name of the limit that was hit ("memory_bytes", ...), "" when none was.
    """

    notebook: Name
    name: Name
    status: Status
    points: Count | None
    max_points: Count
    mode: Mode
    message: Text = ""
    mistake: MistakeRecord | None = None
    properties: tuple[PropertyRecord, ...] = ()
    seconds: Count = 0.0
    cell: int = 0
    answer: Name = ""
    title: Name = ""
    limit: Name = ""

    @property
    def label(self) -> str:
        """The question's title, else its grade id."""
        return self.title or self.name

    @model_validator(mode="after")
    def _within_bounds(self) -> QuestionRecord:
        if self.points is not None and self.points > self.max_points:
            raise ValueError(f"{self.name}: {self.points} points of {self.max_points}")
        return self


@dataclass(frozen=True, config=_CONFIG)
class LateRecord:
    """When a submission came in, and what that cost.

    Attributes:
        at: time of submission (UTC, ISO 8601); "" = unknown.
        source: who says so: a receipt of the course; nbgrader's timestamp.txt, which the student's side wrote; or
            the gradebook, which had a time already.
        seconds: by how much it missed the due date, the student's extension included.
        penalties: points that the late policy takes off, by notebook.
        by_hand: notebooks whose penalty in the gradebook is not the policy's: a human set it, and it stays.
        note: what a person should know about the time.
    """

    at: Name = ""
    source: Literal["receipt", "timestamp.txt", "gradebook", ""] = ""
    seconds: Count = 0.0
    penalties: Mapping[Name, Count] = field(default_factory=dict)
    by_hand: tuple[Name, ...] = ()
    note: Text = ""


@dataclass(frozen=True, config=_CONFIG)
class SubmissionRecord:
    """The result of grading one submission.

    Attributes:
        outcome: "graded"; or why not: "unreadable", "no submission", "refused" (the student or folder is not
            accepted), "crashed".
        message: the reason, for outcomes other than "graded".
        notes: what was noticed and mended while reading the submission, in words for student and instructor.
        key: content hash of everything that the result depends on.
        jail: name of the isolation that was in force.
        late: when it came in, and the late penalty; set when the result is stored.
    """

    assignment: Name
    student: Name
    outcome: Outcome
    questions: tuple[QuestionRecord, ...] = ()
    message: Text = ""
    notes: tuple[Text, ...] = ()
    key: Name = ""
    jail: Name = ""
    seconds: Count = 0.0
    late: LateRecord | None = None

    @property
    def points(self) -> float:
        """Points earned so far; questions that wait for a human count 0."""
        return math.fsum(q.points for q in self.questions if q.points is not None)

    @property
    def max_points(self) -> float:
        return math.fsum(q.max_points for q in self.questions)

    @property
    def waiting(self) -> tuple[QuestionRecord, ...]:
        """The questions that a human still has to grade."""
        return tuple(q for q in self.questions if q.points is None)

    def to_json(self) -> str:
        return _RECORD.dump_json(self).decode()


_RECORD = TypeAdapter(SubmissionRecord)


def from_json(text: str | bytes) -> SubmissionRecord:
    """Return the record that `text` holds.

    Raises:
        GradingError: when `text` is not a record of this version.
    """
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise GradingError(f"a grading record is not valid at {where}: {first['msg']}; grade with --force") from None


def files_hash(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a set of named byte strings, independent of their order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        label = name.encode("utf-8", "surrogateescape")
        digest.update(f"{len(label)}:{len(files[name])}:".encode() + label + files[name])
    return digest.hexdigest()


def key_of(parts: Mapping[str, object]) -> str:
    """Return the content key of a grading: a hash over named parts (hashes, versions, limits)."""
    text = json.dumps({name: str(parts[name]) for name in sorted(parts)}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def text_hash(parts: Iterable[str]) -> str:
    """Return a short hash of some pieces of text, with their boundaries."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "replace")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]
