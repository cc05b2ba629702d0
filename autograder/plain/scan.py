"""What pieces of an instructor's notebook load, bind and change, by their text alone.

This is trusted text, and nothing a student writes has a say in it. Where the text does not tell (``exec``, magics that
hide code), the calibration on the instructor's own solution finds out, or the cell stays in the student's process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_PYTHON_MAGICS = frozenset(("time", "timeit", "capture", "prun"))
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Statement:
    """One statement at the top level of a cell.

    Attributes:
        now: names that running it loads; `later`: names that functions defined in it load when they are called.
        binds: names that it binds or deletes; `changes`: names whose object it may change (a method called, an item
            set).
        attributes: names of all attributes in it; `imports`: words of its imports.
        texts: short string constants in it.
    """

    source: str
    now: frozenset[str]
    later: frozenset[str]
    binds: frozenset[str]
    changes: frozenset[str]
    attributes: frozenset[str]
    imports: frozenset[str]
    texts: frozenset[str]
    is_import: bool = False
    is_definition: bool = False
    is_class: bool = False
    is_expression: bool = False

    @property
    def loads(self) -> frozenset[str]:
        return self.now | self.later


@lru_cache(maxsize=1024)
def statements(source: str) -> tuple[Statement, ...]:
    """The statements of a cell. Raises SyntaxError for what is no code."""
    return tuple(_statement(node) for node in _parsed(source).body)


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # slow to import, and few cells hold magics

        return ast.parse(TransformerManager().transform_cell(source))


def _statement(node: ast.stmt) -> Statement:
    seen = _Names()
    seen.visit(node)
    for body in _magic_bodies(node):
        for inner in ast.parse(body).body:
            seen.visit(inner)
    definition = isinstance(node, _DEFINITIONS)
    return Statement(
        ast.unparse(node), frozenset(seen.now), frozenset(seen.later - seen.now), frozenset(seen.binds),
        frozenset(seen.changes), frozenset(seen.attributes), frozenset(seen.imports), frozenset(seen.texts),
        isinstance(node, ast.Import | ast.ImportFrom), definition, isinstance(node, ast.ClassDef),
        isinstance(node, ast.Expr),
    )  # fmt: skip


def _magic_bodies(node: ast.stmt) -> Iterator[str]:
    """The code that a magic such as %%time holds as text."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
            texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if call.func.attr in ("run_cell_magic", "run_line_magic") and texts and texts[0] in _PYTHON_MAGICS:
                try:
                    ast.parse(texts[-1])
                except SyntaxError:
                    continue
                yield texts[-1]


class _Names(ast.NodeVisitor):
    """Collects the names of one statement; what functions load is kept apart."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.later: set[str] = set()
        self.binds: set[str] = set()
        self.changes: set[str] = set()
        self.attributes: set[str] = set()
        self.imports: set[str] = set()
        self.texts: set[str] = set()
        self._locals: list[set[str]] = []

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if not any(node.id in names for names in self._locals):
                (self.later if self._locals else self.now).add(node.id)
        elif not self._locals:
            self.binds.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attributes.add(node.attr)
        if not isinstance(node.ctx, ast.Load):
            self._changed(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._changed(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._changed(node.func)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and not self._locals:
            self.now.add(node.target.id)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and len(node.value) < 200:
            self.texts.add(node.value)

    def visit_alias(self, node: ast.alias) -> None:
        self.imports.update(node.name.split("."))
        if not self._locals:
            self.binds.add(node.asname or node.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports.update((node.module or "").split("."))
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.binds.update(node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name and not self._locals:
            self.binds.add(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not self._locals:
            self.binds.add(node.name)
        before = set(self.binds)
        self.generic_visit(node)
        self.binds = before  # names of its body are attributes

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        if not isinstance(node, ast.Lambda):
            if not self._locals:
                self.binds.add(node.name)
            for decorator in node.decorator_list:
                self.visit(decorator)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._locals.append(_local_names(node))
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self._locals.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function  # noqa: N815

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        inner = _Names()
        for part in ast.iter_child_nodes(node):
            inner.visit(part)
        loads = {name for name in inner.now - targets if not any(name in names for names in self._locals)}
        (self.later if self._locals else self.now).update(loads)
        self.later |= {name for name in inner.later - targets if not any(name in names for names in self._locals)}
        self.changes |= inner.changes - targets
        self.attributes |= inner.attributes
        self.texts |= inner.texts
        if not self._locals:
            self.binds |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension  # noqa: N815

    def _changed(self, node: ast.expr) -> None:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name) and not any(node.id in names for names in self._locals):
            self.changes.add(node.id)


def _local_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names that are a function's own."""
    arguments = node.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    found = {argument.arg for argument in every if argument}
    shared: set[str] = set()
    for part in node.body if isinstance(node.body, list) else [node.body]:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Global):
                shared |= set(inner.names)
            elif isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                found.add(inner.id)
            elif isinstance(inner, ast.alias):
                found.add(inner.asname or inner.name.partition(".")[0])
            elif isinstance(inner, (*_DEFINITIONS, ast.ExceptHandler)) and inner.name:
                found.add(inner.name)
    return found - shared
