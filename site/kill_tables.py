"""The published kill matrix on a lab's page, from kill-matrix.json (which kill_matrix.py makes)."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from problems import StageError

HEAD = """\
## What the exam tells apart {{#kill-matrix}}

{exercises} exercises, {mistakes} known mistakes. Under the hidden exam the reference and {alternatives} other right
solutions score everything, an untouched notebook scores nothing, every mistake loses points, and an impostor that
answers from the expected outputs without looking at the question never earns half. `check` in the notebook names
{named} of the mistakes: those whose outputs differ from a right solution's on the visible cases. A test computes this
table anew ([all labs, as JSON](../kill-matrix.json)).

<details markdown="1"><summary>Show the mistakes. Their names are hints, so try first.</summary>
"""


def read_matrix(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The published matrix: lab -> exercises with their mistakes."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"site/{path.name} cannot be read ({error}). Run `python site/kill_matrix.py`.") from error


def kill_table(exercises: list[dict[str, Any]]) -> str:
    """The section of a page below labs/."""
    mistakes = [mistake for exercise in exercises for mistake in exercise["mistakes"]]
    head = HEAD.format(
        exercises=len(exercises),
        mistakes=len(mistakes),
        alternatives=sum(exercise["alternatives"] for exercise in exercises),
        named=sum(mistake["named"] for mistake in mistakes),
    )
    parts = [part for exercise in exercises for part in (*heading(exercise), *rows(exercise), "")]
    return "\n".join([head, *parts, "</details>"])


def heading(exercise: dict[str, Any]) -> list[str]:
    """What stands above the rows of one exercise."""
    points = f"{exercise['points']:g}"
    name = f"[`{exercise['exercise']}`](#{exercise['exercise']})"
    return [f"**{name}**, {points} points", "", f"| mistake | loses, of {points} | named by `check` |", "|---|--:|---|"]


def rows(exercise: dict[str, Any]) -> list[str]:
    """One row for each mistake; its name leads to where the notes explain it."""
    return [
        f"| [{plain(m['name'])}](../{m['link']}) | {m['lost']:g} | {'yes' if m['named'] else 'no'} |"
        for m in exercise["mistakes"]
    ]


def plain(name: str) -> str:
    """A mistake's name as text: nothing in it is Markdown or a table's border."""
    return re.sub(r"([\\`*_|\[\]$<>])", r"\\\1", html.unescape(name))
