"""What a reader does with a page, in Chromium: ticks it, shows it as slides, prints it; and what links to it show."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_site import LABS, NOTES, built, server  # noqa: F401

CHAPTER = "lecture_notes/pruning/"


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A window of a reader who was never here; an error in the page fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    window, errors = context.new_page(), []
    window.on("pageerror", lambda error: errors.append(str(error)))
    yield window
    context.close()
    assert errors == []


def visit(page: Any, address: str) -> None:
    page.goto(address, wait_until="networkidle")
    page.wait_for_selector("html[data-progress]")


# progress


def test_everything_that_can_be_ticked_is_listed_with_its_page(built: Path) -> None:  # noqa: F811
    listed = json.loads((built / "assets" / "course.json").read_text(encoding="utf-8"))
    assert [item["id"] for item in listed["labs"]] == [f"labs/{name}/" for name in LABS]
    assert {f"lecture_notes/{name}/" for name in NOTES} <= {item["id"] for item in listed["chapters"]}
    for item in (*listed["chapters"], *listed["labs"]):
        text = (built / item["id"] / "index.html").read_text(encoding="utf-8")
        assert re.search(r"<h1[^>]*>(.+?)<a class=\"headerlink\"", text)[1] == item["title"].replace("'", "’")


@pytest.mark.browser
def test_a_chapter_ticked_by_keyboard_is_done_on_every_page_that_lists_it(page: Any, server: str) -> None:  # noqa: F811
    visit(page, server + CHAPTER)
    box = page.get_by_label("I have worked through this chapter")
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked()
    for address in ("lecture_notes/", "start/"):
        visit(page, server + address)
        assert page.locator(".course-bar span").first.inner_text().startswith("1 of ")
        assert page.get_by_label("Chapters").evaluate("bar => bar.value") == 1
    visit(page, server + "lecture_notes/")
    assert [box.get_attribute("data-item") for box in page.locator(".course-tick:checked").all()] == [CHAPTER]
    assert page.locator("td .course-tick").count() >= len(NOTES)
    page.get_by_label("Done: Pruning I:").uncheck()
    assert page.locator(".course-bar span").inner_text().startswith("0 of ")


@pytest.mark.browser
def test_labs_can_be_ticked_where_they_are_listed(page: Any, server: str) -> None:  # noqa: F811
    visit(page, server + "labs/")
    assert page.locator("td .course-tick").count() == len(LABS)
    page.get_by_label("Done: Lab 00").check()
    assert page.locator(".course-bar span").inner_text() == f"1 of {len(LABS)}"
    visit(page, server + "labs/00-measure/")
    assert page.get_by_label("I have done this lab").is_checked()


@pytest.mark.browser
def test_progress_is_carried_to_another_browser_as_text(page: Any, browser: Any, server: str) -> None:  # noqa: F811
    visit(page, server + CHAPTER)
    page.get_by_label("I have worked through").check()
    page.evaluate("localStorage.setItem('fourbit:predict:prune', '0.8')")
    visit(page, server + "labs/")
    page.locator(".course-keeper summary").click()
    page.get_by_role("button", name="Export").click()
    text = page.get_by_label("Progress as text").input_value()
    assert json.loads(text) == {"fourbit": 1, "done": [CHAPTER], "guesses": {"prune": "0.8"}}
    other = browser.new_context().new_page()
    visit(other, server + "lecture_notes/")
    other.locator(".course-keeper summary").click()
    said = other.get_by_role("status")
    for wrong, reason in (("{", "not JSON"), ('{"done": []}', "not a progress of this course")):
        other.get_by_label("Progress as text").fill(wrong)
        other.get_by_role("button", name="Import").click()
        assert reason in said.inner_text()
    other.get_by_label("Progress as text").fill(text)
    other.get_by_role("button", name="Import").click()
    assert said.inner_text() == "Imported: 1 new tick."
    assert other.get_by_label("Done: Pruning I:").is_checked()
    assert other.evaluate("localStorage.getItem('fourbit:predict:prune')") == "0.8"
    other.get_by_role("button", name="Forget").click()
    assert other.locator(".course-tick:checked").count() == 0
    other.context.close()


@pytest.mark.browser
def test_damaged_or_foreign_progress_does_not_break_a_page(page: Any, server: str) -> None:  # noqa: F811
    visit(page, server + "labs/")
    for kept in ("{", "7", '["labs/never/", 3]'):
        page.evaluate("text => localStorage.setItem('fourbit:done', text)", kept)
        visit(page, server + "labs/")
        assert page.locator(".course-bar span").inner_text() == f"0 of {len(LABS)}"


# slides


@pytest.mark.browser
def test_slides_show_one_section_at_a_time_and_go_by_keyboard(page: Any, server: str) -> None:  # noqa: F811
    visit(page, server + CHAPTER + "?slides")
    headings = page.locator("article > :is(h1, h2, h3)").count()
    told, shown = page.locator(".slides-bar output"), "[...document.querySelectorAll('article > :is(h1, h2, h3)')]"
    visible = f"() => {shown}.filter(heading => heading.offsetParent).map(heading => heading.id)"
    seen = []
    for number in range(headings):
        assert told.inner_text().startswith(f"{number + 1} of {headings}: ")
        seen += page.evaluate(visible)
        page.keyboard.press("ArrowRight")
    assert seen == page.evaluate(f"{shown}.map(heading => heading.id)")
    page.keyboard.press("Home")
    assert told.inner_text().startswith("1 of ")
    page.keyboard.press("ArrowLeft")
    assert told.inner_text().startswith("1 of ")
    assert not page.locator(".md-header").is_visible()
    page.keyboard.press("Escape")
    assert page.locator(".slides-bar").count() == 0
    assert page.locator(".md-header").is_visible()
    assert "slides" not in page.url
    assert len(page.evaluate(visible)) == headings


@pytest.mark.browser
def test_slides_begin_with_the_button_and_leave_keys_to_what_has_the_focus(page: Any, server: str) -> None:  # noqa: F811
    visit(page, server + CHAPTER)
    page.get_by_role("button", name="Slides").click()
    told = page.locator(".slides-bar output")
    assert told.inner_text().startswith("1 of ")
    assert page.url.endswith("?slides")
    page.keyboard.press("End")
    last = told.inner_text()
    assert last.split(" of ")[0] == last.split(" of ")[1].split(":")[0]
    page.evaluate("location.hash = 'granularity'")
    page.wait_for_function("document.querySelector('.slides-bar output').textContent.includes('Granularity')")
    page.get_by_role("button", name="Back").focus()
    before = told.inner_text()
    page.keyboard.press("Space")  # presses the button, and goes back by one, not on
    assert int(told.inner_text().split()[0]) == int(before.split()[0]) - 1


# paper


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chapter_prints_whole_in_light_colors(browser: Any, server: str, scheme: str) -> None:  # noqa: F811
    pypdf = pytest.importorskip("pypdf")
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    visit(page, server + CHAPTER)
    page.wait_for_function("!document.querySelector('.arithmatex:not([data-typeset])')")
    page.locator("fourbit-prune").scroll_into_view_if_needed()
    page.wait_for_selector("fourbit-prune[data-ready]")
    fallback = " ".join(page.locator("fourbit-prune").evaluate("e => e.textContent").split())
    hidden = page.locator("article details:not([open])").count()
    paper = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    text = " ".join(" ".join(sheet.extract_text() for sheet in paper.pages).split())
    assert 8 <= len(paper.pages) <= 40
    assert hidden >= 20
    assert text.count("Yes. ") >= 5  # the answers of the self-check, which are closed on the screen
    assert fallback[:60] in text
    for left_out in ("Search", "Table of contents", "I have worked through", "Commit my guess"):
        assert left_out not in text, left_out
    assert page.locator("article details:not([open])").count() == hidden
    page.emulate_media(media="print")
    for part in ("body", "article p", "figure.plot text"):
        kind = "fill" if part.startswith("figure") else "color"
        assert page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{kind}") == "rgb(0, 0, 0)", part
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()


# what links to a page show


def test_each_page_says_what_to_show_of_it(built: Path) -> None:  # noqa: F811
    for path in (built / "index.html", built / CHAPTER / "index.html"):
        text = path.read_text(encoding="utf-8")
        said = dict(re.findall(r'<meta property="(og:[\w:]+)" content="([^"]+)">', text))
        assert said["og:title"] in re.search(r"<title>(.+)</title>", text)[1]
        assert (path.parent / said["og:image"]).resolve() == built / "assets" / "social.png"
        feed = re.search(r'type="application/atom\+xml" [^>]*href="([^"]+)"', text)[1]
        assert (path.parent / feed).resolve() == built / "feed.xml"


def test_the_picture_has_the_size_that_pages_say(root: Path) -> None:
    data = (root / "site" / "assets" / "social.png").read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1200, 630)
    assert len(data) < 100_000
