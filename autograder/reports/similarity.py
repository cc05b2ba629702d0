"""Near-identical submissions: pairs that share more than chance, the template and the class's idioms explain.

What the template handed out does not count, nor what many in the class wrote alike. The rest is weighted by its
rarity: a run of tokens that two of 300 share says more than one that 20 share. An inverted index finds the pairs,
so that the work grows with what is shared and not with the square of the class.

This is a reason to look, never evidence. Short answers look alike by themselves, so somebody with too little that is
distinctive is left out and counted as such.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from autograder.reports.fingerprints import RUN, Tokens, fingerprints, tokens

# Fewer distinctive fingerprints than this are too few to tell (about six lines of code of one's own).
ENOUGH = 12
LEAST_SCORE = 0.4
MOST_PAIRS = 20
_MOST_SHARERS = 30

Answers = Mapping[str, tuple[str, str]]
"""A student's answers: (type of the cell, text) by the name of the cell."""


@dataclass(frozen=True)
class Pair:
    """Two students whose answers share much that is rare.

    Attributes:
        score: weight of what is shared, of what both have on average, 0 to 1.
        of_first, of_second: the share of each one's distinctive fingerprints that the other has too.
        shared: how many fingerprints that is.
    """

    first: str
    second: str
    score: float
    of_first: float
    of_second: float
    shared: int


@dataclass(frozen=True)
class Similarity:
    """What was found in a class.

    Attributes:
        pairs: the most similar first, at most `MOST_PAIRS`; `found` counts all of at least `LEAST_SCORE`.
        compared: how many students had enough to compare; `too_short` names the others.
        sharers: what more students than this wrote alike counted as common.
        same: groups larger than `sharers` whose answers are alike token for token; no pair can show them.
        usual: the score that 99 % of the pairs with anything in common stay below, or None without such pairs.
    """

    pairs: tuple[Pair, ...] = ()
    found: int = 0
    compared: int = 0
    too_short: tuple[str, ...] = ()
    sharers: int = 0
    usual: float | None = None
    same: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Passage:
    """One answer cell of a pair side by side: pieces of text, each with whether the other has it too."""

    cell: str
    first: tuple[tuple[str, bool], ...]
    second: tuple[tuple[str, bool], ...]


@dataclass
class _Prints:
    """Fingerprints of texts; the same text is read once, however many handed it in."""

    known: frozenset[int]
    _made: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def of(self, answers: Answers) -> set[int]:
        found: set[int] = set()
        for answer in answers.values():
            if answer not in self._made:
                kind, text = answer
                self._made[answer] = frozenset(fingerprints(tokens(text, kind).runs(), self.known))
            found |= self._made[answer]
        return found


