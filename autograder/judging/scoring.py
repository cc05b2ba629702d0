"""Scoring a plain nbgrader test cell: nbgrader's meaning, with its known wrongs mended and told.

An error is 0; a number as the cell's value is partial credit; anything else is full marks. Mended: a warning on
stderr is no error, a timeout is called a timeout, credit that is not a number between 0 and the maximum is
clamped instead of counting full or losing the submission, and no output earns full marks only if the cell ran.
"""

from __future__ import annotations

import ast
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autograder.results import Status, plain


class Outcome(Protocol):
    """How a cell ended; the engine's `CellOutcome` is one."""

    @property
    def status(self) -> str: ...
    @property
    def outputs(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def message(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def limit(self) -> str: ...


@dataclass(frozen=True)
class Score:
    points: float
    status: Status
    message: str = ""
    limit: str = ""  # the name of the limit that was hit


@dataclass(frozen=True)
class Probe:
    """A test cell with a mark in it that is set only when the cell runs to its last statement.

    Attributes:
        source: what to run in place of the test cell.
        name: the mark's variable; "" when the cell cannot carry one (magics).
        has_value: whether the cell ends in an expression.
    """

    source: str
    name: str = ""
    has_value: bool = False


def probe(source: str) -> Probe:
    """Put a mark before the last statement of a test cell if that is an expression, else after it."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return Probe(source)
    if not body:
        return Probe(source)
    name = f"_ran_{secrets.token_hex(8)}"
    last = body[-1]
    if not isinstance(last, ast.Expr):
        return Probe(f"{source}\n{name} = True", name)
    lines = source.split("\n")
    line = lines[last.lineno - 1].encode()
    before, rest = line[: last.col_offset].decode(), line[last.col_offset :].decode()
    lines[last.lineno - 1] = f"{before}{name} = True; {rest}"
    return Probe("\n".join(lines), name, has_value=True)


def score_cell(outcome: Outcome, max_points: float, *, ran: bool, has_value: bool = True) -> Score:
    """Return what a test cell earns by how it ended.

    Args:
        ran: whether the cell's mark was found set (True for cells that carry none).
        has_value: whether the cell ends in an expression.
    """
    if outcome.status not in ("ok", "output limit"):
        return Score(0.0, *_stopped(outcome), outcome.limit)
    for output in outcome.outputs:
        if output.get("output_type") == "error":
            return Score(0.0, *_error(f"{output.get('ename', '')}: {output.get('evalue', '')}"))
    if not ran:
        return Score(0.0, "tampered", "the test cell did not run to its end, although nothing stopped it")
    for output in outcome.outputs:
        if output.get("output_type") == "execute_result":
            return _partial(str(output.get("data", {}).get("text/plain", "")), max_points)
    if outcome.status == "output limit" and has_value:
        said = "so much was printed that the result of the test could not be read"
        return Score(0.0, "failed", said, outcome.limit)
    return Score(max_points, "passed")


def in_cell(message: str, number: int) -> str:
    """Add the cell's number to what is said of a limit that was hit, before what Python said in parentheses."""
    said, bracket, detail = message.partition(" (")
    return f"{said} in cell {number}{bracket}{detail}"


def _stopped(outcome: Outcome) -> tuple[Status, str]:
    message = plain(outcome.message or outcome.status)
    if outcome.status == "timeout":
        return "timeout", message
    if outcome.status == "out of memory":
        return "out of memory", message
    return _error(message) if outcome.status == "error" else ("crashed", message)


def _error(message: str) -> tuple[Status, str]:
    name, _, rest = message.partition(":")
    if name.strip() != "AssertionError":
        return "error", plain(message)
    return "failed", plain(rest.strip()) or "one of the tests of this question failed"


def _partial(text: str, max_points: float) -> Score:
    """Return the credit that the value of a test cell stands for."""
    wrapped = re.fullmatch(r"np\.(?:float|int)\d+\((.+)\)", text.strip())
    try:
        value = float(wrapped[1] if wrapped else text)
    except ValueError:
        return Score(max_points, "passed")
    if math.isnan(value) or value == -math.inf:
        return Score(0.0, "failed", f"the test's score was {text.strip()}, which counts 0")
    if value < 0:
        return Score(0.0, "failed", f"the test's score was {value:g}, below 0; it counts 0")
    if value > max_points:
        return Score(
            max_points, "passed", f"the test's score was {value:g} of {max_points:g}; it counts {max_points:g}"
        )
    return Score(value, "passed" if value == max_points else "partly" if value else "failed")
