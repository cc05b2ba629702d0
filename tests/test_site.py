"""The site: builds from a clean copy, asks no other host for anything, and every link and number in it holds."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from filelock import FileLock

from tests.pages import serving
from tests.scripts import load_script

LABS = {  # and the chapters that prepare for each
    "00-measure": ("measuring",),
    "01-pruning": ("pruning",),
    "02-quantization": ("quantization",),
    "03-distillation": ("distillation",),
    "04-llm-quantization": ("outliers", "four-bits"),
    "05-kernels": ("kernels",),
    "06-inference": ("inference",),
    "07-deploy": ("deployment",),
}
# chapters of no lab
IDEAS = ("energy", "architectures", "long-context", "claims", "sparse-training", "quantization-training")
NOTES = (*(chapter for chapters in LABS.values() for chapter in chapters), *IDEAS)


def copy_source(root: Path, target: Path) -> Path:
    """What the site is made of, and nothing else: no solutions, no cache."""
    for name in ("site", "lecture_notes", "labs", "fourbit"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("mkdocs.yml", "pyproject.toml", "environment.yml", "LICENSE"):
        shutil.copy(root / name, target)
    return target


def mkdocs(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # not --quiet, which hides warnings from --strict as well
    return run(folder, "-m", "mkdocs", "build", "--strict", **environment)


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"} | environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly in a clean copy by a Python that has the `site` extra but no torch or matplotlib.

    The processes of one run share it: whoever needs it first builds it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-site"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            folder, without = copy_source(root, tmp_path_factory.mktemp("site")), tmp_path_factory.mktemp("without")
            for name in ("torch", "matplotlib"):
                text = f"raise ImportError('no {name}', name={name!r})"
                (without / f"{name}.py").write_text(text, encoding="utf-8")
            done = mkdocs(folder, PYTHONPATH=str(without))
            assert done.returncode == 0, done.stdout + done.stderr
            folder.rename(shared)
    return shared / "build" / "site"


@pytest.fixture
def source(root: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return copy_source(root, tmp_path)


class Page(HTMLParser):
    """Ids, links and requested resources of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.update(value for name, value in given.items() if name == "id" or (name == "name" and tag == "a"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("link", "use", "image"):
            self.resources += [given[name] for name in ("href", "xlink:href") if name in given]
        self.resources += [given[name] for name in ("src", "srcset", "data", "poster") if name in given and tag != "a"]


def pages(built: Path) -> dict[str, Page]:
    return {p.relative_to(built).as_posix(): Page(p.read_text(encoding="utf-8")) for p in sorted(built.rglob("*.html"))}


def test_it_has_a_page_for_each_note_and_lab(built: Path) -> None:
    found = set(pages(built))
    assert {"index.html", "lecture_notes/index.html", "labs/index.html"} <= found
    assert {f"lecture_notes/{name}/index.html" for name in NOTES} <= found
    assert {f"labs/{name}/index.html" for name in LABS} <= found


def test_every_link_and_anchor_leads_somewhere(built: Path) -> None:
    known, broken = pages(built), []
    for name, page in known.items():
        if name == "404.html":
            continue  # served at any depth, so its links start at the host's root
        for link in page.links:
            address, fragment = urldefrag(urljoin(f"http://here/{name}", link))
            if urlsplit(address).netloc != "here":
                continue
            path = unquote(urlsplit(address).path).lstrip("/")
            path += "index.html" if not path or path.endswith("/") else ""
            if not (built / path).is_file() or (fragment and fragment not in known[path].ids):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_no_page_or_style_asks_another_host(built: Path) -> None:
    outside = re.compile(r"(?:https?:)?//", re.IGNORECASE)
    asked = [f"{name}: {url}" for name, page in pages(built).items() for url in page.resources if outside.match(url)]
    for style in built.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", style.read_text(encoding="utf-8"))
        asked += [f"{style.name}: {url}" for url in urls]
    assert asked == []


def test_styles_find_their_fonts(built: Path) -> None:
    css = built / "assets" / "katex" / "katex.min.css"
    fonts = re.findall(r"url\(([^)]+)\)", css.read_text(encoding="utf-8"))
    assert fonts
    assert all((css.parent / font).is_file() for font in fonts)
    assert (css.parent / "LICENSE").is_file()


def test_links_of_mistakes_lead_to_anchors_of_the_notes(root: Path, built: Path) -> None:
    exams = pytest.importorskip("autograder.exams")
    known = pages(built)
    broken, count = set(), 0
    for folder in sorted((root / "solutions").iterdir()):
        if not (folder / "exam.py").is_file():
            continue
        for exercise in exams.load_lab(folder).exam.exercises:
            for mistake in exercise.mistakes:
                count += 1
                path, _, anchor = mistake.link.partition("#")
                page = known.get(path.removesuffix(".md") + "/index.html")
                if page is None or anchor not in page.ids:
                    broken.add(f"{exercise.name}/{mistake.id}: {mistake.link}")
    assert count > 50
    assert broken == set()


@pytest.mark.parametrize("name", LABS)
def test_notes_and_labs_link_to_each_other(built: Path, name: str) -> None:
    notes = [(built / "lecture_notes" / note / "index.html").read_text(encoding="utf-8") for note in LABS[name]]
    lab = (built / "labs" / name / "index.html").read_text(encoding="utf-8")
    exercises = re.findall(r'class="exercise" id="([a-z]\w*)">Exercise', lab)
    assert len(exercises) >= 6
    assert [e for e in exercises if not any(f"labs/{name}/#{e}" in note for note in notes)] == []
    article = Page(lab.partition("<article")[2].partition("</article>")[0])
    for note in LABS[name]:
        assert any(f"lecture_notes/{note}/" in link for link in article.links), note


@pytest.mark.parametrize("name", NOTES)
def test_a_chapter_has_what_a_chapter_promises(root: Path, name: str) -> None:
    text = (root / "lecture_notes" / f"{name}.md").read_text(encoding="utf-8")
    assert "**The problem.**" in text
    assert "> **Predict.**" in text
    assert "here it breaks" in text
    assert len(re.findall(r"\(figures/[\w-]+\.svg\)", text)) >= 3
    questions = re.split(r"^\*\*\d\. ", text.partition("## Check yourself")[2].partition("\n## ")[0], flags=re.M)[1:]
    assert len(questions) == 5
    for question in questions:
        reasons = re.findall(r"<summary>[A-D]\. .+?</summary>\n\n(.+?)\n\n</details>", question, flags=re.S)
        assert len(reasons) == 4
        assert all(len(reason) > 40 for reason in reasons)
        assert sum(reason.startswith("Yes") for reason in reasons) == 1


def test_no_line_of_a_solution_is_on_the_site(root: Path, built: Path) -> None:
    shown = [re.sub(r"<[^>]+>", "", p.read_text(encoding="utf-8")) for p in built.rglob("*.html")]
    shown += [p.read_text(encoding="utf-8").replace('\\"', '"') for p in built.rglob("*.ipynb")]
    text = html.unescape("\n".join(shown))
    block = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.DOTALL)
    code = "\n".join(p.read_text(encoding="utf-8") for p in (root / "solutions").glob("*/[0-9]*.py"))
    locked = block.sub("", code)
    lines = {line.strip() for part in block.findall(code) for line in part.splitlines()}
    own = {line for line in lines if len(line) > 24 and line not in locked}
    assert len(own) > 50
    assert {line for line in own if line in text} == set()


def test_a_lab_comes_as_an_archive_with_its_exam(root: Path, built: Path) -> None:
    for name in LABS:
        with zipfile.ZipFile(built / "labs" / name / f"{name}.zip") as archive:
            inside = set(archive.namelist())
        folder = f"fourbit-{name}/labs/{name}"
        assert f"{folder}/{name}.ipynb" in inside
        assert any(path.startswith(f"{folder}/exam/") for path in inside)
        assert not [path for path in inside if ".ipynb_checkpoints" in path or path.endswith(".progress.json")]


# what stops a build


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[@press2017]", "[@nobody1999]", "no entry nobody1999 in references.bib"),
        ("124.4<!--=gpt2.once-->", "125.4<!--=gpt2.once-->", "'125.4' is written, but gpt2.once is '124.4'"),
        ("<!--=gpt2.once-->", "<!--=gpt2.never-->", "no value 'gpt2.never'"),
        ("(pruning.md)", "(prunning.md)", "prunning.md leads nowhere"),
        ("(figures/decode.svg)", "(figures/encode.svg)", "no figure script figures/encode.py"),
        ("![Energies of single", "![](figures/energy.svg)\n\n![Energies of single", "figures/energy.svg has no text"),
        ("97.9<!--=coverage.10.2-->", "97.9", "'97.9 %' has no mark, source or reason"),
        ("2.039 TB/s [@nvidiaa100]", "2.039 TB/s", "'2.039 TB/s' has no mark, source or reason"),
    ],
    ids=["citation", "number", "value", "link", "figure", "alternative text", "mark", "source"],
)
def test_a_fault_in_a_note_stops_the_staging_and_is_named(source: Path, old: str, new: str, said: str) -> None:
    spoil(source / "lecture_notes" / "measuring.md", old, new)
    done = run(source, "site/stage.py")
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(("old", "new"), [("[@press2017]", "[@nobody1999]"), ("#conv_macs)", "#conv_max)")])
def test_an_unknown_citation_or_anchor_stops_mkdocs(source: Path, old: str, new: str) -> None:
    spoil(source / "lecture_notes" / "measuring.md", old, new)
    done = mkdocs(source)
    assert done.returncode != 0
    assert new.strip("[@#)]") in done.stdout + done.stderr


