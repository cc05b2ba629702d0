"""The claims ledger: its scanner finds every number of a chapter that nothing accounts for, and no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripts import load_script

UNITS = ("%", "×", "x", "times", "points", "ms", "µs", "s", "GB", "GiB", "kB", "GB/s", "tokens/s", "pJ", "W", "million",
         "GFLOP/s", "MACs", "bits per weight")  # fmt: skip
ACCOUNTS = ("[@someone2020]", "<!--given: chosen-->", "<!--given: worked here: twice the above-->")
NO_PROSE = (
    "`{}`",
    "$x = {}$",
    "$$\nx = {}\n$$",
    "```python\nx = {}\n```",
    "~~~\n{}\n~~~",
    "[here]({}.md)",
    "## Heading {}",
    '<a id="n" title="{}"></a>',
    "<!-- {} -->",
    '<details markdown="1"><summary>A. {}.</summary>\n\nYes, {}.\n\n</details>',
)
NAMES = ("4096 × 11008", "256 × 1,152", "RTX-4090",
         "Llama-2-7B", "SmolLM2-135M", "W8A8", "2:4", "4-bit", "16-bit", "in 2017", "the 1990s", "3 × 3", "1×1,024",
         "28×28", "v1.2.3", "float32", "lab 00", "layer 15", "five", "T4", "p99")  # fmt: skip


def module(root: Path, name: str) -> ModuleType:
    return sys.modules.get(name) or load_script(root / "site" / f"{name}.py")


@pytest.fixture(scope="module")
def ledger(root: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(root / "site"))
    yield module(root, "ledger")
    sys.path.remove(str(root / "site"))


@pytest.fixture(scope="module")
def ledger_page(ledger: ModuleType, root: Path) -> ModuleType:
    return module(root, "ledger_page")


decimals = st.decimals(0, 999, places=2).map(str)
small = st.integers(0, 999).map(str)
large = st.integers(1000, 10**12).map("{:,}".format)
bare = st.integers(2040, 99_999).map(str)
with_unit = st.tuples(small | large, st.sampled_from(UNITS)).map(" ".join)
claim = decimals | large | bare | with_unit
no_claim = small | st.sampled_from(NAMES)
filler = st.lists(
    st.sampled_from(["this", "is", "what", "such", "a", "network", "of", "ours", "costs"]) | no_claim, max_size=4
)
sentence = st.tuples(filler, claim, filler).map(lambda p: (" ".join(["So", *p[0], p[1], "and", *p[2], "it is."]), p[1]))
block = st.sampled_from(("{}", "- {}", "3. {}", "| {} | here |", "> {}", "![{}](figures/a.svg)"))


def found(ledger: ModuleType, text: str) -> list[tuple[int, str]]:
    return [(c.line, c.number) for c in ledger.claims(text) if not c.given and not c.sources]


@given(sentence, block)
def test_a_claim_is_found_whole_wherever_it_stands(ledger: ModuleType, said: tuple[str, str], form: str) -> None:
    text = f"# Title\n\nBefore.\n\n{form.format(said[0])}\n\nAfter.\n"
    assert found(ledger, text) == [(5, said[1])]


@given(st.lists(no_claim, min_size=1, max_size=6), block)
def test_names_shapes_years_and_small_counts_are_no_claims(ledger: ModuleType, words: list[str], form: str) -> None:
    assert found(ledger, form.format("; ".join(words) + " it is.")) == []


@given(claim, st.sampled_from(NO_PROSE))
def test_what_is_not_prose_is_not_searched(ledger: ModuleType, number: str, form: str) -> None:
    inside = number.replace(" ", "") if "](" in form else number
    assert found(ledger, f"Before.\n\n{form.replace('{}', inside)}\n\nAfter.") == []


@given(sentence, sentence, block, st.sampled_from(ACCOUNTS))
def test_an_account_speaks_for_its_own_block_only(
    ledger: ModuleType, one: tuple[str, str], other: tuple[str, str], form: str, account: str
) -> None:
    first, second = form.format(one[0] + " " + account), form.format(other[0])
    apart = "\n" if form.startswith(("-", "3.")) else "\n\n"
    line = 2 + apart.count("\n") - 1
    assert found(ledger, first + apart + second) == [(line, other[1])]
    assert found(ledger, second + apart + first) == [(1, other[1])]


@given(decimals | large, st.sampled_from(("{}", "**{}", "({}", "| {}")))
def test_a_generated_number_needs_no_more(ledger: ModuleType, number: str, before: str) -> None:
    marked = f"{before.format(number)}<!--=some.key--> % of it"
    assert found(ledger, marked) == []
    assert found(ledger, marked + " and 3.5 more") == [(1, "3.5")]


@given(st.lists(sentence, min_size=2, max_size=4))
def test_rows_share_the_account_of_the_first_row_or_of_a_line_below(
    ledger: ModuleType, rows: list[tuple[str, str]]
) -> None:
    table = "\n".join(f"| {said} | b |" for said, _ in rows)
    assert found(ledger, table) == [(i + 1, number) for i, (_, number) in enumerate(rows)]
    assert found(ledger, f"| what [@someone2020] | b |\n|---|---|\n{table}") == []
    assert found(ledger, f"{table}\n\n<!--given: chosen-->\n") == []
    items = "\n".join(f"- {said}" for said, _ in rows)
    assert found(ledger, f"{items}\n\n<!--given: lab-->\n\nNow 3.5.") == [(len(rows) + 4, "3.5")]


@given(claim, claim)
def test_a_setting_accounts_for_its_amount_and_no_other(ledger: ModuleType, number: str, other: str) -> None:
    text = f"# Title\n\n<!--settings: 17 %; {number}-->\n\nSo {number} it is, and {other} as well."
    assert found(ledger, text) == ([] if other in (number, "17 %") else [(5, other)])


@given(st.lists(sentence.map(lambda s: s[0]) | st.sampled_from(NO_PROSE) | st.text(max_size=40), max_size=8))
def test_blanking_keeps_every_place(ledger: ModuleType, parts: list[str]) -> None:
    text = "\n\n".join(parts)
    masked = ledger.mask(text)
    assert len(masked) == len(text)
    assert all(m in (t, " ") and (m == "\n") == (t == "\n") for m, t in zip(masked, text, strict=True))
    starts = [block.line for block in ledger.blocks(text)]
    assert starts == sorted(set(starts))


def test_a_reason_must_be_one_of_the_known(ledger: ModuleType) -> None:
    assert ledger.faults("So 3.5 it is. <!--given: worked here: 7 / 2-->", "a.md") == []
    said = ledger.faults("Text.\n\nSo 3.5 it is. <!--given: everybody knows-->", "a.md")
    assert said == ["a.md:3: 'everybody knows' is no reason (chosen, definition, worked here, lab)."]


def test_a_setting_that_accounts_for_nothing_is_named(ledger: ModuleType) -> None:
    said = ledger.faults("# T\n\n<!--settings: 5 %; 2.5 GB-->\n\nSo 5 % it is.", "a.md")
    assert said == ["a.md: the setting '2.5 GB' accounts for nothing. Remove it."]


def test_the_message_names_file_line_number_and_the_next_step(ledger: ModuleType) -> None:
    with pytest.raises(ledger.StageError) as error:
        ledger.check("# Title\n\nIt takes 3.5 ms.\n\nAnd 12 GB.", "lecture_notes/a.md")
    said = str(error.value)
    assert "lecture_notes/a.md:3: '3.5 ms' has no mark, source or reason." in said
    assert "lecture_notes/a.md:5: '12 GB' has no mark, source or reason." in said
    assert "cite its source" in said


def test_marks_of_the_ledger_do_not_reach_the_reader(ledger: ModuleType) -> None:
    text = "# T\n\n<!--settings: 5 %-->\n\nSo 5 % of 3.5. <!--given: chosen-->\n\n| 2.5 <!--given: lab--> |"
    assert ledger.clean(text) == "# T\n\n\nSo 5 % of 3.5.\n\n| 2.5 |"


CHAPTER = """# A *chapter*

