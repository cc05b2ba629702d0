"""Matrix products of every kind, on every instruction set of this machine and in numba, against exact values."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit import kernels
from fourbit.errors import KernelError
from fourbit.kernels import KINDS, Kernels, Matrix
from fourbit.llm.artifact import pack
from tests.kernel_matrices import SETS, Known, all_awake, allowed, known, whole_activations

WAYS = [*SETS, "numba"]


@functools.cache
def way(name: str, threads: int = 1) -> Kernels:
    k = kernels.load(threads, "numba") if name == "numba" else kernels.load(threads, "c", name)
    return all_awake(k)


def product(k: Kernels, m: Known, x: np.ndarray) -> np.ndarray:
    out = torch.full((len(x), m.matrix.rows), torch.nan)
    k.matmul([m.matrix], torch.from_numpy(x), [out])
    return out.numpy()


@st.composite
def problems(draw: st.DrawFn) -> tuple[Known, np.ndarray, bool]:
    kind = draw(st.sampled_from(KINDS))
    block = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256}.get(kind, 1 if kind[0] in "FG" else 32)
    columns = block * draw(st.integers(1, 900 // block))
    group = draw(st.sampled_from([16, 32, 48, 64, 96, 128, 1024]))
    seed = draw(st.integers(0, 2**32 - 1))
    m = known(kind, draw(st.integers(1, 70)), columns, seed, group)
    tokens, whole = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 6, 7, 13])), draw(st.booleans())
    if whole:
        return m, whole_activations(tokens, columns, seed), True
    return m, np.random.default_rng(seed).standard_normal((tokens, columns)).astype(np.float32), False


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=120, deadline=None)
@given(problem=problems())
def test_products_are_as_exact_as_eight_bits_allow(name: str, problem: tuple[Known, np.ndarray, bool]) -> None:
    m, x, whole = problem
    off = np.abs(product(way(name), m, x) - x.astype(np.float64) @ m.values.T)
    assert (off <= allowed(m, x, whole)).all(), (off / allowed(m, x, whole)).max()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_wide_matrices_and_long_prompts(name: str, kind: str) -> None:
    m = known(kind, 65, 4608, seed=1, group=128)
    for tokens in (1, 70):
        x = whole_activations(tokens, 4608, seed=2)
        off = np.abs(product(way(name), m, x) - x.astype(np.float64) @ m.values.T)
        assert (off <= allowed(m, x, exact_codes=True)).all()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_the_number_of_threads(name: str, kind: str) -> None:
    m, other = known(kind, 333, 512, seed=3), known("Q6_K", 70, 512, seed=4)
    for tokens in (1, 9):
        x = torch.from_numpy(np.random.default_rng(5).standard_normal((tokens, 512)).astype(np.float32))
        seen = []
        for threads in (1, 2, 3, 8):
            outs = [torch.empty(tokens, 333), torch.empty(tokens, 70)]
            way(name, threads).matmul([m.matrix, other.matrix], x, outs)
            seen.append(torch.cat(outs, 1))
        assert all(torch.equal(one, seen[0]) for one in seen)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [512, 768])
def test_a_few_tokens_have_the_results_that_each_has_alone(name: str, kind: str, columns: int) -> None:
    m, k = known(kind, 70, columns, seed=12), way(name)
    tokens = 9 if kind in ("F32", "F16") else min(k.few, 9)
    assert tokens >= 2
    x = np.random.default_rng(13).standard_normal((tokens, columns)).astype(np.float32)
    together = product(k, m, x)
    assert all(np.array_equal(together[i : i + 1], product(k, m, x[i : i + 1])) for i in range(tokens))


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_decoded_weights(name: str, kind: str) -> None:
    for group in (32, 40):
        m = known(kind, 9, 768, seed=6, group=group)
        ids = [8, 0, 3, 3]
        found = way(name).rows(m.matrix, ids).numpy()
        assert np.abs(found - m.values[ids]).max() <= 2.0**-22 * m.terms.max()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_artifacts_of_every_bit_width(name: str, bits: int) -> None:
    random = np.random.default_rng(bits)
    codes = random.integers(0, 2**bits, (11, 200), np.uint8)
    scale = torch.from_numpy(random.random((11, 4)).astype(np.float16))
    zero = torch.from_numpy(random.integers(0, 2**bits, (11, 4), np.uint8))
    parts = {"codes": pack(torch.from_numpy(codes), bits), "scale": scale, "zero": zero}
    matrix = Matrix.from_artifact(parts, bits, 64, (11, 200))
    wide_scale, wide_zero = (np.repeat(part.double().numpy(), 64, 1)[:, :200] for part in (scale, zero))
    m = Known(matrix, (codes - wide_zero) * wide_scale, 512 * wide_scale)
    x = whole_activations(5, 200, seed=bits)
    off = np.abs(product(way(name), m, x) - x.astype(np.float64) @ m.values.T)
    assert (off <= allowed(m, x, exact_codes=True)).all()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q6_K", "GROUP4", "Q4_K"])
@pytest.mark.parametrize("tokens", [1, 8])
def test_no_number_and_infinity_reach_the_results_of_their_token_only(name: str, kind: str, tokens: int) -> None:
    m = known(kind, 40, 512, seed=7)
    for bad in (np.nan, np.inf, -np.inf):
        x = whole_activations(tokens, 512, seed=8)
        x[tokens // 2, 300] = bad
        found = product(way(name), m, x)
        assert np.isnan(found[tokens // 2]).all()
        assert np.isfinite(np.delete(found, tokens // 2, 0)).all()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-39, 1e-36, 1e30])
def test_tiny_and_huge_activations(name: str, size: float) -> None:
    m = known("Q4_0", 40, 256, seed=9)
    x = (np.random.default_rng(10).standard_normal((1, 256)) * size).astype(np.float32)
    off = np.abs(product(way(name), m, x) - x.astype(np.float64) @ m.values.T)
    assert (off <= allowed(m, x)).all()


def test_a_matrix_of_an_unknown_kind_or_the_wrong_shape_is_refused() -> None:
    data = np.zeros((4, 18), np.uint8)
    with pytest.raises(KernelError, match="no kernel for matrices of kind Q3_K"):
        Matrix("Q3_K", (4, 32), data)
    with pytest.raises(KernelError, match="blocks have 32 columns"):
        Matrix("Q4_0", (4, 33), data)
    with pytest.raises(KernelError, match=r"it must be uint8 \(4, 36\)"):
        Matrix("Q4_0", (4, 64), data)
    with pytest.raises(KernelError, match="not contiguous"):
        Matrix("Q4_0", (4, 32), np.zeros((4, 36), np.uint8)[:, ::2])
    with pytest.raises(KernelError, match="GROUP4 needs scale"):
        Matrix("GROUP4", (4, 36), data)
    with pytest.raises(KernelError, match="scale of a GROUP4"):
        Matrix("GROUP4", (4, 36), data, np.zeros((4, 1), np.float16), np.zeros((4, 2), np.uint8), 32)


@pytest.mark.parametrize("name", WAYS)
def test_arguments_that_do_not_fit_are_refused(name: str) -> None:
    k, m = way(name), known("Q4_0", 8, 64, seed=11).matrix
    x, out = torch.zeros(2, 64), torch.zeros(2, 8)
    with pytest.raises(KernelError, match=r"needs \(T, 64\)"):
        k.matmul([m], torch.zeros(2, 32), [out])
    with pytest.raises(KernelError, match=r"needs \(T, 64\)"):
        k.matmul([m], torch.zeros(64), [out])
    with pytest.raises(KernelError, match=r"it must be \(2, 8\)"):
        k.matmul([m], x, [torch.zeros(1, 8)])
    with pytest.raises(KernelError, match="float64"):
        k.matmul([m], x.double(), [out])
    with pytest.raises(KernelError, match="not contiguous"):
        k.matmul([m], torch.zeros(64, 2).T, [out])
    with pytest.raises(KernelError, match="1 matrices and 2 outs"):
        k.matmul([m], x, [out, out])
    with pytest.raises(KernelError, match="0 to 7"):
        k.rows(m, [8])
    with pytest.raises(KernelError, match="0 to 7"):
        k.rows(m, [-1])
    k.matmul([m], torch.zeros(0, 64), [torch.zeros(0, 8)])
    assert k.rows(m, []).shape == (0, 64)


@pytest.mark.skipif(not SETS, reason="no C compiler here")
def test_a_number_of_threads_a_backend_and_an_instruction_set_that_are_not_there() -> None:
    with pytest.raises(KernelError, match="give 1 to 256"):
        kernels.load(0)
    with pytest.raises(KernelError, match="no backend 'fortran'"):
        kernels.load(1, "fortran")
    with pytest.raises(KernelError, match="no instruction set 'mmx' here; there are scalar"):
        kernels.load(1, "c", "mmx")
