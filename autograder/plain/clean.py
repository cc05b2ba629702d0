"""In the process of the test cells: what the grader asks of it before and after a cell."""

from __future__ import annotations

from typing import Any

from autograder.engine.executor import Talk
from autograder.plain.codec import Encoder, pack, unpack
from autograder.plain.link import Link
from fourbit.errors import CodecError

_LINKS: dict[int, Link] = {}


def bind(namespace: dict[str, Any], talk: Talk, payload: bytes) -> bytes:
    """Give the names of a test cell their meaning. A handler of :meth:`autograder.engine.Runner.ask`."""
    message, parts = unpack(payload)
    link = _LINKS.setdefault(id(namespace), Link(namespace))
    link.talk, talk.answer = talk, link.answer
    link.shared, link.watched = frozenset(message["shared"]), tuple(message["watched"])
    link.permitted = None if message["permitted"] is None else frozenset(message["permitted"])
    link.used, link.refused = set(), []
    link.bind(message["names"], parts[0], message["imports"])
    return b""


def report(namespace: dict[str, Any], talk: Talk, payload: bytes) -> bytes:
    """Say which guarded questions were asked or refused, and what the cell left in names of the submission's."""
    link = _LINKS[id(namespace)]
    encoder = Encoder(link)
    try:
        news = link.news(encoder)
    except CodecError:
        news = {}
    news.pop("random", None)
    told = {"used": sorted(link.used), "refused": link.refused[:1]}
    return pack(told, [pack({"do": "call", "a": [["ref", "builtins", "id"], 0], "k": {}, **news}, encoder.blobs)])
