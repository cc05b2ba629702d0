"""The codec between test cells and submissions: what crosses comes back as it was, and no bytes run code."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import json
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.plain.codec import DataOnly, Decoder, Encoder, pack, unpack
from fourbit.errors import CodecError


def cross(value: Any) -> Any:
    encoder = Encoder(DataOnly())
    node = encoder.node(value)
    message, blobs = unpack(pack({"v": node}, encoder.blobs))
    return Decoder(blobs, DataOnly()).value(message["v"])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return type(other) is float and math.isnan(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one.items(), other.items(), strict=True))
    return bool(one == other)


hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates()
    | st.fractions() | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.timedeltas(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=8,
)  # fmt: skip
values = st.recursive(
    hashable | st.floats() | st.sets(hashable, max_size=3) | st.binary().map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hashable, inner, max_size=4) | st.tuples(inner),
    max_leaves=20,
)


@given(values)
@settings(max_examples=200, deadline=None)
def test_what_crosses_comes_back(value: Any) -> None:
    assert same(cross(value), value)


def test_kinds_of_libraries_cross_too() -> None:
    point = collections.namedtuple("point", "x y")
    for value in (
        collections.Counter("aab"), collections.OrderedDict(b=1, a=2), collections.deque([1, [2]]), range(1, 9, 2),
        slice(None, 3), {"a": 1}.keys(), {"a": 1}.items(), np.float32(0.1), np.datetime64("2024-01-01"), np.str_("x"),
        np.int64(3), datetime.datetime(2024, 1, 2, 3), decimal.Decimal("0.10"), fractions.Fraction(1, 3), 10**5000, int,
        Ellipsis,
    ):  # fmt: skip
        back = cross(value)
        assert type(back) is type(value)
        assert back == value
    assert cross(point(1, 2)) == (1, 2)
    assert cross(point(1, 2)).y == 2
    grown = cross(collections.defaultdict(list, a=[1]))
    assert grown["new"] == []
    assert list(cross({1: "a"}.values())) == ["a"]


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f4", "c16", "U3", "S2", "M8[s]", "O"])
def test_arrays_keep_type_shape_and_bytes(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    back = cross(array[:, ::-1])
    assert back.dtype == array.dtype
    assert (back == array[:, ::-1]).all()
    back[0, 0] = back[1, 1]  # its own memory


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float64])
def test_tensors_keep_type_and_shape(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(3, 2).t().to(dtype)
    assert cross(tensor).dtype == dtype
    assert torch.equal(cross(tensor), tensor)
    assert cross(torch.zeros(0, 2)).shape == (0, 2)
    assert cross(torch.ones(1, requires_grad=True)).requires_grad


def test_subclasses_cross_as_their_base() -> None:
    class Text(str):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = str.__hash__
        __str__ = lambda self: "other"  # noqa: E731

    class Items(list):  # type: ignore[type-arg]
        __iter__ = lambda self: iter([9])  # noqa: E731

    class Array(np.ndarray):
        __array_function__ = lambda *rest: True  # noqa: E731

    class Tensor(torch.Tensor):
        pass

    assert type(cross(Text("a"))) is str
    assert cross(Text("a")) == "a"
    assert cross(Items([1])) == [1]
    assert type(cross(np.zeros(2).view(Array))) is np.ndarray
    assert type(cross(torch.zeros(2).as_subclass(Tensor))) is torch.Tensor


def test_shared_and_cyclic_containers_keep_their_shape() -> None:
    row: list[Any] = [1]
    row.append(row)
    grid = [row, row, {"row": row}]
    back = cross(grid)
    assert back[0] is back[1] is back[2]["row"]
    assert back[0][1] is back[0]


def test_content_can_be_put_back_into_the_callers_object() -> None:
    mine = [[1, 2], {3}, np.zeros(2)]
    theirs = cross(mine)
    theirs[0].append("new")
    theirs[1].clear()
    theirs[2][:] = 7
    known = [theirs, *theirs]
    encoder = Encoder(DataOnly(), known)
    contents = [encoder.content(item) for item in known]
    message, blobs = unpack(pack({"c": contents}, encoder.blobs))
    first = mine[0]
    decoder = Decoder(blobs, DataOnly(), [mine, *mine])
    for target, content in zip([mine, *mine], message["c"], strict=True):
        decoder.fill(target, content)
    assert mine[0] is first
    assert first == [1, 2, "new"]
    assert (mine[1], mine[2].tolist()) == (set(), [7, 7])


def test_what_has_no_kind_or_no_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    for value in (object(), print, sys, deep, [0] * 10**6, np.zeros(7 * 2**20), np.zeros(2, dtype="i4,f4")):
        with pytest.raises(CodecError):
            cross(value)


tokens = st.sampled_from(
    ["list", "dict", "array", "tensor", "shared", "scalar", "named", "@", "type", "int", "class", "f8"]
)
nodes = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | tokens | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5), max_leaves=12,
)  # fmt: skip


@given(nodes, st.lists(st.binary(max_size=40), max_size=2))
@settings(max_examples=400, deadline=None)
def test_any_tree_is_a_value_or_a_codec_error(tree: Any, blobs: list[bytes]) -> None:
    message, parts = unpack(pack({"v": tree}, blobs))
    with contextlib.suppress(CodecError):
        Decoder(parts, DataOnly()).value(message["v"])


@given(st.binary(max_size=60) | st.tuples(st.integers(0, 80), st.binary(min_size=1, max_size=4)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_message_or_a_codec_error(change: Any) -> None:
    data = pack({"v": ["list", 0, [1, ["array", 1, "<f8", [1], 0]]]}, [b"12345678"])
    changed = data[: change[0]] + change[1] + data[change[0] + 1 :] if isinstance(change, tuple) else change
    with contextlib.suppress(CodecError):
        message, blobs = unpack(changed)
        Decoder(blobs, DataOnly()).value(message.get("v"))


def test_no_name_in_a_message_is_looked_up() -> None:
    """Trees that would run something if kinds, dtypes, types or classes were found by name."""
    for node in (
        ["type", "eval"], ["ref", "os", "system"], ["callback", 0, "f"], ["shared", 0, [], "os:PathLike"],
        ["array", 0, "O8", [1], 0], ["scalar", "O", "00"], ["named", "x; import os", ["a"], [1]],
        ["named", "x", ["__class__"], [1]], ["object", 1, ["class", 0, "A", []]], ["tensor", 0, "load", [1], 0, False],
    ):  # fmt: skip
        with pytest.raises(CodecError):
            Decoder([b"12345678"], DataOnly()).value(json.loads(json.dumps(node)))
