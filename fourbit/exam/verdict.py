"""The verdict on one exercise: points, what held, what did not, and which named mistake it was."""

from __future__ import annotations

import html
from dataclasses import dataclass

from fourbit.exam import panel


@dataclass(frozen=True)
class Finding:
    """One property over all its cases; `earned` is the part of its weight in [0, 1], `case` the counterexample's."""

    name: str
    earned: float
    message: str = ""
    case: str = ""

    @property
    def held(self) -> bool:
        return self.earned >= 1.0


@dataclass(frozen=True)
class NamedMistake:
    id: str
    name: str
    why: str
    link: str


@dataclass(frozen=True)
class Verdict:
    """The result of one examination.

    Attributes:
        status: passed, partly, failed, error, timeout, crashed, out of memory or missing.
        message: one line for what concerns the whole exercise (an exception, a missing function).
        mistake: the named mistake whose outputs coincide with the student's on every case.
        printed: what the student's function printed, cut.
    """

    exercise: str
    points: float
    max_points: float
    status: str
    findings: tuple[Finding, ...] = ()
    message: str = ""
    mistake: NamedMistake | None = None
    printed: str = ""
    seconds: float = 0.0

    def __repr__(self) -> str:
        # nbgrader reads the cell's text/plain as partial credit.
        return f"{self.points:g}"

    def __float__(self) -> float:
        return self.points

    def text(self) -> str:
        """The panel for a terminal."""
        return panel.as_text(self)

    def _repr_html_(self) -> str:
        return panel.as_html(self, html.escape)
