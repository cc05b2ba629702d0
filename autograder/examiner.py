"""Running a rebuilt notebook and finding out what each of its graded cells earns.

A Fourbit question is examined by data: the hidden inputs go to the student's process, the replies come back as
bytes, and the judging happens here, outside. A plain nbgrader test cell runs in a process of its own (see
`autograder.plain`), or where that cannot be in the student's, which its record says. With restore points, what a
student's cell breaks costs its own question.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autograder.causes import answers_of, check_name, explained, limits_hit, title_of
from autograder.engine import CellOutcome, Runner
from autograder.ingest import Ingested, RebuiltCell
from autograder.results import MistakeRecord, Mode, PropertyRecord, QuestionRecord, Status, plain
from autograder.scoring import Score, in_cell, probe, score_cell
from autograder.template import NotebookTemplate, TemplateCell

if TYPE_CHECKING:  # imports torch, which a course of plain test cells does without
    from autograder import exams
    from autograder.plain.court import Court

# The handler stops a call at the exam's limit and says so; the engine stops a handler that cannot.
_GRACE = 2.0


@dataclass(frozen=True)
class Examined:
    """One notebook after grading.

    Attributes:
        outputs: what each cell displayed, by position; from the student's process.
        verdicts: panels of examined questions by position; the grader's own.
        notes: which cells hit a limit, in words, where no question says it.
        outcomes: how each cell ran, by position.
    """

    questions: tuple[QuestionRecord, ...]
    outputs: Mapping[int, Sequence[Mapping[str, Any]]]
    verdicts: Mapping[int, Mapping[str, Any]]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    outcomes: Mapping[int, CellOutcome] = field(default_factory=dict)


@dataclass
class _Run:
    """The state of one notebook's run."""

    runner: Runner
    exam: exams.Pack | None
    restore_points: bool
    court: Court | None = None
    outcomes: dict[int, CellOutcome] = field(default_factory=dict)
    outputs: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    verdicts: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    questions: list[QuestionRecord] = field(default_factory=list)


def examine(
    ingested: Ingested,
    runner: Runner,
    exam: exams.Pack | None,
    prefix: Mapping[int, CellOutcome] | None = None,
    *,
    restore_points: bool = True,
    court: Court | None = None,
) -> Examined:
    """Run `ingested` in `runner` and judge it; never raises for what the student wrote.

    Args:
        exam: the hidden exam of this lab, or None in a course of plain test cells.
        prefix: outcomes of cells that the runner's state already includes, by position in the template.
        court: runs the plain test cells that can leave the student's process; without one, none does.
        restore_points: whether to fork before each cell of the student's, so that a cell that ends its process leaves
            the state before it.
    """
    started = time.monotonic()
    run = _Run(runner, exam, restore_points, court)
    place = -1
    for position, cell in enumerate(ingested.cells):
        place += cell.cell is not None
        if prefix and cell.cell is not None and place in prefix:
            run.outcomes[position] = prefix[place]
            run.outputs[position] = prefix[place].outputs
        elif cell.cell is not None and cell.cell.role in ("test", "manual", "task"):
            run.questions.append(_question(run, ingested, position, cell.cell, place))
        elif cell.runs:
            _execute(run, position, cell)
    seconds = time.monotonic() - started
    return Examined(
        tuple(run.questions), run.outputs, run.verdicts, seconds, limits_hit(run.outcomes, run.questions), run.outcomes
    )


def not_run(template: NotebookTemplate, why: str, status: Status = "missing") -> tuple[QuestionRecord, ...]:
    """Return the questions of a notebook that could not be graded: no points, and the reason."""
    return tuple(
        QuestionRecord(
            template.name, cell.grade_id, status, 0.0, cell.points, "not run", plain(why), title=title_of(cell)
        )
        for cell in template.graded
    )


def _execute(run: _Run, position: int, cell: RebuiltCell) -> CellOutcome:
    outcome = run.runner.run_cell(cell.source, checkpoint=run.restore_points and cell.origin != "template")
    run.outcomes[position] = outcome
    run.outputs[position] = outcome.outputs
    return outcome


def _question(run: _Run, ingested: Ingested, position: int, cell: TemplateCell, place: int) -> QuestionRecord:
    answers = answers_of(ingested.cells, position, cell)
    exercise = check_name(cell)
    if cell.role != "test":
        question = _by_hand(run, ingested, position, cell)
    elif exercise and run.exam is not None:
        question = _by_data(run, ingested.name, position, cell, exercise)
    elif run.court is not None and run.court.plan.isolates(place):
        question = _isolated(run, ingested.name, position, cell, place)
    else:
        question = _in_process(run, ingested.name, position, cell)
    return explained(run.outcomes, question, ingested.cells, answers, title_of(cell))


