"""The engine against the plain transformer, on every kind of file; its cache, its chunks, its refusals."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourbit.errors import KernelError, ModelError
from fourbit.kernels.native import isas
from fourbit.llm.artifact import ArtifactFile, save_artifact
from fourbit.llm.config import LlmConfig
from fourbit.llm.decoder import CHUNK, FEW, MANY, pieces
from fourbit.llm.engine import Engine, decode_together
from fourbit.llm.folder import CheckpointFolder
from fourbit.llm.generation import generate
from fourbit.llm.gguf_file import GgufFile, Packed, encoded, write_gguf
from fourbit.llm.hollow import FORMATS, write_hollow
from fourbit.llm.kv_cache import KVCache, cache_bytes
from fourbit.llm.loading import assemble, load
from fourbit.llm.model import Cache, Transformer
from tests.llm_fixtures import VARIANTS, rounding, theirs, vocabulary
from tests.llm_plain import rounded_inputs

SMALL = LlmConfig("llama", 2, 256, 512, 4, 2, 64, 320, 1e4, 1e-5, tied=False, qkv_bias=False, context=512)
QUANTIZED = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def instruction_sets() -> list[str]:
    try:
        return list(isas())
    except KernelError:  # no compiler
        return []


def some(count: int, seed: int = 1) -> list[int]:
    return torch.randint(3, 320, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def logits_of(model: Transformer, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens]))[0]
    return logits


def assert_near(ours: torch.Tensor, wanted: torch.Tensor, most: float) -> None:
    apart = float((ours - wanted).abs().max())
    assert apart <= most, f"logits differ by {apart:.1e}; at most {most:.1e} is explained"


def assert_rounds_as_documented(
    path: Path, model: Transformer, exempt: Callable[[str], bool] = lambda _: False, least: int = 10
) -> None:
    """Compare with the plain model whose matrices get their inputs in 8 bits.

    Where both round every number to the same code, only float32 sums in another order separate them. A number that lies
    in the middle between two codes, as near as these sums are off (some 10 eps of the block's largest number, that is
    1e-4 of a step), may go up in one and down in the other, and all places after it feel that. Of the 5,000 numbers of
    a text of two tokens that is less than one: at least half of the short texts are equal but for float32's rounding.
    A long text has such numbers; the two are then no further apart than two independent roundings, sqrt(2) times what
    one of them moves the logits.
    """
    engine = Engine.open(path, kv="f32")
    equal = 0
    with rounded_inputs(model, exempt):
        for seed in range(20):
            engine.truncate(0)
            wanted = logits_of(model, some(2, seed))
            apart = (engine.forward(some(2, seed), every=True) - wanted).abs().max()
            equal += bool(apart <= rounding(model.config, wanted))
        rounded = logits_of(model, some(60))
    assert equal >= least
    engine.truncate(0)
    moved = float((rounded - logits_of(model, some(60))).square().mean().sqrt())
    assert moved > 0
    apart = float((engine.forward(some(60), every=True) - rounded).square().mean().sqrt())
    assert apart <= 1.1 * 2**0.5 * moved


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Transformer]:
    """A random model as a GGUF file of float32 matrices, and the same in plain PyTorch."""
    folder = tmp_path_factory.mktemp("checkpoint")
    theirs(request.param).save_pretrained(folder)
    source, path = CheckpointFolder(folder), folder / "model.gguf"
    write_gguf(path, source.config, {n: source.tensor(n) for n in source.names()}, vocabulary(source.config.vocabulary))
    return path, assemble(source)


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in Q4_0."""
    return as_kind(tmp_path_factory.mktemp("four") / "q4_0.gguf", SMALL, "Q4_0")


def random_weights(config: LlmConfig) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    found = {name: torch.randn(shape, generator=source) for name, shape in config.shapes().items()}
    plain = {True: (0.3, 1.0), False: (0.12, 0.0)}
    return {n: value * plain["norm" in n][0] + plain["norm" in n][1] for n, value in found.items()}


