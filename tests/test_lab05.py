"""Lab 05: its exam tells right from wrong, its kernels agree with processors and engines, and cheats are caught."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import platform
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.errors import FourbitError, KernelError
from fourbit.exam.check import examination
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.pack import load_pack
from fourbit.exam.reference import load_lab, variant, write_pack
from fourbit.exam.suspects import FLAWS, suspect
from fourbit.measure import native
from fourbit.measure.callgrind import available, count
from fourbit.measure.native import HEADER, compile_c, compiler, kernel
from fourbit.measure.race import interleaved, race
from fourbit.measure.traffic import Ledger, replay
from tests.lab_checks import (
    assert_complete,
    assert_example_runs,
    assert_judge_is_silent,
    assert_other_cases,
    assert_published,
)

EXERCISES = (
    "gemv_traffic", "repack", "gemv_numba", "quantize_activations", "int8_gemv", "simd_dot", "gemv_fast", "partition",
    "tile_schedule", "tokens_per_second", "is_right_kernel",
)  # fmt: skip
needs_compiler = pytest.mark.skipif(not compiler(), reason="there is no C compiler here")


def has_avx2() -> bool:
    info = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and info.is_file() and "avx2" in info.read_text()


RIGHT = {"none", "float64", "integers first"}


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions/05-kernels")


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


def drawn(seed: int, rows: int, groups: int):
    """A packed matrix and its activations."""
    random = np.random.default_rng(seed)
    packed = random.integers(0, 256, (rows, groups, 32), np.uint8)
    scale = random.uniform(0.01, 0.1, (rows, groups)).astype(np.float32)
    zero = random.integers(0, 16, (rows, groups), np.uint8)
    return packed, scale, zero, random.standard_normal(64 * groups).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions/05-kernels", tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert (tmp_path / "05-kernels/visible/pack.safetensors").stat().st_size < 2_000_000
    assert_published(lab, rows, seed)


@pytest.mark.slow
def test_the_kill_matrix_is_complete_where_there_is_no_compiler(root, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "compiler", lambda: ())
    lab = load_lab(root / "solutions/05-kernels")
    fast = replace(lab, exam=replace(lab.exam, exercises=(lab.exam["gemv_fast"],)))
    monkeypatch.setattr("fourbit.exam.matrix.load_lab", lambda folder: fast)
    rows = kill_matrix(root / "solutions/05-kernels", tmp_path)
    assert [row for row in rows if row.complaint] == []
    assert sum(row.kind == "mistake" for row in rows) >= 6


def test_each_exercise_has_its_mistakes_and_an_alternative(lab):
    assert_complete(lab)


def test_the_points_make_95_with_5_for_written_answers(lab):
    assert sum(exercise.points for exercise in lab.exam.exercises) == 95


def test_hidden_cases_are_other_cases(lab):
    assert_other_cases(lab)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_docstring_examples_run(reference, exercise):
    assert_example_runs(reference, exercise)


def test_the_judge_holds_no_solution(lab):
    assert_judge_is_silent(lab)


# Kernels agree with one another, with the processor, and with a maintained engine.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 5))
def test_all_kernels_compute_the_product(reference, seed, rows, groups):
    """Float kernels within (160 + groups) * 2^-24 of the magnitudes, as the exam has it; integer ones within theirs."""
    packed, scale, zero, x = drawn(seed, rows, groups)
    weights = reference["dequantized"](packed, scale, zero).astype(np.float64)
    codes = np.concatenate([packed & 15, packed >> 4], -1).reshape(rows, -1) + zero.repeat(64, 1).astype(float)
    size = scale.repeat(64, 1) * codes @ np.abs(x)  # the largest that a partial result can be
    grouped = x.reshape(-1, 64)
    y = reference["gemv_numba"](packed, scale, zero, grouped, grouped.sum(1))
    assert (np.abs(y - weights @ x) <= (160 + groups) * 2.0**-24 * size).all()
    q = reference["quantize_activations"](x)
    back = (q["codes"] * q["scale"][:, None].astype(np.float64)).ravel()
    bound = (4 + groups) * 2.0**-24 * size * 1.01  # rounded activations are up to half a step larger
    for z in (
        reference["int8_gemv"](packed, scale, zero, q)["y"],
        reference["gemv_fast"](packed, scale, zero, q["codes"], q["scale"], q["sum"]),
    ):
        assert (np.abs(z - weights @ back) <= bound).all()
    assert np.abs(back - x).max() <= 0.5001 * q["scale"].max()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200))
def test_repacked_codes_come_back_in_order(reference, seed, columns):
    codes = np.random.default_rng(seed).integers(0, 16, (3, columns), np.uint8)
    packed = reference["repack"](codes)
    ones, none = np.ones(packed.shape[:2], np.float32), np.zeros(packed.shape[:2], np.uint8)
    back = reference["dequantized"](packed, ones, none)
    assert np.array_equal(back[:, :columns], codes)
    assert not back[:, columns:].any()


INSTRUCTIONS = r"""
#include <immintrin.h>
#include <stdint.h>
void simd(const uint8_t *u, const int8_t *s, int16_t *pairs, int32_t *lanes, int64_t k) {
    __m256i total = _mm256_setzero_si256();
    for (int64_t i = 0; i < k; i++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(u + 32 * i));
        __m256i both = _mm256_maddubs_epi16(a, _mm256_loadu_si256((const __m256i *)(s + 32 * i)));
        _mm256_storeu_si256((__m256i *)(pairs + 16 * i), both);
        total = _mm256_add_epi16(total, both);
    }
    _mm256_storeu_si256((__m256i *)lanes, _mm256_madd_epi16(total, _mm256_set1_epi16(1)));
}
"""


@needs_compiler
@pytest.mark.skipif(not has_avx2(), reason="the instruction is one of AVX2")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([15, 255]))
def test_the_emulated_instructions_are_those_of_the_processor(reference, seed, k, most):
    random = np.random.default_rng(seed)
    u = random.choice([0, most // 2, most], (k, 32)).astype(np.uint8)
    s = random.choice([-128, -127, 0, 1, 127], (k, 32)).astype(np.int8)
    pairs, lanes = np.empty((k, 16), np.int16), np.empty(8, np.int32)
    arrays = [ctypes.c_void_p(array.ctypes.data) for array in (u, s, pairs, lanes)]
    compile_c(INSTRUCTIONS).simd(*arrays, ctypes.c_int64(k))
    ours = reference["simd_dot"](u, s)
    assert np.array_equal(ours["pairs"], pairs)
    assert np.array_equal(ours["lanes"], lanes)


def test_the_integers_are_those_of_onnx_runtime(reference):
    """Its 4-bit product rounds activations to 8 bits in groups of 64 too; rounding of scales and ties may differ."""
    from fourbit.measure.rivals import onnx_matmul

    packed, scale, zero, x = drawn(3, 48, 4)
    codes = np.concatenate([packed & 15, packed >> 4], -1).reshape(48, -1)
    q = reference["quantize_activations"](x)
    ours = reference["gemv_fast"](packed, scale, zero, q["codes"], q["scale"], q["sum"])
    theirs = onnx_matmul(codes, scale, zero, 64)(x)
    exact = reference["dequantized"](packed, scale, zero) @ x
    assert np.linalg.norm(ours - exact) < 0.02 * np.linalg.norm(exact)
    assert np.linalg.norm(theirs - ours) < np.linalg.norm(ours - exact)


def test_llama_cpp_is_left_out_where_it_or_the_model_is_missing(monkeypatch, tmp_path):
    from fourbit.measure.rivals import llama_cpp_rate

    assert llama_cpp_rate("no-such-model") is None
    assert llama_cpp_rate(tmp_path / "missing.gguf") is None
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert llama_cpp_rate("smollm2") is None


@needs_compiler
def test_the_c_kernel_reads_nothing_beyond_its_arrays(reference):
    """Each array ends where an unreadable page begins: one byte too far would end this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    packed, scale, zero, x = drawn(4, 7, 3)
    q = reference["quantize_activations"](x)
    wanted = reference["gemv_fast"](packed, scale, zero, q["codes"], q["scale"], q["sum"])
    kept, guarded = [], []
    for array in (packed, scale, zero, q["codes"], q["scale"], q["sum"]):
        pages = -(-array.nbytes // mmap.PAGESIZE)
        block = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        assert libc.mprotect(ctypes.c_void_p(address + pages * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        place = pages * mmap.PAGESIZE - array.nbytes
        copy = np.frombuffer(block, array.dtype, array.size, place).reshape(array.shape)
        copy[...] = array
        kept.append(block)
        guarded.append(copy)
    assert np.array_equal(reference["gemv_fast"](*guarded), wanted)


def test_results_do_not_depend_on_the_number_of_threads(reference):
    packed, scale, zero, x = drawn(5, 203, 3)
    q = reference["quantize_activations"](x)
    integers = q["codes"], q["scale"], q["sum"]
    whole = reference["gemv_fast"](packed, scale, zero, *integers)
    for threads in (1, 2, 3, 7, 20):
        parts = [
            reference["gemv_fast"](packed[a:b], scale[a:b], zero[a:b], *integers)
            for a, b in reference["partition"](203, threads)
            if b > a
        ]
        assert np.array_equal(np.concatenate(parts), whole)


# Tools: a kernel in C or numba.


def test_a_kernel_is_numba_where_no_c_was_written():
    made = kernel(lambda tool: None if tool == "c" else (lambda *arrays: arrays[1].sum(1)))
    assert made(np.zeros((2, 1, 32), np.uint8), np.ones((2, 1), np.float32)).tolist() == [1.0, 1.0]
    assert made.tool == "numba"
    assert made.source == ""


def test_a_kernel_is_numba_where_there_is_no_compiler(reference, monkeypatch):
    monkeypatch.setattr(native, "compiler", lambda: ())
    packed, scale, zero, x = drawn(6, 9, 2)
    q = reference["quantize_activations"](x)
    arrays = packed, scale, zero, q["codes"], q["scale"], q["sum"]
    made = kernel(reference["gemv_fast"]._write)
    y = made(*arrays)
    assert made.tool == "numba"
    assert np.allclose(y, reference["gemv_fast"](*arrays), rtol=1e-5, atol=1e-5)
    with pytest.raises(KernelError, match="install gcc or clang"):
        compile_c("int nothing;")


@needs_compiler
def test_text_that_is_no_c_is_refused_in_the_words_of_the_compiler():
    with pytest.raises(KernelError, match=r"does not compile this kernel(.|\n)*error"):
        compile_c(HEADER + "void gemv( {")


# Counting.


def test_traced_arrays_count_what_is_read_and_written():
    ledger = Ledger()
    a, b = ledger.trace(a=np.arange(12, dtype=np.int16).reshape(3, 4), b=np.zeros(5, np.float64))
    b[2] = a[1, 1] + a[:, 0].sum()
    b[1:3] = 7
    assert ledger.read == {"a": 8, "b": 0}
    assert ledger.written == {"a": 0, "b": 24}
    assert ledger.total == 32
    assert a.shape == (3, 4)
    assert b.array.tolist() == [0, 7, 7, 0, 0]


def fetched_slowly(tiles, row_bytes, token_bytes, cache) -> int:
    """The same memory, told in another way: a list in the order of use, oldest first."""
    held, total = [], 0
    size = {"r": row_bytes, "t": token_bytes}
    for row, row_stop, token, token_stop in tiles:
        for r in range(row, row_stop):
            for key in [("r", r)] + [("t", t) for t in range(token, token_stop)]:
                if key in held:
                    held.remove(key)
                else:
                    total += size[key[0]]
                held.append(key)
                while sum(size[k] for k, _ in held) > cache:
                    held.pop(0)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 60), st.randoms())
def test_replay_is_a_cache_that_forgets_what_was_used_longest_ago(rows, tokens, row, token, more, random):
    cells = [(r, r + 1, t, t + 1) for r in range(rows) for t in range(tokens)]
    random.shuffle(cells)
    cache = row + token + more
    assert replay(cells, row, token, cache) == fetched_slowly(cells, row, token, cache)


def test_replay_refuses_a_cache_without_room():
    with pytest.raises(FourbitError, match="holds no row of 10 and token of 6 bytes"):
        replay([(0, 1, 0, 1)], 10, 6, 15)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(5, 40), st.integers(5, 40), st.floats(4, 30))
