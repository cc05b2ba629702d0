"""What a change costs: divergences, agreement and perplexities against direct computation in double precision."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.evaluate import Interval, Judgement, Reference, windows, with_weights
from fourbit.llm.loading import load
from fourbit.llm.model import Transformer
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

EPS = float(torch.finfo(torch.float32).eps)
CONFIG = LlmConfig("llama", 2, 32, 48, 4, 2, 8, 50, 1e4, 1e-5, tied=True, qkv_bias=False, context=128)


def made(seed: int, spread: float = 0.2, config: LlmConfig = CONFIG) -> Transformer:
    """A random model whose predictions are neither flat nor certain."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config).requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        scale = 0.5 if "embed" in name or "head" in name else spread
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.copy_(1 + noise if "norm" in name else noise)
    return model


def text(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, CONFIG.vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def error(model: Transformer, logits: Tensor) -> float:
    """How far float32 logits can be off: the longest sum has `ff` terms, and each layer makes four, then the head's."""
    return EPS * model.config.ff * (4 * model.config.layers + 1) * float(logits.abs().max())


def directly(reference: Transformer, changed: Transformer, rows: Tensor) -> tuple[list[tuple[float, ...]], float]:
    """Each window's divergence, agreement and negative log-likelihood, in float64, token by token.

    And how far those of float32 can be off. A log-probability is off by twice the logits' error e, hence a
    probability by a factor exp(2 e), so sum p (log p - log q) is by 4 e + (exp(2 e) - 1) sum p |log p - log q|.
    Texts in which two likeliest tokens are within 2 e of each other are not judged: either could be named.
    """
    found, most = [], 0.0
    first, second = copy.deepcopy(reference).double(), copy.deepcopy(changed).double()
    for row in rows:
        values = []
        for at in range(1, len(row)):
            logits = [model(row[None, :at])[0, -1] for model in (first, second)]
            p, q = (each.log_softmax(0) for each in logits)
            off = error(reference, torch.cat(logits))
            leads = [float(two[0] - two[1]) for two in (each.topk(2).values for each in logits)]
            assume(min(leads) > 2 * off)
            kl, apart = float((p.exp() * (p - q)).sum()), float((p.exp() * (p - q).abs()).sum())
            values.append((kl, float(p.argmax() == q.argmax()), -float(q[row[at]])))
            most = max(most, 4 * off + math.expm1(2 * off) * apart)
        found.append(tuple(sum(column) / len(values) for column in zip(*values, strict=True)))
    return found, most


CHANGES = st.tuples(st.integers(0, 10**6), st.floats(0.01, 3), st.booleans())


def changed_by(model: Transformer, seed: int, size: float) -> dict[str, Tensor]:
    """All parameters with noise of a relative `size`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.data + size * value.data.std() * torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
    }


@settings(max_examples=25, deadline=None)
@given(change=CHANGES)
def test_figures_are_those_of_a_direct_computation_in_float64(change: tuple[int, float, bool]) -> None:
    seed, size, tied = change
    model = made(seed, config=replace(CONFIG, tied=tied))
    rows = windows(text(60, seed), 8, 4)
    reference = Reference(model, rows)
    with with_weights(model, changed_by(model, seed + 1, size)):
        judged, other = reference.judge(model), copy.deepcopy(model)
    wanted, most = directly(model, other, rows)
    kl, same, nll = (Interval.of([window[i] for window in wanted]) for i in range(3))
    # Student's quantile times the spread of four values is at most 3.2 times what each can be off, so 5 for the ends.
    for part in ("mean", "low", "high"):
        assert getattr(judged.kl, part) == pytest.approx(getattr(kl, part), abs=5 * most)
        assert math.log(getattr(judged.perplexity, part)) == pytest.approx(getattr(nll, part), abs=5 * most)
    assert judged.top1 == same
    assert judged.tokens == 4 * 7


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), tied=st.booleans())
def test_a_model_does_not_diverge_from_itself(seed: int, tied: bool) -> None:
    model = made(seed, config=replace(CONFIG, tied=tied))
    rows = windows(text(64, seed), 16, 4)
    judged = Reference(model, rows).judge(model)
    # The head is applied to other numbers of rows, and may sum in another order; p (log p - log q) is off by 2 e.
    most = 2 * EPS * CONFIG.width * float(model(rows).abs().max())
    assert abs(judged.kl.mean) <= most
    assert judged.top1 == Interval(1, 1, 1)


@settings(max_examples=40, deadline=None)
@given(change=CHANGES)
def test_divergence_is_never_negative_and_shares_are_shares(change: tuple[int, float, bool]) -> None:
    seed, size, tied = change
    model = made(seed, config=replace(CONFIG, tied=tied))
    rows = windows(text(40), 10, 4)
    most = 2 * error(model, model(rows))
    reference = Reference(model, rows)
    with with_weights(model, changed_by(model, seed, size)):
        judged = reference.judge(model)
    assert judged.kl.mean >= -most
    assert 0 <= judged.top1.mean <= 1
    assert judged.perplexity.mean >= 1
    assert judged.perplexity.low <= judged.perplexity.mean <= judged.perplexity.high


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity() -> None:
    model, rows = made(0, config=replace(CONFIG, tied=False)), windows(text(64), 16, 4)
    reference = Reference(model, rows)
    with with_weights(model, {"lm_head.weight": torch.zeros(CONFIG.vocabulary, CONFIG.width)}):
        judged = reference.judge(model)
    # All logits are 0 exactly; log_softmax rounds log(50) once, and exp makes an absolute error a relative one.
    assert judged.perplexity.mean == pytest.approx(CONFIG.vocabulary, rel=4 * math.log(CONFIG.vocabulary) * EPS)
    logs = model(rows)[:, :-1].double().log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1).mean()
    bound = 4 * error(model, model(rows))
    assert judged.kl.mean == pytest.approx(math.log(CONFIG.vocabulary) - float(entropy), abs=bound)


def test_a_broken_model_is_a_result_and_no_crash() -> None:
    model, rows = made(0, config=replace(CONFIG, tied=False)), windows(text(64), 16, 4)
    reference, head = Reference(model, rows), model.lm_head.weight.data
    with with_weights(model, {"lm_head.weight": head * -1e6}):
        judged = reference.judge(model)
    assert judged.perplexity.mean == math.inf
    assert judged.kl.low <= judged.kl.mean <= judged.kl.high
    assert 1000 < judged.kl.mean < math.inf
    with with_weights(model, {"lm_head.weight": head * math.nan}):
        broken = reference.judge(model)
    assert math.isnan(broken.perplexity.mean)
    assert math.isnan(broken.kl.mean)
    assert (broken.kl.low, broken.kl.high) == (-math.inf, math.inf)


def test_a_reference_keeps_its_answers_whatever_becomes_of_the_model() -> None:
    model, rows = made(0), windows(text(64), 16, 4)
    untouched, reference = copy.deepcopy(model), Reference(model, rows)
    before = reference.judge(untouched)

    def refuse(*_: object) -> None:
        raise AssertionError("the reference model ran again")

    with with_weights(model, changed_by(model, 1, 1.0)):
        model.forward = refuse  # type: ignore[method-assign]
        after = reference.judge(untouched)
    assert without_time(after) == without_time(before)
    assert abs(before.kl.mean) < 1e-5 < Reference(made(1), rows).judge(untouched).kl.mean


def without_time(judged: Judgement) -> Judgement:
    return replace(judged, seconds=0.0)


def test_figures_are_means_over_windows_alone() -> None:
    """The order of the windows changes nothing, and each is judged without a look at the others."""
    model, rows = made(0), windows(text(64), 16, 4)
    other = made(5)
    whole = Reference(model, rows).judge(other)
    alone = [Reference(model, row[None]).judge(other) for row in rows]
    assert without_time(Reference(model, rows.flip(0)).judge(other)).kl.mean == pytest.approx(whole.kl.mean, rel=1e-15)
    assert whole.kl == Interval.of([judged.kl.mean for judged in alone])
    assert whole.top1 == Interval.of([judged.top1.mean for judged in alone])
    assert all((judged.kl.low, judged.kl.high) == (-math.inf, math.inf) for judged in alone)
    assert all((judged.perplexity.low, judged.perplexity.high) == (0, math.inf) for judged in alone)


def test_the_pocket_model_against_itself_and_without_a_layer(pocket_path: Path) -> None:
    loaded = load(pocket_path)
    rows = windows(loaded.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 10), 24, 3)
    reference = Reference(loaded.model, rows)
    itself = reference.judge(loaded.model)
    most = 2 * EPS * loaded.config.width * float(loaded.model(rows).abs().max())
    assert abs(itself.kl.mean) <= most
    assert itself.top1.mean == 1
    name = "layers.29.mlp.down_proj.weight"
    with with_weights(loaded.model, {name: torch.zeros(loaded.config.shapes()[name])}):
        broken = reference.judge(loaded.model)
    assert broken.kl.mean > 0.1 > 10 * most
    again = reference.judge(loaded.model)
    assert without_time(again) == without_time(itself)


# intervals


def test_an_interval_is_that_of_a_textbook() -> None:
    # mean 5, deviation sqrt(32/7) = 2.13809, n = 8, t(7) = 2.36462: 5 -+ 2.36462 * 2.13809 / sqrt(8) = 5 -+ 1.78748
    found = Interval.of([2, 4, 4, 4, 5, 5, 7, 9])
    # The table has four decimals, so half of 1e-4 of 2.1 / sqrt(8) at most.
    assert (found.mean, found.low, found.high) == (
        5,
        pytest.approx(3.21252, abs=6e-5),
        pytest.approx(6.78748, abs=6e-5),
    )
    # Two values: t(1) = 12.7062 times half their distance.
    assert Interval.of([1.0, 3.0]) == Interval(2, pytest.approx(-10.7062), pytest.approx(14.7062))
    assert Interval.of([3.0]) == Interval(3.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("count", "quantile"), [(2, 12.7062), (3, 4.3027), (6, 2.5706), (12, 2.2010), (20, 2.0930), (21, 2.0860)]
)
def test_the_quantile_is_that_of_one_degree_less_than_there_are_values(count: int, quantile: float) -> None:
    values = [float(i) for i in range(count)]
    deviation = math.sqrt((count**2 - 1) / 12 * count / (count - 1))  # of 0 ... n - 1
    found = Interval.of(values)
    assert found.high - found.mean == pytest.approx(quantile * deviation / math.sqrt(count), rel=1e-12)


def test_many_values_are_not_trusted_too_much() -> None:
    """Above the table's end the interval is a little too wide: t(20) = 2.086 for 1.960."""
    found = Interval.of([0.0, 1.0] * 200)
    assert 1.95 < (found.high - found.mean) / (math.sqrt(100 / 399) / 20) < 2.09


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=30), shift=st.floats(-100, 100))
def test_an_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    found, moved = Interval.of(values), Interval.of([value + shift for value in values])
    assert found.low <= found.mean <= found.high
    # Adding rounds each value by 200 eps at most, and t / sqrt(n) is below 9.
    for part in ("mean", "low", "high"):
        assert getattr(moved, part) == pytest.approx(getattr(found, part) + shift, abs=1e-11)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    draw = random.Random(0)
    trials = 4000
    held = 0
    for _ in range(trials):
        found = Interval.of([draw.gauss(3, 2) for _ in range(6)])
        held += found.low <= 3 <= found.high
    # Four standard deviations of a share of 0.95 among 4,000.
    assert held / trials == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / trials))


