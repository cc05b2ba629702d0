"""Hostile work in a real browser: in formgrader inside the instructor's Jupyter, as feedback, in the class report."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from rich.console import Console

from autograder.books.gradebook import open_gradebook
from autograder.grade import grade_assignment
from autograder.nbgrader_course import NbgraderCourse
from autograder.reports.publish import show_class
from tests import hostile_pages
from tests.pages import serving
from tests.plain_course import GOOD, cell_of, make_course, released, submit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.linux]

TOKEN = "a-token-of-the-tests"
PATIENCE = 120_000  # milliseconds
# nbgrader's own pages ask this host for MathJax; nothing of a student's is in the request.
MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"


@dataclass
class Canary:
    """A server that only evil asks; `asked` has the path of every request."""

    address: str
    asked: list[str]


@dataclass
class Visit:
    """A page, what it asked for, and the dialogs that it opened."""

    page: Any
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def outside(self, *allowed: str) -> list[str]:
        return [url for url in self.requests if not url.startswith((*allowed, "data:", "blob:"))]


@contextmanager
def visited(browser: Any, **options: Any) -> Iterator[Visit]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    visit = Visit(context.new_page())
    visit.page.set_default_timeout(PATIENCE)
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    visit.page.on("dialog", lambda dialog: (visit.dialogs.append(dialog.message), dialog.dismiss()))
    yield visit
    context.close()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    asked: list[str] = []
    with serving(tmp_path_factory.mktemp("canary"), asked) as address:
        yield Canary(address, asked)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, canary: Canary) -> NbgraderCourse:
    """A graded class with two hostile students, one honest one, and one whose folder's name is markup."""
    course, template = make_course(tmp_path_factory.mktemp("grading") / "course")
    text, attachments = hostile_pages.written_answer(canary.address)
    evil = released(template, GOOD | {"mean": hostile_pages.shown_answer(canary.address), "why": text})
    cell_of(evil, "why")["attachments"] = attachments
    folder = submit(course, "eve", hostile_pages.with_payload(evil, canary.address).encode())
    for name in ("evil.html", "evil.svg", '"><img src=x onerror=alert(1)>.txt'):
        (folder / name).write_text(f"<html><script>fetch('{canary.address}file')</script></html>")
    raising = released(template, GOOD | {"mean": hostile_pages.raising_answer(canary.address), "table": "1 / 0"})
    submit(course, "mallory", json.dumps(raising).encode())
    submit(course, "ada", released(template, GOOD))
    submit(course, "<img src=x onerror=alert(1)>", released(template, GOOD))
    result = grade_assignment(course.root, "ps1", jobs=1)
    show_class(course.root, "ps1", result.records, Console(quiet=True))
    return course


@pytest.fixture(scope="module")
def formgrader(course: NbgraderCourse, chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The instructor's Jupyter server in the course folder; yields its address."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    log = (home / "server.log").open("w")
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", *options, f"--IdentityProvider.token={TOKEN}"],
        cwd=course.root, env={**os.environ, **folders, "HOME": str(home)}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, Path(log.name))
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            pytest.fail(f"the server ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not answer:\n{log.read_text()[-2000:]}")


def signed_in(visit: Visit, formgrader: str, page: str) -> None:
    """Open a page of formgrader as the instructor."""
    visit.page.goto(f"{formgrader}login?token={TOKEN}")
    visit.page.goto(f"{formgrader}formgrader/{page}")


def nothing_ran(visit: Visit, canary: Canary) -> None:
    visit.page.wait_for_timeout(500)
    assert canary.asked == []
    assert visit.dialogs == []
    assert visit.page.evaluate("window.canary") is None


def violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.1 AA."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})")
    return [f"{fault['id']}: {node['html'][:200]}" for fault in found["violations"] for node in fault["nodes"]]


def test_the_attempts_are_live_on_a_page_that_does_nothing_against_them(browser, tmp_path: Path) -> None:
    """The control: what the other tests do not see would be seen."""
    asked: list[str] = []
    (tmp_path / "elsewhere").mkdir()
    with serving(tmp_path / "elsewhere", asked) as address, visited(browser) as visit:
        (tmp_path / "page").mkdir()
        (tmp_path / "page" / "live.html").write_text(hostile_pages.live_page(address))
        with serving(tmp_path / "page", []) as page:
            visit.page.goto(f"{page}live.html")
            visit.page.wait_for_timeout(1500)
        assert visit.page.evaluate("window.canary") is not None
    seen = {path.strip("/") for path in asked}
    wanted = {
        "ran-script",
        "ran-onerror",
        "ran-svg",
        "frame",
        "pixel",
        "sheet",
        "import",
        "background",
        "object",
        "video",
    }
    assert wanted <= seen, wanted - seen


@pytest.mark.parametrize("student", ["eve", "mallory"])
def test_formgrader_shows_hostile_work_and_its_scores_and_runs_nothing(
    browser, course: NbgraderCourse, formgrader: str, canary: Canary, student: str
) -> None:
    gradebook = open_gradebook(course)
    submission = gradebook.find_submission_notebook("ps1", "ps1", student).id
    gradebook.close()
    with visited(browser) as visit:
        signed_in(visit, formgrader, f"submissions/{submission}/")
        visit.page.locator("#statusmessage").wait_for(state="attached")
        visit.page.locator("#test_population").wait_for()
        nothing_ran(visit, canary)
        assert visit.outside(formgrader, MATHJAX) == []
        scores = visit.page.locator("input.score")
        assert scores.count() == 5
        for number in range(scores.count()):
            on_top = scores.nth(number).evaluate(
                """input => { input.scrollIntoView({block: "center"}); const box = input.getBoundingClientRect();
                return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === input; }"""
            )
            assert on_top, scores.nth(number).get_attribute("id")
        visit.page.locator("#test_population[placeholder='3']").wait_for()  # what the grader gave
        links = visit.page.locator("#notebook-container a[href]").evaluate_all("all => all.map(a => a.href)")
        for url in links:  # to the web, or within the page
            assert url.startswith("https://example.org/") or url.startswith(canary.address) or "/#" in url, url
        hover = visit.page.locator("#notebook-container .mermaid").first
        if hover.count():
            hover.hover()
            nothing_ran(visit, canary)


