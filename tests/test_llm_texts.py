"""The three novels: whole, in plain text, with their licence, and no passage of one in another."""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
from pathlib import Path

import pytest

from fourbit.data.assets import FOLDER, find_asset, read_asset
from fourbit.errors import DataError
from fourbit.llm.evaluate import windows
from fourbit.llm.texts import CALIBRATION, EVALUATION, HIDDEN, NOVELS, novel
from fourbit.recipes.austen import prose

BEGINNINGS = {
    "northanger-abbey": "No one who had ever seen Catherine Morland in her infancy would have supposed her born to be",
    "persuasion": "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement,",
    "sense-and-sensibility": "The family of Dashwood had long been settled in Sussex.",
}
PEOPLE = {
    "northanger-abbey": {"Catherine", "Tilney", "Thorpe", "Morland"},
    "persuasion": {"Elliot", "Wentworth", "Musgrove", "Benwick"},
    "sense-and-sensibility": {"Dashwood", "Elinor", "Marianne", "Willoughby"},
}


@pytest.mark.parametrize("name", NOVELS)
def test_a_novel_is_what_its_manifest_says(name: str) -> None:
    asset, text = find_asset(name), novel(name)
    assert hashlib.sha256(read_asset(name)).hexdigest() == asset.sha256
    assert hashlib.sha256(text.encode()).hexdigest() == asset.unpacked_sha256
    assert f"{NOVELS[name][1]} by Jane Austen, {len(text.encode()):,} bytes" in asset.about


@pytest.mark.parametrize("name", NOVELS)
def test_a_novel_is_in_the_public_domain_and_says_so(name: str) -> None:
    asset = find_asset(name)
    assert asset.license == "public domain"
    said = (FOLDER / asset.license_file).read_text(encoding="utf-8")
    assert NOVELS[name][1] in said
    assert "public domain" in " ".join(said.split())
    assert asset.recipe == "python -m fourbit.recipes.austen"


@pytest.mark.parametrize("name", NOVELS)
def test_a_novel_is_plain_text_in_paragraphs(name: str) -> None:
    text = novel(name)
    assert text.startswith(BEGINNINGS[name])
    assert set(text) <= {"\n", *map(chr, range(32, 127))}
    paragraphs = text.removesuffix("\n").split("\n\n")
    assert len(paragraphs) > 1000
    assert all(paragraph == " ".join(paragraph.split()) != "" for paragraph in paragraphs)
    assert not re.search(r"(?im)^(chapter|volume) [0-9ivxl]+\.?$|gutenberg|_", text)
    assert all(text.count(person) > 50 for person in PEOPLE[name])


def test_no_text_has_two_uses() -> None:
    assert {CALIBRATION, EVALUATION, HIDDEN} == set(NOVELS)
    assert len({novel(name) for name in (CALIBRATION, EVALUATION, HIDDEN)}) == 3


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(NOVELS, 2)))
def test_no_passage_stands_in_two_novels(one: str, other: str) -> None:
    def runs(name: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z]+", novel(name).lower())
        return set(zip(*(words[i:] for i in range(13)), strict=False))

    def lines(name: str) -> set[str]:
        text = " ".join(novel(name).split())
        return {text[i : i + 50] for i in range(len(text) - 49)}

    assert runs(one).isdisjoint(runs(other))  # the longest that two share is a phrase of eleven words
    assert lines(one).isdisjoint(lines(other))


def test_every_text_is_long_enough_for_the_labs_windows() -> None:
    """No token spans two words here, so there are at least as many tokens as words: 16 windows fit ten times."""
    for name in NOVELS:
        assert len(novel(name).split()) > 10 * 16 * 256
        assert windows(range(len(novel(name).split())), 256, 16).shape == (16, 256)


def test_no_cell_of_the_lab_reads_the_hidden_text_or_what_was_measured_on_it(root: Path) -> None:
    source = (root / "solutions" / "04-llm-quantization" / "04-llm-quantization.py").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert names.isdisjoint({"HIDDEN", "NOVELS"})
    assert strings.isdisjoint({HIDDEN, "hidden"})
    assert {"CALIBRATION", "EVALUATION", "novel"} <= names


def test_another_name_is_told() -> None:
    with pytest.raises(DataError, match=r"no text is called 'emma'; the texts are northanger-abbey, persuasion, sense"):
        novel("emma")


def test_the_recipe_leaves_out_headings_and_joins_lines() -> None:
    lines = [
        "PERSUASION", "", "by Jane Austen", "(1818)", "", "Chapter 1", "", "Sir Walter _Elliot_,", "of  Kellynch.", "",
        "CHAPTER II", "", '"The end of a chapter," said he.', "", "Finis",
    ]  # fmt: skip
    assert prose(lines) == 'Sir Walter Elliot, of Kellynch.\n\n"The end of a chapter," said he.\n'
