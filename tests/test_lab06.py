"""Lab 06: its exam tells right from wrong, its examples run, and its answers agree with other implementations."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.exam.engines import FAULTS, TinyEngine
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.reference import load_lab, variant
from fourbit.llm.config import LlmConfig
from fourbit.llm.model import Transformer
from tests.lab_checks import (
    assert_complete,
    assert_example_runs,
    assert_judge_is_silent,
    assert_other_cases,
    assert_published,
)

EXERCISES = (
    "rope", "kv_cache", "attend", "is_consistent", "read_prompt", "fold_tile", "sample", "stream", "quantize_kv",
    "latencies", "verify", "draft_length",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions/06-inference")


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def doubles(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions/06-inference", tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert (tmp_path / "06-inference/visible/pack.safetensors").stat().st_size < 2_000_000
    assert_published(lab, rows, seed)


def test_each_exercise_has_its_mistakes_and_an_alternative(lab):
    assert_complete(lab)


def test_the_points_make_95_with_5_for_written_answers(lab):
    assert sum(exercise.points for exercise in lab.exam.exercises) == 95


def test_hidden_cases_are_other_cases(lab):
    assert_other_cases(lab)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_docstring_examples_run(reference, exercise):
    shown = {**reference, "kv_cache": reference["KVCache"]}  # that exercise is a class; its entry replays steps on it
    assert_example_runs(shown, exercise)


def test_the_judge_holds_no_solution(lab):
    assert_judge_is_silent(lab)


# An engine of the lab's parts against the model without a cache, in float64.


@pytest.fixture(scope="module")
def transformer():
    """Two query heads share each head of keys."""
    sizes = (2, 24, 40, 4, 2, 6)  # layers, width, ff, heads, kv_heads, head_width
    model = Transformer(LlmConfig("llama", *sizes, 31, 1e4, 1e-5, tied=False, qkv_bias=False, context=64))
    g = drawn(9)
    for parameter in model.requires_grad_(False).parameters():
        draw = torch.randn(parameter.shape, generator=g)
        parameter.copy_(1.5 * draw * parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 1 + 0.3 * draw)
    return model.double()


class LabEngine:
    """As in the lab's notebook: rope, KVCache and attend of the reference; the rest is the model's own."""

    def __init__(self, reference, model, batch=1, capacity=24):
        self.parts, self.model, self.config, self.context = reference, model, model.config, capacity
        sizes = (batch, self.config.kv_heads, capacity, self.config.head_width)
        self.caches = [reference["KVCache"](*sizes, dtype=torch.float64) for _ in model.layers]
        self.tokens, self.reads = [], []

    def states(self, tokens):
        places = torch.tensor(self.caches[0].lengths)[:, None] + torch.arange(tokens.shape[1])
        x = self.model.embed_tokens(tokens)
        for layer, cache in zip(self.model.layers, self.caches, strict=True):
            own, normed = layer.self_attn, layer.input_layernorm(x)
            q, k, v = (project(normed).unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)
                       for project in (own.q_proj, own.k_proj, own.v_proj))  # fmt: skip
            q, k = (self.parts["rope"](part, places, self.config.rope_theta) for part in (q, k))
            cache.append(k, v)
            mixed = self.parts["attend"](q, *cache.view(), cache.lengths)
            x = x + own.o_proj(mixed.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.lm_head(self.model.norm(x))

    def forward(self, tokens):
        logits = self.states(torch.tensor([list(tokens)]))[0]
        self.tokens += list(tokens)
        self.reads.append(len(tokens))
        return logits

    def truncate(self, length):
        del self.tokens[length:]
        for cache in self.caches:
            cache.truncate([length])


def _apart(ours, theirs) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


# The model's angles are float32 (relative 2^-24, places to 24, a few layers); the lab's are float64.
NEAR = 1e-5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_cached_logits_are_those_without_a_cache_however_a_text_is_cut(reference, transformer, seed, cuts):
    text = torch.randint(31, (min(sum(cuts), 24),), generator=drawn(seed)).tolist()
    engine, rows = LabEngine(reference, transformer), []
    for size in cuts:
        part = text[len(engine.tokens) : len(engine.tokens) + size]
        rows += [engine.forward(part)] if part else []
    assert _apart(torch.cat(rows), transformer(torch.tensor([text]))[0]) <= NEAR


def test_a_batch_of_texts_of_different_lengths_is_each_text_alone(reference, transformer):
    """Padded behind their ends, read together, cut back, and continued token by token."""
    g, lengths = drawn(3), [3, 9, 6]
    texts = [torch.randint(31, (n + 4,), generator=g).tolist() for n in lengths]
    engine = LabEngine(reference, transformer, batch=3)
    padded = [text[:n] + [0] * (max(lengths) - n) for text, n in zip(texts, lengths, strict=True)]
    engine.states(torch.tensor(padded))
    for cache in engine.caches:
        cache.truncate(lengths)
    for i in range(4):
        logits = engine.states(torch.tensor([[text[n + i]] for text, n in zip(texts, lengths, strict=True)]))
    for row, text in enumerate(texts):
        assert _apart(logits[row, -1], transformer(torch.tensor([text]))[0, -1]) <= NEAR


def test_a_conversation_reads_only_what_is_new_and_answers_as_before(reference, transformer):
    first = torch.randint(31, (9,), generator=drawn(5)).tolist()
    second = [*first[:7], 1, 2, 3, 4]
    engine = LabEngine(reference, transformer)
    reference["read_prompt"](engine, first, 4)
    out = reference["read_prompt"](engine, second, 3)
    assert (out["reused"], out["reads"]) == (7, [4, 4, 1, 3, 1])
    assert _apart(out["logits"], transformer(torch.tensor([second]))[0, -1]) <= NEAR
    with pytest.raises(ValueError, match="25"):
        reference["read_prompt"](engine, list(range(25)), 3)
    assert engine.tokens == second


def test_the_lab_engine_passes_the_lab_test(reference, transformer):
    assert reference["is_consistent"](LabEngine(reference, transformer), list(range(14)))


# The fixture that students drive and test.


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tiny_engine_is_right_or_has_its_fault(reference, fault):
    """At twelve seeds each: the fault shows in the logits far above rounding, and a right engine is accepted."""
    for seed in range(12):
        text = torch.randint(19, (14 + seed % 5,), generator=drawn(seed)).tolist()
        engine = TinyEngine(seed, fault=fault, filled=text[3:6])
        assert reference["is_consistent"](engine, text) is (fault in ("", "noise")), seed


def test_a_tiny_engine_refuses_what_does_not_fit():
    engine = TinyEngine(1, context=4)
    engine.forward([1, 2, 3])
    with pytest.raises(RuntimeError, match="2 tokens behind 3"):
        engine.forward([1, 2])
    with pytest.raises(RuntimeError, match="cut to 4"):
        engine.truncate(4)
    assert engine.tokens == [1, 2, 3]


# Rope and attention.


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 9000), st.integers(0, 9000), st.integers(0, 5000))
def test_products_depend_on_the_distance_only(reference, seed, m, n, shift):
    """Angles in float64 are known to 14,000 * 2^-53 = 2e-12; so are products of vectors of length about 4."""
    q, k = doubles(drawn(seed), 2, 1, 1, 1, 16)

    def product(a, b) -> float:
        turned = (reference["rope"](x, torch.tensor([[place]]), 1e4) for x, place in ((q, a), (k, b)))
        return float(torch.mul(*turned).sum())

    assert product(m, n) == pytest.approx(product(m + shift, n + shift), abs=1e-9)


def test_rope_is_that_of_transformers(reference):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    parameters = {"rope_type": "default", "rope_theta": 1e5}
    config = LlamaConfig(hidden_size=32, num_attention_heads=2, rope_parameters=parameters)
    x, places = torch.randn(2, 2, 7, 16, generator=drawn(4)), torch.arange(300, 307)[None].expand(2, -1)
    cos, sin = LlamaRotaryEmbedding(config)(x, places)
    theirs, _ = apply_rotary_pos_emb(x, x, cos, sin)
    # Theirs has float32 angles, up to 306, rounded three times on the way: 4 * 306 * 2^-24 = 7e-5 of a pair.
    assert (reference["rope"](x, places, 1e5) - theirs).abs().max() <= 7e-5 * 2 * x.abs().max()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.data())
def test_attention_is_torchs_on_what_each_text_has(reference, seed, kv_heads, shared, new, data):
    lengths = data.draw(st.lists(st.integers(new, 9), min_size=1, max_size=3))
    g, room = drawn(seed), max(lengths) + 2
    q = doubles(g, len(lengths), kv_heads * shared, new, 4)
    k, v = (doubles(g, len(lengths), kv_heads, room, 4) for _ in range(2))
    for row, n in enumerate(lengths):
        k[row, :, n:], v[row, :, n:] = math.inf, math.nan
    ours = reference["attend"](q, k, v, lengths)
    for row, n in enumerate(lengths):
        mask = torch.ones(new, n, dtype=torch.bool).tril(n - new)
        parts = (part[row, :, :n].repeat_interleave(shared, 0)[None] for part in (k, v))
        theirs = F.scaled_dot_product_attention(q[row][None], *parts, attn_mask=mask)[0]
        assert (ours[row] - theirs).abs().max() <= 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 5), min_size=1, max_size=8), st.floats(0.1, 300))
def test_tiles_in_any_cut_make_the_softmax(reference, seed, tiles, spread):
    g, total = drawn(seed), sum(tiles)
    scores, values = spread * doubles(g, 3, total), doubles(g, total, 2)
    scores[1, : total // 2] = -math.inf
    zero = torch.zeros(3, dtype=torch.float64)
    state = {"largest": zero - math.inf, "sum": zero, "mixed": torch.zeros(3, 2, dtype=torch.float64)}
    at = 0
    for size in tiles:
        state = reference["fold_tile"](state, scores[:, at : at + size], values[at : at + size])
        at += size
    exact = scores.softmax(-1) @ values
    assert (state["mixed"] / state["sum"][:, None] - exact).abs().max() <= 1e-12 * values.abs().max()


# Sampling.


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.floats(0.3, 3), st.integers(0, 20), st.floats(0.05, 0.99), st.floats(0, 0.5)
)  # fmt: skip
def test_cuts_are_those_of_transformers(reference, seed, temperature, k, p, m):
    from transformers.generation import logits_process as warpers

    logits = 2 * torch.randn(20, generator=drawn(seed)).double()
    steps = [warpers.TemperatureLogitsWarper(float(temperature))]
    steps += [warpers.TopKLogitsWarper(k)] if k else []
    steps += [warpers.TopPLogitsWarper(p), warpers.MinPLogitsWarper(m)]
    theirs = logits[None]
    for step in steps:
        theirs = step(torch.zeros(1, 1, dtype=torch.int64), theirs)
    ours = reference["sample"](logits, temperature, k, p, m, 0.5)["probabilities"]
    # A draw where a sum is within 1e-9 of p or m decides by rounding; it has probability 1e-7 and none was met.
    assert (ours - theirs[0].softmax(-1)).abs().max() <= 1e-9


def _chi_square(counts: torch.Tensor, law: torch.Tensor) -> float:
    expected = law * counts.sum()
    return float(((counts - expected).square() / expected)[expected > 0].sum())


def _surprising(freedom: int) -> float:
    """What a chi-square of this many degrees of freedom exceeds once in a million (Wilson and Hilferty, 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("cut", [(1.0, 0, 1.0, 0.0), (0.7, 6, 0.9, 0.02), (1.8, 0, 1.0, 0.1)])
def test_draws_follow_the_law(reference, cut):
    logits, g = 1.5 * torch.randn(12, generator=drawn(2)), drawn(8)
    uniform = torch.rand(20_000, generator=g, dtype=torch.float64).tolist()
    outs = [reference["sample"](logits, *cut, u) for u in uniform]
    law = outs[0]["probabilities"]
    counts = torch.bincount(torch.tensor([out["token"] for out in outs]), minlength=12).double()
    assert counts[law == 0].sum() == 0
    assert _chi_square(counts, law) < _surprising(int((law > 0).sum()) - 1)


# Stop strings.


def _cut_up(text: str, sizes) -> list[str]:
    pieces = []
    for size in itertools.cycle(sizes):
        if not text:
            return pieces
        pieces, text = [*pieces, text[:size]], text[size:]
    return pieces


@settings(max_examples=100, deadline=None)
@given(
    st.text("ab#", max_size=30),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.text("ab#", min_size=1, max_size=4),
)
def test_what_is_shown_does_not_depend_on_the_tokens(reference, text, sizes, stop):
    out = reference["stream"](_cut_up(text, sizes), [stop])
    assert "".join(out["shown"]) == text.partition(stop)[0]
    assert out["stopped"] is (stop in text)


@settings(max_examples=100, deadline=None)
@given(st.text("ab#", max_size=20), st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3))
def test_no_character_is_held_that_cannot_begin_a_stop_string(reference, text, stops):
    out, shown = reference["stream"](list(text), stops), ""
    for i, part in enumerate(out["shown"][: len(text)]):
        shown += part
        held = text[: i + 1].removeprefix(shown)
        assert out["stopped"] or not held or any(stop.startswith(held) for stop in stops)


