"""`fourbit doctor`: one screen, and arithmetic that a reader can follow."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from fourbit import doctor
from fourbit.errors import DataError
from fourbit.measure import Roofline

WIDTH, HEIGHT = 100, 40


@pytest.fixture
def report(monkeypatch) -> doctor.MachineReport:
    """This machine, with a roofline of round numbers in place of a measured one."""
    monkeypatch.setattr(doctor, "probe_machine", lambda threads: Roofline(50e9 * threads, 7.875e9 * threads, threads))
    monkeypatch.setattr(doctor, "usable_cores", lambda: 4)
    monkeypatch.setattr(doctor, "find_gpu", lambda measure: None)
    return doctor.examine_machine()


def shown(report: doctor.MachineReport) -> str:
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(doctor.render(report))
    return out.getvalue()


def test_the_report_fits_one_screen_and_names_every_part(report):
    text = shown(report)
    assert len(text.splitlines()) <= HEIGHT
    for word in ("cores", "memory", "GPU", "roofline", "kernels", "sandbox", "pocket", "real", "hollow", "tokens/s"):
        assert word in text


def test_a_7b_at_four_bits_is_bandwidth_over_bytes(report):
    # 7e9 weights x 4.5 bits / 8 = 3.9375e9 bytes; 4 threads give 31.5e9 bytes a second: 8 tokens a second.
    assert pytest.approx(3.9375e9) == doctor.BYTES_7B
    assert doctor.tokens_per_second(31.5e9) == pytest.approx(8.0)
    assert "31.5 GB/s / 3.94 GB = 8.0 tokens/s" in shown(report)


def test_without_a_compiler_the_kernels_are_numba_and_what_helps_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = doctor.describe_kernels()
    assert told.startswith("numba")
    assert "compiler" in told


def test_a_gpu_that_holds_the_model_has_a_line_of_its_own(report, monkeypatch):
    gpu = doctor.Gpu("A GPU", memory=int(8e9), bandwidth=315e9)
    monkeypatch.setattr(doctor, "find_gpu", lambda measure: gpu)
    text = shown(doctor.examine_machine())
    assert "A GPU, 8.0 GB, 315 GB/s" in text
    assert "315.0 GB/s / 3.94 GB = 80.0 tokens/s" in text


def test_a_gpu_too_small_for_the_model_promises_nothing(report, monkeypatch):
    monkeypatch.setattr(doctor, "find_gpu", lambda measure: doctor.Gpu("A small GPU", int(2e9), 100e9))
    text = shown(doctor.examine_machine())
    assert "A small GPU" in text
    assert text.count("tokens/s") == 1


def test_quick_measures_nothing(monkeypatch):
    monkeypatch.setattr(doctor, "probe_machine", lambda threads: pytest.fail("measured"))
    monkeypatch.setattr(doctor, "copy_bandwidth", lambda device: pytest.fail("measured"))
    text = shown(doctor.examine_machine(measure=False))
    assert "not measured" in text
    assert "tokens/s" not in text


def test_too_little_memory_is_told(report, monkeypatch):
    monkeypatch.setattr(doctor, "memory_limits", lambda: (int(4e9), int(3e9)))
    report = doctor.examine_machine()
    assert not report.tiers[2].works
    assert re.search(r"3\.0 GB free: it does not fit", shown(report))


def test_damaged_assets_are_told_and_stop_nothing(monkeypatch):
    def damaged(name):
        raise DataError("fashion-20k is damaged; reinstall Fourbit")

    monkeypatch.setattr("fourbit.data.assets.read_asset", damaged)
    tier = doctor.pocket_tier()
    assert not tier.works
    assert "reinstall Fourbit" in tier.detail


def test_the_real_tier_knows_what_was_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path))
    assert 'load("cifar-10")' in doctor.real_tier().detail
    (tmp_path / "cifar-10").mkdir()
    (tmp_path / "cifar-10" / "cifar-10-python.tar.gz.part").touch()
    assert "cifar-10 in" not in doctor.real_tier().detail
    (tmp_path / "cifar-10" / "cifar-10-python.tar.gz").touch()
    assert "cifar-10 in" in doctor.real_tier().detail


def test_grading_needs_linux_and_says_so_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    works, text = doctor.describe_sandbox()
    assert not works
    assert "needs Linux" in text


def test_missing_grading_tools_are_told(monkeypatch):
    class Missing:
        def load(self):
            raise ModuleNotFoundError("No module named 'pydantic'")

    monkeypatch.setattr(doctor, "entry_points", lambda group: [Missing()])
    works, text = doctor.describe_sandbox()
    assert not works
    assert "make demo" in text


@pytest.mark.linux
def test_the_sandbox_of_this_machine_is_described():
    works, text = doctor.describe_sandbox()
    assert isinstance(works, bool)
    assert text


def test_memory_respects_a_containers_limit(monkeypatch):
    files = {"/sys/fs/cgroup/memory.max": "2000000000", "/sys/fs/cgroup/memory.current": "1500000000"}
    monkeypatch.setattr(doctor.Path, "read_text", lambda self: files[str(self)])
    total, free = doctor.memory_limits()
    assert total == 2_000_000_000
    assert free == 500_000_000


def test_measuring_this_machine_gives_positive_numbers():
    report = doctor.examine_machine()
    assert report.rooflines[0].threads == 1
    assert report.bandwidth > 0
