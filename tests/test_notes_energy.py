"""The counts behind the chapter on energy: simulators against closed forms, bills against the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fourbit.measure import total_macs
from fourbit.models import build


@pytest.fixture(scope="module")
def energy(root: Path) -> Iterator[ModuleType]:
    folder = str(root / "lecture_notes" / "figures")
    sys.path.insert(0, folder)
    import _energy

    yield _energy
    sys.path.remove(folder)


@pytest.mark.parametrize(("n", "b"), [(12, 1), (12, 3), (12, 12), (60, 20)])
def test_words_of_a_tiled_product_follow_the_closed_form(energy: ModuleType, n: int, b: int) -> None:
    assert energy.tiled_words(n, b) == 2 * n**3 // b + n**2


@pytest.mark.parametrize(("n", "b"), [(7, 2), (10, 4), (5, 9)])
def test_words_of_uneven_tiles_are_those_of_a_walk_over_the_tiles(energy: ModuleType, n: int, b: int) -> None:
    tiles = [range(start, min(start + b, n)) for start in range(0, n, b)]
    words = 0
    for rows in tiles:
        for columns in tiles:
            for depth in tiles:
                words += len({(i, k) for i in rows for k in depth}) + len({(k, j) for k in depth for j in columns})
            words += len({(i, j) for i in rows for j in columns})
    assert energy.tiled_words(n, b) == words


def test_the_best_tile_is_where_the_derivative_is_zero(energy: ModuleType) -> None:
    predicted = (4 * energy.per_byte("dram") / (energy.wire_constant() * 12**0.5)) ** 0.5
    assert energy.best_tile(1024) == pytest.approx(predicted, rel=0.1)


SMALL = [(2, 3, 5), (4, 4, 6), (3, 2, 4)]  # input channels, output channels, pixels of a side


@pytest.mark.parametrize("shape", SMALL)
def test_a_buffer_of_three_rows_moves_what_the_formulas_say(energy: ModuleType, shape: tuple[int, int, int]) -> None:
    conv = energy.Conv(*shape)
    rows = conv.cin * conv.cout * (3 * conv.size - 2)
    least = conv.kernel + 2 * conv.size
    assert energy.moved(conv, "weight stationary", least) == {
        "weights": conv.weights,
        "inputs": rows * conv.size,
        "outputs": 2 * rows * conv.size - conv.outputs,
    }
    assert energy.moved(conv, "output stationary", least) == {
        "weights": rows * conv.kernel,
        "inputs": rows * conv.size,
        "outputs": conv.outputs,
    }


@pytest.mark.parametrize("shape", [(2, 4, 5), (4, 4, 6), (6, 2, 4)])
@pytest.mark.parametrize("tile", [(1, 1), (2, 1), (1, 2)])
def test_rows_move_what_their_tile_says(energy: ModuleType, shape: tuple[int, int, int], tile: tuple[int, int]) -> None:
    conv = energy.Conv(*shape)
    count = energy.moved(conv, "row stationary", energy.row_tile_words(conv, tile), tile)
    assert count["weights"] == conv.weights
    assert sum(count.values()) <= energy.row_stationary_words(conv, tile)


@pytest.mark.parametrize("capacity", [256, 1024, 4096])
def test_the_counts_of_the_chapter_equal_the_closed_form(energy: ModuleType, root: Path, capacity: int) -> None:
    path = root / "lecture_notes" / "figures" / "energy_counts.json"
    row = next(r for r in json.loads(path.read_text(encoding="utf-8"))["conv1"] if r["capacity"] == capacity)
    conv, tile = energy.CONVS["conv1"], tuple(row["tile"])
    assert tile == energy.row_tile(conv, capacity)
    assert sum(row["row stationary"].values()) == energy.row_stationary_words(conv, tile)
    assert row["row stationary"] == energy.moved(conv, "row stationary", capacity, tile)


@pytest.mark.parametrize("flow", ["weight stationary", "output stationary", "row stationary"])
def test_no_order_moves_less_than_each_word_once_and_a_large_buffer_no_more(energy: ModuleType, flow: str) -> None:
    conv = energy.Conv(4, 6, 5)
    counts = [sum(energy.moved(conv, flow, size, (2, 2)).values()) for size in (20, 80, 200, 10_000)]
    assert min(counts) == counts[-1] == conv.least
    assert counts[0] > 2 * conv.least


def test_every_row_operation_is_done_once_in_each_order(energy: ModuleType) -> None:
    conv = energy.Conv(4, 6, 5)
    orders = [list(energy.steps(conv, flow, (3, 2))) for flow in energy.DATAFLOWS]
    assert {len(order) for order in orders} == {4 * 6 * conv.row_pairs}
    assert len({frozenset(order) for order in orders}) == 1


def test_the_bill_is_of_the_network_that_the_course_uses(energy: ModuleType) -> None:
    model, layers = build("T4", seed=0), energy.t4_layers()
    assert sum(layer.macs for layer in layers) == total_macs(model, torch.zeros(1, 1, 28, 28))
    shapes = {name.removesuffix(".weight"): p.numel() for name, p in model.named_parameters()}
    assert {layer.name: layer.weights for layer in layers} == {layer.name: shapes[layer.name] for layer in layers}
    assert sum(energy.bill(layers[0], "fp32", "dram").values()) > 0


def test_the_conv_of_the_dataflows_is_that_of_the_network(energy: ModuleType) -> None:
    layers = {layer.name: layer for layer in energy.t4_layers()}
    for name, conv in energy.CONVS.items():
        assert (conv.weights, conv.inputs, conv.outputs) == (
            layers[name].weights, layers[name].inputs, layers[name].outputs,
        )  # fmt: skip


def test_the_best_clock_is_a_minimum(energy: ModuleType) -> None:
    best = energy.best_clock()
    assert energy.run_energy(best) < min(energy.run_energy(0.9 * best), energy.run_energy(1.1 * best))
