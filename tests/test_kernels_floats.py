"""Norms, rotations, gates, the KV cache and attention, on every instruction set and in numba, against float64."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.errors import KernelError
from fourbit.kernels import CACHE_KINDS, CacheLayer, cache_row_bytes
from tests.test_kernels import WAYS, way

UNIT = 2.0**-23  # the largest relative error of a product or sum of two floats is half of it


def layer_of(kind: str, kv_heads: int, capacity: int, width: int) -> CacheLayer:
    shape = kv_heads, capacity, cache_row_bytes(width, kind)
    return CacheLayer(kind, width, np.full(shape, 0xFF, np.uint8), np.full(shape, 0xFF, np.uint8))


def stored(layer: CacheLayer, rows: np.ndarray, length: int) -> np.ndarray:
    """The first `length` rows of a layer as numbers (kv_heads, length, width) float64."""
    rows = np.ascontiguousarray(rows[:, :length])
    if layer.kind in ("f32", "f16"):
        return rows.view(np.float32 if layer.kind == "f32" else np.float16).astype(np.float64)
    return gguf.dequantize(rows, Kind.Q8_0 if layer.kind == "q8" else Kind.Q4_0).astype(np.float64)


def attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int) -> np.ndarray:
    """q (T, heads, width), keys and values (kv_heads, length, width), float64 -> (T, heads * width)."""
    tokens, heads, width = q.shape
    shared, out = heads // len(keys), np.empty(q.shape)
    for t in range(tokens):
        for h in range(heads):
            end = start + t + 1
            scores = keys[h // shared, :end] @ q[t, h] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            out[t, h] = weights @ values[h // shared, :end] / weights.sum()
    return out.reshape(tokens, heads * width)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(CACHE_KINDS), kv_heads=st.integers(1, 3), shared=st.integers(1, 5), blocks=st.integers(1, 5),
    start=st.integers(0, 200), tokens=st.sampled_from([1, 1, 2, 3, 8, 21]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_attention_is_that_of_the_stored_numbers(
    name: str, kind: str, kv_heads: int, shared: int, blocks: int, start: int, tokens: int, seed: int
) -> None:
    width = 32 * blocks if kind[0] == "q" else 10 * blocks
    random = np.random.default_rng(seed)
    k, layer = way(name), layer_of(kind, kv_heads, start + tokens + 3, width)
    keys, values = random.standard_normal((2, start + tokens, kv_heads, width)).astype(np.float32)
    for first, last in ((0, start), (start, start + tokens)):
        k.store(layer, first, *(torch.from_numpy(np.ascontiguousarray(part[first:last])) for part in (keys, values)))
    q = random.standard_normal((tokens, kv_heads * shared, width)).astype(np.float32)
    out = torch.full((tokens, kv_heads * shared * width), torch.nan)
    k.attend(torch.from_numpy(q), layer, start, out)
    held = [stored(layer, rows, start + tokens) for rows in (layer.keys, layer.values)]
    exact = attention(q.astype(np.float64), *held, start)
    # A score is off by width roundings of its terms, a weight by as much relative to itself; sums add one per position.
    largest = max(np.abs(held[0]).max() * np.abs(q).max() * np.sqrt(width), 1)
    bound = UNIT * np.abs(held[1]).max() * (2 * width * largest + start + tokens + 20)
    assert np.abs(out.numpy() - exact).max() <= bound


@pytest.mark.parametrize("name", WAYS)
def test_attention_does_not_depend_on_threads_or_on_what_lies_behind(name: str) -> None:
    for tokens in (1, 20):
        seen = []
        for threads, behind in ((1, 0.0), (2, torch.nan), (5, 7.0)):
            random = torch.Generator().manual_seed(0)
            layer, k = layer_of("f16", 3, 100, 64), way(name, threads)
            k.store(layer, 0, torch.full((100, 3, 64), behind), torch.full((100, 3, 64), behind))
            keys, values = torch.randn(2, 70 + tokens, 3, 64, generator=random)
            k.store(layer, 0, keys, values)
            out = torch.empty(tokens, 9 * 64)
            k.attend(torch.randn(tokens, 9, 64, generator=random), layer, 70, out)
            seen.append(out)
        assert torch.equal(seen[0], seen[1])
        assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", CACHE_KINDS)
@pytest.mark.parametrize("heads", [2, 6, 22])
def test_a_few_queries_have_the_results_that_each_has_alone(name: str, kind: str, heads: int) -> None:
    random, k, layer = torch.Generator().manual_seed(3), way(name), layer_of(kind, 2, 140, 64)
    k.store(layer, 0, *torch.randn(2, 140, 2, 64, generator=random))
    tokens = min(k.few, 5)
    q, together = torch.randn(tokens, heads, 64, generator=random), torch.empty(tokens, heads * 64)
    k.attend(q, layer, 120, together)
    for i in range(tokens):
        alone = torch.empty(1, heads * 64)
        k.attend(q[i : i + 1], layer, 120 + i, alone)
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_scores_far_from_zero_do_not_overflow(name: str, shift: float) -> None:
    for tokens in (1, 20):
        layer = layer_of("f32", 1, tokens, 64)
        keys = torch.ones(tokens, 1, 64) * shift
        values = torch.arange(tokens).float()[:, None, None].expand(-1, -1, 64).contiguous()
        way(name).store(layer, 0, keys, values)
        out = torch.empty(tokens, 64)
        way(name).attend(torch.ones(tokens, 1, 64), layer, 0, out)
        assert torch.allclose(out[:, 0], torch.arange(tokens) / 2, rtol=1e-5)  # equal scores: the mean of 0 ... t


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", ["q8", "q4"])
def test_blocks_are_those_of_gguf(name: str, kind: str) -> None:
    layer = layer_of(kind, 2, 8, 64)
    new = torch.randn(2, 5, 2, 64, generator=torch.Generator().manual_seed(1))
    way(name).store(layer, 3, *new)
    for rows, numbers in zip((layer.keys, layer.values), new.numpy(), strict=True):
        by_head = np.ascontiguousarray(numbers.swapaxes(0, 1))
        wanted = gguf.quants.quantize(by_head, Kind.Q8_0 if kind == "q8" else Kind.Q4_0)
        assert np.array_equal(rows[:, 3:8], wanted)
        assert (rows[:, :3] == 0xFF).all()


@pytest.mark.parametrize("name", WAYS)
def test_halves_round_as_numpy_rounds_them(name: str) -> None:
    small = [2**-14, 2**-24, 2**-25, 2**-25 * 1.001, 1 + 2**-11, 1 + 3 * 2**-11]
    numbers = np.array([0.0, -0.0, 65504, 65519.9, 65520, 1e9, -1e9, *small, np.inf, -np.inf, np.nan], np.float32)
    random = np.random.default_rng(2).integers(0, 2**32, 2**14, np.uint32).view(np.float32)
    numbers = np.concatenate([numbers, random])
    layer = layer_of("f16", 1, 1, len(numbers))
    tensor = torch.from_numpy(numbers)[None, None]
    way(name).store(layer, 0, tensor, tensor)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = numbers.astype(np.float16)
    found = layer.keys.reshape(-1).view(np.float16)
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.array_equal(found.view(np.uint16)[~np.isnan(wanted)], wanted.view(np.uint16)[~np.isnan(wanted)])


@pytest.mark.parametrize("name", WAYS)
@given(tokens=st.integers(1, 4), width=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_norm(name: str, tokens: int, width: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(tokens, width, generator=random), torch.randn(width, generator=random)
    out = torch.empty_like(x)
    way(name).rms_norm(x, weight, 1e-5, out)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    # The mean of n squares is off by n units at most, its root by half of that; four more products.
    assert ((out - exact).abs() <= UNIT * (width / 2 + 4) * exact.abs() + 1e-30).all()
    way(name).rms_norm(x, weight, 1e-5, x)
    assert torch.equal(x, out)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("neighbors", [True, False])
@pytest.mark.parametrize("width", [2, 10, 64, 128])
def test_rotation(name: str, neighbors: bool, width: int) -> None:
    random = torch.Generator().manual_seed(width)
    x, angles = torch.randn(3, 2, width, generator=random), torch.randn(3, width // 2, generator=random) * 3
    pairs = x.double().unflatten(-1, (-1, 2) if neighbors else (2, -1))
    left, right = pairs.unbind(-1) if neighbors else pairs.unbind(-2)
    cos, sin = angles.cos()[:, None].double(), angles.sin()[:, None].double()
    turned = left * cos - right * sin, left * sin + right * cos
    exact = torch.stack(turned, -1 if neighbors else -2).flatten(-2)
    way(name).rope(x, angles.cos(), angles.sin(), neighbors)
    assert (x - exact).abs().max() <= 2 * UNIT * pairs.abs().max() * 2


@pytest.mark.parametrize("name", WAYS)
def test_gate(name: str) -> None:
    special = torch.tensor([0.0, -0.0, 80, -80, 87.5, -87.5, 100, -100, 1e30, -1e30])
    gate = torch.cat([special, torch.linspace(-30, 30, 4001)])
    up = torch.linspace(-2, 2, len(gate))
    out = torch.empty_like(up)
    way(name).swiglu(gate, up, out)
    exact = gate.double() * torch.sigmoid(gate.double()) * up.double()
    # exp is right to 4 units for arguments within 88; beyond, the sigmoid is below 2^-126, or 1, to float32.
    assert ((out - exact).abs() <= 8 * UNIT * exact.abs() + 1e-36).all()
    nan = torch.full((5,), torch.nan)
    way(name).swiglu(nan, torch.ones(5), nan)
    assert nan.isnan().all()


def test_cache_layers_and_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(KernelError, match="not 'q5'"):
        cache_row_bytes(64, "q5")
    with pytest.raises(KernelError, match="no multiple of q8's block of 32"):
        cache_row_bytes(80, "q8")
    with pytest.raises(KernelError, match=r"writable uint8 \(kv_heads, capacity, 128\)"):
        CacheLayer("f16", 64, np.zeros((1, 4, 64), np.uint8), np.zeros((1, 4, 64), np.uint8))
    k, layer = way(WAYS[0]), layer_of("f16", 2, 4, 8)
    with pytest.raises(KernelError, match="positions 3 to 4 do not fit into 4"):
        k.store(layer, 3, torch.zeros(2, 2, 8), torch.zeros(2, 2, 8))
    with pytest.raises(KernelError, match="not all in a cache of 4"):
        k.attend(torch.zeros(2, 2, 8), layer, 3, torch.zeros(2, 16))
    with pytest.raises(KernelError, match=r"q \(T, n \* 2, 8\)"):
        k.attend(torch.zeros(1, 3, 8), layer, 0, torch.zeros(1, 24))
    with pytest.raises(KernelError, match="cos and sin"):
        k.rope(torch.zeros(1, 2, 8), torch.zeros(1, 8), torch.zeros(1, 8), True)
