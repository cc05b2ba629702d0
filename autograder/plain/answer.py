"""In the submission's process: answers what a test cell asks of the student's objects.

What runs here may be in any condition that a submission likes to leave it in. The test cell's process believes nothing
but that it gets data of the codec's kinds; it is for the caller of this module, outside, to keep the time.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import inspect
import marshal
import operator
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from autograder.engine.executor import Talk
from autograder.plain.codec import Decoder, Encoder, Node, pack, unpack
from autograder.plain.sharing import Sharing
from autograder.plain.told import class_names, place_of, raised_by, text_of, warning_of
from fourbit.errors import CodecError

LEAVE = "cannot leave the submission; return numbers, strings, lists or arrays"
_STREAMS = (types.GeneratorType, map, filter, zip, enumerate, reversed)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType,
              types.WrapperDescriptorType, types.MethodDescriptorType, functools.partial)  # fmt: skip
_FUNCTION_TYPES = frozenset(("_lru_cache_wrapper", "ufunc", "vectorize"))
_WATCHED_BYTES, _WARNINGS = 2**18, 100


class Desk(Sharing):
    """The objects of this process that the test cells know by number, and the names that the current one knows."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.talk: Talk
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._errors: dict[int, BaseException] = {}  # of streams, to be raised when their earlier items are used up
        self._told: dict[str, tuple[Any, Any]] = {}

    def tell_names(self, names: list[str], shared: list[str]) -> bytes:
        """The values of names; a name that is not there is left out."""
        self.shared, self._told = tuple(shared), {}
        encoder = Encoder(self)
        nodes = {}
        for name in names:
            if name in self.namespace:
                with contextlib.suppress(CodecError):
                    nodes[name] = encoder.node(self.namespace[name])
                    self._watch(name)
        return pack({"names": nodes}, encoder.blobs)

    def _watch(self, name: str) -> None:
        """Remember what a name stood for when it was told."""
        value = self.namespace[name]
        self._told[name] = value, self._picture(value)

    def _picture(self, value: Any) -> bytes | None:
        """What a small value looks like now; of a large one a change in place is not noticed."""
        if sys.getsizeof(value, 0) > _WATCHED_BYTES:
            return None
        with contextlib.suppress(CodecError):
            return _picture(Encoder(self, raw=True).node(value))
        return None

    def obey(self, message: dict[str, Any], blobs: list[bytes]) -> bytes:
        """Do what a message of the test cell's process asks for; what the student's code raises is told."""
        decoder = Decoder(blobs, self)
        self._take_over(message, decoder)
        args = [decoder.value(node) for node in message["a"]]
        named = {name: decoder.value(node) for name, node in message["k"].items()}
        known = list(decoder.objects)
        before = self._contents(known)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                result, error = self._act(message["do"], args, named), None
            except KeyboardInterrupt:
                raise
            except BaseException as raised:
                result, error = None, raised
        return self._reply(known, before, result, error, heard)

    def _take_over(self, message: dict[str, Any], decoder: Decoder) -> None:
        """What the test cell did to names of the notebook and to the random generators."""
        for name, node in message.get("set", {}).items():
            self.namespace[name] = decoder.value(node)
            self._told[name] = self.namespace[name], self._picture(self.namespace[name])
        for name in message.get("del", ()):
            self.namespace.pop(name, None)
            self._told.pop(name, None)
        for module, node in message.get("random", {}).items():
            _set_random_state(module, decoder.value(node))

    def _act(self, verb: str, args: list[Any], named: dict[str, Any]) -> Any:
        if verb == "call":
            return args[0](*args[1:], **named)
        if verb == "chunk":
            return self._chunk(args[0], args[1])
        if verb == "source":
            return inspect.getsource(args[0])
        if verb in ("getattr", "setattr", "delattr", "len", "iter", "next", "bool", "float", "int", "complex", "str",
                    "repr", "hash", "abs", "round", "format", "reversed", "divmod"):  # fmt: skip
            return getattr(sys.modules["builtins"], verb)(*args)
        return getattr(operator, verb)(*args)

    def _chunk(self, stream: Iterator[Any], count: int) -> tuple[list[Any], bool]:
        """Some items of an iterator, and whether it has ended."""
        items: list[Any] = []
        if id(stream) in self._errors:
            raise self._errors.pop(id(stream))
        try:
            while len(items) < count:
                items.append(next(stream))
        except StopIteration:
            return items, True
        except BaseException as error:
            if not items:
                raise
            self._errors[id(stream)] = error
        return items, False

    def _contents(self, known: list[Any]) -> list[bytes]:
        encoder = Encoder(self, known, raw=True)
        return [_picture(encoder.content(item)) for item in known]

    def _reply(
        self, known: list[Any], before: list[bytes], result: Any, error: BaseException | None, heard: list[Any]
    ) -> bytes:  # fmt: skip
        try:
            encoder = Encoder(self, known)
            message: dict[str, Any] = {}
            message["x" if error else "v"] = self._error(error, encoder) if error else encoder.node(result)
            after = self._contents(known)
            changed = [number for number, node in enumerate(after) if node != before[number]]
            message["changed"] = [[number, encoder.content(known[number])] for number in changed]
            message["names"] = self._news(encoder)
        except CodecError as problem:
            encoder = Encoder(self)
            told = TypeError(f"a {type(result).__name__} {LEAVE} ({problem})")
            message = {"x": self._error(told, encoder), "changed": [], "names": {}}
        message["warned"] = [warning_of(item) for item in heard[:_WARNINGS]]
        return pack(message, encoder.blobs)

    def _news(self, encoder: Encoder) -> dict[str, Node]:
        """The names whose value is another than when it was told last; None for one that is gone."""
        found: dict[str, Node] = {}
        for name, (value, picture) in list(self._told.items()):
            if name not in self.namespace:
                found[name] = None
                del self._told[name]
            elif self.namespace[name] is not value or self._picture(value) != picture:
                found[name] = [encoder.node(self.namespace[name])]
                self._watch(name)
        return found

    # The student's side of the codec

    def refer(self, value: Any, encoder: Encoder) -> Node:
        kind = type(value)
        if isinstance(value, type):
            if issubclass(value, BaseException):
                return ["exception", self._number(value), value.__name__, class_names(value)]
            bases = [base for base in value.__bases__ if base is not object and base.__module__ != "builtins"]
            return ["class", self._number(value), value.__name__, [encoder.node(base) for base in bases]]
        if isinstance(value, BaseException):
            return ["raised", self._error(value, encoder)]
        if isinstance(value, types.ModuleType):
            return ["module", self._number(value), value.__name__]
        if isinstance(value, _STREAMS) or (kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__")):
            return ["stream", self._number(value)]
        if isinstance(value, _FUNCTIONS) or kind.__name__ in _FUNCTION_TYPES:
            return self._function(value, encoder)
        return ["object", self._number(value), encoder.node(kind)]

    def _function(self, value: Any, encoder: Encoder) -> Node:
        documented = value.__doc__ if isinstance(value.__doc__, str) else None
        parameters: list[Node] | None = None
        with contextlib.suppress(Exception):
            parameters = [
                [p.name, int(p.kind), *([] if p.default is p.empty else [encoder.node(p.default)])]
                for p in inspect.signature(value).parameters.values()
            ]
        name = str(getattr(value, "__name__", type(value).__name__))
        return ["function", self._number(value), name, documented, parameters]

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects[len(self._objects)] = value  # kept alive, so that no id is given twice
        return self._numbers[id(value)]

    def _error(self, error: BaseException, encoder: Encoder) -> Node:
        """An exception: its class with all that this derives from, arguments, text, and where it was raised."""
        kind = type(error)
        try:
            arguments = [encoder.node(argument) for argument in error.args]
            fields = {name: encoder.node(value) for name, value in vars(error).items() if not name.startswith("__")}
        except CodecError:
            arguments, fields = [text_of(error)], {}
        own = encoder.node(kind) if kind.__module__ == "__main__" else None
        return ["error", class_names(kind), own, arguments, fields, text_of(error), place_of(error)]

    def build(self, node: Node, decoder: Decoder, depth: int) -> Any:
        tag = node[0]
        if tag == "here":
            return self._objects[node[1]]
        if tag == "ref":
            found: Any = self.namespace if node[1] == "__main__" else importlib.import_module(node[1])
            for part in node[2].split(".") if node[2] else ():
                found = found[part] if isinstance(found, dict) else getattr(found, part)
            return found
        if tag == "iter":
            return iter(decoder.value(node[1], depth + 1))
        if tag == "code":
            names = {name: decoder.value(item, depth + 1) for name, item in node[4].items()}
            defaults = tuple(decoder.value(item, depth + 1) for item in node[3])
            code = marshal.loads(bytes.fromhex(node[1]))
            return types.FunctionType(code, {"__builtins__": builtins, "__name__": "test", **names}, node[2], defaults)
        if tag == "callback":
            return self._stub(node[1], node[2])
        raise CodecError(f"unknown kind {tag}")

    def _stub(self, number: int, name: str) -> Any:
        """A function that runs in the test cell's process."""

        def function(*args: Any, **named: Any) -> Any:
            encoder = Encoder(self)
            message = {
                "n": number,
                "a": [encoder.node(arg) for arg in args],
                "k": {key: encoder.node(value) for key, value in named.items()},
            }
            reply, blobs = unpack(self.talk.back(pack(message, encoder.blobs)))
            decoder = Decoder(blobs, self, encoder.objects)
            if "x" in reply:
                raise raised_by(*reply["x"])
            return decoder.value(reply["v"])

        function.__name__ = function.__qualname__ = name
        return function


_DESKS: dict[int, Desk] = {}


def answer(namespace: dict[str, Any], talk: Talk, payload: bytes) -> bytes:
    """The handler of :meth:`autograder.engine.Runner.ask`."""
    desk = _DESKS.setdefault(id(namespace), Desk(namespace))
    desk.talk = talk
    talk.answer = lambda inner: desk.obey(*unpack(inner))
    message, blobs = unpack(payload)
    if message["do"] == "names":
        return desk.tell_names(message["names"], message["shared"])
    return desk.obey(message, blobs)


def _picture(node: Node) -> bytes:
    """Bytes that tell 1, 1.0 and True apart."""
    return marshal.dumps(node, 2)


def _set_random_state(module: str, state: Any) -> None:
    if module == "random":
        sys.modules["random"].setstate(state)
    elif module == "numpy":
        importlib.import_module("numpy.random").set_state(state)
    elif module == "torch":
        importlib.import_module("torch").set_rng_state(state)
