"""The decode benchmark: engines behind pipes, what is said of one that is not there, and what its figures come from."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from benchmarks import contestants
from benchmarks.contestants import Contestant, Layers
from benchmarks.decode import TURNS, Task, race, task_of
from benchmarks.layers import stack
from benchmarks.report import ratios, targets
from fourbit.errors import FourbitError
from fourbit.llm.config import LlmConfig
from fourbit.llm.hollow import write_hollow
from fourbit.measure.reading import Reader

CONFIG = LlmConfig(
    architecture="llama", layers=2, width=256, ff=512, heads=4, kv_heads=2, head_width=64, vocabulary=30_001,
    rope_theta=1e4, norm_eps=1e-5, tied=True, qkv_bias=False, context=4096,
)  # fmt: skip


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hollow(CONFIG, tmp_path_factory.mktemp("decode") / "x.gguf", "Q4_0", progress=False)


def test_engines_take_turns_and_one_that_is_not_there_is_named(hollow: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = Task("tiny", hollow, 8, 3, 2, 16, "f16")
    found = race(task, [1], {1: Reader(1, 2**22)}, ["fourbit layers"])
    laps = found["laps"]["1"]
    assert [len(laps["fourbit"][what]) for what in ("prefill 8", "decode", "prefill 16")] == [2, 2 * TURNS, 1]
    assert all(0 < lap["wall"] < 60 for lap in laps["fourbit"]["decode"])
    assert len(laps["fourbit layers"]["decode"]) == len(found["roofs"]["1"]) == 2 * TURNS
    assert found["memory"]["fourbit peak"] > hollow.stat().st_size
    if importlib.util.find_spec("llama_cpp") is None:
        assert "pip install 'fourbit[race]'" in found["missing"]["llama.cpp"]
        assert "llama.cpp takes no part" in capfd.readouterr().err
        assert "llama.cpp" not in laps


def test_a_contestant_that_ends_says_why(tmp_path: Path) -> None:
    contestant = Contestant("fourbit", tmp_path / "nowhere.gguf", 64)
    with pytest.raises(FourbitError, match=r"nowhere\.gguf"):
        contestant.ask("use", threads=1)
    contestant.end()


def test_layers_stand_for_all_layers(hollow: Path) -> None:
    """Of a small model all layers are multiplied; of a 7B one, which no cache holds."""
    assert stack(CONFIG)[0] == 2
    large = LlmConfig(**{**vars(CONFIG), "layers": 32, "width": 4096, "ff": 11_008, "heads": 32, "kv_heads": 32,
                         "head_width": 128})  # fmt: skip
    count, shapes = stack(large)
    assert count == 1
    assert sum(math.prod(shape) for shape in shapes) == 202_375_168
    assert Layers("fourbit", str(hollow)).share == 1


def test_unknown_requests_and_models(tmp_path: Path) -> None:
    with pytest.raises(FourbitError, match="no request is called 'dance'"):
        contestants.answer(None, {"do": "dance"})
    with pytest.raises(FourbitError, match="pocket, pocket-q4_0, hollow"):
        task_of("pocket-q9", tmp_path / "x", True)


def laps(seconds: float) -> dict[str, list[dict[str, float]]]:
    return {what: [{"wall": seconds, "cpu": seconds}] * 3 for what in ("prefill 128", "decode")}


@pytest.mark.parametrize(("ours", "reached"), [(0.10, True), (0.19, False)])
def test_targets_by_hand(ours: float, reached: bool) -> None:
    """llama.cpp takes 0.2 s: 0.1 s are twice as fast and read 20 GB/s; 0.19 s are 1.05 times and 10.5 GB/s of 30."""
    found = {
        "models": {"hollow": {
            "laps": {"1": {"fourbit": laps(ours), "llama.cpp": laps(0.2)}}, "read_for_each_token": 2_000_000_000,
            "roofs": {"1": [29e9, 30e9, 35e9]},
            "memory": {"fourbit, context full": {"peak": 4 * 2**30 if reached else 5 * 2**30, "ratio": 1.01}},
        }},
    }  # fmt: skip
    assert ratios(found["models"]["hollow"]["laps"]["1"])["decode"] == [0.2 / ours] * 3
    by_name = {target["what"]: target["reached"] for target in targets(found)}
    assert by_name == {
        "prefill 128, 1 thread(s), at least 1.0x llama.cpp": True,
        "decode, 1 thread(s), at least 1.1x llama.cpp": reached,
        "1 thread(s), at least 55% of the read roof": reached,
        "peak with the context full, below 4.6 GiB": reached,
        "within 3 % of its plan": True,
    }