def test_no_simple_plan_fetches_less_than_the_reference(reference, rows, tokens, row, token, share):
    cache = int(share * (row + token))
    ours = replay(reference["tile_schedule"](rows, tokens, row, token, cache).tolist(), row, token, cache)
    for tall, wide in itertools.product((1, 2, 3, 5, 8, 20), repeat=2):
        tiles = [
            (r, min(r + tall, rows), t, min(t + wide, tokens))
            for r in range(0, rows, tall)
            for t in range(0, tokens, wide)
        ]
        assert ours <= replay(tiles, row, token, cache) + max(row, token)  # the last of a pass may still be there
    assert ours >= rows * row + tokens * token if cache >= rows * row + tokens * token else True


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="needs valgrind and a compiler")
def test_instructions_and_lines_of_the_kernels_are_counted_alike_twice(reference):
    """The exact numbers are gcc's; the chapter has them. 37 bytes a group of 64 are 0.00903 lines a weight."""
    packed, scale, zero, x = drawn(7, 2, 1)
    q = reference["quantize_activations"](x)
    reference["gemv_fast"](packed, scale, zero, q["codes"], q["scale"], q["sum"])
    source = HEADER + reference["gemv_fast"].source
    first, again = count(source), count(source)
    assert first == again
    assert first["yours"].instructions <= 1.0
    assert 37 / 64 / 64 <= first["yours"].lines <= 0.0095
    assert first["4-bit loops"].instructions > 8 * first["yours"].instructions
    assert 1 / 16 <= first["dense float32"].lines <= 0.064


