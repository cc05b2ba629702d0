"""Lab 04: its exam tells right from wrong, its examples run, and its answers agree with other implementations."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.exam.author import Trial
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.pack import load_module
from fourbit.exam.reference import load_lab
from fourbit.llm.config import LlmConfig
from fourbit.llm.model import Transformer
from fourbit.recipes.llm_mixed import read_table
from tests.lab_checks import (
    assert_complete,
    assert_example_runs,
    assert_judge_is_silent,
    assert_other_cases,
    assert_published,
)

EXERCISES = (
    "perplexity", "round_to_nearest", "model_bytes", "salient_channels", "fold_scales", "awq_scales", "gptq",
    "normal_levels", "quantize_blocks", "smooth_scales", "int8_matmul", "allocate_bits",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions/04-llm-quantization")


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions/04-llm-quantization", tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert (tmp_path / "04-llm-quantization/visible/pack.safetensors").stat().st_size < 2_000_000
    assert_published(lab, rows, seed)


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


# Mixed precision, on the measured table.


def _judged(root, case, plans) -> float:
    judge = load_module(root / "solutions/04-llm-quantization/properties.py", "lab04_properties")
    trial = Trial(case.args, {}, plans, plans, case.name)
    assert judge.fits_every_budget(trial) is None
    verdict = judge.comes_near_the_best(trial)
    return 1.0 if verdict is None else verdict.fraction


@pytest.mark.parametrize(("visible", "place"), [(True, 0), (True, 1), (False, 0), (False, 1)])
def test_a_random_allocation_scores_between_nothing_and_everything(root, lab, visible, place):
    case = lab.exam["allocate_bits"].cases(6940, visible)[place]
    _, sizes, budgets = case.args
    scores = []
    for seed in range(20):
        draw, plans = random.Random(seed), []
        for budget in budgets:
            plan = {kind: min(row) for kind, row in sizes.items()}
            for kind in draw.sample(list(sizes), len(sizes)):
                larger = {**plan, kind: draw.choice(list(sizes[kind]))}
                if sum(sizes[k][b] for k, b in larger.items()) <= budget:
                    plan = larger
            plans.append(plan)
        scores.append(_judged(root, case, plans))
    assert all(0 <= score <= 1 for score in scores)
    assert sum(scores) / len(scores) < 0.8, scores


@pytest.mark.parametrize("seed", [6940, 20, 3])
@pytest.mark.parametrize("visible", [True, False])
def test_the_best_of_all_mixtures_and_the_reference_earn_full_marks(root, lab, reference, visible, seed):
    plans, text = read_table()["plans"], "evaluation" if visible else "hidden"
    for case in lab.exam["allocate_bits"].cases(seed, visible):
        fits = [[plan for plan in plans if plan["bytes"] <= budget] for budget in case.args[2]]
        assert _judged(root, case, [min(some, key=lambda p: p["kl"][text])["bits"] for some in fits]) == 1
        assert _judged(root, case, reference["allocate_bits"](*case.args)) == 1


# Agreement with bitsandbytes' kernels for CPUs, bit for bit.


def _bitsandbytes(values, **options):
    functional = pytest.importorskip("bitsandbytes").functional
    packed, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4", **options)
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()  # the first is the high nibble
    return codes, state, functional.dequantize_4bit(packed, state)


def _weights(seed: int) -> torch.Tensor:
    """Rows of different sizes, some values far out, one block of zeros."""
    g = drawn(seed)
    w = torch.randn(640, 512, generator=g) * torch.exp(torch.randn(640, 1, generator=g)) * 0.02
    w[3, 64:128] = 0
    return w


def test_the_levels_are_those_of_bitsandbytes(reference):
    _, state, _ = _bitsandbytes(_weights(1))
    assert torch.equal(state.code, reference["normal_levels"](4))


@pytest.mark.parametrize("seed", [1, 2])
def test_nf4_codes_and_scales_are_those_of_bitsandbytes(reference, seed):
    w, levels = _weights(seed), reference["normal_levels"](4)
    codes, state, back = _bitsandbytes(w)
    ours = reference["quantize_blocks"](w, levels, 64)
    assert torch.equal(ours["absmax"], state.absmax)
    assert torch.equal(ours["codes"].flatten(), codes)
    assert torch.equal(levels[ours["codes"].long()] * ours["absmax"].repeat_interleave(64).view(w.shape), back)


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_double_quantization_is_that_of_bitsandbytes(reference, seed):
    """Its kernel rounds value / absmax to a table of 65,536 entries before it looks for the nearest level."""
    w = _weights(seed)
    _, state, _ = _bitsandbytes(w, compress_statistics=True)
    absmax = reference["quantize_blocks"](w, reference["normal_levels"](4), 64)["absmax"]
    assert torch.equal(state.offset, absmax.mean())
    centered = absmax - absmax.mean()
    plain = reference["quantize_blocks"](centered, state.state2.code, 256)
    assert torch.equal(plain["absmax"], state.state2.absmax)
    assert (plain["codes"] == state.absmax).double().mean() > 0.99
    scale = plain["absmax"].repeat_interleave(256)[: len(centered)]
    tabled = ((centered / scale + 1) * 32767.5 + 0.5).floor() / 32767.5 - 1  # halves go up
    exact = reference["quantize_blocks"](torch.cat([tabled, torch.ones(1)]), state.state2.code, len(tabled) + 1)
    assert torch.equal(exact["codes"][:-1], state.absmax)


# GPTQ against optimal brain quantization with explicit inverses, and against a minimizer.


def _calibration(seed: int, columns: int, tokens: int) -> torch.Tensor:
    g = drawn(seed)
    mixing = torch.eye(columns) + 0.4 * torch.randn(columns, columns, generator=g)
    return (torch.randn(tokens, columns, generator=g) @ mixing).double()


def _brain_surgeon(reference, weight, hessian, bits, group):
    """Hassibi and Stork's update for one column after the other; rows and columns leave the inverse by elimination."""
    w, inverse, grids, codes = weight.double(), torch.linalg.inv(hessian), [], []
    for j in range(w.shape[1]):
        if j % group == 0:
            grids.append(reference["round_to_nearest"](w[:, j : j + group].float(), bits, group))
        step, zero = (grids[-1][key].double() for key in ("scale", "zero"))
        codes.append(((w[:, j : j + 1] / step).round() + zero).clamp(0, 2**bits - 1))
        error = w[:, j : j + 1] - (codes[-1] - zero) * step
        w = w - error / inverse[j, j] * inverse[j]
        inverse = inverse - inverse[:, j : j + 1] @ inverse[j : j + 1] / inverse[j, j]
        inverse[j, j] = 1.0  # fixed: its row and column are zero from here on
    return torch.cat(codes, 1).byte(), *(torch.cat([g[key] for g in grids], 1) for key in ("scale", "zero"))


