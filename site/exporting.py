"""What the scripts share that make the explorables' data: they write it, or say which committed files are stale."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "assets" / "explorables" / "data"
EXACT = (0.0, 0.0)


def encoded(content: Any) -> bytes:
    """The file of a JSON value, or of bytes as they are."""
    return content if isinstance(content, bytes) else (json.dumps(content, separators=(",", ":")) + "\n").encode()


def same(a: Any, b: Any, tolerance: tuple[float, float]) -> bool:
    """Whether two JSON values agree, floats within a relative or an absolute tolerance."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance[0], abs_tol=tolerance[1])
    return type(a) is type(b) and a == b


def stale(
    files: Mapping[str, Any],
    tolerance: Callable[[str], tuple[float, float]] = lambda name: EXACT,
    codes: int = 0,
    folder: Path = DATA,
) -> list[str]:
    """Return the names of files in `folder` that are not what would be made now.

    Args:
        tolerance: of a file's floats, relative and absolute: another processor adds in another order.
        codes: by how much bytes may differ, for the same reason.
    """

    def fresh(name: str, content: Any) -> bool:
        path = folder / name
        if not path.is_file():
            return False
        old, new = path.read_bytes(), encoded(content)
        if isinstance(content, bytes):
            return len(old) == len(new) and all(abs(a - b) <= codes for a, b in zip(old, new, strict=True))
        if tolerance(name) == EXACT:
            return old == new
        return same(json.loads(old), json.loads(new), tolerance(name))

    return [name for name, content in files.items() if not fresh(name, content)]


def main(script: str, made: Callable[[], Mapping[str, Any]], old: Callable[[], list[str]]) -> None:
    """Write what `made` returns; with --check, exit with the names that `old` returns instead."""
    if sys.argv[1:] == ["--check"]:
        names = old()
        sys.exit(f"stale: {', '.join(names)}. Run: python site/{script}.py" if names else 0)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, content in made().items():
        (DATA / name).write_bytes(encoded(content))
