"""From nodes of an untrusted process to values; see :mod:`autograder.plain.codec`."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from autograder.plain.kinds import (
    ARRAY_KINDS,
    EMPTY,
    MAX_DEPTH,
    SCALARS,
    TENSORS,
    TYPES,
    VIEWS,
    Node,
    Side,
    mutable_kind,
    natural,
)  # fmt: skip
from fourbit.errors import CodecError


class Decoder:
    """Builds values from the nodes of an untrusted process; only the known kinds exist, so no code can run.

    ``known``: as for the encoder. Everything raises :class:`CodecError` for what is no node.
    """

    def __init__(self, blobs: Sequence[bytes], side: Side, known: Sequence[Any] = ()) -> None:
        self.blobs, self.side = blobs, side
        self.objects: list[Any] = list(known)

    def value(self, node: Node, depth: int = 0) -> Any:
        kind = type(node)
        if kind in SCALARS or kind is int:
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
            return self.objects[natural(node[1])]
        if tag in EMPTY:
            return self._numbered(tag, node, depth)
        if tag == "tuple":
            return tuple(self._items(node[1], depth))
        if tag == "frozenset":
            return frozenset(self._items(node[1], depth))
        if tag in ("range", "slice"):
            return (range if tag == "range" else slice)(*(self.value(part, depth + 1) for part in node[1:4]))
        if tag in VIEWS:
            return self._view(tag, node, depth)
        if tag == "named":
            return _named(node[1], node[2], self._items(node[3], depth))
        build = _BUILD.get(tag)
        return self.side.build(node, self, depth) if build is None else build(*node[1:])

    def _numbered(self, tag: str, node: list[Any], depth: int) -> Any:
        if natural(node[1]) != len(self.objects):
            raise CodecError("what arrived numbers its parts wrongly")
        if tag in ("array", "tensor"):
            made = (self._array if tag == "array" else self._tensor)(node[2:], depth)
            self.objects.append(made)
            return made
        made = self._blank(node[3]) if tag == "shared" else EMPTY[tag]()
        self.objects.append(made)
        self.fill(made, [tag, *node[2:]], depth)
        return made

    def fill(self, target: Any, content: Node, depth: int = 0) -> None:
        """Put content that :meth:`Encoder.content` wrote into an object of the same kind."""
        tag = mutable_kind(target) or "shared"
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
                target.default_factory = None if content[2] is None else TYPES[content[2]]
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
        if all(type(node) in SCALARS or type(node) is int for node in nodes):
            return list(nodes)
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
        shape = tuple(natural(size) for size in shape)
        if kind == "O":
            items = self._items(data, depth)
            made = numpy.empty(math.prod(shape), dtype=object)
            for place, item in enumerate(items):
                made[place] = item
            return made.reshape(shape)
        return numpy.frombuffer(bytearray(self.blobs[natural(data)]), _dtype(kind)).reshape(shape)

    def _tensor(self, content: list[Any], depth: int) -> Any:
        import torch

        name, shape, data, grad = content
        if name not in TENSORS:
            raise CodecError("what arrived is a tensor of no known dtype")
        kind, raw = getattr(torch, name), bytearray(self.blobs[natural(data)])
        made = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
        return made.reshape([natural(size) for size in shape]).requires_grad_(grad is True)

    def _refill(self, tag: str, target: Any, content: list[Any], depth: int) -> None:
        new = (self._array if tag == "array" else self._tensor)(content, depth)
        if tuple(new.shape) != tuple(target.shape) or new.dtype != target.dtype:
            raise CodecError("an array changed its shape or type in place, which cannot be carried back")
        if tag == "array":
            target[...] = new
        else:
            target.detach().copy_(new.detach())


def _dtype(text: Any) -> Any:
    import numpy

    kind = numpy.dtype(text) if type(text) is str else None
    if kind is None or kind.kind not in ARRAY_KINDS:
        raise CodecError("what arrived is an array of no known dtype")
    return kind


def _scalar(kind: Any, data: str) -> Any:
    import numpy

    return numpy.frombuffer(bytes.fromhex(data), _dtype(kind), 1)[0]


def _named(name: Any, fields: Any, items: list[Any]) -> Any:
    if type(name) is not str or len(fields) != len(items) or len(fields) > 100:
        raise CodecError("what arrived is no named tuple")
    return collections.namedtuple(name, [str(field) for field in fields])(*items)


def _constant(text: str) -> Any:
    return {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[text]


_BUILD: dict[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "constant": _constant,
    "type": TYPES.__getitem__,
    "scalar": _scalar,
    "Fraction": fractions.Fraction,
    "Decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": datetime.timedelta,
    "path": lambda text: pathlib.Path(str(text)),
}
