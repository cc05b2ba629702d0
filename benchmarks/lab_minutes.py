"""Measure what each exercise of a lab costs to run, and write it where the builder reads it.

    python -m benchmarks.lab_minutes 01-pruning

Runs the reference notebook from top to bottom, figures and measurements included, with one thread, and writes CPU
minutes of each exercise's stretch (its cell and what follows up to the next one) to solutions/NN-name/minutes.json.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[^\n]*\n?", re.MULTILINE)


def measure(lab: str) -> dict[str, object]:
    """CPU seconds of each stretch of the reference notebook; a cell that fails ends the measurement with its error."""
    import jupytext
    from IPython.core.interactiveshell import InteractiveShell

    source = ROOT / "solutions" / lab / f"{lab}.py"
    os.chdir(ROOT / "labs" / lab)  # where `check` finds the exam pack
    shell = InteractiveShell.instance()
    shell.run_cell("from fourbit.exam import check").raise_error()
    seconds, stretch = {"setup": 0.0}, "setup"
    for cell in jupytext.read(source, fmt="py:percent").cells:
        if cell.cell_type != "code":
            continue
        stretch = cell.metadata.get("exercise", stretch)
        text = MARKER.sub("", cell.source) or f"check({cell.metadata.get('check')!r})"
        start = time.process_time()
        shell.run_cell(text).raise_error()
        seconds[stretch] = seconds.get(stretch, 0.0) + time.process_time() - start
    return {
        "recipe": f"python -m benchmarks.lab_minutes {lab}",
        "minutes": {name: round(value / 60, 3) for name, value in seconds.items()},
        "total_minutes": round(sum(seconds.values()) / 60, 2),
    }


def main() -> None:
    for lab in sys.argv[1:] or sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir()):
        result = measure(lab)
        (ROOT / "solutions" / lab / "minutes.json").write_text(json.dumps(result, indent=1) + "\n")
        print(f"{lab}: {result['total_minutes']} CPU-minutes in all; {result['minutes']}")


if __name__ == "__main__":
    main()
