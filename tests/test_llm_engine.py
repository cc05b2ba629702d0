"""The engine against the plain transformer, transformers and llama.cpp; its cache, its sampling, its stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.errors import ModelError
from fourbit.llm.engine import Engine
from fourbit.llm.folder import CheckpointFolder
from fourbit.llm.gguf_file import GgufFile, encoded, write_gguf
from fourbit.llm.kv import KVCache, row_bytes
from fourbit.llm.loading import Loaded, assemble, load
from fourbit.llm.model import Transformer, generate_greedy
from fourbit.llm.sampling import Sampling
from fourbit.llm.streaming import Piece, StopStrings
from tests.llama_cpp import LlamaCpp
from tests.llm_fixtures import VARIANTS, rounding, theirs, vocabulary
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

PROMPTS = (
    "What is the capital of France?",
    "Name three primary colors.",
    "Why is the sky blue?",
    "Write a sentence about the sea.",
    "How many legs does a spider have?",
    "Translate 'good morning' into French.",
    "What is two plus two?",
    "Tell me about the city of Bath.",
    "Give me a recipe for pancakes.",
    "Who wrote Pride and Prejudice?",
    "What do bees make?",
    "Explain gravity to a child.",
    "List the days of the week.",
    "What is the opposite of hot?",
    "Describe a cat in one sentence.",
    "What is a computer made of?",
    "Why do leaves fall in autumn?",
    "How do I make tea?",
    "What is the largest planet?",
    "Say something kind.",
)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Transformer]:
    """A random model as a GGUF file of float32 matrices, and the same in plain PyTorch."""
    folder = tmp_path_factory.mktemp("checkpoint")
    theirs(request.param).save_pretrained(folder)
    source, path = CheckpointFolder(folder), folder / "model.gguf"
    write_gguf(path, source.config, {n: source.tensor(n) for n in source.names()}, vocabulary(source.config.vocabulary))
    return path, assemble(source)


def some(count: int) -> list[int]:
    return torch.randint(3, 320, (count,), generator=torch.Generator().manual_seed(1)).tolist()


def logits_of(model: Transformer, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens]))[0]
    return logits


def assert_near(ours: torch.Tensor, wanted: torch.Tensor, most: float) -> None:
    apart = float((ours - wanted).abs().max())
    assert apart <= most, f"logits differ by {apart:.1e}; at most {most:.1e} is explained"


# the same function


def test_logits_equal_the_plain_transformers(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    tokens = some(90)
    wanted = logits_of(model, tokens)
    assert_near(Engine.open(path, cache="f32").scores(tokens), wanted, rounding(model.config, wanted))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_prompt_in_chunks_is_the_prompt(variant: tuple[Path, Transformer], chunk: int) -> None:
    path, model = variant
    tokens = some(65)
    wanted = logits_of(model, tokens)[-1]
    engine = Engine.open(path, cache="f32")
    assert_near(engine.prefill(tokens[:5], chunk), logits_of(model, tokens[:5])[-1], rounding(model.config, wanted))
    assert_near(engine.prefill(tokens[5:], chunk), wanted, rounding(model.config, wanted))
    assert engine.length == 65


def test_what_was_cut_off_is_forgotten(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    tokens, other = some(40), some(50)[40:]
    engine = Engine.open(path, cache="f32")
    engine.prefill(tokens)
    engine.truncate(20)
    wanted = logits_of(model, tokens[:20] + other)[-1]
    assert_near(engine.prefill(other), wanted, rounding(model.config, wanted))


def test_greedy_text_is_the_plain_transformers(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    tokens = some(9)
    engine, text = Engine.open(path, cache="f32"), []
    logits = engine.prefill(tokens)
    for _ in range(24):
        text.append(int(logits.argmax()))
        logits = engine.step(text[-1])
    assert text == generate_greedy(model, tokens, 24)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16"])
def test_rounded_matrices_give_what_their_values_give(kind: str, tmp_path: Path) -> None:
    """All that separates the two is the rounding of each matrix's input to 8 bits; none for float16 matrices."""
    folder = tmp_path / "folder"
    theirs("mistral").save_pretrained(folder)
    source, path = CheckpointFolder(folder), tmp_path / "model.gguf"
    stored = {
        name: encoded(value, kind) if (value := source.tensor(name)).ndim == 2 else value for name in source.names()
    }
    write_gguf(path, source.config, stored, vocabulary(source.config.vocabulary))
    wanted = logits_of(assemble(GgufFile(path)), some(60))
    ours = Engine.open(path, cache="f32").scores(some(60))
    if kind == "F16":
        assert_near(ours, wanted, rounding(source.config, wanted))
    else:
        # An input is off by at most 1/254 of the largest of its 32: relatively 1/254 * amax/rms / sqrt(3), about 0.006
        # for a normal distribution; each of the 4 L + 1 matrix products in a row adds as much, in quadrature.
        error = float((ours - wanted).square().mean().sqrt() / wanted.std())
        assert error < 0.006 * (4 * source.config.layers + 1) ** 0.5 * 3


