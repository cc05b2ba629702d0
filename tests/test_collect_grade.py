"""From a download of a learning management system to grades: six students, their attempts, and what else came along."""

from __future__ import annotations

import json
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from autograder.books.gradebook import read_standings
from autograder.collect.receipts import received
from fourbit import cli
from tests.downloads import enroll, notebook, roster_csv, tree, zip_bytes, zipped
from tests.plain_course import make_course, nbgrader

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(sys.platform != "linux", reason="grading needs Linux"),
]


@pytest.fixture
def fourbit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["fourbit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("NO_COLOR", "1")
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        assert (end.value.code or 0) == status, out + err
        return out

    return run


def test_a_download_becomes_grades(tmp_path: Path, fourbit: Callable[..., str]) -> None:
    course, template = make_course(tmp_path / "course")
    (tmp_path / "roster.csv").write_text(roster_csv(), encoding="utf-8")
    nbgrader(course.root, "db", "student", "import", str(tmp_path / "roster.csv"))
    nbgrader(course.root, "db", "assignment", "add", "ps1", "--duedate", "2026-11-20 23:59:00 UTC")
    good, bad = notebook(template), notebook(template, mean="def mean(numbers):\n    return 0.0")
    cells = [dict(cell) for cell in json.loads(good)["cells"]]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["input"] = cell.pop("source")
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [{"metadata": {}, "cells": cells}],
    }
    full = sum(cell.points for cell in template.notebooks[0].graded if cell.role == "test")
    name = "Problem Set 1_{}_attempt_2026-11-{}_{}"
    export = tmp_path / "gradebook_CS1_Problem Set 1.zip"
    link = zipfile.ZipInfo("Problem Set 1_louis_attempt_2026-11-20-11-00-00_secret.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(export, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in {
            name.format("ben", "19-10-00-00", "ps1.ipynb"): bad,
            name.format("ben", "20-10-00-00", "ps1 (1).ipynb"): good,
            name.format("ben", "21-10-00-00", "ps1.ipynb"): bad,  # late, and worse
            name.format("alyssa", "21-10-00-00", "ps1.ipynb"): bad,
            name.format("alyssa", "22-10-00-00", "work.zip"): zip_bytes({"ps1/ps1.ipynb": good, "../../x": b"evil"}),
            name.format("lem", "20-10-00-00", "ps1.ipynb"): json.dumps(old),
            name.format("eva", "20-10-00-00", "ps1.html"): b"<html>",
            name.format("louis", "20-11-00-00", "anything.ipynb"): good,
            name.format("louis", "20-11-00-00", "timestamp.txt"): b"1999-01-01 00:00:00 UTC",
            name.format("louis", "20-11-00-00", "zeros.bin"): b"\0" * (5 * 2**20),
            name.format("mallory", "20-10-00-00", "x_ben_attempt_2026-11-20-12-00-00_ps1.ipynb"): bad,
            "../../course/gradebook.db": b"evil",
            "/etc/evil": b"evil",
        }.items():
            archive.writestr(entry, data)
        archive.writestr(link, "/etc/passwd")
    outside = {path.name for path in tmp_path.iterdir()}

    said = fourbit("collect", "ps1", export, "--course", course.root)
    assert "mallory" in said
    assert "its path is absolute" in said
    assert "as zip bombs do" in said
    assert "a link" in said
    assert {path.name for path in tmp_path.iterdir()} == outside
    assert b"evil" not in tree(course.root).values()
    receipts = received(course, "ps1")
    assert {student: receipt.at[8:13] for student, receipt in receipts.items()} == {
        "ben": "20T10", "alyssa": "22T10", "lem": "20T10", "eva": "20T10", "louis": "20T11",
    }  # fmt: skip

    fourbit("grade", "ps1", "--course", course.root, "--jobs", 2, status=3)  # one could not be graded
    scores = {student: standing.score for student, standing in read_standings(course, "ps1").items()}
    assert scores == {"ben": full, "alyssa": full, "lem": full, "eva": 0.0, "louis": full}
    feedback = (course.root / "feedback" / "eva" / "ps1" / "ps1.html").read_text()
    assert "hand in the .ipynb file itself" in feedback

    assert "5 students, 8 attempts (0 new)" in fourbit("collect", "ps1", export, "--course", course.root)


def test_lateness_without_a_time_is_told_and_costs_nothing_by_itself(
    tmp_path: Path, fourbit: Callable[..., str]
) -> None:
    course, template = make_course(tmp_path / "course")
    enroll(course, due="2026-11-20 23:59:00 UTC")
    export = zipped(tmp_path / "x.zip", {"bitdiddleben_LATE_12345_1_ps1.ipynb": notebook(template)})
    assert "late by its name" in fourbit("collect", "ps1", export, "--course", course.root)
    fourbit("grade", "ps1", "--course", course.root)
    assert read_standings(course, "ps1")["ben"].late_penalty == 0
    record = (course.root / ".autograder" / "ps1" / "records" / "ben.json").read_text()
    assert "calls this late" in record
    said = fourbit("collect", "ps1", export, "--course", course.root, "--received", "2026-11-21 12:00")
    assert "2026-11-21 12:00:00" in said
