"""What runs in a grading slot: a pure function from a submission's bytes to a record.

A slot keeps what the class has in common: the template, the exam, and a warm zygote in which the cells at the
top of the notebook have already run. It reads no course folder and writes nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.engine import CellOutcome, EngineError, Runner, Zygote
from autograder.jail import JailMode, Limits, libc
from autograder.judging.assemble import graded_notebook
from autograder.judging.causes import check_name
from autograder.judging.examiner import EXAM_HANDLERS, Examined, examine, not_run
from autograder.plain.bench import Bench
from autograder.plain.court import HANDLERS, Court, Trial
from autograder.plain.plan import Plan
from autograder.reading.ingest import Ingested, IngestedSubmission, ingest
from autograder.reading.template import GRADED_ROLES, NotebookTemplate, Template, template_from_bytes
from autograder.reading.untrusted import Caps, RawSubmission
from autograder.results import GradingError, QuestionRecord, SubmissionRecord, plain
from autograder.terminal.log import cell_lines

if TYPE_CHECKING:
    from autograder import exams
    from fourbit.codec import Ref

_HEAVY = ("numpy", "torch", "matplotlib", "pandas", "scipy", "sklearn")
_SEED = 20
_LOST_ZYGOTES = 3  # times that a submission is run anew because its zygote died; without walls it can do that itself


@dataclass(frozen=True)
class Bundle:
    """What every submission of an assignment is graded with.

    Attributes:
        key: names the bundle's content; slots keep it by this name.
        exam: the hidden exam's files by name, empty in a course of plain test cells.
        mode: the isolation to use; None takes the strongest there is.
    """

    key: str
    template: bytes
    exam: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    caps: Caps = field(default_factory=Caps)
    mode: JailMode | None = None


@dataclass(frozen=True)
class Task:
    """One submission to grade; `key` is the content key that its record will carry."""

    student: str
    key: str
    raw: RawSubmission


@dataclass(frozen=True)
class Graded:
    """What a slot answers: the record, graded notebooks as JSON text, which student files go beside them, and how each
    cell ran, in lines for the log."""

    record: SubmissionRecord
    notebooks: Mapping[str, str]
    kept: tuple[str, ...]
    cells: tuple[str, ...] = ()


class Slot:
    """The warm state of one grading slot, for one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.template: Template = template_from_bytes(bundle.template)
        self.exam = _load_exam(bundle.exam)
        self._zygotes: dict[str, Zygote] = {}
        self._without_prefix: dict[str, str] = {}
        self.bench = Bench(self.template.files, bundle.limits)
        libc.keep_freed_memory()
        gc.collect()
        gc.freeze()  # the collector would otherwise go through all of torch again and again

    def close(self) -> None:
        self.bench.close()
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()

    def grade(self, task: Task) -> Graded:
        """Grade one submission; a failure of the grader itself on it becomes a record that says so.

        Raises:
            EngineError: when this machine cannot run any submission.
        """
        try:
            return self._grade(task)
        except EngineError:
            raise
        except Exception as error:
            return given_up(self.template, task.student, f"the grader failed: {type(error).__name__}: {error}")

    def _grade(self, task: Task) -> Graded:
        started = time.monotonic()
        submission = ingest(self.template, task.raw, self.bundle.caps)
        questions: list[QuestionRecord] = []
        notebooks: dict[str, str] = {}
        notes = list(submission.notes)
        cells: list[str] = []
        for template, ingested in zip(self.template.notebooks, submission.notebooks, strict=True):
            found, text, told, ran = self._notebook(template, ingested, submission)
            cells += ran
            questions += found
            notebooks[template.name] = text
            notes += told
        record = SubmissionRecord(
            assignment=self.template.assignment,
            student=task.student,
            outcome="graded" if submission.readable else "unreadable",
            questions=tuple(questions),
            message="" if submission.readable else plain("; ".join(nb.problem for nb in submission.notebooks)),
            notes=tuple(plain(note, 1000) for note in notes[:200]),
            key=task.key,
            jail=str(self.bundle.mode or self._mode()),
            seconds=time.monotonic() - started,
        )
        kept = tuple(sorted(set(submission.files) - set(self.template.files)))
        return Graded(record, notebooks, kept, tuple(cells))

    def _notebook(
        self, template: NotebookTemplate, ingested: Ingested, submission: IngestedSubmission
    ) -> tuple[tuple[QuestionRecord, ...], str, list[str], tuple[str, ...]]:
        """Return the questions, the graded notebook, the notes and the log of the cells of one notebook."""
        if ingested.problem:
            questions = not_run(template, "the notebook could not be read")
            told = [ingested.problem] if submission.readable else []
            return questions, graded_notebook(template, ingested, {}, {}), told, ()
        notes = list(ingested.notes)
        examined = self._examined(template, ingested, submission, self._plan(template))
        if template.name in self._without_prefix:
            notes.append(self._without_prefix[template.name])
        notes += [*examined.notes, *self.bench.beside(template)]
        text = graded_notebook(template, ingested, examined.outputs, examined.verdicts)
        return examined.questions, text, notes, cell_lines(template.name, examined.outcomes)

    def _plan(self, template: NotebookTemplate) -> Plan:
        """Return which plain test cells run in a process of their own."""
        checks = {p for p, cell in enumerate(template.cells) if self.exam is not None and check_name(cell)}
        tests = [p for p, cell in enumerate(template.cells) if cell.role in GRADED_ROLES]

        def run(solution: Ingested, plan: Plan | None) -> tuple[dict[int, float], dict[int, Trial]]:
            trials: dict[int, Trial] = {}
            submission = IngestedSubmission((solution,), dict(self.template.files), ())
            examined = self._examined(template, solution, submission, plan or Plan({}), trials)
            return {p: q.points or 0.0 for p, q in zip(tests, examined.questions, strict=True)}, trials

        return self.bench.plan(template, run, checks)

    def _examined(
        self,
        template: NotebookTemplate,
        ingested: Ingested,
        submission: IngestedSubmission,
        plan: Plan,
        trials: dict[int, Trial] | None = None,
    ) -> Examined:
        """Run the notebook once; where that does not do for all of it, run it again from the start, with care.

        Care costs a fork for each cell and each exercise, which hardly a submission needs.
        """
        careful, lost = False, 0
        while True:
            with contextlib.ExitStack() as stack:
                zygote, prefix = self._zygote(template, ingested.prefix_untouched)
                runner = stack.enter_context(zygote.lend(self.bundle.limits, submission.files, _SEED))
                court = self._court(template, plan, runner, careful) if plan.isolated else None
                examined = examine(ingested, runner, self.exam, prefix, careful=careful, court=court)
                if trials is not None and court is not None:
                    trials |= court.trials
                if examined.whole and runner.alive and (court is None or court.clean.alive):
                    return examined
                if lost < _LOST_ZYGOTES and any(zygote.pid is None for zygote in self._zygotes.values()):
                    lost += 1  # somebody ended a zygote, and this run with it: that says nothing about the work
                elif careful:
                    return examined
                else:
                    careful = True

    def _court(self, template: NotebookTemplate, plan: Plan, runner: Runner, restore_points: bool) -> Court:
        zygote, prefix = self._zygote(template, True)
        done = max(prefix, default=-1)

        def spawn(limits: Limits) -> Runner:
            return zygote.spawn(limits, self.template.files, _SEED)

        return self.bench.court(template, spawn, runner, plan, done, restore_points)

    def _zygote(self, template: NotebookTemplate, shared: bool) -> tuple[Zygote, dict[int, CellOutcome]]:
        """Return a started zygote, and the outcomes of the cells that it has already run, by template position."""
        positions = template.prefix()
        if shared and positions and template.name not in self._without_prefix:
            try:
                zygote = self._started(template.name, tuple(template.cells[p].source for p in positions))
                outcomes = zygote.prefix_outcomes[-len(positions) :]
                return zygote, dict(zip(positions, outcomes, strict=True))
            except EngineError as error:
                # The instructor's own first cells may fail; each submission then runs them itself, as in nbgrader.
                self._zygotes.pop(template.name, None)
                self._without_prefix[template.name] = plain(
                    f"the cells before the first question do not run: {error}", 500
                )
        return self._started("", ()), {}

    def _started(self, name: str, prefix: tuple[str, ...]) -> Zygote:
        if name not in self._zygotes:
            warm = _warm_up(self.exam) if self.exam else ()
            zygote = Zygote(
                preload=self._preload(),
                prefix=(*warm, *prefix),
                files=dict(self.template.files),
                handlers=(*(EXAM_HANDLERS if self.exam else ()), *HANDLERS),
                mode=self.bundle.mode,
            )
            zygote.start()
            self._zygotes[name] = zygote
        return self._zygotes[name]

    def _mode(self) -> str:
        return next((str(zygote.mode) for zygote in self._zygotes.values()), "")

    def _preload(self) -> tuple[str, ...]:
        """Return the slow modules that this assignment mentions: imported once here instead of once a submission."""
        texts = [cell.source for nb in self.template.notebooks for cell in nb.cells if cell.kind == "code"]
        texts += [data.decode("utf-8", "replace") for name, data in self.template.files.items() if name.endswith(".py")]
        words = set(re.findall(r"^\s*(?:import|from)\s+(\w+)", "\n".join(texts), re.MULTILINE))
        wanted = {"numpy", "torch"} if self.exam else set()
        found = [m for m in _HEAVY if (m in words or m in wanted) and importlib.util.find_spec(m)]
        if "torch" in found and (self.exam or re.search(r"\boptim", "\n".join(texts))):
            found.append("torch._dynamo")  # a training step would import it
        return tuple("matplotlib.pyplot" if m == "matplotlib" else m for m in found)


