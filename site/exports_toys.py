"""Data and test vectors of four explorables: temperature, roofline, fit, speculate.

    python site/exports_toys.py            writes site/assets/explorables/data
    python site/exports_toys.py --check    says whether what is committed there is fresh

NAME.json and NAME.bin are what a page loads, NAME-vectors.json is what PyTorch and `fourbit` make of the same inputs;
the tests compare it with what JavaScript makes of them in a browser. Needs torch, and half a minute of one core.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE), str(SITE.parent), str(SITE.parent / "lecture_notes" / "figures")]

import exporting  # noqa: E402
import exports_fit  # noqa: E402
import exports_roofline  # noqa: E402
import exports_speculate  # noqa: E402
import exports_temperature  # noqa: E402
from exporting import DATA  # noqa: E402

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


def tolerance(name: str) -> tuple[float, float]:
    """Of a file's floats: a network is behind those of temperature, formulas behind the others."""
    return (2e-3, 2e-3) if name.startswith("temperature") else (1e-12, 1e-12)


def stale(folder: Path = DATA) -> list[str]:
    """Return the names of files in `folder` that are not what would be made now."""
    return exporting.stale(made(), tolerance, folder=folder)


if __name__ == "__main__":
    exporting.main("exports_toys", made, stale)