# the pocket model


@pytest.fixture(scope="module")
def pocket(pocket_path: Path) -> Loaded:
    return load(pocket_path)


@pytest.fixture(scope="module")
def engine(pocket_path: Path) -> Engine:
    return Engine.open(pocket_path, context=512, cache="f32")


@pytest.fixture(scope="module")
def other(pocket_path: Path) -> Iterator[LlamaCpp]:
    yield LlamaCpp(pocket_path, exact=True)


def test_it_answers(engine: Engine) -> None:
    pieces = list(engine.chat([{"role": "user", "content": PROMPTS[0]}], limit=40))
    assert "Paris" in "".join(piece.text for piece in pieces)
    assert pieces[-1].reason == "stop"
    assert [piece.reason for piece in pieces[:-1]] == [""] * (len(pieces) - 1)
    assert engine.timing.tokens == pieces[-1].token_count


def test_the_second_question_reads_only_what_is_new(engine: Engine) -> None:
    talk = [{"role": "user", "content": PROMPTS[1]}]
    answer = "".join(piece.text for piece in engine.chat(talk, limit=12))
    assert engine.timing.reused > 0  # the system message before it
    held = engine.length
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And their opposites?"}]
    list(engine.chat(talk, limit=4))
    assert engine.timing.reused >= held - 2
    again = Engine.open(engine.path, context=512, cache="f32")
    assert "".join(p.text for p in again.chat(talk, limit=4)) == "".join(p.text for p in engine.chat(talk, limit=4))


@pytest.mark.parametrize("cache", ["f16", "q8", "q4"])
def test_a_smaller_cache_says_nearly_the_same(engine: Engine, cache: str) -> None:
    text = engine.tokenizer.encode("It is a truth universally acknowledged, that a single man in possession of " * 4)
    engine.truncate(0)
    wanted = engine.scores(text).log_softmax(-1)
    small = Engine.open(engine.path, context=512, cache=cache)
    found = small.scores(text).log_softmax(-1)
    divergence = float((wanted.exp() * (wanted - found)).sum(-1).mean())
    assert divergence < {"f16": 1e-4, "q8": 2e-3, "q4": 0.3}[cache]
    assert small.cache_bytes == engine.cache_bytes * {"f16": 16, "q8": 8.5, "q4": 4.5}[cache] / 32


# what cannot be


def test_what_does_not_fit_is_told_and_nothing_is_lost(variant: tuple[Path, Transformer]) -> None:
    path, _ = variant
    engine = Engine.open(path, context=32)
    engine.prefill(some(20))
    with pytest.raises(ModelError, match="33 tokens do not fit into a context of 32"):
        engine.prefill(some(13))
    assert engine.length == 20
    with pytest.raises(ModelError, match="leaves no room"):
        engine.generate(some(32))
    with pytest.raises(ModelError, match="no token"):
        engine.prefill([])
    with pytest.raises(ModelError, match="between 0 and 319; these reach 320"):
        engine.prefill([320])
    with pytest.raises(ModelError, match="cannot be cut to 21"):
        engine.truncate(21)
    with pytest.raises(ModelError, match="at least one token"):
        engine.generate(some(3), limit=0)
    with pytest.raises(ModelError, match="context of 2 to 512"):
        Engine.open(path, context=1)
    with pytest.raises(ModelError, match="f32, f16, q8, q4"):
        Engine.open(path, cache="q5")


def test_a_full_context_ends_the_answer(variant: tuple[Path, Transformer]) -> None:
    engine = Engine.open(variant[0], context=16)
    pieces = list(engine.generate(some(10)))
    assert pieces[-1].reason == "context"
    assert pieces[-1].token_count == 7  # six go into the cache, and the last one needs no place
    assert list(engine.generate(some(10), limit=3))[-1].reason == "length"


def test_a_checkpoint_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    theirs("mistral").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="save_artifact"):
        Engine.open(tmp_path)


