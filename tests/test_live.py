"""What `fourbit grade` shows and says while it runs: to people, to logs, to programs, and when it is stopped."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from autograder.books.journal import journal_of
from autograder.books.regrade import Change, QuestionChange
from autograder.class_run import Progress
from autograder.grade import ClassResult
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from autograder.results import QuestionRecord, SubmissionRecord
from autograder.terminal.grading_command import summary
from autograder.terminal.live import Display, Pace, changes_table, duration, grading_progress
from autograder.terminal.log import log_path, write_log
from tests.plain_course import GOOD, make_course, released, submit

pytestmark = pytest.mark.linux

PATIENT = ("--limit", "cell-seconds=500")
HALF = {**GOOD, "mean": "def mean(numbers):\n    return 1 / 0"}


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


def start(root: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "fourbit", "grade", "ps1", "--jobs", "1", *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, cwd=root, env=environment, text=True, start_new_session=True, **pipes)


def grade(root: Path, *arguments: str) -> Done:
    process = start(root, *arguments)
    stdout, stderr = process.communicate(timeout=300)
    return Done(process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[NbgraderCourse, Template, Done]:
    """A class of three, one of them cut off in the middle, graded for programs."""
    course, template = make_course(tmp_path_factory.mktemp("live") / "plain")
    submit(course, "good", released(template, GOOD))
    submit(course, "half", released(template, HALF))
    submit(course, "cut-off", json.dumps(released(template, GOOD)).encode()[:900])
    return course, template, grade(course.root, "--json")


def test_json_lines_are_all_that_stdout_holds(first: tuple[NbgraderCourse, Template, Done]) -> None:
    course, _, done = first
    *submissions, summary = done.lines
    assert {line["type"] for line in submissions} == {"submission"}
    found = {line["student"]: line for line in submissions}
    assert set(found) == {"good", "half", "cut-off"}
    assert found["good"]["points"] == 9.0  # 3 of 12 wait for a person
    assert found["good"]["waiting"] == 2
    assert found["cut-off"]["outcome"] == "unreadable"
    question = next(q for q in found["half"]["questions"] if q["name"] == "test_mean")
    assert (question["status"], question["points"]) == ("error", 0.0)
    assert "ZeroDivisionError" in question["message"]
    assert [line["done"] for line in submissions] == [1, 2, 3]
    assert summary["type"] == "summary"
    wanted = {"schema": 1, "total": 3, "graded": 3, "unchanged": 0, "failed": 1, "complete": True, "changes": []}
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["course"] == str(course.root)


def test_people_read_stderr_meanwhile(first: tuple[NbgraderCourse, Template, Done]) -> None:
    done = first[2]
    assert "unreadable: ps1.ipynb" in done.stderr
    assert re.search(r"^2 graded, 1 without a grade; \d at a time, .* a minute$", done.stderr, re.MULTILINE)
    assert str(first[0].root / ".autograder" / "ps1" / "logs") in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("graded", "unchanged", "retimed", "says"),
    [
        ("abcdef", "", "", "5 graded, 1 without a grade; 2 at a time, isolation: namespaces; 30.0 s, 12 a minute"),
        ("ab", "cde", "de", "2 graded, 3 as before (2 with another time or late penalty), 1 without a grade; "
         "2 at a time, isolation: namespaces; 30.0 s, 4 a minute"),
        ("", "abcdef", "f", "5 as before, 1 without a grade; 30.0 s"),
        ("f", "abcde", "", "5 as before, 1 without a grade; 2 at a time, isolation: namespaces; 30.0 s, 2 a minute"),
    ],
)  # fmt: skip
def test_the_summary_counts_everybody_once_and_has_a_rate_where_something_ran(
    graded: str, unchanged: str, retimed: str, says: str
) -> None:
    records = [SubmissionRecord("ps1", student, "unreadable" if student == "f" else "graded") for student in "abcdef"]
    result = ClassResult(
        Path("course"), "ps1", tuple(records), tuple(graded), tuple(unchanged), (), "namespaces", 2, 30.0,
        retimed=tuple(retimed),
    )  # fmt: skip
    assert summary(result) == says


def test_the_exit_status_says_that_somebody_has_no_grade(first: tuple[NbgraderCourse, Template, Done]) -> None:
    course, _, done = first
    assert done.status == 3
    assert grade(course.root, "--student", "good").status == 0
    assert grade(course.root.parent).status == 1


def test_each_submission_has_a_log(first: tuple[NbgraderCourse, Template, Done]) -> None:
    logs = Path(first[2].lines[-1]["logs"])
    assert {path.name for path in logs.iterdir()} == {"good.log", "half.log", "cut-off.log"}
    text = (logs / "half.log").read_text()
    assert "ps1, half: graded" in text
    assert "why: for the first time" in text
    assert "ZeroDivisionError" in text
    assert "ps1 cell 2: ok" in text
    assert "unreadable" in (logs / "cut-off.log").read_text()


def test_a_log_has_no_control_characters_and_stays_in_its_folder(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, "ps1")
    question = QuestionRecord("ps1", "q\x1b[31m", "failed", 0.0, 1.0, "in process", "red \x1b]0;title\x07 text", cell=3)
    record = SubmissionRecord("ps1", "../../out", "graded", (question,), notes=("bell \x07",))
    write_log(journal, record, ("ps1 cell 1: ok \x1b[2J",))
    path = log_path(journal, "../../out")
    assert path.parent == journal.folder / "logs"
    text = path.read_text()
    assert "red" in text
    assert not set(text) & {"\x1b", "\x07"}


def test_what_was_graded_again_and_why_and_what_that_changed(first: tuple[NbgraderCourse, Template, Done]) -> None:
    course, template, _ = first
    submit(course, "half", released(template, GOOD))
    done = grade(course.root, "--json")
    half = next(line for line in done.lines if line.get("student") == "half")
    assert (half["changed"], half["reason"]) == (True, "submission")
    (change,) = done.lines[-1]["changes"]
    assert (change["student"], change["reason"]) == ("half", "submission")
    assert change["new"] > change["old"]
    assert {q["name"]: (q["old"], q["new"]) for q in change["questions"]}["test_mean"][0] == 0.0
    assert "again: submission" in done.stderr
    assert "Graded again with other points" in done.stderr
    assert re.search(r"^1 graded, 1 as before, 1 without a grade; ", done.stderr, re.MULTILINE)
    log = (Path(done.lines[-1]["logs"]) / "half.log").read_text()
    assert "why: submission (graded before)" in log
    assert "points were" in log


def test_a_terminal_has_a_bar(first: tuple[NbgraderCourse, Template, Done]) -> None:
    ours, theirs = pty.openpty()
    process = start(first[0].root, "--force", "-s", "good", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while data := _read(ours):
        shown += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode("utf-8", "replace")
    assert "Grading ps1" in text
    assert "running" in text
    assert "again: forced" in text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # a terminal whose other side is gone
        return b""


@pytest.fixture
def looping(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A class whose second submission never ends, when the first is settled."""
    course, template = make_course(tmp_path / "plain")
    submit(course, "a-good", released(template, GOOD))
    submit(course, "b-loops", released(template, {**GOOD, "mean": "while True:\n    pass"}))
    process = start(course.root, "--json", *PATIENT)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["student"] == "a-good"
    yield course.root, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_ctrl_c_keeps_what_is_graded_and_ends_everything(looping: tuple[Path, subprocess.Popen[str]]) -> None:
    root, process = looping
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "1 of 2 submissions are settled and kept" in stderr
    assert "fourbit grade ps1" in stderr
    summary = json.loads(stdout.splitlines()[-1])
    assert (summary["complete"], summary["graded"]) == (False, 1)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, alive
    again = grade(root, "--json", "--student", "a-good", *PATIENT)
    assert [line.get("changed") for line in again.lines[:1]] == [False]