@pytest.mark.parametrize(("bits", "group"), [(4, 64), (3, 16), (2, 10)])
def test_gptq_is_optimal_brain_quantization_in_column_order(reference, bits, group):
    x = _calibration(bits, 64, 400)
    w, h = torch.randn(24, 64, generator=drawn(7)), x.T @ x
    ours = reference["gptq"](w, h, bits, group, 0.0)
    codes, scale, zero = _brain_surgeon(reference, w, h, bits, group)
    assert torch.equal(ours["codes"], codes)
    assert torch.equal(ours["scale"], scale)
    assert torch.equal(ours["zero"], zero)


def test_what_gptq_pushes_on_is_the_least_squares_answer(reference):
    """Once the first column is rounded, the others move to where the output error on the calibration text is least."""
    x, w = _calibration(11, 6, 50), torch.randn(1, 6, generator=drawn(12))
    h = x.T @ x
    grid = reference["gptq"](w, h, 3, 1, 0.0)
    first = reference["dequantized"](grid, 1).double()[:, :1]
    best = torch.linalg.lstsq(x[:, 1:], x @ w.double().T - x[:, :1] * first).solution.T
    # The second group begins with the updated second weight; a group of one has the range from 0 to that weight.
    scale = (best[0, 0].abs() / 7).half()
    assert grid["scale"][0, 1] == scale


def test_gptq_rounds_to_nearest_where_channels_are_uncorrelated(reference):
    w = torch.randn(16, 48, generator=drawn(5))
    h = torch.diag(torch.rand(48, generator=drawn(6), dtype=torch.float64) + 0.1)
    ours, plain = reference["gptq"](w, h, 3, 16, 0.01), reference["round_to_nearest"](w, 3, 16)
    assert all(torch.equal(ours[key], plain[key]) for key in plain)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_has_less_error_on_what_it_was_calibrated_on(reference, bits):
    """At most four fifths of round to nearest's, on strongly correlated inputs."""
    x, w = _calibration(bits, 64, 400).float(), torch.randn(32, 64, generator=drawn(bits))

    def error(q) -> float:
        return float((x @ (reference["dequantized"](q, 32) - w).T).square().mean())

    plain = error(reference["round_to_nearest"](w, bits, 32))
    assert error(reference["gptq"](w, (x.T @ x).double(), bits, 32, 0.01)) < 0.8 * plain


