"""What every test shares: one torch thread, no network, a browser that must be there in CI."""

from __future__ import annotations

import os

# Before torch is imported: the grader forks, and a fork of a process that has used a thread pool hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages import BLOCKED
from tests.postgres import Server, private_server

ROOT = Path(__file__).resolve().parent.parent
# These come first, so that no process is left alone with one of them while the others have nothing to do.
LONGEST = (
    "test_attacks_user", "test_site_whole", "test_lab02", "test_engine_user", "test_chaos", "test_lab04_effects",
    "test_cluster", "test_attacks", "test_lab01", "test_lab03_effects", "test_engine", "test_demo", "test_lab03",
    "test_provisioner_user", "test_lab05", "test_lab06", "test_grade", "test_plain_grading", "test_lab07",
    "test_lab04", "test_llm_engine_pocket", "test_site",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


def find_chromium() -> str | None:
    """The browser on the PATH, by the names its packages use."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium. Without one the test is skipped on a laptop, and fails in CI."""
    path = find_chromium()
    if path:
        return path
    reason = "the browser tests did not run: no chromium or google-chrome on the PATH (Debian: apt install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A Chromium that reaches this machine only."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=BLOCKED)
        yield found
        found.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of the tests' own; made when the first test asks for it."""
    with private_server() as server:
        yield server