def test_a_second_ctrl_c_ends_at_once(looping: tuple[Path, subprocess.Popen[str]]) -> None:
    _, process = looping
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.02)
    with_hope = [os.kill(process.pid, signal.SIGINT) for _ in range(3) if process.poll() is None]
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert with_hope
    assert not psutil.wait_procs(family, timeout=30)[1]


def settled(number: int, total: int, status: str = "passed", outcome: str = "graded") -> Progress:
    question = QuestionRecord("ps1", "q", status, 1.0 if status == "passed" else 0.0, 1.0, "isolated")  # type: ignore[arg-type]
    record = SubmissionRecord("ps1", f"s{number:04}", outcome, (question,), "what happened")  # type: ignore[arg-type]
    return Progress(number, total, record, True, number / 10, 2, 0, "", ("next", "after"))


@pytest.mark.parametrize(("each", "most"), [(False, 10), (True, 3010)])
def test_three_thousand_students_are_no_three_thousand_lines(each: bool, most: int) -> None:
    text = io.StringIO()
    display = Display(Console(file=text, width=100), "Grading ps1", each)
    for number in range(1, 3001):
        status = {700: "timeout", 900: "failed"}.get(number, "passed")
        outcome = "unreadable" if number == 1500 else "graded"
        display(settled(number, 3000, status, outcome))
    lines = text.getvalue().splitlines()
    assert len(lines) <= most
    told = {line.split()[0] for line in lines if line.startswith("  s")}
    assert {"s0700", "s1500"} <= told
    assert ("s0900" in told) == each


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.terminal.live._SECONDS_BETWEEN_LINES", 0.0)
    text = io.StringIO()
    display = Display(Console(file=text, width=200), "Grading ps1")
    for number in range(1, 80):
        display(settled(number, 100))
    lines = text.getvalue().splitlines()
    assert "Grading ps1: 1 / 100 done, 2 running (next, after)" in lines
    assert any(line.startswith("Grading ps1: 79 / 100 done, ") and "a grade" not in line for line in lines)
    display(replace(settled(80, 100), failed=3))
    assert re.search(r"Grading ps1: 80 / 100 done, .*3 without a grade.*, 2 running \(next, after\)", text.getvalue())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_keeps_the_count_and_the_time_left(width: int) -> None:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    with grading_progress(console, "Grading 01-pruning") as show:
        assert isinstance(show, Display)
        assert show.bar is not None
        show.pace.started, show.pace.graded = time.monotonic() - 60, 12
        show(replace(settled(13, 40), flying=("[/odd]", "quite-a-long-name")))
        show.bar.refresh()
    shown = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()))
    line = next(line for line in reversed(shown) if "Grading" in line)
    assert re.search(r"Grading 01-pruning ━.* 13/40 \d+:\d\d left", line)
    assert len(line) <= width
    assert ("[/odd]" in line) == (width == 120)


def test_the_time_left_counts_what_is_run_only() -> None:
    pace = Pace()
    assert pace.left(10) is None
    for number in range(1, 4):
        pace.count(settled(number, 10))
    assert pace.started is not None
    pace.started -= 60.0  # a minute ago
    assert pace.per_minute() == pytest.approx(2, rel=0.05)
    assert pace.left(10) == pytest.approx(7 * 30, rel=0.05)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1 h 00 min"), (7260, "2 h 01 min")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_largest_changes_come_first_and_the_rest_is_counted() -> None:
    changes = [
        Change(f"s{n:02}", "exam", 10, 10 - n, (QuestionChange("ps1", "q", "q [x]", None, 1.0),)) for n in range(30)
    ]
    text = io.StringIO()
    Console(file=text, width=160).print(changes_table(changes))
    assert text.getvalue().index("s29") < text.getvalue().index("s11")
    assert "and 10 more" in text.getvalue()
    assert "q [x]: waits for a person -> 1" in text.getvalue()
    assert changes_table([]) is None
