"""The statistics behind the chapter on claims: formulas against counting, simulation and the shipped networks."""

from __future__ import annotations

import hashlib
import itertools
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def claims(root: Path) -> Iterator[ModuleType]:
    folder = str(root / "lecture_notes" / "figures")
    sys.path.insert(0, folder)
    import _claims

    yield _claims
    sys.path.remove(folder)


@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_best_of_k_is_what_simulated_draws_give(claims: ModuleType, k: int) -> None:
    draw = random.Random(k)
    best = [max(draw.gauss(0, 1) for _ in range(k)) for _ in range(20_000)]
    assert claims.expected_best(k) == pytest.approx(statistics.fmean(best), abs=0.03)
    beaten = sum(m > draw.gauss(0, 1) + 0.5 for m in best) / len(best)
    assert claims.best_beats(k, 0.5) == pytest.approx(beaten, abs=0.02)


@pytest.mark.parametrize("k", [1, 4, 19])
def test_the_best_of_k_beats_one_more_with_probability_k_over_k_plus_one(claims: ModuleType, k: int) -> None:
    assert claims.best_beats(k, 0.0) == pytest.approx(k / (k + 1), abs=1e-4)


@pytest.mark.parametrize(("right", "images"), [(20, 20), (0, 7), (9, 10), (905, 1000)])
def test_the_ends_of_wilsons_interval_solve_its_equation(claims: ModuleType, right: int, images: int) -> None:
    for p in claims.wilson(right, images):
        assert (right / images - p) ** 2 == pytest.approx(claims.Z**2 * p * (1 - p) / images, abs=1e-9)


def test_wilson_keeps_its_promise_where_the_usual_interval_breaks_it(claims: ModuleType) -> None:
    assert claims.coverage(claims.plain, 0.98, 100) < 0.9
    assert claims.coverage(claims.wilson, 0.98, 100) > 0.93


@pytest.mark.parametrize(("first", "second"), [(3, 1), (0, 5), (4, 4), (2, 6)])
def test_mcnemar_counts_the_splits_of_fair_coins(claims: ModuleType, first: int, second: int) -> None:
    images = first + second
    tosses = [sum(coins) for coins in itertools.product((0, 1), repeat=images)]
    uneven = sum(abs(2 * heads - images) >= abs(first - second) for heads in tosses)
    assert claims.mcnemar(first, second) == pytest.approx(uneven / 2**images)


def test_as_many_images_as_are_asked_for_just_leave_out_zero(claims: ModuleType) -> None:
    for images, variance in (
        (claims.images_unpaired(0.01), 2 * 0.9 * 0.1),
        (claims.images_paired(0.01, 0.05), 0.05 - 0.01**2),
    ):
        assert claims.Z * (variance / images) ** 0.5 <= 0.01 < claims.Z * (variance / (images - 1)) ** 0.5


def test_equal_programs_differ_in_blocks_and_not_in_turns(claims: ModuleType) -> None:
    assert claims.ratio(claims.session("blocks")) < 0.97
    assert claims.ratio(claims.session("turns")) == pytest.approx(1, abs=0.01)


def test_the_size_that_leaves_nothing_out_is_larger(claims: ModuleType) -> None:
    sizes = claims.opt_sizes()
    assert sizes["claimed"] == pytest.approx(495.06, abs=0.005)
    assert sizes["real"] > 1.3 * sizes["claimed"]


def test_pairs_add_up_to_the_difference_of_accuracies(claims: ModuleType) -> None:
    for row in claims.measured()["pairs"]:
        difference = 100 * (row["only_first"] - row["only_second"]) / row["images"]
        assert difference == pytest.approx(row["accuracy"][0] - row["accuracy"][1], abs=0.011)


def test_measurements_are_of_the_checkpoints_that_are_shipped(claims: ModuleType, root: Path) -> None:
    said = "run: python lecture_notes/figures/measure_claims.py --again"
    for name, digest in claims.measured()["checkpoints"].items():
        shipped = (root / "fourbit" / "assets" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(shipped).hexdigest() == digest, said