# The rounded cache.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.sampled_from(["token", "channel"]), st.integers(1, 9),
       st.integers(1, 12))  # fmt: skip
def test_rounded_numbers_come_back_within_half_a_stored_step(reference, seed, bits, by, block, tokens):
    """Half a step, and what the roundings of low and scale to float16 can cut off at the ends of the range."""
    x = 3 * torch.randn(2, tokens, 5, generator=drawn(seed))
    q = reference["quantize_kv"](x, bits, by, block)
    each = 1 if by == "token" else block
    scale, low = (q[key].float().repeat_interleave(each, 1)[:, :tokens] for key in ("scale", "low"))
    bound = 0.5 * scale * (1 + 2.0 ** (bits - 10)) + 2.0**-11 * low.abs() + 1e-6
    assert ((reference["restored"](q, block) - x).abs() <= bound).all()


def test_a_loud_channel_spoils_scales_by_token_and_not_those_by_channel(reference):
    x = torch.randn(2, 64, 32, generator=drawn(6))
    x[:, :, 5] += 20  # far from zero for all tokens, as in keys

    def error(by) -> float:
        back = reference["restored"](reference["quantize_kv"](x, 4, by, 32), 32)
        quiet = torch.arange(32) != 5
        return float((back - x)[:, :, quiet].norm() / x[:, :, quiet].norm())

    assert error("token") > 3 * error("channel")


