"""What lab 03 says about distillation: one claim trained anew here, the others checked on the stored results.

Only effects far outside the noise of seeds are asserted. What a paired comparison cannot settle (S5 on all labels,
which temperature, the order of pruning and rounding) is stored and shown, and not asserted.
"""

import importlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fourbit.data import load
from fourbit.data.assets import FOLDER, read_asset
from fourbit.distillation import FRONT, T_QUANTILES, pareto, quantized, stored_results, student_file
from fourbit.models import PLANS, build, load_checkpoint
from fourbit.recipes import distillation as recipe
from fourbit.sparsity import prunable
from fourbit.training import cross_entropy, evaluate


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(read_asset(FRONT))
    return results


def paired(stored: Mapping[str, Any], setting: str) -> Mapping[str, Any]:
    (row,) = (row for row in stored["paired"] if row["setting"] == setting)
    return row


def gain(row: Mapping[str, Any]) -> tuple[float, float]:
    """Mean of the paired gains and the half width of its 95 % interval."""
    return interval([kd - ce for ce, kd in zip(row["ce"], row["kd"], strict=True)])


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval."""
    n = len(differences)
    return statistics.fmean(differences), T_QUANTILES[n - 1] * statistics.stdev(differences) / math.sqrt(n)


# trained here


@pytest.mark.slow
def test_with_a_thousand_labels_a_teacher_on_unlabelled_images_is_worth_four_points() -> None:
    (row,) = (row for row in recipe.PAIRS if row[0] == "very few labels, many unlabelled images")
    _, network, teacher, labels, images = row
    assert (network, teacher, labels, images) == ("S5", "teacher60", 1000, 18000)
    test, gains = load("fashion-20k").test, []
    for seed in (0, 1):
        alone = recipe.student(network, "", labels, labels, seed)
        taught = recipe.student(network, teacher, labels, images, seed)
        gains.append(100 * (evaluate(taught, test) - evaluate(alone, test)))
    # Over three seeds and two splits of the data the smallest single gain was 7.2 points, the largest 8.6; another
    # machine moves one accuracy by about half a point.
    assert statistics.fmean(gains) >= 4.0, f"gains of {gains} points; 7 to 9 were measured"


# stored


@pytest.mark.parametrize(
    ("setting", "student", "at_least"),
    [
        ("few labels, the same images", "S5", 1.2),
        ("very few labels, many unlabelled images", "S5", 4.0),
        ("all labels, larger student", "S6", 0.5),
    ],
)
def test_where_a_better_teacher_helps_the_interval_says_so(
    stored: dict[str, Any], setting: str, student: str, at_least: float
) -> None:
    row = paired(stored, setting)
    assert (row["student"], row["teacher"]) == (student, "teacher60")
    assert len(row["ce"]) >= 3
    mean, half = gain(row)
    assert mean >= at_least
    assert mean - half > 0, f"{mean:.2f} ± {half:.2f} points: the interval contains zero"


def test_a_teacher_with_the_same_data_gives_no_gain_that_the_interval_could_see(stored: dict[str, Any]) -> None:
    row = paired(stored, "control: teacher with the same data")
    assert (row["student"], row["teacher"], row["unlabelled"]) == ("S6", "teacher20", 0)
    assert len(row["ce"]) >= 3
    mean, half = gain(row)
    assert mean - half <= 0 <= mean + half, f"{mean:.2f} ± {half:.2f} points"
    better, _ = gain(paired(stored, "all labels, larger student"))
    assert row["ce"] == paired(stored, "all labels, larger student")["ce"], "both are paired with the same runs"
    assert mean < better


def test_every_comparison_is_of_the_same_labels_steps_and_seeds(stored: dict[str, Any]) -> None:
    assert [row[0] for row in recipe.PAIRS] == [row["setting"] for row in stored["paired"]]
    for row, (_, network, teacher, labels, images) in zip(stored["paired"], recipe.PAIRS, strict=True):
        assert (row["student"], row["teacher"], row["labels"]) == (network, teacher, labels)
        assert row["unlabelled"] == images - labels
        assert len(row["ce"]) == len(row["kd"]) == len(stored["seeds"])
        steps = [round(recipe.STEPS / (n // 128)) * (n // 128) for n in (labels, images)]
        assert max(steps) - min(steps) <= 4


def test_a_specialist_beats_the_generalist_of_the_same_network(stored: dict[str, Any]) -> None:
    for group, classes in recipe.GROUPS.items():
        rows = [row for row in stored["specialist"] if row["group"] == group and row["student"] == "S3"]
        known = {(row["classes_known"], row["teacher"]): row for row in rows}
        narrow, wide = known[len(classes), ""], known[10, ""]
        assert narrow["bytes"] < wide["bytes"]
        assert min(narrow["accuracies"]) > max(wide["accuracies"])


# the reference front


def test_the_front_is_of_legal_students_and_says_how_it_was_made(stored: dict[str, Any]) -> None:
    results = stored_results()
    assert results.recipe == recipe.RECIPE
    assert callable(importlib.import_module(results.recipe.removeprefix("python -m ")).main)
    assert len(results.front) >= 40
    for row in results.front:
        assert row["student"] in PLANS
        assert row["bits"] in (2, 3, 4, 8, 32)
        assert 0 <= row["sparsity"] < 1
        assert isinstance(row["distilled"], bool)
        assert 0 < row["bytes"] <= recipe.LIMIT == 30_000
        assert 5 < row["accuracy"] < 100
    keys = {(row["student"], row["bits"], row["sparsity"], row["distilled"]) for row in results.front}
    assert len(keys) == len(results.front)


def test_the_front_rises_with_the_budget_and_is_a_bar_worth_reaching(stored: dict[str, Any]) -> None:
    front = pareto(stored["front"])
    assert len(front) >= 6
    assert all(a["bytes"] < b["bytes"] and a["accuracy"] < b["accuracy"] for a, b in pairwise(front))
    # Two standard errors of 2,000 images below what is stored (83, 87 and 92 %).
    for budget, at_least in ((3_500, 80.0), (6_000, 85.0), (recipe.LIMIT, 90.0)):
        assert max(row["accuracy"] for row in front if row["bytes"] <= budget) >= at_least


@pytest.mark.parametrize("distilled", [False, True])
def test_a_larger_network_with_few_bits_beats_a_smaller_one_with_many(stored: dict[str, Any], distilled: bool) -> None:
    rows = {(r["student"], r["bits"], r["sparsity"]): r for r in stored["front"] if r["distilled"] is distilled}
    few, many = rows["S6", 3, 0.0], rows["S5", 32, 0.0]
    assert few["bytes"] < many["bytes"]
    assert few["accuracy"] > many["accuracy"] + 1


def test_a_stored_row_can_be_made_again_without_training(stored: dict[str, Any]) -> None:
    (row,) = (row for row in stored["front"] if (row["student"], row["bits"], row["distilled"]) == ("S5", 32, False))
    model = load_checkpoint("s5")
    assert len(student_file(model, 32)) == row["bytes"]
    # Half-precision batch normalization and another machine's sums move logits by about a thousandth: a few images.
    val = load("fashion-20k").val
    assert 100 * evaluate(quantized(model, 32), val) == pytest.approx(row["accuracy"], abs=100 * 5 / len(val))


def test_orders_of_compression_end_in_comparable_files(stored: dict[str, Any]) -> None:
    assert [tuple(row["order"]) for row in stored["composition"]] == list(recipe.ORDERS)
    for row in stored["composition"]:
        assert len(row["accuracies"]) == len(stored["seeds"])
        assert row["accuracy"] == pytest.approx(statistics.fmean(row["accuracies"]), abs=1e-3)
        assert row["bytes"] < 20_000


def test_training_mends_what_happened_before_it(stored: dict[str, Any]) -> None:
    runs = {tuple(row["order"]): row["accuracies"] for row in stored["composition"]}
    last, first = runs["prune", "quantize", "distill"], runs["distill", "prune", "quantize"]
    mean, half = interval([a - b for a, b in zip(last, first, strict=True)])
    assert mean >= 2
    assert mean - half > 0, f"{mean:.2f} ± {half:.2f} points: the interval contains zero"


# the recipe


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand images, a few steps, one seed."""
    data = load("fashion-20k")
    small = replace(data, train=data.train[:1024], val=data.val[:200], test=data.test[:200])
    monkeypatch.setattr(recipe, "_data", lambda: small)
    monkeypatch.setattr(recipe, "STEPS", 8)
    monkeypatch.setattr(recipe, "SEEDS", (0, 1))
    monkeypatch.setattr(recipe, "PAIRS", (("few", "S3", "teacher60", 256, 512), ("self", "S3", "itself", 256, 256)))
    monkeypatch.setattr(recipe, "ORDERS", (("prune", "quantize", "train"), ("quantize", "distill", "prune")))
    recipe.student.cache_clear()


