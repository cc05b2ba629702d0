"""The grading benchmark's instruments: what they count, and that its targets can be missed."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import grading_report
from benchmarks.grading import differing
from benchmarks.grading_courses import light_course
from benchmarks.grading_meter import measured

pytestmark = pytest.mark.linux

BURNS = """
import json, subprocess, sys, time
for number in range(3):
    print(json.dumps({"type": "submission", "done": number}), flush=True)
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass"])
print("no JSON")
print(json.dumps({"type": "summary"}))
"""

LAB: dict[str, Any] = {
    "assignment": "lab", "students": 2, "machine": {"cpu": "a processor"},
    "floor": {"each": 1.0, "runs": [1.0, 1.0], "cpu": 1.0, "asking": 0.5, "judging": 0.1},
    "ours": {
        jobs: {"wall": 9.0, "cpu": 9.0, "whole_each": 4.0, "each": 1.2 / int(jobs), "cpu_each": 1.2, "first": 3.0,
               "after": 1.0, "worker_bytes": 2**28, "own_bytes": 2**27}
        for jobs in ("1", "2")
    },
    "stock": {"students": 2, "wall": 80.0, "cpu": 70.0, "each": 40.0, "cpu_each": 35.0},
    "points": {"students": 2, "compared": 4, "differ": []},
}  # fmt: skip


def test_processes_of_processes_are_counted_and_json_lines_timed(tmp_path: Path) -> None:
    ticks: list[int] = []
    run = measured([sys.executable, "-c", BURNS], tmp_path, ticks.append, lambda: 7)
    assert run.cpu >= 0.6
    assert [line["type"] for line in run.lines] == ["submission"] * 3 + ["summary"]
    assert run.each()[0] >= 0.2
    assert set(ticks) == {7}
    assert run.own
    with pytest.raises(SystemExit, match="status 3"):
        measured([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path, ticks.append, lambda: 0)


def test_targets_are_reached_and_missed() -> None:
    assert [t["reached"] for t in grading_report.targets({"lab": LAB, "light": LAB})] == [True, True, True, True]
    slow = copy.deepcopy(LAB)
    slow["ours"]["1"]["each"] = 1.4
    slow["points"]["differ"] = differing({"a": {"q": 1.0}}, {"a": {"q": 0.0}, "b": {"q": 1.0}})["differ"]
    assert [t["reached"] for t in grading_report.targets({"lab": slow, "light": slow})] == [False] * 4


def test_the_report_shows_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(grading_report, "Console", lambda **options: Console(file=text, width=160))
    found = json.loads(json.dumps({"lab": LAB}))
    grading_report.show(found | {"targets": grading_report.targets(found)})
    for words in ("fourbit, 2 slot(s)", "nbgrader (2)", "1.20", "4 points of 2 submissions compared", "reached"):
        assert words in text.getvalue()


def test_the_floor_runs_every_submission_and_says_what_each_took(tmp_path: Path) -> None:
    course = tmp_path / "course"
    light_course(course, 4)
    command = [sys.executable, "-m", "benchmarks.grading_floor", str(course), "light"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["seconds"]) == 4
    assert all(0 < seconds < 60 for seconds in found["seconds"].values())
