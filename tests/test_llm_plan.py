"""Plans against what is then there: bytes of files, of bitsandbytes' tensors, of caches, and of a whole process."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bitsandbytes
import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.errors import ModelError
from fourbit.llm import decoder, plan
from fourbit.llm.artifact import save_artifact
from fourbit.llm.catalog import find
from fourbit.llm.config import LlmConfig
from fourbit.llm.fit import Device, gpu_layers, this_machine, verdict
from fourbit.llm.gguf_file import GgufFile
from fourbit.llm.hollow import FORMATS as HOLLOW
from fourbit.llm.hollow import write_hollow
from fourbit.llm.kv_cache import KVCache
from fourbit.llm.loading import load
from fourbit.llm.plan import nf4_plan, plan_file
from fourbit.llm.sizes import BLOCKS, CACHE, FORMATS, cache_row_bytes, nf4_bytes, stored_kinds, tensor_bytes
from fourbit.measure.memory import peak_resident, reset_peak, resident
from tests.llm_fixtures import pocket

__all__ = ["pocket"]

SMALL = LlmConfig(
    architecture="llama", layers=3, width=256, ff=512, heads=4, kv_heads=2, head_width=64, vocabulary=512,
    rope_theta=1e4, norm_eps=1e-5, tied=False, qkv_bias=False, context=4096,
)  # fmt: skip
MEDIUM = replace(SMALL, layers=12, width=1024, ff=3072, heads=16, kv_heads=16, vocabulary=8192)  # 0.2 billion weights
LLAMA_7B = replace(SMALL, layers=32, width=4096, ff=11_008, heads=32, kv_heads=32, head_width=128, vocabulary=32_000)
QWEN_7B = find("qwen2.5-7b-instruct").config

configs = st.builds(
    lambda layers, width, ff, heads, shared, tied, bias: LlmConfig(
        architecture="llama", layers=layers, width=256 * width, ff=256 * ff, heads=2 * heads * shared,
        kv_heads=2 * heads, head_width=128, vocabulary=1024, rope_theta=1e4, norm_eps=1e-5, tied=tied, qkv_bias=bias,
        context=8192,
    ),
    st.integers(1, 40), st.integers(1, 16), st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.booleans(),
    st.booleans(),
)  # fmt: skip


def test_blocks_are_those_of_the_gguf_package() -> None:
    for kind, size in BLOCKS.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == size
    assert tensor_bytes((2, 64), "Q4_0") == 72
    with pytest.raises(ModelError, match="no multiple of Q4_K's block of 256"):
        tensor_bytes((2, 64), "Q4_K")
    with pytest.raises(ModelError, match="'Q3' is no kind of tensor"):
        tensor_bytes((2, 64), "Q3")


@pytest.mark.parametrize("form", HOLLOW)
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_is_its_planned_tensors_and_a_header(tmp_path: Path, form: str, tied: bool) -> None:
    config = replace(SMALL, tied=tied, architecture="qwen2", qkv_bias=True)
    path = write_hollow(config, tmp_path / "x.gguf", form, progress=False)
    by_shape, by_file = plan.plan(config, form, 512, baseline=0), plan_file(path, 512, baseline=0)
    assert by_file.weights == by_shape.weights
    assert (by_file.per_token, by_file.layer) == (by_shape.per_token, by_shape.layer)
    tensors = [GgufFile(path).stored(name).data.nbytes for name in config.shapes()]
    assert by_file.weights == sum(tensors)
    assert 0 < path.stat().st_size - by_file.weights < 40_000  # names, a vocabulary of 512, padding
    assert by_file.form == form


def test_the_head_alone_is_read_for_each_token_or_the_embeddings_that_are_one() -> None:
    tied, own = (plan.plan(replace(SMALL, tied=t), "Q8_0", 512, baseline=0) for t in (True, False))
    assert tied.per_token == tied.weights
    assert own.per_token == own.weights - tensor_bytes((512, 256), "Q8_0") == tied.weights


@pytest.mark.parametrize(("name", "header"), [("mistral-7b-instruct-v0.3", 10**6), ("qwen2.5-7b-instruct", 8 * 10**6)])
def test_q4_k_m_files_of_the_hub_have_the_planned_size(name: str, header: int) -> None:
    """The hub's files were made by llama.cpp; what they have more is the vocabulary, of 32,768 and 152,064 tokens."""
    model = find(name)
    assert 0 < model.bytes - plan.plan(model.config, "Q4_K_M", 512, baseline=0).weights < header


