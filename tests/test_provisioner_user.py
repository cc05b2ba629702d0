"""The tests of jailed kernels once more: as an ordinary user, and in Landlock mode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.jail import JailMode, describe
from tests.test_engine_user import may_mount, run_tests

pytestmark = pytest.mark.linux


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs test_provisioner.py itself")
def test_as_an_ordinary_user(root: Path) -> None:
    if not may_mount():
        pytest.skip("root may not mount here")
    run_tests(root, ["tests/test_provisioner.py"])


@pytest.mark.slow
def test_in_landlock_mode(root: Path) -> None:
    if describe().landlock_abi == 0 or (os.geteuid() == 0 and not may_mount()):
        pytest.skip("no Landlock here: " + describe().landlock)
    run_tests(root, ["tests/test_provisioner.py", "-k", "not autograde"], FOURBIT_TEST_JAIL=str(JailMode.LANDLOCK))
