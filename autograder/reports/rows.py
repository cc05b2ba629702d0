"""One row per student: the grader's record and the gradebook's standing, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograder.books.gradebook import Standing, StudentStanding, read_standings
from autograder.books.journal import journal_of
from autograder.nbgrader_course import NbgraderCourse
from autograder.results import QuestionRecord, SubmissionRecord


@dataclass(frozen=True)
class Row:
    """A student in one assignment.

    Attributes:
        standing: from the gradebook; None for somebody who has no row there.
    """

    record: SubmissionRecord
    standing: StudentStanding | None

    @property
    def student(self) -> str:
        return self.record.student

    @property
    def name(self) -> str:
        """ "First Last" where the gradebook knows it, else the id."""
        if self.standing is None:
            return self.student
        return f"{self.standing.first_name} {self.standing.last_name}".strip() or self.student

    @property
    def score(self) -> float:
        return self.standing.score if self.standing else self.record.points

    @property
    def max_score(self) -> float:
        return self.standing.max_score if self.standing else self.record.max_points

    def of(self, question: QuestionRecord) -> Standing:
        """Return how the student stands in a question, from the gradebook where it knows."""
        if self.standing is not None:
            found = self.standing.questions.get((question.notebook, question.name))
            if found is not None:
                return found
        waits = question.points is None
        return Standing(question.points or 0.0, question.max_points, question.points, needs_manual_grade=waits)

    def waiting(self) -> int:
        """Return how many questions a human still has to look at."""
        return sum(self.of(question).needs_manual_grade for question in self.record.questions)


def class_rows(course: NbgraderCourse, assignment: str, records: Sequence[SubmissionRecord] | None = None) -> list[Row]:
    """Return the rows of an assignment by student id.

    Args:
        records: the class; None = everybody in the journal.
    """
    if records is None:
        journal = journal_of(course.root, assignment)
        found = (journal.record(student) for student in sorted(journal.finished()))
        records = [record for record in found if record is not None]
        wanted = None
    else:
        wanted = [record.student for record in records]
    standings = read_standings(course, assignment, wanted)
    return [Row(record, standings.get(record.student)) for record in records]


def common_mistakes(records: Iterable[SubmissionRecord]) -> list[tuple[str, str, str, int]]:
    """Return (question, mistake's name, explanation, how many students), the most common first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        counts.update({(q.label, q.mistake.name, q.mistake.why) for q in record.questions if q.mistake is not None})
    return [(*key, count) for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
