"""A large class in one go: memory of the coordinator as it goes, and the seconds until formgrader shows the result.

Part of benchmarks/grading.py (`--class N`). formgrader runs in a real Jupyter server, opened by Chromium; a table is
answered when the browser has its rows from the server, where the gradebook's indexes count, and shown when its script
has put in the last row, which is nbgrader's own work in the browser.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.grading_courses import light_course
from benchmarks.grading_meter import Run

Measured = Callable[[str, list[str], Path, str, int], Run]
TOKEN = "benchmark"
VISITS = 3
ANSWERED = """() => performance.getEntriesByType("resource")
    .filter(entry => entry.name.includes("/formgrader/api/")).map(entry => entry.responseEnd / 1000)[0]"""
SHOWN = "rows => window.models && models.loaded && document.querySelectorAll('#main-table tr').length >= rows"
# The table of submissions first: it is what an instructor opens after grading.
PAGES = {
    "submissions": "manage_submissions/light",
    "assignments": "manage_assignments",
    "gradebook": "gradebook/light",
    "gradebook of the notebook": "gradebook/light/light",
}
_ROWS = {"submissions": True, "gradebook of the notebook": True}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def grade_large_class(students: int, measured: Measured, say: Callable[[str], None]) -> dict[str, Any]:
    """Grade `students` submissions of the light course with a slot for each core; open formgrader on the result."""
    jobs = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="fourbit-benchmark-") as scratch:
        course = Path(scratch) / "course"
        say(f"class: making {students} submissions")
        light_course(course, students)
        command = [str(Path(sys.executable).parent / "fourbit"), "grade", "light", "--jobs", str(jobs), "--json"]
        run = measured(f"class: fourbit, {jobs} slot(s)", command, course, "light", students)
        again = measured("class: nothing has changed", command, course, "light", students)
        say("class: formgrader in Chromium")
        pages = page_seconds(course, students)
    graded = [(at, rss) for at, rss in run.own if run.settled[0][0] <= at <= run.settled[-1][0]]
    quarter = max(1, len(graded) // 4)
    each, cpu_each = run.each()
    return {
        "students": students, "jobs": jobs, "wall": run.wall, "cpu": run.cpu, "by": run.by, "each": each,
        "cpu_each": cpu_each, "after": run.wall - run.settled[-1][0], "again_wall": again.wall,
        "own_first_quarter": mean(rss for _, rss in graded[:quarter]),
        "own_last_quarter": mean(rss for _, rss in graded[-quarter:]),
        "own_peak_with_reports": max(rss for _, rss in run.own),
        "failed": sum(line.get("outcome") != "graded" for line in run.lines if line["type"] == "submission"),
        "formgrader": pages,
    }  # fmt: skip


def page_seconds(course: Path, students: int) -> dict[str, Any]:
    """Return for each page of formgrader, by visit: seconds until its table is answered and shown; and its rows."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {"missing": "playwright is not installed (pip install 'fourbit[dev]')"}
    browser_path = next((path for path in map(shutil.which, _BROWSERS) if path), None)
    if browser_path is None:
        return {"missing": "no Chromium on the PATH"}
    found: dict[str, Any] = {}
    with formgrader(course) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(f"{address}login?token={TOKEN}")
        for name, path in PAGES.items():
            rows = students if _ROWS.get(name) else 1
            seconds, answered = [], []
            for _ in range(VISITS):
                start = time.perf_counter()
                page.goto(f"{address}formgrader/{path}", wait_until="commit")
                page.wait_for_function(SHOWN, arg=rows, polling=50)
                seconds.append(time.perf_counter() - start)
                answered.append(page.evaluate(ANSWERED))
            found[name] = {
                "seconds": seconds, "answered": answered, "rows": page.locator("#main-table tr").count()
            }  # fmt: skip
        browser.close()
    return found


@contextmanager
def formgrader(course: Path) -> Iterator[str]:
    """The instructor's Jupyter server in the course folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        folders = {f"JUPYTER_{name}_DIR": str(Path(home, name)) for name in ("CONFIG", "DATA", "RUNTIME")}
        options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        with Path(home, "server.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", *options, f"--IdentityProvider.token={TOKEN}"],
                cwd=course, env={**os.environ, **folders, "HOME": home}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                _wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process)
                yield f"http://127.0.0.1:{port}/"
            finally:
                process.terminate()
                process.wait(timeout=60)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit("the Jupyter server with formgrader did not start; is nbgrader's server extension enabled?")
