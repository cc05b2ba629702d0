"""A closed codec for what crosses between a plain test cell and a submission: a JSON tree and raw bytes, no pickle.

    4 bytes length of the tree, the tree, the raw bytes of arrays one after the other; {"v": node, "b": [sizes], ...}

None, bool, float, str and moderate int are themselves; everything else is a list that begins with its kind. What
can change in place (list, dict, set, bytearray, array, tensor, an object of a shared class) carries a number: it is
built once, a second mention is ["@", number], and its later content can be put back into the caller's object.
Subclasses cross as their base. What is none of the known kinds is left to the :class:`Side` that speaks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autograder.plain.decode import Decoder
from autograder.plain.encode import Encoder
from autograder.plain.kinds import MAX_BYTES, DataOnly, Node, Side, natural
from fourbit.errors import CodecError

__all__ = ["DataOnly", "Decoder", "Encoder", "Node", "Side", "pack", "unpack"]


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
        sizes = [natural(size) for size in message.pop("b")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CodecError) as error:
        raise CodecError(f"what arrived is no message ({type(error).__name__})") from None
    if start + sum(sizes) != len(data):
        raise CodecError("what arrived is no message (its sizes are wrong)")
    blobs = []
    for size in sizes:
        blobs.append(data[start : start + size])
        start += size
    return message, blobs
