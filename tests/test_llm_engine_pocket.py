"""The engine on the pocket model: token for token what the plain transformer says, or a tie; against llama.cpp, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fourbit.llm.engine import Engine, decode_together
from fourbit.llm.generation import chat, generate
from fourbit.llm.gguf_file import GgufFile, write_gguf
from fourbit.llm.loading import Loaded, load
from fourbit.llm.speculative import PromptLookup, Speculation
from tests.llama_cpp import LlamaCpp
from tests.llm_fixtures import pocket as pocket_path
from tests.llm_plain import QUESTIONS, logits_at, rounded_inputs, shortfalls

__all__ = ["pocket_path"]

LENGTH = 64


@pytest.fixture(scope="module")
def pocket(pocket_path: Path) -> Loaded:
    return load(pocket_path)


@pytest.fixture(scope="module")
def engine(pocket_path: Path) -> Engine:
    return Engine.open(pocket_path, context=256, threads=1)


@pytest.fixture(scope="module")
def prompts(pocket: Loaded) -> list[list[int]]:
    template = pocket.tokenizer.chat
    texts = (template([{"role": "user", "content": question}]) for question in QUESTIONS)
    return [pocket.tokenizer.encode(text, special=False) for text in texts]


@pytest.fixture(scope="module")
def unpacked(pocket: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pocket model's weights as float32, whose products round nothing to 8 bits."""
    source, path = GgufFile(pocket.path), tmp_path_factory.mktemp("unpacked") / "f32.gguf"
    write_gguf(path, source.config, {name: source.tensor(name) for name in source.names()}, source.metadata)
    yield path
    path.unlink()


@pytest.mark.slow
def test_greedy_text_is_the_plain_transformers_token_for_token(
    pocket: Loaded, unpacked: Path, prompts: list[list[int]]
) -> None:
    """In float32 both, 20 prompts, 64 tokens each: by induction over the places, the same tokens before each of them.

    A tie would be two logits nearer than float32 holds them: hidden states reach 20,000, which it knows to 0.002.
    """
    engines = [Engine.open(unpacked, context=128, kv="f32")]
    engines += [engines[0].fork() for _ in prompts[1:]]
    logits = torch.stack([engine.forward(prompt) for engine, prompt in zip(engines, prompts, strict=True)])
    made = [logits.argmax(-1).tolist()]
    while len(made) < LENGTH:
        made.append(decode_together(engines, made[-1]).argmax(-1).tolist())
    texts = [list(text) for text in zip(*made, strict=True)]
    for prompt, text in zip(prompts, texts, strict=True):
        assert float(shortfalls(logits_at(pocket, prompt, text), text).max()) <= 0.002
    alone = generate(engines[0], prompts[8], limit=LENGTH, stop_tokens=())
    assert [piece.token for piece in alone] == texts[8]


@pytest.mark.slow
def test_in_four_bits_it_differs_only_in_ties_that_8_bit_activations_make(
    pocket: Loaded, engine: Engine, prompts: list[list[int]]
) -> None:
    """Every one of 20 x 64 tokens is the plain model's choice after the same tokens, or as good as a tie.

    The tolerance: the same rounding of activations in the plain model moves the distance between the logits of its two
    best tokens, in these places, by up to that much (0.97; the deviation is 0.15). A nearer pair is a tie to it.
    """
    moved, short, simulated = [], [], []
    for prompt in prompts:
        made = [piece.token for piece in generate(engine, prompt, limit=LENGTH, stop_tokens=())]
        exact = logits_at(pocket, prompt, made)
        with rounded_inputs(pocket.model):
            rounded = logits_at(pocket, prompt, made)
        best = exact.topk(2).indices
        moved.append((rounded - exact).gather(1, best).diff(dim=1)[:, 0])
        short.append(shortfalls(exact, made))
        simulated.append(rounded.argmax(-1) != exact.argmax(-1))
    most, fell = float(torch.cat(moved).abs().max()), torch.cat(short)
    assert len(fell) == 20 * LENGTH
    ties = fell[fell > 0]
    assert float(fell.max()) <= most, f"no tie: {ties.sort().values.tolist()}"
    assert float(ties.median()) <= 0.3  # twice the deviation
    # and there are not many more of them than that rounding makes
    count = int(torch.cat(simulated).sum())
    assert abs(len(ties) - count) <= 5 * count**0.5, f"{len(ties)} ties, {count} where the rounding is simulated"


def test_llama_cpp_agrees_up_to_the_rounding_of_both(engine: Engine, prompts: list[list[int]]) -> None:
    """llama.cpp rounds to 8 bits as well, but scales in float16: 0.1 nats apart on average, as each is from float."""
    other, apart = LlamaCpp(engine.path), list[float]()
    for prompt in (prompts[8], prompts[12]):
        steps = other.complete(prompt, 12)
        made = [step.token for step in steps]
        engine.truncate(0)
        ours = engine.forward([*prompt, *made], every=True)[len(prompt) - 1 : -1].log_softmax(-1)
        pairs = [(float(row[i]), p) for row, step in zip(ours, steps, strict=True) for i, p in step.likely.items()]
        apart += [abs(mine - p) for mine, p in pairs]
    assert sum(apart) / len(apart) <= 0.2


def test_it_answers(engine: Engine) -> None:
    made = chat(engine, [{"role": "user", "content": QUESTIONS[13]}], limit=150)
    pieces = list(made)
    text = "".join(piece.text for piece in pieces)
    assert text.startswith("The opposite of hot is cold.")
    assert pieces[-1].finish == "stop"
    assert "<|" not in text
    assert made.usage.new_tokens == len(pieces)


def test_the_second_question_reads_only_what_is_new(engine: Engine) -> None:
    talk = [{"role": "user", "content": QUESTIONS[8]}]
    answer = "".join(piece.text for piece in chat(engine, talk, limit=12))
    held = engine.length
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And without eggs?"}]
    made = chat(engine, talk, limit=4)
    assert made.usage.reused_tokens >= held - 8
    list(made)


def test_prompt_lookup_is_right_where_a_text_repeats_itself(engine: Engine) -> None:
    """As many tokens at once as the kernels give the logits that they give one: the same text, bit for bit."""
    talk = [{"role": "user", "content": "Repeat this: one two three four five six seven eight nine ten."}]
    whole = [piece.token for piece in chat(engine, talk, limit=40)]
    speculation = Speculation(PromptLookup())
    assert [piece.token for piece in chat(engine, talk, limit=40, speculation=speculation)] == whole
    assert speculation.passes < len(whole) - 1
    assert speculation.acceptance > 0.2


@pytest.mark.slow
def test_a_smaller_cache_says_nearly_the_same(unpacked: Path) -> None:
    """With nothing else rounded: 2e-6 nats of divergence in f16, 1e-3 in q8, 0.3 in q4 on these repeated lines."""
    whole = Engine.open(unpacked, kv="f32", context=256, threads=1)
    text = whole.tokenizer.encode("It is a truth universally acknowledged, that a single man in possession of " * 4)
    wanted, found = whole.forward(text, every=True).log_softmax(-1), {}
    for kv in ("f16", "q8", "q4"):
        logs = whole.fork(kv=kv).forward(text, every=True).log_softmax(-1)
        found[kv] = float((wanted.exp() * (wanted - logs)).sum(-1).mean())
    assert 0 < found["f16"] < 1e-5 < found["q8"] < 5e-3 < found["q4"] < 0.5
