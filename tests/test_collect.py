"""Collecting: whose is it, which attempt counts, and nothing is ever lost."""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from autograder.books.gradebook import open_gradebook
from autograder.collect.command import run
from autograder.collect.layouts import read_name
from autograder.collect.options import Options
from autograder.collect.receipts import append_receipts, read_receipts, receipts_path, received
from autograder.nbgrader_course import NbgraderCourse, open_course
from autograder.reading.template import Template
from autograder.reading.untrusted import read_folder
from autograder.results import GradingError, files_hash
from tests.downloads import collected, counting, enroll, notebook, submitted, tree, zip_bytes, zipped
from tests.plain_course import make_course

Course = tuple[NbgraderCourse, Template]
DUE = "2026-11-20 23:59:00 UTC"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Template]:
    """Courses to copy: one whose students nobody has listed, and one that knows them and when the work is due."""
    folder = tmp_path_factory.mktemp("courses")
    course, template = make_course(folder / "plain")
    shutil.copytree(course.root, folder / "listed")
    enroll(open_course(folder / "listed"), due=DUE)
    return folder, template


@pytest.fixture
def plain(originals: tuple[Path, Template], tmp_path: Path) -> Course:
    shutil.copytree(originals[0] / "plain", tmp_path / "course")
    return open_course(tmp_path / "course"), originals[1]


@pytest.fixture
def listed(originals: tuple[Path, Template], tmp_path: Path) -> Course:
    shutil.copytree(originals[0] / "listed", tmp_path / "course")
    return open_course(tmp_path / "course"), originals[1]


def canvas(template: Template) -> dict[str, bytes]:
    return {
        "bitdiddleben_12345_9001_ps1-1.ipynb": notebook(template),
        "hackeralyssap_LATE_777_9002_work.zip": zip_bytes({"mine/ps1.ipynb": notebook(template), "mine/a.csv": "1"}),
        "oräsonerlouis_780_9003_01_02_ps1.ipynb": notebook(template),
        "reasonerlem_778_text.html": b"<p>see mail",
    }  # fmt: skip


def moodle(template: Template) -> dict[str, bytes]:
    return {
        "Ben Bitdiddle_4001_assignsubmission_file_/ps1.ipynb": notebook(template),
        "Ben Bitdiddle_4001_assignsubmission_file_/data/x.csv": b"1",
        "Alyssa P. Hacker_4002_assignsubmission_file_ps1.ipynb": notebook(template),
        "Lem Reasoner_4003_assignsubmission_onlinetext_onlinetext.html": b"<p>no",
    }


def blackboard(template: Template) -> dict[str, bytes]:
    return {
        "Problem Set_1_ben_attempt_2026-11-19-10-00-00_ps1.ipynb": notebook(template, mean="pass"),
        "Problem Set_1_ben_attempt_2026-11-20-10-00-00_ps1.ipynb": notebook(template),
        "Problem Set_1_ben_attempt_2026-11-21-10-00-00_ps1.ipynb": notebook(template, primes="pass"),
        "Problem Set_1_ben_attempt_2026-11-20-10-00-00.txt": b"Name: Ben",
        "Problem Set_1_alyssa_attempt_2026-11-22-10-00-00_ps1.ipynb": notebook(template, mean="pass"),
        "Problem Set_1_alyssa_attempt_2026-11-23-10-00-00_ps1.ipynb": notebook(template),
    }


METADATA = """\
submission_1:
  :submitters:
  - :name: Ben Bitdiddle
    :sid: '12345'
    :email: ben@u.edu
  - :name: Lem Reasoner
    :sid: ''
    :email: lem@u.edu
  :created_at: 2026-11-20 22:12:01.512345 Z
submission_2:
  :submitters:
  - :name: Nobody Known
    :sid: '1'
    :email: nobody@u.edu
"""


def gradescope(template: Template) -> dict[str, bytes]:
    root = "assignment_8046601_export"
    return {
        f"{root}/submission_metadata.yml": METADATA.encode(),
        f"{root}/submission_1/ps1.ipynb": notebook(template),
        f"{root}/submission_2/ps1.ipynb": notebook(template),
    }