# The exploit suite: entries to a race, and answers to the exam.


def product(packed, scale, zero, x):
    weights = (np.concatenate([packed & 15, packed >> 4], -1).astype(np.float32) - zero[..., None]) * scale[..., None]
    return weights.reshape(len(packed), -1) @ x


def fresh(number: int):
    return list(drawn([8, number], 24, 2))  # type: ignore[arg-type]


def kept_outputs():
    kept = {}
    return lambda *arrays: kept.setdefault(arrays[0].shape, product(*arrays)).copy()


def kept_by_fingerprint():
    kept = {}
    return lambda *arrays: kept.setdefault(arrays[0].shape + (len(arrays[3]),), product(*arrays)).copy()


def one_buffer():
    buffer = np.empty(24, np.float32)

    def run(*arrays):
        buffer[:] = product(*arrays)
        return buffer

    return run


def view_of_a_buffer():
    buffer = np.empty((2, 24), np.float32)

    def run(*arrays):
        buffer[0] = product(*arrays)
        return buffer[0]

    return run


def changed_input():
    def run(*arrays):
        y = product(*arrays)
        arrays[0][:] = 0
        return y

    return run


def promised():
    class Later(np.ndarray):
        """An array that computes when somebody looks."""

    return lambda *arrays: np.zeros(24, np.float32).view(Later)


