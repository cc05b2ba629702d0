"""Files for spreadsheets, Canvas and Moodle: right grades, everything else untouched, nobody guessed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from autograder.exports.lms import canvas, moodle_worksheet
from autograder.exports.sheet import read_sheet
from autograder.exports.tables import long, moodle
from autograder.results import GradingError
from tests.report_rows import made_row

# The gradebook that Canvas exports: ids as text, a row of points, a test student, CRLF, a title with its number.
CANVAS = (
    "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,lab (4711),Other lab (4712),Final Score\r\n"
    ",,,,,Manual Posting,,(read only)\r\n"
    "    Points Possible,,,,,12.0,10.0,(read only)\r\n"
    '"King, Ada",101,007,ada,"M1, Tue",,9.50,71.2\r\n'
    '"Martin, Bob ""B""",102,0008,bob@uni.example,M1,3,,40\r\n'
    '"Stranger, Eve",103,0009,eve,M1,5,,\r\n'
    '"Student, Test",104,,,M1,,,\r\n'
).encode()

WORKSHEET = (
    b'Identifier;"Full name";"ID number";"Email address";Status;Grade;"Maximum Grade";"Grade can be changed";'
    b'"Last modified (submission)";"Last modified (grade)";"Feedback comments"\n'
    b'"Participant 9001";"Ada King";007;ada@uni.example;"Submitted for grading";;12,00;Yes;"Monday, 1 March";-;\n'
    b'"Participant 9002";"Bob Martin";;BOB@uni.example;Submitted;1,00;12,00;Yes;-;-;"already said"\n'
    b'"Participant 9003";"Ada King";;other.ada@uni.example;Submitted;;12,00;Yes;-;-;\n'
    b'"Participant 9004";"Cem Kaya";;;Submitted;2,00;12,00;No;-;-;\n'
)


def class_() -> list:
    return [
        made_row("ada", {"a": 4.0, "b": 2.5, "c": None}, by_hand=3.0, email="ada@uni.example", lms_id="101"),
        made_row("bob", {"a": 0.0, "b": 1.0, "c": None}, email="bob@uni.example", mistakes={"a": "a < b & c"}),
        made_row("9004", {"a": 4.0, "b": 4.0, "c": 4.0}),
        made_row("zoe", {"a": 0.0, "b": 0.0, "c": 0.0}, outcome="unreadable", email="zoe@uni.example"),
    ]


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "template.csv"
    path.write_bytes(data)
    return path


def test_canvas_gets_one_column_filled_and_keeps_every_other_byte(tmp_path: Path) -> None:
    made = canvas(read_sheet(written(tmp_path, CANVAS)), class_(), "Lab")
    expected = CANVAS.replace(b'"M1, Tue",,9.50', b'"M1, Tue",9.5,9.50').replace(
        b"uni.example,M1,3,", b"uni.example,M1,1,"
    )
    assert made.data == expected
    assert made.filled == 2


def test_canvas_says_who_is_not_in_it_and_who_nobody_knows(tmp_path: Path) -> None:
    told = "\n".join(canvas(read_sheet(written(tmp_path, CANVAS)), class_(), "lab").notes)
    assert "nobody here; left as they were: Stranger, Eve, Student, Test" in told
    assert "graded here, but not in the file: 9004, zoe" in told
    assert "still wait for a person: bob" in told


@pytest.mark.parametrize(("column", "says"), [("lab 2", "'lab (4711)', 'Other lab (4712)'"), ("Section", "")])
def test_canvas_column_is_named_by_its_title(tmp_path: Path, column: str, says: str) -> None:
    sheet = read_sheet(written(tmp_path, CANVAS))
    if not says:
        assert canvas(sheet, class_(), "no such", column).filled == 2
        return
    with pytest.raises(GradingError) as caught:
        canvas(sheet, class_(), "no such", column)
    assert says in str(caught.value)


def test_canvas_with_other_points_is_told_of(tmp_path: Path) -> None:
    data = CANVAS.replace(b"12.0,10.0", b"100,10.0")
    assert any("100 points possible, the gradebook 12" in note for note in canvas(
        read_sheet(written(tmp_path, data)), class_(), "lab"
    ).notes)  # fmt: skip


def test_two_rows_for_one_student_are_no_match(tmp_path: Path) -> None:
    data = CANVAS + b'"King, Ada",999,,ada@uni.example,M2,,,\r\n'
    made = canvas(read_sheet(written(tmp_path, data)), class_(), "lab")
    assert made.filled == 1
    assert any("several rows fit ada" in note for note in made.notes)


def test_a_row_that_fits_two_students_is_no_match(tmp_path: Path) -> None:
    data = CANVAS.replace(b"101,007,ada,", b"101,007,bob,")
    made = canvas(read_sheet(written(tmp_path, data)), class_(), "lab")
    assert any("King, Ada (fits ada, bob)" in note for note in made.notes)


