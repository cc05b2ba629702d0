"""Which test cells of a notebook run in a process of their own, and what they need there.

Decided by the instructor's text alone. The clean process runs what that text says outside of answer cells, as far as
it does not need the student's names; those are the names that the answer cells of the instructor's own solution bind
or change, and what other cells compute from them. A student who binds other names changes nothing there.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autograder.plain.scan import Statement, statements
from autograder.reading.template import NotebookTemplate, TemplateCell

_NOTHING: frozenset[str] = frozenset()
_BUILTINS = frozenset(dir(builtins))
# Text that looks at all names at once.
_DYNAMIC = frozenset(("globals", "locals", "vars", "dir", "get_ipython"))
# Text that would run what a student wrote, or looks at or changes what is only in the student's process.
_INSIDE_NAMES = frozenset(
    ("exec", "eval", "compile", "__import__", "__builtins__", "In", "Out", "_ih", "_oh", "_i", "_ii", "_iii")
)
_INSIDE_MODULES = frozenset(
    ("builtins", "cloudpickle", "dill", "dis", "doctest", "gc", "importlib", "jinja2", "joblib", "marshal", "mock",
     "pickle", "runpy", "shelve", "subprocess", "sympy", "tracemalloc", "yaml")
)  # fmt: skip
_INSIDE_ATTRIBUTES = frozenset(
    ("__code__", "__globals__", "__closure__", "settrace", "setprofile", "user_ns", "run_cell", "allow_pickle",
     "_getframe", "currentframe", "getsourcelines", "getclosurevars", "getmembers", "read_pickle")
)  # fmt: skip
_INSIDE_TEXT = re.compile(r"\b(?:builtins\.|__main__\.|sys\.modules|sys\.stdin|os\.(?:system|popen))")


@dataclass(frozen=True)
class TestPlan:
    """How one test cell is run.

    Attributes:
        reason: why it runs in the student's process; "" when it runs in one of its own.
        names: the student's names that it needs; `imports`: the import statement behind some of them.
        watched: names that it binds or deletes and that functions of the instructor's own solution read; no other
            variable of a test cell crosses.
        into: import statements of its visible text, which later cells of the student's may rely on.
        permitted: guarded questions that the instructor's own solution needed; see :mod:`autograder.plain.proxy`.
    """

    reason: str = ""
    names: tuple[str, ...] = ()
    imports: Mapping[str, str] = field(default_factory=dict)
    watched: tuple[str, ...] = ()
    into: str = ""
    permitted: frozenset[str] | None = None


@dataclass(frozen=True)
class Plan:
    """The plain test cells of one notebook, by position in its template.

    Attributes:
        pieces: (position, source) of what the clean process runs, in order.
        shared: classes that both processes have, as "module:name".
    """

    tests: Mapping[int, TestPlan]
    pieces: tuple[tuple[int, str], ...] = ()
    shared: tuple[str, ...] = ()

    def isolates(self, position: int) -> bool:
        return position in self.tests and not self.tests[position].reason

    @property
    def isolated(self) -> tuple[int, ...]:
        return tuple(position for position in self.tests if self.isolates(position))


def plan_of(
    notebook: NotebookTemplate, files: Mapping[str, bytes], inside: Mapping[int, str] | None = None
) -> Plan:  # fmt: skip
    """Read a notebook's text. ``inside``: test cells that have to run in the student's process, with the reasons."""
    tests = [position for position, cell in enumerate(notebook.cells) if cell.role == "test" and cell.kind == "code"]
    try:
        reader = _Reader(notebook, files, dict(inside or {}))
        reader.read()
    except (SyntaxError, ValueError, RecursionError) as error:
        why = f"a cell of the notebook is no Python that can be read ({type(error).__name__})"
        return Plan(dict.fromkeys(tests, TestPlan(why)))
    return Plan(reader.tests, reader.needed_pieces(), tuple(sorted(reader.shared)))


class _Reader:
    """Goes through a notebook from the top and keeps which names are whose."""

    def __init__(self, notebook: NotebookTemplate, files: Mapping[str, bytes], inside: dict[int, str]) -> None:
        self.notebook, self.inside = notebook, inside
        self.tests: dict[int, TestPlan] = {}
        self.shared: set[str] = set()
        self._modules = {name[:-3]: data for name, data in files.items() if name.endswith(".py") and "/" not in name}
        self._student: set[str] = set()
        self._foul: set[str] = set()  # bound by test cells in the student's process
        self._imported: set[str] = set()
        self._imports: dict[str, str] = {}
        self._defined: dict[str, Statement] = {}
        self._pieces: list[tuple[int, Statement]] = []
        self._wanted: set[str] = set()
        self._inner = {name for cell in self._theirs() for s in statements(cell.solved) for name in s.later}

    def _theirs(self) -> Iterable[TemplateCell]:
        return (c for c in self.notebook.cells if c.kind == "code" and c.role in ("answer", "manual"))

    def read(self) -> None:
        for name, data in self._modules.items():
            self._share_classes(name, data)
        for position, cell in enumerate(self.notebook.cells):
            if cell.kind != "code" or not cell.runs:
                continue
            if cell.role in ("answer", "manual"):
                self._answer(cell)
            elif cell.role == "test":
                self._test(position, cell)
            else:
                self._given(position, cell)

    def _share_classes(self, module: str, data: bytes) -> None:
        for statement in statements(data.decode("utf-8", "replace")):
            if statement.is_class:
                self.shared |= {f"{module}:{name}" for name in statement.binds}

    def _answer(self, cell: TemplateCell) -> None:
        for statement in statements(cell.solved):
            names = statement.binds | (statement.changes - self._imported)
            self._student |= names
            for name in statement.binds:
                self._defined.pop(name, None)
                self._imports.pop(name, None)
                if statement.is_import:
                    self._imports[name] = statement.source

    def _given(self, position: int, cell: TemplateCell) -> None:
        """A cell of the instructor's: each statement runs in the clean process unless it needs the student's names."""
        for statement in statements(cell.source):
            if self._reach(statement.now) & self._student:
                self._student |= statement.binds | (statement.changes - self._imported)
                continue
            self._pieces.append((position, statement))
            self._settle(statement)
            if statement.is_class and cell.role == "locked":
                self.shared |= {f"__main__:{name}" for name in statement.binds}
            if cell.role == "free" and not (statement.is_import or statement.is_definition):
                self._student |= statement.binds  # a student may well try other values

    def _settle(self, statement: Statement) -> None:
        """From here on the names of a statement are the clean process's own."""
        self._student -= statement.binds
        self._foul -= statement.binds
        for name in statement.binds:
            self._defined[name] = statement
        if statement.is_import:
            self._imported |= statement.binds

    def _reach(self, names: Iterable[str]) -> set[str]:
        """Names, and all that functions of these names load when they are called."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._defined[name].loads if name in self._defined else ()
        return found

    def _test(self, position: int, cell: TemplateCell) -> None:
        body = statements(cell.source)
        loads = self._reach(name for statement in body for name in statement.loads)
        binds = {name for statement in body for name in statement.binds}
        names = self._student if loads & _DYNAMIC else self._student & loads
        reason = self.inside.get(position) or self._reason(position, body, loads, binds)
        if reason:
            self.tests[position] = TestPlan(reason)
            self._foul |= binds
            self._student -= binds
            for name in binds:
                self._defined.pop(name, None)
            return
        visible = [s for s in _statements_or_none(cell.release) if s.is_import and not s.binds <= self._imported]
        watched = binds & self._inner
        self.tests[position] = TestPlan(
            names=tuple(sorted(names)),
            imports={name: self._imports[name] for name in sorted(names) if name in self._imports},
            watched=tuple(sorted(watched)),
            into="\n".join(s.source for s in visible),
        )
        self._wanted |= loads
        for statement in body:
            self._settle(statement)

    def _reason(self, position: int, body: tuple[Statement, ...], loads: set[str], binds: set[str]) -> str:
        reached = [*body, *(self._defined[name] for name in loads if name in self._defined)]
        if found := sorted(word for statement in reached for word in _inside(statement)):
            return f"it uses {found[0]}, which means the student's own process"
        if found := sorted(loads & self._foul):
            return f"it uses {found[0]}, which a test cell in the student's process made"
        if found := sorted(self._risky_modules(reached)):
            return f"its module {found[0]} may run what it is given as code"
        if found := sorted((binds & self._needed_later(position)) - {n for s in body if s.is_import for n in s.binds}):
            return f"later cells use {found[0]}, which it defines"
        return ""

    def _risky_modules(self, reached: list[Statement]) -> set[str]:
        used = {name for s in reached for name in s.imports}
        pattern = rb"\b(exec|eval|compile|pickle|doctest|marshal|subprocess|importlib|mock|sympy|jinja2|yaml)\b"
        return {name for name in used & self._modules.keys() if re.search(pattern, self._modules[name])}

    def _needed_later(self, position: int) -> set[str]:
        """Names that cells after a position load and that no cell but a test cell has bound by then."""
        bound: set[str] = set(_BUILTINS)
        needed: set[str] = set()
        for place, cell in enumerate(self.notebook.cells):
            if cell.kind == "code" and cell.runs and cell.role != "test":
                for statement in statements(cell.solved):
                    if place > position:
                        needed |= statement.now - bound
                    bound |= statement.binds
        return needed

    def needed_pieces(self) -> tuple[tuple[int, str], ...]:
        """The statements that test cells depend on; figures and demonstrations are none of them."""
        kept: list[tuple[int, str]] = []
        wanted = set(self._wanted)
        for position, statement in reversed(self._pieces):
            touched = statement.binds | statement.changes
            if (
                touched & wanted
                or "*" in statement.binds
                or (statement.is_expression and statement.loads & (wanted | {"get_ipython"}))
            ):
                kept.append((position, statement.source))
                wanted |= statement.loads
        return tuple(reversed(kept))


def _statements_or_none(source: str) -> tuple[Statement, ...]:
    try:
        return statements(source)
    except SyntaxError:
        return ()


def _inside(statement: Statement) -> frozenset[str]:
    """The words of a statement that mean the student's own process."""
    found = (statement.loads & _INSIDE_NAMES) | (statement.attributes & _INSIDE_ATTRIBUTES)
    text = _INSIDE_TEXT.search(statement.source)
    return found | (statement.imports & _INSIDE_MODULES) | (frozenset((text[0],)) if text else _NOTHING)
