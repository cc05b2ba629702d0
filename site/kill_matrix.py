"""The published kill matrix: what each lab's exam makes of each known mistake.

    python site/kill_matrix.py              examines all labs, with the public seed, and writes site/kill-matrix.json
    python site/kill_matrix.py 01-pruning   that lab alone

Examining takes minutes and PyTorch; the pages are made from the file (kill_tables.py), and the labs' own tests, which
compute the matrices anyway, compare them with it. The file holds names and points, no code of a solution or mistake.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourbit.exam.matrix import Row
    from fourbit.exam.reference import Lab

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = Path(__file__).with_name("kill-matrix.json")


def published(lab: Lab, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry for each exercise, in the exam's order; points are rounded to hundredths."""
    rows = list(rows)
    entries = []
    for exercise in lab.exam.exercises:
        kinds: dict[str, list[Row]] = {}
        for row in rows:
            if row.exercise == exercise.name:
                kinds.setdefault(row.kind, []).append(row)
        about = {mistake.id: mistake for mistake in exercise.mistakes}
        entries.append(
            {
                "exercise": exercise.name,
                "points": exercise.points,
                "alternatives": len(kinds["alternative"]),
                "impostors": len(kinds["impostor"]),
                "impostors_at_most": round(max(row.hidden for row in kinds["impostor"]), 2),
                "mistakes": [
                    {
                        "id": row.name,
                        "name": about[row.name].name,
                        "link": about[row.name].link,
                        "lost": round(exercise.points - row.hidden, 2),
                        "named": row.named == row.name,
                    }
                    for row in kinds["mistake"]
                ],
            }
        )
    return entries


def examine(name: str) -> list[dict[str, Any]]:
    """Compute the matrix of one lab and return its entries; an exam that does not tell right from wrong ends it."""
    from fourbit.exam.matrix import kill_matrix
    from fourbit.exam.reference import load_lab

    folder = ROOT / "solutions" / name
    with tempfile.TemporaryDirectory(prefix="fourbit-matrix-") as scratch:
        rows = kill_matrix(folder, Path(scratch))
    if complaints := [f"{row.exercise}: {row.name} {row.complaint}" for row in rows if row.complaint]:
        sys.exit(f"{name}: " + "\n".join(complaints))
    return published(load_lab(folder), rows)


def main() -> None:
    labs = sys.argv[1:] or sorted(path.parent.name for path in (ROOT / "solutions").glob("*/exam.py"))
    found = json.loads(PUBLISHED.read_text(encoding="utf-8")) if PUBLISHED.is_file() else {}
    for name in labs:
        found[name] = examine(name)
        print(f"{name}: {sum(len(entry['mistakes']) for entry in found[name])} mistakes")
    text = json.dumps({name: found[name] for name in sorted(found)}, indent=1, ensure_ascii=False)
    PUBLISHED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    main()
