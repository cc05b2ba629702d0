"""The class report: its numbers are right, and it stays readable and harmless for any class."""

from __future__ import annotations

import html
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest

pytest.importorskip("nbgrader")

from autograder.books.regrade import Change, QuestionChange
from autograder.reports.attention import needs_a_look, used_up
from autograder.reports.charts import histogram, item_map
from autograder.reports.class_report import MOST_LOOKS, ClassReport, PairView, render
from autograder.reports.rows import Row
from autograder.reports.similarity import compare, known_runs, side_by_side
from autograder.reports.statistics import items, percentile, spread
from autograder.results import LateRecord
from tests.honest_answers import STUDENTS, handed_out, honest, renamed
from tests.report_rows import made_row


def class_of(points: Sequence[tuple[float | None, ...]], **changes: object) -> list[Row]:
    return [
        made_row(f"s{i:02d}", dict(zip("abcdef", earned, strict=False)), **changes)  # type: ignore[arg-type]
        for i, earned in enumerate(points)
    ]


def report(rows: Sequence[Row], **changes: object) -> ClassReport:
    graded = tuple(row for row in rows if row.record.outcome == "graded")
    found = tuple(items(rows))
    made = ClassReport(
        "lab", tuple(rows), graded, spread([row.score for row in graded]), found, None,
        tuple(needs_a_look(rows, found)), compare({}), (), (),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def shown(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("<main>")[1])))


def test_difficulty_is_the_share_of_the_points() -> None:
    found = items(class_of([(4.0, 0.0), (2.0, 0.0), (0.0, 0.0)]))
    assert [item.difficulty for item in found] == [0.5, 0.0]
    assert [item.mean for item in found] == [2.0, 0.0]


def test_discrimination_leaves_the_item_itself_out() -> None:
    points = [(4.0, 4.0, 3.0), (4.0, 3.0, 4.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)] * 3
    found = items(class_of(points))
    expected = statistics.correlation([p[0] for p in points], [p[1] + p[2] for p in points])
    assert found[0].discrimination == pytest.approx(expected)
    # An item that has nothing to do with the others correlates with a total that holds it, and not with the rest.
    lonely = [(4.0, 1.0, 1.0), (0.0, 1.0, 1.0), (4.0, 3.0, 3.0), (0.0, 3.0, 3.0)] * 3
    assert items(class_of(lonely))[0].discrimination == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(4.0, 1.0), (0.0, 2.0)], "fewer than 10 submissions"),
        ([(4.0, 1.0), (4.0, 2.0)] * 6, "everybody has the same points here"),
        ([(4.0, 1.0), (0.0, 1.0)] * 6, "everybody has the same points elsewhere"),
        ([(None, 1.0), (None, 2.0)] * 6, "12 still wait for a person"),
    ],
)
def test_no_discrimination_where_it_says_nothing(points: list[tuple[float | None, ...]], why: str) -> None:
    item = items(class_of(points))[0]
    assert item.discrimination is None
    assert item.unclear == why
    assert why in shown(render(report(class_of(points))))


def test_points_are_the_gradebooks() -> None:
    rows = class_of([(None, 2.0), (None, 4.0)], by_hand=3.0, penalty=1.0)
    assert items(rows)[0].mean == 3.0
    assert "Mean, of 8 points 5.0" in shown(render(report(rows)))


def test_quartiles_are_linear_between_neighbors() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (0, 0.25, 0.5, 1)] == [1, 1.75, 2.5, 4]
    assert spread([]) is None
    assert spread([2.0]) == spread([2.0, 2.0])


def bars(svg: str) -> list[list[tuple[float, float]]]:
    drawn = re.findall(r'<path d="(M [^"]*z) "[^>]*style="fill: var\(--plot-blue', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path in drawn]


@pytest.mark.parametrize(
    "scores",
    [
        [27.0, 41.5, 48.0, 49.0, 52.0, 57.0, 66.0, 72.0, 77.0, 87.0],
        [100.0] * 3000,
        [0.0] * 199 + [12.0],
        [5.0, 95.0] * 30,
        [*range(101)] * 30,
        [-3.0, 104.0],
    ],
)
def test_no_words_lie_over_the_bars(scores: list[float]) -> None:
    marks = spread(scores)
    assert marks is not None
    svg = histogram(scores, 100.0, marks)
    highest_bar = min(y for bar in bars(svg) for _, y in bar)
    words = re.search(r'y="(\S+)"[^>]*>median', svg)
    assert words is not None
    assert float(words[1]) < highest_bar


def test_a_bar_stands_over_its_whole_number_of_points() -> None:
    scores = [0.0, 0.0, 3.0, 4.0, 5.0, 5.0, 5.0]
    marks = spread(scores)
    assert marks is not None
    svg = histogram(scores, 5.0, marks)
    ticks = {text: float(x) for x, text in re.findall(r'x="(\S+)" y="174[^>]*>(\d)</text>', svg)}
    middles = {round(sum(x for x, _ in bar[:4]) / 4, 1) for bar in bars(svg) if len({y for _, y in bar}) > 1}
    assert middles == {round(ticks[text], 1) for text in "0345"}


def test_numbers_of_exercises_keep_apart() -> None:
    rows = class_of([(4.0, 4.0, 4.0, 1.0), (0.0, 0.0, 0.0, 2.0), (4.0, 4.0, 0.0, 3.0), (0.0, 0.0, 2.0, 0.0)] * 3)
    svg = item_map(items(rows))
    places = {n: (float(x), float(y)) for x, y, n in re.findall(r'x="(\S+)" y="(\S+)"[^>]*>([1-4])</text>', svg)}
    assert set(places) == set("1234")
    assert min(math.dist(places[a], places[b]) for a, b in combinations(places, 2)) > 8


