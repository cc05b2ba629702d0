"""NF4 through transformers and bitsandbytes on the CPU: the same code, small models; what is said without a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks import gpu_nf4
from fourbit.errors import ModelError
from fourbit.llm import cuda, gpu
from fourbit.llm.config import LlmConfig
from fourbit.llm.fit import Device
from fourbit.llm.generation import generate
from fourbit.llm.gpu import GpuEngine
from fourbit.llm.nf4 import nf4_config
from fourbit.llm.plan import nf4_plan

CONFIG = LlmConfig(
    architecture="llama", layers=3, width=256, ff=384, heads=4, kv_heads=2, head_width=64, vocabulary=320,
    rope_theta=1e4, norm_eps=1e-5, tied=False, qkv_bias=False, context=1024,
)  # fmt: skip
PROMPT = torch.randint(0, 320, (40,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with random weights and a tokenizer of numbered words."""
    family, path = request.param, tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    described = getattr(transformers, f"{family}Config")(
        hidden_size=256, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=320, max_position_embeddings=1024, tie_word_embeddings=family == "Qwen2",
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(described)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(0, 0.06)
    model.bfloat16().save_pretrained(path)
    gpu._numbers(320)._engine.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text("{}")
    return path


def test_the_plan_names_every_byte_of_the_weights_and_the_cache(folder: Path) -> None:
    engine = GpuEngine.open(folder, context=200, device="cpu")
    assert engine.weight_bytes == engine.plan.weights
    assert engine.cache_bytes == engine.plan.kv_cache
    assert engine.layers_on_gpu == 3


def test_cached_logits_are_those_of_transformers(folder: Path) -> None:
    """The slab cache, cut and read again, against a forward pass of transformers without any cache.

    bfloat16 has 8 bits of precision, and a product that is summed in another order may round to the next number in each
    of the 3 layers' 7 products and the head's: 22 half units of 2^-8 add up to 4 % of the largest logit at most.
    """
    engine = GpuEngine.open(folder, context=64, device="cpu")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=nf4_config(torch.bfloat16), device_map={"": "cpu"}
    )
    for module in model.modules():
        module.support_avx512bf16_for_cpu = False
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([PROMPT])).logits[0].float()
    engine.forward(PROMPT[:10])
    engine.forward([7, 7, 7])
    engine.truncate(10)
    rows = [engine.forward(PROMPT[10:30], every=True), *(engine.forward([token])[None] for token in PROMPT[30:])]
    assert engine.length == len(PROMPT)
    assert (torch.cat(rows) - wanted[10:]).abs().max() <= 0.04 * wanted.abs().max()


@pytest.mark.parametrize("kept", [0, 2])
def test_layers_in_memory_change_no_logit(folder: Path, kept: int) -> None:
    whole, split = (
        GpuEngine.open(folder, context=64, device="cpu"),
        GpuEngine.open(folder, context=64, device="cpu", layers=kept),
    )
    for tokens in (PROMPT, [5], [6]):
        assert torch.equal(whole.forward(tokens), split.forward(tokens))
    assert split.bytes_in_memory > 0 == whole.bytes_in_memory
    layer = split.plan.layer
    # In memory a layer's parts begin at multiples of 256 bytes; its norms, biases and tables stay.
    assert (3 - kept) * 0.95 * layer < split.bytes_in_memory <= (3 - kept) * (layer + 14 * 256)
    assert split.bytes_on_gpu < whole.bytes_on_gpu - (3 - kept - 1) * 0.9 * layer + 14 * 256


def test_a_prompt_longer_than_a_chunk_gives_the_logits_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GpuEngine.open(CONFIG, context=64, device="cpu")
    whole = engine.forward(PROMPT, every=True)
    engine.truncate(0)
    monkeypatch.setattr(gpu, "GPU_CHUNK", 7)
    parts = engine.forward(PROMPT, every=True)
    assert (whole - parts).abs().max() <= 0.04 * whole.abs().max()  # as above
    assert parts.shape == (40, 320)


def test_hollow_models_are_the_same_each_time_and_answer_in_numbers() -> None:
    one, two = (GpuEngine.open(CONFIG, context=64, device="cpu") for _ in range(2))
    logits = one.forward(PROMPT)
    assert torch.equal(logits, two.forward(PROMPT))
    assert logits.std() > 0.1
    assert one.tokenizer.decode(one.tokenizer.encode("w3 w17")) == "w3 w17"
    assert one.weight_bytes == nf4_plan(CONFIG, 64).weights


