"""What stands for the student's objects in the process of the test cells.

A function of the student's is a function here whose calls cross; so nothing of the student's runs in this process. An
object that is no data is a :class:`Handle`, whose attributes, items, length and text are asked for. Where a question
would tell it the value it is compared with (``==``, ``<``, ``in``, arithmetic, a method with arguments), it could
answer to please: such questions are passed on only where the instructor's own solution needed them in the same test
cell.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograder.plain.stand_ins import StandIns

NUMBER = "_fourbit_number"
_PLAIN = ("bool", "float", "int", "complex", "str", "repr", "abs", "round", "reversed", "divmod")
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
               "rshift")  # fmt: skip
# Attributes by which libraries take an object's memory, or its word, for data.
_LIBRARIES = ("__array_", "__buffer", "__cuda_", "__dlpack", "__torch_", "__deepcopy__", "__reduce", "__getstate__")
_OWN = frozenset(("_fourbit_number", "_fourbit_link", "__class__", "__dict__"))


class Remote(type):
    """The class of a student's class."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        return cls._fourbit_link.call(cls, args, named)

    def __getattr__(cls, name: str) -> Any:
        if name in _OWN:
            raise AttributeError(name)
        return cls._fourbit_link.ask("getattr", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._fourbit_link.ask("setattr", cls, name, value)


class Handle(metaclass=Remote):
    """An object of the student's that is no data."""

    _fourbit_link: StandIns
    __doc__ = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_LIBRARIES):
            raise AttributeError(name)
        return self._fourbit_link.attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._fourbit_link.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._fourbit_link.ask("delattr", self, name)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._fourbit_link.call(self, args, named)

    def __len__(self) -> int:
        return self._data("len", int)

    def __bool__(self) -> bool:
        return self._data("bool", bool)

    def __index__(self) -> int:
        return self._data("index", int)

    def __format__(self, how: str) -> str:
        return self._data("format", str, how)

    def __hash__(self) -> int:
        link = self._fourbit_link
        return self._data("hash", int) if link.may("hash()") else object.__hash__(self)

    def __iter__(self) -> Iterator[Any]:
        found = self._fourbit_link.ask("iter", self)
        return found if isinstance(found, Handle) else iter(found)

    def __next__(self) -> Any:
        return self._fourbit_link.ask("next", self)

    def __getitem__(self, key: Any) -> Any:
        return self._fourbit_link.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._fourbit_link.ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._fourbit_link.ask("delitem", self, key)

    def __contains__(self, item: Any) -> bool:
        if not self._fourbit_link.may(f"in{_kind(item)}", self):
            return False
        return bool(self._fourbit_link.ask("contains", self, item))

    def __enter__(self) -> Any:
        return self._fourbit_link.attribute(self, "__enter__")()

    def __exit__(self, *error: Any) -> Any:
        return self._fourbit_link.attribute(self, "__exit__")(None, None, None) if error[0] is None else False

    def __eq__(self, other: object) -> Any:
        return self._compare("eq", other, self is other)

    def __ne__(self, other: object) -> Any:
        return self._compare("ne", other, self is not other)

    def _compare(self, verb: str, other: object, otherwise: bool) -> Any:
        link = self._fourbit_link
        return link.ask(verb, self, other) if link.may(f"=={_kind(other)}", self) else otherwise

    def _data(self, verb: str, kind: type, *more: Any) -> Any:
        """The answer to a question whose answer Python wants to be of one type."""
        found = self._fourbit_link.ask(verb, self, *more)
        if type(found) is not kind:
            raise TypeError(f"{verb}() of a {type(self).__name__} gave a {type(found).__name__}")
        return found


def _kind(other: Any) -> str:
    return " object" if isinstance(other, Handle) else ""


def _guarded(verb: str, sign: str, *, swapped: bool = False) -> Callable[[Any, Any], Any]:
    """An operator with an operand that the student's object would get to see."""

    def operate(self: Any, other: Any) -> Any:
        link = self._fourbit_link
        link.must(f"{sign}{_kind(other)}", self)
        return link.ask(verb, other, self) if swapped else link.ask(verb, self, other)

    return operate


def _unary(verb: str) -> Callable[..., Any]:
    return lambda self, *more: self._fourbit_link.ask(verb, self, *more)


for _verb in _ARITHMETIC:
    _word = f"{_verb}_" if _verb in ("and", "or") else _verb
    type.__setattr__(Handle, f"__{_verb}__", _guarded(_word, _verb))
    type.__setattr__(Handle, f"__r{_verb}__", _guarded(_word, _verb, swapped=True))
for _verb in ("lt", "le", "gt", "ge"):
    type.__setattr__(Handle, f"__{_verb}__", _guarded(_verb, "<"))
for _verb in ("neg", "pos", "invert"):
    type.__setattr__(Handle, f"__{_verb}__", _unary(_verb))
for _verb in _PLAIN[1:]:
    type.__setattr__(Handle, f"__{_verb}__", _unary(_verb))


def make_class(link: StandIns, number: int, name: str, bases: tuple[type, ...]) -> type:
    """A class here for a class of the student's, so that isinstance and type() hold."""
    kind = type.__new__(Remote, name, bases or (Handle,), {NUMBER: number, "__module__": "__main__"})
    type.__setattr__(kind, "_fourbit_link", link)
    return kind


def make_handle(kind: type, number: int) -> Any:
    handle: Any = object.__new__(kind)
    object.__setattr__(handle, NUMBER, number)
    return handle


def make_function(
    call: Callable[..., Any], file: str, name: str, documented: str | None, parameters: list[inspect.Parameter] | None
) -> Any:  # fmt: skip
    """A function whose calls cross. ``file``: under which name its source, the student's, can be looked up."""

    def function(*args: Any, **named: Any) -> Any:
        return call(args, named)

    function.__code__ = function.__code__.replace(co_filename=file, co_firstlineno=1)
    function.__name__ = function.__qualname__ = name
    function.__doc__, function.__module__ = documented, "__main__"
    function.__annotations__ = {}
    if parameters is not None:
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def make_exception(name: str, base: type[BaseException]) -> type[BaseException]:
    """A class here for an exception class of the student's."""

    def text(self: Any) -> str:
        return str(self.__dict__.get("_fourbit_text", BaseException.__str__(self)))

    return type(name, (base,), {"__str__": text, "__module__": "__main__"})
