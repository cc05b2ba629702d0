"""What graders and students read: right, safe to open, and without a word of a hidden test."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from rich.console import Console

from autograder.books.gradebook import Standing, StudentStanding
from autograder.books.regrade import Change
from autograder.judging.sanitize import safe_attachments, safe_html, safe_markdown, safe_name, safe_outputs
from autograder.reports.feedback import render
from autograder.reports.rows import Row, common_mistakes
from autograder.reports.table import class_table, mistakes_table
from autograder.reports.wide import write_csv
from autograder.results import LateRecord, MistakeRecord, PropertyRecord, QuestionRecord, SubmissionRecord, plain

EVIL = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg onload=alert(1)>",
    '<iframe src="https://evil.example"></iframe>',
    '<a href="javascript:alert(1)">x</a>',
    "<style>.points{display:none}</style>",
    '<form action="https://evil.example"><input></form>',
    "<!-- --><script>alert(1)</script>",
    "<b onclick=alert(1)>x</b>",
    '<img src="https://evil.example/pixel.png">',
)


def row(student: str = "ada", **changes: Any) -> Row:
    mistake = MistakeRecord("m", "counts unsigned levels", "Half the codes are negative.", "lecture_notes/00.md#x")
    properties = (PropertyRecord("keeps n weights", True), PropertyRecord("masks the smallest", False, "0.3 > 0.1"))
    questions = (
        QuestionRecord("lab", "mask", "partly", 1.5, 3.0, "exam", mistake=mistake, properties=properties),
        QuestionRecord("lab", "loop", "timeout", 0.0, 2.0, "in process", "still running after 5 s"),
        QuestionRecord("lab", "why", "manual", None, 2.0, "by hand"),
    )
    record = SubmissionRecord("lab", student, "graded", questions, **changes)
    standing = StudentStanding(
        student, "Ada", "King", "ada@example.org", 0.5,
        {("lab", "mask"): Standing(1.5, 3.0, 1.5), ("lab", "loop"): Standing(0.0, 2.0, 0.0),
         ("lab", "why"): Standing(2.25, 2.0, None, 1.75, 0.5, False, "Nice, *but* <script>alert(1)</script>")},
    )  # fmt: skip
    return Row(record, standing)


def graded_notebook(answer: str, output: dict[str, Any] | None = None) -> dict[str, Any]:
    def cell(kind: str, source: str, outputs: list[Any] | None = None, **nbgrader: Any) -> dict[str, Any]:
        return {"cell_type": kind, "source": source, "metadata": {"nbgrader": nbgrader}, "outputs": outputs or []}

    return {
        "cells": [
            cell("code", answer, [output] if output else [], solution=True, grade_id="a"),
            cell("code", "assert HIDDEN_TEST == 42", grade=True, grade_id="mask"),
            cell("markdown", answer, solution=True, grade=True, grade_id="why"),
        ]
    }


def printed(table: Any, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_page_shows_points_mistake_counterexample_and_what_a_human_said() -> None:
    page = render(
        row(notes=("one cell was deleted",)), "lab", graded_notebook("def mask(): ..."), "https://notes.example/"
    )
    for text in (
        "3.75 / 7", "counts unsigned levels", "Half the codes are negative.", "0.3 &gt; 0.1", "still running after 5 s",
        "Ran out of time", "Your answers were judged outside your program, on inputs that you have not seen.",
        "This question was judged by a test cell in the same process as your code.",
        "Graded by hand", "2.25 / 2", "<em>but</em>", "one cell was deleted", "def mask()",
        'href="https://notes.example/00.md#x"', "0.5 points are taken off",
    ):  # fmt: skip
        assert text in page, text
    assert "HIDDEN_TEST" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_the_page_names_the_limit_how_late_the_work_was_and_what_a_regrade_changed() -> None:
    late = LateRecord("2026-03-02T10:00:00+00:00", "receipt", 7200.0, {"lab": 0.5})
    made = row(late=late)
    questions = (replace(made.record.questions[1], limit="cell_seconds"),)
    made = replace(made, record=replace(made.record, questions=questions))
    change = Change("ada", "exam", 2.0, 3.75, ())
    page = render(made, "lab", {}, "", ("2026-03-03 09:00 UTC", change))
    for text in (
        "(limit: the time for a cell)", "0.5 points are taken off",
        "Handed in 2 hours after the due date, on 2026-03-02 10:00 UTC by the course&#39;s own clock.",
        "Graded again on 2026-03-03 09:00 UTC (because of: exam): 2 points before, 3.75 now.",
    ):  # fmt: skip
        assert text in page, text


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_of_a_students_runs_or_loads_on_the_page(evil: str) -> None:
    output = {"output_type": "display_data", "data": {"text/html": evil, "text/plain": evil}, "metadata": {}}
    page = render(row(notes=(evil,), message=evil), "lab", graded_notebook(evil, output))
    body = page.split("</head>")[1]
    parsed = Tags()
    parsed.feed(body)
    assert parsed.seen <= {
        "body", "header", "h1", "h2", "p", "section", "ul", "li", "div", "span", "strong", "br", "details", "summary",
        "pre", "code", "a", "b", "em", "img", "main",
    }, parsed.seen  # fmt: skip
    assert all(not name.startswith("on") for name in parsed.attributes)
    assert all(not value.strip().lower().startswith(("javascript", "http", "//")) for value in parsed.values)


def test_pictures_of_a_written_answer_stand_below_its_text() -> None:
    notebook = graded_notebook("See ![my proof](attachment:p.png).")
    notebook["cells"][2]["attachments"] = {
        "p.png": {"image/png": "aGk="}, '"><script>': {"image/png": "aGk="}, "evil": {"text/html": "<script>"},
    }  # fmt: skip
    page = render(row(), "lab", notebook)
    assert '<img alt="p.png" src="data:image/png;base64,aGk=">' in page
    assert "<script" not in page


def test_sanitizing_keeps_what_is_harmless() -> None:
    table = "<table><tr><td>1</td></tr></table>"
    assert "<td>1</td>" in safe_html(table)
    picture = '<img src="data:image/png;base64,aGk=" alt="x">'
    assert "aGk=" in safe_html(picture)
    assert safe_markdown("a < b, $x< y$ and **bold** <b>x</b><br>") == "a < b, $x< y$ and **bold** <b>x</b><br>"
    for kept in ("[a](https://example.org)", "[b](#up)", "<https://example.org>", "![c](data:image/png;base64,aGk=)"):
        assert safe_markdown(kept) == kept
    assert safe_markdown("![d](attachment:d.png)", ("d.png",)) == "![d](attachment:d.png)"
    for evil in EVIL:
        assert not any(
            f"<{tag}" in safe_markdown(evil) for tag in ("script", "img", "svg", "iframe", "a ", "style", "form", "b o")
        )


@pytest.mark.parametrize(
    "evil",
    [
        "[x](javascript:alert(1))",
        "[x]( \tjavascript:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "<javascript:alert(1)>",
        "[x][r]\n\n[r]: javascript:alert(1)",
        "[r]:\n  javascript:alert(1)\n\n[r]",
        "[x](evil.html)",
        "[x](..%2f..%2fsubmitted/eve/ps1/evil.html)",
        "[x](/lab/tree/evil.ipynb)",
        "[x](//evil.example/)",
        "![x](https://evil.example/p.png)",
        "![a [b] c](https://evil.example/p.png)",
        "![x][r]\n\n[r]: https://evil.example/p.png",
        "[![x](https://evil.example/p.png)](https://evil.example/)",
        "![x](evil.svg)",
        "![x](attachment:missing.png)",
        "```mermaid\n<x:y onmouseover=alert(1)>\n<https://x/onclick=alert(1)>\n```",
        "<svg/onload=alert(1)>",
    ],
)
def test_markdown_in_formgrader_opens_no_file_runs_nothing_and_fetches_nothing(evil: str) -> None:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    def shown(text: str) -> Tags:
        """What nbconvert, and so formgrader, makes of Markdown."""
        parsed = Tags()
        parsed.feed(MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments={})).render(text))
        return parsed

    parsed = shown(safe_markdown(evil))
    assert not parsed.seen & {"img", "svg", "x:y", "https:"}
    assert not any(name.startswith("on") for name in parsed.attributes)
    assert all(value.startswith("https://evil.example/") for value in parsed.values), parsed.values


def test_attachments_and_files_keep_what_no_browser_runs() -> None:
    attachments = {
        "a b.png": {"image/png": "aGk="},
        "evil": {"text/html": "<script>"},
        "odd": {"image/png": '"><script>'},
        "empty": {},
        "text": "not a bundle",
        "drawing.svg": {"image/svg+xml": "<svg onload='alert(1)'/>"},
    }
    assert safe_attachments(attachments) == {"a b.png": {"image/png": "aGk="}}
    for name in ("x.html", "a/b.SVG", "x.xhtml", "x.htm", "x.xml", "x.mht", "x.xsl"):
        assert safe_name(name) == name + ".txt"
    for name in ("cities.csv", "photo.png", "README", "model.pt", "notes.md", "x.py"):
        assert safe_name(name) == name


def test_outputs_are_reduced_to_what_is_known() -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\x1b]0;title\x07", "\x1b[31mred\x1b[0m"]},
        {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/svg+xml": "<svg onload='alert(1)'/>"}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": "\"><script>"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {"x": 1}, "execution_count": 5},
        {"output_type": "strange"},
        {"output_type": "error", "ename": "E", "evalue": "v\x00", "traceback": "no list"},
    ]  # fmt: skip
    safe = safe_outputs(outputs)
    assert [o["output_type"] for o in safe] == ["stream", "display_data", "execute_result", "error"]
    assert safe[0]["text"] == "a]0;title\x1b[31mred\x1b[0m"
    assert list(safe[1]["data"]) == ["text/html"]
    assert "onload" not in safe[1]["data"]["text/html"]


def test_the_table_says_in_words_what_happened() -> None:
    rows = [row(), Row(SubmissionRecord("lab", "bob\x1b[2J", "unreadable", message="not JSON at line 1"), None)]
    text = printed(class_table(rows, "lab"))
    for part in ("ada", "3.25 / 7", "timeout: loop", "partly: mask", "counts unsigned levels", "unreadable: not JSON"):
        assert part in text, text
    assert "\x1b" not in text
    assert text.isprintable() or "\n" in text
    assert printed(class_table(rows), 40)


def test_of_a_large_class_the_table_shows_who_needs_a_look() -> None:
    rows = [row(f"s{number:04d}") for number in range(1000)]
    rows[7] = Row(SubmissionRecord("lab", "s0007", "unreadable", message="not JSON"), None)
    text = printed(class_table(rows, "lab"))
    assert "unreadable: not JSON" in text
    # Everybody's loop ran out of time: cut.
    assert "800 more, in grades.csv and in the report" in text
    assert len(text.splitlines()) < 1000


def test_common_mistakes_are_counted_per_student() -> None:
    records = [row("a").record, row("b").record]
    assert common_mistakes(records) == [("mask", "counts unsigned levels", "Half the codes are negative.", 2)]
    assert "counts unsigned levels" in printed(mistakes_table([row("a")]))
    assert mistakes_table([]) is None


@pytest.mark.parametrize("width", [80, 100, 120])
def test_common_mistakes_take_two_lines_each_and_say_why_in_a_sentence(width: int) -> None:
    made = row("a")
    mistake = MistakeRecord("m", "a mistake", "Half the codes are 0.5 or less, e.g. -1. The rest is in the report.", "")
    (first, *_) = made.record.questions
    named = replace(made.record, questions=tuple(replace(first, name=f"q{i}", mistake=mistake) for i in range(8)))
    lines = printed(mistakes_table([replace(made, record=named)]), width).splitlines()
    assert len(lines) == 1 + 3 + 8 * 2 + 1
    assert sum("Half the codes are 0.5 or less, e.g. -1." in line for line in lines) == 8
    assert not any("The rest" in line for line in lines)


def test_of_many_mistakes_of_a_student_the_table_names_some_and_counts_the_rest() -> None:
    made = row("a")
    (first, *_) = made.record.questions
    mistakes = [MistakeRecord(f"m{i}", f"mistake {i}", "Why.", "") for i in range(6)]
    questions = tuple(replace(first, name=f"q{i}", mistake=mistake) for i, mistake in enumerate(mistakes))
    text = printed(class_table([replace(made, record=replace(made.record, questions=questions))]), 160)
    assert "mistake 0, mistake 1, mistake 2 and 3 more" in text


def test_csv_is_wide_quoted_and_no_spreadsheet_runs_it(tmp_path: Path) -> None:
    names = ("=cmd|' /C calc'!A0", "+1", "-2", "@x", "a, b", 'say "hi"', "\t=1", " =1", "plain")
    rows = [row(name) for name in names]
    path = tmp_path / "grades.csv"
    write_csv(path, rows)
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [r["student_id"].lstrip("'") for r in found] == list(names)
    assert not any(r["student_id"].lstrip().startswith(("=", "+", "-", "@")) for r in found)
    assert found[0]["mask"] == "1.5"
    assert found[0]["why"] == "2.25"
    assert found[0]["score"] == "3.25"
    assert found[0]["late_penalty"] == "0.5"
    assert found[0]["last_name"] == "King"


def test_an_answer_that_waits_for_a_person_has_no_points_in_the_csv(tmp_path: Path) -> None:
    made = row()
    assert made.standing is not None
    waiting = {**made.standing.questions, ("lab", "why"): Standing(0.0, 2.0, needs_manual_grade=True)}
    rows = [replace(made, standing=replace(made.standing, questions=waiting)), replace(made, standing=None)]
    write_csv(tmp_path / "grades.csv", rows)
    found = list(csv.DictReader(io.StringIO((tmp_path / "grades.csv").read_text())))
    assert [(r["mask"], r["loop"], r["why"], r["waiting_for_a_human"]) for r in found] == [("1.5", "0", "", "1")] * 2


def test_plain_text_has_no_escapes() -> None:
    assert plain("a\x1b[31mb\x1b]0;t\x07c\r\nd\x00\u202e") == "abc\nd\ufffd\ufffd"
    assert len(plain("x" * 10_000)) == 4_000


class Tags(__import__("html.parser").parser.HTMLParser):  # type: ignore[misc]
    """What a browser would see on a page: tags, attribute names, link and source values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def test_json_of_a_row_is_the_record() -> None:
    assert json.loads(row().record.to_json())["questions"][0]["mistake"]["name"] == "counts unsigned levels"