def packed_rows(values: torch.Tensor, kind: str, seed: int) -> Packed:
    """A matrix in a kind of block; for those that nobody here writes, random blocks with scales of a sensible size."""
    if kind in ("F16", "Q8_0", "Q4_0", "Q4_1"):
        return encoded(values, kind)
    if kind in ("BF16", "Q5_0", "Q5_1"):
        return Packed(Kind[kind], tuple(values.shape), gguf.quantize(values.numpy(), Kind[kind]))
    block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    raw = np.random.default_rng(seed).integers(0, 256, (values.numel() // block, size), dtype=np.uint8)
    scales = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    for at in scales:
        raw[:, at : at + 2] = np.array([0.0002], np.float16).view(np.uint8)
    return Packed(Kind[kind], tuple(values.shape), raw.reshape(len(values), -1))


def as_kind(path: Path, config: LlmConfig, kind: str) -> Path:
    stored: dict[str, torch.Tensor | Packed] = {}
    for seed, (name, values) in enumerate(random_weights(config).items()):
        stored[name] = packed_rows(values, kind, seed) if values.ndim == 2 else values
    write_gguf(path, config, stored, vocabulary(config.vocabulary))
    return path


# the same function


def test_logits_equal_the_plain_transformers(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    tokens = some(90)
    wanted = logits_of(model, tokens)
    ours = Engine.open(path, kv="f32").forward(tokens, every=True)
    assert ours.shape == wanted.shape
    assert_near(ours, wanted, rounding(model.config, wanted))


def test_tokens_behind_a_cache_get_what_they_get_without_one(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    tokens, engine = some(24), Engine.open(path, kv="f32")
    engine.forward(tokens[:7])
    for end in range(8, 25):
        wanted = logits_of(model, tokens[:end])[-1]
        assert_near(engine.forward(tokens[end - 1 : end]), wanted, rounding(model.config, wanted))
    assert engine.tokens == tokens
    assert engine.length == 24


def test_a_checkpoint_folder_gives_what_its_gguf_file_gives(variant: tuple[Path, Transformer]) -> None:
    path, model = variant
    wanted = logits_of(model, some(40))
    shelf = path.parent / "tokenizer.json"
    shelf.write_text('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}')
    (path.parent / "tokenizer_config.json").write_text("{}")
    engine = Engine.open(path.parent, kv="f32")
    assert_near(engine.forward(some(40), every=True), wanted, rounding(model.config, wanted))


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_packed_matrices_give_what_their_values_give(kind: str, architecture: str, tmp_path: Path) -> None:
    config = replace(SMALL, architecture=architecture, qkv_bias=architecture == "qwen2", tied=architecture == "qwen2")
    path = as_kind(tmp_path / "model.gguf", config, kind)
    assert_rounds_as_documented(path, assemble(GgufFile(path)))
    assert Engine.open(path).notes == ()


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q5_0", "Q5_1"])
def test_other_kinds_are_computed_in_float_and_said_so(kind: str, tmp_path: Path) -> None:
    path = as_kind(tmp_path / "model.gguf", SMALL, kind)
    model = assemble(GgufFile(path))
    engine = Engine.open(path, kv="f32")
    if kind == "F16":
        assert engine.notes == ()
    else:
        assert len(engine.notes) == 16
        assert f"embed_tokens.weight is {kind}, which no kernel reads: held as F" in engine.notes[0]
    wanted = logits_of(model, some(60))
    assert_near(engine.forward(some(60), every=True), wanted, rounding(model.config, wanted))


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 96), (8, 64), (3, 64), (4, 40)])
def test_an_artifact_gives_what_its_values_give(bits: int, group: int, tmp_path: Path, four_bits: Path) -> None:
    loaded, quantized = load(four_bits), {}
    source = np.random.default_rng(0)
    for name, (rows, columns) in loaded.config.linears().items():
        groups = rows, -(-columns // group)
        quantized[f"{name}.weight"] = {
            "codes": torch.from_numpy(source.integers(0, 2**bits, (rows, columns), np.uint8)),
            "scale": torch.from_numpy(source.uniform(0.02, 0.04, groups).astype(np.float16)) * 16 / 2**bits,
            "zero": torch.from_numpy(source.integers(0, 2**bits, groups, np.uint8)),
        }
    path = tmp_path / "model.safetensors"
    save_artifact(path, loaded, quantized, bits, group)
    model = assemble(ArtifactFile(path))
    if group % 32:  # which the kernels compute in float32
        wanted = logits_of(model, some(60))
        assert_near(Engine.open(path, kv="f32").forward(some(60), every=True), wanted, rounding(model.config, wanted))
        return
    assert_rounds_as_documented(path, model, exempt=lambda name: name == "lm_head")  # which is in float16


@pytest.mark.parametrize("form", FORMATS)
def test_hollow_models_run(form: str, tmp_path: Path) -> None:
    path = write_hollow(SMALL, tmp_path / "hollow.gguf", form, progress=False)
    model = assemble(GgufFile(path))
    if form == "F16":
        wanted = logits_of(model, some(60))
        ours = Engine.open(path, kv="f32").forward(some(60), every=True)
        assert_near(ours, wanted, rounding(model.config, wanted))
    else:
        # A row of embeddings has few different numbers, and half the largest lies exactly between codes 63 and 64.
        assert_rounds_as_documented(path, model, least=1)


def test_the_portable_kernels_run_it_too(four_bits: Path) -> None:
    ours, theirs_ = (Engine.open(four_bits, kv="f32", backend=backend) for backend in (None, "numba"))
    assert theirs_.kernel.isa == "numba"
    one, two = (engine.forward(some(12), every=True) for engine in (ours, theirs_))
    assert float((one - two).abs().quantile(0.25)) <= rounding(SMALL, one)
    assert_near(one, two, 0.05 * float(one.std()))


# the cache


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in float32."""
    path = tmp_path_factory.mktemp("plain") / "f32.gguf"
    write_gguf(path, SMALL, random_weights(SMALL), vocabulary(320))
    return path


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 199), max_size=6), kv=st.sampled_from(["f32", "f16", "q8", "q4"]),
    back=st.integers(0, 200),
)  # fmt: skip
def test_pieces_and_detours_change_nothing(plain: Path, cuts: list[int], kv: str, back: int) -> None:
    """In whatever pieces a text is read, and whatever was read and cut off before, the logits are the same.

    But for sums in another order, and for a number of the cache that these send to another code: one of 64 * 200 that
    is off by a step matters less than a tenth of all being off by half a step, which is what the kind of cache costs.
    """
    tokens, whole = some(200), Engine.open(plain, kv=kv)
    wanted, exact = whole.forward(tokens, every=True), whole.fork(kv="f32").forward(tokens, every=True)
    most = rounding(SMALL, wanted) + 0.1 * float((wanted - exact).abs().max())
    other = whole.fork()
    other.forward(tokens[:back] + some(40, seed=2))
    other.truncate(back)
    borders = [back, *sorted(cut for cut in cuts if cut > back), 200]
    for start, end in itertools.pairwise(borders):
        if start < end:
            assert_near(other.forward(tokens[start:end]), wanted[end - 1], most)
    assert other.tokens == tokens


def test_what_was_cut_off_leaves_no_trace(four_bits: Path) -> None:
    tokens, one = some(200), Engine.open(four_bits)
    one.forward(tokens)
    one.truncate(60)
    other = one.fork()
    other.forward(tokens[:60])
    for size in (1, 2, 40, 130):
        assert torch.equal(one.forward(some(size, seed=size)), other.forward(some(size, seed=size)))


@given(st.integers(1, 700))
def test_a_text_is_read_in_pieces_of_many(length: int) -> None:
    parts = pieces(range(length))
    assert [token for part in parts for token in part] == list(range(length))
    assert all(len(part) <= CHUNK for part in parts)
    assert len(parts) == 1 or all(len(part) >= MANY for part in parts)
    assert len(parts) == -(-length // CHUNK)


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("isa", [*instruction_sets(), "numba"])
def test_many_tokens_get_the_same_in_whatever_pieces(kind: str, isa: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Bit for bit, so that a prompt that is partly in the cache is answered as if it were not."""
    if isa != "numba":
        monkeypatch.setenv("FOURBIT_ISA", isa)
    path = as_kind(tmp_path / "model.gguf", replace(SMALL, kv_heads=4), kind)
    one = Engine.open(path, backend="numba" if isa == "numba" else "c")
    two, tokens = one.fork(), some(190)
    wanted = one.forward(tokens, every=True)
    sizes = (MANY, MANY + 1, 17, 40, 100, 190 - 100 - 66 - MANY)
    assert sum(sizes) == 190
    parts = [two.forward(tokens[two.length : two.length + size], every=True) for size in sizes]
    assert torch.equal(torch.cat(parts), wanted)


def test_a_few_tokens_differ_from_many_by_their_rounding(four_bits: Path) -> None:
    """Sums have another order, after which numbers may round to other codes."""
    tokens, one = some(60), Engine.open(four_bits)
    wanted, two = one.forward(tokens, every=True), one.fork()
    found = torch.stack([two.forward([token]) for token in tokens])
    model = assemble(GgufFile(four_bits))
    with rounded_inputs(model):
        rounded = logits_of(model, tokens)
    moved = float((rounded - logits_of(model, tokens)).square().mean().sqrt())
    assert float((found - wanted).square().mean().sqrt()) <= 1.1 * 2**0.5 * moved


@pytest.mark.parametrize("kind", [*QUANTIZED, "F16"])
@pytest.mark.parametrize("isa", [*instruction_sets(), "numba"])
def test_a_few_tokens_get_what_each_gets_alone(kind: str, isa: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Bit for bit, as speculation needs it, with queries that share keys, and behind a long text."""
    if isa != "numba":
        monkeypatch.setenv("FOURBIT_ISA", isa)
    config = replace(SMALL, heads=8, kv_heads=1, width=256, head_width=32, ff=768)
    one = Engine.open(as_kind(tmp_path / "model.gguf", config, kind), backend="numba" if isa == "numba" else "c")
    assert one.kernel.isa == isa
    two, tokens = one.fork(), some(140 + 4 * FEW)
    one.forward(tokens[:140]), two.forward(tokens[:140])
    for start in range(140, len(tokens), FEW):
        together = one.forward(tokens[start : start + FEW], every=True)
        alone = [two.forward([token]) for token in tokens[start : start + FEW]]
        assert torch.equal(together, torch.stack(alone))


def test_the_number_of_threads_changes_no_bit(four_bits: Path) -> None:
    one, three = (Engine.open(four_bits, threads=threads) for threads in (1, 3))
    assert torch.equal(one.forward(some(150), every=True), three.forward(some(150), every=True))


class RoundingCache(Cache):
    """The plain model's cache, but keys and values are what a cache of some kind holds of them."""

    def __init__(self, config: LlmConfig, kv: str) -> None:
        super().__init__(config)
        self.kind = {"f32": Kind.F32, "f16": Kind.F16, "q8": Kind.Q8_0, "q4": Kind.Q4_0}[kv]

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def held(part: torch.Tensor) -> torch.Tensor:
            return Packed(self.kind, part.shape, gguf.quantize(part.numpy(), self.kind)).decoded()

        return super().append(layer, held(key), held(value))


@pytest.mark.parametrize("kv", ["f32", "f16", "q8", "q4"])
def test_a_cache_holds_what_its_kind_can_hold(kv: str, tmp_path: Path) -> None:
    """As with matrices: texts in which no number lies between two codes are equal but for float32's rounding."""
    config, path = replace(SMALL, architecture="qwen2", qkv_bias=True), tmp_path / "model.gguf"
    write_gguf(path, config, random_weights(config), vocabulary(320))
    engine, model, equal = Engine.open(path, kv=kv), assemble(GgufFile(path)), 0
    for seed in range(20):
        engine.truncate(0)
        with torch.no_grad():
            wanted = model(torch.tensor([some(4, seed)]), RoundingCache(config, kv))[0]
        apart = (engine.forward(some(4, seed), every=True) - wanted).abs().max()
        equal += bool(apart <= rounding(config, wanted))
    assert equal >= 10
    whole = engine.fork(kv="f32")
    assert engine.cache_bytes == whole.cache_bytes * {"f32": 32, "f16": 16, "q8": 8.5, "q4": 4.5}[kv] / 32


def test_the_bytes_of_a_cache() -> None:
    """Llama-2-7B: 0.5 MiB a token in float16, 1 GiB at 2,048."""
    config = replace(SMALL, layers=32, width=4096, heads=32, kv_heads=32, head_width=128)
    assert cache_bytes(config, 2048, "f16") == 2**30
    assert cache_bytes(replace(config, kv_heads=8), 2048, "f16") == 2**28
    assert [cache_bytes(SMALL, 1, kind) for kind in ("f32", "f16", "q8", "q4")] == [2048, 1024, 544, 288]
    cache = KVCache(SMALL, 64, "q8")
    assert cache.nbytes == 64 * 544 == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    with pytest.raises(ModelError, match="no multiple of q4's block of 32"):
        cache_bytes(replace(SMALL, head_width=48), 64, "q4")
    with pytest.raises(ModelError, match="more than this machine gives; take a shorter context, or a cache of kind q8"):
        KVCache(replace(config, context=2**30), 2**30)


# several texts


@pytest.mark.parametrize("count", [2, 4, 20])
def test_texts_decode_together_as_they_do_alone(plain: Path, count: int) -> None:
    engines = [Engine.open(plain)]
    engines += [engines[0].fork(context=90 + i, kv="q8" if i == 1 else "f16") for i in range(count - 1)]
    alone = [engine.fork(context=engine.context, kv="q8" if i == 2 else "f16") for i, engine in enumerate(engines)]
    for i, pair in enumerate(zip(engines, alone, strict=True)):
        for engine in pair:
            engine.forward(some(3 + 4 * i, seed=i))
    for step in range(3):
        tokens = some(count, seed=10 + step)
        together = decode_together(engines, tokens)
        for row, engine, token in zip(together, alone, tokens, strict=True):
            assert torch.equal(row, engine.forward([token]))
    assert [engine.tokens for engine in engines] == [engine.tokens for engine in alone]
    assert [engine.length for engine in engines] == [6 + 4 * i for i in range(count)]


def test_texts_that_cannot_decode_together_are_told(four_bits: Path) -> None:
    one = Engine.open(four_bits, context=8)
    full = one.fork()
    full.forward(some(8))
    for engines, tokens, message in (
        ([one, Engine.open(four_bits)], [3, 4], "same weights decode together"),
        ([one, one], [3, 4], "each once"),
        ([one], [3, 4], "as many tokens"),
        ([], [], "at least one"),
        ([one, full], [3, 4], "filled its context of 8"),
        ([one], [320], "between 0 and 319; these reach 320"),
    ):
        with pytest.raises(ModelError, match=message):
            decode_together(engines, tokens)
    assert one.length == 0


# memory


@pytest.mark.linux
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_is_the_file_the_cache_and_little_else(tmp_path: Path) -> None:
    """The weights are the file's pages and never copied: a process's own are the cache and one chunk's buffers."""
    config = replace(SMALL, layers=4, width=1024, ff=4096, heads=16, kv_heads=16, vocabulary=8000, context=256)
    path = write_hollow(config, tmp_path / "hollow.gguf", "Q4_0", progress=False)
    script = (
        "import sys\n"
        "from fourbit.llm.engine import Engine\n"
        "def own():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon')) * 1024\n"
        "Engine.open(sys.argv[2]).forward([5] * 40)\n"  # whatever is set up once, by another small model
        "before = own()\n"
        "engine = Engine.open(sys.argv[1], context=256)\n"
        "opened = own()\n"
        "engine.forward([7] * 256)\n"
        "print(engine.weight_bytes, engine.cache_bytes, opened - before, own() - before)"
    )
    other = as_kind(tmp_path / "other.gguf", SMALL, "Q4_0")
    run = subprocess.run(
        [sys.executable, "-c", script, path, other], capture_output=True, text=True, check=True, timeout=120
    )
    weights, cache, opened, used = map(int, run.stdout.split())
    chunk = 128 * 4 * (6 * 1024 + 3 * 1024 + 2 * 4096)
    assert weights > 40 * 2**20
    assert cache == 256 * 4 * 2 * 1024 * 2
    assert opened < 12 * 2**20  # the vocabulary and the like; the cache's pages are not touched yet
    assert used < cache + chunk + 16 * 2**20


# what cannot be


def test_what_does_not_fit_is_told_and_nothing_is_lost(four_bits: Path) -> None:
    engine = Engine.open(four_bits, context=32)
    engine.forward(some(20))
    with pytest.raises(ModelError, match="33 tokens do not fit into a context of 32; shorten the text, or open"):
        engine.forward(some(13))
    with pytest.raises(ModelError, match="no token"):
        engine.forward([])
    with pytest.raises(ModelError, match="between 0 and 319; these reach 320"):
        engine.forward([3, 320])
    with pytest.raises(ModelError, match="between 0 and 319; these reach -1"):
        engine.forward([3, -1])
    with pytest.raises(ModelError, match="cannot be cut to 21"):
        engine.truncate(21)
    assert engine.tokens == some(20)
    other = engine.fork()
    other.forward(some(20))
    assert torch.equal(engine.forward(some(32)[20:]), other.forward(some(32)[20:]))


def test_an_engine_that_cannot_be_is_told(four_bits: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="context of 2 to 512 tokens, not 1"):
        Engine.open(four_bits, context=1)
    with pytest.raises(ModelError, match="f32, f16, q8, q4; not 'q5'"):
        Engine.open(four_bits, kv="q5")
    with pytest.raises(KernelError, match="cannot use 0 threads"):
        Engine.open(four_bits, threads=0)
    with pytest.raises(ModelError, match="`fourbit models`"):
        Engine.open(tmp_path / "none.gguf")
    assert Engine.open(four_bits, context=9999).context == 512


@pytest.mark.parametrize("at", [0, 3, 20, 24])
def test_an_interrupt_leaves_the_text_as_it_was(four_bits: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, calls = Engine.open(four_bits), []
    engine.forward(some(20))
    product = engine.kernel.matmul

    def interrupted(*given: Any) -> None:
        calls.append(1)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        product(*given)

    with monkeypatch.context() as patch:
        patch.setattr(engine.kernel, "matmul", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.forward(some(300)[20:])  # in chunks
        with contextlib.suppress(KeyboardInterrupt):
            calls.clear()
            decode_together([engine, fork := engine.fork()], [3, 4])
            engine.truncate(20)
            fork.truncate(0)
    assert engine.tokens == some(20)
    other = engine.fork()
    other.forward(some(20))
    assert torch.equal(engine.forward(some(40)[20:]), other.forward(some(40)[20:]))


def test_a_model_of_no_numbers_is_told(tmp_path: Path) -> None:
    stored: dict[str, torch.Tensor | Packed] = dict(random_weights(SMALL))
    stored["layers.1.mlp.down_proj.weight"] = torch.full((256, 512), torch.nan)
    write_gguf(tmp_path / "nan.gguf", SMALL, stored, vocabulary(320))
    with pytest.raises(ModelError, match="not finite; its file is damaged"):
        next(generate(Engine.open(tmp_path / "nan.gguf"), some(3)))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), byte=st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
def test_a_damaged_file_is_told_or_does_no_harm(
    four_bits: Path, tmp_path: Path, data: st.DataObject, byte: int
) -> None:
    path, whole = tmp_path / "damaged.gguf", bytearray(four_bits.read_bytes())
    header = int(gguf.GGUFReader(four_bits).data_offset)
    near = st.integers(0, 600) | st.integers(header - 1200, header + 2000)
    whole[data.draw(near | st.integers(0, len(whole) - 1))] = byte
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(1, len(whole) - 1)) :]
    path.write_bytes(whole)
    with contextlib.suppress(ModelError):
        list(generate(Engine.open(path, context=16), some(4), limit=2))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), byte=st.integers(0, 255))
def test_a_damaged_artifact_is_told_or_does_no_harm(
    artifact: Path, tmp_path: Path, data: st.DataObject, byte: int
) -> None:
    path, whole = tmp_path / "damaged.safetensors", bytearray(artifact.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    whole[data.draw(st.integers(0, header - 1))] = byte
    path.write_bytes(whole)
    with contextlib.suppress(ModelError):
        list(generate(Engine.open(path, context=16), some(4), limit=2))


@pytest.fixture(scope="module")
def artifact(four_bits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loaded, path = load(four_bits), tmp_path_factory.mktemp("artifact") / "model.safetensors"
    name = "layers.0.mlp.up_proj.weight"
    parts = {"codes": torch.zeros(512, 256, dtype=torch.uint8), "scale": torch.ones(512, 4).half()}
    save_artifact(path, loaded, {name: {**parts, "zero": torch.ones(512, 4, dtype=torch.uint8)}}, 4, 64)
    return path
