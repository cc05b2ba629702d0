"""The files beside a notebook: the instructor's own win, the student's data stays, and nothing shadows a module."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import PurePosixPath

from autograder.results import plain

# Files that Python, IPython or Jupyter would run or obey without being asked.
_OBEYED = frozenset({
    "sitecustomize", "usercustomize", "conftest", "ipython_config", "ipython_kernel_config", "nbgrader_config",
    "jupyter_config", "matplotlibrc", "pyvenv",
})  # fmt: skip
_COMPILED = frozenset({".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".pth", ".egg", ".whl"})


def keep_files(template: Mapping[str, bytes], student: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Return the files that the notebook will find beside it, and what was left out or put back.

    Args:
        template: the instructor's files by path; these always win.
        student: the student's files by path, notebooks excluded.
    """
    kept: dict[str, bytes] = {}
    notes = []
    helpers = {_module(name) for name in template if name.endswith(".py")}
    for name, data in sorted(student.items()):
        reason = _refused(name, helpers)
        if name in template:
            if data != template[name]:
                notes.append(f"{plain(name, 200)} was changed; the instructor's file was put back")
        elif reason:
            notes.append(f"{plain(name, 200)} was left out: {reason}")
        elif name != "timestamp.txt":
            kept[name] = data
    return {**_without_clashes(kept, template), **template}, notes


def _without_clashes(kept: Mapping[str, bytes], template: Mapping[str, bytes]) -> dict[str, bytes]:
    """Drop files where the template has a folder, and the other way round."""
    folders = {str(parent) for name in template for parent in PurePosixPath(name).parents}
    return {
        name: data
        for name, data in kept.items()
        if name not in folders and not any(str(parent) in template for parent in PurePosixPath(name).parents)
    }


def _refused(name: str, helpers: set[str]) -> str:
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts):
        return "hidden files are not used"
    if path.suffix.lower() in _COMPILED:
        return "compiled code is not used"
    top = _module(name)
    if top in _OBEYED or path.name in _OBEYED:
        return f"a file called {top} would be obeyed by Python or Jupyter"
    holds_code = path.suffix == ".py" or len(path.parts) > 1
    if holds_code and top in helpers:
        return f"it would hide the instructor's module {top}"
    if path.suffix == ".py" and _is_installed(top):
        return f"it would hide the module {top}"
    return ""


def _module(name: str) -> str:
    """Return the module name under which Python would import what lies at `name`."""
    return PurePosixPath(name).parts[0].split(".", 1)[0]


@cache
def _is_installed(name: str) -> bool:
    if name in sys.stdlib_module_names:
        return True
    if not name.isidentifier():
        return False
    places = [place for place in sys.path if place and os.path.realpath(place) != os.getcwd()]
    return PathFinder.find_spec(name, places) is not None
