"""Who is who between the gradebook and a file of a learning management system: by ids and addresses, never by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autograder.reports.rows import Row


@dataclass
class Matched:
    """The outcome of matching a file with a class.

    Attributes:
        rows: the class's row for each row of the file that has one.
        strangers: rows of the file, in words, that nobody in the class is; they stay as they were.
        missing: students of the class who are not in the file, or whom several rows fit.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def match(class_: Sequence[Row], lines: Mapping[int, tuple[str, Sequence[str]]]) -> Matched:
    """Match the rows of a file with students.

    A row is a student when one of its ids or addresses equals the student's id in the gradebook, id in the learning
    management system, or address; case and space around do not matter. When they point at two students, or two rows
    at one student, there is no match.

    Args:
        lines: (what the row is called in messages, its ids and addresses) by row number.
    """
    known: dict[str, set[str]] = {}
    for row in class_:
        for name in _names(row):
            known.setdefault(name, set()).add(row.student)
    by_id = {row.student: row for row in class_}
    found = Matched()
    meant: dict[str, list[int]] = {}
    for line, (label, names) in lines.items():
        students = set().union(*(known.get(name, set()) for name in _plain(names)))
        if len(students) == 1:
            meant.setdefault(students.pop(), []).append(line)
        else:
            fits = f" (fits {', '.join(sorted(students))})" if students else ""
            found.strangers.append(f"{label}{fits}")
    for student, places in meant.items():
        if len(places) == 1:
            found.rows[places[0]] = by_id[student]
        else:
            found.strangers += [lines[place][0] + f" (several rows fit {student})" for place in places]
    there = {row.student for row in found.rows.values()}
    found.missing = sorted(student for student in by_id if student not in there)
    return found


def _names(row: Row) -> list[str]:
    standing = row.standing
    return _plain((row.student, *((standing.lms_id, standing.email) if standing else ())))


def _plain(names: Iterable[str]) -> list[str]:
    return [name.casefold().strip() for name in names if name.strip()]
