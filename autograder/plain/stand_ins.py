"""In the process of the test cells: objects that stand for those of the submission, and what may cross to it."""

from __future__ import annotations

import builtins
import dis
import inspect
import itertools
import linecache
import marshal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from autograder.engine.shell import belongs_to_no_module
from autograder.plain.codec import Decoder, Encoder, Node
from autograder.plain.proxy import NUMBER, Handle, Remote, make_class, make_exception, make_function, make_handle
from autograder.plain.sharing import Sharing
from fourbit.errors import CodecError

_STREAM_ITEMS = 10_000
# Exceptions keep their class where that cannot mean more to a test than that the call failed: no SkipTest.
_KNOWN = ("builtins", "numpy", "json", "decimal", "fractions", "statistics", "torch", "csv", "re", "queue", "zlib")


class Stopped(BaseException):
    """The submission's process ended or was stopped in a call; the test cell cannot go on."""


class StandIns(Sharing):
    """The test cells' side of the codec. ``namespace``: the names of this process's notebook; ``shared``: classes that
    both processes have, by which their objects cross whole."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._made: dict[Any, Any] = {}
        self._numbers: dict[int, int] = {}  # what stands for an object here, by id
        self._callbacks: list[Callable[..., Any]] = []

    def ask(self, verb: str, *args: Any, named: dict[str, Any] | None = None) -> Any:
        """Have something done in the submission's process."""
        raise NotImplementedError

    def may(self, question: str, about: Any = None) -> bool:
        """Whether a question that an object could answer to please is allowed here."""
        raise NotImplementedError

    def must(self, question: str, about: Any) -> None:
        """Raises TypeError when a guarded question is not allowed."""
        raise NotImplementedError

    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self.ask("call", target, *args, named=named)

    def attribute(self, handle: Any, name: str) -> Any:
        """An attribute; a method of a handle is a guarded question once it is given arguments."""
        found = self.ask("getattr", handle, name)
        if not isinstance(found, types.FunctionType) or id(found) not in self._numbers:
            return found

        def method(*args: Any, **named: Any) -> Any:
            if args or named:
                self.must(f".{name}()", handle)
            return found(*args, **named)

        method.__name__, method.__doc__ = name, found.__doc__
        self._made["method", id(method)] = method
        self._numbers[id(method)] = self._numbers[id(found)]
        return method

    def refer(self, value: Any, encoder: Encoder) -> Node:
        number = self._number_of(value)
        if number is not None:
            return ["here", number]
        if isinstance(value, Iterator):
            items = list(itertools.islice(value, _STREAM_ITEMS + 1))
            if len(items) > _STREAM_ITEMS:
                raise CodecError(f"an iterator of more than {_STREAM_ITEMS:,} items")
            return ["iter", encoder.node(items)]
        if isinstance(value, types.ModuleType):
            return ["ref", value.__name__, ""]
        if callable(value):
            return self._importable(value) or self._portable(value, encoder) or self._callback(value)
        raise CodecError(f"a {type(value).__name__} is no number, string, list or array")

    def _number_of(self, value: Any) -> int | None:
        if isinstance(value, Handle):
            return int(object.__getattribute__(value, NUMBER))
        if isinstance(value, Remote):
            return int(value.__dict__[NUMBER])
        return self._numbers.get(id(value))

    def _importable(self, value: Any) -> Node | None:
        module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(value, type) and f"{module}:{path}" in self.shared:
            return ["ref", module, path]
        if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
            return None
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        return ["ref", module, path] if found is value else None

    def _portable(self, value: Any, encoder: Encoder) -> Node | None:
        """A function that needs nothing of this process crosses by its code: an integral calls it a thousand times."""
        if type(value) is not types.FunctionType or value.__closure__ or value.__kwdefaults__ or value.__dict__:
            return None
        needed: dict[str, Node] = {}
        for name in _globals_of(value.__code__) - set(dir(builtins)):
            found = value.__globals__.get(name)
            if isinstance(found, types.ModuleType) or self._number_of(found) is not None:
                needed[name] = self.refer(found, encoder)
            elif callable(found) and (known := self._importable(found)):
                needed[name] = known
            else:
                return None
        defaults = [encoder.node(default) for default in value.__defaults__ or ()]
        return ["code", marshal.dumps(value.__code__).hex(), value.__name__, defaults, needed]

    def _callback(self, value: Any) -> Node:
        if value not in self._callbacks:
            self._callbacks.append(value)
        return ["callback", self._callbacks.index(value), str(getattr(value, "__name__", "function"))]

    def build(self, node: Node, decoder: Decoder, depth: int) -> Any:
        tag, number = node[0], node[1]
        makers: dict[str, Callable[..., Any]] = {
            "function": self._function, "object": self._object, "class": self._class, "exception": self._exception,
            "module": self._module, "stream": self._stream,
        }  # fmt: skip
        if tag in ("error", "raised"):
            return self._error(node if tag == "error" else number, decoder)
        if tag not in makers or type(number) is not int:
            raise CodecError(f"what arrived is of no known kind: {str(tag)[:40]!r}")
        if tag == "stream":
            return self._stream(decoder, depth, number)
        if (tag, number) not in self._made:
            made = makers[tag](decoder, depth, *node[1:])
            self._made[tag, number] = made
            self._numbers[id(made)] = number
        return self._made[tag, number]

    def _function(
        self, decoder: Decoder, depth: int, number: int, name: str, documented: str | None, parameters: Any
    ) -> Any:  # fmt: skip
        known = None if parameters is None else [self._parameter(decoder, depth, *item) for item in parameters]
        file = f"submission-{number}.py"

        def call(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return self.call(function, args, named)

        function = make_function(call, file, str(name), documented, known)
        self._numbers[id(function)] = number
        linecache.cache[file] = (lambda: self._source(function),)
        belongs_to_no_module(file)
        return function

    def _parameter(self, decoder: Decoder, depth: int, name: str, kind: int, *default: Node) -> inspect.Parameter:
        value = decoder.value(default[0], depth + 1) if default else inspect.Parameter.empty
        return inspect.Parameter(name, inspect._ParameterKind(kind), default=value)

    def _source(self, function: Any) -> str:
        try:
            return str(self.ask("source", function))
        except (Exception, Stopped):
            return ""

    def _object(self, decoder: Decoder, depth: int, number: int, kind: Node) -> Any:
        found = decoder.value(kind, depth + 1)
        if not isinstance(found, Remote):
            raise CodecError("what arrived is an object of no class")
        return make_handle(found, number)

    def _class(self, decoder: Decoder, depth: int, number: int, name: str, bases: list[Node]) -> Any:
        found = [decoder.value(base, depth + 1) for base in bases]
        return make_class(self, number, str(name), tuple(base for base in found if isinstance(base, Remote)))

    def _module(self, decoder: Decoder, depth: int, number: int, name: str) -> Any:
        return make_handle(make_class(self, number, "module", ()), number)

    def _exception(self, decoder: Decoder, depth: int, number: int, name: str, names: list[str]) -> Any:
        return make_exception(str(name), known_class(names, BaseException) or Exception)

    def _stream(self, decoder: Decoder, depth: int, number: int) -> Any:
        """The items of an iterator of the student's, asked for one by one at first: it may have no end."""

        def items() -> Iterator[Any]:
            taken, size, ended = 0, 1, False
            while not ended:
                chunk, ended = self.ask("chunk", stream, size)
                yield from chunk
                taken += len(chunk)
                size = 1 if taken < 32 else min(taken, 1024)

        stream = items()
        self._made["stream", number, id(stream)] = stream
        self._numbers[id(stream)] = number
        return stream

    def _error(self, node: list[Any], decoder: Decoder) -> BaseException:
        _, names, own, arguments, fields, text, place = node
        shared = next((name for name in names if name in self.shared), "")
        kind: Any = self.shared_class(shared) if shared else None
        kind = kind or (decoder.value(own) if own else known_class(names, BaseException))
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise CodecError("what arrived is no exception")
        error = _instance(kind, [decoder.value(item) for item in arguments])
        values = {str(name): decoder.value(item) for name, item in fields.items()}
        error.__dict__.update(values, **({"_fourbit_text": str(text)} if own and not shared else {}))
        if place:
            error.add_note(f"raised in the submission, {place}")
        return error

    def shared_class(self, name: str) -> type | None:
        found = super().shared_class(name)
        return None if isinstance(found, Remote) else found  # a stand-in of that name is none of the instructor's


def _globals_of(code: types.CodeType) -> set[str]:
    """The global names that a piece of code uses; one that changes some is given a name that nothing has."""
    found: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(str(step.argval))
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME"):
            found.add("")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _globals_of(constant)
    return found


def known_class(names: Any, base: type) -> type[Any] | None:
    """The first of the named exception classes that is a well-known one, already imported here."""
    for name in names if isinstance(names, list) else ():
        module, _, path = str(name).partition(":")
        found = getattr(sys.modules.get(module), path, None) if module.partition(".")[0] in _KNOWN else None
        if isinstance(found, type) and issubclass(found, base):
            return found
    return None


def _instance(kind: type[BaseException], arguments: list[Any]) -> BaseException:
    """An exception; only those of the language itself run their own code."""
    if kind.__module__ == "builtins":
        try:
            return kind(*arguments)
        except TypeError:
            pass
    error = kind.__new__(kind)
    error.args = tuple(arguments)
    return error
