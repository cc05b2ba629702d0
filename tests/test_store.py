"""The store: one writer, nothing of a human's is lost, and whatever is interrupted can be finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from autograder.books.arrival import Arrival, Receipts
from autograder.books.grade_rows import ensure_submission, read_assignment, write_grades
from autograder.books.gradebook import open_gradebook, read_standings
from autograder.books.journal import Journal, journal_of
from autograder.books.regrade import PARTS, reason_for
from autograder.books.store import Store, Stored
from autograder.nbgrader_course import NbgraderCourse, load_template, open_course
from autograder.reading.template import Template
from autograder.results import GradingError, QuestionRecord, SubmissionRecord, from_json
from tests.plain_course import make_course, nbgrader, released
from tests.postgres import Server

pytestmark = pytest.mark.linux


Course = tuple[NbgraderCourse, Template]
TABLES = ("grade", "comment", "submitted_notebook", "student")  # those that get an index


def set_config(root: Path, line: str) -> NbgraderCourse:
    """Add a line to the course's configuration."""
    with (root / "nbgrader_config.py").open("a") as stream:
        stream.write(line + "\n")
    return open_course(root)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Template, Server | None, str]:
    """A course with an empty gradebook, which takes nbgrader a while to make."""
    course, template = make_course(tmp_path_factory.mktemp("prepared") / "plain")
    server = database = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        database = server.new_database()
        course = set_config(course.root, f'c.CourseDirectory.db_url = "{server.url(database)}"')
    Store(course, template).close()
    return course.root, template, server, database or ""


@pytest.fixture
def course(prepared: tuple[Path, Template, Server | None, str], tmp_path: Path) -> Course:
    root, template, server, database = prepared
    shutil.copytree(root, tmp_path / "plain")
    if server is not None:
        copy = server.url(server.new_database(database))
        return set_config(tmp_path / "plain", f'c.CourseDirectory.db_url = "{copy}"'), template
    return open_course(tmp_path / "plain"), template


def record(student: str = "ada", mean: float = 2.0, why: str = "first", key: str = "k1") -> SubmissionRecord:
    def question(name: str, points: float | None, most: float, answer: str = "same") -> QuestionRecord:
        status = "manual" if points is None else "passed" if points == most else "failed"
        return QuestionRecord("ps1", name, status, points, most, "in process", answer=answer)

    questions = (
        question("test_mean", mean, 2), question("test_population", 3.0, 3), question("test_primes", 1.5, 4),
        question("why", None, 2, why), question("table", None, 1),
    )  # fmt: skip
    return SubmissionRecord("ps1", student, "graded", questions, key=key)


def notebook(template: Template) -> dict[str, str]:
    return {"ps1": json.dumps(released(template))}


def arrived(when: str) -> Arrival:
    """A submission with a timestamp.txt."""
    return Receipts({}).arrival("anybody", {"timestamp.txt": when.encode()})


def write(
    course: NbgraderCourse,
    template: Template,
    found: SubmissionRecord,
    when: str = "",
    reason: str = "",
    **files: bytes,
) -> Stored:
    with Store(course, template) as store:
        return store.write(found, notebook(template), files, arrived(when), reason=reason)


def due(course: NbgraderCourse, when: str) -> None:
    gradebook = open_gradebook(course)
    gradebook.update_or_create_assignment("ps1", duedate=when)
    gradebook.close()


def by_hand(course: NbgraderCourse, student: str = "ada") -> None:
    """What an instructor does in formgrader: a score, extra credit, a comment, an override."""
    gradebook = open_gradebook(course)
    grade = gradebook.find_grade("why", "ps1", "ps1", student)
    grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 1.5, 0.5, False
    gradebook.find_comment("why", "ps1", "ps1", student).manual_comment = "Good, but say why."
    override = gradebook.find_grade("test_primes", "ps1", "ps1", student)
    override.manual_score, override.needs_manual_grade = 4.0, False
    gradebook.db.commit()
    gradebook.close()


def test_what_humans_decided_survives_a_regrade(course: Course) -> None:
    write(*course, record())
    by_hand(course[0])
    write(*course, record(mean=0.0, key="k2"))
    standing = read_standings(course[0], "ps1")["ada"]
    why = standing.questions["ps1", "why"]
    assert (why.manual_score, why.extra_credit, why.comment, why.score) == (1.5, 0.5, "Good, but say why.", 2.0)
    assert standing.questions["ps1", "test_mean"].score == 0
    assert standing.questions["ps1", "test_primes"].score == 4
    assert not why.needs_manual_grade
    assert not standing.questions["ps1", "test_primes"].needs_manual_grade


