"""What chapter 07 and lab 06 say about an engine, on the pocket model, by the functions that measured the chapter.

Only orderings with margins are asserted, far outside the intervals; what was measured stands beside the bounds. Times
are not asserted: they are this machine's. The stored table is checked for what it claims to be.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fourbit.llm.catalog import find
from fourbit.llm.model import generate_greedy
from tests.llm_fixtures import pocket as pocket_path
from tests.scripts import load_script

__all__ = ["pocket_path"]


@pytest.fixture(scope="module")
def chapter(root: Path) -> ModuleType:
    """The script that measures the chapter's numbers."""
    return load_script(root / "lecture_notes/figures/measure_inference.py")


@pytest.fixture(scope="module")
def stored(root: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((root / "lecture_notes/figures/inference.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def pocket(chapter: ModuleType, pocket_path: Path) -> Any:
    return chapter.Pocket.load(pocket_path)


# measured here


@pytest.mark.slow
def test_cached_logits_equal_uncached_ones(chapter: ModuleType, pocket: Any) -> None:
    """1e-4 at logits of 32: float32, 30 layers, some hundred roundings of 6e-8 each that mostly cancel."""
    found = chapter.consistency(pocket)
    assert max(found["apart"].values()) <= 2e-5 * found["largest"]


@pytest.mark.slow
def test_the_lab_engine_writes_what_the_plain_model_writes(chapter: ModuleType, pocket: Any) -> None:
    prompt = pocket.tokens[40_000:40_040]
    plain, *_ = chapter.looked_up(pocket, prompt, 12, 0)
    assert plain == generate_greedy(pocket.llm.model, prompt, 12)


@pytest.mark.slow
def test_guesses_change_the_passes_and_not_the_text(chapter: ModuleType, pocket: Any) -> None:
    """31 passes without guesses; about 8 where the text repeats itself."""
    passage = pocket.tokens[30_000:30_090]
    plain, passes, *_ = chapter.looked_up(pocket, passage + passage[:12], 32, 0)
    guessed, fewer, *_ = chapter.looked_up(pocket, passage + passage[:12], 32, 6)
    assert guessed == plain
    assert passes == 31
    assert fewer <= passes / 2


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "at_most"), [(4, 0.5), (3, 0.4), (2, 0.4)])
def test_keys_want_scales_by_channel(chapter: ModuleType, pocket: Any, bits: int, at_most: float) -> None:
    """0.19, 0.15 and 0.21 of the divergence with scales by token (values by token in both)."""
    rows = torch.tensor([pocket.tokens[s : s + 160] for s in (20_000, 60_000)])
    by_token, by_channel = (
        statistics.fmean(chapter.divergences(pocket, rows, chapter.rounding(pocket, bits, way))) for way in ("tt", "ct")
    )
    assert by_channel < at_most * by_token


@pytest.mark.slow
def test_a_window_needs_the_first_token(chapter: ModuleType, pocket: Any) -> None:
    """The window alone about doubles the perplexity; one sink takes most of that back."""
    found = chapter.sinks(pocket)
    assert found["window"] > 1.4 * found["full"]
    assert found["one"] < 0.8 * found["window"]
    assert abs(found["four"] / found["one"] - 1) < 0.1


# stored


def test_the_chapter_reports_the_model_that_is_fetched(stored: dict[str, Any]) -> None:
    said = "run: python lecture_notes/figures/measure_inference.py"
    assert stored["checkpoint"] == find("smollm2").files[0].sha256, said


def test_the_stored_parts_are_whole(chapter: ModuleType, stored: dict[str, Any]) -> None:
    assert set(stored) >= set(chapter.PARTS)
    count, _ = stored["rounded"]["windows"]
    assert {key: len(values) for key, values in stored["rounded"]["kl"].items() if len(values) != count} == {}
    assert set(stored["rounded"]["kl"]) == {"8 tt"} | {f"{bits} {way}" for bits in (4, 3, 2) for way in chapter.WAYS}


def test_every_stored_speculation_gave_the_greedy_text(stored: dict[str, Any]) -> None:
    rows = stored["lookups"]["repeated"] + stored["lookups"]["free"]
    assert all(row["same"] for row in rows)
    assert all(row["guessed"] < row["plain"] == stored["lookups"]["tokens"] - 1 for row in rows)


def test_keys_by_channel_are_better_in_every_window(stored: dict[str, Any]) -> None:
    table = stored["rounded"]["kl"]
    for bits in (4, 3, 2):
        assert all(c < t for c, t in zip(table[f"{bits} ct"], table[f"{bits} tt"], strict=True)), bits


def test_the_stored_overlaps_rise_with_the_layers(chapter: ModuleType, stored: dict[str, Any]) -> None:
    means = [statistics.fmean(stored["overlaps"]["overlap"][str(depth)]) for depth in chapter.DEPTHS]
    assert means == sorted(means)