@dataclass(frozen=True)
class _Class:
    """The distinctive fingerprints of everybody who has enough of them, and what each fingerprint weighs.

    Attributes:
        all_marks: fingerprints of everybody, the common ones too.
    """

    all_marks: Mapping[str, set[int]]
    marks: Mapping[str, set[int]]
    weight: Mapping[int, float]
    sharers: int

    def same(self) -> tuple[tuple[str, ...], ...]:
        groups: dict[frozenset[int], list[str]] = {}
        for student in sorted(self.all_marks):
            groups.setdefault(frozenset(self.all_marks[student]), []).append(student)
        found = [tuple(group) for marks, group in groups.items() if len(marks) >= ENOUGH and len(group) > self.sharers]
        return tuple(sorted(found, key=lambda group: (-len(group), group)))

    def pairs(self) -> list[Pair]:
        holders: dict[int, list[str]] = {}
        for student in sorted(self.marks):
            for mark in self.marks[student]:
                holders.setdefault(mark, []).append(student)
        shared: Counter[tuple[str, str]] = Counter()
        weighed: dict[tuple[str, str], float] = {}
        for mark, students in holders.items():
            for both in combinations(students, 2):
                shared[both] += 1
                weighed[both] = weighed.get(both, 0.0) + self.weight[mark]
        whole = {student: math.fsum(self.weight[mark] for mark in own) for student, own in self.marks.items()}
        found = []
        for (first, second), many in shared.items():
            score = 2 * weighed[first, second] / (whole[first] + whole[second])
            share = (many / len(self.marks[first]), many / len(self.marks[second]))
            found.append(Pair(first, second, score, *share, many))
        return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def compare(submissions: Mapping[str, Answers], handed_out: Iterable[tuple[str, str]] = ()) -> Similarity:
    """Return the pairs of students whose answers are more alike than chance explains.

    Args:
        submissions: answers by student.
        handed_out: (type, text) of every cell that students were given.
    """
    class_ = _weighed(submissions, handed_out)
    scored = class_.pairs()
    found = [pair for pair in scored if pair.score >= LEAST_SCORE and pair.shared >= ENOUGH]
    usual = scored[len(scored) // 100].score if len(scored) >= 100 else None
    too_short = tuple(sorted(set(submissions) - set(class_.marks)))
    counts = (len(found), len(class_.marks), too_short, class_.sharers)
    return Similarity(tuple(found[:MOST_PAIRS]), *counts, usual, class_.same())


def every_pair(submissions: Mapping[str, Answers], handed_out: Iterable[tuple[str, str]] = ()) -> list[Pair]:
    """Return all pairs that have anything distinctive in common, the most similar first; arguments as above."""
    return _weighed(submissions, handed_out).pairs()


def known_runs(handed_out: Iterable[tuple[str, str]]) -> frozenset[int]:
    """Return the runs of tokens that the template itself holds."""
    return frozenset(run for kind, text in handed_out for run in tokens(text, kind).runs())


def side_by_side(first: Answers, second: Answers, known: frozenset[int]) -> list[Passage]:
    """Return the answers of two students cell by cell, with what they share marked wherever it stands."""
    ours, theirs = _read(first), _read(second)
    both = _all_runs(ours) & _all_runs(theirs) - known
    cells = dict.fromkeys([*first, *second])
    passages = (Passage(cell, _marked(first, ours, cell, both), _marked(second, theirs, cell, both)) for cell in cells)
    return [passage for passage in passages if any(shared for _, shared in (*passage.first, *passage.second))]


def _weighed(submissions: Mapping[str, Answers], handed_out: Iterable[tuple[str, str]]) -> _Class:
    prints = _Prints(known_runs(handed_out))
    own = {student: prints.of(answers) for student, answers in submissions.items()}
    count = Counter(mark for marks in own.values() for mark in marks)
    sharers = min(max(4, len(submissions) // 20), _MOST_SHARERS)
    rare = {student: {mark for mark in marks if count[mark] <= sharers} for student, marks in own.items()}
    weight = {mark: math.log1p(len(submissions) / many) for mark, many in count.items() if many <= sharers}
    return _Class(own, {student: marks for student, marks in rare.items() if len(marks) >= ENOUGH}, weight, sharers)


def _read(answers: Answers) -> dict[str, Tokens]:
    return {cell: tokens(text, kind) for cell, (kind, text) in answers.items()}


def _all_runs(read: Mapping[str, Tokens]) -> set[int]:
    return {run for found in read.values() for run in found.runs()}


def _marked(answers: Answers, read: Mapping[str, Tokens], cell: str, both: set[int]) -> tuple[tuple[str, bool], ...]:
    """Return the text of a cell in pieces, those in a shared run marked."""
    if cell not in answers:
        return ()
    text, found = answers[cell][1], read[cell]
    spans = [(found.spans[i][0], found.spans[i + RUN - 1][1]) for i, run in enumerate(found.runs()) if run in both]
    return tuple(_pieces(text, spans))


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    at = 0
    for start, end in _merged(spans):
        if start > at:
            yield text[at:start], False
        yield text[start:end], True
        at = end
    if at < len(text):
        yield text[at:], False


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
