"""The class of hostile submissions once more: graded by an ordinary user, and in Landlock mode."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from autograder.jail import JailMode, describe
from tests.test_engine_user import may_mount, run_tests

if sys.platform != "linux":
    pytest.skip("grading needs the Linux kernel", allow_module_level=True)
pytestmark = [pytest.mark.linux, pytest.mark.slow]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs test_attacks.py itself")
def test_as_an_ordinary_user(root: Path) -> None:
    if not may_mount():
        pytest.skip("root may not mount here")
    run_tests(root, ["tests/test_attacks.py"])


def test_in_landlock_mode(root: Path) -> None:
    if describe().landlock_abi == 0 or (os.geteuid() == 0 and not may_mount()):
        pytest.skip("no Landlock here: " + describe().landlock)
    run_tests(root, ["tests/test_attacks.py"], FOURBIT_TEST_JAIL=str(JailMode.LANDLOCK))
