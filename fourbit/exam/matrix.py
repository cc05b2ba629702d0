"""The kill matrix: proof that an exam tells right from wrong.

The reference must score everything and the stub nothing; every mistake must lose points in the hidden exam and
be named by the visible check where its outcomes differ; every alternative must score everything; and no
constant, identity or permutation may earn half the points.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fourbit.codec import decode
from fourbit.exam.call import Outcome
from fourbit.exam.check import ask, examination
from fourbit.exam.judge import judge
from fourbit.exam.pack import Pack, PackedExercise, load_pack
from fourbit.exam.reference import PUBLIC_SEED, Lab, load_lab, variant, write_pack
from fourbit.exam.verdict import Verdict


@dataclass(frozen=True)
class Row:
    """One implementation under both exams; `complaint` is empty when the exam treats it as it should."""

    exercise: str
    kind: str
    name: str
    hidden: float
    visible: float
    named: str
    complaint: str


def kill_matrix(folder: Path | str, scratch: Path, seed: int = PUBLIC_SEED) -> list[Row]:
    """Build both packs of a lab under `scratch` and examine every implementation with them."""
    lab = load_lab(folder)
    for name, visible in (("visible", True), ("hidden", False)):
        write_pack(lab, scratch / lab.exam.lab / name, visible=visible, seed=seed)
    visible_pack, hidden_pack = (load_pack(scratch / lab.exam.lab / name) for name in ("visible", "hidden"))
    namespace = lab.namespace()
    rows: list[Row] = []
    for exercise in lab.exam.exercises:
        rows += _exercise_rows(lab, exercise.name, namespace, visible_pack, hidden_pack)
    return rows


def _exercise_rows(lab: Lab, name: str, namespace: Mapping[str, Any], visible: Pack, hidden: Pack) -> list[Row]:
    exercise = lab.exam[name]
    source = lab.source(name)
    sources = [("reference", "reference", source), ("stub", "stub", lab.stub(name))]
    sources += [("alternative", a.name, a.source) for a in exercise.alternatives]
    sources += [("mistake", m.id, m.apply(source)) for m in exercise.mistakes]
    rows = []
    for kind, label, text in sources:
        changed = variant(namespace, text, name)
        seen, scored = examination(visible[name], changed), examination(hidden[name], changed)
        rows.append(_row(name, kind, label, scored, seen, visible[name]))
    for label, impostor in IMPOSTORS.items():
        seen, scored = (judge(p[name], ask(p[name], impostor(p[name]))) for p in (visible, hidden))
        rows.append(_row(name, "impostor", label, scored, seen, visible[name]))
    return rows


def _row(exercise: str, kind: str, label: str, scored: Verdict, seen: Verdict, visible: PackedExercise) -> Row:
    named = seen.mistake.id if seen.mistake else ""
    full, share = scored.points >= scored.max_points, scored.points / scored.max_points
    complaint = ""
    if kind in ("reference", "alternative") and not (full and seen.points >= seen.max_points):
        verdict = seen if full else scored
        complaint = "loses points: " + "; ".join(
            f"{f.name} ({f.case}: {f.message})" for f in verdict.findings if not f.held
        )
    elif kind == "stub" and scored.points + seen.points > 0:
        complaint = "earns points"
    elif kind == "mistake" and full:
        complaint = "survives the hidden exam"
    elif kind == "mistake" and any(c.shows(label) for c in visible.cases) and named != label:
        complaint = f"is named {named or 'nothing'} by the visible check"
    elif kind == "impostor" and share >= 0.5:
        complaint = f"earns {share:.0%} of the points"
    return Row(exercise, kind, label, scored.points, seen.points, named, complaint)


# Impostors answer from the expected outputs alone, without looking at the question.


def _impostor(
    answer: Callable[[Sequence[Any], int, Any], Any],
) -> Callable[[PackedExercise], Callable[[bytes], Outcome]]:
    def make(exercise: PackedExercise) -> Callable[[bytes], Outcome]:
        expected = [case.expected for case in exercise.cases]
        number = iter(range(len(expected)))

        def call(inputs: bytes) -> Outcome:
            return Outcome("returned", value=answer(expected, next(number), decode(inputs)["args"]))

        return call

    return make


def _permuted(value: Any) -> Any:
    """The same numbers in another order; a scalar moves by one part in three."""
    if isinstance(value, np.ndarray):
        return _permuted(torch.from_numpy(value)).numpy()
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        return value.flatten().roll(1).reshape(value.shape)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value * 4 / 3
    if isinstance(value, nn.Sequential):
        permuted = copy.deepcopy(value)
        permuted.load_state_dict({key: _permuted(tensor) for key, tensor in value.state_dict().items()})
        return permuted
    if isinstance(value, dict):
        values = list(value.values())
        return dict(zip(value, values[1:] + values[:1], strict=True)) if len(values) > 1 else value
    if isinstance(value, (list, tuple)):
        return type(value)([*value[1:], *value[:1]])
    if isinstance(value, bool):
        return not value
    return value + value // 3 + 1 if isinstance(value, int) else (value * 4 / 3 if isinstance(value, float) else value)


IMPOSTORS = {
    "constant of the first case": _impostor(lambda expected, _i, _args: expected[0]),
    "constant of the last case": _impostor(lambda expected, _i, _args: expected[-1]),
    "identity": _impostor(lambda _expected, _i, args: args[0] if args else None),
    "permutation": _impostor(lambda expected, i, _args: _permuted(expected[i])),
    "answers of the next case": _impostor(lambda expected, i, _args: expected[(i + 1) % len(expected)]),
    "True": _impostor(lambda _expected, _i, _args: True),
    "False": _impostor(lambda _expected, _i, _args: False),
    "zero": _impostor(lambda _expected, _i, _args: 0),
    "None": _impostor(lambda _expected, _i, _args: None),
}
