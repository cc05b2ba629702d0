"""Grading a class of a foreign nbgrader course, from folders to gradebook, with honest, clumsy and hostile students."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from autograder.books.gradebook import read_standings
from autograder.grade import ClassResult, Progress, grade_assignment
from autograder.jail import JailMode, Limits
from autograder.nbgrader_course import NbgraderCourse, open_course
from autograder.reading.template import Template
from autograder.results import GradingError, SubmissionRecord
from autograder.workers.slots import close_slots
from tests.plain_course import GOOD, cell_of, code, make_course, nbgrader, released, submit

pytestmark = pytest.mark.linux

LIMITS = Limits(cell_seconds=8.0, notebook_seconds=120.0, memory_bytes=2**30, output_bytes=2**18)

PARTLY = {**GOOD, "primes": "def primes(n):\n    return [2, 3, 5, 7] if n == 10 else []"}
WRONG = {**GOOD, "mean": "def mean(numbers):\n    return sum(numbers) / len(numbers)"}
# answers, points of test_mean, test_population, test_primes
HONEST: dict[str, tuple[dict[str, str], tuple[float, float, float]]] = {
    "good": (GOOD, (2, 3, 4)),
    "stub": ({}, (0, 0, 0)),
    "partly": (PARTLY, (2, 3, 2)),
    "wrong": (WRONG, (0, 3, 4)),
    "raises": ({**GOOD, "population": "def population(path):\n    raise KeyError(path)"}, (2, 0, 4)),
    "typo": ({**GOOD, "primes": "def primes(n)\n    return []"}, (2, 3, 0)),
    "prints": ({**GOOD, "mean": GOOD["mean"] + "\nprint('done')"}, (2, 3, 4)),
}
LOOP = "    import time\n    while True:\n        time.sleep(0.01)"
EQUALS = "class N:\n    def __eq__(self, other):\n        return {}\ndef primes(n):\n    return N()"
WARNS = "import warnings\ndef mean(x):\n    warnings.warn('hm')\n    return sum(x) / max(len(x), 1)"
BLANKS = "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])"
FLOOD = GOOD["mean"] + "\nfor i in range(10**4):\n    print('x' * 100)"
# answers, points, status of the first question ("" = any)
CLUMSY: dict[str, tuple[dict[str, str], tuple[float, float, float], str]] = {
    "loops": ({**GOOD, "mean": f"def mean(numbers):\n{LOOP}"}, (0, 3, 4), "timeout"),
    "loops-at-once": ({**GOOD, "mean": f"if True:\n{LOOP}"}, (0, 3, 4), "timeout"),
    "exits": ({**GOOD, "mean": "import os\nos._exit(0)"}, (0, 3, 4), "crashed"),
    "kills": ({**GOOD, "mean": "import os\nos.kill(os.getpid(), 9)"}, (0, 3, 4), "crashed"),
    "eats": ({**GOOD, "mean": "x = [bytearray(2**28) for _ in range(8)]"}, (0, 3, 4), "error|out of memory"),
    "floods": ({**GOOD, "mean": FLOOD}, (2, 3, 4), "passed"),
    "warns": ({**GOOD, "mean": WARNS}, (2, 3, 4), "passed"),
    "nan": ({**GOOD, "primes": EQUALS.format("float('nan')")}, (2, 3, 0), ""),
    "over": ({**GOOD, "primes": EQUALS.format("1000")}, (2, 3, 0), ""),
    "below": ({**GOOD, "primes": EQUALS.format("-5")}, (2, 3, 0), ""),
    "blanks": ({**GOOD, "mean": BLANKS}, (0, 0, 0), "error"),
}


def spoiled(template: Template) -> dict[str, tuple[Any, tuple[float, float, float] | None]]:
    """Submissions whose file is odd: what is handed in, and the points, or None when nothing can be read."""
    no_test = released(template, GOOD)
    no_test["cells"].remove(cell_of(no_test, "test_mean"))
    tagged = released(template, WRONG)
    cell_of(tagged, "test_mean")["metadata"]["tags"] = ["skip-execution"]
    newer = released(template, GOOD)
    cell_of(newer, "test_mean")["metadata"]["nbgrader"]["schema_version"] = 99
    twice = released(template, GOOD)
    twice["cells"].insert(3, json.loads(json.dumps(cell_of(twice, "mean"))))
    twice["cells"][3]["source"] = "def mean(x): return 7"
    no_answer = released(template, GOOD)
    no_answer["cells"].remove(cell_of(no_answer, "primes"))
    helper = released(template, GOOD)
    helper["cells"].insert(3, code("def total(x):\n    return sum(x)"))
    cell_of(helper, "mean")["source"] = "def mean(x):\n    return total(x) / len(x) if x else 0.0"
    return {
        "no-test": (no_test, (2, 3, 4)),
        "tagged": (tagged, (0, 3, 4)),
        "newer": (newer, (2, 3, 4)),
        "twice": (twice, (2, 3, 4)),
        "no-answer": (no_answer, (2, 3, 0)),
        "helper": (helper, (2, 3, 4)),
        "cut-off": (json.dumps(released(template, GOOD)).encode()[:900], None),
        "no-notebook": (b"", None),
    }


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[NbgraderCourse, Template, ClassResult, list[Progress]]:
    course, template = make_course(tmp_path_factory.mktemp("class") / "plain")
    for student, (answers, _) in HONEST.items():
        submit(course, student, released(template, answers))
    for student, (answers, _, _) in CLUMSY.items():
        submit(course, student, released(template, answers))
    for student, (notebook, _) in spoiled(template).items():
        submit(course, student, notebook)
    secret = course.root / "secret.txt"
    secret.write_text("canary")
    folder = submit(course, "helper", spoiled(template)["helper"][0])
    (folder / "link.txt").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    (folder / "helpers.py").write_text("def close(a, b):\n    return True\n")
    (folder / "mine.csv").write_text("1,2\n")
    (course.root / "submitted" / "alias").symlink_to(course.root / "submitted" / "good")
    events: list[Progress] = []
    result = grade_assignment(course.root, "ps1", jobs=2, limits=LIMITS, on_progress=events.append)
    return course, template, result, events


def record(result: ClassResult, student: str) -> SubmissionRecord:
    return next(r for r in result.records if r.student == student)


def points(result: ClassResult, student: str) -> tuple[float | None, ...]:
    return tuple(q.points for q in record(result, student).questions if q.name.startswith("test_"))


Graded = tuple[NbgraderCourse, Template, ClassResult, list[Progress]]


@pytest.mark.parametrize("student", HONEST)
def test_honest_points(graded: Graded, student: str) -> None:
    assert points(graded[2], student) == HONEST[student][1]


@pytest.mark.parametrize("student", CLUMSY)
def test_clumsy_and_hostile_points(graded: Graded, student: str) -> None:
    _, wanted, status = CLUMSY[student]
    assert points(graded[2], student) == wanted
    if status:
        assert record(graded[2], student).questions[0].status in status.split("|")


def test_odd_files(graded: Graded) -> None:
    _, template, result, _ = graded
    for student, (_, wanted) in spoiled(template).items():
        if wanted is None:
            assert record(result, student).outcome == "unreadable"
            assert "ps1.ipynb" in record(result, student).message
            assert record(result, student).points == 0
        else:
            assert points(result, student) == wanted, student
    assert record(result, "no-test").notes
    assert "line 1" in record(result, "cut-off").message


def test_statuses_say_what_happened(graded: Graded) -> None:
    result = graded[2]
    assert [q.status for q in record(result, "stub").questions] == ["missing"] * 5
    wrong = record(result, "wrong").questions[0]
    assert wrong.status == "error"
    assert "ZeroDivisionError" in wrong.message
    typo = record(result, "typo").questions[2]
    assert "SyntaxError" in typo.message
    assert "cell 8" in typo.message
    assert record(result, "good").questions[3].status == "manual"
    assert {q.mode for q in record(result, "good").questions} == {"isolated", "by hand"}
    for student in ("over", "below"):
        assert "cannot leave the submission" in record(result, student).questions[2].message


def test_nothing_but_the_students_own_files_is_used_and_kept(graded: Graded) -> None:
    course, _, result, _ = graded
    told = "\n".join(record(result, "helper").notes)
    assert all(word in told for word in ("link.txt", "pipe", "helpers.py"))
    kept = {path.name for path in course.path("autograded", "helper", "ps1").iterdir()}
    assert kept == {"ps1.ipynb", "mine.csv"}
    assert record(result, "alias").outcome == "refused"
    assert "canary" not in "".join(p.read_text() for p in (course.root / "autograded").rglob("*.ipynb"))


def test_progress_reaches_everybody_once(graded: Graded) -> None:
    _, _, result, events = graded
    assert [e.done for e in events] == list(range(1, len(result.records) + 1))
    assert {e.record.student for e in events} == {r.student for r in result.records}
    assert events[-1].total == len(events)


def test_the_gradebook_holds_the_same_points(graded: Graded) -> None:
    course, _, result, _ = graded
    standings = read_standings(course, "ps1")
    assert set(standings) == {r.student for r in result.records} - {"alias"}
    for student, standing in standings.items():
        assert standing.score == record(result, student).points
        assert standing.max_score == 12
    assert standings["good"].questions["ps1", "why"].needs_manual_grade
    assert not standings["stub"].questions["ps1", "why"].needs_manual_grade
    assert standings["cut-off"].questions["ps1", "test_mean"].needs_manual_grade


def test_a_rerun_does_only_what_changed(graded: Graded) -> None:
    course, template, result, _ = graded
    submit(course, "stub", released(template, PARTLY))
    again = grade_assignment(course.root, "ps1", jobs=1, limits=LIMITS)
    assert again.graded == ("stub",)
    assert points(again, "stub") == (2, 3, 2)
    assert {r.student: r.points for r in again.records if r.student != "stub"} == {
        r.student: r.points for r in result.records if r.student != "stub"
    }
    only = grade_assignment(course.root, "ps1", jobs=1, limits=LIMITS, students=["good", "nobody"], force=True)
    assert only.graded == ("good",)
    assert record(only, "nobody").outcome == "no submission"
    submit(course, "stub", released(template, {}))
    grade_assignment(course.root, "ps1", jobs=1, limits=LIMITS)


def test_unknown_names_list_what_there_is(graded: Graded, tmp_path: Path) -> None:
    course = graded[0]
    for name in ("ps9", "../ps1", ""):
        with pytest.raises(GradingError, match="It holds: ps1"):
            grade_assignment(course.root, name)
    with pytest.raises(GradingError, match="not a course folder"):
        grade_assignment(tmp_path, "ps1")
    close = grade_assignment(course.root, "ps1", students=["goof"], limits=LIMITS)
    assert "did you mean good" in close.records[0].message


def test_an_empty_course_says_where_submissions_go(tmp_path: Path) -> None:
    course, _ = make_course(tmp_path / "plain")
    with pytest.raises(GradingError, match="submitted/STUDENT/ps1"):
        grade_assignment(course.root, "ps1")


def test_stock_nbgrader_agrees_and_its_tools_read_our_results(graded: Graded, tmp_path: Path) -> None:
    """The same honest class through `nbgrader autograde`; then its feedback and export on top of our results."""
    course, _, result, _ = graded
    stock, template = make_course(tmp_path / "stock")
    compared = ("good", "stub", "partly", "raises", "typo")
    for student in compared:
        submit(stock, student, released(template, HONEST[student][0]))
    nbgrader(stock.root, "generate_assignment", "ps1")
    nbgrader(stock.root, "autograde", "ps1")
    theirs, ours = read_standings(stock, "ps1"), read_standings(course, "ps1")
    for student in compared:
        for question, standing in theirs[student].questions.items():
            mine = ours[student].questions[question]
            assert (mine.auto_score, mine.needs_manual_grade, mine.comment) == (
                standing.auto_score,
                standing.needs_manual_grade,
                standing.comment,
            ), (student, question)
    nbgrader(course.root, "generate_feedback", "ps1", "--student", "partly")
    assert "Score: 7" in course.path("feedback", "partly", "ps1").joinpath("ps1.html").read_text()
    nbgrader(course.root, "export")
    exported = (course.root / "grades.csv").read_text()
    assert all(student in exported for student in HONEST)
    # and the other way round: our grader goes on where stock nbgrader stopped
    after = grade_assignment(stock.root, "ps1", jobs=1, limits=LIMITS, students=["good", "partly"])
    assert [r.points for r in after.records] == [record(result, s).points for s in ("good", "partly")]


def _change(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "source" / "ps1" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        (_change("ps1.ipynb", "close(mean([-1, 1]), 0)", "close(mean([-2, 2]), 0)"), True),
        (_change("helpers.py", "1e-9", "1e-8"), True),
        (lambda root: (root / "gradebook.db").unlink(), True),
        (lambda root: (root / "autograded" / "a" / "ps1" / "ps1.ipynb").unlink(), True),
        (lambda root: (root / ".autograder" / "ps1" / "records" / "a.json").write_text("{}"), True),
        (lambda root: None, False),
    ],
)
def test_what_a_result_depends_on(
    small: tuple[Path, Executor], tmp_path: Path, change: Callable[[Path], None], reruns: bool
) -> None:
    root, here = tmp_path / "plain", small[1]
    shutil.copytree(small[0], root)
    change(root)
    again = grade_assignment(root, "ps1", executor=here, limits=LIMITS)
    assert again.graded == (("a",) if reruns else ())
    assert len(again.records) == 1


def test_weak_isolation_has_to_be_asked_for(
    small: tuple[Path, Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, here = tmp_path / "plain", small[1]
    shutil.copytree(small[0], root)
    monkeypatch.setattr("autograder.grade.detect", lambda: JailMode.PLAIN)
    with pytest.raises(GradingError, match="--jail plain"):
        grade_assignment(root, "ps1", executor=here)
    asked = grade_assignment(root, "ps1", executor=here, jail=JailMode.PLAIN, limits=LIMITS)
    assert asked.jail == asked.records[0].jail == "plain"


def test_people_who_are_not_in_the_gradebook(small: tuple[Path, Executor], tmp_path: Path) -> None:
    root = tmp_path / "plain"
    shutil.copytree(small[0], root)
    shutil.copytree(root / "submitted" / "a", root / "submitted" / "stranger")
    shutil.copytree(root / "submitted" / "a", root / "submitted" / "bad\nname")
    (root / "submitted" / "a-file").write_text("not a submission")
    again = grade_assignment(root, "ps1", executor=small[1], limits=LIMITS)
    assert again.added == ("stranger",)
    assert [(r.student, r.outcome) for r in again.records if r.outcome == "refused"] == [("bad\nname", "refused")]
    with (root / "nbgrader_config.py").open("a") as stream:
        stream.write("c.Autograde.create_student = False\n")
    (root / "submitted" / "stranger").rename(root / "submitted" / "other")
    closed = grade_assignment(root, "ps1", executor=small[1], limits=LIMITS)
    assert [r.outcome for r in closed.records if r.student == "other"] == ["refused"]


def test_a_failure_of_the_grader_is_one_students_and_is_tried_again(
    small: tuple[Path, Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "plain"
    shutil.copytree(small[0], root)
    shutil.copytree(root / "submitted" / "a", root / "submitted" / "b")

    def fails(*arguments: Any, **options: Any) -> None:
        raise RecursionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("autograder.judging.worker.examine", fails)
        failed = grade_assignment(root, "ps1", executor=small[1], limits=LIMITS)
    assert [(r.student, r.outcome) for r in failed.records] == [("a", "graded"), ("b", "crashed")]
    assert "RecursionError: a bug" in failed.records[1].message
    assert read_standings(open_course(root), "ps1")["b"].questions["ps1", "test_mean"].needs_manual_grade
    again = grade_assignment(root, "ps1", executor=small[1], limits=LIMITS)
    assert again.graded == ("b",)
    assert again.records[1].outcome == "graded"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Executor]]:
    """A graded class of one, and an executor that keeps its grading slot warm."""
    course, template = make_course(tmp_path_factory.mktemp("small") / "plain")
    submit(course, "a", released(template, {}))
    with ThreadPoolExecutor(1) as here:
        grade_assignment(course.root, "ps1", executor=here, limits=LIMITS)
        yield course.root, here
        here.submit(close_slots).result()
