"""The transformer, and the files it is read from: against transformers, gguf and llama.cpp on the same weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
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
from safetensors.torch import save_file

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.folder import CheckpointFolder
from fourbit.llm.gguf_file import READ, WRITE, GgufFile, Packed, describe, encoded, gguf_name, write_gguf
from fourbit.llm.loading import Loaded, assemble, load
from fourbit.llm.model import Cache, Transformer, generate_greedy
from tests.llama_cpp import LlamaCpp
from tests.llm_fixtures import LLAMA3, SIZES, VARIANTS, rounding, theirs, vocabulary
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

SMALL = LlmConfig("qwen2", 1, 256, 256, 4, 4, 64, 300, 1e4, 1e-6, tied=True, qkv_bias=False, context=64)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    model = theirs(request.param)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder, model


def tokens(count: int = 96, rows: int = 2) -> torch.Tensor:
    return torch.randint(0, 320, (rows, count), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same(ours: Transformer, other: torch.nn.Module, given: torch.Tensor) -> None:
    mine, wanted = ours(given), other(given).logits
    apart, most = float((mine - wanted).abs().max()), rounding(ours.config, wanted)
    assert apart <= most, f"logits differ by {apart:.1e}; float32 sums in another order explain {most:.1e}"


# the architecture


def test_logits_equal_those_of_transformers(pair: tuple[Path, torch.nn.Module]) -> None:
    folder, other = pair
    assert_same(assemble(CheckpointFolder(folder)), other, tokens())


def test_tokens_one_by_one_give_what_all_at_once_give(pair: tuple[Path, torch.nn.Module]) -> None:
    model = assemble(CheckpointFolder(pair[0]))
    given = tokens(24)
    cache = Cache(model.config)
    with torch.no_grad():
        parts = [model(part, cache) for part in (given[:, :7], *given[:, 7:].split(1, dim=1))]
        whole = model(given)
    assert len(cache) == 24
    apart, most = float((torch.cat(parts, 1) - whole).abs().max()), rounding(model.config, whole)
    assert apart <= most, f"logits differ by {apart:.1e}; float32 sums in another order explain {most:.1e}"


def test_greedy_text_is_that_of_transformers(pair: tuple[Path, torch.nn.Module]) -> None:
    model, given = assemble(CheckpointFolder(pair[0])), tokens(8, 1)
    text = (
        pair[1].generate(given, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 8:].tolist()
    )
    assert generate_greedy(model, given[0].tolist(), 16) == text
    until = next(i for i, token in enumerate(text) if token == text[5])
    assert generate_greedy(model, given[0].tolist(), 16, stop=[text[5]]) == text[:until]


def test_a_token_sees_nothing_after_it(pair: tuple[Path, torch.nn.Module]) -> None:
    model, given = assemble(CheckpointFolder(pair[0])), tokens(12, 1)
    other = given.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 320
    with torch.no_grad():
        one, two = model(given), model(other)
    assert torch.equal(one[:, :7], two[:, :7])
    assert not torch.equal(one[:, 7:], two[:, 7:])


def test_parameters_and_shapes_are_those_of_transformers(pair: tuple[Path, torch.nn.Module]) -> None:
    folder, other = pair
    config = CheckpointFolder(folder).config
    named = {name.removeprefix("model."): tuple(value.shape) for name, value in other.named_parameters()}
    assert config.shapes() == named
    assert config.parameters() == other.num_parameters()
    assert {f"{name}.weight" for name in config.linears()} < set(named)


# files


def test_a_gguf_file_written_here_holds_the_same_model(pair: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    folder, other = pair
    source = CheckpointFolder(folder)
    path = tmp_path / "model.gguf"
    write_gguf(path, source.config, {name: source.tensor(name) for name in source.names()}, {})
    read = GgufFile(path)
    for name in source.names():
        assert torch.equal(read.tensor(name), source.tensor(name)), name
    architecture = "llama" if source.config.architecture == "mistral" else source.config.architecture
    as_stored = replace(
        source.config,
        architecture=architecture,
        norm_eps=float(np.float32(source.config.norm_eps)),
        rope_scaling=source.config.rope_scaling and tuple(np.float32(source.config.rope_scaling).tolist()),
    )
    assert read.config == as_stored
    assert_same(assemble(read), other, tokens())
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


def test_llama_cpp_computes_the_same_from_a_file_written_here(
    pair: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    source, path, count = CheckpointFolder(pair[0]), tmp_path / "model.gguf", 8
    write_gguf(path, source.config, {n: source.tensor(n) for n in source.names()}, vocabulary(source.config.vocabulary))
    given = tokens(90, 1)[0].clamp(min=3).tolist()
    steps = LlamaCpp(path, exact=True).complete(given, count, likely=source.config.vocabulary)
    made = [step.token for step in steps]
    model = assemble(source)
    assert generate_greedy(model, given, count)[: len(made)] == made
    with torch.no_grad():
        logits = model(torch.tensor([given + made]))[0, len(given) - 1 : -1]
    mine = logits.log_softmax(-1)
    apart = max(
        abs(float(row[i]) - value) for row, step in zip(mine, steps, strict=True) for i, value in step.likely.items()
    )
    most = rounding(model.config, logits)
    assert all(len(step.likely) == source.config.vocabulary for step in steps)
    assert apart <= most, f"log-probabilities differ by {apart:.1e}; float32 sums in another order explain {most:.1e}"


def test_a_checkpoint_in_several_files_is_the_same(pair: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    source = CheckpointFolder(pair[0])
    stored = {f"model.{n}" if not n.startswith("lm_head") else n: source.tensor(n) for n in source.names()}
    names = sorted(stored)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: stored[name].bfloat16() for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((pair[0] / "config.json").read_text())
    split = CheckpointFolder(tmp_path)
    for name in source.names():
        assert torch.equal(split.tensor(name), source.tensor(name).bfloat16().float())


def random_rows(kind: Kind, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Random rows of a type, without infinities."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 120, (shape[0], shape[1] // block * size), dtype=np.uint8)
    plain = {Kind.F32: np.float32, Kind.F16: np.float16}
    return raw.view(plain[kind]) if kind in plain else raw


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_every_type_reads_as_gguf_decodes_it(kind: Kind, architecture: str, tmp_path: Path) -> None:
    config = replace(SMALL, architecture=architecture)
    path = tmp_path / "typed.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    describe(writer, config)
    expected = {}
    for name, shape in config.shapes().items():
        data = np.ones(shape, np.float32) if len(shape) == 1 else random_rows(kind, shape)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind if data.dtype == np.uint8 else None)
        values = data if len(shape) == 1 else gguf.dequantize(data, kind)
        expected[name] = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(path)
    for name, values in expected.items():
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # row 2 i of a head and the next are a pair: they are rows i and i + 32 of the model
            values = values.view(4, 32, 2, 256).transpose(1, 2).reshape(256, 256)
        assert torch.equal(read.tensor(name), values), name


@pytest.mark.parametrize("kind", WRITE, ids=lambda kind: kind.name)
def test_what_is_written_in_a_type_reads_as_gguf_rounds_it(kind: Kind, tmp_path: Path) -> None:
    config = replace(SMALL, architecture="llama")
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn(shape, generator=generator) for name, shape in config.shapes().items()}
    given = {name: encoded(value, kind.name) if value.ndim == 2 else value for name, value in values.items()}
    write_gguf(tmp_path / "a.gguf", config, given, {})
    read = GgufFile(tmp_path / "a.gguf")
    for name, value in values.items():
        rounded = gguf.dequantize(gguf.quantize(value.numpy(), kind), kind) if value.ndim == 2 else value.numpy()
        assert np.array_equal(read.tensor(name).numpy(), rounded), name
    again = {name: read.packed(name) for name in read.names()}
    write_gguf(tmp_path / "b.gguf", config, again, read.metadata)
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


# the pocket model


@pytest.fixture(scope="module")
def pocket(pocket_path: Path) -> Loaded:
    return load(pocket_path)


@pytest.fixture(scope="module")
def unpacked(pocket: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    """The pocket model's weights, written here as float32, in llama.cpp, which then rounds nothing."""
    source, path = GgufFile(pocket.path), tmp_path_factory.mktemp("unpacked") / "f32.gguf"
    write_gguf(path, source.config, {name: source.tensor(name) for name in source.names()}, source.metadata)
    yield LlamaCpp(path, exact=True)
    path.unlink()


