"""One hostile or broken submission of the plain course, and the outcome that it must have."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.reading.template import Template
from tests.plain_course import GOOD, released, submit

QUESTIONS = ("test_mean", "test_population", "test_primes")
Points = tuple[float, float, float]
FULL: Points = (2, 3, 4)
NOTHING: Points = (0, 0, 0)

# Every question answered, none of them right: what a cheat starts from.
WRONG = {
    "mean": "def mean(numbers):\n    return -1.0",
    "population": "def population(path):\n    return -1",
    "primes": "def primes(n):\n    return None",
}

Notebook = dict[str, Any]


@dataclass(frozen=True)
class Attack:
    """A submission.

    Attributes:
        name: the student's id.
        code: added below the first answer. It may hold ``{canaries}``, the paths at which secrets lie, and what else
            `Planted.fill` fills in.
        answers: by grade id, in place of the right ones.
        edit: changes the notebook, or returns the bytes to hand in instead of it.
        files: what lies beside the notebook.
        prepare: puts links, pipes and the like into the submission's folder.
        points: of the three questions that are graded by running; None when nothing can be read.
        status: of the first question ("" = any); `says`: words of its message, or of the submission's.
        limit: name of the limit that the first question's record names.
        shows: words that the notebook's outputs must hold, which prove that the attack ran.
        notes: words that a note of the record must hold.
    """

    name: str
    code: str = ""
    answers: Mapping[str, str] = field(default_factory=lambda: GOOD)
    edit: Callable[[Notebook], Notebook | bytes] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    prepare: Callable[[Path, Path], None] | None = None
    points: Points | None = FULL
    status: str = ""
    says: str = ""
    limit: str = ""
    shows: str = ""
    notes: str = ""

    def hand_in(self, course: Any, template: Template, fill: Callable[[str], str]) -> None:
        """Put the submission into the course's ``submitted/``."""
        answers = {name: textwrap.dedent(text).strip("\n") for name, text in self.answers.items()}
        if self.code:
            answers["mean"] = answers["mean"] + "\n" + fill(textwrap.dedent(self.code))
        notebook = released(template, answers)
        folder = submit(course, self.name, self.edit(notebook) if self.edit else notebook)
        for name, data in self.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if self.prepare:
            self.prepare(folder, course.root)


def cheat(name: str, code: str = "", **more: Any) -> Attack:
    """A submission whose answers are all wrong, and which wants points all the same."""
    more.setdefault("points", NOTHING)
    return Attack(name, code, answers=WRONG | more.pop("answers", {}), **more)
