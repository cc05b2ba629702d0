"""The instruments: honest timings, a roofline, MACs, bytes of a file, the energy table, the lab's figures."""

from __future__ import annotations

import math
import random

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import nn

from fourbit.codec import decode, encode
from fourbit.errors import FourbitError
from fourbit.measure import (
    HOROWITZ45,
    SOURCES,
    Roofline,
    Timing,
    figures,
    file_size,
    measure,
    measure_together,
    probe_machine,
    total_macs,
)
from fourbit.models import PLANS, build


class Work:
    """A clock, and functions that advance it: time passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def taking(self, name: str, durations: list[float]):
        left = iter(durations)

        def run() -> None:
            self.calls.append(name)
            self.now += next(left)

        return run


def test_the_warm_up_is_run_and_not_recorded():
    work = Work()
    timing = measure(work.taking("a", [9.0, 9.0] + [1.0] * 5), warmup=2, min_runs=5, seconds=0.0, clock=work.clock)
    assert timing.samples == (1.0,) * 5
    assert len(work.calls) == 7


def test_runs_go_on_until_the_time_is_up_but_not_beyond_the_most():
    work = Work()
    timing = measure(work.taking("a", [0.25] * 100), warmup=0, min_runs=2, seconds=2.0, clock=work.clock)
    assert len(timing.samples) == 8
    work = Work()
    timing = measure(work.taking("a", [0.25] * 100), warmup=0, min_runs=2, max_runs=3, seconds=2.0, clock=work.clock)
    assert len(timing.samples) == 3


def test_functions_measured_together_take_turns():
    work = Work()
    both = {"a": work.taking("a", [1.0] * 9), "b": work.taking("b", [2.0] * 9)}
    timings = measure_together(both, warmup=0, min_runs=3, seconds=0.0, clock=work.clock)
    assert work.calls == ["a", "b"] * 3
    assert (timings["a"].median, timings["b"].median) == (1.0, 2.0)


def test_the_median_ignores_one_hiccup_and_the_mean_would_not():
    timing = Timing((1.0, 1.1, 1.2, 1.3, 50.0))
    assert timing.median == 1.2
    assert timing.fastest == 1.0


@pytest.mark.parametrize("count", [1, 2, 5, 6, 20, 101])
def test_the_interval_encloses_the_median_and_consists_of_samples(count):
    samples = tuple(random.Random(count).lognormvariate(0, 1) for _ in range(count))
    low, high = Timing(samples).interval
    assert low <= Timing(samples).median <= high
    assert {low, high} <= set(samples)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    rng = random.Random(6940)
    hits = 0
    for _ in range(2000):
        low, high = Timing(tuple(rng.lognormvariate(0, 1) for _ in range(25)), 0.95).interval
        hits += low <= 1.0 <= high  # the true median of this distribution is 1
    # Exact coverage of these ranks is 0.9567 or more; three standard errors of 2000 trials are 0.014.
    assert hits / 2000 >= 0.94


def test_a_timing_reads_well_in_any_unit():
    assert str(Timing((0.002,) * 7)) == "2 ms [2, 2], 7 runs"
    assert " us " in str(Timing((3e-6,)))
    assert " ns " in str(Timing((3e-9,)))


def test_impossible_requests_say_what_to_do():
    with pytest.raises(FourbitError, match="min_runs"):
        measure(lambda: None, min_runs=0)
    with pytest.raises(FourbitError, match="at least one sample"):
        Timing(())
    with pytest.raises(FourbitError, match="at least one thread"):
        probe_machine(threads=0)


def test_the_probe_finds_a_machine_and_leaves_the_threads_alone():
    before = torch.get_num_threads()
    machine = probe_machine(seconds=0.05)
    assert torch.get_num_threads() == before
    # From a 2010 netbook to a server; outside of that a unit is wrong.
    assert 1e8 < machine.peak_flops < 1e14
    assert 1e8 < machine.peak_bandwidth < 1e13
    assert str(Roofline(50e9, 20e9)) == "50.0 GFLOP/s, 20.0 GB/s (1 thread)"


@pytest.mark.parametrize("name", PLANS)
def test_total_macs_of_the_reference_networks_do_not_depend_on_batch_or_mode(name):
    published = {"T4": 5_533_312, "S6": 1_241_920, "S5": 224_728, "S3": 120_112}
    net = build(name, seed=0).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert total_macs(net, torch.zeros(3, 1, 28, 28)) == total_macs(net, torch.zeros(1, 1, 28, 28)) == published[name]
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_total_macs_see_groups_and_tokens():
    assert total_macs(nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.zeros(2, 6, 8, 8)) == 6 * 64 * 9
    assert total_macs(nn.Linear(5, 7), torch.zeros(2, 11, 5)) == 11 * 5 * 7


def test_file_size_is_what_the_disk_says(tmp_path):
    tensors = {
        "größe": torch.randn(3, 5),
        "counter": torch.tensor(7),
        "codes": torch.zeros(13, dtype=torch.uint8),
        "view": torch.randn(4, 6).t(),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    size = file_size(tensors)
    assert size.total == (tmp_path / "model.safetensors").stat().st_size
    assert size.data == 4 * 15 + 8 + 13 + 4 * 24


def test_tied_tensors_are_stored_under_each_name():
    shared = torch.zeros(10, 10)
    assert file_size({"a": shared, "b": shared}).data == 800


def test_the_energy_table_is_plain_data_with_sources_and_the_known_ratios():
    assert decode(encode(HOROWITZ45)) == HOROWITZ45
    assert set(SOURCES) == set(HOROWITZ45) - {"word_bits"}
    assert HOROWITZ45["access"]["dram"] * 32 / HOROWITZ45["word_bits"] == 640.0  # pJ for 32 bits
    assert math.isclose(HOROWITZ45["mult"]["fp32"] + HOROWITZ45["add"]["fp32"], 4.6)
    assert set(HOROWITZ45["accumulator"].values()) <= set(HOROWITZ45["add"])


def test_every_figure_has_units_on_its_axes():
    layers = {"conv": 3.0, "fc": 1.0}
    bill = {"mac": 1.0, "dram": 9.0, "total": 10.0}
    drawn = [
        figures.shares({"MACs": layers, "weights": layers}, "shares"),
        figures.times([0.01 + 0.001 * k for k in range(60)], 5, (0.02, 0.03, 0.04), "times"),
        figures.roofline(Roofline(50e9, 20e9), {"one": {"conv": (20.0, 30e9), "fc": (0.5, 9e9)}}, "roofline"),
        figures.lines(
            {"batch 1": [(1, 2), (3, 4)], "no overhead": [(1, 1), (3, 1)]}, "MACs, millions", "time, ms", "t"
        ),
        figures.bills({"float32": bill, "int8": bill}, "bills"),
    ]
    for figure in drawn:
        assert isinstance(figure, Figure)
        axes = figure.axes[0]
        assert "," in axes.get_xlabel()
        assert axes.get_title(loc="left")