# Speculation: the law of what comes out, in one place and over two.


def _laws(seed: int, words: int) -> tuple[torch.Tensor, torch.Tensor]:
    target, draft = (1.5 * doubles(drawn(seed), 2, words)).softmax(-1)
    return target, draft


def _first_tokens(verify, target, draft, rounds, seed) -> torch.Tensor:
    g, counts = drawn(seed), torch.zeros(len(target), dtype=torch.float64)
    tokens = torch.multinomial(draft, rounds, replacement=True, generator=g).tolist()
    for token, (a, b) in zip(tokens, torch.rand(rounds, 2, generator=g, dtype=torch.float64).tolist(), strict=True):
        out = verify(torch.stack([target, target]), draft[None], [token], [a], b)
        counts[token if out["accepted"] else out["token"]] += 1
    return counts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_speculation_has_the_law_of_the_target(reference, seed):
    target, draft = _laws(seed, 7)
    counts = _first_tokens(reference["verify"], target, draft, 10_000, seed)
    assert _chi_square(counts, target) < _surprising(6)


@pytest.mark.parametrize("wrong", ["drawn-from-the-target", "absolute-difference", "probability-of-the-target",
                                   "never-by-chance", "ratio-turned-round"])  # fmt: skip
def test_the_statistical_test_finds_wrong_rules(lab, reference, wrong):
    """Its power: 10,000 rounds tell each wrong rule from the right one beyond any doubt."""
    patch = next(m for m in lab.exam["verify"].mistakes if m.id == wrong)
    verify = variant(reference, patch.apply(lab.source("verify")), "verify")["verify"]
    target, draft = _laws(2, 7)
    assert _chi_square(_first_tokens(verify, target, draft, 10_000, 4), target) > 3 * _surprising(6)