def test_rows_of_a_cache_have_the_bytes_of_their_kind() -> None:
    assert [row_bytes(64, kind) for kind in ("f32", "f16", "q8", "q4")] == [256, 128, 68, 36]
    with pytest.raises(ModelError, match="no multiple"):
        row_bytes(48, "q4")


# sampling


def test_greedy_takes_the_first_of_the_most_likely() -> None:
    assert Sampling().choose(torch.tensor([0.0, 3.0, 3.0]), torch.Generator()) == 1


@given(
    st.integers(2, 1500), st.integers(0, 40), st.floats(0.05, 1), st.floats(0, 0.9), st.floats(0.1, 5), st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_only_likely_tokens_are_candidates(n: int, k: int, p: float, m: float, temperature: float, seed: int) -> None:
    logits = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 4
    tokens, shares = Sampling(temperature, k, p, m).candidates(logits)
    whole = (logits.double() / temperature).softmax(-1)
    order = whole.argsort(descending=True)[: k or n]
    cut = whole[order] / whole[order].sum()
    kept = (cut.cumsum(0) - cut) < p
    kept &= cut >= m * cut[0]
    # float32 sums decide cuts that fall within their rounding of a border
    assert abs(len(tokens) - int(kept.sum())) <= 1
    assert tokens.tolist() == order[: len(tokens)].tolist()
    wanted = cut[: len(tokens)] / cut[: len(tokens)].sum()
    assert float((shares - wanted).abs().max()) < 1e-4


def test_draws_follow_the_distribution() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    source = sampling.generator()
    counts = np.bincount([sampling.choose(logits, source) for _ in range(4000)], minlength=4)
    wanted = np.array([0.5, 0.3, 0.15, 0.05]) * 4000
    assert ((counts - wanted) ** 2 / wanted).sum() < 16.27  # chi-square, 3 degrees of freedom, 1 in 1,000
    again = sampling.generator()
    assert [sampling.choose(logits, again) for _ in range(9)] == [
        sampling.choose(logits, source) for source in [sampling.generator()] for _ in range(9)
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"temperature": 1e9}, {"top_k": -1}, {"top_p": 0}]
    + [{"top_p": 1.5}, {"min_p": 1}, {"seed": -1}],
)
def test_absurd_parameters_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(wrong))} is "):
        Sampling(**wrong)


def test_logits_that_are_no_numbers_are_told() -> None:
    with pytest.raises(ModelError, match="not finite"):
        Sampling().choose(torch.tensor([0.0, float("nan")]), torch.Generator())


# stops


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
@settings(deadline=None)
def test_what_is_shown_ends_before_the_first_stop_string(text: str, stops: list[str], data: st.DataObject) -> None:
    found = [text.find(stop) for stop in stops if stop in text]
    filter_, shown, at, ended = StopStrings(stops), "", 0, False
    while at < len(text) and not ended:
        step = data.draw(st.integers(1, 5))
        part, ended = filter_.feed(text[at : at + step])
        shown, at = shown + part, at + step
        assert not any(stop in shown for stop in stops)
    shown += filter_.rest()
    assert ended == bool(found)
    if ended:  # the stop string that is complete first ends the text
        first = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        assert shown == text[: len(shown)]
        assert len(shown) < first
    else:
        assert shown == text


def test_stop_strings_end_an_answer(engine: Engine) -> None:
    talk = [{"role": "user", "content": PROMPTS[0]}]
    whole = "".join(piece.text for piece in engine.chat(talk, limit=40))
    assert " of France" in whole
    pieces = list(engine.chat(talk, limit=40, stop=[" of Fra"]))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(" of Fra")]
    assert pieces[-1] == Piece(pieces[-1].text, pieces[-1].token_count, "stop")
    with pytest.raises(ModelError, match="stop strings"):
        engine.chat(talk, stop=[""])


def test_signs_of_several_tokens_come_whole(engine: Engine) -> None:
    text = "naïve \N{GRINNING FACE} 漢字"
    step = engine.tokenizer.stream()
    parts = [step(token) for token in engine.tokenizer.encode(text)]
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts)


def test_the_cache_is_taken_once(pocket: Loaded) -> None:
    cache = KVCache(pocket.config, 64, "f16")
    place = cache.keys(0).ctypes.data
    keys = torch.randn(10, pocket.config.kv_heads, pocket.config.head_width)
    cache.store(0, keys, keys)
    cache.advance(10)
    assert cache.keys(0).ctypes.data == place
    assert torch.equal(torch.from_numpy(cache.keys(0)[:, :10].copy()), keys.half().transpose(0, 1))
