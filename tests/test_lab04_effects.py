"""What chapter 05 and lab 04 say about few bits, on the pocket model and on a novel that calibration never saw.

Divergences are of 768 tokens of Persuasion, statistics and scales of Northanger Abbey, the arithmetic that of the
reference solutions by the functions that measured the chapter's numbers. Only orderings with margins are asserted, far
outside the intervals; what was measured stands beside the bounds. The stored table is checked for what it claims to be.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fourbit.llm.catalog import find
from tests.llm_fixtures import pocket as pocket_path
from tests.scripts import load_script

__all__ = ["pocket_path"]

Judged = Callable[[Any], float]
Plain = Callable[[int, int], float]


@pytest.fixture(scope="module")
def chapter(root: Path) -> ModuleType:
    """The script that measures the chapter's numbers."""
    return load_script(root / "lecture_notes/figures/measure_llm.py")


@pytest.fixture(scope="module")
def stored(root: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((root / "lecture_notes/figures/llm.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def pocket(chapter: ModuleType, pocket_path: Path) -> Any:
    return chapter.Pocket.load(pocket_path)


@pytest.fixture(scope="module")
def inputs(chapter: ModuleType, pocket: Any) -> Any:
    """What the matrices read on the calibration text."""
    return chapter.inputs_of(pocket, pocket.text(chapter.CALIBRATION, 8, 128))


@pytest.fixture(scope="module")
def divergence(chapter: ModuleType, pocket: Any) -> Judged:
    """The mean divergence, in nats per token, with some parameters changed."""
    judge = chapter.Judge(pocket, 3, 256)
    return lambda changed: statistics.fmean(judge(changed)["kl"])


@pytest.fixture(scope="module")
def plain(chapter: ModuleType, pocket: Any, divergence: Judged) -> Plain:
    """The divergence of rounding to the nearest by bits and group, each measured once."""
    return cache(lambda bits, group: divergence(chapter.rounded(pocket, bits, group)))


# measured here


@pytest.mark.slow
def test_eight_bits_are_free_and_two_are_noise(plain: Plain) -> None:
    """0.001 and 10 nats."""
    assert plain(8, 64) < 0.01
    assert plain(2, 64) > 5


@pytest.mark.slow
def test_a_bit_less_costs_about_four_times_the_divergence(plain: Plain) -> None:
    """0.29 and 1.14: the divergence is quadratic in the step, and the step of 3 bits 15 / 7 as long."""
    assert 2.5 < plain(3, 64) / plain(4, 64) < 6


@pytest.mark.slow
def test_normal_float_beats_even_levels_at_equal_bits(chapter: ModuleType, pocket: Any, divergence: Judged) -> None:
    """0.24 against 0.50, with the magnitude of each block of 64 in 32 bits."""
    books = torch.arange(-7, 8) / 7, pocket.lab["normal_levels"](4)
    even, normal = (divergence(chapter.in_blocks(pocket, levels, 64)) for levels in books)
    assert normal < 0.75 * even


@pytest.mark.slow
def test_channels_are_salient_by_what_they_are_multiplied_with(
    chapter: ModuleType, pocket: Any, inputs: Any, divergence: Judged
) -> None:
    """0.75 with the loudest 1 % of the channels kept, 1.34 with any 1 %, at 3 bits in groups of 128."""
    random, activation = (divergence(chapter.keeping(pocket, inputs, by, 0.01)) for by in ("random", "activation"))
    assert activation < 0.75 * random


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "group", "at_most"), [(4, 64, 0.67), (3, 128, 0.75)])
def test_awq_repairs_at_the_same_bits(
    chapter: ModuleType,
    pocket: Any,
    inputs: Any,
    divergence: Judged,
    plain: Plain,
    bits: int,
    group: int,
    at_most: float,
) -> None:
    """0.47 and 0.69 of the divergence of rounding to the nearest."""
    assert divergence(chapter.awq(pocket, inputs, bits, group)) <= at_most * plain(bits, group)


@pytest.mark.slow
def test_gptq_loses_where_tokens_are_about_as_many_as_columns_and_wins_with_more(
    chapter: ModuleType, pocket: Any
) -> None:
    """1.68, 1.20 and 0.43 of the error of rounding to the nearest; on the tokens that it saw it wins by far."""
    found = chapter.error_curve(pocket, "layers.5.self_attn.q_proj", (1e-4,), (384, 576, 4096), 1)
    assert found["columns"] == 576
    ((fewer, as_many, many),) = found["unseen"]["0.0001"]
    assert fewer > 1.2
    assert as_many > 1
    assert many < 0.7
    assert max(found["seen"]["0.0001"][0]) < 0.5


# stored


def test_the_chapter_reports_the_model_that_is_fetched(stored: dict[str, Any]) -> None:
    said = "run: python lecture_notes/figures/measure_llm.py --full"
    assert stored["checkpoint"] == find("smollm2").files[0].sha256, said


def test_the_stored_table_is_whole(chapter: ModuleType, stored: dict[str, Any]) -> None:
    count, length = stored["table"]["windows"]
    assert (count, length) == chapter.FULL
    rows = stored["table"]["rows"]
    keys = {(r["method"], r["bits"], r["group"], r.get("tokens"), r.get("skip"), r.get("damp")) for r in rows}
    assert len(keys) == len(rows) >= 40
    assert all(len(row[name]) == count for row in rows for name in ("kl", "top1", "ppl"))
    assert {row["method"] for row in rows} >= {"RTN", "AWQ", "GPTQ", "NF4", "NF4, double", "even, 15", "float minimum"}


def test_the_grid_that_the_weights_came_from_is_the_only_one_without_error(stored: dict[str, Any]) -> None:
    """The file stores 4 bits in groups of 32 with the smallest value as a float; that quantizer changes nothing."""
    for row in stored["table"]["rows"]:
        spoiled = row["method"] in ("float minimum", "Q4_1")
        assert (statistics.fmean(row["kl"]) < 1e-4) is spoiled, row["method"]
        if row["error"] is not None:
            assert (row["error"] < 1e-3) is spoiled, row["method"]
