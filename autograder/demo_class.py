"""A simulated class: what each student handed in, and why it is in the class.

Students are described in terms of a lab's exam (the second exercise, its first mistake), so one class fits every lab.
Their wrong answers are the exam's own named mistakes; the rest are accidents and tricks that graders meet every term.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder.exams import Lab

Answers = dict[str, str]  # exercise -> source of its cell; an exercise without an entry stays as handed out


@dataclass(frozen=True)
class Classroom:
    """What a student can know: the lab's exam, the course folder's path, and who sits beside them."""

    lab: Lab
    course: Path

    @property
    def exercises(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(exercise.name for exercise in self.lab.exam.exercises)

    def solved(self, *names: str) -> Answers:
        """The reference's cells of the named exercises, or of all."""
        return {name: self.lab.source(name) for name in names or self.exercises}

    def mistaken(self, name: str, number: int) -> Answers:
        """One exercise with the exam's named mistake of that number, counted around the end."""
        mistakes = self.lab.exam[name].mistakes
        return {name: mistakes[number % len(mistakes)].apply(self.lab.source(name))}


@dataclass(frozen=True)
class Student:
    """One simulated student.

    Attributes:
        about: what they did, in a few words.
        answers: what stands in their exercise cells.
        change: what else happened to their notebook, given as cells by exercise.
        spoil: what happened to the file after it was saved.
    """

    id: str
    first_name: str
    last_name: str
    about: str
    answers: Callable[[Classroom], Answers]
    change: Callable[[NotebookNode, Classroom], None] | None = None
    spoil: Callable[[bytes], bytes] | None = None


def hand_in(student: Student, room: Classroom, handed_out: NotebookNode) -> bytes:
    """The notebook file that `student` hands in, made from the one that was handed out."""
    notebook = copy.deepcopy(handed_out)
    answers = student.answers(room)
    for cell in notebook.cells:
        exercise = answer_of(cell)
        if exercise in answers:
            cell.source = answers[exercise].rstrip("\n")
    if student.change:
        student.change(notebook, room)
    data = nbformat.writes(notebook, version=4).encode()
    return student.spoil(data) if student.spoil else data


def answer_of(cell: Mapping[str, object]) -> str:
    """The exercise whose answer a cell of a lab holds, or ""."""
    metadata = cell["metadata"]
    fourbit = metadata.get("fourbit", {}) if isinstance(metadata, Mapping) else {}
    return str(fourbit.get("exercise", "")) if fourbit.get("role") == "exercise" else ""


def _nothing(room: Classroom) -> Answers:
    return {}


def _everything(room: Classroom) -> Answers:
    return room.solved()