def test_a_notebook_with_a_solution_stops_the_build(source: Path) -> None:
    notebook = source / "labs" / "00-measure" / "00-measure.ipynb"
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["cells"][3]["source"] = "### BEGIN SOLUTION\n1 + 1\n### END SOLUTION"
    notebook.write_text(json.dumps(content), encoding="utf-8")
    done = run(source, "site/stage.py")
    assert done.returncode != 0
    assert "holds a solution" in done.stderr


# what the notes take from code


def test_the_pages_can_be_written_for_any_generator(source: Path) -> None:
    done = run(source, "site/stage.py")
    assert done.returncode == 0, done.stderr
    note = (source / "build" / "docs" / "lecture_notes" / "pruning.md").read_text(encoding="utf-8")
    assert note.count('<figure class="plot"') >= 3
    assert "<!--=" not in note
    assert "[@" not in note
    assert (source / "build" / "docs" / "assets" / "course.css").is_file()


def test_code_in_a_note_is_left_alone(root: Path) -> None:
    stage = load_script(root / "site" / "stage.py", "stage_under_test")
    text = "see [a](x)\n\n```python\n[a](x)\n```\n\nand `[a](x)`"
    assert stage.outside_code(text, str.upper) == "SEE [A](X)\n\n```python\n[a](x)\n```\n\nAND `[a](x)`"