@torch.no_grad()
def apart_from(model: Transformer, other: LlamaCpp, given: list[int], count: int) -> tuple[list[int], list[float]]:
    """The text that `other` continues with, and how far each of its log-probabilities is from ours."""
    steps = other.complete(given, count)
    made = [step.token for step in steps]
    mine = model(torch.tensor([given + made]))[0, len(given) - 1 : -1].log_softmax(-1)
    pairs = [(float(row[i]), p) for row, step in zip(mine, steps, strict=True) for i, p in step.likely.items()]
    return made, [abs(ours - p) for ours, p in pairs]


PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "It is a truth universally acknowledged, that a",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "12 + 30 =",
)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pocket_model_says_what_llama_cpp_says(pocket: Loaded, unpacked: LlamaCpp, prompt: str) -> None:
    given = pocket.tokenizer.encode(prompt)
    made, apart = apart_from(pocket.model, unpacked, given, 16)
    assert generate_greedy(pocket.model, given, 16)[: len(made)] == made
    # Hidden states reach 20,000 in a few channels, which float32 holds to 0.002; the most seen here is 0.0003 nats.
    assert max(apart) <= 0.002, f"log-probabilities differ by {max(apart):.4f} nats"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pocket_file_is_the_same_to_llama_cpp_but_for_its_rounding(pocket: Loaded, prompt: str) -> None:
    _, apart = apart_from(pocket.model, LlamaCpp(pocket.path), pocket.tokenizer.encode(prompt), 16)
    mean = sum(apart) / len(apart)
    # It rounds the inputs of quantized matrices to 8 bits: 0.08 to 0.12 nats on average over 20 tokens of 16 places.
    assert mean <= 0.2, f"log-probabilities differ by {mean:.3f} nats on average"


