"""Lab 01: its exam tells right from wrong, its examples run, and pruning does what the lab says it does."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fourbit.data import load, to_float
from fourbit.errors import FourbitError
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.reference import load_lab
from fourbit.models import build, load_checkpoint
from fourbit.sparsity import apply_recipe, cubic_sparsity, file_bytes, masked, pack, prunable, resized, unpack
from fourbit.training import evaluate
from tests.lab_checks import assert_published

EXERCISES = (
    "magnitude_mask", "is_valid_mask", "nm_mask", "reestimate_bn", "masked_finetune",
    "sensitivity", "encode_sparse", "allocate", "shrink", "prune_to_budget",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions/01-pruning")


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


@pytest.fixture(scope="module")
def teacher():
    return load_checkpoint("teacher20")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions/01-pruning", tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert (tmp_path / "01-pruning/visible/pack.safetensors").stat().st_size < 2_000_000
    assert_published(lab, rows, seed)


def test_each_exercise_has_its_mistakes_and_an_alternative(lab):
    for exercise in lab.exam.exercises:
        assert len(exercise.mistakes) >= 6, exercise.name
        assert exercise.alternatives, exercise.name
        assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes)


def test_the_points_add_up(lab):
    """95 by machine, 15 of them for the design and 10 for the test; the written questions make it 100."""
    assert sum(e.points for e in lab.exam.exercises) == 95


def test_the_hidden_cases_are_other_cases(lab):
    for exercise in lab.exam.exercises:
        visible, hidden = exercise.cases(6940, True), exercise.cases(6940, False)
        shown = {repr((case.args, dict(case.kwargs))) for case in visible}
        assert not shown & {repr((case.args, dict(case.kwargs))) for case in hidden}, exercise.name


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_docstring_examples_run(reference, exercise):
    examples = doctest.DocTestParser().get_doctest(inspect.getdoc(reference[exercise]), reference, exercise, None, 0)
    assert examples.examples
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_the_judge_holds_no_solution(lab):
    """No statement of a reference stands in the file that students get; the head of a loop may."""
    judge = (lab.folder / "properties.py").read_text(encoding="utf-8")
    shared = {line.strip() for line in judge.splitlines()}
    for exercise in lab.exam.exercises:
        stub = {line.strip() for line in lab.stub(exercise.name).splitlines()}
        secret = {line.strip() for line in lab.source(exercise.name).splitlines()} - stub
        assert not {line for line in secret & shared if len(line) > 24 and not line.endswith(":")}, exercise.name


# Effects that the notebook's text relies on; the bounds leave half a point and more for another processor.


def _accuracy(net, split) -> float:
    return 100 * evaluate(net, split)


def _global_masks(reference, net, sparsity):
    weights = prunable(net)
    together = reference["magnitude_mask"](torch.cat([w.flatten() for w in weights.values()]), sparsity)
    parts = together.split([w.numel() for w in weights.values()])
    return {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}


def test_half_of_the_weights_are_free_and_ninety_percent_are_not(reference, teacher):
    val = load("fashion-20k").val
    dense = _accuracy(teacher, val)
    assert dense - _accuracy(masked(teacher, _global_masks(reference, teacher, 0.5)), val) <= 1.0
    assert dense - _accuracy(masked(teacher, _global_masks(reference, teacher, 0.9)), val) >= 4.0


def test_statistics_bring_back_points_without_a_gradient(reference, teacher):
    clothes = load("fashion-20k")
    pruned = masked(teacher, _global_masks(reference, teacher, 0.9))
    batches = [to_float(x) for x in clothes.train.x[:1280].split(128)]
    gain = _accuracy(reference["reestimate_bn"](pruned, batches), clothes.val) - _accuracy(pruned, clothes.val)
    assert gain >= 3.0


def test_a_recipe_makes_the_promised_file(reference, teacher):
    picked = load("fashion-20k").train[:128]
    budgets = [100_000, 400_000, 5_000_000]
    recipes = reference["prune_to_budget"](teacher, (to_float(picked.x), picked.y), budgets)
    for budget, recipe in zip(budgets, recipes, strict=True):
        net = apply_recipe(teacher, recipe)
        assert len(pack(net)) == file_bytes(net) <= budget
        assert file_bytes(net) > 0.98 * min(budget, file_bytes(teacher))


# The tools that the lab gives.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_file_restores_every_tensor(seed, sparsity):
    generator = torch.Generator().manual_seed(seed)
    net = build("S5", seed=seed)
    net = masked(net, {k: torch.rand(w.shape, generator=generator) >= sparsity for k, w in prunable(net).items()})
    data = pack(net)
    assert len(data) == file_bytes(net)
    back = unpack(data, build("S5", seed=seed + 1)).state_dict()
    for name, tensor in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("gap", [0, 254, 255, 256, 257, 511, 512, 513, 1023])
def test_long_gaps_are_filled(gap):
    net = nn.Sequential(nn.Linear(2048, 1, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[0, gap] = 1.5
    back = unpack(pack(net), nn.Sequential(nn.Linear(2048, 1, bias=False)))
    assert torch.equal(back[0].weight, net[0].weight)
    assert file_bytes(net) == 5 + 5 * (1 + gap // 256)


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"", lambda d: d[5:]])
def test_a_file_of_another_network_is_refused(damage):
    net = build("S5", seed=0)
    with pytest.raises(FourbitError):
        unpack(damage(pack(net)), net)


def test_a_recipe_for_another_network_is_refused(teacher):
    with pytest.raises(FourbitError, match="conv9"):
        apply_recipe(teacher, {"thresholds": {"conv9": 0.1}, "batch_norm": {}})
    with pytest.raises(FourbitError, match="running_mean"):
        apply_recipe(teacher, {"thresholds": {}, "batch_norm": {"bn0": (torch.zeros(3), torch.ones(3))}})


def test_resized_layers_keep_their_settings_and_refuse_what_does_not_fit():
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, bias=False)
    small = resized(conv, weight=conv.weight[:5, :2])
    assert str(small) == "Conv2d(2, 5, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), bias=False)"
    with pytest.raises(FourbitError, match="bias"):
        resized(conv, weight=conv.weight[:5], bias=torch.zeros(8))
    with pytest.raises(FourbitError, match="ReLU"):
        resized(nn.ReLU(), weight=torch.ones(1))


def test_the_cubic_schedule_starts_and_ends_where_it_should():
    assert cubic_sparsity(0, 10, 0.9, 0.1) == pytest.approx(0.1)
    assert cubic_sparsity(10, 10, 0.9, 0.1) == cubic_sparsity(12, 10, 0.9, 0.1) == pytest.approx(0.9)
    steps = [cubic_sparsity(i, 10, 0.9) for i in range(11)]
    assert steps == sorted(set(steps))
    assert steps[1] - steps[0] > 20 * (steps[10] - steps[9])
