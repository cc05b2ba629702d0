"""Drawings of the notes: the committed SVG while it fits its script, else drawn anew.

A figure is lecture_notes/figures/NAME.py with a function ``draw()`` that returns a matplotlib figure. Its SVG beside
it carries a hash of everything it was made from, so that a build without matplotlib can tell whether it is fresh.
`python lecture_notes/figures/redraw.py` brings the committed ones up to date.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

from problems import StageError

MARK = re.compile(r"^<!-- made from ([0-9a-f]{16}) -->\n")


def fingerprint(script: Path) -> str:
    """A hash of the script, of the helpers and the data in its folder that it names, and of its parts of `fourbit`."""
    digest = hashlib.sha256()
    for path in [script, *named(script), *toolkit(script)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]


def named(script: Path) -> list[Path]:
    """The helper modules `_NAME` that the script imports, and the JSON files that it or they mention."""
    text = script.read_text(encoding="utf-8")
    helpers = [script.with_name(f"{name}.py") for name in re.findall(r"^from (_\w+) import", text, re.MULTILINE)]
    text += "".join(helper.read_text(encoding="utf-8") for helper in helpers)
    return [*helpers, *(path for path in sorted(script.parent.glob("*.json")) if path.name in text)]


def toolkit(script: Path) -> list[Path]:
    """The module, or the package's modules, of each `fourbit.NAME` that the script imports, and the figure style."""
    home = script.parent.parent.parent / "fourbit"
    dotted = {"plots", *re.findall(r"^from fourbit\.([\w.]+)", script.read_text(encoding="utf-8"), re.MULTILINE)}
    names = [name.replace(".", "/") for name in dotted]
    files = [path for name in names for path in (home / f"{name}.py", *(home / name).glob("*.py")) if path.is_file()]
    return sorted(files)


def drawing(script: Path, cache: Path) -> str:
    """Return the SVG of `script`: committed, cached in `cache`, or drawn now."""
    if not script.is_file():
        raise StageError(f"there is no figure script {script.parent.name}/{script.name}.")
    mark = fingerprint(script)
    for path in (script.with_suffix(".svg"), cache / f"{script.stem}.svg"):
        if path.is_file() and (made := MARK.match(text := path.read_text(encoding="utf-8"))) and made[1] == mark:
            return MARK.sub("", text)
    svg = draw(script)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"{script.stem}.svg").write_text(marked(svg, mark), encoding="utf-8")
    return svg


def draw(script: Path) -> str:
    """Run the script's `draw` in the house style."""
    sys.path[:0] = [str(script.parent.parent.parent), str(script.parent)]
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        from fourbit.plots import style, to_svg

        spec = importlib.util.spec_from_file_location(f"figure_{script.stem}", script)
        if spec is None or spec.loader is None:
            raise StageError(f"{script} is no Python module.")
        module = importlib.util.module_from_spec(spec)
        with style():
            spec.loader.exec_module(module)
            figure = module.draw()
            svg = to_svg(figure, script.stem)
        plt.close(figure)
        return svg
    except ImportError as error:
        raise StageError(
            f"the figure {script.name} changed and must be drawn anew, but {error.name} is missing. Run `make site`."
        ) from error
    finally:
        del sys.path[:2]


def marked(svg: str, mark: str) -> str:
    """The SVG with the hash of what it was made from."""
    return f"<!-- made from {mark} -->\n{svg}"
