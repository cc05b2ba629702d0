"""The one door between the autograder and Fourbit's exams.

The builder writes packs through it, the examiner reads them and judges outcomes, and the jailed process answers
calls with :func:`answer`; nothing else in this package knows what an exam is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
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
    "answer_all",
    "ask",
    "coincide",
    "contest",
    "judge",
    "kill_matrix",
    "load_lab",
    "load_pack",
    "outcome_of",
    "outcomes_of",
    "questions",
    "write_pack",
]  # fmt: skip


def answer(namespace: Mapping[str, Any], argument: Mapping[str, Any], payload: bytes) -> bytes:
    """The handler inside the jail: call `argument["entry"]` of the student's namespace on encoded inputs."""
    return _answer(namespace, str(argument["entry"]), payload, float(argument["seconds"]))


def questions(exercise: PackedExercise, inputs: Sequence[bytes]) -> bytes:
    """Several encoded inputs and the function that they are for, as :func:`answer_all` takes them."""
    head = {"entry": exercise.entry, "seconds": exercise.seconds, "sizes": [len(one) for one in inputs]}
    return b"\n".join((json.dumps(head).encode(), b"".join(inputs)))


def answer_all(namespace: Mapping[str, Any], talk: object, payload: bytes) -> bytes:
    """As :func:`answer`, for several inputs one after the other, in the notebook's process itself. After one that took
    all its time, the rest is left."""
    text, _, body = payload.partition(b"\n")
    head = json.loads(text)
    replies: list[bytes] = []
    for inputs in _parts(head["sizes"], body):
        began = time.monotonic()
        replies.append(answer(namespace, head, inputs))
        if time.monotonic() - began >= head["seconds"]:
            break
    return b"\n".join((json.dumps([len(one) for one in replies]).encode(), b"".join(replies)))


def outcomes_of(payload: bytes) -> list[Outcome]:
    """The outcomes that :func:`answer_all` sent from an untrusted process.

    Raises:
        CodecError: when the bytes are nothing of that kind.
    """
    text, _, body = payload.partition(b"\n")
    try:
        sizes = json.loads(text)
    except ValueError:
        sizes = None
    if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes) or sum(sizes) != len(body):
        raise CodecError("the process returned something that is no list of outcomes")
    return [outcome_of("ok", part) for part in _parts(sizes, body)]


def _parts(sizes: Sequence[int], body: bytes) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size


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
