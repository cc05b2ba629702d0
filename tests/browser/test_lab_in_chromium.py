"""A student's first minutes, in a real browser: open the lab, write an answer, run it, read the panel."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from fourbit.exam.reference import load_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LAB, EXERCISE = "01-pruning", "magnitude_mask"
TOKEN = "browser-test"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
PATIENCE = 120_000  # milliseconds, for a machine that does much else


@dataclass
class Visit:
    """A page that shows the lab, and every address that it asked for."""

    page: Page
    requests: list[str]

    def cell(self, text: str) -> Locator:
        """The code cell that holds `text`, scrolled into view."""
        cell = self.page.locator(".jp-CodeCell", has_text=text).first
        cell.wait_for(timeout=PATIENCE)
        cell.scroll_into_view_if_needed()
        return cell

    def run(self, cell: Locator, source: str | None = None) -> None:
        """Click into a cell, replace its text, and run it."""
        cell.locator(".cm-content").click()
        if source is not None:
            self.page.keyboard.press("ControlOrMeta+a")
            self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")


@pytest.fixture
def server(root, tmp_path, chromium) -> Iterator[str]:
    """`fourbit lab` on a copy of the lab; yields its address."""
    shutil.copytree(root / "labs" / LAB, tmp_path / "labs" / LAB)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(tmp_path / "jupyter" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment = {**os.environ, **folders, "JUPYTER_TOKEN": TOKEN, "FOURBIT_HOME": str(tmp_path / "home")}
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "fourbit", "lab", LAB, "--no-browser", "--port", str(port)],
        cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, Path(log.name))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            pytest.fail(f"fourbit lab ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer:\n{log.read_text()[-2000:]}")


@pytest.fixture
def visit(server, chromium) -> Iterator[Visit]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{server}/?token={TOKEN}", timeout=PATIENCE)
        page.locator(".jp-NotebookPanel").wait_for(timeout=PATIENCE)
        yield Visit(page, requests)
        browser.close()


def test_an_exercise_is_written_run_and_read_off_its_panel(visit, root):
    page = visit.page
    # The server opens on the lab itself, without instructor tools and pop-ups.
    expect(page.locator(".jp-NotebookPanel h1").first).to_contain_text("Lab 01", timeout=PATIENCE)
    visit.run(visit.cell("from fourbit.exam import check"))
    answer = visit.cell(f"{EXERCISE} is not written yet")
    answer_id = answer.evaluate("cell => [...cell.parentElement.children].indexOf(cell)")

    lab = load_lab(root / "solutions" / LAB)
    mistake = lab.exam[EXERCISE].mistakes[0]
    panel = visit.page.locator(".fourbit-panel")
    check_cell = visit.cell(f'check("{EXERCISE}")')

    visit.run(answer, mistake.apply(lab.source(EXERCISE)))
    visit.run(check_cell)
    expect(panel).to_contain_text(mistake.name, timeout=PATIENCE)
    expect(panel).not_to_contain_text("passed")

    again = page.locator(".jp-Notebook .jp-Cell").nth(answer_id)
    again.scroll_into_view_if_needed()
    visit.run(again, lab.source(EXERCISE))
    visit.run(check_cell)
    expect(panel).to_contain_text("passed", timeout=PATIENCE)
    points = lab.exam[EXERCISE].points
    expect(panel.locator(".fb-points")).to_have_text(re.compile(rf"{points:g} / {points:g} points"))

    page.get_by_role("menuitem", name="View", exact=True).click()
    expect(page.get_by_text("Formgrader")).to_have_count(0)
    expect(page.get_by_text("Create Assignment")).to_have_count(0)
    outside = [url for url in visit.requests if not re.match(r"(https?|ws)://127\.0\.0\.1[:/]|data:|blob:", url)]
    assert outside == []
