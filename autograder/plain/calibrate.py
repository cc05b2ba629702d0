"""The instructor's own solution decides, once for a class, which test cells can leave the student's process.

It is run twice: as stock nbgrader would, and with the test cells in a process of their own. A cell that does not earn
it the same points there stays in the student's process, for everybody and with the reason. What the solution's objects
were asked in a cell is what a student's objects may be asked in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from autograder.plain.court import Trial
from autograder.plain.plan import Plan, TestPlan, plan_of
from autograder.reading.ingest import Ingested, rebuild
from autograder.reading.matching import StudentCell
from autograder.reading.template import NotebookTemplate
from autograder.results import plain

# Points of the test cells by template position, and the trials of those that ran in a process of their own.
Run = Callable[[Ingested, Plan | None], tuple[Mapping[int, float], Mapping[int, Trial]]]
_ROUNDS = 4
EXAMINED = "a hidden exam judges it"


def calibrate(
    notebook: NotebookTemplate, files: Mapping[str, bytes], run: Run, examined: Collection[int] = ()
) -> Plan:  # fmt: skip
    """Return the plan by which the class is graded. ``run`` grades a notebook, all of it in process without a plan.
    ``examined``: positions of test cells that a hidden exam judges."""
    inside = dict.fromkeys(examined, EXAMINED)
    plan = plan_of(notebook, files, inside)
    if not plan.isolated:
        return plan
    solution = reference(notebook)
    wanted, _ = run(solution, None)
    for _ in range(_ROUNDS):
        if not plan.isolated:
            return plan
        points, trials = run(solution, plan)
        failed = {p: _difference(notebook, p, wanted, points, trials) for p in plan.isolated}
        if not any(failed.values()):
            return _permitting(plan, trials)
        inside |= {position: why for position, why in failed.items() if why}
        plan = plan_of(notebook, files, inside)  # what these cells define and change is the student's from now on
    inside |= dict.fromkeys(plan.isolated, "it could not be settled whether it can leave the student's process")
    return plan_of(notebook, files, inside)


def reference(notebook: NotebookTemplate) -> Ingested:
    """The instructor's own solution, as a submission."""
    return rebuild(notebook, [StudentCell(i, c.kind, c.solved, c.grade_id) for i, c in enumerate(notebook.cells)])


def _difference(
    notebook: NotebookTemplate, position: int, wanted: Mapping[int, float], points: Mapping[int, float],
    trials: Mapping[int, Trial],
) -> str:  # fmt: skip
    """Why a test cell has to stay in the student's process; "" when it can leave."""
    most = notebook.cells[position].points
    right, found = wanted.get(position, 0.0), points.get(position, 0.0)
    if right == 0 < most:
        return "the instructor's own solution earns nothing in it"
    if right == found:
        return ""
    said = trials[position].outcome.message.partition(":")[0] if position in trials else "it did not run"
    told = f"in a process of its own it gives the instructor's solution {found:g} instead of {right:g}"
    return plain(f"{told} ({said})" if said else told, 300)


def _permitting(plan: Plan, trials: Mapping[int, Trial]) -> Plan:
    tests: dict[int, TestPlan] = {}
    for position, test in plan.tests.items():
        used = trials[position].used if position in trials else frozenset()
        tests[position] = test if test.reason else replace(test, permitted=used)
    return replace(plan, tests=tests)
