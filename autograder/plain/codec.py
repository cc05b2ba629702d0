"""A closed codec for what crosses between a plain test cell and a submission: a JSON tree and raw bytes, no pickle.

    4 bytes length of the tree, the tree, the raw bytes of arrays one after the other; {"v": node, "b": [sizes], ...}

None, bool, float, str and moderate int are themselves; everything else is a list that begins with its kind. What
can change in place (list, dict, set, bytearray, array, tensor, an object of a shared class) carries a number: it is
built once, a second mention is ["@", number], and its later content can be put back into the caller's object.
Subclasses cross as their base. What is none of the known kinds is left to the :class:`Side` that speaks.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fourbit.errors import CodecError

MAX_DEPTH = 150
MAX_NODES = 500_000
MAX_BYTES = 48 * 2**20
_LONG = 10_000  # bits; JSON's decimal digits are slow and capped beyond

Node = Any
_SCALARS = frozenset((type(None), bool, float, str))
_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object,
        type(None),
    )
}  # fmt: skip
_VIEWS = {"dict_keys": dict.keys, "dict_values": dict.values, "dict_items": dict.items}
_ARRAY_KINDS = "biufcmMSU"
_TENSORS = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
     "complex128")
)  # fmt: skip


class Side(Protocol):
    """What one side adds to the known kinds: references to what stays there, and classes that both sides have."""

    def refer(self, value: Any, encoder: Encoder) -> Node:
        """The node of a value of no known kind. Raises :class:`CodecError` when it cannot cross."""

    def build(self, node: Node, decoder: Decoder, depth: int) -> Any:
        """The value of a node that the other side's `refer` made. Raises :class:`CodecError`."""

    def shared_name(self, value: Any) -> str:
        """The name of the class of an object whose attributes tell all of it; "" for others."""

    def shared_class(self, name: str) -> type | None:
        """The class of that name here."""


class DataOnly:
    """The side on which nothing but data may cross."""

    def refer(self, value: Any, encoder: Encoder) -> Node:
        raise CodecError(f"a {type(value).__name__} is no plain value")

    def build(self, node: Node, decoder: Decoder, depth: int) -> Any:
        raise CodecError(f"what arrived is of no known kind: {str(node[0])[:40]!r}")

    def shared_name(self, value: Any) -> str:
        return ""

    def shared_class(self, name: str) -> type | None:
        return None