def exchange(template: Template) -> dict[str, bytes]:
    return {
        "ben+ps1+2026-11-20 20:00:00.000000 UTC+aGFzaA==/ps1.ipynb": notebook(template),
        "ben+ps1+2026-11-20 20:00:00.000000 UTC+aGFzaA==/timestamp.txt": b"1999-01-01 00:00:00 UTC",
        "alyssa+ps2+2026-11-20 20:00:00 UTC/ps2.ipynb": notebook(template),
    }


def classroom(template: Template) -> dict[str, bytes]:
    return {
        "ps1-submissions/ps1-ben/ps1.ipynb": notebook(template),
        "ps1-submissions/ps1-octo/ps1.ipynb": notebook(template),
    }


@pytest.mark.parametrize(
    ("make", "students", "left"),
    [
        (canvas, {"ben", "alyssa", "louis"}, ["text or a link"]),
        (moodle, {"ben", "alyssa"}, ["typed into Moodle"]),
        (blackboard, {"ben", "alyssa"}, []),
        (gradescope, {"ben", "lem"}, ["give --roster with Gradescope's roster"]),
        (exchange, {"ben"}, ["handed in for 'ps2'"]),
        (classroom, {"ben"}, ["column github_username"]),
    ],
)
def test_each_system_s_names_are_understood(
    listed: Course, tmp_path: Path, make: Callable[[Template], dict[str, bytes]], students: set[str], left: list[str]
) -> None:
    course, template = listed
    found = collected(course, zipped(tmp_path / "export.zip", make(template)))
    assert {taken.student for taken in found.taken} == students
    assert len(found.left) == len(left)
    for part, said in zip(left, found.left, strict=True):
        assert part in said.reason
    for student in students:
        assert {"ps1.ipynb", "01_02_ps1.ipynb"} & submitted(course, student).keys()


