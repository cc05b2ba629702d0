"""What a graded cell is about, and why it earned nothing: the answer cells behind it often say more than the test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autograder.engine import CellOutcome
from autograder.judging.scoring import in_cell
from autograder.reading.ingest import RebuiltCell
from autograder.reading.template import TemplateCell
from autograder.results import QuestionRecord, Status, plain, text_hash

_STOPS: dict[str, Status] = {"timeout": "timeout", "crashed": "crashed", "out of memory": "out of memory"}


def check_name(cell: TemplateCell) -> str:
    """Return the exercise that a Fourbit check cell examines; "" for any other cell."""
    if cell.role != "test" or cell.fourbit.get("role") != "check":
        return ""
    return str(cell.fourbit.get("exercise", ""))


def title_of(cell: TemplateCell) -> str:
    """Return what people call the question of a graded cell of a Fourbit lab; "" elsewhere."""
    return str(cell.fourbit.get("exercise") or cell.fourbit.get("name") or "")


def answers_of(cells: Sequence[RebuiltCell], position: int, cell: TemplateCell) -> list[int]:
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


def explained(
    outcomes: Mapping[int, CellOutcome],
    question: QuestionRecord,
    cells: Sequence[RebuiltCell],
    answers: Sequence[int],
    title: str,
) -> QuestionRecord:
    """Say what really went wrong where a question earned nothing because its answer cell never worked."""
    digest = text_hash(cells[position].source for position in answers)
    status, message, limit = question.status, question.message, question.limit
    if question.points == 0.0 and question.max_points > 0 and question.mode != "by hand":
        if answers and not any(cells[position].answered for position in answers):
            status, message = "missing", "not answered yet"
        else:
            stopped = [(p, outcomes[p]) for p in answers if p in outcomes and _broke(outcomes[p])]
            if stopped:
                place, outcome = stopped[0]
                status = _STOPS.get(outcome.status, "error")
                said, limit = plain(outcome.message or outcome.status, 500), outcome.limit
                message = in_cell(said, place + 1) if limit else f"the answer (cell {place + 1}) did not run: {said}"
    return replace(question, status=status, message=_short_place(message), answer=digest, title=title, limit=limit)


def limits_hit(outcomes: Mapping[int, CellOutcome], questions: Sequence[QuestionRecord]) -> tuple[str, ...]:
    """Say which cells hit a limit, where no question says it already."""
    told = {question.message for question in questions}
    hit = [plain(in_cell(o.message, place + 1), 500) for place, o in sorted(outcomes.items()) if o.limit]
    return tuple(said for said in hit if said not in told)


def _broke(outcome: CellOutcome) -> bool:
    return outcome.status not in ("ok", "output limit")


def _short_place(message: str) -> str:
    """Leave out the names that IPython gives to cells; the line is what helps."""
    return re.sub(r"\(<ipython-input-[^>]*>, line", "(line", message)
