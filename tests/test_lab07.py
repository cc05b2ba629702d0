"""Lab 07: its exam tells right from wrong, its examples run, and its answers agree with other implementations."""

from __future__ import annotations

import itertools
import math
import random
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.exam.author import Trial
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.pack import load_module
from fourbit.exam.reference import load_lab
from fourbit.llm import plan as toolkit
from fourbit.llm.config import LlmConfig
from fourbit.llm.hollow import write_hollow
from tests.lab_checks import (
    assert_complete,
    assert_example_runs,
    assert_judge_is_silent,
    assert_other_cases,
    assert_published,
)
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

LAB = "07-deploy"
EXERCISES = (
    "read_value", "read_header", "decode_blocks", "decode_k", "encode_q4_0", "accept_conversion", "memory_plan",
    "split_layers", "choose_deployments", "chat_prompt", "sse_events", "model_card",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions" / LAB)


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions" / LAB, tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert (tmp_path / LAB / "visible/pack.safetensors").stat().st_size < 2_000_000
    assert_published(lab, rows, seed)


def test_each_exercise_has_its_mistakes_and_an_alternative(lab):
    assert_complete(lab)


def test_the_points_make_95_with_5_for_written_answers(lab):
    assert sum(exercise.points for exercise in lab.exam.exercises) == 95


def test_hidden_cases_are_other_cases(lab):
    assert_other_cases(lab)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_docstring_examples_run(reference, exercise):
    assert_example_runs(reference, exercise)


def test_the_judge_holds_no_solution(lab):
    assert_judge_is_silent(lab)


# Headers, against the gguf package.


def mapped(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.memmap(path, np.uint8, "c"))


TINY = LlmConfig("llama", 2, 256, 512, 8, 2, 32, 300, 1e4, 1e-5, tied=False, qkv_bias=False, context=64)


@pytest.fixture(scope="module")
def hollow(tmp_path_factory) -> Path:
    """A small file with Q4_K and Q6_K tensors."""
    return write_hollow(TINY, tmp_path_factory.mktemp("hollow") / "tiny.gguf", "Q4_K", progress=False)


def assert_same_header(header: dict[str, Any], path: Path) -> None:
    reader = gguf.GGUFReader(path)
    own = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert header["metadata"] == own
    assert list(header["metadata"]) == list(own)
    assert list(header["tensors"]) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        ours = header["tensors"][tensor.name]
        assert ours["shape"] == [int(n) for n in reversed(tensor.shape)]
        assert (ours["kind"], ours["bytes"]) == (int(tensor.tensor_type), int(tensor.n_bytes))
        assert ours["start"] == int(tensor.data_offset)


def test_a_hollow_files_header_is_that_of_the_gguf_package(reference, hollow):
    assert_same_header(reference["read_header"](mapped(hollow)), hollow)


@pytest.mark.slow
def test_the_pocket_files_header_is_that_of_the_gguf_package(reference, pocket_path):
    assert_same_header(reference["read_header"](mapped(pocket_path)), pocket_path)


@pytest.fixture(scope="module")
def small_file() -> bytes:
    """All kinds of values and two tensors, in 500 bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 4)
    head += text("a") + struct.pack("<IH", 2, 7) + text("b") + struct.pack("<I", 8) + text("é")
    head += text("c") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("yz") + text("d") + struct.pack("<I?", 7, True)
    head += text("u") + struct.pack("<IQQIQ", 2, 32, 2, 2, 0) + text("v") + struct.pack("<IQIQ", 1, 5, 0, 64)
    head += bytes(-len(head) % 32)
    return head + bytes(range(36)) + bytes(28) + bytes(20)


def octets(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def test_every_cut_of_a_file_is_refused(reference, small_file):
    whole = reference["read_header"](octets(small_file))
    assert list(whole["tensors"]) == ["u", "v"]
    for length in range(len(small_file)):
        with pytest.raises(ValueError, match=r".*"):
            reference["read_header"](octets(small_file[:length]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_byte_makes_a_header_fail_otherwise(reference, small_file, data):
    """It is read, or refused with a ValueError; and what is read lies inside the file, in no other tensor."""
    damaged = bytearray(small_file)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(small_file) - 85))] = data.draw(st.integers(0, 255))
    try:
        header = reference["read_header"](octets(bytes(damaged)))
    except ValueError:
        return
    spans = sorted((t["start"], t["start"] + t["bytes"]) for t in header["tensors"].values())
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
    assert all(end <= len(damaged) for _, end in spans)


# Blocks, against the gguf package: to the bit.


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**31),
)
def test_blocks_decode_as_in_the_gguf_package(reference, kind, rows, blocks, seed):
    values, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks, size), np.uint8)
    for at in {"Q4_1": (1, 3), "Q4_K": (1, 3), "Q6_K": (209,)}.get(kind, (1,)):
        raw[..., at] &= 0xBB  # no infinity and no NaN among the float16 numbers
    raw = raw.reshape(rows, -1)
    decode = reference["decode_k" if kind.endswith("K") else "decode_blocks"]
    ours = decode(torch.from_numpy(raw), kind)
    theirs = torch.from_numpy(gguf.dequantize(raw, Kind[kind]))
    assert ours.shape == (rows, blocks * values)
    assert torch.equal(ours, theirs)


def test_every_matrix_of_a_hollow_file_decodes_to_the_bit(reference, hollow):
    header, data = reference["read_header"](mapped(hollow)), mapped(hollow)
    for stored in gguf.GGUFReader(hollow).tensors:
        tensor = header["tensors"][stored.name]
        name = reference["KINDS"][tensor["kind"]][0]
        if name in ("Q4_K", "Q6_K"):
            raw = data[tensor["start"] : tensor["start"] + tensor["bytes"]].view(tensor["shape"][0], -1)
            theirs = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type))
            assert torch.equal(reference["decode_k"](raw, name), theirs)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31), st.floats(-4, 4))
def test_q4_0_comes_back_within_half_a_step_or_the_missing_code(reference, rows, blocks, seed, size):
    """Half a step; and one step for a weight that lies 7.5 to 8 steps away on the side of +7."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 32 * blocks, generator=g) * 10**size
    packed = reference["encode_q4_0"](weight)
    back = reference["decode_blocks"](packed, "Q4_0")
    step = packed.view(-1, 18)[:, :2].clone().view(torch.float16).float()
    places = weight.view(-1, 32) / step
    apart = (back.view(-1, 32) / step - places).abs()
    # The stored scale is off by up to 2^-11 of itself, so the largest weight lies at -8 (1 +- 2^-11) steps.
    assert bool((apart <= 0.5 + 8 * 2**-11 + (places > 7.5)).all())
    assert torch.equal(reference["encode_q4_0"](back), packed)


def test_q4_0_errs_no_more_than_the_gguf_package(reference):
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(64, 512, generator=g)
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), Kind.Q4_0), Kind.Q4_0))
    ours = reference["decode_blocks"](reference["encode_q4_0"](weight), "Q4_0")
    assert (ours - weight).norm() <= 1.0001 * (theirs - weight).norm()


