"""The chat page of `fourbit serve` in a real browser: ask, read along, stop, go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.test_lab_in_chromium import FLAGS
from tests.talking import Served, environment, serving, write_endless

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PATIENCE = 120_000  # milliseconds
KEY = "a-key-that-nobody-guesses"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 700}


@dataclass
class Visit:
    """A page, every address that it asked for, and whatever its console complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def ask(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    @property
    def answer(self):
        return self.page.locator("article.assistant").last

    def finished(self) -> None:
        expect(self.page.get_by_role("status")).to_contain_text("Answer complete", timeout=PATIENCE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(write_endless(tmp_path_factory.mktemp("model") / "endless.gguf"), "--context", "60000") as found:
        yield found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(served: Served, browser: Browser) -> Iterator[Visit]:
    with opened(browser, served.url) as found:
        yield found


class opened:  # noqa: N801
    """A fresh session on the page; at its end nothing may have gone elsewhere or wrong."""

    def __init__(self, browser: Browser, url: str, **options: object) -> None:
        self._context = browser.new_context(**({"viewport": DESKTOP} | options))  # type: ignore[arg-type]
        self._url = url
        self.visit = Visit(self._context.new_page())

    def __enter__(self) -> Visit:
        visit, page = self.visit, self.visit.page
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("console", lambda said: visit.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.goto(self._url)
        return visit

    def __exit__(self, kind: object, *_: object) -> None:
        self._context.close()
        if kind is None:
            assert self.visit.errors == []
            assert [url for url in self.visit.requests if not url.startswith(self._url + "/")] == []


def test_a_question_is_answered_word_by_word_and_another_after_it(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#model")).to_contain_text("context of 60,000 tokens", timeout=PATIENCE)
    expect(page).to_have_title("endless · Fourbit chat")
    page.get_by_text("Settings").click()
    page.get_by_label("Tokens at most").fill("1500")
    visit.ask("Tell me something")
    expect(page.locator("article.user .text")).to_have_text("Tell me something")
    # it grows while it is not complete
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(visit.answer.locator(".text")).not_to_be_empty(timeout=PATIENCE)
    before = visit.answer.locator(".text").inner_text()
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    visit.finished()
    assert len(visit.answer.locator(".text").inner_text()) > len(before) > 0
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(visit.answer.locator(".cost")).to_have_text(
        re.compile(r"^1500 tokens, first after \d+\.\d\d s, \d+\.\d tokens/s, ended by the limit")
    )
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.get_by_label("Tokens at most").fill("60")  # so many that some of them have text
    visit.ask("And more")
    expect(page.locator("article")).to_have_count(4)
    visit.finished()
    # the conversation is this tab's: still there after a reload, gone with a new session
    page.reload()
    expect(page.locator("article")).to_have_count(4)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)
    page.reload()
    expect(page.locator("#model")).to_contain_text("context of", timeout=PATIENCE)
    expect(page.locator("article")).to_have_count(0)


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_an_answer_can_be_stopped_and_the_server_is_free_at_once(visit: Visit, served: Served, by: str) -> None:
    page = visit.page
    expect(page.locator("#model")).to_contain_text("context of", timeout=PATIENCE)
    page.get_by_text("Settings").click()
    page.get_by_label("Tokens at most").fill("")  # as many as fit: minutes
    visit.ask("Talk without end")
    expect(visit.answer.locator(".text")).not_to_be_empty(timeout=PATIENCE)
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Stopped")
    expect(visit.answer.locator(".cost")).to_have_text("stopped")
    page.get_by_label("Tokens at most").fill("60")  # so many that some of them have text
    visit.ask("Again")
    visit.finished()
    expect(page.locator("article")).to_have_count(4)  # what was said until it was stopped is part of the conversation


def test_text_of_a_model_is_text(visit: Visit) -> None:
    """Rendered by the page's own module: Markdown's few forms become elements, everything else stays text."""
    hostile = (
        "# A *title*\n<img src=x onerror=alert(1)> and **bold <b>x</b>** and `<script>`\n\n"
        "```html\n<script>alert(1)</script>\n**not bold**\n```\n"
        "[link](javascript:alert(1)) 2 ** 3 ** 4\n```\nunfinished"
    )
    found = visit.page.evaluate(
        "async (text) => { const { render } = await import('/markdown.js'); const box = document.createElement('div');"
        "box.append(render(text)); document.body.append(box);"
        "return [box.innerHTML, [...box.querySelectorAll('*')].map((e) => e.tagName)]; }",
        hostile,
    )
    html, tags = found
    assert sorted(set(tags)) == ["CODE", "P", "PRE", "STRONG"]
    assert '<p class="heading">A *title*</p>' in html
    assert "&lt;img src=x onerror=alert(1)&gt; and <strong>bold &lt;b&gt;x&lt;/b&gt;</strong>" in html
    assert "<code>&lt;script&gt;alert(1)&lt;/script&gt;\n**not bold**</code>" in html
    assert "2 ** 3 ** 4" in html
    assert html.endswith("<code>unfinished</code></pre>")


def test_a_full_context_drops_the_oldest_exchange_openly(browser: Browser, tmp_path: Path) -> None:
    model = write_endless(tmp_path / "small.gguf")
    with serving(model, "--context", "300") as served, opened(browser, served.url) as visit:
        expect(visit.page.locator("#model")).to_contain_text("context of 300", timeout=PATIENCE)
        visit.page.get_by_text("Settings").click()
        visit.page.get_by_label("Tokens at most").fill("5")
        for i in range(4):
            visit.ask(f"{i} " + "x" * 80)
            expect(visit.page.locator("article .cost")).to_have_count(i + 1, timeout=PATIENCE)
        expect(visit.page.locator(".forgotten")).to_have_count(1)
        above = visit.page.locator(".forgotten ~ article.user")
        assert 1 <= above.count() < 4
        # one message that can never fit: told, and given back for shortening
        visit.ask("y" * 400)
        expect(visit.page.get_by_role("status")).to_contain_text("Shorten the prompt")
        expect(visit.page.get_by_label("Message", exact=True)).to_have_value("y" * 400)
        visit.errors = [error for error in visit.errors if "400 (Bad Request)" not in error]  # Chromium logs each


def test_a_key_is_asked_for_where_one_is_needed(browser: Browser, tmp_path: Path) -> None:
    model = write_endless(tmp_path / "endless.gguf")
    with (
        serving(model, env=environment(FOURBIT_API_KEY=KEY)) as served,
        opened(browser, served.url) as visit,
    ):
        page = visit.page
        page.get_by_label("API key of this server").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#model")).to_have_text("A key is needed", timeout=PATIENCE)
        page.get_by_label("API key of this server").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("context of", timeout=PATIENCE)
        expect(page.get_by_label("API key of this server")).to_be_hidden()
        page.get_by_text("Settings").click()
        page.get_by_label("Tokens at most").fill("3")
        visit.ask("Hello")
        visit.finished()
        visit.errors = [error for error in visit.errors if "401 (Unauthorized)" not in error]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_the_screen_and_follows_the_system_s_colors(
    served: Served, browser: Browser, scheme: str, size: dict[str, int], tmp_path: Path
) -> None:
    with opened(browser, served.url, viewport=size, color_scheme=scheme) as visit:
        page = visit.page
        expect(page.locator("#model")).to_contain_text("context of", timeout=PATIENCE)
        page.get_by_text("Settings").click()
        page.get_by_label("Tokens at most").fill("60")
        visit.ask("A question with averyveryverylongwordthatdoesnotfitintoalineofaphone" * 2)
        visit.finished()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], "the page scrolls sideways"
        for name in ("#question", "#send", "#clear"):
            box = page.locator(name).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size["width"]
            assert box["y"] + box["height"] <= size["height"]
        text, ground = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert (brightness(text) > brightness(ground)) == (scheme == "dark")
        page.screenshot(path=tmp_path / f"{scheme}.png")


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#model")).to_contain_text("context of", timeout=PATIENCE)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"clear", "SUMMARY", "question", "send"} <= set(seen)
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.get_by_label("Message", exact=True)).to_have_value("one\ntwo")


def brightness(color: str) -> float:
    return sum(float(number) for number in re.findall(r"[\d.]+", color)[:3])
