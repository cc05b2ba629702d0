"""The grader's side of a plain test cell: it runs in the clean process, and what it asks of the student's objects is
carried to the submission and back.

Both processes are jailed. The submission gets the arguments of calls and nothing else of a test; the clean process gets
data and numbers that stand for objects. A call that loops or ends its process ends the test cell, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autograder.engine import CellOutcome, Runner, SessionReply
from autograder.engine.frames import DeadlineError, HungUp, ProtocolError
from autograder.engine.outcome import Output
from autograder.plain.codec import pack, unpack
from autograder.plain.plan import Plan, TestPlan

_ANSWER, _BIND, _REPORT = (
    "autograder.plain.answer:answer", "autograder.plain.clean:bind", "autograder.plain.clean:report",
)  # fmt: skip
HANDLERS = (_ANSWER, _BIND, _REPORT)
_LATER = 5.0  # seconds that the clean process is given after the submission's deadline
_OURS = ("autograder/plain/", "autograder/engine/", "submission-")


@dataclass(frozen=True)
class Trial:
    """How a test cell ended. ``used``: guarded questions that were asked; ``refused``: what a student should know about
    one that was not passed on."""

    outcome: CellOutcome
    used: frozenset[str] = frozenset()
    refused: str = ""


@dataclass
class Court:
    """The two processes of one submission. ``done``: the position up to which the clean process's image has run;
    ``trials``: what the test cells came to, by position."""

    submission: Runner
    clean: Runner
    plan: Plan
    restore_points: bool
    done: int = -1
    trials: dict[int, Trial] = field(default_factory=dict)
    _stopped: SessionReply | None = None
    _deadline: float = 0.0
    _shown: list[Output] = field(default_factory=list)

    def judge(self, position: int, source: str) -> Trial:
        """Run the test cell at a template position; never raises for what a submission does."""
        test = self.plan.tests[position]
        self._catch_up(position)
        if test.into:
            self.submission.run_cell(test.into)
        limit = self.submission.limits.cell_seconds
        start = time.monotonic()
        self._stopped, self._shown, self._deadline = None, [], start + limit
        if self._bind(test):
            outcome = self.clean.run_cell(
                source, seconds=limit + _LATER, checkpoint=self.restore_points, back=self._relay
            )
        else:
            outcome = CellOutcome("error")
        if stop := self._stop():
            outcome = replace(outcome, status=stop.status, message=stop.message, limit=stop.limit)
        outputs = (*self._shown, *_without_our_frames(outcome.outputs))
        outcome = replace(outcome, outputs=outputs, seconds=time.monotonic() - start)
        self.trials[position] = self._reported(test, outcome)
        return self.trials[position]

    def _stop(self) -> SessionReply | None:
        """The answer with which the submission's process was stopped in this test cell."""
        return self._stopped

    def _catch_up(self, position: int) -> None:
        """Run the instructor's cells before a position, as far as test cells need them."""
        for place, source in self.plan.pieces:
            if self.done < place < position:
                self.clean.run_cell(source)
        self.done = max(self.done, position)

    def _bind(self, test: TestPlan) -> bool:
        """Give the test cell's names their meaning; False when the submission could not say it."""
        asked = pack({"do": "names", "names": test.names, "shared": self.plan.shared})
        reply = self._ask_submission(asked, first=True)
        if reply is None:
            return False
        permitted = None if test.permitted is None else sorted(test.permitted)
        head = {"names": test.names, "shared": self.plan.shared, "watched": test.watched, "permitted": permitted}
        said = pack({**head, "imports": dict(test.imports)}, [reply])
        bound = self.clean.ask(_BIND, said, seconds=_LATER, checkpoint=self.restore_points)
        if bound.status != "ok":
            self._stopped = replace(bound, message=f"the values of the submission cannot be read: {bound.message}")
        return bound.status == "ok"

    def _ask_submission(self, payload: bytes, *, first: bool = False) -> bytes | None:
        """The submission's answer; None when it was stopped, which ends the test cell."""
        left = max(self._deadline - time.monotonic(), 0.01)
        checkpoint, back = first and self.restore_points, None if first else self._called
        reply = self.submission.ask(_ANSWER, payload, seconds=left, checkpoint=checkpoint, back=back)
        self._printed = [[item["name"], item["text"]] for item in reply.outputs if item["output_type"] == "stream"]
        # A value that a call displays is no value of the test cell, which would be its score.
        self._shown += [item for item in reply.outputs if item["output_type"] == "display_data"]
        if reply.status != "ok":
            self._stopped = reply
            return None
        return reply.payload

    def _relay(self, payload: bytes) -> bytes:
        """What the clean process asks in the middle of a test cell."""
        if self._stopped is not None:
            return pack({"printed": [], "stop": self._stopped.message})
        reply = self._ask_submission(payload)
        stop = self._stopped.message if self._stopped is not None else ""
        return pack({"printed": self._printed, "stop": stop}, [] if reply is None else [reply])

    def _called(self, payload: bytes) -> bytes:
        """The submission calls a function that the test cell passed to it."""
        try:
            return self.clean.callback(payload, back=self._nested)
        except (HungUp, DeadlineError, ProtocolError) as error:
            self.clean.close()
            return pack({"x": ["RuntimeError", f"the test cell ended: {error}"]})

    def _nested(self, payload: bytes) -> bytes:
        return pack({"printed": [], "stop": ""}, [self.submission.callback(payload, back=self._called)])

    def _reported(self, test: TestPlan, outcome: CellOutcome) -> Trial:
        """Add what the clean process noticed, and leave the submission's names as the test cell left them."""
        full = outcome.status == "ok" and not any(o["output_type"] == "execute_result" for o in outcome.outputs)
        if not self.clean.alive or (full and not test.watched and test.permitted is not None):
            return Trial(outcome)
        report = self.clean.ask(_REPORT, b"", seconds=_LATER)
        if report.status != "ok":
            return Trial(outcome)
        told, parts = unpack(report.payload)
        if test.watched and self._stopped is None:
            self._deadline = time.monotonic() + _LATER
            self._ask_submission(parts[0])
            self._stopped = None
        return Trial(outcome, frozenset(told["used"]), "; ".join(told["refused"]))


def _without_our_frames(outputs: Sequence[Output]) -> list[Output]:
    """Tracebacks without the frames of this machinery, and without what lies between a test and the student's code."""
    cleaned = []
    for output in outputs:
        if output["output_type"] == "error":
            kept = [line for line in output["traceback"] if not any(mark in line for mark in _OURS)]
            output = {**output, "traceback": kept}
        cleaned.append(output)
    return cleaned