def test_two_speculated_tokens_have_the_joint_law(reference):
    """Laws that depend on the token before: pairs come out with P(first) P(second given first)."""
    g, words, rounds = drawn(11), 3, 20_000
    start, after = doubles(g, 2, words).softmax(-1), doubles(g, 2, words, words).softmax(-1)  # [target, draft]
    counts = torch.zeros(words, words, dtype=torch.float64)
    uniform = torch.rand(rounds, 6, generator=g, dtype=torch.float64).tolist()

    def draw(law, u) -> int:
        return int((law.cumsum(0) > u).nonzero()[0])

    for u in uniform:
        first = draw(start[1], u[0])
        second = draw(after[1, first], u[1])
        target = torch.stack([start[0], after[0, first], torch.ones(words).double() / words])
        out = reference["verify"](target, torch.stack([start[1], after[1, first]]), [first, second], u[2:4], u[4])
        text = [first, second][: out["accepted"]] + [out["token"]]
        if len(text) == 1:  # the next round begins with the target's law behind it
            text.append(draw(after[0, text[0]], u[5]))
        counts[text[0], text[1]] += 1
    assert _chi_square(counts.flatten(), (start[0][:, None] * after[0]).flatten()) < _surprising(words**2 - 1)


def test_the_share_of_accepted_tokens_is_the_overlap_of_the_laws(reference):
    target, draft = _laws(5, 7)
    both, g, kept, rounds = torch.stack([target, target]), drawn(5), 0, 5000
    tokens = torch.multinomial(draft, rounds, replacement=True, generator=g).tolist()
    for token, u in zip(tokens, torch.rand(rounds, generator=g, dtype=torch.float64).tolist(), strict=True):
        kept += reference["verify"](both, draft[None], [token], [u], 0.5)["accepted"]
    overlap = float(torch.minimum(target, draft).sum())
    assert abs(kept / rounds - overlap) < 5 * math.sqrt(overlap * (1 - overlap) / rounds)


