"""The explorable on attention shows what PyTorch computed, behind its lock, in a real browser."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.explorables import served

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(root, tmp_path_factory.mktemp("page"), "attention") as found:
        yield f"{found}attention.html"


@pytest.fixture(scope="module")
def data(root: Path) -> dict[str, Any]:
    folder = root / "site" / "assets" / "explorables" / "data"
    names = {"about": "attention.json", "vectors": "attention-vectors.json"}
    return {key: json.loads((folder / name).read_text(encoding="utf-8")) for key, name in names.items()}


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page of a reader who has not guessed yet; anything on its console is a fault."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("fourbit-attention[data-ready]")
    yield page
    context.close()
    assert faults == []


def guess(page: Any, value: int = 10) -> None:
    page.locator("fourbit-attention .guess input").fill(str(value))
    page.get_by_role("button", name="Commit my guess").click()


def shown(page: Any) -> dict[str, str]:
    return dict(page.evaluate("({...document.querySelector('fourbit-attention').dataset})"))


def control(page: Any, label: str) -> Any:
    beginning = re.compile(rf"^(\d+( tokens| of 72)?)?{label}")  # a slider's value stands before its label
    return page.locator("fourbit-attention .controls label").filter(has_text=beginning).locator("input, select")


def choose(page: Any, label: str, value: str) -> None:
    control(page, label).select_option(value)


def slide(page: Any, label: str, value: int) -> None:
    control(page, label).fill(str(value))


def test_nothing_is_shown_before_a_guess_and_the_guess_stays(page: Any, address: str, data: dict[str, Any]) -> None:
    assert shown(page)["locked"] == "true"
    assert "lost" not in shown(page)
    assert page.locator("fourbit-attention .text").is_hidden()
    assert control(page, "Layer").is_disabled()
    guess(page, 30)
    assert shown(page)["guess"] == "30"
    layer = data["about"]["layers"].index(15)
    measured = data["vectors"]["first, coded"][layer]
    said = page.locator("fourbit-attention .guess").inner_text()
    assert "You guessed 30 %." in said
    assert f"Measured: {100 * sum(measured) / len(measured):.1f} %." in said
    page.goto(address)
    page.wait_for_selector("fourbit-attention[data-guess='30']")
    page.get_by_role("button", name="forget my guess").click()
    assert shown(page)["locked"] == "true"


def test_shares_are_those_of_pytorch(page: Any, data: dict[str, Any]) -> None:
    guess(page)
    vectors, about = data["vectors"], data["about"]
    choose(page, "Cache", "sinks")
    compared = 0
    for layer, head in itertools.product(range(len(about["layers"])), (0, 5, 8)):
        choose(page, "Layer", str(layer))
        choose(page, "Head", str(head))
        assert float(shown(page)["first"]) == pytest.approx(vectors["first, coded"][layer][head], abs=1e-8)
        assert float(shown(page)["first"]) == pytest.approx(vectors["first, exact"][layer][head], abs=0.005)
        for case in vectors["cases"]:
            choose(page, "Cache", "sinks" if case["sinks"] else "window")
            slide(page, "Window", case["window"])
            if case["sinks"]:
                slide(page, "First tokens kept", case["sinks"])
            assert float(shown(page)["lost"]) == pytest.approx(case["coded"][layer][head], abs=1e-8)
            assert float(shown(page)["lost"]) == pytest.approx(case["exact"][layer][head], abs=0.005)
            compared += case["exact"][layer][head] > 0.1
    assert compared > 20


def test_the_mean_of_the_heads_is_shown_first(page: Any, data: dict[str, Any]) -> None:
    guess(page)
    case = data["vectors"]["cases"][0]
    assert (case["sinks"], case["window"]) == (0, 16)  # what the controls say before they are moved
    heads = case["coded"][data["about"]["layers"].index(15)]
    assert float(shown(page)["lost"]) == pytest.approx(sum(heads) / len(heads), abs=1e-8)


def test_the_cache_is_counted_in_tokens_and_bytes(page: Any, data: dict[str, Any]) -> None:
    guess(page)
    slide(page, "Token that is read", 60)
    choose(page, "Bytes of a cache of", "Llama-2-7B")
    each = data["about"]["models"]["Llama-2-7B"]
    assert each == 2 * 32 * 32 * 128 * 2
    for policy, held, far in (("all", 60, 100_000), ("window", 16, 16), ("sinks", 17, 17)):
        choose(page, "Cache", policy)
        state = shown(page)
        assert (int(state["held"]), int(state["bytes"]), int(state["far"])) == (held, held * each, far * each)
        assert page.locator("fourbit-attention .gone").count() == 60 - held
    assert page.locator("fourbit-attention .reads").inner_text().strip() == data["about"]["tokens"][59].strip()


def test_a_token_can_be_clicked_and_reached_by_keyboard(page: Any) -> None:
    guess(page)
    page.locator("fourbit-attention .text li").nth(39).click()
    step = control(page, "Token that is read")
    assert step.input_value() == "40"
    step.press("ArrowLeft")
    assert step.input_value() == "39"
    assert page.locator("fourbit-attention .later").count() == 72 - 39
    page.wait_for_function(
        "document.querySelector('fourbit-attention').shadowRoot.querySelector('.live').textContent.includes('token 39')"
    )


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_it_is_accessible_and_fits_a_phone(page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate(f"document.body.dataset.mdColorScheme = '{scheme}'")
    background = {"default": "#fff", "slate": "#1e2129"}[scheme]  # the theme's style is not on this page
    page.evaluate(f"document.body.style.background = '{background}'")
    page.evaluate(f"document.body.style.setProperty('--md-default-bg-color', '{background}')")
    page.set_viewport_size({"width": 390, "height": 844})
    guess(page)
    choose(page, "Cache", "sinks")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = axe.run(page, options={"runOnly": {"type": "tag", "values": tags}}).response["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
