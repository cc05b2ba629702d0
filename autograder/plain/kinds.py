"""The kinds of values that can cross, and what the two sides add to them."""

from __future__ import annotations

import collections
import enum
import sys
from typing import TYPE_CHECKING, Any, Protocol

from fourbit.errors import CodecError

if TYPE_CHECKING:
    from autograder.plain.decode import Decoder
    from autograder.plain.encode import Encoder

MAX_DEPTH = 150
MAX_NODES = 500_000
MAX_BYTES = 48 * 2**20
LONG = 10_000  # bits; JSON's decimal digits are slow and capped beyond

Node = Any
SCALARS = frozenset((type(None), bool, float, str))
TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object,
        type(None),
    )
}  # fmt: skip
VIEWS = {"dict_keys": dict.keys, "dict_values": dict.values, "dict_items": dict.items}
ARRAY_KINDS = "biufcmMSU"
TENSORS = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
     "complex128")
)  # fmt: skip
KINDS = (
    list, dict, set, bytearray, collections.deque, collections.Counter, collections.OrderedDict,
    collections.defaultdict,
)  # fmt: skip
EMPTY: dict[str, Any] = {kind.__name__: kind for kind in KINDS} | dict.fromkeys(("array", "tensor", "shared"))


class _Plain:
    pass


_PLAIN_SIZE = _Plain.__basicsize__  # with __slots__ or a base in C there is more


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


def mutable_kind(value: Any) -> str:
    """The kind of a value that can change in place; "" for others."""
    kind = type(value)
    if kind.__name__ in EMPTY and kind in KINDS:
        return kind.__name__
    for base in (list, dict, set, bytearray, collections.deque):
        if is_a(value, base):
            return base.__name__
    for module, cls, tag in (("numpy", "ndarray", "array"), ("torch", "Tensor", "tensor")):
        if module in sys.modules and is_a(value, getattr(sys.modules[module], cls, ())):
            return tag
    return ""


def is_a(value: Any, kinds: Any) -> bool:
    """What a value is, not what it says it is."""
    return issubclass(type(value), kinds)


def tells_all(value: Any) -> bool:
    """Whether the attributes of an object of an ordinary class are all there is to it."""
    kind = type(value)
    plain = not issubclass(kind, (BaseException, enum.Enum, type))
    return plain and kind.__basicsize__ <= _PLAIN_SIZE and isinstance(getattr(value, "__dict__", None), dict)


def natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise CodecError("what arrived holds a size that is no number")
    return value
