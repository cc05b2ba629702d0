"""A gradebook on a PostgreSQL server: nbgrader's own tools work on it, and a server that goes away is waited for."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("psycopg")

from autograder.books.gradebook import read_standings
from autograder.books.journal import journal_of
from autograder.books.store import Store
from autograder.nbgrader_course import NbgraderCourse
from autograder.reading.template import Template
from autograder.results import GradingError
from tests.plain_course import GOOD, make_course, nbgrader, released, submit
from tests.postgres import PASSWORD, Server, private_server
from tests.test_store import arrived, notebook, record, set_config

pytestmark = pytest.mark.linux


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Not the one that other tests share: here it is killed."""
    with private_server() as own:
        yield own


@pytest.fixture
def course(server: Server, tmp_path: Path) -> tuple[NbgraderCourse, Template]:
    course, template = make_course(tmp_path / "plain")
    return set_config(course.root, f'c.CourseDirectory.db_url = "{server.url(server.new_database())}"'), template


class Away:
    """A server that is killed as a submission is written, and comes back when somebody has been told of it."""

    def __init__(self, server: Server) -> None:
        self.server, self.told = server, list[str]()
        self._back: threading.Thread | None = None

    def tell(self, line: str) -> None:
        self.told.append(line)
        if self._back is None:
            self._back = threading.Thread(target=self.server.start)
            self._back.start()

    def join(self) -> None:
        assert self._back is not None
        self._back.join()


@pytest.mark.parametrize("moment", ["before", "within", "after the commit"])
def test_a_server_that_dies_is_waited_for(
    server: Server, course: tuple[NbgraderCourse, Template], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(server)
    with Store(*course, patience=60, tell=away.tell) as store:
        store.write(record("bob"), notebook(course[1]), {})
        db, killed = store.gradebook.db, list[bool]()

        def strike() -> None:
            if not killed:
                killed.append(True)
                server.kill()

        if moment == "before":
            strike()
        elif moment == "within":
            flush = store.journal.keep
            monkeypatch.setattr(type(store.journal), "keep", lambda self, what: (flush(what), strike()))
        else:
            commit = db.commit

            def commit_then_die() -> None:  # the server has it, and its answer is lost
                commit()
                if not killed:
                    strike()
                    store.students()

            monkeypatch.setattr(type(db), "commit", lambda self: commit_then_die())
        store.write(record(mean=0.5), notebook(course[1]), {}, arrived("2026-03-01 12:00:00 UTC"))
        away.join()
    assert away.told
    assert "waiting for the gradebook postgresql" in away.told[0]
    assert PASSWORD not in "".join(away.told)
    found = read_standings(course[0], "ps1")
    assert set(found) == {"ada", "bob"}
    assert found["ada"].score == 5.0
    assert len(found["ada"].questions) == 5
    assert set(journal_of(course[0].root, "ps1").finished()) == {"ada", "bob"}


def test_a_server_that_stays_away_ends_the_run_and_says_what_to_do(
    server: Server, course: tuple[NbgraderCourse, Template]
) -> None:
    with Store(*course, patience=0.3, tell=lambda _: None) as store:
        store.write(record("bob"), notebook(course[1]), {})
        server.kill()
        try:
            with pytest.raises(GradingError, match=r"cannot be used.*run the same command again") as error:
                store.write(record("ada"), notebook(course[1]), {})
        finally:
            server.start()
    assert PASSWORD not in str(error.value)
    assert set(journal_of(course[0].root, "ps1").finished()) == {"bob"}
    with Store(*course) as store:
        assert store.submitted() == {"bob"}


def test_an_administrator_who_cuts_connections_costs_nothing(
    server: Server, course: tuple[NbgraderCourse, Template]
) -> None:
    told: list[str] = []
    with Store(*course, patience=30, tell=told.append) as store:
        for name in ("ada", "bob", "eve"):
            store.write(record(name), notebook(course[1]), {})
            server.cut_connections()
    assert set(read_standings(course[0], "ps1")) == {"ada", "bob", "eve"}


def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path) -> None:
    course, template = make_course(tmp_path / "plain")
    told: list[str] = []
    with Store(course, template, patience=60, tell=told.append) as store:
        other = sqlite3.connect(course.root / "gradebook.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
        release.start()
        store.write(record(), notebook(template), {})
        release.join()
        other.close()
    assert read_standings(course, "ps1")["ada"].score == 6.5


@pytest.mark.slow
def test_nbgraders_own_commands_work_on_the_server(course: tuple[NbgraderCourse, Template]) -> None:
    plain, template = course
    submit(plain, "ada", released(template, GOOD))
    nbgrader(plain.root, "generate_assignment", "ps1")
    nbgrader(plain.root, "autograde", "ps1")
    with Store(plain, template) as store:
        store.write(record("bob"), notebook(template), {})
    nbgrader(plain.root, "export")
    exported = (plain.root / "grades.csv").read_text()
    assert "ada" in exported
    assert "bob" in exported
    assert {name: s.score for name, s in read_standings(plain, "ps1").items()} == {"ada": 9.0, "bob": 6.5}