class Encoder:
    """Turns values into nodes.

    ``known``: objects that the other side numbers 0, 1, ... already. ``raw``: the bytes of arrays stay in the node,
    which can then be compared but not sent.
    """

    def __init__(self, side: Side, known: Sequence[Any] = (), *, raw: bool = False) -> None:
        self.side, self.raw = side, raw
        self.blobs: list[bytes] = []
        self.objects: list[Any] = list(known)  # keeps them alive, so that no id is given twice
        self._numbers = {id(item): number for number, item in enumerate(self.objects)}
        self._nodes = self._bytes = 0

    def node(self, value: Any, depth: int = 0) -> Node:
        """The node of any value. Raises :class:`CodecError` beyond the caps, and what `other` raises."""
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if value.bit_length() < _LONG else ["int", hex(value)]
        self._count(depth)
        if id(value) in self._numbers:
            return ["@", self._numbers[id(value)]]
        tag = _mutable(value) or self._shared(value)
        if not tag:
            return self._fixed(value, depth)
        number = self._numbers[id(value)] = len(self.objects)
        self.objects.append(value)
        return [tag, number, *self._content(tag, value, depth)]

    def content(self, value: Any) -> Node:
        """What a numbered object holds now: its kind and content, without its number."""
        tag = _mutable(value) or "shared"
        return [tag, *self._content(tag, value, 0)]

    def _shared(self, value: Any) -> str:
        return "shared" if self.side.shared_name(value) else ""

    def _count(self, depth: int, more: int = 1) -> None:
        self._nodes += more
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH} or of more than {MAX_NODES:,} parts")

    def blob(self, data: bytes) -> Any:
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise CodecError(f"a value of more than {MAX_BYTES // 2**20} MiB")
        if self.raw:
            return data
        self.blobs.append(data)
        return len(self.blobs) - 1

    def _items(self, values: Any, depth: int) -> list[Node]:
        values = list(values)
        self._count(depth, len(values))
        if all(type(value) in _SCALARS for value in values):
            return values
        return [self.node(value, depth + 1) for value in values]

    def _pairs(self, pairs: Any, depth: int) -> list[Node]:
        return [[self.node(key, depth + 1), self.node(value, depth + 1)] for key, value in pairs]

    def _content(self, tag: str, value: Any, depth: int) -> list[Node]:
        if tag in ("list", "deque"):
            return [self._items(_iterate(list if tag == "list" else collections.deque, value), depth)]
        if tag == "set":
            return [self._items(_iterate(set, value), depth)]
        if tag == "bytearray":
            return [bytes(value).hex()]
        if tag == "array":
            return self._array(value, depth)
        if tag == "tensor":
            return self._tensor(value)
        if tag == "shared":
            return [self._pairs(vars(value).items(), depth), self.side.shared_name(value)]
        made = [_factory(value)] if tag == "defaultdict" else []
        pairs = value.items() if type(value) in _KINDS else dict.items(value)
        return [self._pairs(pairs, depth), *made]

    def _array(self, value: Any, depth: int) -> list[Node]:
        plain = sys.modules["numpy"].asarray(value)
        if plain.dtype.kind == "O":
            return ["O", list(plain.shape), self._items(plain.ravel().tolist(), depth)]
        if plain.dtype.kind not in _ARRAY_KINDS:
            raise CodecError(f"an array of dtype {plain.dtype} cannot leave its notebook")
        return [plain.dtype.str, list(plain.shape), self.blob(plain.tobytes())]

    def _tensor(self, value: Any) -> list[Node]:
        torch = sys.modules["torch"]
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        name = str(plain.dtype).removeprefix("torch.")
        if plain.layout != torch.strided or name not in _TENSORS:
            raise CodecError(f"a tensor of dtype {plain.dtype} and layout {plain.layout} cannot leave its notebook")
        data = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return [name, list(plain.shape), self.blob(data), bool(value.requires_grad)]

    def _fixed(self, value: Any, depth: int) -> Node:
        kind = type(value)
        if _is(value, int | float | str) and not _is_enum(value):
            base = next(base for base in (bool, int, float, str) if _is(value, base))
            if kind.__module__ != "numpy":
                return self.node(base(value) if base is not str else str.__str__(value), depth)
        if _is(value, tuple):
            return self._tuple(value, depth)
        if _is(value, frozenset):
            return ["frozenset", self._items(_iterate(frozenset, value), depth)]
        if _is(value, bytes) and kind.__module__ != "numpy":
            return ["bytes", bytes(value).hex()]
        if _is(value, complex) and kind.__module__ != "numpy":
            return ["complex", value.real, value.imag]
        if kind is range or kind is slice:
            parts = [value.start, value.stop, value.step]
            return [kind.__name__, *(self.node(part, depth + 1) for part in parts)]
        if kind.__name__ in _VIEWS and kind.__module__ == "builtins":
            return [kind.__name__, self._items(value, depth)]
        if value is Ellipsis or value is NotImplemented:
            return ["constant", repr(value)]
        if _is(value, type) and (name := str(getattr(value, "__name__", ""))) and _TYPES.get(name) is value:
            return ["type", name]
        return _simple(value) or self._numpy_scalar(value) or self.side.refer(value, self)

    def _tuple(self, value: Any, depth: int) -> Node:
        names = getattr(type(value), "_fields", None)
        items = self._items(_iterate(tuple, value), depth)
        if type(value) is not tuple and isinstance(names, tuple) and all(type(n) is str for n in names):
            return ["named", type(value).__name__, list(names), items]
        return ["tuple", items]

    def _numpy_scalar(self, value: Any) -> Node | None:
        numpy = sys.modules.get("numpy")
        if numpy is None or not _is(value, numpy.generic) or value.dtype.kind not in _ARRAY_KINDS:
            return None
        return ["scalar", value.dtype.str, value.tobytes().hex()]


