"""Turn lecture notes and labs into pages of the site: one pass, used by `mkdocs build` and by hand.

    python site/stage.py            writes the whole tree of pages to build/docs, for any generator

Addresses mirror the repository: lecture_notes/pruning.md becomes lecture_notes/pruning/, and
labs/01-pruning/01-pruning.ipynb becomes labs/01-pruning/. What happens to a note on its way:

* ``[@key]`` becomes a footnote made from references.bib; an unknown key stops the build.
* ``12.7<!--=key-->`` stays as written if values.json has "12.7" for that key, and stops the build otherwise.
* ``![what it shows](figures/name.svg)`` becomes the drawing itself, which then follows the page's colors.
* A number that says nowhere where it comes from stops the build: see ledger.py, which also makes the claims ledger.
* ``<a id="name"></a>`` above a heading becomes the heading's own id.
* Links between folders are rewritten; one that leads nowhere on the site stops the build.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ledger
from archives import lab_zip
from feed import feed, read_changelog
from figures import drawing
from glossary import glossary_page, read_terms
from kill_tables import kill_table, read_matrix
from lab_index import lab_index
from ledger import VALUE
from ledger_page import ledger_page
from notebooks import Lab, lab_page, read_labs
from problems import StageError
from references import Bibliography

CODE = re.compile(r"(^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?P<before>\]\(|\bhref=\")(?P<target>[^)\s\"]+)")
IMAGE = re.compile(r"^!\[(?P<alt>[^\]]*)\]\((?P<path>figures/(?P<name>[\w-]+)\.svg)\)$", re.MULTILINE)
ANCHOR = re.compile(r'^<a id="(?P<id>[\w-]+)"></a>\n+(?P<heading>#{1,6} .+)$', re.MULTILINE)
TERMS = "terms.md"
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|#|//", re.IGNORECASE)


@dataclass(frozen=True)
class Tree:
    """The repository as the site sees it: which page each source file becomes."""

    root: Path
    labs: tuple[Lab, ...]
    pages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Tree:
        labs = read_labs(root / "labs")
        pages = {f"lecture_notes/{path.name}": f"lecture_notes/{path.name}" for path in notes(root)}
        pages["lecture_notes/README.md"] = "lecture_notes/index.md"
        for lab in labs:
            pages[lab.notebook] = lab.page
        pages |= {f"site/{path.name}": path.name for path in (root / "site").glob("*.md")}
        pages["site/glossary.md"] = "glossary.md"
        pages["labs"] = "labs/index.md"
        return cls(root, labs, pages)


def notes(root: Path) -> list[Path]:
    """The chapters and the folder's README."""
    return sorted((root / "lecture_notes").glob("*.md"))


def stage(root: Path, site_url: str = "") -> dict[str, str | bytes]:
    """Return every generated file of the site by its address below docs_dir.

    Args:
        site_url: the site's own address, for the feed; without one its links are relative.

    Raises:
        StageError: naming the file and the fault, for anything that a reader would stumble over.
    """
    tree = Tree.read(root)
    bibliography = Bibliography(root / "lecture_notes" / "references.bib")
    values = json.loads((root / "lecture_notes" / "values.json").read_text(encoding="utf-8"))
    files: dict[str, str | bytes] = {}
    for path in notes(root):
        source = f"lecture_notes/{path.name}"
        files[tree.pages[source]] = note_page(path.read_text(encoding="utf-8"), source, tree, bibliography, values)
    files |= lab_files(tree)
    files |= site_files(root / "site", site_url)
    files["assets/course.json"] = course(tree)
    text = bibliography.cite(ledger_page(root / "lecture_notes"), "the claims ledger")
    files["lecture_notes/ledger.md"] = text + bibliography.footnotes(text)
    return files


def site_files(folder: Path, site_url: str) -> dict[str, str | bytes]:
    """The glossary and the feed, from terms.md and changelog.md in `folder`."""
    changes = read_changelog((folder / "changelog.md").read_text(encoding="utf-8"))
    return {"glossary.md": glossary_page(read_terms(folder / TERMS)), "feed.xml": feed(changes, site_url)}


def course(tree: Tree) -> str:
    """What can be ticked off: chapters in the order of the notes' README, and labs, each with its page's address."""
    folder = tree.root / "lecture_notes"
    order = dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    texts = {name.removesuffix(".md"): (folder / name).read_text(encoding="utf-8") for name in order}
    titles = {name: re.search(r"^# (.+)$", text, re.MULTILINE) for name, text in texts.items()}
    chapters = [{"id": f"lecture_notes/{name}/", "title": title[1]} for name, title in titles.items() if title]
    labs = [{"id": f"labs/{lab.name}/", "title": lab.title} for lab in tree.labs]
    return json.dumps({"chapters": chapters, "labs": labs}, indent=1, ensure_ascii=False) + "\n"