def test_a_changed_answer_is_looked_at_again_even_after_a_crash(course: Course) -> None:
    write(*course, record())
    by_hand(course[0])
    journal_of(course[0].root, "ps1").keep(record(why="rewritten", key="k2"))
    write(*course, record(why="rewritten", key="k2"))
    assert read_standings(course[0], "ps1")["ada"].questions["ps1", "why"].needs_manual_grade


def test_a_changed_answer_is_looked_at_again(course: Course) -> None:
    write(*course, record())
    by_hand(course[0])
    write(*course, record(why="rewritten", key="k2"))
    questions = read_standings(course[0], "ps1")["ada"].questions
    assert questions["ps1", "why"].needs_manual_grade
    assert questions["ps1", "why"].manual_score == 1.5
    assert not questions["ps1", "test_primes"].needs_manual_grade


def test_late_work_gets_the_courses_own_penalty(course: Course) -> None:
    with (course[0].root / "nbgrader_config.py").open("a") as stream:
        stream.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    late = (open_course(course[0].root), course[1])
    due(late[0], "2026-03-01 12:00 UTC")
    with Store(*late) as store:
        store.write(record("late"), notebook(course[1]), {}, arrived("2026-03-02 08:00:00.0 UTC"))
        store.write(record("early"), notebook(course[1]), {}, arrived("2026-02-02 08:00:00.0 UTC"))
        for student, nonsense in (
            ("a", "yesterday-ish"),
            ("b", "2999-01-01 00:00 UTC"),
            ("c", "\x00" * 50),
            ("d", "9" * 400),
        ):
            store.write(record(student), notebook(course[1]), {}, arrived(nonsense))
        store.write(record("late"), notebook(course[1]), {}, arrived("2026-03-02 08:00:00.0 UTC"))
    standings = read_standings(late[0], "ps1")
    assert standings["late"].late_penalty == 6.5
    assert standings["late"].score == 0
    assert {s.late_penalty for name, s in standings.items() if name != "late"} == {0}


def test_files_are_replaced_and_leftovers_go(course: Course) -> None:
    write(*course, record(), **{"old.csv": b"1", "both": b"file"})
    folder = course[0].path("autograded", "ada", "ps1")
    (folder / ".ps1.ipynb.new").write_text("a leftover of a crash")
    (folder / "link").symlink_to("/etc/passwd")
    write(*course, record(key="k2"), "2026-03-02 08:00:00 UTC", **{"both/inner.csv": b"2"})
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"ps1.ipynb", "both/inner.csv", "timestamp.txt"}
    assert Path("/etc/passwd").exists()


def test_records_and_journal_round_trip(course: Course, tmp_path: Path) -> None:
    odd = record("../..")
    write(*course, record())
    journal = journal_of(course[0].root, "ps1")
    journal.keep(odd)
    journal.finish(odd)
    assert journal.record("../..") == odd
    assert {p.parent for p in (course[0].root / ".autograder").rglob("*.json")} == {journal.folder / "records"}
    with journal.path.open("a") as stream:
        stream.write('{"student": "eve", "key": "half a li')
    journal.keep(record("bob"))
    journal.finish(record("bob"))
    assert set(journal.finished()) == {"ada", "../..", "bob"}
    assert from_json(record().to_json()) == record()


