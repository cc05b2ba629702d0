"""Late policies: the arithmetic of late days, whose clock counts, and penalties that follow what changes."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nbgrader")

from autograder.books.arrival import Arrival, Receipts, receipts_of
from autograder.books.gradebook import open_gradebook, read_standings
from autograder.books.journal import journal_of
from autograder.books.store import Store
from autograder.collect.receipts import Receipt, append_receipts, receipts_path
from autograder.late import days_late, free_days_left, penalty
from autograder.nbgrader_course import NbgraderCourse, open_course
from autograder.reading.template import Template
from autograder.results import GradingError, SubmissionRecord, files_hash
from tests.plain_course import GOOD, make_course, nbgrader, released, submit
from tests.test_store import arrived, due, notebook, record, set_config

pytestmark = pytest.mark.linux

DAY = 86_400.0
POLICY = 'c.AssignLatePenalties.plugin_class = "autograder.late.LateDays"\n'
seconds = st.floats(0, 60 * DAY)
percents = st.floats(0, 100)
few = st.integers(0, 9)


@settings(deadline=None)
@given(seconds, st.floats(0, 2_000))
def test_a_day_begun_counts_and_grace_forgives_only_what_it_covers(late: float, grace: float) -> None:
    days = days_late(late, grace)
    assert (days == 0) == (late <= grace * 60)
    assert days == 0 or (days - 1) * DAY < late <= days * DAY


@settings(deadline=None)
@given(st.floats(0, 100), few, few, percents, few)
def test_a_penalty_lies_between_nothing_and_the_score(
    score: float, days: int, free: int, percent: float, most: int
) -> None:
    found = penalty(score, days, free, percent, most)
    assert 0 <= found <= score
    assert found <= penalty(score, days + 1, free, percent, most)
    assert found >= penalty(score, days, free + 1, percent, most)
    if days and most and days > most:
        assert found == score
    elif days <= free:
        assert found == 0


@settings(deadline=None)
@given(few, st.lists(few, max_size=6), few)
def test_no_more_free_days_are_spent_than_there_are(budget: int, late: list[int], most: int) -> None:
    spent = 0
    for number, days in enumerate(late):
        left = free_days_left(budget, late[:number], most)
        assert 0 <= left <= budget
        if not most or days <= most:
            spent += min(days, left)
    assert spent <= budget


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Template]:
    course, template = make_course(tmp_path_factory.mktemp("late") / "plain")
    Store(course, template).close()
    return course.root, template


@pytest.fixture
def course(prepared: tuple[Path, Template], tmp_path: Path) -> tuple[NbgraderCourse, Template]:
    shutil.copytree(prepared[0], tmp_path / "plain")
    return open_course(tmp_path / "plain"), prepared[1]


def late(course: NbgraderCourse, student: str = "ada") -> float:
    return read_standings(course, "ps1")[student].late_penalty


def write(
    course: NbgraderCourse, template: Template, when: str = "2026-03-03 12:00 UTC", mean: float = 2.0, key: str = "k"
) -> None:
    with Store(course, template) as store:
        store.write(record(mean=mean, key=key), notebook(template), {}, arrived(when))


def refresh(course: NbgraderCourse, template: Template, when: str = "2026-03-03 12:00 UTC") -> list[str]:
    """What a rerun does when nothing has to be graded."""
    before = journal_of(course.root, "ps1").record("ada")
    assert before is not None
    with Store(course, template) as store:
        return [s.record.student for s in store.refresh_late({"ada": before}, {"ada": arrived(when)})]


def set_penalty(course: NbgraderCourse, points: float | None) -> None:
    gradebook = open_gradebook(course)
    gradebook.find_submission_notebook("ps1", "ps1", "ada").late_submission_penalty = points
    gradebook.db.commit()
    gradebook.close()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own way to add a submission
def test_the_free_days_are_one_budget_in_the_order_of_due_dates(course: tuple[NbgraderCourse, Template]) -> None:
    plain, template = course
    plain = set_config(plain.root, POLICY + "c.LateDays.free_days = 3")
    due(plain, "2026-03-01 12:00 UTC")
    gradebook = open_gradebook(plain)
    for name, date, handed_in in (
        ("ps0", "2026-02-01 12:00 UTC", "2026-02-03 11:00 UTC"),  # 2 days late, due before
        ("ps2", "2026-04-01 12:00 UTC", "2026-04-08 12:00 UTC"),  # 7 days late, due after
        ("essay", None, "2026-02-08 12:00 UTC"),  # never due
    ):
        gradebook.update_or_create_assignment(name, duedate=date)
        gradebook.update_or_create_student("ada")
        gradebook.update_or_create_submission(name, "ada", timestamp=handed_in)
    gradebook.close()
    write(plain, template)  # 2 days late, of which 1 is free
    assert late(plain) == pytest.approx(0.65)


def test_a_penalty_follows_due_dates_extensions_and_scores(course: tuple[NbgraderCourse, Template]) -> None:
    plain, template = set_config(course[0].root, POLICY), course[1]
    write(plain, template)
    assert late(plain) == 0
    due(plain, "2026-03-01 12:00 UTC")
    assert refresh(plain, template) == ["ada"]
    assert late(plain) == pytest.approx(1.3)
    assert refresh(plain, template) == []
    gradebook = open_gradebook(plain)
    gradebook.find_grade("why", "ps1", "ps1", "ada").manual_score = 1.5
    gradebook.db.commit()
    gradebook.close()
    assert refresh(plain, template) == ["ada"]
    assert late(plain) == pytest.approx(1.6)
    gradebook = open_gradebook(plain)
    gradebook.grant_extension("ps1", "ada", days=1)
    gradebook.close()
    assert refresh(plain, template) == ["ada"]
    assert late(plain) == pytest.approx(0.8)
    write(plain, template, mean=0.0, key="k2")
    assert late(plain) == pytest.approx(0.6)
    write(plain, template, "2026-03-02 11:00 UTC", key="k3")
    assert late(plain) == 0


@pytest.mark.parametrize("points", [3.25, None])
def test_a_penalty_that_a_human_set_or_waived_stays(
    course: tuple[NbgraderCourse, Template], points: float | None
) -> None:
    plain, template = set_config(course[0].root, POLICY), course[1]
    due(plain, "2026-03-01 12:00 UTC")
    write(plain, template)
    set_penalty(plain, points)
    write(plain, template, mean=0.0, key="k2")
    refresh(plain, template)
    assert late(plain) == (points or 0)
    found = journal_of(plain.root, "ps1").record("ada")
    assert found is not None
    assert found.late is not None
    assert found.late.by_hand == ("ps1",)
    set_penalty(plain, found.late.penalties["ps1"])  # back to what the policy says: it is the policy's again
    write(plain, template, key="k3")
    assert late(plain) == pytest.approx(1.3)


def test_what_a_killed_run_wrote_is_not_taken_for_a_humans(course: tuple[NbgraderCourse, Template]) -> None:
    plain, template = set_config(course[0].root, POLICY), course[1]
    due(plain, "2026-03-01 12:00 UTC")
    write(plain, template)
    with pytest.MonkeyPatch.context() as patch, Store(plain, template) as store:
        patch.setattr(store, "_write_files", lambda *_: 1 / 0)  # as if it ended after the database had committed
        with pytest.raises(ZeroDivisionError):
            store.write(record(mean=0.0, key="k2"), notebook(template), {}, arrived("2026-03-05 12:00 UTC"))
    assert late(plain) == pytest.approx(1.8)
    write(plain, template, "2026-03-02 12:00 UTC", key="k3")
    assert late(plain) == pytest.approx(0.65)


def test_a_receipt_is_trusted_before_the_students_clock(course: tuple[NbgraderCourse, Template]) -> None:
    files = {"ps1.ipynb": b"{}", "timestamp.txt": b"2026-01-01 00:00:00 UTC"}
    at = datetime(2026, 3, 2, 12, 30)
    receipt = Receipt("ada", "2026-03-02T12:30:00+00:00", files_hash(files), "moodle", 1)
    append_receipts(receipts_path(course[0], "ps1"), [receipt])
    receipts = receipts_of(course[0], "ps1")
    found = receipts.arrival("ada", files)
    assert (found.at, found.source) == (at, "receipt")
    assert "timestamp.txt was ignored" in found.note
    changed = receipts.arrival("ada", {**files, "ps1.ipynb": b"{} "})
    assert changed.source == "timestamp.txt"
    assert "other files" in changed.note
    assert "student's side" in changed.note
    strict = receipts_of(course[0], "ps1", strict=True)
    assert strict.arrival("ada", files).at == at
    unknown = strict.arrival("bob", files)
    assert unknown.at is None
    assert "unknown" in unknown.note
    assert unknown.known(at).at is None
    assert Arrival().known(at).source == "gradebook"
    assert Receipts({}).arrival("bob", {"timestamp.txt": b"2999-01-01 00:00 UTC"}).at is None


def test_the_record_says_whose_clock_it_was_where_there_is_a_due_date(
    course: tuple[NbgraderCourse, Template],
) -> None:
    plain, template = course
    write(plain, template)
    assert _stored(plain).notes == ()
    due(plain, "2026-03-01 12:00 UTC")
    refresh(plain, template)
    stored = _stored(plain)
    assert stored.late is not None
    assert stored.late.seconds == timedelta(days=2).total_seconds()
    assert sum("student's side" in note for note in stored.notes) == 1
    write(plain, template, key="k2")
    assert sum("student's side" in note for note in _stored(plain).notes) == 1


def _stored(course: NbgraderCourse) -> SubmissionRecord:
    found = journal_of(course.root, "ps1").record("ada")
    assert found is not None
    return found


def test_a_policy_that_fails_is_named(course: tuple[NbgraderCourse, Template]) -> None:
    own = "from nbgrader.plugins import LateSubmissionPlugin\nclass Mine(LateSubmissionPlugin):\n"
    plain = set_config(
        course[0].root,
        own + "    def late_submission_penalty(self, student, score, late):\n        return score / 0\n"
        "c.AssignLatePenalties.plugin_class = Mine",
    )
    due(plain, "2026-03-01 12:00 UTC")
    with pytest.raises(GradingError, match="late policy Mine failed for ada: ZeroDivisionError"):
        write(plain, course[1])
    assert "ada" not in read_standings(plain, "ps1")


def test_stock_nbgrader_takes_off_the_same(course: tuple[NbgraderCourse, Template]) -> None:
    """The same plug-in in `nbgrader autograde`, with a budget that another assignment has used up in part."""
    plain = set_config(course[0].root, POLICY + "c.LateDays.free_days = 1\nc.LateDays.percent_per_day = 25")
    due(plain, "2026-03-01 12:00 UTC")
    folder = submit(plain, "ada", released(course[1], GOOD))
    (folder / "timestamp.txt").write_text("2026-03-03 12:00:00 UTC\n")
    nbgrader(plain.root, "generate_assignment", "ps1")
    nbgrader(plain.root, "autograde", "ps1")
    assert late(plain) == pytest.approx(0.25 * 9)
    with Store(plain, course[1]) as store:
        row = store.penalties.judge(_row(store), {_own(store): 9.0}, arrived("2026-03-03 12:00 UTC"))
    assert row.penalties == {"ps1": pytest.approx(0.25 * 9)}


def _row(store: Store):  # type: ignore[no-untyped-def]
    from autograder.books.grade_rows import find_submission

    return find_submission(store.gradebook.db, store.assignment, "ada")


def _own(store: Store) -> str:
    return next(iter(_row(store).notebooks.values()))
