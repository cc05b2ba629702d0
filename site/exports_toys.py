"""Data and test vectors of four explorables: temperature, roofline, fit, speculate.

    python site/exports_toys.py            writes site/assets/explorables/data
    python site/exports_toys.py --check    says whether what is committed there is fresh

NAME.json and NAME.bin are what a page loads, NAME-vectors.json is what PyTorch and `fourbit` make of the same inputs;
the tests compare it with what JavaScript makes of them in a browser. Needs torch, and half a minute of one core.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent
DATA = SITE / "assets" / "explorables" / "data"
sys.path[:0] = [str(SITE), str(SITE.parent), str(SITE.parent / "lecture_notes" / "figures")]

import exports_fit  # noqa: E402
import exports_roofline  # noqa: E402
import exports_speculate  # noqa: E402
import exports_temperature  # noqa: E402

PARTS = {
    "temperature": exports_temperature,
    "roofline": exports_roofline,
    "fit": exports_fit,
    "speculate": exports_speculate,
}


def made() -> dict[str, Any]:
    """Return {file name: JSON value or bytes} of all parts."""
    files: dict[str, Any] = {}
    for part in PARTS.values():
        files |= part.files()
    return files


def encoded(content: Any) -> bytes:
    return content if isinstance(content, bytes) else (json.dumps(content, separators=(",", ":")) + "\n").encode()


def same(a: Any, b: Any, tolerance: float) -> bool:
    """Whether two JSON values agree, floats within a tolerance: another processor adds in another order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return type(a) is type(b) and a == b


def stale(folder: Path = DATA) -> list[str]:
    """Return the names of files in `folder` that are not what would be made now."""
    found = []
    for name, content in made().items():
        path = folder / name
        tolerance = 2e-3 if name.startswith("temperature") else 1e-12
        if not path.is_file():
            found.append(name)
        elif isinstance(content, bytes):
            found += [name] if path.read_bytes() != content else []
        elif not same(json.loads(path.read_text(encoding="utf-8")), json.loads(encoded(content)), tolerance):
            found.append(name)
    return found


def main() -> None:
    if "--check" in sys.argv:
        old = stale()
        sys.exit(f"stale: {', '.join(old)}; run: python site/exports_toys.py" if old else 0)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, content in made().items():
        (DATA / name).write_bytes(encoded(content))


if __name__ == "__main__":
    main()