def test_a_folder_of_downloads_is_like_an_archive(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    for name, data in {**canvas(template), "eva/deep/ps1.ipynb": notebook(template), "readme.md": b""}.items():
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = collected(course, tmp_path / "all")
    assert set(counting(found)) == {"ben", "alyssa", "louis", "eva"}
    assert submitted(course, "eva").keys() == {"ps1.ipynb"}
    assert submitted(course, "alyssa").keys() == {"ps1.ipynb", "a.csv"}


def test_without_a_place_the_folder_of_zip_collect_is_read(listed: Course) -> None:
    course, template = listed
    archive = course.root / "downloaded" / "ps1" / "archive"
    with pytest.raises(GradingError, match="nothing to collect"):
        collected(course)
    (archive / "lem").mkdir(parents=True)
    zipped(archive / "export.zip", canvas(template))
    zipped(archive / "eva.zip", {"ps1.ipynb": notebook(template)})
    (archive / "lem" / "ps1.ipynb").write_bytes(notebook(template))
    assert set(counting(collected(course))) == {"ben", "alyssa", "louis", "eva", "lem"}


def test_single_files_and_tars_are_taken_for_whom_they_are_called(plain: Course, tmp_path: Path) -> None:
    course, template = plain
    (tmp_path / "ada.ipynb").write_bytes(notebook(template))
    zipped(tmp_path / "bob.zip", {"ps1.ipynb": notebook(template)})
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "ps1.ipynb").write_bytes(notebook(template))
    with tarfile.open(tmp_path / "cy.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "w" / "ps1.ipynb", "ps1/ps1.ipynb")
    places = [tmp_path / name for name in ("ada.ipynb", "bob.zip", "cy.tar.gz")]
    assert set(counting(collected(course, *places))) == {"ada", "bob", "cy"}
    assert {name for student in ("ada", "bob", "cy") for name in submitted(course, student)} == {"ps1.ipynb"}


def test_files_that_are_named_one_by_one_are_one_attempt(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    for name, data in (("1_ps1.ipynb", notebook(template)), ("2_data.csv", b"1")):
        (tmp_path / f"bitdiddleben_12345_{name}").write_bytes(data)
    found = collected(course, *sorted(tmp_path.glob("bit*")))
    assert [taken.files for taken in found.taken] == [2]
    assert submitted(course, "ben").keys() == {"ps1.ipynb", "data.csv"}
    assert found.missing == ("alyssa", "eva", "lem", "louis")


def test_nobody_is_guessed(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    data = notebook(template)
    entries = {"zoe/ps1.ipynb": data, "Ben B/ps1.ipynb": data, "bitdiddle_1_2_ps1.ipynb": data, "01.ipynb": data}
    found = collected(course, zipped(tmp_path / "x.zip", entries))
    assert found.taken == ()
    reasons = {left.origin.split(": ")[1]: left.reason for left in found.left}
    assert "no student '01'" in reasons["01.ipynb"]
    assert "--new-students" in reasons["zoe"]
    assert "Canvas's export" in reasons["bitdiddle_1_2_ps1.ipynb"]
    assert not (course.root / "submitted").exists()
    assert set(counting(collected(course, tmp_path / "x.zip", new_students=True))) == {"zoe", "01"}
    (tmp_path / "ps1.ipynb").write_bytes(data)
    assert "rename it STUDENT.ipynb" in collected(course, tmp_path / "ps1.ipynb").left[0].reason


def test_a_name_that_two_people_have_is_nobodys(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    data = notebook(template)
    entries = {"bitdiddleben_55_1_ps1.ipynb": data, "bitdiddleben_66_2_ps1.ipynb": data}
    found = collected(course, zipped(tmp_path / "x.zip", entries))
    assert found.taken == ()
    assert all("several accounts" in left.reason for left in found.left)


@pytest.mark.parametrize(
    "name",
    [
        "PS_eva_attempt_2026-11-20-10-00-00_x_ben_attempt_2026-11-20-10-00-00_ps1.ipynb",
        "Eva Lu Ator_9_assignsubmission_file_Ben Bitdiddle_12345_assignsubmission_file_ps1.ipynb",
        "atorevalu_779_1_12345_2_ps1.ipynb",
    ],
)
def test_a_file_s_name_cannot_make_it_another_student_s(listed: Course, tmp_path: Path, name: str) -> None:
    course, template = listed
    found = collected(course, zipped(tmp_path / "x.zip", {name: notebook(template)}))
    assert {taken.student for taken in found.taken} == {"eva"}


def test_a_person_s_name_cannot_make_a_file_another_student_s(listed: Course, tmp_path: Path) -> None:
    """Somebody whom Canvas calls "x_12345", which is the number of Ben."""
    course, template = listed
    found = collected(course, zipped(tmp_path / "x.zip", {"x_12345_779_9001_ps1.ipynb": notebook(template)}))
    assert found.taken == ()
    assert "several students" in found.left[0].reason


@pytest.mark.parametrize(
    ("text", "students"),
    [
        ("id,first_name,last_name,email,lms_user_id\nb1,Ben,Bitdiddle,,12345\na1,Alyssa P.,Hacker,,\n", {"b1", "a1"}),
        ("Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"
         '"Bitdiddle, Ben",12345,s1,b1,1\n"Hacker, Alyssa P.",777,s2,a1,1\n', {"b1", "a1"}),
        ("\ufeffstudent;lms_user_id\nb1;12345\n", {"b1"}),
    ],
)  # fmt: skip
def test_rosters_say_who_is_who(plain: Course, tmp_path: Path, text: str, students: set[str]) -> None:
    course, template = plain
    (tmp_path / "roster.csv").write_text(text, encoding="utf-8")
    found = collected(course, zipped(tmp_path / "x.zip", canvas(template)), roster=(tmp_path / "roster.csv",))
    assert set(counting(found)) == students


def test_moodle_s_worksheet_gives_numbers_and_times(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    (tmp_path / "grades.csv").write_text(
        "Identifier,Full name,Email address,Status,Last modified (submission)\n"
        'Participant 4001,B. B.,BEN@u.edu,Submitted,"Friday, 20 November 2026, 11:30 PM"\n'
        "Participant 4002,A. H.,aph@u.edu,No submission,-\n"
    )
    export = zipped(tmp_path / "x.zip", {k.replace("Ben Bitdiddle", "B. B."): v for k, v in moodle(template).items()})
    found = collected(course, export, roster=(tmp_path / "grades.csv",), zone="Europe/Berlin")
    times = {taken.student: taken.receipt.at for taken in found.taken}
    assert times == {"ben": "2026-11-20T22:30:00+00:00", "alyssa": ""}
    assert "last modified" in received(course, "ps1")["ben"].source


def test_a_roster_without_ids_is_refused(plain: Course, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("vorname,nachname\nBen,B\n")
    with pytest.raises(GradingError, match="no column with ids"):
        collected(plain[0], tmp_path, roster=(tmp_path / "r.csv",))


def test_the_last_attempt_on_time_counts_and_all_are_kept(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    found = collected(course, zipped(tmp_path / "x.zip", blackboard(template)))
    assert found.notes == ("1 files that only describe an attempt were passed over",)
    assert "2026-11-20" in counting(found)["ben"]
    assert "2026-11-23" in counting(found)["alyssa"]  # both late: the last
    assert sum(taken.late for taken in found.taken) == 3
    kept = tree(course.root / ".autograder" / "ps1" / "attempts")
    numbers = {"ben": (1, 2, 3), "alyssa": (1, 2)}
    wanted = {f"{student}/{number:03d}/ps1.ipynb" for student in numbers for number in numbers[student]}
    assert {name for name in kept if name.endswith(".ipynb")} == wanted
    assert submitted(course, "ben")["timestamp.txt"] == b"2026-11-20 10:00:00 UTC\n"


def test_an_upload_that_cannot_be_read_undoes_no_work(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    name = "PS_ben_attempt_2026-11-{}-10-00-00_{}"
    good = notebook(template)
    uploads = {
        "16": ("ps1.ipynb", good),
        "17": ("ps1.ipynb", good[:999]),
        "18": ("ps1.pdf", b"%PDF"),
        "19": ("ps1", good),
    }
    for day in ("17", "19"):
        entries = {name.format(d, file): data for d, (file, data) in uploads.items() if d <= day}
        found = collected(course, zipped(tmp_path / f"{day}.zip", entries))
        assert name.format("16" if day < "19" else "19", "")[:-1] in counting(found)["ben"]
    notes = [note for taken in found.taken for note in taken.notes]
    assert "its notebook cannot be read" in notes
    assert "there is no notebook in it" in notes


def test_an_extension_or_another_deadline_makes_another_attempt_count(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    export = zipped(tmp_path / "x.zip", blackboard(template))
    collected(course, export)
    assert "2026-11-21" in counting(collected(course, export, deadline="2026-11-21 12:00"))["ben"]
    assert "2026-11-19" in counting(collected(course, export, deadline="2026-11-20T18:59:59+09:00"))["ben"]
    assert "2026-11-20" in counting(collected(course, export))["ben"]
    gradebook = open_gradebook(course)
    with gradebook.db.no_autoflush:
        gradebook.update_or_create_submission("ps1", "ben", extension=timedelta(days=2))
    gradebook.close()
    assert "2026-11-21" in counting(collected(course, export))["ben"]
    assert submitted(course, "ben")["ps1.ipynb"] == notebook(template, primes="pass")


def test_canvas_s_own_word_on_lateness_decides_where_there_is_no_time(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    zipped(tmp_path / "1.zip", {"bitdiddleben_12345_1_ps1.ipynb": notebook(template)}, datetime(2026, 11, 19))
    zipped(tmp_path / "2.zip", {"bitdiddleben_LATE_12345_2_ps1-1.ipynb": notebook(template, mean="pass")})
    found = collected(course, tmp_path / "1.zip", tmp_path / "2.zip")
    assert counting(found)["ben"].startswith("1.zip")
    receipt = received(course, "ps1")["ben"]
    assert (receipt.at, receipt.late) == ("", False)


def test_a_second_run_changes_nothing(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    export = zipped(tmp_path / "x.zip", {**blackboard(template), **canvas(template)})
    collected(course, export)
    before = tree(course.root)
    again = collected(course, export)
    assert not any(taken.new for taken in again.taken)
    assert tree(course.root) == before


def test_a_dry_run_writes_nothing(plain: Course, tmp_path: Path) -> None:
    course, template = plain
    export = zipped(tmp_path / "x.zip", {"ada/ps1.ipynb": notebook(template)})
    before = tree(course.root)
    found = collected(course, export, dry_run=True)
    assert [(taken.student, taken.counts) for taken in found.taken] == [("ada", True)]
    assert tree(course.root) == before


def test_a_receipt_holds_for_what_grading_reads(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    entries = {f"ben/{name}": b"x" for name in ("feedback/a", "data/b.csv", ".hidden", "é.txt", "__pycache__/c")}
    entries |= {"ben/ps1.ipynb": notebook(template), "ben/timestamp.txt": b"1999-01-01 00:00 UTC"}
    found = collected(course, zipped(tmp_path / "x.zip", entries), received="2026-11-20 12:00")
    receipt = received(course, "ps1")["ben"]
    raw = read_folder(course.path("submitted", "ben", "ps1"))
    assert receipt.sha256 == files_hash(raw.files)
    assert receipt.when == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert raw.files["timestamp.txt"] == b"2026-11-20 12:00:00 UTC\n"
    assert any("timestamp.txt was left out" in note for note in found.taken[0].notes)


def test_no_student_can_make_the_receipt_a_lie(listed: Course, tmp_path: Path) -> None:
    """With files that a writer or a reader would lose: then nobody could tell when the work was handed in."""
    course, template = listed
    entries: dict[str, bytes] = {f"ben/{i:03d}.txt": b"x" for i in range(600)}
    entries |= {f"ben/.{name}.new": b"x" for name in ("ps1.ipynb", "000.txt", "timestamp.txt", "001")}
    entries |= {"ben/Timestamp.TXT": b"1999-01-01", "ben/ps1.ipynb": notebook(template), "ben/a/b/c/d/e/f/g/h": b"deep"}
    export = zipped(tmp_path / "x.zip", entries)
    for received_at in ("", "2026-11-20 12:00", "2026-11-20 13:00"):
        collected(course, export, received=received_at)
        raw = read_folder(course.path("submitted", "ben", "ps1"))
        assert not raw.notes
        assert received(course, "ps1")["ben"].sha256 == files_hash(raw.files)
        assert received(course, "ps1")["ben"].at[11:13] == received_at[11:13]


def test_what_lay_in_submitted_before_is_kept(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    place = course.path("submitted", "ben", "ps1")
    place.mkdir(parents=True)
    (place / "ps1.ipynb").write_bytes(b"by hand")
    (place / "link").symlink_to("/etc/passwd")
    found = collected(course, zipped(tmp_path / "x.zip", canvas(template)))
    assert submitted(course, "ben")["ps1.ipynb"] == notebook(template)
    kept = tree(course.root / ".autograder" / "ps1" / "attempts" / "ben")
    assert kept["001/ps1.ipynb"] == b"by hand"
    assert any("before is kept" in note for note in found.notes)
    assert not received(course, "ps1")["ben"].found


def test_a_repair_by_hand_stays_until_something_new_comes(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    export = zipped(tmp_path / "x.zip", canvas(template))
    collected(course, export)
    repaired = course.path("submitted", "ben", "ps1") / "ps1.ipynb"
    repaired.write_bytes(b"repaired")
    for _ in range(2):
        assert any("changed by hand" in note for note in collected(course, export).notes)
        assert repaired.read_bytes() == b"repaired"
    newer = zipped(tmp_path / "y.zip", {"bitdiddleben_12345_2_ps1-2.ipynb": notebook(template, mean="pass")})
    collected(course, newer)
    assert repaired.read_bytes() == notebook(template, mean="pass")
    assert b"repaired" in tree(course.root / ".autograder").values()


def test_a_run_that_was_ended_in_the_middle_is_made_good(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    export = zipped(tmp_path / "x.zip", canvas(template))
    collected(course, export)
    before = tree(course.root)
    place = course.path("submitted", "ben", "ps1")
    place.rename(place.with_name(".ps1.old"))  # between two renames
    path = receipts_path(course, "ps1")
    path.write_bytes(path.read_bytes()[:-40])  # and in a line
    collected(course, export)
    after = tree(course.root)
    assert {k: v for k, v in after.items() if "receipts" not in k} == {
        k: v for k, v in before.items() if "receipts" not in k
    }
    assert set(received(course, "ps1")) == {"ben", "alyssa", "louis"}


def test_before_the_deadline_everything_is_on_time(plain: Course, tmp_path: Path) -> None:
    course, template = plain
    enroll(course, due="2999-01-01 00:00:00 UTC")
    export = zipped(tmp_path / "x.zip", canvas(template))
    collected(course, export)
    receipt = received(course, "ps1")["ben"]
    assert receipt.at
    assert "before the deadline" in receipt.source
    assert not any(taken.new for taken in collected(course, export).taken)


def test_the_exchange_s_own_clock_is_believed_over_a_name(listed: Course, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can own files for somebody else")
    course, template = listed
    folder = tmp_path / "inbound" / "ben+ps1+2026-11-01 10:00:00.000000 UTC+cmFuZG9t"
    folder.mkdir(parents=True)
    (folder / "ps1.ipynb").write_bytes(notebook(template))
    os.utime(folder / "ps1.ipynb", (0, 1_700_000_000))
    collected(course, tmp_path / "inbound", dry_run=True)
    os.chown(folder / "ps1.ipynb", 12_345, 12_345)
    collected(course, tmp_path / "inbound")
    receipt = received(course, "ps1")["ben"]
    assert receipt.when is not None
    assert receipt.when > datetime(2026, 11, 2, tzinfo=UTC)
    assert "last changed" in receipt.source


def test_what_belongs_to_another_student_on_the_exchange_is_left(listed: Course, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can own files for somebody else")
    course, template = listed
    gradebook = open_gradebook(course)
    gradebook.add_student("nobody")
    gradebook.close()
    work = tmp_path / "inbound" / "ben+ps1+2026-11-20 10:00:00 UTC+cmFuZG9t" / "ps1.ipynb"
    work.parent.mkdir(parents=True)
    work.write_bytes(notebook(template))
    os.chown(work, pwd.getpwnam("nobody").pw_uid, -1)
    found = collected(course, tmp_path / "inbound")
    assert found.taken == ()
    assert "its name says ben, but its files belong to nobody" in found.left[0].reason


def test_names_that_only_the_course_gives_need_a_pattern(listed: Course, tmp_path: Path) -> None:
    course, template = listed
    entries = {
        "upload/778--2026.11.19 08:00--2--work.ipynb": notebook(template),
        "upload/778--2026.11.18 08:00--1--work.ipynb": notebook(template, mean="pass"),
        "upload/odd.ipynb": notebook(template),
    }
    export = zipped(tmp_path / "x.zip", {k.replace(":", "_"): v for k, v in entries.items()})
    pattern = r"upload/(?P<student>\d+)--(?P<at>[\d. _]+)--(?P<attempt>\d)--(?P<file>.+)"
    found = collected(course, export, pattern=pattern)
    assert counting(found) == {"lem": "x.zip: upload/778--2026.11.19 08_00--2--work.ipynb"}
    assert [left.reason for left in found.left] == ["the pattern does not match its name"]
    assert received(course, "ps1")["lem"].at == "2026-11-19T08:00:00+00:00"
    folders = {"Reasoner_Lem_778_55/ps1.ipynb": notebook(template, mean="pass"), "Reasoner_Lem_778_55/data/a.csv": b"1"}
    collected(course, zipped(tmp_path / "y.zip", folders), pattern=r"_(?P<student>\d+)_\d+(?=/)")
    assert submitted(course, "lem").keys() == {"ps1.ipynb", "data/a.csv"}
    for wrong in ("(", "(?P<who>.+)"):
        with pytest.raises(GradingError, match="pattern"):
            collected(course, export, pattern=wrong)


def test_nbgrader_s_own_pattern_is_honored(plain: Course, tmp_path: Path) -> None:
    course, template = plain
    config = course.root / "nbgrader_config.py"
    config.write_text(
        config.read_text() + "\nc.FileNameCollectorPlugin.named_regexp = "
        r'r".*_(?P<student_id>\w+)_attempt_(?P<timestamp>[0-9\-]+)_(?P<file_id>\w+)"' + "\n"
    )
    name = "ps1_bitdiddle_attempt_2026-01-30-15-00-00_ps1.ipynb"
    collected(course, zipped(tmp_path / "x.zip", {name: notebook(template)}))
    assert submitted(course, "bitdiddle").keys() == {"ps1.ipynb", "timestamp.txt"}
    assert received(course, "ps1")["bitdiddle"].at == "2026-01-30T15:00:00+00:00"


def test_times_without_a_zone_follow_the_course(plain: Course, tmp_path: Path) -> None:
    course, template = plain
    config = course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + "\nc.Exchange.timezone = 'America/New_York'\n")
    collected(course, zipped(tmp_path / "x.zip", blackboard(template)))
    assert received(course, "ps1")["ben"].at == "2026-11-21T15:00:00+00:00"
    with pytest.raises(GradingError, match="Europe/Berlin"):
        collected(course, tmp_path / "x.zip", zone="Middle/Earth")
    with pytest.raises(GradingError, match="--received"):
        collected(course, tmp_path / "x.zip", received="soon")


def test_receipts_survive_a_torn_line_and_strange_ones(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    good = {"student": "a", "at": "", "sha256": "0", "source": "s", "attempt": 1}
    later = {**good, "attempt": 2, "something": "from a later version"}
    lines = [json.dumps(good), json.dumps({**good, "attempt": "x"}), "[]", json.dumps(later), '{"student": "b", "at']
    path.write_text("\n".join(lines))
    assert [receipt.attempt for receipt in read_receipts(path)] == [1, 2]
    append_receipts(path, read_receipts(path)[:1])
    assert [receipt.attempt for receipt in read_receipts(path)] == [1, 2, 1]


@pytest.mark.parametrize("name", ["ps1.ipynb", "1_2_3.ipynb", "Ben_1_2_x.ipynb", "ben_attempt_1_x.ipynb", "a+b+c"])
def test_ordinary_names_are_not_taken_for_a_system_s(name: str) -> None:
    assert read_name(name, "ps1", UTC) == ()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_what_was_taken_reads_well_in_a_terminal(plain: Course, tmp_path: Path, width: int) -> None:
    def said(*names: str) -> list[str]:
        (tmp_path / "x").mkdir(exist_ok=True)
        places = [zipped(tmp_path / "x" / archive, {file: work}) for archive, file in (n.split(": ") for n in names)]
        console = Console(width=width, file=io.StringIO(), color_system=None)
        run(plain[0].root, "ps1", places, Options(new_students=True), console)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    work = notebook(plain[1])
    title, _, _, *lines = said("submissions.zip: amara.ipynb")
    assert title == "ps1: taken from submissions.zip, told by id as written"
    assert re.fullmatch(r"amara +amara\.ipynb +unknown +yes", lines[0])
    assert lines[1] == "1 student, 1 attempt (1 new), 0 left."
    # Of two archives each line names its own.
    title, _, _, *lines = said("submissions.zip: greta.ipynb", "late.zip: kofi.ipynb")
    assert title == "ps1: taken, told by id as written"
    assert re.fullmatch(r"greta +submissions\.zip: greta\.ipynb +unknown +yes", lines[0])
    assert re.fullmatch(r"kofi +late\.zip: kofi\.ipynb +unknown +yes", lines[1])
