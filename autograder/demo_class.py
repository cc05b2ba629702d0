"""A simulated class: what each student handed in, and why it is in the class.

Students are described in terms of a lab's exam (its second exercise, that one's first mistake), and so fit every lab.
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
        writes: whether they answered the written questions and made the predictions.
    """

    id: str
    first_name: str
    last_name: str
    about: str
    answers: Callable[[Classroom], Answers]
    change: Callable[[NotebookNode, Classroom], None] | None = None
    spoil: Callable[[bytes], bytes] | None = None
    writes: bool = True


def hand_in(student: Student, room: Classroom, handed_out: NotebookNode) -> bytes:
    """The notebook file that `student` hands in, made from the one that was handed out."""
    notebook = copy.deepcopy(handed_out)
    answers = student.answers(room)
    for cell in notebook.cells:
        exercise = answer_of(cell)
        if exercise in answers:
            cell.source = answers[exercise].rstrip("\n")
        elif student.writes:
            _write(cell)
    if student.change:
        student.change(notebook, room)
    data = nbformat.writes(notebook, version=4).encode()
    return student.spoil(data) if student.spoil else data


def answer_of(cell: Mapping[str, object]) -> str:
    """The exercise whose answer a cell of a lab holds, or ""."""
    metadata = cell["metadata"]
    fourbit = metadata.get("fourbit", {}) if isinstance(metadata, Mapping) else {}
    return str(fourbit.get("exercise", "")) if fourbit.get("role") == "exercise" else ""


def _write(cell: NotebookNode) -> None:
    """A guess where one is asked for, a sentence where an answer is."""
    role = cell.metadata.get("fourbit", {}).get("role")
    if role == "prediction":
        cell.source = cell.source.replace("...", "10", 1)
    elif role == "written":
        cell.source = "Because the bytes have to be moved whether they are zero or not."


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


def _but(number: int, make: Callable[[str, str, Classroom], str]) -> Callable[[Classroom], Answers]:
    """All right, but the cell of exercise `number` is `make(its object's name, its reference, room)`."""

    def answers(room: Classroom) -> Answers:
        exercise = room.lab.exam.exercises[number]
        cell = make(exercise.entry or exercise.name, room.lab.source(exercise.name), room)
        return room.solved() | {exercise.name: cell}

    return answers


def _body(entry: str, body: str) -> str:
    indented = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f"def {entry}(*args, **kwargs):\n{indented}\n"


def _loops(entry: str, source: str, room: Classroom) -> str:
    return _body(entry, "while True:\n    pass")


def _ends_the_process(entry: str, source: str, room: Classroom) -> str:
    return f"import os\n\n{source}\nos._exit(0)"


def _floods(entry: str, source: str, room: Classroom) -> str:
    return f"{source}\nfor step in range(1_000_000):\n    print(step, 'x' * 100)"


def _syntax_error(entry: str, source: str, room: Classroom) -> str:
    return source.replace("):", ")", 1)


def _not_a_number(entry: str, source: str, room: Classroom) -> str:
    """The reference, with every float in its result replaced by NaN."""
    return f"""{source}
_right = {entry}

def {entry}(*args, **kwargs):
    def spoil(value):
        if isinstance(value, torch.Tensor):
            return value * float("nan") if value.is_floating_point() else torch.full(value.shape, float("nan"))
        if isinstance(value, dict):
            return {{key: spoil(item) for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            return type(value)(spoil(item) for item in value)
        return float("nan")
    return spoil(_right(*args, **kwargs))
"""


def _warns(entry: str, source: str, room: Classroom) -> str:
    return (
        f"import sys\nimport warnings\n\n{source}\nwarnings.warn('half done')\nprint('nearly there', file=sys.stderr)"
    )


def _copies(entry: str, source: str, room: Classroom) -> str:
    """Look for a neighbour's notebook wherever it could be, and run their function."""
    course = str(room.course / "*" / "*" / "*" / "*.ipynb")
    return _body(
        entry,
        f"""import glob
import json
found = []
for pattern in ("../*/*.ipynb", "../../*/*/*.ipynb", "../../../*/*/*/*.ipynb", {course!r}):
    for path in glob.glob(pattern):
        try:
            with open(path) as file:
                cells = json.load(file)["cells"]
        except ValueError:
            continue
        sources = ["".join(cell["source"]) for cell in cells]
        found += [source for source in sources if "def {entry}(" in source]
for source in found:
    scope = dict(globals())
    exec(source, scope)
    try:
        return scope["{entry}"](*args, **kwargs)
    except Exception:
        continue
raise FileNotFoundError("no neighbour's work to be found")""",
    )


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
    Student("bruno", "Bruno", "Silva", "nothing written", _nothing, writes=False),
    Student("chen", "Chen", "Wei", "first half", _first_half),
    Student("dana", "Dana", "Katz", "every other exercise", _every_other),
    Student("elif", "Elif", "Yilmaz", "first exercise only", _first_only, writes=False),
    Student("farid", "Farid", "Haddad", "one mistake", _slips((0, 0))),
    Student("greta", "Greta", "Lindqvist", "two mistakes", _slips((0, 0), (2, 1))),
    Student("hiro", "Hiro", "Tanaka", "a mistake in every exercise", _all_wrong),
    Student("ines", "Ines", "Moreau", "three mistakes", _slips((1, 1), (2, 1), (3, 2))),
    Student("jonas", "Jonas", "Weber", "right, written another way", _alternatives),
    Student("kofi", "Kofi", "Mensah", "a function that loops for ever", _but(1, _loops)),
    Student("lena", "Lena", "Novak", "reads a neighbour's work", _but(0, _copies)),
    Student("mateo", "Mateo", "Garcia", "a cell that ends the process", _but(2, _ends_the_process)),
    Student("nadia", "Nadia", "Rahman", "a file cut off in the middle", _everything, spoil=_cut_off),
    Student("oskar", "Oskar", "Nowak", "deleted a cell", _everything, change=_delete_third),
    Student("priya", "Priya", "Iyer", "prints 100 MB", _but(2, _floods)),
    Student("quinn", "Quinn", "Murphy", "NaN in place of numbers", _but(5, _not_a_number)),
    Student("rosa", "Rosa", "Bianchi", "a syntax error", _but(2, _syntax_error)),
    Student("samir", "Samir", "Das", "an earlier attempt left in", _everything, change=_duplicate_first),
    Student("tara", "Tara", "O'Brien", "warnings on stderr", _but(0, _warns)),
)