def given_up(template: Template, student: str, reason: str) -> Graded:
    """Return the result for a submission that the grader could not cope with; it has no key, so it is tried again."""
    nothing = ingest(template, RawSubmission({}))
    pairs = list(zip(template.notebooks, nothing.notebooks, strict=True))
    told = [(nb, replace(ingested, problem=plain(reason, 1000))) for nb, ingested in pairs]
    questions = tuple(question for nb in template.notebooks for question in not_run(nb, reason, "crashed"))
    record = SubmissionRecord(template.assignment, student, "crashed", questions, plain(reason))
    return Graded(record, {nb.name: graded_notebook(nb, ingested, {}, {}) for nb, ingested in told}, ())


def encode(graded: Graded) -> str:
    """Return a slot's answer as JSON text."""
    return json.dumps([graded.record.to_json(), dict(graded.notebooks), list(graded.kept), list(graded.cells)])


def decode(text: str) -> Graded:
    """Return the answer that :func:`encode` wrote, with its record checked.

    Raises:
        GradingError: when the text is no such answer.
    """
    from autograder.results import from_json

    try:
        record, notebooks, kept, cells = json.loads(text)
        texts = {str(k): str(v) for k, v in notebooks.items()}
        return Graded(from_json(record), texts, tuple(map(str, kept)), tuple(map(str, cells)))
    except (ValueError, TypeError, AttributeError) as error:
        raise GradingError(f"a grading slot answered nonsense: {plain(error, 200)}") from None