def test_moodle_worksheet_keeps_identifiers_comments_and_locked_grades(tmp_path: Path) -> None:
    made = moodle_worksheet(read_sheet(written(tmp_path, WORKSHEET)), class_())
    rows = list(csv.reader(io.StringIO(made.data.decode()), delimiter=";"))
    before = list(csv.reader(io.StringIO(WORKSHEET.decode()), delimiter=";"))
    assert [row[5] for row in rows[1:]] == ["9,5", "1", "", "2,00"]
    assert [row[:5] + row[6:10] for row in rows] == [row[:5] + row[6:10] for row in before]
    assert rows[1][10] == "a: 4 / 4; b: 2.5 / 4; c: 3 / 4"
    assert rows[2][10] == "already said"
    told = "\n".join(made.notes)
    assert "bob: has a feedback comment already" in told
    assert "9004: Moodle says that this grade cannot be changed" in told
    assert "Ada King" in told  # the other Ada King: a name is no match


def test_feedback_for_moodle_is_html() -> None:
    from autograder.exports.lms import _feedback

    assert _feedback(class_()[1]).startswith("a: 0 / 4 (a &lt; b &amp; c); b: 1 / 4")


def test_feedback_for_moodle_says_that_an_answer_waits_until_it_is_graded(tmp_path: Path) -> None:
    def comments(data: bytes, by_hand: float | None) -> tuple[bytes, list[str], str]:
        ada = {"a": 4.0, "b": 0.0, "c": None}
        row = made_row("ada", ada, by_hand=by_hand, email="ada@uni.example", mistakes={"b": "b < c"}, penalty=1.0)
        bob = made_row("bob", ada, by_hand=by_hand, email="bob@uni.example")
        made = moodle_worksheet(read_sheet(written(tmp_path, data)), [row, bob])
        table = list(csv.reader(io.StringIO(made.data.decode()), delimiter=";"))
        return made.data, [line[10] for line in table[1:]], "\n".join(made.notes)

    data, said, _ = comments(WORKSHEET, None)
    assert said[0] == "a: 4 / 4; b: 0 / 4 (b &lt; c); c: ? / 4, waits for grading; late: -1"
    assert said[1] == "already said"
    # Moodle gives our comment out again. Only where a person has written something, it stays.
    data, said, told = comments(data, 0.0)
    assert said[:2] == ["a: 4 / 4; b: 0 / 4 (b &lt; c); c: 0 / 4; late: -1", "already said"]
    assert "ada: has" not in told
    assert "bob: has a feedback comment already" in told
    _, said, told = comments(data.replace(b"c: 0 / 4", b"c: 0 / 4, see me"), 2.0)
    assert "c: 0 / 4, see me" in said[0]
    assert "ada: has a feedback comment already" in told


def test_moodle_import_leaves_out_what_was_not_graded() -> None:
    text, notes = moodle(class_())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["ID number"], row["Email address"], row["lab"]) for row in rows] == [
        ("101", "ada@uni.example", "9.5"), ("bob", "bob@uni.example", "1"), ("9004", "", "12"),
    ]  # fmt: skip
    assert "zoe (unreadable)" in notes[0]
    assert "bob" in notes[1]


def test_long_table_has_a_row_per_question_and_no_formula() -> None:
    evil = made_row("=cmd|' /C calc'!A0", {"a": 0.0}, message="@SUM(1)", mistakes={"a": "+1"}, name=("-1", "=2"))
    rows = list(csv.DictReader(io.StringIO(long([*class_(), evil]))))
    assert len(rows) == 13
    assert rows[2] | {"message": ""} == rows[2]
    assert (rows[2]["student_id"], rows[2]["question"], rows[2]["points"], rows[2]["by_hand"]) == ("ada", "c", "3", "3")
    assert (rows[5]["student_id"], rows[5]["points"], rows[5]["waits_for_a_human"]) == ("bob", "", "1")
    for value in rows[-1].values():
        assert not value.startswith(("=", "+", "-", "@"))
    text, _ = moodle([evil])
    for value in list(csv.reader(io.StringIO(text)))[1]:
        assert not value.startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no CSV file"),
        (b"just text\n", "no CSV file"),
        (b'Student,ID\n"a"b,1\n', "a quote that does not close"),
        (b"Student,ID\n\xff\xfe,1\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(GradingError) as caught:
        read_sheet(written(tmp_path, data))
    assert says in str(caught.value)


def test_a_sheet_is_written_as_it_was_read(tmp_path: Path) -> None:
    for data in (CANVAS, WORKSHEET, b'a,"b\r\n""c"\r\n,\r\n\r\nx', b'"a"\t"b"\n1\t2'):
        assert read_sheet(written(tmp_path, data)).to_bytes() == data


def test_a_moodle_gradebook_is_no_worksheet(tmp_path: Path) -> None:
    with pytest.raises(GradingError, match="Identifier and Grade"):
        moodle_worksheet(read_sheet(written(tmp_path, b"Full name,Email address,Course total\nAda,a@b,1\n")), class_())