def test_a_quantized_file_written_here_reads_in_llama_cpp(pocket: Loaded, tmp_path: Path) -> None:
    source, path = GgufFile(pocket.path), tmp_path / "again.gguf"
    write_gguf(path, source.config, {name: source.packed(name) for name in source.names()}, source.metadata)
    again = load(path)
    assert again.config == pocket.config
    assert GgufFile(path).metadata["general.license"] == "apache-2.0"
    for name, value in pocket.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    given = pocket.tokenizer.encode(PROMPTS[2])
    assert LlamaCpp(path).complete(given, 10) == LlamaCpp(pocket.path).complete(given, 10)
    path.unlink()


# what is refused


def plain_weights(config: LlmConfig) -> dict[str, torch.Tensor | Packed]:
    return {name: torch.ones(shape) for name, shape in config.shapes().items()}


def test_what_is_no_gguf_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.gguf does not exist; `fourbit models` lists"):
        GgufFile(tmp_path / "none.gguf")
    for content in (b"", b"no model", b"GGUF"):
        (tmp_path / "text.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="cut off or no GGUF file"):
            GgufFile(tmp_path / "text.gguf")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    config = replace(SMALL, width=32, ff=32, heads=2, kv_heads=1, head_width=16, vocabulary=260)
    write_gguf(path, config, plain_weights(config), vocabulary(260))
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_off_anywhere_is_told(small: Path, tmp_path: Path, data: st.DataObject) -> None:
    cut, whole = tmp_path / "cut.gguf", small.read_bytes()
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 40))])  # behind the last tensor there is filling
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        assemble(GgufFile(cut))


@pytest.fixture(scope="module")
def header(small: Path) -> int:
    """Bytes before the weights."""
    return int(gguf.GGUFReader(small).data_offset)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), byte=st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