def required_exercises(template: Template) -> frozenset[str]:
    """Return the exercises that this assignment's check cells examine."""
    names = {check_name(cell) for nb in template.notebooks for cell in nb.cells}
    return frozenset(names - {""})


def _warm_up(exam: exams.Pack) -> tuple[str, ...]:
    """Return a cell that builds the exam's fixtures (data sets, checkpoints) and carries a tensor to and fro.

    All of this, and what it imports, is then there in every fork. It names public data only.
    """
    inputs = [[case.args, dict(case.kwargs)] for exercise in exam.exercises.values() for case in exercise.cases]
    found = {(ref.name, json.dumps(dict(ref.kwargs), sort_keys=True)) for ref in _refs(inputs)}
    calls = "".join(f"    resolve(Ref({name!r}, json.loads({kwargs!r})))\n" for name, kwargs in sorted(found))
    imports = (
        "    import json\n    import torch\n    from fourbit.codec import Ref, decode, encode\n"
        "    from fourbit.exam.fixtures import resolve\n    decode(encode(torch.zeros(1)))\n"
    )
    return (f"def _warm_up():\n{imports}{calls}_warm_up()\ndel _warm_up",)


def _refs(value: Any) -> Iterator[Ref]:
    """Yield every fixture that `value` names."""
    from fourbit.codec import Ref

    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _refs(item)


def _load_exam(files: Mapping[str, bytes]) -> exams.Pack | None:
    """Return the hidden exam that `files` are; the folder they need while loading is gone afterwards."""
    if not files:
        return None
    from autograder import exams

    with tempfile.TemporaryDirectory(prefix="fourbit-exam-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return exams.load_pack(folder)