def test_tokens_that_cannot_be_read_leave_the_cache_as_it_was() -> None:
    engine = GpuEngine.open(CONFIG, context=16, device="cpu")
    engine.forward(PROMPT[:10])
    wrong = (([], "nothing to read"), ([320], "between 0 and 319"), (PROMPT[:7], "17 tokens do not fit"))
    for tokens, message in wrong:
        with pytest.raises(ModelError, match=message):
            engine.forward(tokens)
        assert engine.length == 10
    with pytest.raises(ModelError, match="cannot be cut to 11"):
        engine.truncate(11)


def test_generate_runs_with_it_as_with_the_cpu_engine() -> None:
    engine = GpuEngine.open(CONFIG, context=64, device="cpu")
    wanted, tokens = [], list(PROMPT)
    for _ in range(6):
        wanted.append(int(engine.forward(tokens[engine.length :]).argmax()))
        tokens.append(wanted[-1])
    pieces = generate(engine, PROMPT, limit=6)  # type: ignore[arg-type]
    assert [piece.token for piece in pieces] == wanted
    assert pieces.usage.reused_tokens == len(PROMPT) - 1


def test_without_a_gpu_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"no CUDA GPU.*fourbit chat"):
        GpuEngine.open(CONFIG)
    with pytest.raises(ModelError, match="is no device"):
        GpuEngine.open(CONFIG, device="gpu")
    with pytest.raises(ModelError, match="not on mps"):
        GpuEngine.open(CONFIG, device="mps")


def imitate(monkeypatch: pytest.MonkeyPatch, ability: tuple[int, int], free: int) -> None:
    """Let PyTorch and nvidia-smi speak as if there were a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: ability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "GeForce")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free, 2 * free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 0)
    monkeypatch.setattr(cuda, "context_bytes", lambda *_: 10_000_000)
    monkeypatch.setattr(gpu, "context_bytes", lambda *_: 10_000_000)


def test_a_gpu_that_is_too_old_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, (5, 2), 10**9)
    with pytest.raises(ModelError, match=r"compute capability 5\.2.*6\.0"):
        GpuEngine.open(CONFIG)
    with pytest.raises(ModelError, match="there is no GPU 3"):
        GpuEngine.open(CONFIG, device="cuda:3")


def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, (7, 5), 10**9)
    assert cuda.compute_dtype(torch.device("cuda", 0)) == torch.float16
    imitate(monkeypatch, (8, 6), 10**9)
    assert cuda.compute_dtype(torch.device("cuda", 0)) == torch.bfloat16
    assert cuda.free_memory(torch.device("cuda", 0)) == Device("GeForce", 10**9 + 10_000_000, gpu=True)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    imitate(monkeypatch, (8, 6), 1_000_000)
    monkeypatch.setattr(gpu, "_trained", lambda *_: pytest.fail("it was loaded"))
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
    }))  # fmt: skip
    with pytest.raises(ModelError, match=r"needs 5\.\d+ GB .*GeForce has 11 MB free.*are missing"):
        GpuEngine.open(tmp_path)


def test_a_gpu_with_room_for_some_layers_gets_those(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = nf4_plan(CONFIG, 64, overhead=10_000_000)
    room = planned.total - planned.layer // 2  # half a layer too little: one stays out, and one has to come and go
    imitate(monkeypatch, (8, 6), room - 10_000_000)
    assert gpu._layers_that_stay(planned, torch.device("cuda", 0), None) == 1
    with pytest.raises(ModelError, match="are missing"):
        gpu._layers_that_stay(planned, torch.device("cuda", 0), 2)
    with pytest.raises(ModelError, match="0 to 3 layers"):
        gpu._layers_that_stay(planned, torch.device("cuda", 0), 4)


def test_what_is_neither_a_folder_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"nobody/nothing is no folder here.*repository's name"):
        GpuEngine.open("nobody/nothing", device="cpu")
    with pytest.raises(ModelError, match=r"config\.json does not exist"):
        GpuEngine.open(tmp_path, device="cpu")


def test_the_gpu_benchmark_runs_through_with_a_small_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu_nf4", "--device", "cpu", "--context", "128", "--json", str(target)])
    assert gpu_nf4.main() == 0, capsys.readouterr().out
    found = json.loads(target.read_text())
    assert found["memory"]["ratio"] == 1
    assert found["split"]["same_tokens"] is True
    assert found["agreement"] == {"largest_difference": 0, "same_best_token": 1}
    assert len(found["first_tokens"]) == 16


def test_the_gpu_benchmark_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_nf4"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_nf4.main() == 1
    assert "no CUDA GPU" in capsys.readouterr().err
