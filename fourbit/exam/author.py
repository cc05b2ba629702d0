"""What the author of an exam writes: exercises, cases, properties, mistakes, alternatives.

An exam is plain data plus two kinds of functions: a seeded generator of cases, and properties. The same
properties judge the visible cases in the notebook and the hidden cases in the grader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fourbit.errors import ExamError


@dataclass(frozen=True)
class Raised:
    """An outcome that is an exception: `type` is the class name, such as "ValueError"."""

    type: str
    message: str = ""


@dataclass(frozen=True)
class Partial:
    """Part of a property's weight, with the reason; `fraction` lies in [0, 1]."""

    fraction: float
    message: str


@dataclass(frozen=True)
class Case:
    """One call of the student's function.

    Attributes:
        name: a short noun phrase, shown beside a counterexample ("ties", "3x3 depthwise").
        args, kwargs: inputs, of the kinds that `fourbit.codec` carries; a `Ref` is resolved where the call happens.
        tags: properties with tags judge only the cases that share one of them.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trial:
    """What a property sees of one call; `expected` is the reference's output on the same inputs."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    expected: Any
    case: str


Holds = Callable[[Trial], "str | Partial | None"]


@dataclass(frozen=True)
class Property:
    """Something that must hold for every output.

    Attributes:
        name: what holds, in words a student reads ("keeps exactly round((1 - s) n) weights").
        holds: returns None, or the counterexample as a message that states its bound, or a `Partial`.
        weight: its share of the exercise's points.
        gate: when it fails, the exercise scores 0.
        tags: judge only the cases that share one of these tags; None judges all.
    """

    name: str
    holds: Holds
    weight: float = 1.0
    gate: bool = False
    tags: frozenset[str] | None = None

    def applies(self, case_tags: frozenset[str]) -> bool:
        return self.tags is None or bool(self.tags & case_tags)


@dataclass(frozen=True)
class Mistake:
    """A named wrong implementation: a patch of the reference's cell.

    Attributes:
        id: kebab-case noun, unique in its exercise.
        patch: pairs (old, new); each `old` occurs exactly once in the reference's source.
        why: what a good teacher would say, in two or three sentences.
        link: into a lecture note, "lecture_notes/pruning.md#ties-and-exact-counts".
    """

    id: str
    name: str
    patch: tuple[tuple[str, str], ...]
    why: str
    link: str

    def apply(self, source: str) -> str:
        for old, new in self.patch:
            if source.count(old) != 1:
                raise ExamError(
                    f"mistake {self.id!r}: {old!r} occurs {source.count(old)} times in the reference, not once"
                )
            source = source.replace(old, new)
        return source


@dataclass(frozen=True)
class Alternative:
    """An equivalent solution, as the full source of the exercise's cell, that must score every point."""

    name: str
    source: str


@dataclass(frozen=True)
class Race:
    """Points for speed: the grader lets the student's function and ours take turns, and holds the clock itself.

    Both are called through the same code on the same inputs, ours in the grader's process; outputs must agree. What
    counts is the quickest call of either side, so that a busy moment of the grader costs nobody anything. Checks in a
    notebook have no race: there is nobody outside to hold the clock.

    Attributes:
        case: inputs of one call; in each round every `Ref` with a `seed` gets another one, so that nothing repeats.
        each: arguments that follow the case's: the function is called once for each, with the same first arguments, so
            that its own time is most of a call's.
        times: up to so many times our time earn everything, from twice as many on nothing, in between by the logarithm.
        source: our cell; "" for the reference's.
        apart: how far an element may lie from ours, relative to our largest.
    """

    name: str
    case: Case
    each: tuple[tuple[Any, ...], ...]
    times: float
    weight: float = 1.0
    source: str = ""
    apart: float = 1e-3


@dataclass(frozen=True)
class Exercise:
    """One thing that a student writes, and its exam.

    Attributes:
        name: name of the exercise; also of the object in the notebook unless `entry` differs.
        points: full marks.
        difficulty: 1 (warm-up), 2 (takes thought), 3 (hard).
        cases: (seed, visible) -> cases; other seeds give other inputs of the same kinds.
        seconds: limit for one call on a student's machine; graders, who share cores, allow five times that.
        same_form: require the output to have the type, shape and dtype of the reference's.
        may_change_inputs: allow a call to change its arguments in place.
        race: seed -> a race that the grader holds besides; None for none.
    """

    name: str
    points: float
    difficulty: int
    cases: Callable[[int, bool], list[Case]]
    properties: tuple[Property, ...]
    mistakes: tuple[Mistake, ...]
    alternatives: tuple[Alternative, ...] = ()
    entry: str = ""
    seconds: float = 2.0
    same_form: bool = True
    may_change_inputs: bool = False
    race: Callable[[int], Race] | None = None


@dataclass(frozen=True)
class Exam:
    """The exam of one lab; `lab` is its folder's name, "01-pruning"."""

    lab: str
    exercises: tuple[Exercise, ...]

    def __getitem__(self, name: str) -> Exercise:
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        raise ExamError(
            f"{self.lab}/exam.py has no exercise {name!r}; it has {', '.join(e.name for e in self.exercises)}"
        )