def test_masks_and_grid_hold_through_training(quick: None) -> None:
    net = recipe.Compressed(build("S3", seed=0))
    net.prune(0.75)
    net.bits = 3
    before = {name: mask.clone() for name, mask in net.masks.items()}
    net.fit(1, 0, cross_entropy)
    weights = prunable(net.model())
    kept = sum(int(mask.sum()) for mask in before.values())
    assert kept == round(0.25 * sum(mask.numel() for mask in before.values()))
    moved = 0.0
    for name, weight in weights.items():
        assert not weight[~before[name].bool()].any()
        steps = weight.flatten(1) / (weight.flatten(1).abs().amax(1, keepdim=True) / 3).clamp(min=1e-9)
        assert torch.allclose(steps, steps.round(), atol=1e-4)
        moved += float((net.free.get_submodule(name).get_parameter("weight").detach() - weight).abs().sum())
    assert moved > 0, "training moves the weights behind the grid, not on it"


def test_the_teacher_of_a_student_without_labels_is_all_that_it_sees(quick: None) -> None:
    soft = torch.randn(1024, 2, 10)
    loss = recipe.distilling(soft, labels=0)
    logits = torch.randn(4, 10, requires_grad=True)
    rows, flipped = torch.tensor([3, 5, 7, 9]), torch.tensor([True, False, False, True])
    batch = recipe.Batch(torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]), rows, flipped)
    (found,) = torch.autograd.grad(loss(logits, batch), logits)
    wanted = (soft[rows, flipped.long()] / 4).softmax(1)
    assert torch.allclose(found, 0.9 * 4 * ((logits / 4).softmax(1) - wanted) / 4, atol=1e-6)


def test_the_recipe_writes_what_the_lab_reads(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.main(["--out", str(tmp_path), "--parts", "paired", "composition"])
    assert capsys.readouterr().out.count("\n") == 4
    results = stored_results(tmp_path)
    assert [row["setting"] for row in results.paired] == ["few", "self"]
    assert [len(row["accuracies"]) for row in results.composition] == [2, 2]
    recipe.main(["--out", str(tmp_path), "--parts", "paired"])
    assert stored_results(tmp_path).composition == results.composition
    assert FOLDER not in tmp_path.parents