def _first_half(room: Classroom) -> Answers:
    return room.solved(*room.exercises[: (len(room.exercises) + 1) // 2])


def _every_other(room: Classroom) -> Answers:
    return room.solved(*room.exercises[::2])


def _first_only(room: Classroom) -> Answers:
    return room.solved(room.exercises[0])


def _alternatives(room: Classroom) -> Answers:
    return {
        e.name: (e.alternatives[0].source if e.alternatives else room.lab.source(e.name))
        for e in room.lab.exam.exercises
    }


def _slips(*slips: tuple[int, int]) -> Callable[[Classroom], Answers]:
    """All right but for (number of the exercise, number of its mistake)."""

    def answers(room: Classroom) -> Answers:
        done = room.solved()
        for exercise, mistake in slips:
            done |= room.mistaken(room.exercises[exercise], mistake)
        return done

    return answers


def _all_wrong(room: Classroom) -> Answers:
    return {name: room.mistaken(name, 0)[name] for name in room.exercises}


def _with_second(make: Callable[[str, Classroom], str]) -> Callable[[Classroom], Answers]:
    """All right, but the second exercise's cell is `make(its reference, room)`."""

    def answers(room: Classroom) -> Answers:
        name = room.exercises[1]
        return room.solved() | {name: make(room.lab.source(name), room)}

    return answers


def _body(entry: str, body: str) -> str:
    indented = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f"def {entry}(*args, **kwargs):\n{indented}\n"


def _loops(source: str, room: Classroom) -> str:
    return _body(_second(room), "while True:\n    pass")


def _ends_the_process(source: str, room: Classroom) -> str:
    return f"import os\n\n{source}\nos._exit(0)"


def _floods(source: str, room: Classroom) -> str:
    return f"{source}\nfor step in range(1_000_000):\n    print(step, 'x' * 100)"


def _syntax_error(source: str, room: Classroom) -> str:
    return source.replace("):", ")", 1)


def _not_a_number(source: str, room: Classroom) -> str:
    """The reference, with every float in its result replaced by NaN."""
    return f"""{source}
right = {_second(room)}

def {_second(room)}(*args, **kwargs):
    def spoil(value):
        if isinstance(value, torch.Tensor):
            return value * float("nan") if value.is_floating_point() else torch.full(value.shape, float("nan"))
        if isinstance(value, dict):
            return {{key: spoil(item) for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            return type(value)(spoil(item) for item in value)
        return float("nan")
    return spoil(right(*args, **kwargs))
"""


def _warns(source: str, room: Classroom) -> str:
    return (
        f"import sys\nimport warnings\n\n{source}\nwarnings.warn('half done')\nprint('nearly there', file=sys.stderr)"
    )


def _copies(source: str, room: Classroom) -> str:
    """Look for a neighbour's notebook wherever it could be, and run their function."""
    course = str(room.course / "*" / "*" / "*" / "*.ipynb")
    return _body(
        _second(room),
        f"""import glob
import json
found = []
for pattern in ("../*/*.ipynb", "../../*/*/*.ipynb", "../../../*/*/*/*.ipynb", {course!r}):
    for path in glob.glob(pattern):
        for cell in json.load(open(path))["cells"]:
            if "def {_second(room)}(" in "".join(cell["source"]):
                found.append("".join(cell["source"]))
for source in found:
    scope = dict(globals())
    exec(source, scope)
    try:
        return scope["{_second(room)}"](*args, **kwargs)
    except Exception:
        continue
raise FileNotFoundError("no neighbour's work to be found")""",
    )


def _second(room: Classroom) -> str:
    exercise = room.lab.exam.exercises[1]
    return exercise.entry or exercise.name


def _delete_third(notebook: NotebookNode, room: Classroom) -> None:
    notebook.cells = [cell for cell in notebook.cells if answer_of(cell) != room.exercises[2]]


def _duplicate_first(notebook: NotebookNode, room: Classroom) -> None:
    """An earlier attempt left above the answer, as copy and paste leaves it: with the same nbgrader id."""
    where = next(i for i, cell in enumerate(notebook.cells) if answer_of(cell) == room.exercises[0])
    attempt = copy.deepcopy(notebook.cells[where])
    attempt.id = "earlier-attempt"
    attempt.source = room.mistaken(room.exercises[0], 0)[room.exercises[0]]
    notebook.cells.insert(where, attempt)


def _cut_off(data: bytes) -> bytes:
    return data[: len(data) // 3]


CLASS = (
    Student("amara", "Amara", "Okafor", "everything right", _everything),
    Student("bruno", "Bruno", "Silva", "nothing written", _nothing),
    Student("chen", "Chen", "Wei", "first half", _first_half),
    Student("dana", "Dana", "Katz", "every other exercise", _every_other),
    Student("elif", "Elif", "Yilmaz", "first exercise only", _first_only),
    Student("farid", "Farid", "Haddad", "one mistake", _slips((0, 0))),
    Student("greta", "Greta", "Lindqvist", "two mistakes", _slips((0, 0), (2, 1))),
    Student("hiro", "Hiro", "Tanaka", "a mistake in every exercise", _all_wrong),
    Student("ines", "Ines", "Moreau", "three mistakes", _slips((1, 1), (2, 1), (3, 2))),
    Student("jonas", "Jonas", "Weber", "right, written another way", _alternatives),
    Student("kofi", "Kofi", "Mensah", "a function that loops for ever", _with_second(_loops)),
    Student("lena", "Lena", "Novak", "reads a neighbour's work", _with_second(_copies)),
    Student("mateo", "Mateo", "Garcia", "a cell that ends the process", _with_second(_ends_the_process)),
    Student("nadia", "Nadia", "Rahman", "a file cut off in the middle", _everything, spoil=_cut_off),
    Student("oskar", "Oskar", "Nowak", "deleted a cell", _everything, change=_delete_third),
    Student("priya", "Priya", "Iyer", "prints 100 MB", _with_second(_floods)),
    Student("quinn", "Quinn", "Murphy", "NaN in place of numbers", _with_second(_not_a_number)),
    Student("rosa", "Rosa", "Bianchi", "a syntax error", _with_second(_syntax_error)),
    Student("samir", "Samir", "Das", "an earlier attempt left in", _everything, change=_duplicate_first),
    Student("tara", "Tara", "O'Brien", "warnings on stderr", _with_second(_warns)),
)