@given(st.integers(1, 300), st.sampled_from([64, 128, 192]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_nf4_bytes_are_those_of_bitsandbytes(rows: int, columns: int, double: bool) -> None:
    weights = torch.randn(rows, columns)
    packed, state = bitsandbytes.functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=double)
    parts = [packed, state.absmax, state.code]
    parts += [state.offset, state.state2.absmax, state.state2.code] if double else []
    assert nf4_bytes(rows * columns, double) == sum(part.nbytes for part in parts)


def test_published_sizes_of_7b_models_in_nf4() -> None:
    """4 + 8/64 + 32/(64 * 256) bits for each linear weight and 16 for the rest, from the shapes of the models."""
    for config, linear, rest in ((LLAMA_7B, 6.476e9, 0.262e9), (QWEN_7B, 6.525e9, 1.090e9)):
        wanted = linear * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * rest
        assert nf4_plan(config, 2048).weights == pytest.approx(wanted, rel=1e-3)  # the figures have four digits
    single = nf4_plan(LLAMA_7B, 2048, double_quantization=False).weights
    assert single - nf4_plan(LLAMA_7B, 2048).weights == pytest.approx(6.476e9 * 0.373 / 8, rel=0.01)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8", "q4"])
@given(config=configs, context=st.integers(2, 700))
@settings(deadline=None, max_examples=20)
def test_the_cache_has_the_planned_size(kind: str, config: LlmConfig, context: int) -> None:
    found = plan.plan(config, "F16", context, kind, baseline=0)
    assert found.kv_cache == KVCache(config, context, kind).nbytes == context * cache_row_bytes(config, kind)
    assert found.with_cache(2 * context).kv_cache == 2 * found.kv_cache


def test_llama_2_keeps_half_a_mebibyte_for_each_token() -> None:
    assert cache_row_bytes(LLAMA_7B, "f16") == 512 * 1024
    assert cache_row_bytes(QWEN_7B, "f16") == 56 * 1024
    with pytest.raises(ModelError, match="heads of 48 channels are no multiple of q8's block of 32"):
        cache_row_bytes(replace(SMALL, head_width=48), "q8")


def test_bytes_in_sum_are_spread_over_the_tensors() -> None:
    found = plan.plan(LLAMA_7B, 3_825_872_736, 2048, baseline=0)
    exact = plan.plan(LLAMA_7B, "Q4_0", 2048, baseline=0)
    assert found.weights == 3_825_872_736
    assert found.layer == pytest.approx(exact.layer, rel=0.02)
    assert found.bits_per_weight == pytest.approx(4.54, abs=0.01)


def test_an_artifact_of_lab_04_is_planned_by_its_parts(tmp_path: Path) -> None:
    write_hollow(replace(SMALL, tied=True), tmp_path / "x.gguf", "Q8_0", progress=False)
    model = load(tmp_path / "x.gguf")
    name = "layers.0.mlp.up_proj.weight"
    rows, columns = model.config.shapes()[name]
    parts = {
        "codes": torch.zeros(rows, columns, dtype=torch.uint8),
        "scale": torch.ones(rows, columns // 64, dtype=torch.float16),
        "zero": torch.zeros(rows, columns // 64, dtype=torch.uint8),
    }
    save_artifact(tmp_path / "a.safetensors", model, {name: parts}, 4, 64)
    found = plan_file(tmp_path / "a.safetensors", 512, baseline=0)
    rest = 2 * (model.config.parameters() - rows * columns)
    assert found.weights == rows * columns // 2 + 3 * rows * columns // 64 + rest
    assert found.form == "4 bits in groups of 64"


def test_plans_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="no GGUF format is called 'Q9'"):
        plan.plan(SMALL, "Q9", 512)
    with pytest.raises(ModelError, match="context of 2 to 4096 tokens, not 5000"):
        nf4_plan(SMALL, 5000)
    with pytest.raises(ModelError, match="of kind f32, f16"):
        plan.plan(SMALL, "Q4_0", 512, "f8")
    with pytest.raises(ModelError, match=r"nowhere\.gguf does not exist"):
        plan_file("nowhere.gguf")


def test_the_planned_chunk_is_the_engines() -> None:
    assert plan.CHUNK == decoder.CHUNK


def filled(path: Path, context: int, kv: str) -> dict[str, float]:
    """What a process that fills the context held at most, divided by its plan."""
    command = [sys.executable, "-m", "benchmarks.fill", str(path), str(context), kv, "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.linux
@pytest.mark.parametrize(("form", "kv"), [("Q4_0", "f16"), ("Q8_0", "f32"), ("F16", "q8")])
def test_a_process_holds_what_was_planned(tmp_path: Path, form: str, kv: str) -> None:
    """Within 3 %: Python and torch, 0.1 to 0.4 GB of weights, 13 to 100 MB of cache, the whole context in use."""
    path = write_hollow(MEDIUM, tmp_path / "x.gguf", form, progress=False)
    found = filled(path, 1024, kv)
    assert found["ratio"] == pytest.approx(1, abs=0.03), found


@pytest.mark.linux
@pytest.mark.slow
def test_the_pocket_model_holds_what_was_planned(pocket: Path) -> None:
    found = filled(pocket, 1024, "f16")
    assert found["ratio"] == pytest.approx(1, abs=0.03), found


@pytest.mark.linux
def test_peak_memory_remembers_and_forgets() -> None:
    reset_peak()
    before = peak_resident()
    with mmap.mmap(-1, 64 * 2**20) as block:  # not of the heap, which may keep what is freed
        np.frombuffer(block, np.uint8)[:] = 1
        assert resident() >= len(block)
    assert before + 60 * 2**20 < peak_resident()
    assert reset_peak()
    assert peak_resident() < before + 60 * 2**20


@given(configs, st.sampled_from(FORMATS), st.integers(600, 8000), st.integers(10**7, 2 * 10**10), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_verdict_is_right_and_all_that_it_offers_fits(
    config: LlmConfig, form: str, context: int, memory: int, gpu: bool
) -> None:
    if form == "NF4":
        planned = nf4_plan(config, context, overhead=10**6)
    else:
        planned = plan.plan(config, form, context, "f32", baseline=10**6)
    found = verdict(planned, Device("a device", memory, gpu=gpu))
    assert found.fits == (planned.total <= memory)
    assert found.spare == memory - planned.total
    assert not (found.fits and found.options)
    for option in found.options:
        assert option.plan.total <= memory
        assert option.text in found.reason
        if option.text.startswith("a context"):
            assert 512 <= option.plan.context < context
            longer = option.plan.with_cache(option.plan.context + 256)
            assert longer.total > memory or longer.context >= context


@given(configs, st.integers(0, 3 * 10**10), st.integers(0, 10**9))
@settings(deadline=None, max_examples=200)
def test_layers_on_a_gpu(config: LlmConfig, memory: int, more: int) -> None:
    planned = nf4_plan(config, 1024, overhead=3 * 10**8)
    kept, rest = gpu_layers(planned, memory), planned.total - config.layers * planned.layer
    assert kept <= config.layers
    assert gpu_layers(planned, memory + more) >= kept
    assert (kept == config.layers) == (planned.total <= memory)
    if kept < config.layers:  # one room is for the layers that come and go
        assert rest + (kept + 1) * planned.layer <= memory
        assert kept == config.layers - 1 or memory < rest + (kept + 2) * planned.layer


def test_a_verdict_in_words() -> None:
    planned = plan.plan(LLAMA_7B, "Q8_0", 4096, baseline=250_000_000, name="a 7B")
    reason = verdict(planned, Device("a laptop", 6 * 10**9)).reason
    assert reason.startswith("a 7B needs 9.62 GB (weights 7.16 GB, cache of 4096 tokens 2.15 GB")
    assert "a laptop has 6.00 GB free: 3.62 GB are missing. What fits:" in reason
    assert "qwen2.5-7b-instruct" in reason
    small = verdict(planned.with_cache(2048), Device("a laptop", 8 * 10**9)).reason
    ways = "a context of 768 tokens; or the cache in 4 bits (kv q4); or a file in Q4_K_M, 4.08 GB of weights; or qwen"
    assert ways in small
    lean = verdict(plan.plan(LLAMA_7B, "Q4_0", 2048, baseline=250_000_000), Device("a laptop", int(4.8e9))).reason
    assert "or the cache in 8 bits (kv q8)" in lean
    assert "nothing that Fourbit knows would fit" in verdict(planned, Device("a watch", 10**8)).reason
    assert "it fits" in verdict(planned, Device("a server", 10**11)).reason


def test_this_machine_has_what_is_free_and_what_this_process_has() -> None:
    device = this_machine(bandwidth=30e9)
    assert device.memory > resident()
    planned = plan.plan(LLAMA_7B, "Q4_0", 2048, baseline=0)
    assert device.tokens_per_second(planned) == pytest.approx(30e9 / (planned.per_token + planned.kv_cache))
    assert this_machine().tokens_per_second(planned) is None


def test_kinds_of_q4_k_m_as_llama_cpp_gives_them() -> None:
    """use_more_bits(i, 32) of llama-quant.cpp: 0 to 3, every third from 6, 28 to 31."""
    kinds = stored_kinds(LLAMA_7B, "Q4_K_M")
    more = [i for i in range(32) if kinds[f"layers.{i}.mlp.down_proj.weight"] == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert all((kinds[f"layers.{i}.self_attn.v_proj.weight"] == "Q6_K") == (i in more) for i in range(32))
    assert set(CACHE) >= {"f32", "f16", "q8", "q4"}
