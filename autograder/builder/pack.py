"""Exam packs as files for the builder, and the seed that the hidden cases are drawn from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autograder import exams
from autograder.builder.cache import cached, pack_key
from autograder.builder.metadata import Fact
from autograder.builder.source import SourceError
from fourbit.codec import decode

DEFAULT_SEED = exams.PUBLIC_SEED
SEED_VARIABLE = "FOURBIT_EXAM_SEED"
SEED_FILE = "exam-seed"


@dataclass(frozen=True)
class ExamSeed:
    """What the hidden cases are drawn from.

    Attributes:
        value: not shown in representations, which end in logs.
        origin: where it came from, in words.
        public: whether anybody can read it in this source code, and so draw the same hidden cases.
    """

    value: int = field(default=DEFAULT_SEED, repr=False)
    origin: str = "the public default"
    public: bool = True


def find_seed(build: Path, seed_file: Path | None = None, environment: Mapping[str, str] = os.environ) -> ExamSeed:
    """The seed of the hidden cases: from `seed_file`, else FOURBIT_EXAM_SEED, else `build`/exam-seed, else the default.

    The default is public, so that every build of a checkout is the same; a course that counts sets one of the others.
    A seed is any text; the same text gives the same cases.

    Raises:
        SourceError: when the named file is missing or empty, or the variable is blank.
    """
    if seed_file is not None:
        if not seed_file.is_file():
            raise SourceError(f"{seed_file}: no such seed file. Put a line of secret text into it.")
        return _secret(seed_file.read_text(encoding="utf-8"), str(seed_file))
    if SEED_VARIABLE in environment:
        return _secret(environment[SEED_VARIABLE], f"the environment variable {SEED_VARIABLE}")
    kept = build / SEED_FILE
    if kept.is_file():
        return _secret(kept.read_text(encoding="utf-8"), str(kept))
    return ExamSeed()


def exam_facts(lab: exams.Lab, minutes: Mapping[str, float]) -> dict[str, Fact]:
    """Points, difficulty and measured minutes of a lab's exercises, in the exam's order."""
    return {e.name: Fact(float(e.points), e.difficulty, minutes.get(e.name)) for e in lab.exam.exercises}


def pack_files(lab: exams.Lab, *, visible: bool, seed: int, cache: Path | None = None) -> dict[str, bytes]:
    """The files of a pack by name.

    Args:
        visible: the student's cases, or the grader's.
        seed: what the cases are drawn from.
        cache: a folder that keeps the last build's packs, for use until something that they are made from changes.
    """
    if cache is None:
        return _make_pack(lab, visible=visible, seed=seed)
    folder = cache / lab.exam.lab / ("visible" if visible else "hidden")
    key = pack_key(lab, visible=visible, seed=seed)
    return cached(folder, key, lambda: _make_pack(lab, visible=visible, seed=seed))


def _make_pack(lab: exams.Lab, *, visible: bool, seed: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="fourbit-pack-") as scratch:
        exams.write_pack(lab, Path(scratch), visible=visible, seed=seed)
        return {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}


def same_pack(there: bytes, new: bytes) -> bool:
    """Whether two packs hold the same exam up to float noise, so that another CPU's build changes no committed file."""
    try:
        return exams.coincide(decode(there), decode(new))
    except Exception:  # a damaged file is to be replaced, whatever is wrong with it
        return False


def _secret(text: str, origin: str) -> ExamSeed:
    text = text.strip()
    if not text:
        hint = "Put a line of secret text there, or remove it for the public default"
        raise SourceError(f"{origin} holds no seed. {hint}.")
    # 31 bits, for every generator takes them; exams add small numbers to it.
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
    return ExamSeed(value, origin, public=False)
