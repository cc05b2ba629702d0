"""What a grading slot keeps for plain test cells: the plans of its notebooks, and the process that they run in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from autograder.engine import EngineError, Runner
from autograder.jail import Limits
from autograder.plain.calibrate import EXAMINED, Run, calibrate
from autograder.plain.court import Court
from autograder.plain.plan import Plan, TestPlan
from autograder.reading.template import NotebookTemplate
from autograder.results import plain


@dataclass
class Bench:
    """``files``: the instructor's, by name; ``plans``: by the notebook's name."""

    files: Mapping[str, bytes]
    limits: Limits
    plans: dict[str, Plan] = field(default_factory=dict)
    _clean: dict[str, Runner] = field(default_factory=dict)

    def plan(self, notebook: NotebookTemplate, run: Run, examined: Collection[int] = ()) -> Plan:
        """Return which test cells run in a process of their own; the instructor's solution is run once to see.

        Raises:
            EngineError: when this machine cannot run any submission.
        """
        if notebook.name not in self.plans:
            try:
                self.plans[notebook.name] = calibrate(notebook, self.files, run, examined)
            except EngineError:
                raise
            except Exception as error:  # a fault of the grader's must not cost a class its grades
                why = f"its calibration failed ({type(error).__name__}: {plain(error, 200)})"
                tests = (p for p, cell in enumerate(notebook.cells) if cell.role == "test" and p not in examined)
                self.plans[notebook.name] = Plan(dict.fromkeys(tests, TestPlan(why)))
        return self.plans[notebook.name]

    def beside(self, notebook: NotebookTemplate) -> list[str]:
        """Return which test cells could not leave the submission's process, and why."""
        plan = self.plans.get(notebook.name, Plan({}))
        told = [(notebook.cells[p].grade_id, test.reason) for p, test in plan.tests.items() if test.reason]
        return [
            f"the test cell {name!r} ran beside the submission's code: {why}" for name, why in told if why != EXAMINED
        ]

    def court(
        self, notebook: NotebookTemplate, spawn: Callable[[Limits], Runner], runner: Runner, plan: Plan, done: int,
        restore_points: bool,
    ) -> Court:  # fmt: skip
        """Give a submission a process for its test cells: it holds the instructor's files, none of the student's.

        One jail serves all submissions; each gets a fork of the state before the first of them.
        """
        clean = self._clean.get(notebook.name)
        if clean is None or not clean.renew(self.files):
            if clean is not None:
                clean.close()
            longer = replace(self.limits, notebook_seconds=self.limits.notebook_seconds + self.limits.cell_seconds)
            clean = self._clean[notebook.name] = spawn(longer)
            clean.renew(self.files)
        return Court(runner, clean, plan, restore_points, done)

    def close(self) -> None:
        """End the processes."""
        while self._clean:
            self._clean.popitem()[1].close()