# windows


@settings(max_examples=300, deadline=None)
@given(data=st.data(), length=st.integers(1, 40), count=st.integers(1, 12))
def test_windows_lie_in_the_text_evenly_and_never_overlap(data: st.DataObject, length: int, count: int) -> None:
    size = data.draw(st.integers(length * count, length * count + 300))
    rows = windows(range(size), length, count)
    assert (rows.shape, rows.dtype) == ((count, length), torch.int64)
    assert torch.equal(rows, rows[:, :1] + torch.arange(length))  # each a piece of the text as it stands there
    assert len(rows.unique()) == rows.numel()
    assert rows[0, 0] == 0
    assert rows.max() < size
    steps = rows[1:, 0] - rows[:-1, 0]
    assert (steps == size // count).all()


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 40), count=st.integers(1, 12), data=st.data())
def test_a_text_too_short_is_told(length: int, count: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, length * count - 1))
    with pytest.raises(ModelError, match=rf"{count} windows of {length} tokens do not fit into a text of {size}"):
        windows(range(size), length, count)


# weights for a while


def storages(model: Transformer) -> dict[str, int]:
    return {name: value.data_ptr() for name, value in model.named_parameters()}


def test_weights_are_others_for_a_while_without_a_copy() -> None:
    model, tokens = made(0), windows(text(32), 16, 2)
    before, at, logits = copy.deepcopy(model.state_dict()), storages(model), model(tokens)
    new = changed_by(model, 1, 0.5)
    with with_weights(model, new):
        assert {name: value.data_ptr() for name, value in model.named_parameters()} == {
            name: value.data_ptr() for name, value in new.items()
        }
        assert model.lm_head.weight is model.embed_tokens.weight
        assert not torch.equal(model(tokens), logits)
    assert storages(model) == at
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(tokens), logits)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_the_old_weights_come_back_after_a_failure(failure: type[BaseException]) -> None:
    model = made(0)
    at, inside = storages(model), dict[str, int]()

    def fail() -> None:
        with with_weights(model, changed_by(model, 1, 0.5)):
            inside.update(storages(model))
            raise failure

    with pytest.raises(failure):
        fail()
    assert set(inside.values()).isdisjoint(at.values())
    assert storages(model) == at


def test_changes_nest() -> None:
    model = made(0)
    name, norm = "layers.0.mlp.up_proj.weight", "norm.weight"
    weights = dict(model.named_parameters())
    at, first, second = storages(model), torch.ones(48, 32), torch.zeros(48, 32)
    with with_weights(model, {name: first, norm: torch.ones(32)}):
        with with_weights(model, {name: second}):
            assert torch.equal(weights[name], second)
            assert torch.equal(weights[norm], torch.ones(32))
        assert torch.equal(weights[name], first)
    assert storages(model) == at


def test_what_does_not_fit_changes_nothing() -> None:
    model = made(0)
    at, good = storages(model), {"norm.weight": torch.ones(32)}
    with (
        pytest.raises(ModelError, match=r"no parameter layers\.7\.mlp"),
        with_weights(model, {**good, "layers.7.mlp.up_proj.weight": torch.ones(48, 32)}),
    ):
        pass
    with (
        pytest.raises(ModelError, match=r"up_proj\.weight has shape \(48, 32\), not \(32, 48\)"),
        with_weights(model, {**good, "layers.0.mlp.up_proj.weight": torch.ones(32, 48)}),
    ):
        pass
    assert storages(model) == at