class Decoder:
    """Builds values from the nodes of an untrusted process; only the known kinds exist, so no code can run.

    ``known``: as for the encoder. Everything raises :class:`CodecError` for what is no node.
    """

    def __init__(self, blobs: Sequence[bytes], side: Side, known: Sequence[Any] = ()) -> None:
        self.blobs, self.side = blobs, side
        self.objects: list[Any] = list(known)

    def value(self, node: Node, depth: int = 0) -> Any:
        kind = type(node)
        if kind in _SCALARS or kind is int:
            return node
        if kind is not list or not node or type(node[0]) is not str or depth > MAX_DEPTH:
            raise CodecError("what arrived is no encoded value")
        try:
            return self._listed(node[0], node, depth)
        except CodecError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, OverflowError, RecursionError) as error:
            raise CodecError(f"what arrived is no encoded value ({type(error).__name__}: {error})") from None

    def _listed(self, tag: str, node: list[Any], depth: int) -> Any:
        if tag == "@":
            return self.objects[_natural(node[1])]
        if tag in _EMPTY:
            return self._numbered(tag, node, depth)
        if tag == "tuple":
            return tuple(self._items(node[1], depth))
        if tag == "frozenset":
            return frozenset(self._items(node[1], depth))
        if tag in ("range", "slice"):
            return (range if tag == "range" else slice)(*(self.value(part, depth + 1) for part in node[1:4]))
        if tag in _VIEWS:
            return self._view(tag, node, depth)
        if tag == "named":
            return _named(node[1], node[2], self._items(node[3], depth))
        build = _BUILD.get(tag)
        return self.side.build(node, self, depth) if build is None else build(*node[1:])

    def _numbered(self, tag: str, node: list[Any], depth: int) -> Any:
        if _natural(node[1]) != len(self.objects):
            raise CodecError("what arrived numbers its parts wrongly")
        if tag in ("array", "tensor"):
            made = (self._array if tag == "array" else self._tensor)(node[2:], depth)
            self.objects.append(made)
            return made
        made = self._blank(node[3]) if tag == "shared" else _EMPTY[tag]()
        self.objects.append(made)
        self.fill(made, [tag, *node[2:]], depth)
        return made

    def fill(self, target: Any, content: Node, depth: int = 0) -> None:
        """Put content that :meth:`Encoder.content` wrote into an object of the same kind."""
        tag = _mutable(target) or "shared"
        if not isinstance(content, list) or content[:1] != [tag]:
            raise CodecError(f"what arrived does not fit a {type(target).__name__}")
        if tag in ("list", "deque", "set"):
            items = self._items(content[1], depth)
            target.clear()
            (target.update if tag == "set" else target.extend)(items)
        elif tag == "shared":
            self._set_attributes(target, content, depth)
        elif tag == "bytearray":
            target[:] = bytes.fromhex(content[1])
        elif tag in ("array", "tensor"):
            self._refill(tag, target, content[1:], depth)
        else:
            pairs = self._pairs(content[1], depth)
            if tag == "defaultdict":
                target.default_factory = None if content[2] is None else _TYPES[content[2]]
            target.clear()
            for key, value in pairs:
                target[key] = value

    def _blank(self, name: Any) -> Any:
        kind = self.side.shared_class(name) if type(name) is str else None
        if kind is None:
            raise CodecError("what arrived is an object of a class that is not shared")
        return object.__new__(kind)

    def _set_attributes(self, target: Any, content: list[Any], depth: int) -> None:
        found = dict(self._pairs(content[1], depth))
        if self.side.shared_name(target) != content[2] or not all(type(key) is str for key in found):
            raise CodecError("what arrived does not fit the object that it is for")
        vars(target).clear()
        vars(target).update(found)

    def _items(self, nodes: Any, depth: int) -> list[Any]:
        if type(nodes) is not list:
            raise CodecError("what arrived is no encoded value")
        return [self.value(node, depth + 1) for node in nodes]

    def _pairs(self, nodes: Any, depth: int) -> list[tuple[Any, Any]]:
        return [(self.value(key, depth + 1), self.value(value, depth + 1)) for key, value in nodes]

    def _view(self, tag: str, node: list[Any], depth: int) -> Any:
        items = self._items(node[1], depth)
        if tag == "dict_keys":
            return dict.fromkeys(items).keys()
        return dict(enumerate(items)).values() if tag == "dict_values" else dict(items).items()

    def _array(self, content: list[Any], depth: int) -> Any:
        import numpy

        kind, shape, data = content
        shape = tuple(_natural(size) for size in shape)
        if kind == "O":
            items = self._items(data, depth)
            made = numpy.empty(math.prod(shape), dtype=object)
            for place, item in enumerate(items):
                made[place] = item
            return made.reshape(shape)
        return numpy.frombuffer(bytearray(self.blobs[_natural(data)]), _dtype(kind)).reshape(shape)

    def _tensor(self, content: list[Any], depth: int) -> Any:
        import torch

        name, shape, data, grad = content
        if name not in _TENSORS:
            raise CodecError("what arrived is a tensor of no known dtype")
        kind, raw = getattr(torch, name), bytearray(self.blobs[_natural(data)])
        made = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
        return made.reshape([_natural(size) for size in shape]).requires_grad_(grad is True)

    def _refill(self, tag: str, target: Any, content: list[Any], depth: int) -> None:
        new = (self._array if tag == "array" else self._tensor)(content, depth)
        if tuple(new.shape) != tuple(target.shape) or new.dtype != target.dtype:
            raise CodecError("an array changed its shape or type in place, which cannot be carried back")
        if tag == "array":
            target[...] = new
        else:
            target.detach().copy_(new.detach())


