"""Running a rebuilt notebook and finding out what each of its graded cells earns.

A Fourbit question is examined by data: the hidden inputs go to the student's process, the replies come back as
bytes, and the judging happens here, outside. A plain nbgrader test cell runs in a process of its own (see
`autograder.plain`), or where that cannot be in the student's, which its record says.

A notebook is run twice at most. The first run forks nothing that it need not. The careful one forks before each cell
of the student's, so that what it breaks costs its own question, and examines every exercise at its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autograder.engine import CellOutcome, Runner
from autograder.judging.causes import answers_of, check_name, explained, limits_hit, title_of
from autograder.judging.definitions import only_definitions
from autograder.judging.scoring import Score, in_cell, probe, score_cell
from autograder.reading.ingest import Ingested, RebuiltCell
from autograder.reading.template import NotebookTemplate, TemplateCell
from autograder.results import MistakeRecord, Mode, PropertyRecord, QuestionRecord, Status, plain
from fourbit.errors import FourbitError

if TYPE_CHECKING:  # imports torch, which a course of plain test cells does without
    from autograder import exams
    from autograder.plain.court import Court

_IN_A_FORK, _AT_THE_END = EXAM_HANDLERS = ("autograder.exams:answer", "autograder.exams:answer_all")

Timed = Callable[[bytes], tuple["exams.Outcome", float]]

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
        whole: whether every exercise could be asked all its questions; if not, a careful run is needed.
    """

    questions: tuple[QuestionRecord, ...]
    outputs: Mapping[int, Sequence[Mapping[str, Any]]]
    verdicts: Mapping[int, Mapping[str, Any]]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    outcomes: Mapping[int, CellOutcome] = field(default_factory=dict)
    whole: bool = True


@dataclass
class _Run:
    """The state of one notebook's run."""

    runner: Runner
    exam: exams.Pack | None
    careful: bool
    court: Court | None = None
    at_the_end: bool = False
    whole: bool = True
    outcomes: dict[int, CellOutcome] = field(default_factory=dict)
    outputs: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    verdicts: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    questions: dict[int, QuestionRecord] = field(default_factory=dict)


def examine(
    ingested: Ingested,
    runner: Runner,
    exam: exams.Pack | None,
    prefix: Mapping[int, CellOutcome] | None = None,
    *,
    careful: bool = True,
    court: Court | None = None,
) -> Examined:
    """Run `ingested` in `runner` and judge it; never raises for what the student wrote.

    Args:
        exam: the hidden exam of this lab, or None in a course of plain test cells.
        prefix: outcomes of cells that the runner's state already includes, by position in the template.
        court: runs the plain test cells that can leave the student's process; without one, none does.
        careful: as the module's text says.
    """
    started = time.monotonic()
    run = _Run(runner, exam, careful, court, not careful and exam is not None and only_definitions(ingested.cells))
    place = -1
    waiting: list[tuple[int, TemplateCell, int]] = []
    for position, cell in enumerate(ingested.cells):
        place += cell.cell is not None
        if prefix and cell.cell is not None and place in prefix:
            run.outcomes[position] = prefix[place]
            run.outputs[position] = prefix[place].outputs
        elif cell.cell is not None and cell.cell.role in ("test", "manual", "task"):
            if run.at_the_end and check_name(cell.cell):
                waiting.append((position, cell.cell, place))
            else:
                run.questions[position] = _question(run, ingested, position, cell.cell, place)
        elif cell.runs:
            _execute(run, position, cell)
    for position, graded, place in waiting:
        if run.whole:
            run.questions[position] = _question(run, ingested, position, graded, place)
    questions = tuple(question for _, question in sorted(run.questions.items()))
    seconds, hit = time.monotonic() - started, limits_hit(run.outcomes, questions)
    return Examined(questions, run.outputs, run.verdicts, seconds, hit, run.outcomes, run.whole)


def not_run(template: NotebookTemplate, why: str, status: Status = "missing") -> tuple[QuestionRecord, ...]:
    """Return the questions of a notebook that could not be graded: no points, and the reason."""
    return tuple(
        QuestionRecord(
            template.name, cell.grade_id, status, 0.0, cell.points, "not run", plain(why), title=title_of(cell)
        )
        for cell in template.graded
    )


def _execute(run: _Run, position: int, cell: RebuiltCell) -> CellOutcome:
    outcome = run.runner.run_cell(cell.source, checkpoint=run.careful and cell.origin != "template")
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
    hit: list[str] = []
    with _examination(run, packed, hit) as (outcomes, timed):
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


@contextmanager
def _examination(
    run: _Run, packed: exams.PackedExercise, hit: list[str]
) -> Iterator[tuple[list[exams.Outcome], Timed]]:
    """The outcomes of all cases of an exercise, and what asks more; `hit` takes the limits that were hit."""
    from autograder import exams

    if run.at_the_end:
        replies = iter(_asked(run, packed, [case.inputs for case in packed.cases])[0])
        nothing = exams.Outcome("crashed")

        def one(inputs: bytes) -> tuple[exams.Outcome, float]:
            found, seconds = _asked(run, packed, [inputs])
            return next(iter(found), nothing), seconds

        yield exams.ask(packed, lambda inputs: next(replies, nothing)), one
        return
    argument = {"entry": packed.entry, "seconds": packed.seconds}
    with run.runner.session(_IN_A_FORK, argument, packed.seconds + _GRACE) as session:

        def timed(inputs: bytes) -> tuple[exams.Outcome, float]:
            reply = session.call(inputs)
            hit.extend([reply.limit] if reply.limit else [])
            return exams.outcome_of(reply.status, reply.payload), reply.seconds

        yield exams.ask(packed, lambda inputs: timed(inputs)[0]), timed


def _asked(run: _Run, packed: exams.PackedExercise, inputs: Sequence[bytes]) -> tuple[list[exams.Outcome], float]:
    """What the notebook's process itself answers, and the seconds; what it does not answer needs a careful run."""
    from autograder import exams

    # Of several calls, one may take all its time; who needs more is examined with care.
    limit = (1 + (len(inputs) > 1)) * packed.seconds + _GRACE
    reply = run.runner.ask(_AT_THE_END, exams.questions(packed, inputs), seconds=limit)
    try:
        found = exams.outcomes_of(reply.payload) if reply.status == "ok" else []
    except FourbitError:
        found = []
    stopped = bool(found) and found[-1].status == "timeout"
    run.whole = run.whole and (stopped or len(found) == len(inputs))
    return found, reply.seconds


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
    outcome = run.runner.run_cell(marked.source, checkpoint=run.careful)
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
