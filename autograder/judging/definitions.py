"""Whether a notebook's answers do no more than define things, so that it can be examined after its last cell.

An exercise is examined in a fork of the notebook's process, made at its place: what comes later cannot change it, and
no later cell can show what it was asked. The fork costs more than most of the calls. Where all cells only define
functions, classes and constants, nothing is bound twice and functions keep to their arguments, the state after the
last cell answers as any state before it would. The process itself can then be asked, once no cell is left that could
show anything.

This is read off the text, and holds for honest code. Code that hides what it does changes its own answers only.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from autograder.reading.ingest import RebuiltCell

_MODULES = frozenset({
    "__future__", "collections", "copy", "dataclasses", "fractions", "functools", "heapq", "itertools", "math",
    "numpy", "operator", "statistics", "struct", "time", "torch", "typing",
})  # fmt: skip
_REACHING = frozenset({
    "__builtins__", "__import__", "compile", "delattr", "eval", "exec", "get_ipython", "globals", "locals", "open",
    "setattr", "vars",
})  # fmt: skip
_FIXED = (
    ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.UnaryOp, ast.BinOp,
    ast.expr_context, ast.operator, ast.unaryop,
)  # fmt: skip


def only_definitions(cells: Sequence[RebuiltCell]) -> bool:
    """Return whether all code that runs from the student's first cell on defines things and does nothing else."""
    running = [cell for cell in cells if cell.runs and (cell.cell is None or cell.cell.role != "test")]
    first = next((n for n, cell in enumerate(running) if cell.origin != "template"), len(running))
    try:
        above = _statements(running[:first])
        below = _statements(running[first:])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    given = {name for statement in above for name, origin in _bound(statement) if origin}
    modules = _MODULES.union(*map(_modules, above))
    data = {name for statement in above if not _defines(statement, given) for name, _ in _bound(statement)}
    return (
        all(_defines(statement, given) and _keeps_to_itself(statement, modules) for statement in below)
        and not _bound_twice((*above, *below))
        and not {node.id for node in _walk(below) if isinstance(node, ast.Name)} & data
    )


def _statements(cells: Iterable[RebuiltCell]) -> list[ast.stmt]:
    return [statement for cell in cells for statement in ast.parse(cell.source).body]


def _walk(statements: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    for statement in statements:
        yield from ast.walk(statement)


def _defines(statement: ast.stmt, given: set[str]) -> bool:
    """Whether a statement at the top of a cell or a class only binds a name to what nothing changes; a call of what
    the template imports, as `predict("cliff", 40, "%")`, counts as well."""
    match statement:
        case ast.ClassDef(bases=bases, body=body):
            return all(map(_fixed, bases)) and all(_defines(inner, given) for inner in body)
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            return all(_fixed(value) for value in (*args.defaults, *args.kw_defaults) if value is not None)
        case (
            ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(target=ast.Name(), value=ast.expr() as value)
        ):
            return _fixed(value)
        case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=args, keywords=[])):
            return name in given and all(map(_fixed, args))
        case ast.Expr(value=value):
            return _fixed(value)
    return isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom)


def _fixed(value: ast.expr) -> bool:
    """Whether an expression is made of names and of values that cannot be changed in place."""
    return all(isinstance(node, _FIXED) for node in ast.walk(value))


def _keeps_to_itself(statement: ast.stmt, modules: frozenset[str]) -> bool:
    """Whether code, when it runs, changes nothing but its own variables and arguments."""
    nodes = list(ast.walk(statement))
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return not any(_reaches_out(node, own, modules) for node in nodes)


def _reaches_out(node: ast.AST, own: set[str], modules: frozenset[str]) -> bool:
    match node:
        case ast.Global():
            return True
        case ast.Name(id=name):
            return name in _REACHING
        case ast.Import() | ast.ImportFrom():
            return not _modules(node) <= modules or any(alias.name == "*" for alias in node.names)
        case ast.Attribute(attr=name) if name.startswith("set_") or (name.startswith("__") and name != "__init__"):
            return True
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            return _root(node) not in own
    return False


def _root(value: ast.AST) -> str:
    while isinstance(value, ast.Attribute | ast.Subscript):
        value = value.value
    return value.id if isinstance(value, ast.Name) else ""


def _modules(node: ast.AST) -> frozenset[str]:
    """The top-level packages that an import takes from; a relative one has the name ""."""
    match node:
        case ast.Import(names=names):
            return frozenset(alias.name.partition(".")[0] for alias in names)
        case ast.ImportFrom(module=module, level=level):
            return frozenset({"" if level else str(module).partition(".")[0]})
    return frozenset()


def _bound(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names that a statement binds at the top of a cell, each with the import it comes from, or ""."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, ""
        case ast.Import(names=names):
            for alias in names:
                yield alias.asname or alias.name.partition(".")[0], alias.name if alias.asname else "import"
        case ast.ImportFrom(module=module, names=names):
            yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in names)
        case _:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            yield from ((node.id, "") for node in stored)


def _bound_twice(statements: Iterable[ast.stmt]) -> bool:
    """Whether a name is bound anew, other than by the same import."""
    bound = [pair for statement in statements for pair in _bound(statement)]
    names = Counter(name for name, origin in {*bound} if origin)
    names.update(name for name, origin in bound if not origin)
    return any(count > 1 for count in names.values())