def test_a_damaged_header_is_told_or_does_no_harm(
    small: Path, header: int, tmp_path: Path, data: st.DataObject, byte: int
) -> None:
    path, whole = tmp_path / "damaged.gguf", bytearray(small.read_bytes())
    # most of it are the vocabulary's words: what stands before and behind them is no less worth a try
    near = st.integers(0, 600) | st.integers(header - 1200, header - 1)
    whole[data.draw(near | st.integers(0, header - 1))] = byte
    path.write_bytes(whole)
    with contextlib.suppress(ModelError):
        load(path)


def test_sizes_that_no_model_has_are_told_before_memory_is_asked_for(tmp_path: Path) -> None:
    known = dict(GgufFile(rewritten(tmp_path, lambda *_: None)).metadata)
    for key, value, message in (
        ("block_count", 2**32 - 1, r"layers is 4294967295, and has to be a whole number from 1 to 1000"),
        ("block_count", 0, r"layers is 0"),
        ("attention.key_length", 2**26, r"head_width is 67108864, and has to be a whole number from 1 to 4096"),
        ("embedding_length", -64, r"width is -64"),
        ("attention.head_count", [4, 4], r"wrong kind|heads is \[4, 4\]"),
        ("attention.head_count", 0, r"heads is 0|wrong kind"),
        ("attention.head_count_kv", 0, r"kv_heads is 0|wrong kind"),
        ("context_length", "long", r"context is 'long'"),
        ("rope.freq_base", 0.0, r"RoPE's base 0\.0"),
        ("rope.freq_base", float("nan"), r"RoPE's base nan"),
        ("attention.layer_norm_rms_epsilon", "small", r"value of a wrong kind"),
    ):
        with pytest.raises(ModelError, match=message):
            LlmConfig.from_gguf({**known, f"qwen2.{key}": value})


def rewritten(tmp_path: Path, change: Any) -> Path:
    """A file of the small model made by gguf itself; `change` gets its tensors {name: array} and the writer."""
    path = tmp_path / "changed.gguf"
    writer = gguf.GGUFWriter(path, SMALL.architecture)
    describe(writer, SMALL)
    stored = {gguf_name(name): np.ones(shape, np.float32) for name, shape in SMALL.shapes().items()}
    change(stored, writer)
    for name, value in stored.items():
        raw = Kind.IQ4_NL if value.dtype == np.uint8 else None
        writer.add_tensor(name, value, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_of_another_model_is_told(tmp_path: Path) -> None:
    norm, matrix = "blk.0.attn_norm.weight", "blk.0.ffn_up.weight"
    path = rewritten(tmp_path, lambda stored, _: stored.pop(norm))
    with pytest.raises(
        ModelError, match=r"changed\.gguf has no tensor blk\.0\.attn_norm\.weight \(layers\.0\.input_la"
    ):
        assemble(GgufFile(path))
    path = rewritten(tmp_path, lambda stored, _: stored.update({norm: np.ones(255, np.float32)}))
    with pytest.raises(ModelError, match=r"attn_norm\.weight has shape \(255,\); the metadata ask for \(256,\)"):
        assemble(GgufFile(path))
    path = rewritten(tmp_path, lambda stored, _: stored.update({matrix: np.zeros((256, 144), np.uint8)}))
    with pytest.raises(ModelError, match=r"ffn_up\.weight is of type IQ4_NL; supported are F32, F16"):
        assemble(GgufFile(path))
    path = rewritten(tmp_path, lambda stored, _: stored.update({"blk.0.attn_q_norm.weight": np.ones(64, np.float32)}))
    with pytest.raises(ModelError, match=r"no supported model has: blk\.0\.attn_q_norm\.weight"):
        GgufFile(path)
    path = rewritten(tmp_path, lambda _, writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN))
    with pytest.raises(ModelError, match=r"changed\.gguf: RoPE scaling 'yarn' is not supported"):
        GgufFile(path)
    path = rewritten(tmp_path, lambda _, writer: writer.add_uint16("split.count", 2))
    with pytest.raises(ModelError, match=r"one part of several; join them with `llama-gguf-split --merge`"):
        GgufFile(path)