@pytest.mark.parametrize(
    "change",
    [
        {"points": float("nan")}, {"points": -1.0}, {"points": 2.5}, {"status": "great"}, {"mode": "psychic"},
        {"message": "x" * 5000}, {"max_points": float("inf")},
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        replace(record().questions[0], **change)
    text = json.loads(record().to_json())
    text["questions"][0] |= change
    with pytest.raises(GradingError, match="not valid at"):
        from_json(json.dumps(text))


def test_a_regrade_leaves_an_account(course: Course) -> None:
    write(*course, record())
    journal = journal_of(course[0].root, "ps1")
    assert journal.history() == []
    stored = write(*course, record(mean=0.5, key="k2"), reason="submission")
    ((at, change),) = journal.history()
    assert stored.change == change
    assert (change.student, change.reason, change.old, change.new) == ("ada", "submission", 6.5, 5.0)
    assert [(q.name, q.old, q.new) for q in change.questions] == [("test_mean", 2.0, 0.5)]
    assert at.endswith("+00:00")
    write(*course, record(mean=0.5, key="k2"), reason="forced")
    write(*course, record(mean=0.5, key="k2"), reason="forced")
    assert [(c.reason, c.questions) for _, c in journal.history()[1:]] == [("forced", ())]


@pytest.mark.parametrize(
    ("now", "key", "force", "reason"),
    [
        ({"source": "b"}, "k", False, "source"),
        ({"submission": "b", "limits": "b"}, "k", True, "submission, limits"),
        ({}, "k", True, "forced"),
        ({}, "k", False, "lost"),
        ({"exam": "b"}, "", False, "crashed"),
    ],
)
def test_the_reason_for_a_regrade(now: dict[str, str], key: str, force: bool, reason: str) -> None:
    before = dict.fromkeys(PARTS, "a")
    assert reason_for(before, key, before | now, force) == reason
    assert reason_for(None, "", before, force) == ""
    assert reason_for({}, "k", before, force) == "engine"


def test_a_second_grader_is_refused_until_the_first_is_gone(course: Course) -> None:
    script = (
        "import sys, time\nfrom autograder.nbgrader_course import load_template, open_course\n"
        "from autograder.books.store import Store\ncourse = open_course(sys.argv[1])\n"
        "store = Store(course, load_template(course, 'ps1'))\nprint('open', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(course[0].root)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(GradingError, match=rf"graded already, by process {other.pid} on .+ since 20"):
            Store(*course)
        other.kill()
    write(*course, record())


def test_a_long_foreign_name_has_a_record(course: Course) -> None:
    name = "Ж" * 100
    write(*course, record(name))
    assert journal_of(course[0].root, "ps1").record(name) is not None


def change_source(root: Path, change: Callable[[list[dict[str, Any]]], None]) -> Template:
    path = root / "source" / "ps1" / "ps1.ipynb"
    found = json.loads(path.read_text())
    change(found["cells"])
    path.write_text(json.dumps(found))
    return load_template(open_course(root), "ps1")


def new_question(cells: list[dict[str, Any]]) -> None:
    """One more answer and its test, a locked cell less."""
    for like, name in (("mean", "median"), ("test_mean", "test_median")):
        cell = json.loads(
            json.dumps(next(c for c in cells if c["metadata"].get("nbgrader", {}).get("grade_id") == like))
        )
        cell["metadata"]["nbgrader"]["grade_id"] = cell["id"] = name
        cells.append(cell)
    cells[:] = [cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id") != "setup"]


def test_a_question_that_is_new_is_added_and_nothing_of_a_humans_is_lost(course: Course) -> None:
    write(*course, record())
    by_hand(course[0])
    template = change_source(course[0].root, new_question)
    more = replace(
        record(key="k2"), questions=(*record().questions, replace(record().questions[0], name="test_median"))
    )
    write(course[0], template, more)
    standing = read_standings(course[0], "ps1")["ada"]
    assert standing.questions["ps1", "test_median"].score == 2
    assert standing.max_score == 14
    assert standing.questions["ps1", "why"].comment == "Good, but say why."
    assert standing.questions["ps1", "why"].score == 2
    nbgrader(course[0].root, "generate_assignment", "ps1", "--force")  # finds no difference to refuse
    write(course[0], template, more)
    assert read_standings(course[0], "ps1")["ada"] == standing


def test_an_assignment_that_changed_its_cells_is_told(course: Course) -> None:
    write(*course, record())
    path = course[0].root / "source" / "ps1" / "ps1.ipynb"
    path.write_text(path.read_text().replace('"test_mean"', '"test_average"'))
    with pytest.raises(GradingError, match="Restore the grade ids"):
        Store(course[0], load_template(course[0], "ps1"))


def test_new_points_and_tests_are_taken_over(course: Course) -> None:
    write(*course, record())
    path = course[0].root / "source" / "ps1" / "ps1.ipynb"
    path.write_text(path.read_text().replace('"points": 4', '"points": 8'))
    write(course[0], load_template(course[0], "ps1"), record(key="k2"))
    assert read_standings(course[0], "ps1")["ada"].max_score == 16


def test_a_database_that_cannot_be_used_says_so_without_its_password(course: Course) -> None:
    with (course[0].root / "nbgrader_config.py").open("a") as stream:
        stream.write('c.CourseDirectory.db_url = "postgresql://teacher:hunter2@localhost:1/grades"\n')
    with pytest.raises(GradingError, match="gradebook postgresql") as error:
        Store(open_course(course[0].root), course[1])
    assert "hunter2" not in str(error.value)
    (course[0].root / "gradebook.db").write_text("not a database at all, but long enough to be looked at")
    broken = set_config(course[0].root, f'c.CourseDirectory.db_url = "sqlite:///{course[0].root / "gradebook.db"}"')
    with pytest.raises(GradingError, match=r"gradebook\.db cannot be used"):
        Store(broken, course[1])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moment", ["rows", "record", "files", "journal"])
def test_killed_at_any_moment_it_is_either_old_or_graded_again(course: Course, moment: str, after: bool) -> None:
    write(*course, record())
    assert killed_while_writing(*course, moment, after) == -signal.SIGKILL
    finished = journal_of(course[0].root, "ps1").finished()
    assert finished == {"ada": "k2" if (moment, after) == ("journal", True) else "k1"}
    score = read_standings(course[0], "ps1")["ada"].questions["ps1", "test_mean"].auto_score
    assert score == (2.0 if moment in ("rows", "record") else 0.0)
    write(*course, record(mean=0.0, key="k2"))
    assert read_standings(course[0], "ps1")["ada"].questions["ps1", "test_mean"].auto_score == 0.0
    assert journal_of(course[0].root, "ps1").finished() == {"ada": "k2"}


def killed_while_writing(course: NbgraderCourse, template: Template, moment: str, after: bool) -> int:
    """Write a second result in a process that is killed before or after one step; returns its exit code."""
    owner, name = {
        "rows": (Store, "_write_rows"),
        "record": (Journal, "keep"),
        "files": (Store, "_write_files"),
        "journal": (Journal, "finish"),
    }[moment]
    real = getattr(owner, name)

    def step(*arguments: Any) -> None:
        if after:
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            setattr(owner, name, step)
            write(course, template, record(mean=0.0, key="k2"))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_formgraders_lists_grow_with_the_class_and_not_with_its_square(tmp_path: Path) -> None:
    """Steps of SQLite's machine for the lists of students, of submissions and of one notebook's submissions."""
    from sqlalchemy import event

    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n")
    gradebook = open_gradebook(open_course(tmp_path))
    gradebook.add_assignment("ps1")
    gradebook.add_notebook("ps1", "ps1")
    for cell in ("a", "b"):
        gradebook.add_grade_cell(cell, "ps1", "ps1", max_score=1, cell_type="code")
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    event.listen(gradebook.engine, "connect", lambda connection, _: connection.set_progress_handler(count, 50))
    assignment, taken = read_assignment(gradebook, "ps1"), []
    (part,) = assignment.notebooks
    questions = tuple(QuestionRecord("ps1", cell, "passed", 1.0, 1.0, "in process") for cell in ("a", "b"))
    known = 0
    for size in (50, 500):
        for number in range(known, size):
            found = SubmissionRecord("ps1", f"s{number}", "graded", questions)
            submission = ensure_submission(gradebook.db, assignment, found.student)
            write_grades(gradebook.db, part, submission.notebooks[part.id], found, None)
        gradebook.db.commit()
        gradebook.db.remove()
        gradebook.engine.dispose()
        taken.append([])
        for rows in (
            gradebook.student_dicts,
            lambda: gradebook.submission_dicts("ps1"),
            lambda: gradebook.notebook_submission_dicts("ps1", "ps1"),
        ):
            steps = 0
            assert [row["score"] for row in rows()] == [2.0] * size
            taken[-1].append(steps)
        known = size
    gradebook.close()
    assert all(few > 0 and many < 15 * few for few, many in zip(*taken, strict=True)), taken


def test_a_gradebook_that_may_only_be_read_is_read_without_the_indexes(tmp_path: Path) -> None:
    from sqlalchemy import inspect, text

    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n")
    gradebook = open_gradebook(open_course(tmp_path))
    gradebook.add_student("ada")
    names = {table: [index["name"] for index in inspect(gradebook.engine).get_indexes(table)] for table in TABLES}
    assert all(len(found) == 1 for found in names.values())
    with gradebook.engine.begin() as connection:
        for (name,) in names.values():
            connection.execute(text(f"DROP INDEX {name}"))
    gradebook.close()
    address = f"sqlite:///file:{tmp_path / 'gradebook.db'}?mode=ro&uri=true"
    gradebook = open_gradebook(set_config(tmp_path, f'c.CourseDirectory.db_url = "{address}"'))
    assert [student.id for student in gradebook.students] == ["ada"]
    assert not any(inspect(gradebook.engine).get_indexes(table) for table in TABLES)
    gradebook.close()
