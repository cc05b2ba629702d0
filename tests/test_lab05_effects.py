"""What chapter 06 and lab 05 say about kernels: in the stored measurements, and counted again where that is exact.

Times are those of one session of the script that made the chapter's numbers; only orderings and ratios with margins
are asserted of them. Counts are the same on every run and are taken anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fourbit.exam.reference import load_lab
from fourbit.measure.callgrind import available
from tests.scripts import load_script


@pytest.fixture(scope="module")
def stored(root: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((root / "lecture_notes/figures/kernels.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def chapter(root: Path) -> ModuleType:
    """The script that measures the chapter's numbers."""
    return load_script(root / "lecture_notes/figures/measure_kernels.py")


@pytest.fixture(scope="module")
def lab(root: Path) -> dict[str, Any]:
    return load_lab(root / "solutions/05-kernels").namespace()


def test_the_ladder_has_its_rungs_in_order(stored: dict[str, Any]) -> None:
    ms = stored["ladder"]["ms"]
    rungs = ["materialize", "loops", "numba, length at run time", "dense", "numba, layout", "C, plain", "C, intrinsics"]
    assert sorted(rungs, key=lambda name: -ms[name]) == rungs
    assert ms["materialize"] / ms["C, intrinsics"] > 150


def test_four_bits_are_slower_until_the_layout_fits(stored: dict[str, Any]) -> None:
    """The lab's promises: numba alone beats dense float32 by 1.3 and more, C by 3 and more."""
    ms = stored["ladder"]["ms"]
    assert ms["loops"] > 3 * ms["dense"]
    assert ms["dense"] > 1.3 * ms["numba, layout"]
    assert ms["dense"] > 3 * ms["C, intrinsics"]


def test_integers_pay_only_where_they_stay_small(stored: dict[str, Any]) -> None:
    ms = stored["ladder"]["ms"]
    assert ms["numba, 64-bit integers"] > 0.8 * ms["numba, layout"]
    assert ms["numba, 64-bit integers"] > 1.3 * ms["numba, integers"]


def test_the_fastest_rung_is_in_the_reach_of_maintained_engines(stored: dict[str, Any]) -> None:
    ms = stored["ladder"]["ms"]
    assert 0.6 < ms["onnxruntime"] / ms["C, intrinsics"] < 2
    assert 0.6 < ms["fourbit.kernels"] / ms["C, intrinsics"] < 2


def test_no_kernel_beats_the_roof(stored: dict[str, Any]) -> None:
    ladder = stored["ladder"]
    for name in ("C, intrinsics", "onnxruntime", "fourbit.kernels"):
        assert 37 / 64 * 11008 * 4096 / (ladder["ms"][name] * 1e-3) < ladder["roof"], name
    assert 4 * 11008 * 4096 / (ladder["ms"]["dense"] * 1e-3) < ladder["roof"]


def test_the_plain_loop_waits_for_its_chain_of_additions(stored: dict[str, Any]) -> None:
    """A weight costs one fused multiply-add's latency, whatever its other instructions are."""
    ladder = stored["ladder"]
    cycles = ladder["ms"]["C, loops"] * 1e-3 * ladder["clock"] / (11008 * 4096)
    assert cycles == pytest.approx(ladder["fma_cycles"], rel=0.05)


def test_every_kernel_of_the_ladder_computes_the_product(stored: dict[str, Any]) -> None:
    """Float kernels up to rounding; 8-bit activations change the result by half a percent, 4-bit weights by nine."""
    error = stored["ladder"]["error"]
    assert max(error[name] for name in ("C, loops", "loops", "numba, layout", "numba, length at run time")) < 1e-5
    names = ("numba, integers", "numba, 64-bit integers", "C, plain", "C, intrinsics", "onnxruntime")
    integers = [error[name] for name in names]
    assert max(integers) < 0.01 < 0.08 < error["dense"]
    assert max(integers) == pytest.approx(min(integers), rel=0.01)


def test_one_scale_for_a_token_costs_more_than_one_for_a_group(stored: dict[str, Any]) -> None:
    for one in stored["activations"].values():
        assert one["groups"] < 0.6 * one["token"]
        assert one["groups"] < 0.25 * one["weights"]


def test_few_saturated_pairs_double_the_error_of_8_bit_weights(stored: dict[str, Any]) -> None:
    for one in stored["activations"].values():
        assert one["saturated"] < 0.01
        assert one["error_saturated"] > 1.8 * one["error_wide"]


def test_no_pair_of_4_bit_codes_saturates_and_eight_vectors_do_not_wrap(lab: dict[str, Any]) -> None:
    codes, most = np.full((9, 32), 15, np.uint8), np.full((9, 32), 127, np.int8)
    for k, wraps in ((8, False), (9, True)):
        lanes = lab["simd_dot"](codes[:k], most[:k])["lanes"]
        assert (lanes != 4 * k * 15 * 127).all() == wraps, k


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="needs valgrind and a compiler")
def test_the_counts_of_the_chapter_are_counted_again(
    chapter: ModuleType, lab: dict[str, Any], stored: dict[str, Any]
) -> None:
    """Another compiler chooses other instructions: a tenth more or fewer is accepted, lines to half a percent."""
    found = chapter.counts(lab)
    for name, one in stored["counts"].items():
        assert found[name]["instructions"] == pytest.approx(one["instructions"], rel=0.1), name
        assert found[name]["lines"] == pytest.approx(one["lines"], rel=0.005), name
    assert found["C, intrinsics"]["instructions"] < 0.6 < 8 < found["4-bit loops"]["instructions"]
    assert found["C, intrinsics"]["lines"] < 0.0105
