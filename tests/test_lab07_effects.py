"""What chapter 08 and lab 07 say about deployment: measured here where it is quick, else as it was stored.

Only orderings with margins are asserted, far outside the spread between windows; what was measured stands beside the
bounds. Nothing here depends on a clock on the wall.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fourbit.llm.catalog import find
from fourbit.llm.config import LlmConfig
from fourbit.llm.plan import plan
from fourbit.recipes.deployments import CACHES, CANDIDATES, FORMATS, cache_bytes, deployments
from tests.llm_fixtures import pocket as pocket_path
from tests.scripts import load_script

__all__ = ["pocket_path"]


@pytest.fixture(scope="module")
def stored(root: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((root / "lecture_notes/figures/deployment.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def chapter(root: Path, pocket_path: Path) -> ModuleType:
    """The script that measures the chapter's numbers."""
    return load_script(root / "lecture_notes/figures/measure_deployment.py")


@pytest.fixture(scope="module")
def text(chapter: ModuleType) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Two short windows and the reference's logits on them."""
    tokens = chapter.texts()[:2, :96]
    return tokens, chapter.reference(tokens)


def mean(chapter: ModuleType, path: Path, text: tuple[torch.Tensor, list[torch.Tensor]], kv: str = "f16") -> float:
    return float(chapter.divergences(path, *text, kv).mean())


# measured here


@pytest.mark.slow
def test_the_two_step_test_separates_what_one_test_cannot(chapter: ModuleType, text: Any, tmp_path: Path) -> None:
    """Not rounded, a wrong base costs 30 times a right conversion; rounded, 1.3 times (0.40 and 0.30 nats)."""
    config, path = chapter.source().config, tmp_path / "pocket.gguf"
    base, encode = replace(config, rope_theta=1e4), chapter.lab()["encode_q4_0"]
    exact = [mean(chapter, chapter.relabeled(path, c), text) for c in (config, base)]
    rounded = [mean(chapter, chapter.rounded(path, encode, c), text) for c in (config, base)]
    assert exact[0] < 0.01
    assert exact[1] > 8 * exact[0]
    assert rounded[1] < 2 * rounded[0]


@pytest.mark.slow
def test_wrong_conversions_are_far_from_the_original(chapter: ModuleType, text: Any, tmp_path: Path) -> None:
    """Unmoved rows 1.8 nats, exchanged nibbles 20, an honest Q4_0 0.3."""
    config, path = chapter.source().config, tmp_path / "pocket.gguf"
    encode = chapter.lab()["encode_q4_0"]
    right = mean(chapter, chapter.rounded(path, encode, config), text)
    assert 0.1 < right < 0.6
    assert mean(chapter, chapter.rounded(path, encode, config, move=False), text) > 3 * right
    assert mean(chapter, chapter.rounded(path, chapter.exchanged, config), text) > 5


@pytest.mark.slow
def test_a_cache_in_eight_bits_is_nearly_free_and_one_in_four_is_not(chapter: ModuleType, text: Any) -> None:
    """0.0032 and 0.0037 nats with caches in float16 and 8 bits, 0.14 in 4."""
    half, eight, four = (mean(chapter, chapter.source().path, text, kv) for kv in ("f16", "q8", "q4"))
    assert eight < 2 * half
    assert four > 10 * half


@pytest.mark.slow
@pytest.mark.parametrize(("context", "kv"), [(512, "f16"), (2048, "f16")])
def test_a_plan_is_within_three_percent_of_the_memory(chapter: ModuleType, context: int, kv: str) -> None:
    """Resident memory with a full cache, of a process of its own; Linux counts as the plan does."""
    if sys.platform != "linux":
        pytest.skip("resident memory is counted otherwise here")
    report = chapter.run(chapter.source().path, context, context - 8, kv)
    planned = chapter.plan_file(chapter.source().path, context, kv, baseline=report["before"])
    assert abs(report["peak"] / planned.total - 1) < 0.03


# stored


def test_the_chapter_reports_the_model_that_is_fetched(stored: dict[str, Any]) -> None:
    said = "run: python lecture_notes/figures/measure_deployment.py"
    assert stored["checkpoint"] == find("smollm2").files[0].sha256, said


def test_every_stored_plan_is_within_three_percent(stored: dict[str, Any]) -> None:
    assert {(one["model"], one["kv"]) for one in stored["memory"]} >= {("hollow 7B", "f16"), ("hollow 7B", "q8")}
    for one in stored["memory"]:
        parts = (one["weights"], one["kv_cache"], one["activations"], one["overhead"])
        assert sum(parts) == one["total"]
        assert abs(one["measured"] / one["total"] - 1) < 0.03


def test_the_cost_of_caches_that_choices_use_is_the_measured_one(stored: dict[str, Any]) -> None:
    plain = stored["caches"]["f16"]["mean"]
    for kv in ("q8", "q4"):
        assert math.isclose(CACHES[kv].divergence, stored["caches"][kv]["mean"] - plain, rel_tol=0.1, abs_tol=2e-4)


def test_errors_of_position_grow_along_the_text(stored: dict[str, Any]) -> None:
    """0.12 nats over the first 256 tokens, 0.20 over the last; the right conversion's does not grow."""
    wrong, right = stored["positions"]["wrong"], stored["positions"]["right"]
    assert statistics.fmean(wrong[-256:]) > 1.3 * statistics.fmean(wrong[:256])
    assert statistics.fmean(right[-256:]) < statistics.fmean(right[:256])


def test_the_engine_is_below_the_roof(stored: dict[str, Any]) -> None:
    one = stored["speed"]
    assert 0.3 < one["core"] * one["bytes"] / one["roof"] < 1


# what there is to choose from


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen2.5-0.5B", 0.49), ("Qwen2.5-1.5B", 1.54), ("Qwen2.5-3B", 3.09), ("Qwen2.5-7B", 7.61), ("Llama-3-8B", 8.03)],
)
def test_candidates_have_the_published_number_of_parameters(name: str, billions: float) -> None:
    (candidate,) = (c for c in CANDIDATES if c.name == name)
    assert round(candidate.config.parameters() / 1e9, 2) == pytest.approx(billions, abs=0.011)


def test_bits_of_formats_are_within_a_few_percent_of_the_arithmetic() -> None:
    """Files of Llama-3.1-8B; the plan knows the mixture of Q4_K_M and counts its norms."""
    (llama,) = (c.config for c in CANDIDATES if c.name == "Llama-3-8B")
    for form in ("Q8_0", "Q4_K_M"):
        assert plan(llama, form, 4096, baseline=0).bits_per_weight == pytest.approx(FORMATS[form].bits, rel=0.01)


def test_fewer_bits_cost_more_and_every_deployment_counts_its_cache() -> None:
    bits = sorted(FORMATS.values(), key=lambda stored: stored.bits)
    assert all(a.divergence > b.divergence for a, b in itertools.pairwise(bits))
    short, long = (list(deployments(50, context)) for context in (1024, 9216))
    for a, b, candidate in zip(short, long, [c for c in CANDIDATES for _ in range(24)], strict=True):
        assert a["model"] == b["model"] == candidate.name
        assert b["bytes"] - a["bytes"] == pytest.approx(8192 * cache_bytes(candidate.config, a["kv"]), abs=2)
        assert b["speed"] < a["speed"]


def test_a_hollow_7b_has_the_published_shape(chapter: ModuleType) -> None:
    shape: LlmConfig = chapter.LLAMA_2_7B
    assert shape.parameters() == 6_738_415_616
