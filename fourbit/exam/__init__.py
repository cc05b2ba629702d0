"""Exams: what a student's function is asked, what must hold, and which named mistake an answer is.

`author` holds what an exam's author writes, `pack` its form as data, `call` and `judge` the two halves of an
examination (on the student's side and outside it), `check` the one line in a notebook cell, `matrix` the proof
that an exam tells right from wrong.
"""

from fourbit.exam.author import Alternative, Case, Exam, Exercise, Mistake, Partial, Property, Race, Raised, Trial
from fourbit.exam.check import check, examine
from fourbit.exam.verdict import Verdict
from fourbit.predictions import confront, predict

__all__ = [
    "Alternative", "Case", "Exam", "Exercise", "Mistake", "Partial", "Property", "Race", "Raised", "Trial", "Verdict",
    "check", "confront", "examine", "predict",
]  # fmt: skip
