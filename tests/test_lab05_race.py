"""Points for speed: the grader's clock, fresh inputs, our kernel in turns with the student's; every cheat is caught."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourbit.codec import Ref
from fourbit.exam import Case, Property, Race
from fourbit.exam.call import Outcome, answer, read_outcome
from fourbit.exam.contest import BATCHES, ROUNDS, contest
from fourbit.exam.judge import judge
from fourbit.exam.pack import PackedExercise, load_pack
from fourbit.exam.reference import Lab, load_lab, variant, write_pack

LOOPS = """
@njit
def gemv_numba(packed, scale, zero, x, sums):
    y = np.zeros(len(packed), np.float32)
    for row in range(len(packed)):
        for g in range(packed.shape[1]):
            for j in range(64):
                byte = packed[row, g, j % 32]
                code = byte >> 4 if j >= 32 else byte & 15
                y[row] += (np.float32(code) - np.float32(zero[row, g])) * scale[row, g] * x[g, j]
    return y
"""
PLAIN = "def plain(packed, scale, zero, x, sums):\n    return dequantized(packed, scale, zero) @ x.ravel()\n"
CHEATS = {
    "keeps outputs": "kept = {}\ndef gemv_numba(*a):\n    return kept.setdefault(a[3].tobytes(), plain(*a)).copy()\n",
    "keeps outputs by shape": (
        "kept = {}\ndef gemv_numba(*a):\n    return kept.setdefault(a[3].shape, plain(*a)).copy()\n"
    ),
    "puts work off": "def gemv_numba(*a):\n    return lambda: plain(*a)\n",
    "empties its inputs": "def gemv_numba(*a):\n    y = plain(*a)\n    a[0][...] = 0\n    return y\n",
    "leaves a thread to fill the result": (
        "import threading, time\n"
        "def gemv_numba(*a):\n    y = np.zeros(len(a[0]), np.float32)\n"
        "    def fill():\n        time.sleep(0.5)\n        y[:] = plain(*a)\n"
        "    threading.Thread(target=fill, daemon=True).start()\n    return y\n"
    ),
    "hands out views of one buffer": (
        "buffer = np.zeros(2**20, np.float32)\ndef gemv_numba(*a):\n    y = buffer[: len(a[0])]\n    y[:] = plain(*a)\n"
        "    return y\n"
    ),
    "leaves rows out": "def gemv_numba(*a):\n    y = plain(*a)\n    y[len(y) // 2 :] = 0\n    return y\n",
}


@pytest.fixture(scope="module")
def lab(root: Path) -> Lab:
    return load_lab(root / "solutions/05-kernels")


@pytest.fixture(scope="module")
def small(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> PackedExercise:
    """The exercise with a race on a matrix so small that times say nothing: only what is computed counts here."""
    g = np.random.default_rng(1)
    args = (
        Ref("random_array", {"kind": "uint8", "shape": (33, 2, 32), "seed": 5}),
        Ref("random_array", {"kind": "float32", "shape": (33, 2), "seed": 6}),
        Ref("random_array", {"kind": "uint8", "shape": (33, 2), "seed": 7, "high": 16}),
    )
    groups = [g.standard_normal((2, 64)).astype(np.float32) for _ in range(3)]
    race = Race("quick", Case("the race", args), tuple((x, x.sum(1)) for x in groups), times=1e9, weight=2.0)
    exercise = dataclasses.replace(lab.exam["gemv_numba"], mistakes=(), race=lambda seed: race)
    return packed(lab, exercise, tmp_path_factory.mktemp("small"))


def packed(lab: Lab, exercise: Any, folder: Path) -> PackedExercise:
    only = dataclasses.replace(lab, exam=dataclasses.replace(lab.exam, exercises=(exercise,)))
    write_pack(only, folder, visible=False)
    return load_pack(folder)[exercise.name]


def answering(names: Mapping[str, Any], seconds: float = 1.0) -> Callable[[bytes], tuple[Outcome, float]]:
    return lambda inputs: (read_outcome(answer(names, "gemv_numba", inputs, 60.0)), seconds)


def ticking(step: float) -> Callable[[], float]:
    now = [0.0]

    def clock() -> float:
        now[0] += step
        return now[0]

    return clock


@pytest.mark.parametrize(("theirs", "earned"), [(1.0, 1.0), (2.0, 1.0), (2.0 * 2**0.5, 0.5), (4.0, 0.0), (100.0, 0.0)])
def test_points_fall_with_the_ratio_of_the_times(lab: Lab, small: PackedExercise, theirs: float, earned: float) -> None:
    assert small.race is not None
    race = dataclasses.replace(small, race=dataclasses.replace(small.race, times=2.0))
    found = contest(race, answering(lab.namespace(), theirs), ticking(1.0))  # ours takes one second
    assert found is not None
    assert found.earned == pytest.approx(earned)
    assert (found.message == "") is (earned == 1)


def test_the_quickest_call_counts_and_slow_ones_are_tried_again(lab: Lab, small: PackedExercise) -> None:
    """A grader that is busy for most of the rounds costs nothing."""
    assert small.race is not None
    names, calls = lab.namespace(), []

    def busy(inputs: bytes) -> tuple[Outcome, float]:
        calls.append(inputs)
        outcome = read_outcome(answer(names, "gemv_numba", inputs, 60.0))
        return outcome, 1.0 if len(calls) == ROUNDS * BATCHES - 1 else 9.0

    race = dataclasses.replace(small, race=dataclasses.replace(small.race, times=2.0))
    found = contest(race, busy, ticking(1.0))
    assert found is not None
    assert found.earned == 1.0
    assert len(calls) == 1 + ROUNDS * BATCHES
    assert len(set(calls)) == len(calls)  # no inputs come twice


def test_a_contestant_cannot_slow_our_side_for_good(lab: Lab, small: PackedExercise) -> None:
    """Ours runs once before the contestant's first call, and its quickest run counts."""
    assert small.race is not None
    compiling, alone = [0.0, 0.0], [0.0, 1.0]  # readings of the clock at begin and end of ours
    readings = iter(compiling + alone + [5.0 * i for i in range(1, 100)])
    race = dataclasses.replace(small, race=dataclasses.replace(small.race, times=2.0))
    found = contest(race, answering(lab.namespace(), 5.0), lambda: next(readings))
    assert found is not None
    assert found.earned == 0.0  # 5 s against 1 s, though ours takes 5 s beside it


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_loses_the_race_or_gains_nothing(lab: Lab, small: PackedExercise, cheat: str) -> None:
    names = variant(lab.namespace(), PLAIN + CHEATS[cheat], "gemv_numba")
    found = contest(small, answering(names), ticking(1.0))
    assert found is not None
    if cheat == "hands out views of one buffer":  # of which the list of outputs then holds the last
        assert "differs from ours" in found.message
    assert found.earned == 0.0
    assert found.message