HF = {"model_type": "llama", "rms_norm_eps": 1e-5, **SIZES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma3"}, r"'gemma3' is not supported; llama, mistral, qwen2 are"),
        ({"rope_scaling": {"rope_type": "yarn"}}, r"RoPE scaling 'yarn' is not supported; 'llama3' is"),
        ({"hidden_act": "gelu"}, r"activation 'gelu' is not supported; 'silu' is"),
        ({"model_type": "mistral", "sliding_window": 128}, r"sliding window of 128 tokens is not supported"),
        ({"num_key_value_heads": 3}, r"4 heads of 16 do not share 3 key-value heads"),
        ({"num_hidden_layers": 10**9}, r"layers is 1000000000, and has to be a whole number from 1 to 1000"),
        ({"hidden_size": "wide"}, r"entry of a wrong kind"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}}, r"entry of a wrong kind"),
    ],
)
def test_a_config_of_another_model_is_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LlmConfig.from_hf({**HF, **change})


def test_a_missing_entry_is_told() -> None:
    with pytest.raises(ModelError, match=r"config\.json has no entry 'hidden_size'"):
        LlmConfig.from_hf({name: value for name, value in HF.items() if name != "hidden_size"})
    with pytest.raises(ModelError, match=r"no llama\.block_count"):
        LlmConfig.from_gguf({"general.architecture": "llama", "llama.attention.head_count": 4,
                             "llama.embedding_length": 8})  # fmt: skip


def test_a_damaged_folder_is_told(pair: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json does not exist"):
        CheckpointFolder(tmp_path)
    (tmp_path / "config.json").write_text((pair[0] / "config.json").read_text())
    with pytest.raises(ModelError, match=r"model\.safetensors is missing or damaged"):
        CheckpointFolder(tmp_path)
    weights = (pair[0] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is missing or damaged .*; fetch it again"):
        CheckpointFolder(tmp_path)
    source = CheckpointFolder(pair[0])
    kept = {f"model.{n}" if not n.startswith("lm_head") else n: source.tensor(n) for n in source.names()[:-2]}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="has no tensor"):
        assemble(CheckpointFolder(tmp_path))
    save_file({**kept, "model.layers.0.self_attn.o_proj.bias": torch.ones(64)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"no supported model has: model\.layers\.0\.self_attn\.o_proj\.bias"):
        CheckpointFolder(tmp_path)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    values, path = plain_weights(SMALL), tmp_path / "out.gguf"
    with pytest.raises(ModelError, match=r"norm\.weight is missing"):
        write_gguf(path, SMALL, {name: value for name, value in values.items() if name != "norm.weight"}, {})
    with pytest.raises(ModelError, match=r"norm\.weight has shape \(8,\); the model needs \(256,\)"):
        write_gguf(path, SMALL, {**values, "norm.weight": torch.ones(8)}, {})
    with pytest.raises(ModelError, match="cannot be written"):
        write_gguf(tmp_path / "no folder" / "out.gguf", SMALL, values, {})
    with pytest.raises(ModelError, match=r"type Q4_K cannot be written; F32, F16, Q8_0, Q4_0, Q4_1 can"):
        encoded(torch.ones(2, 256), "Q4_K")
    with pytest.raises(ModelError, match=r"rows of 40 values are no multiple of the 32 that Q4_0 packs together"):
        encoded(torch.ones(2, 40), "Q4_0")
    assert not list(tmp_path.iterdir())


def test_tokens_out_of_range_are_told() -> None:
    model = Transformer(replace(SMALL, vocabulary=300))
    with pytest.raises(ModelError, match="between 0 and 299"):
        model(torch.tensor([[300]]))
    with pytest.raises(ModelError, match="between 0 and 299"):
        model(torch.tensor([[-1]]))
    with pytest.raises(ModelError, match=r"int64 \(B, T\)"):
        model(torch.tensor([1, 2]))


def test_load_tells_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"`fourbit models fetch smollm2`"):
        load("smollm2")
    with pytest.raises(ModelError, match="no model is called"):
        load("no-such-model")