def test_every_page_of_formgrader_that_lists_the_class_runs_nothing(browser, formgrader: str, canary: Canary) -> None:
    pages = {
        "manage_assignments": "ps1", "manage_submissions/ps1": "eve", "gradebook": "ps1", "gradebook/ps1": "ps1",
        "gradebook/ps1/ps1": "Submission #1", "manage_students": "mallory", "manage_students/eve": "ps1",
    }  # fmt: skip
    with visited(browser) as visit:
        for page, text in pages.items():
            signed_in(visit, formgrader, page)
            visit.page.locator("tbody", has_text=text).first.wait_for()
            nothing_ran(visit, canary)
        assert visit.outside(formgrader) == []  # these have no MathJax either


def test_a_students_files_come_as_text(course: NbgraderCourse, formgrader: str) -> None:
    gradebook = open_gradebook(course)
    submission = gradebook.find_submission_notebook("ps1", "ps1", "eve").id
    gradebook.close()
    base = f"{formgrader}formgrader/submissions/{submission}/"
    for name in ("evil.html", "evil.svg"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}{name}?token={TOKEN}")
        with urllib.request.urlopen(f"{base}{name}.txt?token={TOKEN}") as answer:
            assert answer.headers.get_content_type() == "text/plain"


def test_the_button_of_formgrader_writes_our_feedback(browser, course: NbgraderCourse, formgrader: str) -> None:
    page = course.root / "feedback" / "ada" / "ps1" / "ps1.html"
    before = page.read_text()
    config = course.root / "nbgrader_config.py"
    exporter = 'c.GenerateFeedback.exporter_class = "autograder.reports.nbgrader_feedback.FeedbackExporter"\n'
    config.write_text(config.read_text() + exporter)
    page.unlink()
    with visited(browser) as visit:
        signed_in(visit, formgrader, "manage_submissions/ps1")
        answer = visit.page.request.post(
            f"{formgrader}formgrader/api/assignment/ps1/ada/generate_feedback",
            headers={"Authorization": f"token {TOKEN}"},
        )
        assert answer.json()["success"], answer.json()
    assert page.read_text() == before


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}])
def test_feedback_and_report_ask_nobody_run_nothing_and_are_accessible(
    browser, course: NbgraderCourse, canary: Canary, options: dict[str, Any]
) -> None:
    with serving(course.root, []) as address:
        for path in ("feedback/eve/ps1/ps1.html", "feedback/mallory/ps1/ps1.html", "reports/ps1.html"):
            with visited(browser, **options) as visit:
                visit.page.goto(address + path)
                visit.page.evaluate("document.querySelectorAll('details').forEach(shut => shut.open = true)")
                nothing_ran(visit, canary)
                assert {url.removeprefix(address) for url in visit.outside()} <= {path, "favicon.ico"}
                assert violations(visit.page) == []
                wide = visit.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
                assert not wide, "the page scrolls sideways"


def test_feedback_shows_the_scores_whatever_the_student_displays(browser, course: NbgraderCourse) -> None:
    with serving(course.root, []) as address, visited(browser) as visit:
        visit.page.goto(address + "feedback/eve/ps1/ps1.html")
        visit.page.evaluate("document.querySelectorAll('details').forEach(shut => shut.open = true)")
        for place in visit.page.locator(".total, .points").all():
            on_top = place.evaluate(
                """shown => { shown.scrollIntoView({block: "center"}); const box = shown.getBoundingClientRect();
                return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === shown; }"""
            )
            assert on_top, place.text_content()
        assert visit.page.locator("main section").count() >= 5


def test_the_report_is_whole_on_paper(browser, course: NbgraderCourse, tmp_path: Path) -> None:
    from pypdf import PdfReader

    with serving(course.root, []) as address, visited(browser) as visit:
        visit.page.goto(address + "reports/ps1.html")
        visit.page.pdf(path=str(tmp_path / "report.pdf"))
    text = " ".join(page.extract_text() for page in PdfReader(tmp_path / "report.pdf").pages)
    for part in ("class report", "Discrimination", "Similar work", "corrected item-total correlation"):
        assert part in " ".join(text.split()), part


def test_the_report_is_read_by_keyboard(browser, course: NbgraderCourse) -> None:
    """Tables that scroll can be reached, and what is folded opens."""
    with serving(course.root, []) as address, visited(browser, viewport={"width": 360, "height": 740}) as visit:
        visit.page.goto(address + "reports/ps1.html")
        reached = []
        for _ in range(40):
            visit.page.keyboard.press("Tab")
            reached.append(
                visit.page.evaluate(
                    "(document.activeElement.getAttribute('aria-label') || document.activeElement.tagName)"
                )
            )
            if reached[-1] == "SUMMARY":
                visit.page.keyboard.press("Enter")
                assert visit.page.evaluate("document.activeElement.parentElement.open")
                break
        assert "Exercises" in reached
        assert reached[-1] == "SUMMARY"
