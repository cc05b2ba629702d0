"""The arithmetic behind the chapters on sparse training and on training with few bits, against closed forms."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fourbit.models import build
from fourbit.sparsity import prunable


@pytest.fixture(scope="module")
def folder(root: Path) -> Iterator[None]:
    """The figures' folder on the path."""
    path = str(root / "lecture_notes" / "figures")
    sys.path.insert(0, path)
    yield
    sys.path.remove(path)


@pytest.fixture(scope="module")
def sparse(folder: None) -> ModuleType:
    pytest.importorskip("bitsandbytes")  # measure_llm, from which the pocket model's inputs come
    import measure_sparse_training

    return measure_sparse_training


@pytest.fixture(scope="module")
def few_bits(folder: None) -> ModuleType:
    pytest.importorskip("onnxruntime")
    import measure_quantization_training

    return measure_quantization_training


@pytest.fixture
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (8, 16) and X^T X of correlated inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 16, generator=generator).double() @ torch.randn(16, 16, generator=generator).double()
    return torch.randn(8, 16, generator=generator), x.T @ x


def damped(hessian: torch.Tensor) -> torch.Tensor:
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)


def test_the_surgeon_moves_the_others_as_the_closed_form_says(
    sparse: ModuleType, layer: tuple[torch.Tensor, ...]
) -> None:
    w, hessian = layer
    w[:, 0] = 1e-4 * w[:, 0]  # so that column 0 goes, the only one behind which all others may move
    inverse = torch.linalg.inv(damped(hessian))
    wanted = w.double() - torch.outer(w[:, 0].double() / inverse[0, 0], inverse[0])
    found = sparse.by_surgeon(w, hessian, 1 / 16)
    assert (found == 0).sum(1).tolist() == [1] * 8
    assert torch.equal(found[:, 0], torch.zeros(8))
    torch.testing.assert_close(found.double()[:, 1:], wanted[:, 1:], rtol=1e-4, atol=1e-6)


def test_with_a_diagonal_hessian_the_surgeon_is_wanda(sparse: ModuleType, layer: tuple[torch.Tensor, ...]) -> None:
    w, diagonal = layer[0], torch.arange(1.0, 17).double()
    plain = sparse.by_wanda(w, damped(torch.diag(diagonal)), 0.5)
    assert torch.equal(sparse.by_surgeon(w, torch.diag(diagonal), 0.5), plain)
    assert torch.equal(sparse.by_wanda(w, diagonal, 0.5), sparse.by_wanda(w, torch.diag(diagonal), 0.5))


@pytest.mark.parametrize("sparsity", [0.25, 0.5, None])
def test_the_surgeon_makes_the_smallest_error_with_its_mask(
    sparse: ModuleType, layer: tuple[torch.Tensor, ...], sparsity: float | None
) -> None:
    w, hessian = layer

    def error(changed: torch.Tensor) -> float:
        apart = (changed - w).double()
        return float(((apart @ hessian) * apart).sum())

    best = sparse.by_surgeon(w, hessian, sparsity)
    assert error(best) < error(w.masked_fill(best == 0, 0))
    assert ((best == 0).double().mean() == (0.5 if sparsity is None else sparsity)).item()


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_masks_of_rows_take_exactly_the_lowest(sparse: ModuleType, levels: int) -> None:
    scores = torch.randint(levels, (20, 32), generator=torch.Generator().manual_seed(levels)).float()
    for gone, count in ((sparse.row_masks(scores, 0.25), 8), (sparse.row_masks(scores, None), 16)):
        assert gone.sum(1).tolist() == [count] * 20
    four, gone = scores.view(20, 8, 4), sparse.row_masks(scores, None).view(20, 8, 4)
    assert (torch.where(gone, four, -1).amax(2) <= torch.where(gone, levels, four).amin(2)).all()


@pytest.mark.parametrize("n", [1, 2])
def test_what_a_pattern_keeps_is_a_sum_of_the_largest(sparse: ModuleType, n: int) -> None:
    four = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sparse.kept_of_four(four.unbind(1), n), four.topk(n, 1).values.sum(1))