def callable_later():
    return lambda *arrays: lambda: product(*arrays)


def running_on():
    done = threading.Event()

    def run(*arrays):
        threading.Thread(target=done.wait, daemon=True).start()
        return product(*arrays)

    run.stop = done.set
    return run


def slow_clock(monkeypatch, name):
    true = getattr(time, name)

    def run(*arrays):
        monkeypatch.setattr(time, name, lambda: true() / 100)
        return product(*arrays)

    return run


def not_a_number():
    return lambda *arrays: product(*arrays) * np.nan


def tired():
    calls = itertools.count()
    return lambda *arrays: product(*arrays) if next(calls) < 2 else np.zeros(24, np.float32)


EXPLOITS = {
    kept_outputs: "did not do the work", kept_by_fingerprint: "did not do the work", one_buffer: "one buffer",
    view_of_a_buffer: "one buffer", changed_input: "changed its inputs", promised: "may still be to do",
    callable_later: "may still be to do", running_on: "goes on after the call", not_a_number: "did not do the work",
    tired: "did not do the work",
}  # fmt: skip


def ran(kernel_):
    return race({"honest": product, "other": kernel_}, fresh, product, lambda *arrays: 1e-3, rounds=4)


def test_an_honest_kernel_gets_a_time():
    laps = ran(product)
    assert all(lap.fault == "" and lap.median >= 0 and len(lap.timing.samples) == 4 for lap in laps.values())