def test_generated_numbers_are_up_to_date(root: Path) -> None:
    values = load_script(root / "lecture_notes" / "figures" / "values.py", "note_values").values()
    committed = json.loads((root / "lecture_notes" / "values.json").read_text(encoding="utf-8"))
    assert committed == values, "run: python lecture_notes/figures/redraw.py"


def test_every_generated_number_is_used(root: Path) -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in (root / "lecture_notes").glob("*.md"))
    assert len(set(re.findall(r"<!--=([\w.-]+)-->", text))) > 80


def test_measurements_are_of_the_checkpoint_that_is_shipped(root: Path) -> None:
    measured = json.loads((root / "lecture_notes" / "figures" / "pruning.json").read_text(encoding="utf-8"))
    shipped = (root / "fourbit" / "assets" / "teacher20.safetensors").read_bytes()
    said = "run: python lecture_notes/figures/measure_pruning.py"
    assert measured["checkpoint"] == hashlib.sha256(shipped).hexdigest(), said


def test_committed_drawings_are_fresh(root: Path) -> None:
    figures = load_script(root / "site" / "figures.py", "site_figures")
    folder = root / "lecture_notes" / "figures"
    stale = []
    for drawing in sorted(folder.glob("*.svg")):
        made = figures.MARK.match(drawing.read_text(encoding="utf-8"))
        if made is None or made[1] != figures.fingerprint(drawing.with_suffix(".py")):
            stale.append(drawing.name)
    assert len(list(folder.glob("*.svg"))) >= 8
    assert stale == [], "run: python lecture_notes/figures/redraw.py"


def test_axes_of_drawings_say_what_they_show(root: Path) -> None:
    import matplotlib.pyplot as plt

    from fourbit.plots import style

    for script in sorted((root / "lecture_notes" / "figures").glob("*.svg")):
        with style():
            figure = load_script(script.with_suffix(".py"), f"drawing_{script.stem}").draw()
        for axes in figure.axes:
            assert axes.get_xlabel(), script.stem
            assert axes.get_ylabel() or not len(axes.get_yticks()), script.stem
        plt.close(figure)


# in a browser


@pytest.fixture(scope="module")
def server(built: Path) -> Iterator[str]:
    with serving(built, []) as address:
        yield address


@pytest.mark.browser
def test_figures_follow_the_page_and_navigation_typesets(server: str, chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    color = "getComputedStyle(document.querySelector('figure.plot text')).fill"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server + "lecture_notes/measuring/")
        page.wait_for_selector(".katex")
        light = page.evaluate(color)
        page.click("label[title='Switch to dark mode']")
        assert page.evaluate(color) != light
        page.click("nav a:has-text('Pruning I:')")
        page.wait_for_function("document.title.includes('Pruning')")
        page.wait_for_function("!document.querySelector('.arithmatex:not([data-typeset])')")
        assert page.locator(".katex").count() > 20
        for _ in range(2):  # the second time the module is there already
            page.locator("fourbit-prune").scroll_into_view_if_needed()  # a new one: the last was detached
            page.wait_for_selector("fourbit-prune[data-ready]", timeout=60_000)
            page.go_back()
            page.wait_for_selector("fourbit-prune", state="detached")
            page.go_forward()
        browser.close()
    assert errors == []
