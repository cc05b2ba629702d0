"""Eight independent solutions of the same four exercises, and ways in which copies of them are disguised.

The solutions, in fixtures/honest-answers, differ as students' do: in method, in control flow, in the library calls
that they reach for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "fixtures" / "honest-answers"
STUDENTS = tuple(sorted(path.stem for path in FOLDER.glob("student*.py")))
EXERCISES = {"primes": "n", "roman": "n", "anagrams": "words", "moving": "values, width"}

Answers = dict[str, tuple[str, str]]


def handed_out() -> list[tuple[str, str]]:
    """The cells that everybody starts from."""
    stub = '    """What it returns."""\n    # Your code here.\n    raise NotImplementedError'
    return [("code", f"def {name}({arguments}):\n{stub}") for name, arguments in EXERCISES.items()]


def honest(student: str) -> Answers:
    """A student's answers, by exercise."""
    text = (FOLDER / f"{student}.py").read_text(encoding="utf-8")
    nodes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    return {name: ("code", ast.get_source_segment(text, nodes[name]) or "") for name in EXERCISES}


def renamed(answers: Answers) -> Answers:
    """Every name of the student's own changed, comments and docstrings added, the layout another."""
    changed = {}
    for name, (kind, text) in answers.items():
        own = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)} & _assigned(text)
        for old in own:
            text = re.sub(rf"(?<![.\w]){old}\b", f"my_{old}_1", text)
        lines = text.replace(" + ", "+").split("\n")
        commented = [f"{line}  # mine" if line.strip() else line for line in lines[1:]]
        changed[name] = (kind, "\n".join([lines[0], '    """Written by myself."""', *commented]))
    return changed


def moved(answers: Answers) -> Answers:
    """All functions in one cell, in another order, with a statement of no use between them."""
    texts = [text for _, text in answers.values()]
    empty = dict.fromkeys(answers, ("code", ""))
    return empty | {next(iter(answers)): ("code", "\ncounter = 0\n".join(reversed(texts)))}


def mixed(answers: Answers, own: Mapping[str, tuple[str, str]]) -> Answers:
    """The first two exercises copied, the others one's own."""
    return dict(own) | {name: answers[name] for name in list(answers)[:2]}


def _assigned(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and _is_store(node)}


def _is_store(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
