"""In the process of the test cells: asks the submission, and builds what comes back."""

from __future__ import annotations

import random
import sys
import types
import warnings
from typing import Any

from autograder.engine.executor import Talk
from autograder.plain.codec import Decoder, Encoder, Node, pack, unpack
from autograder.plain.stand_ins import StandIns, Stopped, known_class
from fourbit.errors import CodecError

_MISSING = object()


class Link(StandIns):
    """The connection to one submission. ``permitted``: the guarded questions that may be asked in this test cell; None
    while the instructor's own solution is run, to find out which."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__(namespace)
        self.talk: Talk
        self.permitted: frozenset[str] | None = None
        self.used: set[str] = set()
        self.refused: list[str] = []
        self.watched: tuple[str, ...] = ()
        self._bound: dict[str, Any] = {}  # what the submission knows the names to be
        self._given: dict[str, Any] = {}  # what they were at the start
        self._random: dict[str, Any] = {}

    # What a test cell begins and ends with

    def bind(self, asked: list[str], data: bytes, imports: dict[str, str]) -> None:
        """Give the student's names what they stand for now. ``imports``: the instructor's import statement of a name;
        where the student has that module too, it is this process's own."""
        message, blobs = unpack(data)
        decoder = Decoder(blobs, self)
        for name, value in self._given.items():
            if self.namespace.get(name, _MISSING) is value:
                del self.namespace[name]
        self._bound, self._given = {}, {}
        for name in asked:
            self.namespace.pop(name, None)
            if name in message["names"]:
                node = message["names"][name]
                value = _own_module(node, name, imports.get(name, "")) or decoder.value(node)
                self.namespace[name] = self._bound[name] = self._given[name] = value
        self._random = _random_states()

    def news(self, encoder: Encoder) -> dict[str, Any]:
        """What the test cell did to names of the notebook and to the random generators since the last question."""
        found: dict[str, Any] = {}
        for name in self.watched:
            now = self.namespace.get(name, _MISSING)
            if now is self._bound.get(name, _MISSING):
                continue
            self._bound[name] = now
            if now is _MISSING:
                found.setdefault("del", []).append(name)
            else:
                found.setdefault("set", {})[name] = encoder.node(now)
        states = _random_states()
        for module, state in states.items():
            if state != self._random.get(module):
                found.setdefault("random", {})[module] = encoder.node(_random_state(module))
                _draw(module)  # the submission goes on from here, so the same seed once more is news again
                self._random = _random_states()
        return found

    # Questions

    def may(self, question: str, about: Any = None) -> bool:
        """Whether a question that an object could answer to please is allowed here."""
        if self.permitted is None:
            self.used.add(question)
        elif question not in self.permitted:
            if about is not None and not self.refused:
                name = type(about).__name__
                self.refused.append(f"a {name} cannot leave the submission; return numbers, strings, lists or arrays")
            return False
        return True

    def must(self, question: str, about: Any) -> None:
        """Raises TypeError when the question is not allowed."""
        if not self.may(question, about):
            raise TypeError(self.refused[0])

    def ask(self, verb: str, *args: Any, named: dict[str, Any] | None = None) -> Any:
        """Have something done in the submission's process: what it returns, or the exception that it raises."""
        encoder = Encoder(self)
        try:
            nodes = [encoder.node(arg) for arg in args]
            more = {name: encoder.node(value) for name, value in (named or {}).items()}
            message = {"do": verb, "a": nodes, "k": more, **self.news(encoder)}
            payload = pack(message, encoder.blobs)
        except CodecError as error:
            raise TypeError(f"this argument cannot cross to the submission: {error}") from None
        return self._received(self.talk.back(payload), encoder.objects)

    def _received(self, data: bytes, known: list[Any]) -> Any:
        told, parts = unpack(data)
        for stream, text in told["printed"]:
            (sys.stderr if stream == "stderr" else sys.stdout).write(text)
        if told["stop"]:
            raise Stopped(told["stop"])
        try:
            message, blobs = unpack(parts[0])
            decoder = Decoder(blobs, self, known)
            error = self._error(message["x"], decoder) if "x" in message else None
            value = None if error else decoder.value(message["v"])
            for number, content in message["changed"]:
                decoder.fill(known[number], content)
            self._rename(message["names"], decoder)
            self._warn(message["warned"])
        except (CodecError, KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
            raise TypeError(f"what the submission returned cannot be read: {problem}") from None
        if error is not None:
            raise error
        return value

    def _rename(self, names: dict[str, Node], decoder: Decoder) -> None:
        for name, node in names.items():
            if name not in self._bound or self.namespace.get(name, _MISSING) is not self._bound[name]:
                continue  # the test cell has taken the name for something of its own
            if node is None:
                self.namespace.pop(name, None)
                self._bound[name] = _MISSING
            else:
                self.namespace[name] = self._bound[name] = decoder.value(node[0])

    def _warn(self, heard: list[Any]) -> None:
        for names, text, line in heard:
            kind = known_class(names, Warning) or Warning
            warnings.warn_explicit(str(text), kind, "the submission", int(line))

    def answer(self, payload: bytes) -> bytes:
        """Run a function that a test cell passed to the student's code."""
        message, blobs = unpack(payload)
        decoder = Decoder(blobs, self)
        encoder = Encoder(self)
        try:
            args = [decoder.value(node) for node in message["a"]]
            named = {str(name): decoder.value(node) for name, node in message["k"].items()}
            reply = {"v": encoder.node(self._callbacks[message["n"]](*args, **named))}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reply = {"x": [type(error).__name__, str(error)[:2000]]}
        return pack(reply, encoder.blobs)


def _own_module(node: Node, name: str, statement: str) -> Any:
    """The module that the instructor's import gives a name, if that is what the student has there too."""
    if not statement or not isinstance(node, list) or node[:1] != ["module"]:
        return None
    found: dict[str, Any] = {}
    exec(statement, found)
    value = found.get(name)
    return value if isinstance(value, types.ModuleType) and value.__name__ == node[2] else None


def _random_states() -> dict[str, Any]:
    """What tells the states of the random generators here apart, by module."""
    states: dict[str, Any] = {"random": random.getstate()}
    if "numpy.random" in sys.modules:
        name, words, *rest = sys.modules["numpy.random"].get_state()
        states["numpy"] = name, words.tobytes(), *rest
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return states


def _random_state(module: str) -> Any:
    """A state as the generator itself takes it."""
    if module == "random":
        return random.getstate()
    return sys.modules["numpy.random"].get_state() if module == "numpy" else sys.modules["torch"].get_rng_state()


def _draw(module: str) -> None:
    if module == "random":
        random.random()
    elif module == "numpy":
        sys.modules["numpy.random"].random_sample()
    else:
        sys.modules["torch"].rand(1)