@pytest.mark.parametrize("exploit", EXPLOITS, ids=lambda e: e.__name__)
def test_a_race_catches_each_exploit_and_names_it(exploit):
    entry = exploit()
    laps = ran(entry)
    getattr(entry, "stop", lambda: None)()
    assert EXPLOITS[exploit] in laps["other"].fault
    assert laps["honest"].fault == ""
    with pytest.raises(FourbitError, match="no time"):
        laps["other"].median  # noqa: B018


@pytest.mark.parametrize("name", ["process_time", "perf_counter"])
def test_a_race_catches_a_patched_timer_and_puts_it_back(monkeypatch, name):
    true = getattr(time, name)
    laps = ran(slow_clock(monkeypatch, name))
    assert "another clock" in laps["other"].fault
    assert getattr(time, name) is true
    assert laps["honest"].fault == ""


def test_a_race_does_not_believe_its_own_clock_alone(monkeypatch):
    """An entry that replaces the referee's clock and its look at clocks is given away by the system's account."""
    from fourbit.measure import race as referee

    ticks = itertools.count()

    def busy(*arrays):
        monkeypatch.setattr(referee, "_cpu", lambda: next(ticks) * 1e-9)
        monkeypatch.setattr(referee, "_clocks", lambda: "")
        end = time.perf_counter() + 0.2
        while time.perf_counter() < end:
            pass
        return product(*arrays)

    assert "a timer was changed" in ran(busy)["other"].fault


def test_interleaved_runs_take_turns():
    calls = []
    found = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_the_suspects_are_right_where_they_say_so(reference):
    for flaw, change in itertools.product(FLAWS, (0, 1)):
        assert reference["is_right_kernel"](suspect(flaw, change)) is (flaw in RIGHT), (flaw, change)


HONEST = "@kernel\ndef gemv_fast(tool):\n    return None if tool == 'c' else entry\n"
PLAIN = (
    "def plain(packed, scale, zero, codes, code_scale, code_sum):\n"
    "    return int8_gemv(packed, scale, zero, {'codes': codes, 'scale': code_scale, 'sum': code_sum})['y']\n"
)
CHEATS = {
    "cached outputs": "kept = {}\ndef entry(*a):\n    return kept.setdefault(len(a[1]) > 99, plain(*a))[: len(a[1])]\n",
    "lazy": "def entry(*a):\n    return lambda: plain(*a)\n",
    "empties its inputs": "def entry(*a):\n    y = plain(*a)\n    a[0][...] = 0\n    return y\n",
    "patched timers": (
        "import time\ntime.perf_counter = lambda: 0.0\ndef entry(*a):\n    return np.zeros(len(a[1]), np.float32)\n"
    ),
    "a buffer not yet filled": (
        "import threading, time\ndef entry(*a):\n    y = np.zeros(len(a[1]), np.float32)\n"
        "    def fill():\n        time.sleep(0.2)\n        y[:] = plain(*a)\n"
        "    threading.Thread(target=fill, daemon=True).start()\n    return y\n"
    ),
    "a subclass that equals everything": (
        "class All(np.ndarray):\n    def __eq__(self, other):\n        return np.ones(self.shape, bool)\n"
        "    __ne__ = __le__ = __eq__\n"
        "def entry(*a):\n    return np.zeros(len(a[1]), np.float32).view(All)\n"
    ),
}


@pytest.fixture(scope="module")
def hidden(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hidden")
    import dataclasses

    only = dataclasses.replace(lab.exam["gemv_fast"], mistakes=())
    write_pack(dataclasses.replace(lab, exam=dataclasses.replace(lab.exam, exercises=(only,))), folder, visible=False)
    return load_pack(folder)["gemv_fast"]


def test_a_plain_entry_earns_everything(reference, hidden):
    names = variant(reference, PLAIN + "entry = plain\n" + HONEST, "gemv_fast")
    assert examination(hidden, names).points == hidden.points


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_earns_what_an_honest_kernel_does(reference, hidden, cheat, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # and is put back afterwards
    names = variant(reference, PLAIN + CHEATS[cheat] + HONEST, "gemv_fast")
    verdict = examination(hidden, names)
    assert verdict.points < hidden.points
    if cheat != "empties its inputs":
        assert verdict.points == 0
    else:
        assert any("in place" in finding.message for finding in verdict.findings)