@pytest.mark.parametrize("n", [1, 2])
def test_the_searched_order_of_eight_channels_is_the_best(sparse: ModuleType, n: int) -> None:
    rows = torch.rand(30, 8, generator=torch.Generator().manual_seed(1))
    order = sparse.better_order(rows, n)
    assert sorted(order.tolist()) == list(range(8))
    every = [sparse.kept(rows, torch.tensor(other), n) for other in itertools.permutations(range(8))]
    assert sparse.kept(rows, order, n) == pytest.approx(max(every))
    mask = sparse.mask_of(rows, order, n)
    assert float(rows[mask].sum() / rows.sum()) == pytest.approx(max(every))


@pytest.mark.parametrize("density", [0.02, 0.0625, 0.5])
def test_random_masks_have_the_density_asked_for(sparse: ModuleType, density: float) -> None:
    model = build("S6", seed=0)
    masks = sparse.random_masks(model, density, 0)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(density * total, abs=len(masks))
    assert float(masks["conv0"].double().mean()) > float(masks["fc1"].double().mean())


@pytest.mark.parametrize("rule", ["at_random", "by_gradient"])
def test_moving_a_mask_keeps_its_number_and_drops_the_smallest(sparse: ModuleType, rule: str) -> None:
    model = build("S6", seed=0)
    weight, mask = prunable(model)["fc1"], sparse.random_masks(model, 0.1, 0)["fc1"]
    run = sparse.SparseRun({"fc1": mask}, getattr(sparse, rule), dense={"fc1": torch.rand(weight.shape)})
    moved = run.moved(weight, "fc1")
    dropped, grown = mask & ~moved, moved & ~mask
    assert int(dropped.sum()) == int(grown.sum()) == int(0.3 * int(mask.sum()))
    assert weight[dropped].abs().max() <= weight[mask & moved].abs().min()
    if rule == "by_gradient":
        assert run.dense["fc1"][grown].min() >= run.dense["fc1"][~moved & ~mask].max()


def test_the_gradient_of_a_step_is_the_rounding_error_or_the_end(few_bits: ModuleType) -> None:
    x, gain = torch.tensor([-3.0, -0.44, 0.26, 0.7, 9.0]), 0.25
    for i, wanted in enumerate((-2.0, -1 + 0.88, 1 - 0.52, 1.0, 1.0)):
        part = few_bits.Step(0.5, -2, 1, learn=True, gain=gain)
        part(x)[i].backward()
        assert float(part.step.grad) == pytest.approx(gain * wanted, abs=1e-6)


def test_only_values_beyond_a_learned_end_move_it(few_bits: ModuleType) -> None:
    x = torch.tensor([-1.0, 0.4, 1.2, 3.0])
    for i, wanted in enumerate((0.0, 0.0, 0.0, 1.0)):
        part = few_bits.Clip(2.0, 3, 1.0)
        part(x)[i].backward()
        assert float(part.end.grad) == wanted


@pytest.mark.parametrize("target", [0.1, 0.3, 0.45, 0.8])
def test_a_weight_that_swings_has_the_right_code_on_average(folder: None, target: float) -> None:
    import _quantization_training as chapter

    weights, codes = chapter.dithering(1.7, 6000, target, 0.05)
    assert sum(codes[1000:]) / 5000 == pytest.approx(target, abs=0.002)
    assert max(abs(w - 0.5) for w in weights[1000:]) <= 0.05


@pytest.mark.parametrize("final", [0.001, 0.01, 0.1])
def test_every_schedule_removes_the_same_in_relative_terms(folder: None, final: float) -> None:
    import _sparse_training as chapter

    times = [i / 20000 for i in range(20001)]
    for kind in ("linear", "cubic", "geometric"):
        kept = [chapter.density(kind, t, final) for t in times]
        assert kept[0] == pytest.approx(1)
        assert kept[-1] == pytest.approx(final)
    kept = [chapter.density("cubic", t, final) for t in times]
    rates = [(a - b) / a for a, b in itertools.pairwise(kept)]
    peak = rates.index(max(rates))
    assert kept[peak] == pytest.approx(3 * final, rel=0.01)
    assert 20000 * max(rates) == pytest.approx(2 ** (2 / 3) * ((1 - final) / final) ** (1 / 3), rel=0.01)
    assert sum(-math.log(b / a) for a, b in itertools.pairwise(kept)) == pytest.approx(-math.log(final))
