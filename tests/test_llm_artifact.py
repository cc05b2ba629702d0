"""A quantized model on disk: its bytes, what comes back, and what llama.cpp reads in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

from fourbit.errors import ModelError
from fourbit.exam.reference import load_lab
from fourbit.llm.artifact import export_gguf, ledger, pack, save_artifact, unpack
from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_file import write_gguf
from fourbit.llm.loading import Loaded, load
from fourbit.llm.model import generate_greedy
from tests.llama_cpp import LlamaCpp
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

Lab = Mapping[str, Any]


@pytest.fixture(scope="module")
def lab(root: Path) -> Lab:
    return load_lab(root / "solutions/04-llm-quantization").namespace()


def tiny(folder: Path, *, tied: bool = True) -> Loaded:
    """A random model of two layers with a tokenizer of bytes and two merges."""
    tokens = [*sorted(ByteLevel.alphabet()), "th", "the", "<|im_end|>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 1) + [3],
        "tokenizer.ggml.merges": ["t h", "th e"],
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }
    config = LlmConfig("llama", 2, 64, 96, 4, 2, 16, len(tokens), 10_000.0, 1e-5, tied, False, 128)
    seed = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(shape, generator=seed) / 8 for name, shape in config.shapes().items()}
    write_gguf(folder / "tiny.gguf", config, tensors, metadata)
    return load(folder / "tiny.gguf")


def matrices(model: Loaded) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": model.model.get_parameter(f"{name}.weight") for name in model.config.linears()}


def saved(path: Path, model: Loaded, lab: Lab, bits: int, group: int) -> dict[str, Any]:
    quantized = {name: lab["round_to_nearest"](w, bits, group) for name, w in matrices(model).items()}
    save_artifact(path, model, quantized, bits, group)
    return quantized


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_codes_come_back_from_as_few_bytes_as_hold_them(bits: int, rows: int, columns: int, seed: int) -> None:
    drawn = torch.randint(2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    data = pack(drawn, bits)
    assert data.shape == (rows, -(-columns * bits // 8))
    assert torch.equal(unpack(data, bits, columns), drawn)


def test_even_places_are_the_low_half_of_a_byte() -> None:
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x03]]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(2, 64), (3, 40), (4, 32), (5, 64), (8, 33)])
def test_the_file_has_the_bytes_that_the_lab_counts(
    tmp_path: Path, lab: Lab, tied: bool, bits: int, group: int
) -> None:
    model, path = tiny(tmp_path, tied=tied), tmp_path / "artifact.safetensors"
    saved(path, model, lab, bits, group)
    shapes = {name: list(shape) for name, shape in model.config.shapes().items()}
    counted = lab["model_bytes"](shapes, list(matrices(model)), bits, group, {})
    found = ledger(path)
    assert {name: count for name, count in found.items() if name != "header"} == {
        name: counted[name] for name in ("codes", "scales", "zeros", "rest")
    }
    assert sum(found.values()) == path.stat().st_size == counted["total"] + found["header"]
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_comes_back_with_its_tokens(tmp_path: Path, lab: Lab, tied: bool) -> None:
    model, path = tiny(tmp_path, tied=tied), tmp_path / "artifact.safetensors"
    quantized = saved(path, model, lab, 3, 40)
    back = load(path)
    for name in model.config.shapes():
        found, before = back.model.get_parameter(name), model.model.get_parameter(name)
        wanted = lab["dequantized"](quantized[name], 40) if name in quantized else before.half().float()
        assert torch.equal(found, wanted), name
    assert back.config == model.config
    text = "the théâtre, then"
    assert back.tokenizer.decode(back.tokenizer.encode(text)) == text
    assert back.tokenizer.encode(text) == model.tokenizer.encode(text)
    again = tmp_path / "again.safetensors"
    saved(again, back, lab, 8, 64)
    assert load(again).tokenizer.encode(text) == model.tokenizer.encode(text)


def test_changed_tensors_take_the_place_of_the_models(tmp_path: Path) -> None:
    model, path = tiny(tmp_path), tmp_path / "artifact.safetensors"
    save_artifact(path, model, {}, 4, 32, {"norm.weight": torch.full((64,), 2.0)})
    assert load(path).model.norm.weight.tolist() == [2.0] * 64


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (2, 64)])
def test_a_gguf_file_holds_the_same_weights(tmp_path: Path, lab: Lab, bits: int, group: int) -> None:
    """But for the minimum of a group, scale * zero, which is rounded to half a unit in the last place of float16."""
    model, path = tiny(tmp_path), tmp_path / "artifact.safetensors"
    quantized = saved(path, model, lab, bits, group)
    here, there = load(path), load(export_gguf(path, tmp_path / "exported.gguf"))
    for name in model.config.shapes():
        apart = (there.model.get_parameter(name) - here.model.get_parameter(name)).abs()
        if name in quantized:
            q = quantized[name]
            least = (q["scale"].float() * q["zero"]).repeat_interleave(group, 1)[:, : apart.shape[1]]
            assert (apart <= least * 2**-11 + 2**-25 + 1e-7).all(), name
        else:
            assert not apart.any(), name
    assert there.tokenizer.encode("the then") == model.tokenizer.encode("the then")


@pytest.mark.parametrize(("bits", "group"), [(8, 64), (4, 33)])
def test_what_the_blocks_of_gguf_cannot_hold_is_refused(tmp_path: Path, lab: Lab, bits: int, group: int) -> None:
    model, path = tiny(tmp_path), tmp_path / "artifact.safetensors"
    saved(path, model, lab, bits, group)
    with pytest.raises(ModelError, match="blocks of 32"):
        export_gguf(path, tmp_path / "exported.gguf")
    assert not (tmp_path / "exported.gguf").exists()


def test_damaged_files_are_named(tmp_path: Path, lab: Lab) -> None:
    model, path = tiny(tmp_path), tmp_path / "artifact.safetensors"
    saved(path, model, lab, 4, 64)
    whole = path.read_bytes()
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole[: len(whole) // 2])
    other, cut = tmp_path / "other.safetensors", tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        about = opened.metadata()
    name = "layers.0.self_attn.q_proj.weight"
    save_file({key: value for key, value in tensors.items() if key != f"{name}.zero"}, cut, about)
    for file, said in ((short, "cut off"), (other, "no artifact"), (cut, "no tensor")):
        with pytest.raises(ModelError, match=said) as caught:
            load(file)
        assert str(file) in str(caught.value)
    wrong = tmp_path / "wrong.safetensors"
    save_file(tensors | {f"{name}.scale": tensors[f"{name}.scale"][:, :0].contiguous()}, wrong, about)
    with pytest.raises(ModelError, match="scale of shape"):
        load(wrong)
    save_file(tensors, wrong, about | {"bits": "99"})
    with pytest.raises(ModelError, match="99 bits"):
        load(wrong)


def test_names_and_shapes_that_the_model_does_not_have_are_refused(tmp_path: Path, lab: Lab) -> None:
    model, path = tiny(tmp_path), tmp_path / "artifact.safetensors"
    q = lab["round_to_nearest"](torch.randn(64, 64), 4, 64)
    with pytest.raises(ModelError, match=r"nothing\.weight"):
        save_artifact(path, model, {"nothing.weight": q}, 4, 64)
    with pytest.raises(ModelError, match="scale of shape"):
        save_artifact(path, model, {"layers.0.self_attn.q_proj.weight": q}, 4, 32)
    assert not path.exists()


@pytest.mark.slow
def test_llama_cpp_writes_the_same_greedy_text(tmp_path: Path, lab: Lab, pocket_path: Path) -> None:
    """The pocket model at 4 bits. llama.cpp rounds the inputs of quantized matrices to 8 bits; so where it picks
    another token, this must be one whose log-probability here is within what that rounding moved in the tokens before.
    """
    model, path = load(pocket_path), tmp_path / "artifact.safetensors"
    saved(path, model, lab, 4, 64)
    exported = export_gguf(path, tmp_path / "exported.gguf")
    here, there = load(exported), LlamaCpp(exported)
    questions = ("What is the capital of France?", "Name three colors.", "Why is the sky blue?")
    for question in questions:
        chat = here.tokenizer.chat([{"role": "user", "content": question}])
        prompt = here.tokenizer.encode(chat, special=False)
        steps = there.complete(prompt, 16)
        ours = generate_greedy(here.model, prompt, 16, here.tokenizer.stop)
        with torch.no_grad():
            line = torch.tensor([prompt + [step.token for step in steps]])
            log_probs = here.model(line)[0, len(prompt) - 1 :].log_softmax(-1)
        moved = 0.0
        for i, (step, mine) in enumerate(zip(steps, ours, strict=False)):
            gap = float(log_probs[i].max() - log_probs[i, step.token])
            moved = max(moved, *(abs(float(log_probs[i, t]) - p) for t, p in step.likely.items() if p > -5))
            assert gap <= 2 * moved, (question, i)
            if step.token != mine:
                break