def test_a_patched_timer_changes_nothing(lab: Lab, small: PackedExercise, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student's process reports no time at all; the seconds are the grader's."""
    assert small.race is not None
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    race = dataclasses.replace(small, race=dataclasses.replace(small.race, times=2.0))
    found = contest(race, answering(lab.namespace(), 100.0), ticking(1.0))
    assert found is not None
    assert found.earned == 0.0


def test_where_our_side_does_not_run_nobody_loses_points(lab: Lab, small: PackedExercise) -> None:
    assert small.race is not None
    missing = dataclasses.replace(small.race, cells=[("<cell>", "import no_such_module")])
    broken = dataclasses.replace(small, race=missing)
    assert contest(broken, answering(lab.namespace())) is None
    none = dataclasses.replace(small, race=None)
    assert contest(none, answering(lab.namespace())) is None


def test_a_race_counts_beside_the_properties(lab: Lab, small: PackedExercise) -> None:
    names = lab.namespace()
    outcomes = [answering(names)(case.inputs)[0] for case in small.cases]
    assert judge(small, outcomes).points == small.points
    lost = contest(small, answering(variant(names, PLAIN + CHEATS["leaves rows out"], "gemv_numba")), ticking(1.0))
    properties = sum(p.weight for p in small.properties)
    verdict = judge(small, outcomes, lost)
    assert verdict.points == pytest.approx(small.points * properties / (properties + 2.0), abs=0.01)
    assert verdict.status == "partly"
    assert any(finding.name == "quick" and not finding.held for finding in verdict.findings)


def test_students_packs_hold_no_race_and_none_of_our_cells(lab: Lab, tmp_path: Path) -> None:
    raced = [e.name for e in lab.exam.exercises if e.race]
    assert raced == ["gemv_numba", "gemv_fast"]
    exercise = dataclasses.replace(lab.exam["gemv_numba"], mistakes=())
    assert isinstance(exercise.properties[0], Property)
    only = dataclasses.replace(lab, exam=dataclasses.replace(lab.exam, exercises=(exercise,)))
    write_pack(only, tmp_path, visible=True)
    assert load_pack(tmp_path)["gemv_numba"].race is None
    assert b"np.zeros(rows" not in (tmp_path / "pack.safetensors").read_bytes()


# A class, graded in the jail.


@pytest.fixture(scope="module")
def graded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """{student: {exercise: question record}} of a class that differs in its kernels."""
    pytest.importorskip("nbgrader")
    import shutil

    from autograder.builder import build_lab
    from autograder.course import create_course
    from autograder.grade import grade_assignment
    from autograder.jail import Limits
    from autograder.workers.slots import close_slots

    home = tmp_path_factory.mktemp("kernels")
    shutil.copytree(root / "solutions/05-kernels", home / "solutions/05-kernels")
    build_lab("05-kernels", home)
    create_course(home / "course", ["05-kernels"], build=home / "build")
    for student, answers in students(load_lab(home / "solutions/05-kernels")).items():
        hand_in(home, student, answers)
    with ThreadPoolExecutor(1) as here:
        limits = Limits(cell_seconds=60.0, notebook_seconds=600.0, memory_bytes=3 * 2**30)
        result = grade_assignment(home / "course", "05-kernels", executor=here, limits=limits)
        yield {r.student: {q.title: q for q in r.questions} for r in result.records}
        here.submit(close_slots).result()


def students(lab: Lab) -> dict[str, dict[str, str]]:
    right = {e.name: lab.source(e.name) for e in lab.exam.exercises}
    alone = next(a.source for a in lab.exam["gemv_fast"].alternatives if a.name == "numba alone")
    return {
        "right": right,
        "without-c": right | {"gemv_fast": alone},
        "stub": {},
        "loops": right | {"gemv_numba": LOOPS},
        "cheats": right | {"gemv_numba": PLAIN + CHEATS["keeps outputs by shape"]},
        "patches": right | {"gemv_numba": "import time\ntime.monotonic = time.perf_counter = lambda: 0.0\n" + LOOPS},
    }  # fmt: skip


def hand_in(home: Path, student: str, answers: Mapping[str, str]) -> None:
    notebook = json.loads((home / "labs/05-kernels/05-kernels.ipynb").read_text())
    for cell in notebook["cells"]:
        fourbit = cell["metadata"].get("fourbit", {})
        if fourbit.get("role") == "exercise" and fourbit["exercise"] in answers:
            cell["source"] = answers[fourbit["exercise"]]
    folder = home / "course/submitted" / student / "05-kernels"
    folder.mkdir(parents=True)
    (folder / "05-kernels.ipynb").write_text(json.dumps(notebook))


@pytest.mark.slow
@pytest.mark.linux
def test_a_class_is_graded_in_the_jail(graded: dict[str, dict[str, Any]], lab: Lab) -> None:
    for student in ("right", "without-c"):
        found = {e.name: (graded[student][e.name].points, graded[student][e.name].message) for e in lab.exam.exercises}
        assert {name: points for name, (points, _) in found.items()} == {e.name: e.points for e in lab.exam.exercises}
    assert all(graded["stub"][e.name].points == 0 for e in lab.exam.exercises)
    for student in ("loops", "patches"):  # right, and slow; the second tells the clock otherwise
        points = graded[student]["gemv_numba"].points
        assert 13 * 8 / 10 <= points < 13, student
    assert graded["cheats"]["gemv_numba"].points < 8
