"""Copies stand out from what independent solutions share by chance, and short answers are not accused."""

from __future__ import annotations

import importlib.util
from itertools import combinations

import pytest

from autograder.reports.similarity import Similarity, compare, every_pair, known_runs, side_by_side
from tests.honest_answers import FOLDER, STUDENTS, Answers, handed_out, honest, mixed, moved, renamed

EVERYBODY = {student: honest(student) for student in STUDENTS}


def pairs(found: Similarity) -> dict[frozenset[str], float]:
    return {frozenset((pair.first, pair.second)): pair.score for pair in found.pairs}


@pytest.mark.parametrize("student", STUDENTS)
def test_the_honest_solutions_are_solutions(student: str) -> None:
    spec = importlib.util.spec_from_file_location(student, FOLDER / f"{student}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.primes(20) == [2, 3, 5, 7, 11, 13, 17, 19]
    assert module.primes(2) == []
    assert [module.roman(n) for n in (4, 9, 1994, 3888)] == ["IV", "IX", "MCMXCIV", "MMMDCCCLXXXVIII"]
    assert module.anagrams(["tea", "rat", "eat", "dog", "tar"]) == [["eat", "tea"], ["rat", "tar"]]
    assert module.moving([1, 2, 3, 6], 2) == pytest.approx([1.5, 2.5, 4.5])


def test_independent_solutions_are_no_pair() -> None:
    found = compare(EVERYBODY, handed_out())
    assert found.pairs == ()
    assert found.found == 0
    assert found.compared == len(STUDENTS)
    assert 0 < every_pair(EVERYBODY, handed_out())[0].score < 0.1


@pytest.mark.parametrize("disguise", [dict, renamed, moved, lambda answers: moved(renamed(answers))])
def test_a_disguised_copy_ranks_above_every_honest_pair(disguise) -> None:
    """Each student is copied once; the pair found is that one, whatever was done to the copy."""
    for student in STUDENTS:
        found = compare(EVERYBODY | {"copy": disguise(honest(student))}, handed_out())
        assert list(pairs(found)) == [frozenset((student, "copy"))], student
        assert found.pairs[0].score > 0.75


def test_half_a_copy_is_found_and_scores_lower() -> None:
    class_ = {student: answers for student, answers in EVERYBODY.items() if student != "student6"}
    found = compare(class_ | {"half": mixed(honest("student4"), honest("student6"))}, handed_out())
    assert list(pairs(found)) == [frozenset(("student4", "half"))]
    assert found.pairs[0].score < 0.75


def test_three_who_share_are_three_pairs() -> None:
    ring = {"second": renamed(honest("student1")), "third": moved(honest("student1"))}
    found = compare(EVERYBODY | ring, handed_out())
    assert set(pairs(found)) == {frozenset(pair) for pair in combinations(("student1", "second", "third"), 2)}


def test_what_was_handed_out_and_what_everybody_writes_does_not_count() -> None:
    given = honest("student2")["roman"]
    sharing: dict[str, Answers] = {student: honest(student) | {"roman": given} for student in STUDENTS}
    assert compare(sharing, [*handed_out(), given]).pairs == ()
    # Not handed out, but written alike by everybody: an idiom of this class.
    assert compare(sharing, handed_out()).pairs == ()


def test_a_solution_that_makes_the_round_is_told_of_as_a_group() -> None:
    ring = {f"copy{number}": renamed(honest("student1")) for number in range(6)}
    found = compare(EVERYBODY | ring, handed_out())
    assert found.pairs == ()
    assert found.same == ((*ring, "student1"),)


def test_short_answers_are_too_short_to_tell() -> None:
    line = {"mean": ("code", "def mean(numbers):\n    return sum(numbers) / len(numbers) if numbers else 0.0")}
    found = compare(EVERYBODY | {"ada": line, "bob": line}, handed_out())
    assert found.pairs == ()
    assert set(found.too_short) == {"ada", "bob"}


def test_prose_is_compared_by_its_words() -> None:
    text = (
        "A divisor above the root comes with one below it, since their product is the number itself, and so whoever "
        "has looked at everything up to the root has seen one of each pair and may stop there in good conscience."
    )
    other = (
        "Suppose n had a factor larger than its square root and none that is smaller. Then the cofactor would be "
        "smaller than the root, which contradicts what was supposed, unless n is prime to begin with."
    )
    said = {"ada": text, "bob": text.upper().replace(",", " -"), "eve": other}
    found = compare({student: {"why": ("markdown", words)} for student, words in said.items()})
    assert [(pair.first, pair.second) for pair in found.pairs] == [("ada", "bob")]


def test_side_by_side_marks_what_is_shared_and_loses_no_letter() -> None:
    first, second = honest("student4"), mixed(honest("student4"), honest("student6"))
    passages = side_by_side(first, second, known_runs(handed_out()))
    assert {"primes", "roman"} <= {passage.cell for passage in passages}
    for passage in passages:
        assert "".join(text for text, _ in passage.first) == first[passage.cell][1]
        assert "".join(text for text, _ in passage.second) == second[passage.cell][1]
    (copied,) = [passage for passage in passages if passage.cell == "roman"]
    marked = sum(len(text) for text, shared in copied.first if shared)
    assert marked > 0.8 * len(first["roman"][1])


def test_three_thousand_submissions_are_compared_through_an_index() -> None:
    """Every submission is one of eight solutions with something of its own; two are copies of each other."""
    class_: dict[str, Answers] = {}
    for number in range(3000):
        answers = honest(STUDENTS[number % len(STUDENTS)])
        own = "".join(f"x{n} = {number * 7919 % 9973 + n} * {number + n * n}\n" for n in range(20))
        class_[f"s{number:04d}"] = answers | {"own": ("code", own)}
    class_["copy"] = dict(class_["s1234"])
    found = compare(class_, handed_out())
    assert [(pair.first, pair.second) for pair in found.pairs] == [("copy", "s1234")]
