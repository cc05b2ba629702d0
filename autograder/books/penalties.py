"""Late penalties by the course's own policy, recomputed whenever work is graded or its time changes.

A penalty that a human has put into the gradebook, or taken out of it, stays: what the grader itself wrote is in the
records, so anything else is somebody's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from functools import cached_property
from typing import Any

from autograder.books.arrival import Arrival
from autograder.books.grade_rows import AssignmentRow, SubmissionRow, seconds_late, write_penalty
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, LateRecord, plain


class Penalties:
    """The policy that ``c.AssignLatePenalties.plugin_class`` names, for one assignment."""

    def __init__(self, course: NbgraderCourse, gradebook: Any, assignment: AssignmentRow) -> None:
        self.course, self.gradebook, self.assignment = course, gradebook, assignment

    @cached_property
    def _stage(self) -> Any:
        """nbgrader's stage with the course's plug-in, which finds in it what nbgrader puts there."""
        from nbgrader.preprocessors import AssignLatePenalties

        try:
            stage = AssignLatePenalties(config=self.course.config)
            stage.init_plugin()
        except Exception as error:
            raise GradingError(f"the late policy of nbgrader_config.py does not load: {plain(error, 500)}") from error
        stage.gradebook, stage.assignment_id = self.gradebook, self.assignment.name
        stage.db_url = self.course.db_url
        return stage

    def judge(self, submission: SubmissionRow, scores: Mapping[str, float], arrival: Arrival) -> LateRecord:
        """Return when the work came in and what the policy takes off, by what the gradebook says now.

        Args:
            scores: points of each submitted notebook by its row id, late penalties not taken off.

        Raises:
            GradingError: when the course's plug-in fails.
        """
        seconds = seconds_late(self.assignment, submission, arrival.at)
        found = {}
        for notebook in self.assignment.notebooks:
            own = submission.notebooks.get(notebook.id)
            if own is not None and seconds > 0:
                points = self._penalty(submission.student, notebook.name, scores.get(own, 0.0), seconds)
                if points is not None:
                    found[notebook.name] = points
        at = "" if arrival.at is None else arrival.at.replace(tzinfo=UTC).isoformat()
        # Without a due date nobody needs to know whose clock it was.
        note = arrival.note if self.assignment.duedate is not None else ""
        return LateRecord(at, arrival.source, seconds, found, (), note)

    def settle(self, db: Any, submission: SubmissionRow, late: LateRecord, ours: Sequence[LateRecord]) -> LateRecord:
        """Write the penalties that changed, and return `late` with what a human has decided marked.

        Args:
            ours: what the grader wrote before, or may have written before it was killed.
        """
        by_hand = []
        for notebook in self.assignment.notebooks:
            own = submission.notebooks.get(notebook.id)
            if own is None:
                continue
            wanted, stored = late.penalties.get(notebook.name), submission.penalties.get(own)
            before = [earlier.penalties.get(notebook.name) for earlier in ours]
            if own in submission.penalties and before and stored not in (*before, wanted):
                by_hand.append(notebook.name)
            elif stored != wanted:
                write_penalty(db, own, wanted)
        return LateRecord(late.at, late.source, late.seconds, late.penalties, tuple(by_hand), late.note)

    def _penalty(self, student: str, notebook: str, score: float, seconds: float) -> float | None:
        stage = self._stage
        stage.student_id, stage.notebook_id = student, notebook
        try:
            points = stage.plugin_inst.late_submission_penalty(student, score, seconds)
            return None if points is None else min(max(float(points), 0.0), max(score, 0.0))
        except Exception as error:
            name = type(stage.plugin_inst).__name__
            raise GradingError(
                f"the late policy {name} failed for {plain(student, 80)}: {type(error).__name__}: {plain(error, 500)}"
            ) from error
