"""The codec carries every kind of value unchanged and refuses everything else."""

import contextlib
import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fourbit.codec import Ref, decode, encode
from fourbit.errors import CodecError
from fourbit.exam.compare import coincide

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
scalars = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=20)
keys = st.integers() | st.text(max_size=8) | st.tuples(st.integers(), st.text(max_size=3))


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    values = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=torch.Generator().manual_seed(0))
    return values.to(dtype)


def nested(children):
    return st.lists(children, max_size=4) | st.tuples(children, children) | st.dictionaries(keys, children, max_size=3)


@given(st.recursive(scalars | tensors(), nested, max_leaves=12))
def test_round_trip_keeps_kind_and_content(value):
    back = decode(encode(value))
    assert type(back) is type(value)
    assert coincide(back, value, rtol=0, atol=0)


def test_strided_views_and_shared_tensors():
    base = torch.arange(24.0).reshape(4, 6)
    value = {"transposed": base.T, "sliced": base[1:, ::2], "same": (base, base)}
    back = decode(encode(value))
    assert torch.equal(back["transposed"], base.T)
    assert torch.equal(back["sliced"], base[1:, ::2])
    assert back["same"][0] is back["same"][1]


def test_numpy_arrays_and_scalars():
    back = decode(encode([np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1], np.float64(0.5), np.int64(3)]))
    assert np.array_equal(back[0], [[2, 1, 0], [5, 4, 3]])
    assert back[0].dtype == np.int32
    assert (type(back[1]), type(back[2])) == (float, int)


def test_a_model_runs_the_same_after_the_trip():
    torch.manual_seed(0)
    layers = OrderedDict(conv0=nn.Conv2d(1, 4, 3, stride=2, padding=1), bn0=nn.BatchNorm2d(4), relu0=nn.ReLU())
    chain = nn.Sequential(layers)
    chain.add_module("tail", nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3, bias=False)))
    x = torch.randn(5, 1, 12, 12)
    chain(x)
    chain.eval()
    chain[0].weight.requires_grad_(False)
    back = decode(encode(chain))
    assert torch.equal(back(x), chain(x))
    assert [name for name, _ in back.named_modules()] == [name for name, _ in chain.named_modules()]
    assert not back[0].weight.requires_grad
    assert not back.training


def test_tied_weights_stay_tied():
    chain = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    chain[1].weight = chain[0].weight
    back = decode(encode(chain))
    assert back[0].weight is back[1].weight


def test_ref_travels_as_its_name():
    assert decode(encode((Ref("images", {"count": 3}),))) == (Ref("images", {"count": 3}),)


class Lying(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


def test_subclasses_arrive_as_the_plain_value():
    class Named(torch.Tensor):
        pass

    back = decode(encode([Lying(0.25), torch.ones(2).as_subclass(Named)]))
    assert type(back[0]) is float
    assert back[0] != 1.0
    assert type(back[1]) is torch.Tensor


@pytest.mark.parametrize(
    "value",
    [object(), lambda: 0, {1, 2}, b"bytes", 1j, torch.ones(2, dtype=torch.complex64), torch.ones(2).to_sparse()]
    + [torch.ones(2, device="meta"), nn.Linear(2, 2), nn.Sequential(nn.Bilinear(2, 2, 2)), 2**300, np.array(["a"])],
    ids=lambda v: type(v).__name__,
)
def test_other_kinds_are_refused(value):
    with pytest.raises(CodecError):
        encode(value)


def test_an_overridden_layer_is_refused():
    class Conv2d(nn.Conv2d):
        pass

    with pytest.raises(CodecError, match="Conv2d"):
        encode(nn.Sequential(Conv2d(1, 1, 1)))


def test_bounds():
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(CodecError, match="nested"):
        encode(deep)
    with pytest.raises(CodecError, match="limit"):
        encode(torch.zeros(65 * 2**20, dtype=torch.uint8))
    with pytest.raises(CodecError, match="limit"):
        decode(encode(torch.zeros(1000)), max_bytes=100)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(CodecError):
        decode(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_never_does_more_than_change_the_value(position, byte):
    data = bytearray(encode({"w": torch.arange(5.0), "n": [1, (2.5, "x")]}))
    data[position % len(data)] = byte
    with contextlib.suppress(CodecError):
        decode(bytes(data))


def test_a_pickle_is_not_decoded():
    with pytest.raises(CodecError):
        decode(pickle.dumps({"a": 1}))


def test_layer_options_must_fit_their_tensors():
    data = encode(nn.Sequential(nn.Linear(3, 2)))
    forged = data.replace(b'\\"in_features\\":3', b'\\"in_features\\":9')
    assert forged != data
    with pytest.raises(CodecError, match="fit"):
        decode(forged)


def test_nan_and_infinity_survive():
    back = decode(encode([math.nan, math.inf, -0.0]))
    assert math.isnan(back[0])
    assert back[1] == math.inf
    assert math.copysign(1, back[2]) == -1
