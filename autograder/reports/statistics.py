"""What a class's points say about the exercises: classical test theory, in words that the report explains.

* Difficulty of an item: mean points / maximum points. High means easy; it is the field's word all the same.
* Discrimination: the correlation of an item's points with the points of *all other* items (corrected item-total
  correlation; S. Henrysson, "Correction of item-total correlations in item analysis", Psychometrika 28, 1963).
  Without the correction an item correlates with itself.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autograder.reports.rows import Row
from autograder.results import QuestionRecord

# Below this many submissions a correlation says next to nothing.
MIN_CLASS = 10


@dataclass(frozen=True)
class Spread:
    """Five numbers about a list of scores."""

    least: float
    lower: float
    median: float
    upper: float
    most: float


@dataclass(frozen=True)
class NamedMistake:
    """A mistake and how many students made it in one exercise."""

    name: str
    why: str
    students: int


@dataclass(frozen=True)
class Item:
    """One exercise in a class.

    Attributes:
        points, mean: the most that can be earned, and what was earned on average.
        waiting: how many answers still wait for a person; until then they count 0 in `mean`.
        difficulty: mean / points; None for an exercise of 0 points, or while answers wait.
        discrimination: corrected item-total correlation, or None with `unclear` saying why.
        statuses: how many students ended in which status, the most common first.
        seconds, slowest: median and 90th percentile of what judging it took, in seconds; None where nothing ran.
        modes: in which ways it was judged ("exam", "isolated", "in process", "by hand"), with counts.
        limits: limits that were hit, with counts.
    """

    notebook: str
    name: str
    label: str
    points: float
    mean: float
    waiting: int
    difficulty: float | None
    discrimination: float | None
    unclear: str
    statuses: tuple[tuple[str, int], ...]
    mistakes: tuple[NamedMistake, ...]
    seconds: float | None
    slowest: float | None
    modes: tuple[tuple[str, int], ...]
    limits: tuple[tuple[str, int], ...]


def spread(scores: Sequence[float]) -> Spread | None:
    """Return the quartiles of `scores` (linear between neighbors), or None when there are none."""
    if not scores:
        return None
    return Spread(*(percentile(scores, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a `share` of `values` lies, linear between neighbors."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def items(rows: Sequence[Row]) -> list[Item]:
    """Return the exercises in the order of the notebooks; only graded submissions count."""
    counted = [row for row in rows if row.record.outcome == "graded"]
    earned = [{(q.notebook, q.name): row.of(q).score for q in row.record.questions} for row in counted]
    totals = [math.fsum(points.values()) for points in earned]
    found: dict[tuple[str, str], list[QuestionRecord]] = {}
    waiting: Counter[tuple[str, str]] = Counter()
    for row in counted:
        for question in row.record.questions:
            key = (question.notebook, question.name)
            found.setdefault(key, []).append(question)
            waiting[key] += row.of(question).needs_manual_grade
    return [_item(key, found[key], [points.get(key, 0.0) for points in earned], totals, waiting[key]) for key in found]


def _item(
    key: tuple[str, str],
    found: Sequence[QuestionRecord],
    scores: Sequence[float],
    totals: Sequence[float],
    waiting: int,
) -> Item:
    points = max(q.max_points for q in found)
    mean = math.fsum(scores) / len(scores)
    rest = [total - score for total, score in zip(totals, scores, strict=True)]
    discrimination, unclear = correlation(scores, rest)
    if waiting:
        discrimination, unclear = None, f"{waiting} still wait for a person"
    ran = [q.seconds for q in found if q.seconds > 0]
    why = {q.mistake.name: q.mistake.why for q in found if q.mistake}
    named = Counter(q.mistake.name for q in found if q.mistake)
    return Item(
        key[0], key[1], found[0].label, points, mean, waiting,
        mean / points if points and not waiting else None, discrimination, unclear,
        tuple(Counter(q.status for q in found).most_common()),
        tuple(NamedMistake(name, why[name], count) for name, count in named.most_common()),
        statistics.median(ran) if ran else None, percentile(ran, 0.9) if ran else None,
        tuple(Counter(q.mode for q in found).most_common()),
        tuple(Counter(q.limit for q in found if q.limit).most_common()),
    )  # fmt: skip


def correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float | None, str]:
    """Return Pearson's correlation, or None and the reason why there is none."""
    if len(first) < MIN_CLASS:
        return None, f"fewer than {MIN_CLASS} submissions"
    if max(first) == min(first):
        return None, "everybody has the same points here"
    if max(second) == min(second):
        return None, "everybody has the same points elsewhere"
    return statistics.correlation(first, second), ""