def test_greedy_speculation_gives_the_greedy_text(reference, transformer):
    """Whatever is guessed: right, wrong and half-right guesses."""
    prompt, g = torch.randint(31, (4,), generator=drawn(1)).tolist(), drawn(2)
    plain = list(prompt)
    while len(plain) < 20:
        plain.append(int(transformer(torch.tensor([plain]))[0, -1].argmax()))
    engine, text = LabEngine(reference, transformer), list(prompt)
    text.append(int(reference["read_prompt"](engine, prompt, 4)["logits"].argmax()))
    while len(text) < 16:
        guess = [t if torch.rand(1, generator=g) < 0.7 else 0 for t in plain[len(text) : len(text) + 3]]
        rows = F.one_hot(engine.forward([text[-1], *guess]).argmax(-1), 31).double()
        out = reference["verify"](rows, F.one_hot(torch.tensor(guess), 31).double(), guess, [0.5] * 3, 0.5)
        text += [*guess[: out["accepted"]], out["token"]]
        engine.truncate(len(text) - 1)
    assert text == plain[: len(text)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_expected_tokens_are_those_of_a_simulation(reference, alpha):
    g, rounds = drawn(3), 20_000
    tokens = reference["draft_length"](alpha, 0.1, [1.0] * 6)["tokens"]
    passed = (torch.rand(rounds, 5, generator=g) < alpha).long().cumprod(1).sum(1) + 1.0
    assert abs(float(passed.mean()) - tokens[5]) <= 5 * float(passed.std()) / math.sqrt(rounds) + 1e-9


# A server's trace.


def test_a_batch_has_more_throughput_and_slower_tokens(reference):
    """Eight texts together, a step of 1.5 s for all, against one after the other, 1 s a token."""
    together = [{"arrived": 0.0, "started": 0.0, "tokens": [1.5 * (i + 1) for i in range(4)]} for _ in range(8)]
    alone = [{"arrived": 0.0, "started": 4.0 * n, "tokens": [4.0 * n + i + 1 for i in range(4)]} for n in range(8)]
    a, b = (SimpleNamespace(**reference["latencies"](trace, 10.0, 1.5)) for trace in (together, alone))
    assert (a.throughput, b.throughput) == (32 / 6, 1.0)
    assert (a.tpot[0], b.tpot[0]) == (1.5, 1.0)
    assert (a.ttft_p90, b.ttft_p90) == (1.5, 29.0)
    assert (a.within, b.within) == (8, 3)
