"""How many submissions are graded at a time: processors, quotas and free memory."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from autograder.jail import Limits
from autograder.workers.capacity import Capacity, capacity

pytestmark = pytest.mark.linux
GIB = 2**30


def machine(root: Path, **files: str) -> Path:
    """A machine's /proc and /sys; `__` in a name stands for "/" and `_dot_` for "."."""
    for name, text in files.items():
        place = root / name.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


@pytest.mark.parametrize(
    ("found", "exam", "slots"),
    [
        (Capacity(2, 5 * GIB), True, 2),  # a laptop with 8 GiB and a browser
        (Capacity(2, 5 * GIB), False, 2),
        (Capacity(64, 128 * GIB), True, 64),
        (Capacity(64, 16 * GIB), True, 11),
        (Capacity(4, 0), True, 1),
    ],
)
def test_slots_follow_cores_and_memory(found: Capacity, exam: bool, slots: int) -> None:
    assert found.slots(Limits(), exam=exam) == slots


def test_smaller_limits_leave_room_for_more() -> None:
    small = Limits(memory_bytes=GIB // 2)
    assert Capacity(64, 16 * GIB).slots(small, exam=True) > Capacity(64, 16 * GIB).slots(Limits(), exam=True)


def test_without_groups_the_machine_counts(tmp_path: Path) -> None:
    found = capacity(tmp_path)
    assert found.cores == len(os.sched_getaffinity(0))
    assert 0 < found.memory <= psutil.virtual_memory().total


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("max 100000", None), ("100000 100000", 1)])
def test_processor_quota_of_version_2(tmp_path: Path, quota: str, cores: int | None) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/job\n", sys__fs__cgroup__job__cpu_dot_max=quota + "\n")
    assert capacity(root).cores == (cores or len(os.sched_getaffinity(0)))


def test_a_quota_above_counts_too(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="0::/jobs/step\n",
        sys__fs__cgroup__jobs__cpu_dot_max="100000 100000\n",
        sys__fs__cgroup__jobs__step__cpu_dot_max="max 100000\n",
    )
    assert capacity(root).cores == 1


def test_memory_of_version_2_counts_what_the_kernel_can_drop(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max="3000000\n",
        sys__fs__cgroup__memory_dot_current="2500000\n",
        sys__fs__cgroup__memory_dot_stat="anon 1000000\ninactive_file 1500000\n",
    )
    assert capacity(root).memory == 2_000_000


def test_version_1_in_a_container_whose_path_is_that_of_the_host(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="100000\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="5000000\n",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes="4000000\n",
    )
    found = capacity(root)
    assert (found.cores, found.memory) == (1, 1_000_000)


def test_no_quota_of_version_1(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="3:cpu:/\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
    )
    assert capacity(root).cores == len(os.sched_getaffinity(0))
