"""Whether a worker fits: the same grader as here, Linux, and the isolation that was agreed on."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import fourbit
from autograder.jail import JailMode, describe
from autograder.results import plain
from autograder.workers.slots import forget

INSTALL = 'pip install -e ".[grade,cluster]" in the same clone'
_COMPARED = ("numpy", "torch", "distributed", "ipython")


async def look_here() -> dict[str, Any]:
    """What a coordinator has to know of the worker in which this runs."""
    report = await asyncio.to_thread(describe)  # tries the jail in a process of its own, some 0.2 s
    reasons = {JailMode.NAMESPACES: report.namespaces, JailMode.LANDLOCK: report.landlock}
    return {
        "host": socket.gethostname(),
        "system": sys.platform,
        "versions": versions(),
        "modes": [str(mode) for mode, reason in reasons.items() if not reason] + [str(JailMode.PLAIN)],
        "why": "; ".join(f"{mode}: {reason}" for mode, reason in reasons.items() if reason),
    }


async def forget_here(key: str) -> None:
    """End the slots of a bundle in the worker in which this runs."""
    await asyncio.to_thread(forget, key)


def versions() -> dict[str, str]:
    """What must be the same on every machine for a submission to get the same grade."""
    found = {"fourbit": fourbit.__version__, "the grader's code": code_digest(), "Python": platform.python_version()}
    for package in _COMPARED:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def code_digest() -> str:
    """Name the content of the grader's and the toolkit's modules: two clones of one version may still differ."""
    digest = hashlib.sha256()
    for package in (Path(__file__).parents[1], Path(fourbit.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(package.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def unfit(report: Any, jail: JailMode | None) -> str:
    """What keeps a worker that gave `report` from grading in the mode `jail`, "" if nothing."""
    if not isinstance(report, Mapping):
        return f"{missing(report)}. There: {INSTALL}"
    if report["system"] != "linux":
        return f"grading needs Linux, and {report['host']} is {plain(report['system'], 40)}"
    if problem := differences(report["versions"]):
        return f"{plain(report['host'], 80)} has {problem}. There: {INSTALL}"
    if jail is not None and str(jail) not in report["modes"]:
        return f"{plain(report['host'], 80)} does not enforce the isolation {jail} ({plain(report['why'], 300)})"
    return ""


def differences(theirs: Mapping[str, str]) -> str:
    ours = versions()
    names = [name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name)]
    told = [f"{name} {theirs.get(name, 'missing')} (here {ours.get(name, 'missing')})" for name in dict.fromkeys(names)]
    return plain(", ".join(told), 500)


def missing(error: object) -> str:
    if isinstance(error, ImportError) or "ModuleNotFoundError" in str(error):
        return f"the grading tools are not installed there ({plain(error, 200)})"
    return f"it could not say what it has ({type(error).__name__}: {plain(error, 300)})"
