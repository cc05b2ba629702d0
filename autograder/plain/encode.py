"""From values to nodes; see :mod:`autograder.plain.codec`."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from autograder.plain.kinds import (
    ARRAY_KINDS,
    KINDS,
    LONG,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    SCALARS,
    TENSORS,
    TYPES,
    VIEWS,
    Node,
    Side,
    is_a,
    mutable_kind,
)  # fmt: skip
from fourbit.errors import CodecError


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
        if kind in SCALARS:
            return value
        if kind is int:
            return value if value.bit_length() < LONG else ["int", hex(value)]
        self._count(depth)
        if id(value) in self._numbers:
            return ["@", self._numbers[id(value)]]
        tag = mutable_kind(value) or self._shared(value)
        if not tag:
            return self._fixed(value, depth)
        number = self._numbers[id(value)] = len(self.objects)
        self.objects.append(value)
        return [tag, number, *self._content(tag, value, depth)]

    def content(self, value: Any) -> Node:
        """What a numbered object holds now: its kind and content, without its number."""
        tag = mutable_kind(value) or "shared"
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
        if all(type(value) in SCALARS or (type(value) is int and value.bit_length() < LONG) for value in values):
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
        pairs = value.items() if type(value) in KINDS else dict.items(value)
        return [self._pairs(pairs, depth), *made]

    def _array(self, value: Any, depth: int) -> list[Node]:
        plain = sys.modules["numpy"].asarray(value)
        if plain.dtype.kind == "O":
            return ["O", list(plain.shape), self._items(plain.ravel().tolist(), depth)]
        if plain.dtype.kind not in ARRAY_KINDS:
            raise CodecError(f"an array of dtype {plain.dtype} cannot leave its notebook")
        return [plain.dtype.str, list(plain.shape), self.blob(plain.tobytes())]

    def _tensor(self, value: Any) -> list[Node]:
        torch = sys.modules["torch"]
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        name = str(plain.dtype).removeprefix("torch.")
        if plain.layout != torch.strided or name not in TENSORS:
            raise CodecError(f"a tensor of dtype {plain.dtype} and layout {plain.layout} cannot leave its notebook")
        data = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return [name, list(plain.shape), self.blob(data), bool(value.requires_grad)]

    def _fixed(self, value: Any, depth: int) -> Node:
        kind = type(value)
        if is_a(value, int | float | str) and not _is_enum(value):
            base = next(base for base in (bool, int, float, str) if is_a(value, base))
            if kind.__module__ != "numpy":
                return self.node(base(value) if base is not str else str.__str__(value), depth)
        if is_a(value, tuple):
            return self._tuple(value, depth)
        if is_a(value, frozenset):
            return ["frozenset", self._items(_iterate(frozenset, value), depth)]
        if is_a(value, bytes) and kind.__module__ != "numpy":
            return ["bytes", bytes(value).hex()]
        if is_a(value, complex) and kind.__module__ != "numpy":
            return ["complex", value.real, value.imag]
        if kind is range or kind is slice:
            parts = [value.start, value.stop, value.step]
            return [kind.__name__, *(self.node(part, depth + 1) for part in parts)]
        if kind.__name__ in VIEWS and kind.__module__ == "builtins":
            return [kind.__name__, self._items(value, depth)]
        if value is Ellipsis or value is NotImplemented:
            return ["constant", repr(value)]
        if is_a(value, type) and (name := str(getattr(value, "__name__", ""))) and TYPES.get(name) is value:
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
        if numpy is None or not is_a(value, numpy.generic) or value.dtype.kind not in ARRAY_KINDS:
            return None
        return ["scalar", value.dtype.str, value.tobytes().hex()]


def _iterate(base: Any, value: Any) -> Any:
    """The items of a container, not what a subclass says they are."""
    return base.__iter__(value)


def _is_enum(value: Any) -> bool:
    return "enum" in sys.modules and isinstance(value, sys.modules["enum"].Enum)


def _factory(value: Any) -> str | None:
    name = str(getattr(value.default_factory, "__name__", ""))
    return name if TYPES.get(name) is value.default_factory and name else None


def _simple(value: Any) -> Node | None:
    """Values of the standard library that one text tells completely."""
    if is_a(value, (fractions.Fraction, decimal.Decimal)):
        kind = fractions.Fraction if is_a(value, fractions.Fraction) else decimal.Decimal
        return [kind.__name__, kind.__str__(value)]
    if type(value) in (datetime.datetime, datetime.date, datetime.time):
        plain = getattr(value, "tzinfo", None) is None
        return [type(value).__name__, value.isoformat()] if plain else None
    if type(value) is datetime.timedelta:
        return ["timedelta", value.days, value.seconds, value.microseconds]
    return ["path", str(value)] if is_a(value, pathlib.PurePath) else None