def pack(message: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Bytes of a message whose nodes refer to ``blobs``. Raises :class:`CodecError` beyond 48 MiB."""
    try:
        tree = json.dumps({**message, "b": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise CodecError(f"a value cannot be written ({error})") from None
    if len(tree) > MAX_BYTES:
        raise CodecError(f"a value of more than {MAX_BYTES // 2**20} MiB")
    return b"".join([len(tree).to_bytes(4, "big"), tree, *blobs])


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The message and its blobs. Raises :class:`CodecError` for what :func:`pack` did not write."""
    try:
        start = 4 + int.from_bytes(data[:4], "big")
        message = json.loads(data[4:start])
        sizes = [_natural(size) for size in message.pop("b")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CodecError) as error:
        raise CodecError(f"what arrived is no message ({type(error).__name__})") from None
    if start + sum(sizes) != len(data):
        raise CodecError("what arrived is no message (its sizes are wrong)")
    blobs = []
    for size in sizes:
        blobs.append(data[start : start + size])
        start += size
    return message, blobs


def _mutable(value: Any) -> str:
    """The kind of a value that can change in place; "" for others."""
    kind = type(value)
    if kind.__name__ in _EMPTY and kind in _KINDS:
        return kind.__name__
    for base in (list, dict, set, bytearray, collections.deque):
        if _is(value, base):
            return base.__name__
    for module, cls, tag in (("numpy", "ndarray", "array"), ("torch", "Tensor", "tensor")):
        if module in sys.modules and _is(value, getattr(sys.modules[module], cls, ())):
            return tag
    return ""


_KINDS = (
    list, dict, set, bytearray, collections.deque, collections.Counter, collections.OrderedDict,
    collections.defaultdict,
)  # fmt: skip
_EMPTY: dict[str, Any] = {kind.__name__: kind for kind in _KINDS} | dict.fromkeys(("array", "tensor", "shared"))


def _is(value: Any, kinds: Any) -> bool:
    """What a value is, not what it says it is."""
    return issubclass(type(value), kinds)


def _iterate(base: Any, value: Any) -> Any:
    """The items of a container, not what a subclass says they are."""
    return base.__iter__(value)


def _is_enum(value: Any) -> bool:
    return "enum" in sys.modules and isinstance(value, sys.modules["enum"].Enum)


def _factory(value: Any) -> str | None:
    name = str(getattr(value.default_factory, "__name__", ""))
    return name if _TYPES.get(name) is value.default_factory and name else None


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise CodecError("what arrived holds a size that is no number")
    return value


def _dtype(text: Any) -> Any:
    import numpy

    kind = numpy.dtype(text) if type(text) is str else None
    if kind is None or kind.kind not in _ARRAY_KINDS:
        raise CodecError("what arrived is an array of no known dtype")
    return kind


def _scalar(kind: Any, data: str) -> Any:
    import numpy

    return numpy.frombuffer(bytes.fromhex(data), _dtype(kind), 1)[0]


def _named(name: Any, fields: Any, items: list[Any]) -> Any:
    if type(name) is not str or len(fields) != len(items) or len(fields) > 100:
        raise CodecError("what arrived is no named tuple")
    return collections.namedtuple(name, [str(field) for field in fields])(*items)


def _simple(value: Any) -> Node | None:
    """Values of the standard library that one text tells completely."""
    if _is(value, (fractions.Fraction, decimal.Decimal)):
        kind = fractions.Fraction if _is(value, fractions.Fraction) else decimal.Decimal
        return [kind.__name__, kind.__str__(value)]
    if type(value) in (datetime.datetime, datetime.date, datetime.time):
        plain = getattr(value, "tzinfo", None) is None
        return [type(value).__name__, value.isoformat()] if plain else None
    if type(value) is datetime.timedelta:
        return ["timedelta", value.days, value.seconds, value.microseconds]
    return ["path", str(value)] if _is(value, pathlib.PurePath) else None


def _constant(text: str) -> Any:
    return {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[text]


_BUILD: dict[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "constant": _constant,
    "type": _TYPES.__getitem__,
    "scalar": _scalar,
    "Fraction": fractions.Fraction,
    "Decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": datetime.timedelta,
    "path": lambda text: pathlib.Path(str(text)),
}