# Plans, against the toolkit's and against files.


def _shape(config: LlmConfig) -> dict[str, Any]:
    names = ("layers", "width", "ff", "heads", "kv_heads", "head_width", "vocabulary", "tied")
    return {name: getattr(config, name) for name in names}


def test_a_plan_has_the_bytes_of_a_files_tensors(reference, hollow):
    header = reference["read_header"](mapped(hollow))
    formats = {"layers": "Q4_K", "embedding": "Q4_K", "head": "Q6_K"}
    plan = reference["memory_plan"](_shape(TINY), formats, 64, "f16", 0, 1)
    assert plan["weights"] == sum(tensor["bytes"] for tensor in header["tensors"].values())


@pytest.mark.parametrize("kv", ["f16", "q8", "q4"])
def test_a_plan_is_that_of_the_toolkit(reference, hollow, kv):
    theirs = toolkit.plan_file(hollow, 50, kv, baseline=0)
    formats = {"layers": "Q4_K", "embedding": "Q4_K", "head": "Q6_K"}
    ours = reference["memory_plan"](_shape(TINY), formats, 50, kv, theirs.overhead, 1)
    assert ours["weights"] == theirs.weights
    assert ours["kv_cache"] == theirs.kv_cache
    assert ours["total"] == pytest.approx(theirs.total, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 64), st.integers(1, 8), st.integers(1, 8), st.sampled_from(["f16", "q8", "q4"]), st.floats(0.1, 64)
)
def test_the_longest_context_fits_and_one_token_more_does_not(reference, layers, kv_heads, share, kv, memory):
    shape = {"layers": layers, "width": 1024, "ff": 2816, "heads": kv_heads * share, "kv_heads": kv_heads}
    shape |= {"head_width": 64, "vocabulary": 32_000, "tied": True}
    formats = {"layers": "Q4_0", "embedding": "Q8_0", "head": "Q8_0"}
    plan = reference["memory_plan"](shape, formats, 2048, kv, 10**8, memory)
    room = memory * 2**30 - (plan["total"] - plan["kv_cache"])
    per_token = plan["kv_cache"] // 2048
    assert plan["longest"] * per_token <= max(room, 0)
    assert (plan["longest"] + 1) * per_token > room


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=12), st.integers(0, 10**8), st.floats(0, 12))
def test_more_gpu_memory_never_makes_a_token_slower(reference, layers, cache, memory):
    """Where the GPU's memory is the faster one and the crossing costs nothing."""

    def seconds(gib: float) -> float:
        gpu = {"memory": gib, "reserved": 10**8, "bandwidth": 400}
        return reference["split_layers"](layers, cache, 10**8, gpu, {"bandwidth": 40}, 0.0)["seconds"]

    assert seconds(memory + 1) <= seconds(memory) * (1 + 1e-12)