def _by_data(run: _Run, notebook: str, position: int, cell: TemplateCell, exercise: str) -> QuestionRecord:
    """Examine the exercise from outside: inputs in, replies out, judged here."""
    from autograder import exams

    assert run.exam is not None
    started = time.monotonic()
    packed = run.exam[exercise]
    argument = {"entry": packed.entry, "seconds": packed.seconds}
    hit: list[str] = []
    with run.runner.session("autograder.exams:answer", argument, packed.seconds + _GRACE) as session:

        def timed(payload: bytes) -> tuple[exams.Outcome, float]:
            reply = session.call(payload)
            hit.extend([reply.limit] if reply.limit else [])
            return exams.outcome_of(reply.status, reply.payload), reply.seconds

        outcomes = exams.ask(packed, lambda payload: timed(payload)[0])
        verdict = exams.judge(packed, outcomes)
        if packed.race is not None and verdict.points > 0:
            verdict = exams.judge(packed, outcomes, exams.contest(packed, timed))
    points = min(max(verdict.points, 0.0), cell.points)
    if verdict.status == "out of memory":  # the handler in the jail says so itself
        hit.append("memory_bytes")
    run.verdicts[position] = _shown(verdict)
    return QuestionRecord(
        notebook,
        cell.grade_id,
        _status(verdict.status, points, cell.points),
        points,
        cell.points,
        "exam",
        plain(verdict.message),
        _mistake(verdict),
        tuple(_property(finding) for finding in verdict.findings),
        time.monotonic() - started,
        position + 1,
        limit=hit[0] if hit and points < cell.points else "",
    )


def _isolated(run: _Run, notebook: str, position: int, cell: TemplateCell, place: int) -> QuestionRecord:
    """Run a plain test cell in a process that no line of the student's has entered."""
    assert run.court is not None
    trial = run.court.judge(place, cell.source)
    score = score_cell(trial.outcome, cell.points, ran=True, has_value=probe(cell.source).has_value)
    if trial.refused and score.points < cell.points:
        score = replace(score, message="; ".join(filter(None, (score.message, plain(trial.refused)))))
    run.outcomes[position] = trial.outcome
    run.outputs[position] = trial.outcome.outputs
    return _record(notebook, position, cell, score, "isolated", trial.outcome.seconds)


def _in_process(run: _Run, notebook: str, position: int, cell: TemplateCell) -> QuestionRecord:
    """Run a plain test cell among the student's own objects."""
    if cell.kind != "code":
        return _record(notebook, position, cell, Score(0.0, "failed", "this test is no code cell"), "not run", 0.0)
    marked = probe(cell.source)
    outcome = run.runner.run_cell(marked.source, checkpoint=run.restore_points)
    ran = not marked.name or outcome.status not in ("ok", "output limit") or _is_set(run.runner, marked.name)
    score = score_cell(outcome, cell.points, ran=ran, has_value=marked.has_value or not marked.name)
    run.outcomes[position] = outcome
    run.outputs[position] = _without_mark(outcome.outputs, marked.name)
    return _record(notebook, position, cell, score, "in process", outcome.seconds)


def _by_hand(run: _Run, ingested: Ingested, position: int, cell: TemplateCell) -> QuestionRecord:
    """Leave a written answer to a human; an untouched one earns nothing, as in nbgrader."""
    rebuilt = ingested.cells[position]
    outcome = _execute(run, position, rebuilt) if rebuilt.runs and cell.role == "manual" else None
    if cell.role == "manual" and not rebuilt.answered:
        score = Score(0.0, "missing", "no answer")
    else:
        score = Score(0.0, "manual", "waits for a human")
    return _record(ingested.name, position, cell, score, "by hand", outcome.seconds if outcome else 0.0)


def _record(
    notebook: str, position: int, cell: TemplateCell, score: Score, mode: Mode, seconds: float
) -> QuestionRecord:
    points = None if score.status == "manual" else score.points
    message = in_cell(score.message, position + 1) if score.limit else score.message
    return QuestionRecord(
        notebook, cell.grade_id, score.status, points, cell.points, mode, message, None, (), seconds, position + 1,
        limit=score.limit,
    )  # fmt: skip


def _is_set(runner: Runner, name: str) -> bool:
    """Whether the mark of a test cell is there; the variable is removed."""
    outcome = runner.run_cell(f"globals().pop({name!r}, False)")
    shown = [o.get("data", {}).get("text/plain") for o in outcome.outputs if o.get("output_type") == "execute_result"]
    return outcome.status == "ok" and shown == ["True"]


def _without_mark(outputs: Sequence[Mapping[str, Any]], name: str) -> Sequence[Mapping[str, Any]]:
    if not name:
        return outputs
    cleaned = []
    for output in outputs:
        if output.get("output_type") == "error" and isinstance(output.get("traceback"), list):
            lines = [
                str(line).replace(f"{name} = True; ", "").replace(f"{name} = True", "") for line in output["traceback"]
            ]
            output = {**output, "traceback": lines}
        cleaned.append(output)
    return cleaned


def _shown(verdict: exams.Verdict) -> dict[str, Any]:
    data = {"text/plain": repr(verdict), "text/html": verdict._repr_html_()}
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}


def _status(status: str, points: float, max_points: float) -> Status:
    known: dict[str, Status] = {
        "passed": "passed", "partly": "partly", "failed": "failed", "error": "error", "timeout": "timeout",
        "crashed": "crashed", "out of memory": "out of memory", "missing": "missing",
    }  # fmt: skip
    if points and points < max_points:
        return "partly"
    return known.get(status, "failed")


def _mistake(verdict: exams.Verdict) -> MistakeRecord | None:
    named = verdict.mistake
    return None if named is None else MistakeRecord(named.id, named.name, plain(named.why), named.link)


def _property(finding: Any) -> PropertyRecord:
    where = f" (case: {finding.case})" if finding.case and finding.message else ""
    return PropertyRecord(finding.name, finding.held, plain(f"{finding.message}{where}"))
