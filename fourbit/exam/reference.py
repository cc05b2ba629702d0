"""From an author's lab folder to exam packs: run the reference and its mistakes on every case.

Only authors and builders import this module; it needs the lab's source, which no student has.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fourbit.codec import encode
from fourbit.data.cache import write_atomically
from fourbit.errors import ExamError
from fourbit.exam.author import Case, Exam, Exercise, Property, Race
from fourbit.exam.call import Outcome, answer, read_outcome, same_random_state
from fourbit.exam.pack import PACK, PROPERTIES, VERSION, load_module, pack_output

PUBLIC_SEED = 6940
GRADER_PATIENCE = 5.0
_SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[^\n]*\n?", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Lab:
    """An author's lab: its exam, and the setup and exercise cells in their order as (exercise or "", source)."""

    folder: Path
    exam: Exam
    cells: tuple[tuple[str, str], ...]

    def source(self, exercise: str) -> str:
        """The reference's cell without solution markers."""
        for name, source in self.cells:
            if name == exercise:
                return _MARKER.sub("", source)
        raise ExamError(f"{self.folder.name}.py has no cell with exercise={exercise!r}")

    def stub(self, exercise: str) -> str:
        """The cell as a student first sees it."""
        source = next(source for name, source in self.cells if name == exercise)
        return _SOLUTION.sub(lambda m: f"{m.group(1)}raise NotImplementedError\n", source)

    def namespace(self) -> dict[str, Any]:
        """Run setup and reference cells in a fresh namespace; measuring cells are not needed for any exercise."""
        namespace: dict[str, Any] = {"__name__": f"reference_{self.exam.lab.replace('-', '_')}"}
        sys.modules[namespace["__name__"]] = type(sys)(namespace["__name__"])
        for name, source in self.cells:
            run_cell(_MARKER.sub("", source), namespace, f"<cell {name or 'setup'}>")
        return namespace


def load_lab(folder: Path | str) -> Lab:
    """Read `NN-name.py` and `exam.py` of an author's lab folder.

    Raises:
        ExamError: when a file is missing or an exercise of the exam has no cell.
    """
    folder = Path(folder).resolve()
    lab = Lab(folder, load_exam(folder), _read_cells(folder / f"{folder.name}.py"))
    for exercise in lab.exam.exercises:
        lab.source(exercise.name)
    return lab


def load_exam(folder: Path) -> Exam:
    """Run `exam.py`, which may import `properties` from its own folder."""
    name = f"fourbit_properties_{folder.name}"
    before = sys.modules.get("properties")
    sys.modules["properties"] = load_module(folder / PROPERTIES, name)
    try:
        exam = load_module(folder / "exam.py", f"fourbit_exam_{folder.name}").EXAM
    finally:
        sys.modules.pop("properties")
        if before is not None:
            sys.modules["properties"] = before
    assert isinstance(exam, Exam)
    return exam


def _read_cells(path: Path) -> tuple[tuple[str, str], ...]:
    import jupytext

    if not path.is_file():
        raise ExamError(f"{path} is missing; a lab folder holds a notebook source of the folder's name")
    cells = [c for c in jupytext.read(path, fmt="py:percent").cells if c.cell_type == "code"]
    kept = [c for c in cells if c.metadata.get("role") == "setup" or "exercise" in c.metadata]
    return tuple((c.metadata.get("exercise", ""), c.source + "\n") for c in kept)


def run_cell(source: str, namespace: dict[str, Any], filename: str) -> None:
    exec(compile(source, filename, "exec"), namespace)


def variant(namespace: Mapping[str, Any], source: str, name: str) -> dict[str, Any]:
    """A copy of the reference's namespace in which one exercise's cell is `source`."""
    changed = dict(namespace)
    run_cell(source, changed, f"<cell {name}>")
    return changed


def outcomes(exercise: Exercise, namespace: Mapping[str, Any], cases: list[Case], seed: int) -> list[Outcome]:
    """Call an implementation on every case, as `check` does, with a generous time limit."""
    entry, limit = exercise.entry or exercise.name, exercise.seconds * GRADER_PATIENCE
    return [read_outcome(answer(namespace, entry, inputs(case, seed), limit)) for case in cases]


def inputs(case: Case, seed: int) -> bytes:
    return encode({"args": case.args, "kwargs": dict(case.kwargs), "seed": case_seed(case, seed)})


def case_seed(case: Case, seed: int) -> int:
    return zlib.crc32(f"{seed}/{case.name}".encode())


