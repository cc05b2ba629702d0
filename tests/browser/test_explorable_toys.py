"""Temperature, roofline, will it fit, speculation: their numbers are those of PyTorch and `fourbit`."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fourbit.llm import fit, plan
from fourbit.measure import Roofline
from tests.explorables import Explorable, served, visited

playwright = pytest.importorskip("playwright.sync_api")

NAMES = ("temperature", "roofline", "fit", "speculate")
OUTCOMES = Path(__file__).parent / "toys_outcomes.mjs"
BACKGROUND = """[data-md-color-scheme="default"] { --md-default-bg-color: #fff }
[data-md-color-scheme="slate"] { --md-default-bg-color: #1e2227 }
body { background: var(--md-default-bg-color); color: var(--md-default-fg-color) }"""  # which the theme brings
CLOSE = {"rel": 1e-12, "abs": 1e-13}  # exp and log of a processor differ in the last place


@pytest.fixture(scope="module")
def exports(root: Path) -> Iterator[ModuleType]:
    """site/exports_toys.py; `site` itself is a module of the standard library."""
    sys.path.insert(0, str(root / "site"))
    yield importlib.import_module("exports_toys")
    sys.path.remove(str(root / "site"))


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "site" / "assets" / "explorables"


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    """What the pages load, and "NAME-vectors"."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "data").glob("*.json")}


@pytest.fixture(scope="module")
def vectors(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[f"{name}-vectors"] for name in NAMES}


def node() -> str:
    """Node, or the one that playwright brings."""
    from playwright._impl._driver import compute_driver_executable

    return shutil.which("node") or str(compute_driver_executable()[0])


def in_node(folder: Path, data: dict[str, Any], vectors: dict[str, Any]) -> dict[str, Any]:
    """What tests/browser/toys_outcomes.mjs makes of the inputs of vectors."""
    command = [node(), str(OUTCOMES), folder.resolve().as_uri()]
    done = subprocess.run(command, input=json.dumps({"data": data, "vectors": vectors}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(found: dict[str, Any], vectors: dict[str, Any]) -> None:
    """Bytes, words and counts are exact, measures close."""
    for answer, wanted in zip(found["fit"], vectors["fit"]["cases"], strict=True):
        assert answer == {name: wanted[name] for name in answer}
        assert set(answer) == ({"error"} if "error" in wanted else set(answer) - {"error"})
    for answer, wanted in zip(found["roofline"]["operations"], vectors["roofline"]["operations"], strict=True):
        assert (answer["flops"], answer["bytes"]) == (wanted["flops"], wanted["bytes"]), wanted
    assert found["roofline"]["bounds"] == pytest.approx([v["tokens"] for v in vectors["roofline"]["bounds"]], **CLOSE)
    for answer, wanted in zip(found["temperature"], vectors["temperature"]["cases"], strict=True):
        assert answer["first"] == wanted["first"]
        for measure in ("entropy", "largest", "divergence", "gradient"):
            assert answer[measure] == pytest.approx(wanted[measure], **CLOSE), (measure, wanted["temperature"])
    rounds, tokens, gains = (vectors["speculate"][name] for name in ("rounds", "tokens", "gains"))
    assert found["speculate"]["rounds"] == [one["rounds"] for one in rounds]
    assert found["speculate"]["tokens"] == pytest.approx([one["tokens"] for one in tokens], **CLOSE)
    for answer, one in zip(found["speculate"]["gains"], gains, strict=True):
        assert answer == pytest.approx(one["speedups"], **CLOSE)


# without a browser


def test_committed_data_are_what_would_be_made_now(exports: ModuleType) -> None:
    assert exports.stale() == [], "run: python site/exports_toys.py"


def test_old_data_are_noticed(exports: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(exports.DATA, tmp_path / "data")
    path = tmp_path / "data" / "fit-vectors.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    next(case for case in content["cases"] if "plan" in case)["plan"]["total"] += 1
    path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "data" / "temperature.bin").write_bytes(bytes(30 * 784))
    (tmp_path / "data" / "roofline.json").unlink()
    assert exports.stale(tmp_path / "data") == ["temperature.bin", "roofline.json", "fit-vectors.json"]


def test_vectors_cover_what_they_are_for(vectors: dict[str, Any]) -> None:
    cases = vectors["fit"]["cases"]
    assert len(cases) >= 60
    texts = " ".join(option["text"] for case in cases for option in case.get("options", ()))
    assert all(part in texts for part in ("a context of", "the cache in", "layers on the GPU", "a file in", "fetch"))
    assert {case["form"] for case in cases if "plan" in case} >= {"Q4_0", "Q4_K_M", "Q8_0", "F16", "NF4"}
    assert {True, False} == {case["fits"] for case in cases if "plan" in case}
    assert sum("error" in case for case in cases) >= 4


def test_formulas_in_node_are_those_of_python(folder: Path, data: dict[str, Any], vectors: dict[str, Any]) -> None:
    compare(in_node(folder, data, vectors), vectors)


def test_the_planner_agrees_on_models_that_nobody_chose(
    exports: ModuleType, folder: Path, data: dict[str, Any]
) -> None:
    part, draw = exports.exports_fit, random.Random(2026)
    asked = []
    for _ in range(300):
        config, kv = part.random_config(draw), draw.choice(["f32", "f16", "q8", "q4"])
        context, memory = draw.randint(2, config.context), int(10 ** draw.uniform(8, 10.5))
        form, gpu = draw.choice(part.FORMS), draw.random() < 0.5
        asked.append(part.outcome(part.case(config, form, context, kv, memory, 4e10, gpu=gpu)))
    found = in_node(folder, data, {"fit": {"cases": asked}})["fit"]
    for answer, wanted in zip(found, asked, strict=True):
        assert answer == {name: wanted[name] for name in answer}


def test_sizes_are_printed_as_python_prints_them(folder: Path) -> None:
    draw = random.Random(5)
    halves = [(k / 8, 2) for k in range(-40, 40)] + [(k / 2, 0) for k in range(40)]
    numbers = halves + [(draw.uniform(-100, 100), draw.randint(0, 4)) for _ in range(500)]
    assert in_node(folder, {}, {"fixed": numbers})["fixed"] == [f"{value:.{digits}f}" for value, digits in numbers]


def test_a_roofline_is_read_from_what_python_prints(folder: Path) -> None:
    one, two = Roofline(96.44e9, 11.2e9, 1), Roofline(1.874e11, 20e9, 2)
    texts = [
        str(one),
        f"  roofline   {one}\n  roofline   {two}\n",
        f"this machine       {two}, ridge at 9.4 FLOP/byte",
        "",
    ]
    found = in_node(folder, {}, {"texts": texts})["machines"]
    first, second = (
        {"flops": f, "bandwidth": b, "threads": t} for f, b, t in ((96.4e9, 11.2e9, 1), (187.4e9, 20e9, 2))
    )
    assert found == [[pytest.approx(first)], [pytest.approx(first), pytest.approx(second)], [pytest.approx(second)], []]


# in a browser


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(OUTCOMES, folder)
    with served(root, folder, *NAMES) as found:
        yield found


@pytest.fixture
def toy(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Explorable]:
    """The explorable that the test is parametrized with, on a page of a reader who has not guessed yet."""
    name, options = request.param if isinstance(request.param, tuple) else (request.param, {})
    with visited(browser, address, name, **options) as found:
        found.open(address)
        yield found


def about(name: str, **options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("toy", [(name, options)], indirect=True, ids=[name])


def numbers(toy: Explorable) -> dict[str, str]:
    """The element's data-* attributes."""
    found: dict[str, str] = toy.element.evaluate("element => ({...element.dataset})")
    return found


def turn(toy: Explorable, label: str, *keys: str) -> None:
    """Press keys on the control of that label, or type over what is in it."""
    toy.element.get_by_label(label).first.focus()
    for key in keys:
        toy.press(key)


def write(toy: Explorable, label: str, text: str) -> None:
    turn(toy, label, "Control+a", *text)


@pytest.mark.browser
@about("fit")
def test_formulas_in_chromium_are_those_of_python(
    toy: Explorable, data: dict[str, Any], vectors: dict[str, Any]
) -> None:
    run = f"async (inputs) => (await import('/{OUTCOMES.name}')).outcomes('/assets/explorables', inputs)"
    compare(toy.page.evaluate(run, {"data": data, "vectors": vectors}), vectors)


@pytest.mark.browser
@pytest.mark.parametrize("toy", NAMES, indirect=True)
def test_nothing_is_shown_before_a_guess_and_the_guess_stays(toy: Explorable, address: str) -> None:
    element, kept = toy.element, f"localStorage.getItem('fourbit:predict:{toy.name}')"
    assert numbers(toy)["locked"] == "true"
    assert element.locator("svg").count() == 0
    free = "e => [...e.shadowRoot.querySelectorAll('fieldset:not([disabled]) input')].length"
    assert element.evaluate(free) == 0
    toy.guess(1)
    guess = numbers(toy)["guess"]
    assert numbers(toy)["locked"] == "false"
    assert element.locator("svg").first.is_visible()
    assert "You guessed" in element.locator(".guess").inner_text()
    assert element.locator("svg", has_text="your guess").count() == 1
    toy.open(address)
    toy.page.wait_for_selector(f"fourbit-{toy.name}[data-locked=false]")
    assert numbers(toy)["guess"] == guess == toy.page.evaluate(kept)
    element.get_by_role("button", name="forget my guess").press("Enter")
    assert numbers(toy)["locked"] == "true"
    assert toy.page.evaluate(kept) is None
    assert not element.locator("svg").first.is_visible()


@pytest.mark.browser
@about("temperature")
def test_temperature_shows_what_pytorch_computed(toy: Explorable, vectors: dict[str, Any]) -> None:
    cases = {case["temperature"]: case for case in vectors["temperature"]["cases"]}

    def holds(temperature: float, image: int) -> None:
        shown, wanted = numbers(toy), cases[temperature]
        assert (float(shown["temperature"]), int(shown["image"])) == (temperature, image)
        assert int(shown["first"]) == wanted["first"][image]
        for measure in ("entropy", "largest", "divergence", "gradient"):
            assert float(shown[measure]) == pytest.approx(wanted[measure][image], **CLOSE)
        assert float(shown["scaled"]) == pytest.approx(temperature**2 * wanted["gradient"][image], **CLOSE)

    toy.guess()
    holds(1.0, 27)
    turn(toy, "Temperature T", *["ArrowRight"] * 4)
    holds(4.0, 27)
    turn(toy, "sneaker, image", "ArrowLeft")
    toy.element.get_by_role("radio", checked=True).focus()
    toy.press("ArrowLeft")
    image = int(numbers(toy)["image"])
    assert image != 27
    holds(4.0, image)
    turn(toy, "Temperature T", "End")
    holds(64.0, image)
    pixels = toy.element.locator("canvas").last.evaluate("c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data]")
    assert len(set(pixels)) > 20


@pytest.mark.browser
@about("roofline")
def test_the_roofline_is_that_of_the_machine_that_was_pasted(toy: Explorable, vectors: dict[str, Any]) -> None:
    machine = Roofline(250e9, 31.5e9, 2)
    toy.guess()
    assert "You guessed 50 GFLOP/s. It is 10.0" in toy.element.locator(".guess").inner_text()
    turn(toy, "Or paste")
    toy.page.keyboard.insert_text(f"  roofline  {Roofline(1e11, 2e10, 1)}\n  roofline  {machine}\n")
    turn(toy, "Batch", *["ArrowRight"] * 3)
    points = {point["name"]: point for point in json.loads(numbers(toy)["points"])}
    wanted = [one for one in vectors["roofline"]["operations"] if one["batch"] == 8]
    assert len(points) == len(wanted) == 7
    for one in wanted:
        intensity, point = one["flops"] / one["bytes"], points[one["name"]]
        assert point["intensity"] == pytest.approx(intensity)
        assert point["roof"] == pytest.approx(min(machine.peak_flops, intensity * machine.peak_bandwidth))
        assert point["limit"] == ("memory" if one["flops"] / 250e9 < one["bytes"] / 31.5e9 else "compute")
    assert float(numbers(toy)["ridge"]) == pytest.approx(250 / 31.5)
    bound = next(b for b in vectors["roofline"]["bounds"] if (b["flops"], b["batch"], b["form"]) == (1e11, 64, "Q4_0"))
    for label, value in (("Arithmetic", "100"), ("Memory", "20")):
        write(toy, label, value)
    turn(toy, "Batch", *["ArrowRight"] * 3)
    rates = {rate["form"]: rate for rate in json.loads(numbers(toy)["tokens"])}
    assert rates["Q4_0"]["many"] == pytest.approx(bound["tokens"])


def config_of(data: dict[str, Any], name: str, **changed: int) -> plan.LlmConfig:
    shape = next(model["config"] for model in data["fit"]["models"] if model["name"] == name)
    return plan.LlmConfig("llama", **(shape | changed), rope_theta=1e4, norm_eps=1e-5)


def agrees(toy: Explorable, planned: plan.Plan, device: fit.Device) -> None:
    shown, judged = numbers(toy), fit.verdict(planned, device)
    parts = ("weights", "kvCache", "activations", "overhead", "total")
    values = (planned.weights, planned.kv_cache, planned.activations, planned.overhead, planned.total)
    assert {part: int(shown[part]) for part in parts} == dict(zip(parts, values, strict=True))
    assert shown["fits"] == str(judged.fits).lower()
    assert json.loads(shown["options"]) == [option.text for option in judged.options]
    assert float(shown["tokens"]) == pytest.approx(device.tokens_per_second(planned))
    needs = judged.reason.split(". What fits")[0]
    assert needs in toy.element.evaluate("e => e.shadowRoot.textContent")


@pytest.mark.browser
@about("fit")
def test_what_fits_is_what_python_says(toy: Explorable, data: dict[str, Any]) -> None:
    beside = data["fit"]["baseline"]
    toy.guess()
    laptop = fit.Device("the laptop", 10 * 10**9, 50e9)
    llama = plan.plan(config_of(data, "Llama-3-8B"), "Q8_0", 8192, baseline=beside, name="Llama-3-8B")
    agrees(toy, llama, laptop)
    turn(toy, "Weights", "ArrowUp")  # Q4_K_M
    turn(toy, "Cache", "ArrowDown")
    turn(toy, "Context", "End")
    config = config_of(data, "Llama-3-8B")
    agrees(toy, plan.plan(config, "Q4_K_M", config.context, "q8", baseline=beside, name="Llama-3-8B"), laptop)
    turn(toy, "Heads of keys", "End")
    whole = config_of(data, "Llama-3-8B", kv_heads=32)
    agrees(toy, plan.plan(whole, "Q4_K_M", config.context, "q8", baseline=beside, name="Llama-3-8B"), laptop)
    turn(toy, "Device", "ArrowDown")
    turn(toy, "Weights", "End")  # NF4
    agrees(
        toy, plan.nf4_plan(whole, config.context, name="Llama-3-8B"), fit.Device("the GPU", 6_440_000_000, 4e11, True)
    )
    assert toy.element.locator("label", has_text="Cache").locator("select").is_disabled()


@pytest.mark.browser
@about("fit")
def test_a_model_of_own_numbers_is_planned_or_refused(toy: Explorable, data: dict[str, Any]) -> None:
    beside = data["fit"]["baseline"]
    toy.guess()
    turn(toy, "Model", "End")
    write(toy, "Layers", "40")
    write(toy, "Vocabulary", "50000")
    write(toy, "Free memory", "3.5")
    device = fit.Device("the device", 3_500_000_000, 50e9)
    own = config_of(data, "Llama-3-8B", layers=40, vocabulary=50_000)
    agrees(toy, plan.plan(own, "Q8_0", 8192, baseline=beside, name="This model"), device)
    write(toy, "Width", "4100")
    refused = toy.element.get_by_role("alert")
    assert "rows of 4100 weights are no multiple of Q8_0's block of 32" in refused.inner_text()
    write(toy, "Layers", "0")
    assert "Layers: a whole number from 1 to 1,000" in refused.inner_text()


@pytest.mark.browser
@about("speculate", reduced_motion="reduce")
def test_speculation_follows_the_formula_and_the_drawn_rounds(
    toy: Explorable, exports: ModuleType, vectors: dict[str, Any]
) -> None:
    simulate = exports.exports_speculate.simulate
    toy.guess()

    def gains(cost: float, judging: str) -> list[float]:
        same = {"alpha": 0.8, "cost": cost, "judging": judging}
        found: list[float] = next(g for g in vectors["speculate"]["gains"] if same.items() <= g.items())["speedups"]
        return found

    assert float(numbers(toy)["speedup"]) == pytest.approx(gains(0.05, "free")[4])
    turn(toy, "Judging n guesses", "ArrowDown")
    turn(toy, "Cost of a guess", *["ArrowRight"] * 5)
    turn(toy, "Guesses in a round", *["ArrowRight"] * 4)
    dear = gains(0.3, "measured")
    assert float(numbers(toy)["speedup"]) == pytest.approx(dear[8])
    assert int(numbers(toy)["best"]) == dear.index(max(dear))
    assert float(numbers(toy)["tokens"]) == pytest.approx((1 - 0.8**9) / (1 - 0.8))
    toy.element.get_by_role("button", name="200 rounds").focus()
    toy.press("Enter")  # where no motion is wanted, all at once
    assert (int(numbers(toy)["rounds"]), int(numbers(toy)["total"])) == (200, sum(simulate(0.8, 8, 1)))
    toy.element.get_by_role("button", name="One round").focus()
    toy.press("Enter")
    assert int(numbers(toy)["total"]) == sum(simulate(0.8, 8, 1, 201))
    write(toy, "Seed", "12345")
    assert numbers(toy)["rounds"] == "0"
    toy.element.get_by_role("button", name="200 rounds").press("Enter")
    assert int(numbers(toy)["total"]) == sum(simulate(0.8, 8, 12345))


@pytest.mark.browser
@about("speculate")
def test_rounds_are_drawn_over_several_frames_and_all_at_once_on_request(toy: Explorable) -> None:
    click = """e => { [...e.shadowRoot.querySelectorAll("button")].find(b => b.textContent === "200 rounds").click();
        return Number(e.dataset.rounds); }"""
    toy.guess()
    assert 0 < toy.element.evaluate(click) < 200
    toy.page.wait_for_selector("fourbit-speculate[data-rounds='200']")
    toy.page.emulate_media(reduced_motion="reduce")
    assert toy.element.evaluate(click) == 400


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["", "-dark"], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("toy", NAMES, indirect=True)
def test_it_is_accessible_and_nothing_sticks_out(toy: Explorable, address: str, width: int, kind: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    toy.page.set_viewport_size({"width": width, "height": 900})
    toy.open(address, kind)
    toy.page.add_style_tag(content=BACKGROUND)
    for state in ("locked", "open"):
        if state == "open":
            toy.guess()
        if state == "open" and toy.name == "speculate":
            toy.element.get_by_role("button", name="One round").click()
        found = axe.run(toy.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found.response["violations"]] == [], state
        assert toy.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
@pytest.mark.parametrize("toy", NAMES, indirect=True)
def test_ink_follows_the_scheme(toy: Explorable, address: str) -> None:
    inks = []
    for kind in ("", "-dark"):
        toy.open(address, kind)
        if not kind:
            toy.guess()
        toy.page.wait_for_selector(f"fourbit-{toy.name} svg text")
        inks.append(toy.element.evaluate("e => getComputedStyle(e.shadowRoot.querySelector('svg text')).fill"))
    assert inks[0] != inks[1]
