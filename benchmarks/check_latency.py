"""How long `check(...)` takes to answer: every exercise of every lab, on the reference's answers.

    python -m benchmarks.check_latency

Prints a row an exercise (median of nine, after the first, which also reads the pack) and the median over exercises.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FOURBIT_HOME", tempfile.mkdtemp())

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 9


def main() -> None:
    from fourbit.exam import check
    from fourbit.exam.reference import load_lab

    medians = []
    print(f"{'lab':12} {'exercise':24} {'first s':>8} {'median s':>9}")
    for folder in sorted((ROOT / "solutions").iterdir()):
        lab = load_lab(folder)
        os.chdir(ROOT / "labs" / lab.exam.lab)
        namespace = lab.namespace() | {"check": check}
        for exercise in lab.exam.exercises:
            times = []
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                exec(f"check({exercise.name!r})", namespace)
                times.append(time.perf_counter() - start)
            medians.append(statistics.median(times[1:]))
            print(f"{lab.exam.lab:12} {exercise.name:24} {times[0]:8.3f} {medians[-1]:9.3f}")
    print(f"median over {len(medians)} exercises: {statistics.median(medians):.3f} s; slowest {max(medians):.3f} s")


if __name__ == "__main__":
    main()