def build_pack(lab: Lab, *, visible: bool, seed: int = PUBLIC_SEED) -> bytes:
    """The pack of a lab: the reference's and every mistake's outcome on every visible or hidden case.

    Raises:
        ExamError: when the reference fails on a case, or a patch does not fit the reference.
    """
    namespace = lab.namespace()
    exercises = [_pack_exercise(lab, e, namespace, visible, seed) for e in lab.exam.exercises]
    return encode({"version": VERSION, "lab": lab.exam.lab, "visible": visible, "exercises": exercises})


def write_pack(lab: Lab, folder: Path, *, visible: bool, seed: int = PUBLIC_SEED) -> None:
    """Write `pack.safetensors` and `properties.py` into `folder`, each by atomic rename."""
    files = {PACK: build_pack(lab, visible=visible, seed=seed), PROPERTIES: (lab.folder / PROPERTIES).read_bytes()}
    for name, data in files.items():
        write_atomically(folder / name, data)


def _pack_exercise(lab: Lab, exercise: Exercise, namespace: dict[str, Any], visible: bool, seed: int) -> dict[str, Any]:
    with same_random_state(seed):  # a layer that a case makes without a generator draws from torch's own
        cases = exercise.cases(seed, visible)
    expected = outcomes(exercise, namespace, cases, seed)
    for case, outcome in zip(cases, expected, strict=True):
        if outcome.status not in ("returned", "raised") or (outcome.changed and not exercise.may_change_inputs):
            raise ExamError(f"{lab.exam.lab}: the reference of {exercise.name!r} on case {case.name!r}: {outcome}")
    wrong = {
        m.id: outcomes(exercise, variant(namespace, m.apply(lab.source(exercise.name)), exercise.name), cases, seed)
        for m in exercise.mistakes
    }
    limit = exercise.seconds * (1.0 if visible else GRADER_PATIENCE)
    race = {} if visible or exercise.race is None else {"race": _pack_race(lab, exercise, exercise.race(seed))}
    return {
        **race,
        "name": exercise.name,
        "entry": exercise.entry or exercise.name,
        "points": float(exercise.points),
        "difficulty": exercise.difficulty,
        "seconds": float(limit),
        "same_form": exercise.same_form,
        "may_change_inputs": exercise.may_change_inputs,
        "cases": [_pack_case(c, seed, expected[i], {k: v[i] for k, v in wrong.items()}) for i, c in enumerate(cases)],
        "properties": [_pack_property(p) for p in exercise.properties],
        "mistakes": [{"id": m.id, "name": m.name, "why": m.why, "link": m.link} for m in exercise.mistakes],
    }


def _pack_race(lab: Lab, exercise: Exercise, race: Race) -> dict[str, Any]:
    """The race with the cells that our side needs: the setup and one exercise."""
    setup = [(f"<cell {name or 'setup'}>", source) for name, source in lab.cells if not name]
    ours = race.source or lab.source(exercise.name)
    return {
        "name": race.name,
        "args": race.case.args,
        "each": list(race.each),
        "times": float(race.times),
        "weight": float(race.weight),
        "apart": float(race.apart),
        "cells": [*setup, (f"<cell {exercise.name}>", ours)],
    }


def _pack_case(case: Case, seed: int, expected: Outcome, wrong: Mapping[str, Outcome]) -> dict[str, Any]:
    from fourbit.exam.compare import coincide
    from fourbit.exam.judge import as_output

    right = as_output(expected)
    differs = {key: as_output(o) for key, o in wrong.items() if not coincide(as_output(o), right)}
    changed = [key for key, o in wrong.items() if o.changed] + ([""] if expected.changed else [])
    return {
        "name": case.name,
        "args": case.args,
        "kwargs": dict(case.kwargs),
        "tags": sorted(case.tags),
        "seed": case_seed(case, seed),
        "expected": pack_output(right),
        "mistakes": {key: pack_output(value) for key, value in differs.items()},
        "changed": changed,
    }


def _pack_property(prop: Property) -> dict[str, Any]:
    holds = prop.holds
    function, arguments = (holds.func, holds.keywords) if isinstance(holds, partial) else (holds, {})
    return {
        "name": prop.name,
        "function": function.__name__,
        "arguments": dict(arguments),
        "weight": float(prop.weight),
        "gate": prop.gate,
        "tags": None if prop.tags is None else sorted(prop.tags),
    }