# Deployments.


def _judged(root, case, chosen, best) -> float:
    judge = load_module(root / "solutions" / LAB / "properties.py", "lab07_properties")
    verdict = judge.spans_the_front(Trial(case.args, {}, chosen, best, case.name))
    return 1.0 if verdict is None else 0.0 if isinstance(verdict, str) else verdict.fraction


@pytest.mark.parametrize("visible", [True, False])
def test_random_choices_of_what_fits_score_less_than_the_best(root, lab, reference, visible):
    for case in lab.exam["choose_deployments"].cases(6940, visible):
        candidates, memory, divergence, _, count = case.args
        runs = [i for i, c in enumerate(candidates) if c["bytes"] <= memory and c["divergence"] <= divergence]
        if not runs:
            continue
        scores, best = [], reference["choose_deployments"](*case.args)
        for seed in range(12):
            some = random.Random(seed).sample(runs, min(count, len(runs)))
            scores.append(_judged(root, case, sorted(some, key=lambda i: -candidates[i]["score"]), best))
        assert all(0 <= score <= 1 for score in scores)
        assert sum(scores) / len(scores) < 0.8, (case.name, scores)
        assert _judged(root, case, best, best) == 1


# Streams and prompts.


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=8), max_size=4),
    st.lists(st.integers(0, 300), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_cut_of_a_stream_gives_the_same_events(reference, texts, places, end):
    raw = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    edges = sorted({0, len(raw), *(place for place in places if place < len(raw))})
    chunks = [octets(raw[a:b]) for a, b in itertools.pairwise(edges)]
    found = [event for events in reference["sse_events"](chunks) for event in events]
    assert found == list(itertools.takewhile(lambda text: text != "[DONE]", texts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "system\n", "x", "ß"]), max_size=6))
def test_a_message_never_adds_a_control_token(reference, pieces):
    roles = {r: {"before": ["<|im_start|>", f"{r}\n"], "after": ["<|im_end|>"]} for r in ("user", "assistant")}
    template, control = {"begin": [], "default": None, "roles": roles}, {"<|im_start|>": 256, "<|im_end|>": 257}
    text = "".join(pieces)
    tokens = reference["chat_prompt"]([{"role": "user", "content": text}], template, control)
    assert [t for t in tokens if t > 255] == [256, 257, 256]
    assert text.encode() in bytes(t for t in tokens if t < 256)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=30), st.integers(1, 4000))
def test_a_card_counts_every_byte_that_decoding_read(reference, steps, prompt):
    arrivals = list(itertools.accumulate(steps))
    card = reference["model_card"](arrivals, prompt, 10**9, 10**5, 50, None)
    read = sum(10**9 + 10**5 * (prompt + i) for i in range(1, len(arrivals)))
    assert card["roof"] == pytest.approx(read / (arrivals[-1] - arrivals[0]) / 50e9, rel=1e-9)
    assert math.isclose(card["ttft"], steps[0])
    assert card["joules"] is None