<!--settings: 50 %-->

<a id="first"></a>

## First

At 50 % it has 12.7<!--=a.key--> points, and `9.9<!--=no.key-->`.

<a id="second"></a>Sources have 3.5 ms [@someone2020; @other2021]. At 50 % too.

Or 2.5 GB. <!--given: worked here: 5 / 2-->
"""


def test_the_page_has_every_number_source_and_reason_where_it_stands(ledger_page: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "chapter.md").write_text(CHAPTER, encoding="utf-8")
    (tmp_path / "README.md").write_text("[A chapter](chapter.md)", encoding="utf-8")
    lines = ledger_page.ledger_page(tmp_path).split("\n")
    rows = [line for line in lines if "](chapter.md#" in line]
    assert rows == [
        "| [first](chapter.md#first) | 12.7 `a.key` |",
        "| [@someone2020] | [second](chapter.md#second) | 3.5 ms |",
        "| [@other2021] | [second](chapter.md#second) | 3.5 ms |",
        "| chosen: a setting of this chapter | [first](chapter.md#first) | 50 % |",
        "| chosen: a setting of this chapter | [second](chapter.md#second) | 50 % |",
        "| worked here: 5 / 2 | [second](chapter.md#second) | 2.5 GB |",
    ]


def test_every_chapter_is_accounted_for(ledger: ModuleType, root: Path) -> None:
    paths = sorted((root / "lecture_notes").glob("*.md"))
    assert len(paths) >= 10
    assert [said for path in paths for said in ledger.faults(path.read_text(encoding="utf-8"), path.name)] == []