def test_an_exercise_that_waits_has_no_mean_yet() -> None:
    rows = class_of([(None, 2.0), (None, 4.0)])
    assert items(rows)[0].difficulty is None
    assert "1 a 4 - - n/a" in shown(render(report(rows)))


def test_mistakes_and_statuses_are_counted_per_exercise() -> None:
    rows = [
        *class_of([(0.0, 4.0)] * 3, mistakes={"a": "off by one"}),
        *class_of([(0.0, 4.0)], mistakes={"a": "<b>wrong axis</b>"}),
        *class_of([(4.0, 4.0)] * 2),
    ]
    first, second = items(rows)
    assert [(m.name, m.students) for m in first.mistakes] == [("off by one", 3), ("<b>wrong axis</b>", 1)]
    assert second.mistakes == ()
    assert first.statuses == (("failed", 4), ("passed", 2))
    page = render(report(rows))
    assert "&lt;b&gt;wrong axis" in page
    assert "<b>wrong axis" not in page


def test_what_needs_a_person_is_named_and_the_rest_is_left_alone() -> None:
    odd = made_row("odd", {"a": 4.0}, mode="in process")
    limited = made_row("limited", {"a": 0.0}, status="out of memory", limit="memory_bytes")
    broken = made_row("broken", {}, outcome="unreadable")
    broken = replace(broken, record=replace(broken.record, message="it is not JSON"))
    late = made_row("late", {"a": 4.0})
    late = replace(late, record=replace(late.record, late=LateRecord(note="no receipt says when it came in")))
    tampered = made_row("tampered", {"a": 0.0}, status="tampered")
    rows = [*class_of([(4.0,)] * 5), odd, limited, broken, late, tampered, made_row("waits", {"a": 4.0, "b": None})]
    found = {look.row.student: look.reasons for look in needs_a_look(rows, items(rows))}
    assert next(iter(found)) == "broken"
    assert found == {
        "broken": ("unreadable: it is not JSON",),
        "odd": ("judged inside its own process, unlike the class: a",),
        "limited": ("used up memory: a",),
        "late": ("time of submission unknown: no receipt says when it came in",),
        "tampered": ("did not run as it should: a",),
    }
    text = shown(render(report(rows)))
    assert "1 answer of 1 student waits for points by hand" in text
    assert "used up memory: a" in text


def test_an_exams_own_time_is_a_limit_too() -> None:
    slow = made_row("slow", {"a": 0.0}, status="timeout")
    assert used_up(slow.record.questions[0]) == "exam_seconds"
    stopped = made_row("stopped", {"a": 0.0}, status="timeout", limit="cell_seconds")
    assert used_up(stopped.record.questions[0]) == "cell_seconds"
    assert used_up(made_row("fine", {"a": 4.0}).record.questions[0]) == ""


def test_in_process_is_nothing_special_where_the_whole_course_is() -> None:
    rows = class_of([(4.0,)] * 3, mode="in process")
    assert needs_a_look(rows, items(rows)) == []


def test_a_long_list_is_cut_and_says_so() -> None:
    rows = [made_row(f"s{i:04d}", {"a": 0.0}, status="crashed") for i in range(3000)]
    page = render(report(rows))
    assert f"{MOST_LOOKS} of 3000; grades.csv has everybody." in page
    assert len(page) < 200_000


def test_similar_work_comes_side_by_side_with_its_warning() -> None:
    answers = {student: honest(student) for student in STUDENTS} | {"<i>copy</i>": renamed(honest("student1"))}
    found = compare(answers, handed_out())
    pair = found.pairs[0]
    view = PairView(pair, tuple(side_by_side(answers[pair.first], answers[pair.second], known_runs(handed_out()))))
    page = render(report(class_of([(4.0,)] * 3), similarity=found, pairs=(view,)))
    assert "<i>copy" not in page
    assert "A score is no evidence" in page
    assert "<mark>" in page
    assert "my_found_1" in page
    text = shown(page)
    assert "9 submissions were compared" in text
    assert "more than 4 wrote alike" in text


def test_a_large_group_that_says_the_same_is_named() -> None:
    ring = {f"copy{number}": honest("student1") for number in range(6)}
    text = shown(render(report(class_of([(4.0,)] * 3), similarity=compare(ring, handed_out()))))
    assert "6 submissions say the same, token for token" in text
    assert "copy0, copy1, copy2" in text


def test_regrades_show_before_after_and_why() -> None:
    change = Change("s00", "exam", 3.0, 4.5, (QuestionChange("lab", "a", "mask", None, 1.5),))
    text = shown(render(report(class_of([(4.0,)]), changes=(("2026-03-01T12:00:00+00:00", change),))))
    assert "s00 2026-03-01T12:00:00+00:00 3 4.5 exam mask - to 1.5" in text


@pytest.mark.parametrize("rows", [[], [made_row("zoe", {}, outcome="crashed")], class_of([(0.0,)]), class_of([()])])
def test_a_class_without_anything_to_count_has_a_page(rows: list[Row]) -> None:
    page = render(report(rows))
    assert "class report" in page
    assert "nan" not in shown(page)


def test_the_page_needs_no_script_and_asks_nobody() -> None:
    page = render(report(class_of([(4.0, 1.0), (1.0, 4.0)] * 8)))
    assert "<script" not in page
    assert "default-src 'none'" in page
    # The one address is the name of SVG's links, which no browser fetches.
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