# Scales: what folding keeps, and what the searches promise.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4]), st.sampled_from([8, 16, 20]), st.integers(1, 8))
def test_awq_is_never_worse_than_rounding_on_its_calibration_text(reference, seed, bits, group, grid):
    g = drawn(seed)
    x = torch.randn(30, 20, generator=g) * torch.exp(2 * torch.randn(20, generator=g))
    weights = [torch.randn(rows, 20, generator=g) for rows in (20, 5)]
    found = reference["awq_scales"](x, weights, bits, group, grid)

    def error(scales) -> float:
        total = 0.0
        for w in weights:
            q = reference["round_to_nearest"](w * scales, bits, group)
            total += float((x @ (reference["dequantized"](q, group) / scales - w).T).square().mean())
        return total

    assert error(found["scales"]) <= error(torch.ones(20)) * (1 + 1e-6)
    assert error(found["scales"]) == pytest.approx(min(found["errors"]), rel=1e-6)


@pytest.fixture(scope="module")
def transformer():
    """Grouped queries (two query heads share a key-value head) and biases."""
    sizes = (2, 24, 40, 4, 2, 6)  # layers, width, ff, heads, kv_heads, head_width
    model = Transformer(LlmConfig("qwen2", *sizes, 31, 1e4, 1e-5, tied=False, qkv_bias=True, context=64))
    g = drawn(9)
    for parameter in model.requires_grad_(False).parameters():
        draw = torch.randn(parameter.shape, generator=g)
        parameter.copy_(draw * parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 1 + 0.3 * draw)
    return model.double()


def _fold(reference, before, after, scales, source):
    bias = getattr(before, "bias", None)
    folded = reference["fold_scales"](
        {"weight": before.weight.data, "bias": None if bias is None else bias.data},
        [layer.weight.data for layer in after], scales, source,
    )  # fmt: skip
    before.weight.data = folded["before"]["weight"]
    if bias is not None:
        bias.data = folded["before"]["bias"]
    for layer, weight in zip(after, folded["after"], strict=True):
        layer.weight.data = weight


def test_folding_leaves_a_transformer_as_it_was(reference, transformer):
    """Every fold that AWQ makes, in float64: norm into q, k, v and gate, up; v into o; up into down."""
    tokens = torch.randint(31, (2, 17), generator=drawn(10))
    before, g, config = transformer(tokens), drawn(13), transformer.config

    def scales(count: int) -> torch.Tensor:
        return torch.exp(torch.randn(count, generator=g, dtype=torch.float64))

    values = config.kv_heads * config.head_width
    heads = torch.arange(values).view(config.kv_heads, config.head_width)
    read_by_o = heads.repeat_interleave(config.heads // config.kv_heads, 0).flatten()
    for layer in transformer.layers:
        attention, mlp = layer.self_attn, layer.mlp
        every = torch.arange(config.width)
        _fold(reference, layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj],
              scales(config.width), every)  # fmt: skip
        _fold(reference, layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], scales(config.width), every)
        _fold(reference, attention.v_proj, [attention.o_proj], scales(values), read_by_o)
        _fold(reference, mlp.up_proj, [mlp.down_proj], scales(config.ff), torch.arange(config.ff))
    assert not torch.equal(transformer(tokens), before)
    assert (transformer(tokens) - before).abs().max() <= 1e-9 * before.abs().max()


def _int8_error(reference, x, w, threshold=math.inf) -> float:
    exact = x.double() @ w.double().T
    return float((reference["int8_matmul"](x, w, threshold)["y"] - exact).norm() / exact.norm())


def test_one_loud_channel_ruins_eight_bits_and_two_methods_repair_it(reference):
    """The outlier dial: a channel of x times 100, its weights divided by as much. The product stays the same."""
    g = drawn(14)
    x, w = torch.randn(64, 96, generator=g), torch.randn(48, 96, generator=g) * 0.1
    quiet = _int8_error(reference, x, w)
    x[:, 5] *= 100
    w[:, 5] /= 100
    loud = _int8_error(reference, x, w)
    scales = reference["smooth_scales"](x, [w], 0.5)
    assert quiet < 0.02
    assert loud > 5 * quiet
    assert _int8_error(reference, x, w, 20.0) < 1.2 * quiet
    assert _int8_error(reference, x / scales, w * scales) < loud / 3