def lab_files(tree: Tree) -> dict[str, str | bytes]:
    """The pages of the labs, their notebooks and archives, and the page that lists them."""
    files: dict[str, str | bytes] = {}
    matrix = read_matrix(tree.root / "site" / "kill-matrix.json")
    for lab in tree.labs:
        relink = partial(outside_code, change=partial(link, source=lab.notebook, page=lab.page, tree=tree))
        exam = kill_table(matrix[lab.name]) if lab.name in matrix else ""
        files[lab.page] = f"{lab_page(lab, relink)}\n{exam}\n"
        files[lab.notebook] = (tree.root / lab.notebook).read_bytes()
        files[lab.zip] = lab_zip(tree.root, lab)
    files["labs/index.md"] = lab_index(tree.labs, {lab.name: len(files[lab.zip]) for lab in tree.labs})
    return files


def note_page(text: str, source: str, tree: Tree, bibliography: Bibliography, values: dict[str, str]) -> str:
    """The page of one note; `source` is its path in the repository."""
    ledger.check(text, source)
    text = outside_code(text, ledger.clean)
    text = outside_code(text, lambda part: check_values(part, source, values))
    text = ANCHOR.sub(r"\g<heading> {#\g<id>}", text)
    text = outside_code(text, lambda part: link(part, source, tree.pages[source], tree))
    text = outside_code(text, lambda part: bibliography.cite(part, source))
    text = outside_code(text, lambda part: re.sub(r"(?<=\d) (?=%)", "\u00a0", part))
    text = IMAGE.sub(lambda match: figure(match, source, tree.root), text)
    return text + bibliography.footnotes(text)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the parts of Markdown `text` that are not code."""
    pieces, end = [], 0
    for match in CODE.finditer(text):
        pieces += [change(text[end : match.start()]), match.group()]
        end = match.end()
    return "".join([*pieces, change(text[end:])])


def check_values(text: str, source: str, values: dict[str, str]) -> str:
    """Drop the marks behind generated numbers, after comparing each number with its generated value."""

    def check(match: re.Match[str]) -> str:
        key, written = match["key"], match["text"]
        if key not in values:
            raise StageError(f"{source}: no value {key!r} in values.json. Add it to lecture_notes/figures/values.py.")
        if written != values[key]:
            raise StageError(f"{source}: {written!r} is written, but {key} is {values[key]!r}. Mend the sentence.")
        return written + match["close"]

    return VALUE.sub(check, text)


def link(text: str, source: str, page: str, tree: Tree) -> str:
    """Point links between files of the repository to their pages."""

    def rewrite(match: re.Match[str]) -> str:
        target, hash_, fragment = match["target"].partition("#")
        if EXTERNAL.match(match["target"]) or IMAGE.match(f"![]({target})"):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path not in tree.pages:
            raise StageError(f"{source}: the link to {target} leads nowhere on the site (there is no page for {path}).")
        return match["before"] + posixpath.relpath(tree.pages[path], posixpath.dirname(page) or ".") + hash_ + fragment

    return LINK.sub(rewrite, text)


def figure(match: re.Match[str], source: str, root: Path) -> str:
    """A drawing with its caption, as one block of HTML."""
    alt = match["alt"].strip()
    if not alt:
        raise StageError(f"{source}: {match['path']} has no text. Say between the brackets what the figure shows.")
    svg = drawing(root / "lecture_notes" / "figures" / f"{match['name']}.py", root / "build" / "figures")
    svg = svg.replace("<svg", f'<svg role="img" aria-labelledby="caption-{match["name"]}"', 1)
    caption = f'<figcaption id="caption-{match["name"]}">{alt}</figcaption>'
    return f'<figure class="plot" id="figure-{match["name"]}">{svg.strip()}{caption}</figure>'


def write_tree(root: Path, out: Path) -> int:
    """Write the pages and a copy of the site's own files to `out`, and return the number of generated files."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "site", out, ignore=shutil.ignore_patterns("*.py", "__pycache__", TERMS, "overrides"))
    files = stage(root)
    for address, content in files.items():
        path = out / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return len(files)


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent.parent
    try:
        count = write_tree(checkout, checkout / "build" / "docs")
    except StageError as error:
        sys.exit(f"The site cannot be built: {error}")
    print(f"{count} generated files beside the site's own, in build/docs")
