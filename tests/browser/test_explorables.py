"""Explorables on pruning and quantization, in a real browser: what they show is what PyTorch computed."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.explorables import PATIENCE, Explorable, served, visited

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

NAMES = ("prune", "quantize")
Vectors = list[dict[str, Any]]


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root / "site" / "assets" / "explorables" / "data"


@pytest.fixture(scope="module")
def vectors(data: Path) -> dict[str, Vectors]:
    found: dict[str, Vectors] = json.loads((data / "vectors.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(root, tmp_path_factory.mktemp("page"), *NAMES) as found:
        yield found


@pytest.fixture
def prune(browser: Any, address: str) -> Iterator[Explorable]:
    with visited(browser, address, "prune") as found:
        found.open(address)
        yield found


@pytest.fixture
def quantize(browser: Any, address: str) -> Iterator[Explorable]:
    with visited(browser, address, "quantize") as found:
        found.open(address)
        yield found


def setting(vectors: Vectors, **wanted: object) -> dict[str, Any]:
    (found,) = (vector for vector in vectors if wanted.items() <= vector.items())
    return found


def assert_as_pytorch(shown: dict[str, str], vector: dict[str, Any]) -> None:
    assert int(shown["correct"]) == vector["correct"]
    assert float(shown["accuracy"]) == vector["correct"] / 500
    close_logits(json.loads(shown["logits"]), vector)


def close_logits(logits: list[float], vector: dict[str, Any]) -> None:
    assert len(logits) == 10
    assert max(abs(a - b) for a, b in zip(logits, vector["logits"], strict=True)) <= vector["tolerance"]


# values


DIGESTS = """async (vectors) => {
  const { network } = await import("./assets/explorables/judge.js");
  const { load } = await import("./assets/explorables/element.js");
  const { account, prune } = await import("./assets/explorables/pruning.js");
  const { quantize } = await import("./assets/explorables/quantizing.js");
  const { judge, run } = await import("./assets/explorables/network.js");
  const { description, parameters, images } = await network(), levels = await load("levels.json"), found = [];
  for (const setting of vectors) {
    const { pattern, sparsity, skipping } = setting;
    const made = pattern ? prune(parameters, pattern, sparsity) : quantize(parameters, setting, levels);
    const bytes = new Uint8Array(await new Blob(Object.values(made).map(({ weight }) => weight)).arrayBuffer());
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const answers = setting.run ? judge(run(description, made, images, skipping), description.labels) : {};
    found.push({ sha256, left: account(description, made, pattern), ...answers });
  }
  return found;
}"""


def test_every_weight_is_pytorchs_to_the_bit(prune: Explorable, vectors: dict[str, Vectors]) -> None:
    every = vectors["prune"] + vectors["quantize"]
    found = prune.page.evaluate(DIGESTS, every)
    assert len(every) > 70
    assert [(v, f["sha256"]) for v, f in zip(every, found, strict=True) if f["sha256"] != v["sha256"]] == []
    assert [f["left"]["weights"] for f in found] == [v["kept"] for v in every]
    assert [f["left"]["bytes"] for f, v in zip(found, every, strict=True) if "bytes" in v] == [
        v["bytes"] for v in every if "bytes" in v
    ]


@pytest.mark.slow
@pytest.mark.parametrize("skipping", [True, False])
def test_answers_and_logits_are_pytorchs(prune: Explorable, vectors: dict[str, Vectors], skipping: bool) -> None:
    some = vectors["prune"] + [v for v in vectors["quantize"] if v["sharing"] == "channel"]
    if not skipping:  # multiplying by zeros changes nothing but the time
        some = [v for v in some if v.get("sparsity") == 0.9]
    found = prune.page.evaluate(DIGESTS, [v | {"run": True, "skipping": skipping} for v in some])
    assert [f["correct"] for f in found] == [v["correct"] for v in some]
    assert len({f["correct"] for f in found}) >= 3
    for f, vector in zip(found, some, strict=True):
        close_logits(f["logits"], vector)


def test_data_are_of_the_shipped_network_and_the_first_test_images(root: Path, data: Path) -> None:
    from fourbit.data import load

    description = json.loads((data / "s6.json").read_text(encoding="utf-8"))
    shipped = (root / "fourbit" / "assets" / "s6.safetensors").read_bytes()
    assert description["checkpoint"] == hashlib.sha256(shipped).hexdigest(), "run: python site/exports.py"
    test = load("fashion-20k").test[:500]
    assert (data / "images.bin").read_bytes() == test.x.numpy().tobytes()
    assert description["labels"] == test.y.tolist()


@pytest.mark.slow
def test_data_are_what_the_exporter_makes(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "site/exports.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# controls


def test_pruning_by_keyboard_shows_pytorchs_numbers(prune: Explorable, vectors: dict[str, Vectors]) -> None:
    prune.guess()
    first = setting(vectors["prune"], pattern="global", sparsity=0.9)
    shown = prune.settled(pattern="global", sparsity=0.9)
    assert_as_pytorch(shown, first)
    assert (int(shown["kept"]), int(shown["bytes"])) == (first["kept"], first["bytes"])
    prune.page.get_by_role("slider", name="Sparsity").focus()
    prune.press("ArrowRight", 5)
    assert_as_pytorch(prune.settled(sparsity=0.95), setting(vectors["prune"], pattern="global", sparsity=0.95))
    prune.page.get_by_role("combobox", name="Pattern").focus()
    prune.press("ArrowDown")
    assert_as_pytorch(prune.settled(pattern="layer"), setting(vectors["prune"], pattern="layer", sparsity=0.95))
    prune.press("ArrowDown")
    shown = prune.settled(pattern="2:4")
    assert_as_pytorch(shown, setting(vectors["prune"], pattern="2:4"))
    assert prune.page.get_by_role("slider", name="Sparsity").is_disabled()
    assert float(shown["milliseconds"]) > 0
    table = prune.page.get_by_role("row", name=re.compile("accuracy")).first
    assert "89.2 %" in table.inner_text()


def test_quantizing_by_keyboard_shows_pytorchs_numbers(quantize: Explorable, vectors: dict[str, Vectors]) -> None:
    quantize.guess()
    shown = quantize.settled(form="symmetric", bits=3, sharing="tensor")
    assert_as_pytorch(shown, setting(vectors["quantize"], form="symmetric", bits=3, sharing="tensor"))
    quantize.page.get_by_role("slider", name="Bits").focus()
    quantize.press("ArrowLeft")
    shown = quantize.settled(bits=2)
    assert_as_pytorch(shown, setting(vectors["quantize"], form="symmetric", bits=2, sharing="tensor"))
    quantize.page.get_by_role("combobox", name="Values").focus()
    quantize.press("ArrowDown")
    quantize.page.get_by_role("combobox", name="Scales").focus()
    quantize.press("ArrowDown")
    shown = quantize.settled(form="affine", sharing="channel")
    assert_as_pytorch(shown, setting(vectors["quantize"], form="affine", bits=2, sharing="channel"))
    outputs = 16 + 24 + 48 + 64 + 10
    assert int(shown["bytes"]) == 42256 * 2 // 8 + 5 * outputs + 4 * outputs


def test_trying_all_draws_the_curve_and_lists_its_numbers(quantize: Explorable, vectors: dict[str, Vectors]) -> None:
    quantize.guess()
    quantize.settled()
    quantize.page.get_by_role("button", name="Try all bits").press("Enter")
    quantize.page.get_by_text("Numbers of the curve").click()
    rows = quantize.page.locator("fourbit-quantize details tbody tr")
    playwright.expect(rows).to_have_count(7, timeout=PATIENCE)
    expected = [
        f"{v['correct'] / 5:.1f} %" for v in vectors["quantize"] if (v["form"], v["sharing"]) == ("symmetric", "tensor")
    ]
    assert [row.locator("td").nth(1).inner_text() for row in rows.all()] == expected


# predict, then reveal


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_shown_or_moved_before_a_guess(browser: Any, address: str, name: str) -> None:
    with visited(browser, address, name) as found:
        found.open(address)
        assert found.element.get_attribute("data-locked") == "true"
        assert found.element.locator("p.small").last.is_hidden()  # the last line of the results
        assert found.element.locator("svg, canvas, table").count() == 0
        controls = found.page.locator(f"fourbit-{name} .controls :is(input, select, button)")
        assert controls.count() >= 4
        assert all(control.is_disabled() for control in controls.all())
        assert found.element.get_attribute("data-state") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_guess_stays_beside_the_measured_value_until_it_is_forgotten(browser: Any, address: str, name: str) -> None:
    with visited(browser, address, name) as found:
        found.open(address)
        found.guess(steps=-3)
        found.settled(guess=47)
        measured = {"prune": "62.0 %; your guess is 15.0 points", "quantize": "88.8 %; your guess is 41.8 points"}
        said = found.page.locator(f"fourbit-{name} .guess")
        assert f"You guessed 47 %. Measured: {measured[name]} too low." in said.inner_text()
        assert found.page.locator(f"fourbit-{name} svg text", has_text="your guess").count() == 1
        assert found.page.evaluate(f"localStorage['fourbit:predict:{name}']") == "47"
        found.open(address)
        found.settled(guess=47)
        found.page.get_by_role("button", name="forget my guess").press("Enter")
        assert found.element.get_attribute("data-locked") == "true"
        assert found.element.locator("svg").first.is_hidden()
        assert found.page.evaluate(f"localStorage.getItem('fourbit:predict:{name}')") is None
        found.open(address)
        assert found.element.get_attribute("data-locked") == "true"


@pytest.mark.parametrize("kept", ["", "much", "[]"])
def test_a_spoiled_guess_is_no_guess(browser: Any, address: str, kept: str) -> None:
    with visited(browser, address, "prune") as found:
        found.page.add_init_script(f"localStorage.setItem('fourbit:predict:prune', {kept!r})")
        found.open(address)
        assert found.element.get_attribute("data-locked") == "true"


# loading and looks


def test_nothing_is_loaded_before_the_reader_comes_near(browser: Any, address: str) -> None:
    with visited(browser, address, "prune") as found:
        found.page.goto(f"{address}prune-far.html", wait_until="networkidle")
        assert [url for url in found.requests if "explorables" in url] == []
        assert found.element.inner_text() == "Fallback."
        found.element.scroll_into_view_if_needed()
        found.page.wait_for_selector("fourbit-prune[data-ready]", timeout=PATIENCE)
        assert [url for url in found.requests if url.endswith("s6.bin")] != []


def test_a_missing_file_is_said(browser: Any, address: str) -> None:
    with visited(browser, address, "prune") as found:
        found.page.route("**/s6.bin", lambda route: route.fulfill(status=404))
        found.page.goto(f"{address}prune.html")
        alert = found.page.get_by_role("alert")
        alert.wait_for(timeout=PATIENCE)
        assert "s6.bin answered 404" in alert.inner_text()
        assert found.faults != []
        found.faults.clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["", "-dark"])
def test_a_phone_holds_it_open_for_all_and_nothing_moves_by_itself(
    browser: Any, address: str, name: str, kind: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 800}, "reduced_motion": "reduce"}
    with visited(browser, address, name, **phone) as found:
        found.open(address, kind)
        found.guess()
        found.settled()
        assert found.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        found.element.locator("summary").first.click()
        assert found.violations() == []
        assert found.page.evaluate("document.getAnimations().length") == 0
        assert found.element.evaluate("element => element.shadowRoot.getAnimations().length") == 0
        for picture in found.element.locator("svg, canvas").all():
            assert picture.get_attribute("role") == "img"
            assert len(picture.get_attribute("aria-label")) > 30


def test_colors_follow_the_page(quantize: Explorable) -> None:
    quantize.guess()
    quantize.settled()
    looks = """element => {
      const canvas = element.shadowRoot.querySelector("canvas"), bar = element.shadowRoot.querySelector("svg path");
      return [getComputedStyle(element).color, getComputedStyle(bar).stroke, canvas.toDataURL()];
    }"""
    light = quantize.element.evaluate(looks)
    quantize.page.evaluate("document.body.dataset.mdColorScheme = 'slate'")
    quantize.page.wait_for_timeout(100)
    dark = quantize.element.evaluate(looks)
    assert [a for a, b in zip(light, dark, strict=True) if a == b] == []
