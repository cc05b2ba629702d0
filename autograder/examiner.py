"""Running a rebuilt notebook and finding out what each of its graded cells earns.

A Fourbit question is examined by data: the hidden inputs go to the student's process, the replies come back as
bytes, and the judging happens here, outside. A plain nbgrader test cell runs in a process of its own (see
`autograder.plain`), or where that cannot be in the student's, which its record says. With restore points, what a
student's cell breaks costs its own question.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autograder.engine import CellOutcome, Runner
from autograder.ingest import Ingested, RebuiltCell
from autograder.results import MistakeRecord, Mode, PropertyRecord, QuestionRecord, Status, plain, text_hash
from autograder.scoring import Score, in_cell, probe, score_cell
from autograder.template import NotebookTemplate, TemplateCell

if TYPE_CHECKING:  # imports torch, which a course of plain test cells does without
    from autograder import exams
    from autograder.plain.court import Court

_STOPS: dict[str, Status] = {"timeout": "timeout", "crashed": "crashed", "out of memory": "out of memory"}
# The handler stops a call at the exam's limit and says so; the engine stops a handler that cannot.
_GRACE = 2.0


@dataclass(frozen=True)
class Examined:
    """One notebook after grading.

    Attributes:
        outputs: what each cell displayed, by position; from the student's process.
        verdicts: panels of examined questions by position; the grader's own.
        notes: which cells hit a limit, in words.
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
    return Examined(tuple(run.questions), run.outputs, run.verdicts, seconds, _limits_hit(run.outcomes), run.outcomes)


def not_run(template: NotebookTemplate, why: str, status: Status = "missing") -> tuple[QuestionRecord, ...]:
    """Return the questions of a notebook that could not be graded: no points, and the reason."""
    return tuple(
        QuestionRecord(
            template.name, cell.grade_id, status, 0.0, cell.points, "not run", plain(why), title=title_of(cell)
        )
        for cell in template.graded
    )


def check_name(cell: TemplateCell) -> str:
    """Return the exercise that a Fourbit check cell examines; "" for any other cell."""
    if cell.role != "test" or cell.fourbit.get("role") != "check":
        return ""
    return str(cell.fourbit.get("exercise", ""))


def title_of(cell: TemplateCell) -> str:
    """Return what people call the question of a graded cell of a Fourbit lab; "" elsewhere."""
    return str(cell.fourbit.get("exercise") or cell.fourbit.get("name") or "")


def _execute(run: _Run, position: int, cell: RebuiltCell) -> CellOutcome:
    outcome = run.runner.run_cell(cell.source, checkpoint=run.restore_points and cell.origin != "template")
    run.outcomes[position] = outcome
    run.outputs[position] = outcome.outputs
    return outcome


def _question(run: _Run, ingested: Ingested, position: int, cell: TemplateCell, place: int) -> QuestionRecord:
    answers = _answers(ingested.cells, position, cell)
    exercise = check_name(cell)
    if cell.role != "test":
        question = _by_hand(run, ingested, position, cell)
    elif exercise and run.exam is not None:
        question = _by_data(run, ingested.name, position, cell, exercise)
    elif run.court is not None and run.court.plan.isolates(place):
        question = _isolated(run, ingested.name, position, cell, place)
    else:
        question = _in_process(run, ingested.name, position, cell)
    return _explained(run, question, ingested.cells, answers, title_of(cell))


def _by_data(run: _Run, notebook: str, position: int, cell: TemplateCell, exercise: str) -> QuestionRecord:
    """Examine the exercise from outside: inputs in, replies out, judged here."""
    from autograder import exams

    assert run.exam is not None
    started = time.monotonic()
    packed = run.exam[exercise]
    argument = {"entry": packed.entry, "seconds": packed.seconds}
    with run.runner.session("autograder.exams:answer", argument, packed.seconds + _GRACE) as session:

        def timed(payload: bytes) -> tuple[exams.Outcome, float]:
            reply = session.call(payload)
            return exams.outcome_of(reply.status, reply.payload), reply.seconds

        outcomes = exams.ask(packed, lambda payload: timed(payload)[0])
        verdict = exams.judge(packed, outcomes)
        if packed.race is not None and verdict.points > 0:
            verdict = exams.judge(packed, outcomes, exams.contest(packed, timed))
    points = min(max(verdict.points, 0.0), cell.points)
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


def _answers(cells: Sequence[RebuiltCell], position: int, cell: TemplateCell) -> list[int]:
    """Return the positions of the answer cells that a graded cell is about."""
    if cell.role == "manual":
        return [position]
    exercise = check_name(cell)
    found: list[int] = []
    for earlier in range(position - 1, -1, -1):
        other = cells[earlier].cell
        if exercise:
            if (
                other is not None
                and other.fourbit.get("role") == "exercise"
                and other.fourbit.get("exercise") == exercise
            ):
                return [earlier]
        elif other is not None and other.role == "test" and found:
            break
        elif other is not None and other.role == "answer":
            found.append(earlier)
    return found[::-1]


def _explained(
    run: _Run, question: QuestionRecord, cells: Sequence[RebuiltCell], answers: Sequence[int], title: str
) -> QuestionRecord:
    """Say what really went wrong where a question earned nothing because its answer cell never worked."""
    digest = text_hash(cells[position].source for position in answers)
    status, message, limit = question.status, question.message, question.limit
    if question.points == 0.0 and question.max_points > 0 and question.mode != "by hand":
        if answers and not any(cells[position].answered for position in answers):
            status, message = "missing", "not answered yet"
        else:
            stopped = [(p, run.outcomes[p]) for p in answers if p in run.outcomes and _broke(run.outcomes[p])]
            if stopped:
                place, outcome = stopped[0]
                status = _STOPS.get(outcome.status, "error")
                said, limit = plain(outcome.message or outcome.status, 500), outcome.limit
                message = in_cell(said, place + 1) if limit else f"the answer (cell {place + 1}) did not run: {said}"
    return replace(question, status=status, message=_short_place(message), answer=digest, title=title, limit=limit)


def _limits_hit(outcomes: Mapping[int, CellOutcome]) -> tuple[str, ...]:
    """Say which cells hit a limit."""
    return tuple(plain(in_cell(o.message, place + 1), 500) for place, o in sorted(outcomes.items()) if o.limit)


def _broke(outcome: CellOutcome) -> bool:
    return outcome.status not in ("ok", "output limit")


def _short_place(message: str) -> str:
    """Leave out the names that IPython gives to cells; the line is what helps."""
    return re.sub(r"\(<ipython-input-[^>]*>, line", "(line", message)


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
