"""Tapes: a recorded pass gives, bit for bit, what its calls give one by one, and fits into its caches or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit import kernels
from fourbit.errors import KernelError
from fourbit.kernels import CacheLayer, Kernels, cache_row_bytes
from fourbit.llm.decoder import Decoder
from fourbit.llm.hollow import write_hollow
from fourbit.llm.kv_cache import KVCache
from fourbit.llm.weights import open_weights
from tests.kernel_matrices import SETS, all_awake, known
from tests.test_llm_plan import SMALL

pytestmark = pytest.mark.skipif(not SETS, reason="there is no C compiler")
HEADS, KV_HEADS, WIDTH = 4, 2, 32


def cache(kind: str, capacity: int) -> CacheLayer:
    shape = KV_HEADS, capacity, cache_row_bytes(WIDTH, kind)
    return CacheLayer(kind, WIDTH, np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))


class Pass:
    """Every operation once, on buffers of its own. Text i has layers[i]; tokens belong to the texts in turn."""

    def __init__(self, kind: str, tokens: int, layers: list[CacheLayer]) -> None:
        self.matrices = [known(kind, rows, HEADS * WIDTH, rows).matrix for rows in (HEADS * WIDTH, KV_HEADS * WIDTH)]
        self.x, self.q, self.mixed, self.gain = torch.empty(tokens, 128), *torch.empty(2, tokens, 128), torch.rand(128)
        self.k, self.v = torch.empty(2, tokens, KV_HEADS * WIDTH)
        self.cos, self.sin, self.bias = torch.rand(tokens, WIDTH // 2), torch.rand(tokens, WIDTH // 2), torch.rand(64)
        self.layers = layers

    def run(self, kernel: Kernels, starts: list[int]) -> None:
        kernel.rms_norm(self.x, self.gain, 1e-5, self.x)
        kernel.matmul([*self.matrices, self.matrices[1]], self.x, [self.q, self.k, self.v])
        kernel.add(self.k, self.bias)
        kernel.rope(self.q.view(-1, HEADS, WIDTH), self.cos, self.sin, True)
        kernel.swiglu(self.k, self.v, self.v)
        each = len(self.x) // len(self.layers)
        for i, (layer, start) in enumerate(zip(self.layers, starts, strict=True)):
            rows = slice(i * each, (i + 1) * each)
            kernel.store(layer, start, *(part[rows].view(each, KV_HEADS, WIDTH) for part in (self.k, self.v)))
            kernel.attend(self.q[rows].view(each, HEADS, WIDTH), layer, start, self.mixed[rows])
        kernel.add(self.x, self.mixed)


@given(
    kind=st.sampled_from(["Q4_0", "Q4_1", "Q8_0", "F16"]),
    held=st.sampled_from(["f32", "f16", "q8", "q4"]),
    texts=st.integers(1, 3), each=st.integers(1, 3), threads=st.integers(1, 3), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_tape_gives_what_the_calls_give(kind: str, held: str, texts: int, each: int, threads: int, seed: int) -> None:
    kernel = all_awake(kernels.load(threads, "c"))
    plain, taped = (Pass(kind, texts * each, [cache(held, 20) for _ in range(texts)]) for _ in range(2))
    taped.gain, taped.cos, taped.sin, taped.bias = plain.gain, plain.cos, plain.sin, plain.bias
    starts = [(seed + 5 * i) % 7 for i in range(texts)]
    recorder = kernel.recorder([[layer] for layer in taped.layers], starts)
    assert recorder is not None
    taped.run(recorder, starts)
    assert not any(layer.keys.any() for layer in taped.layers)  # nothing was done yet
    tape, random = recorder.tape(), torch.Generator().manual_seed(seed)
    for step in range(3):
        now = [start + step * each for start in starts]
        x = torch.randn(plain.x.shape, generator=random)
        plain.x.copy_(x)
        taped.x.copy_(x)
        plain.run(kernel, now)
        tape.play(now)
        for a, b in ((plain.x, taped.x), (plain.v, taped.v), (plain.mixed, taped.mixed)):
            assert torch.equal(a, b)
    for one, other in zip(plain.layers, taped.layers, strict=True):
        assert np.array_equal(one.keys, other.keys)
        assert np.array_equal(one.values, other.values)


def test_a_position_that_does_not_fit_is_refused() -> None:
    kernel = kernels.load(1, "c")
    once = Pass("Q4_0", 4, [cache("f16", 20), cache("f16", 9)])
    recorder = kernel.recorder([[layer] for layer in once.layers], [3, 4])
    assert recorder is not None
    once.run(recorder, [3, 4])
    tape = recorder.tape()
    once.x.fill_(1)
    tape.play([18, 7])
    for starts in ([19, 7], [18, 8], [-1, 0]):
        with pytest.raises(KernelError, match="does not fit into the cache; the last that does is"):
            tape.play(starts)


def test_shapes_are_checked_when_a_pass_is_recorded() -> None:
    recorder = kernels.load(1, "c").recorder([], [])
    assert recorder is not None
    with pytest.raises(KernelError, match="x has shape"):
        recorder.matmul([known("Q4_0", 64, 64, 0).matrix], torch.zeros(1, 32), [torch.zeros(1, 64)])
    with pytest.raises(KernelError, match="cannot be recorded"):
        recorder.rows(known("Q4_0", 64, 64, 0).matrix, [1])
    with pytest.raises(KernelError, match="needed are x"):
        recorder.add(torch.zeros(2, 4), torch.zeros(2))


def test_a_model_says_the_same_with_and_without_tapes(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that grow alone and together, are cut, and change places: the tape is always of the caches at hand."""
    path = write_hollow(SMALL, tmp_path_factory.mktemp("tape") / "x.gguf", "Q4_0", progress=False)
    weights, found = open_weights(path), []
    for taped in (True, False):
        kernel = kernels.load(2, "c")
        if not taped:
            monkeypatch.setattr(kernel, "recorder", lambda texts, starts: None)
        decoder, caches = Decoder(weights, kernel), [KVCache(SMALL, 40) for _ in range(3)]
        said = [decoder.read([5, 6, 7], caches[:1]).clone(), decoder.read([8], caches[1:2]).clone()]
        caches[0].truncate(1)
        for these in ((0, 1), (1, 0), (0,), (2,), (0,), (0, 1, 2)):
            tokens = [9 + i for i in these]
            said.append(decoder.read(tokens, [caches[i] for i in these]).clone())
        found.append(said)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
