"""A lab to take away: one zip with all that its student needs, the same bytes on every build.

The notebook and its exam pack, the `fourbit` package with the assets that this lab reads and no others, the lecture
notes that it links to, and what installs it. No autograder, so `pyproject.toml` is cut down to the student's part.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from notebooks import Lab
from problems import StageError

MADE = (2026, 1, 1, 0, 0, 0)  # the time of every file, or no two builds were equal
SUFFIXES = {".py", ".c", ".h", ".css", ".js", ".html", ".json", ".svg", ".txt", ".md", ".typed"}
TABLES = ("build-system", "project", "project.scripts", "tool.setuptools.packages.find", "tool.setuptools.package-data")

# What a notebook says -> the assets that it reads through it, where it does not say their names.
READS = {
    "stored_results": ("distillation-front",),
    "cached_logits": ("teacher60-logits",),
    "mixed_precision": ("mixed-precision-front",),
    "llm_mixed": ("llm-mixed-front",),
    "images(": ("fashion-20k",),
    "smollm2": ("northanger-abbey", "persuasion"),
}

README = """\
{title}
{line}

{points:g} points in {questions} questions. Made for reading on the course's web site and for working in here.
Python 3.11 or newer is needed, on Linux, macOS or Windows. No GPU. {network}

Linux and macOS, in this folder:

    python3 fourbit/bootstrap.py
    .venv/bin/fourbit doctor
    .venv/bin/fourbit lab {number}

Windows, in this folder:

    py fourbit\\bootstrap.py
    .venv\\Scripts\\fourbit doctor
    .venv\\Scripts\\fourbit lab {number}

With conda: conda env create -f environment.yml, conda activate fourbit, fourbit lab {number}.

The first command makes an environment in .venv (it downloads several hundred megabytes, once), the second says what
this machine can do, the third opens the notebook in JupyterLab. `fourbit check {number}` grades the notebook on its
visible exam, as each check in the notebook does for one exercise. The archives of other labs stand alone like this one;
for all labs in one folder, clone the repository.

Code: Apache License 2.0 (LICENSE). Lecture notes: CC BY 4.0. Data: the licenses beside it in fourbit/assets.
"""
NETWORK = "The model comes once from the network (93 MB): .venv/bin/fourbit models fetch smollm2. Then all is offline."


def lab_zip(root: Path, lab: Lab) -> bytes:
    """The archive of one lab."""
    buffer, top = io.BytesIO(), f"fourbit-{lab.name}"
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(lab_files(root, lab).items()):
            info = zipfile.ZipInfo(f"{top}/{name}", MADE)
            packed = name.endswith((".xz", ".safetensors"))
            info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def lab_files(root: Path, lab: Lab) -> dict[str, bytes]:
    """Every file of the archive by its path in it."""
    paths = [root / lab.notebook, *sorted(below(root / "labs" / lab.name / "exam")), *package(root), *notes(root)]
    paths += [root / "LICENSE", root / "environment.yml"]
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    files |= asset_files(root, lab)
    files["pyproject.toml"] = project((root / "pyproject.toml").read_text(encoding="utf-8")).encode()
    files["README.txt"] = readme(lab).encode()
    return files


def below(folder: Path) -> Iterator[Path]:
    """The files under `folder`, without what running leaves there."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield path


def package(root: Path) -> list[Path]:
    """The sources of `fourbit`, without its assets."""
    home = root / "fourbit"
    return [p for p in below(home) if p.suffix in SUFFIXES and p.relative_to(home).parts[0] != "assets"]


def notes(root: Path) -> list[Path]:
    """The lecture notes with their drawings, so that the notebook's links open in JupyterLab."""
    folder = root / "lecture_notes"
    return [*folder.glob("*.md"), *folder.glob("figures/*.svg"), *folder.glob("LICENSE*")]


def asset_files(root: Path, lab: Lab) -> dict[str, bytes]:
    """The assets that the lab reads, their licenses, and a manifest that names these alone."""
    home = root / "fourbit" / "assets"
    try:
        entries = json.loads((home / "MANIFEST.json").read_text(encoding="utf-8"))["assets"]
        used = assets_of(root, lab, [entry["name"] for entry in entries])
        entries = [entry for entry in entries if entry["name"] in used]
        names = {name for entry in entries for name in (entry["file"], entry["license_file"])}
        names |= {f"{entry['name']}.json" for entry in entries if (home / f"{entry['name']}.json").is_file()}
        files = {f"fourbit/assets/{name}": (home / name).read_bytes() for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"fourbit/assets cannot be read for the archive of {lab.name}: {error}") from error
    manifest = json.dumps({"assets": entries}, indent=2, ensure_ascii=False) + "\n"
    return files | {"fourbit/assets/MANIFEST.json": manifest.encode()}


def assets_of(root: Path, lab: Lab, names: list[str]) -> set[str]:
    """The assets among `names` that the notebook or the exam pack names, or reads through a function of READS."""
    folder = root / "labs" / lab.name
    text = "".join(p.read_bytes().decode("latin-1") for p in (root / lab.notebook, *sorted(below(folder / "exam"))))
    used = {name for name in names if re.search(rf"[\"'\\]{re.escape(name)}[\"'\\]", text)}
    used |= {name for mark, read in READS.items() if mark in text for name in read}
    return used & set(names)


def project(text: str) -> str:
    """`pyproject.toml` without the tables of instructors, authors and contributors."""
    tables = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    kept = [table for table in tables if (m := re.match(r"\[([^\[\]]+)\]", table)) and m[1] in TABLES]
    if len(kept) != len(TABLES):
        raise StageError(f"pyproject.toml lacks one of the tables {', '.join(TABLES)}. Mend site/archives.py.")
    without_comments = re.sub(r"^#.*\n", "", "".join(kept), flags=re.MULTILINE)
    return without_comments.replace('readme = "README.md"', 'readme = "README.txt"')


def readme(lab: Lab) -> str:
    """What to do with the folder, in three commands."""
    title = f"Fourbit: {lab.title}"
    network = NETWORK if lab.needs_model else "Once installed, all works offline."
    return README.format(
        title=title, line="=" * len(title), points=lab.points, questions=len(lab.questions), network=network,
        number=lab.name[:2],
    )  # fmt: skip
