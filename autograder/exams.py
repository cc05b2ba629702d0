"""The one door between the autograder and Fourbit's exams.

The builder writes packs through it, the examiner reads them and judges outcomes, and the jailed process answers
calls with :func:`answer`; nothing else in this package knows what an exam is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fourbit.errors import CodecError
from fourbit.exam.call import Outcome, read_outcome
from fourbit.exam.call import answer as _answer
from fourbit.exam.check import ask
from fourbit.exam.compare import coincide
from fourbit.exam.contest import contest
from fourbit.exam.judge import judge
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.pack import PACK, PROPERTIES, Pack, PackedExercise, load_pack
from fourbit.exam.reference import PUBLIC_SEED, Lab, load_lab, write_pack
from fourbit.exam.verdict import Verdict

__all__ = [
    "PACK",
    "PROPERTIES",
    "PUBLIC_SEED",
    "Lab",
    "Outcome",
    "Pack",
    "PackedExercise",
    "Verdict",
    "answer",
    "ask",
    "coincide",
    "contest",
    "judge",
    "kill_matrix",
    "load_lab",
    "load_pack",
    "outcome_of",
    "write_pack",
]  # fmt: skip


def answer(namespace: Mapping[str, Any], argument: Mapping[str, Any], payload: bytes) -> bytes:
    """The handler inside the jail: call `argument["entry"]` of the student's namespace on encoded inputs."""
    return _answer(namespace, str(argument["entry"]), payload, float(argument["seconds"]))


def outcome_of(status: str, payload: bytes) -> Outcome:
    """The outcome of one call through an engine session, whatever came back.

    Args:
        status: the session's: "ok", "timeout", "crashed" or "out of memory".
        payload: when "ok", what :func:`answer` returned in an untrusted process.
    """
    if status == "ok":
        try:
            return read_outcome(payload)
        except CodecError as error:
            return Outcome("unusable", message=str(error))
    reasons = {
        "timeout": "still running at its limit; is there an endless loop?",
        "crashed": "the call ended its own process",
        "out of memory": "the call asked for more memory than it may use",
    }
    return Outcome(status if status in reasons else "crashed", message=reasons.get(status, reasons["crashed"]))
