"""Measure what the chapter on deployment reports, on the pocket model and a hollow 7B, and write deployment.json.

    python lecture_notes/figures/measure_deployment.py [PART ...]     anatomy, caches, conversions, ...

Some minutes of one core, and 4 GB of disk and memory for the parts memory and speed, which make a hollow Llama-2-7B
    python lecture_notes/figures/measure_deployment.py [PART ...]     anatomy, caches, conversions, positions, ...
reports what the lab computes. Reference is the pocket model in float32 by plain torch; texts are from Persuasion.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind

from fourbit.exam.reference import load_lab
from fourbit.llm.catalog import find
from fourbit.llm.config import LlmConfig
from fourbit.llm.engine import Engine
from fourbit.llm.evaluate import windows
from fourbit.llm.gguf_file import GgufFile, Packed, write_gguf
from fourbit.llm.gguf_names import paired, rotated_heads
from fourbit.llm.hollow import write_hollow
from fourbit.llm.loading import load
from fourbit.llm.plan import plan_file
from fourbit.llm.registry import locate
from fourbit.llm.texts import EVALUATION, novel
from fourbit.measure.memory import resident
from fourbit.measure.reading import Reader

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(__file__).parent / "deployment.json"
LLAMA_2_7B = LlmConfig("llama", 32, 4096, 11_008, 32, 32, 128, 32_000, 1e4, 1e-5, False, False, 4096)
COUNT, LENGTH, LONG = 6, 192, 1024  # windows and their tokens; tokens of the text that positions are measured on
HOLLOW = ("anatomy", "memory", "speed")  # parts that need the hollow file
CHILD = """
import json, sys, time
from fourbit.measure.memory import peak_resident, resident
from fourbit.llm.engine import Engine
from fourbit.llm.generation import generate
path, context, prompt, kv, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
before = resident()
engine = Engine.open(path, context=context, threads=threads, kv=kv)
wall, cpu, arrivals, clocks = time.perf_counter(), time.process_time(), [], []
for piece in generate(engine, [(37 * i) % 250 + 3 for i in range(prompt)], limit=context - prompt, stop_tokens=()):
    arrivals.append(time.perf_counter() - wall)
    clocks.append(time.process_time() - cpu)
print(json.dumps({"before": before, "peak": peak_resident(), "arrivals": arrivals, "clocks": clocks,
                  "isa": engine.kernel.isa, "weights": engine.weight_bytes}))
"""
Encode = Callable[[torch.Tensor], torch.Tensor]


@cache
def lab() -> dict[str, Any]:
    return load_lab(ROOT / "solutions/07-deploy").namespace()


@cache
def source() -> GgufFile:
    return GgufFile(locate("smollm2"))


@cache
def texts() -> torch.Tensor:
    """Windows (COUNT, LENGTH) of the evaluation text."""
    return windows(load("smollm2").tokenizer.encode(novel(EVALUATION)), LENGTH, COUNT)


@cache
def long_text() -> torch.Tensor:
    return windows(load("smollm2").tokenizer.encode(novel(EVALUATION)), LONG, 1)


def reference(tokens: torch.Tensor) -> list[torch.Tensor]:
    model = load("smollm2").model
    with torch.no_grad():
        return [model(row[None])[0] for row in tokens]


def divergences(path: Path, tokens: torch.Tensor, golden: list[torch.Tensor], kv: str = "f16") -> torch.Tensor:
    """KL(reference || deployed) of each token, (windows, tokens) float64."""
    found = []
    for row, logits in zip(tokens.tolist(), golden, strict=True):
        engine = Engine.open(path, context=len(row), threads=1, kv=kv)
        p, q = logits.double().log_softmax(-1), engine.forward(row, every=True).double().log_softmax(-1)
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.stack(found)


def summary(kl: torch.Tensor) -> dict[str, Any]:
    return {"mean": float(kl.mean()), "worst": float(kl.max()), "windows": kl.mean(1).tolist()}


def rounded(path: Path, encode: Encode, config: LlmConfig, move: bool = True) -> Path:
    """The pocket model with its matrices in Q4_0; without `move`, the rows of q and k stay as in a checkpoint."""
    tensors: dict[str, Any] = {name: source().stored(name) for name in source().names()}
    for name in tensors:
        if name.endswith("_proj.weight"):
            weight, heads = source().tensor(name), rotated_heads(config, name)
            weight = paired(weight, heads, apart=True) if heads and not move else weight
            tensors[name] = Packed(Kind.Q4_0, tuple(weight.shape), encode(weight).numpy())
    write_gguf(path, config, tensors, source().metadata)
    return path


def relabeled(path: Path, config: LlmConfig) -> Path:
    """The pocket model's own blocks under another config."""
    write_gguf(path, config, {name: source().packed(name) for name in source().names()}, source().metadata)
    return path


def exchanged(weight: torch.Tensor) -> torch.Tensor:
    blocks = lab()["encode_q4_0"](weight).reshape(-1, 18).clone()
    blocks[:, 2:] = blocks[:, 2:] >> 4 | blocks[:, 2:] << 4
    return blocks.reshape(len(weight), -1)


def sign_lost(weight: torch.Tensor) -> torch.Tensor:
    """Q4_0 with the largest magnitude over -8, whatever its sign."""
    blocks = weight.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 8).half()
    codes = ((blocks / torch.where(scale == 0, torch.inf, scale.float())).round() + 8).clamp(0, 15).byte()
    parts = [scale.view(torch.uint8), codes[:, :16] | codes[:, 16:] << 4]
    return torch.cat(parts, 1).reshape(len(weight), -1)


def caches() -> dict[str, Any]:
    """What a cache in fewer bits costs, beside activations in 8 bits."""
    golden = reference(texts())
    return {kv: summary(divergences(source().path, texts(), golden, kv)) for kv in ("f32", "f16", "q8", "q4")}


def conversions() -> dict[str, Any]:
    """Right and wrong conversions to Q4_0, and wrong labels on blocks that were not rounded again."""
    golden, config, encode = reference(texts()), source().config, lab()["encode_q4_0"]
    base, epsilon = replace(config, rope_theta=1e4), replace(config, norm_eps=1e-2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pocket.gguf"
        made: dict[str, Callable[[], Path]] = {
            "right": lambda: rounded(path, encode, config),
            "nibbles": lambda: rounded(path, exchanged, config),
            "sign": lambda: rounded(path, sign_lost, config),
            "rows": lambda: rounded(path, encode, config, move=False),
            "base": lambda: rounded(path, encode, base),
            "epsilon": lambda: rounded(path, encode, epsilon),
            "exact": lambda: relabeled(path, config),
            "exact base": lambda: relabeled(path, base),
            "exact epsilon": lambda: relabeled(path, epsilon),
        }
        return {name: summary(divergences(make(), texts(), golden)) for name, make in made.items()}


def positions() -> dict[str, Any]:
    """Divergence along a long text, of the right base and of a wrong one, not rounded again."""
    golden = reference(long_text())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pocket.gguf"
        found = {}
        for name, theta in (("right", 1e5), ("wrong", 1e4)):
            relabeled(path, replace(source().config, rope_theta=theta))
            found[name] = divergences(path, long_text(), golden)[0].tolist()
    return found


def run(path: Path, context: int, prompt: int, kv: str = "f16", threads: int = 1) -> dict[str, Any]:
    """What a process of its own says of one answer."""
    command = [sys.executable, "-c", CHILD, str(path), str(context), str(prompt), kv, str(threads)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def anatomy(hollow: Path) -> dict[str, Any]:
    """What the headers of the two files hold."""
    found = {}
    read_header = lab()["read_header"]
    for name, path in (("hollow", hollow), ("pocket", source().path)):
        before = resident()
        data = torch.from_numpy(np.memmap(path, np.uint8, "c"))
        header = read_header(data)
        grown = resident() - before
        first = min(tensor["start"] for tensor in header["tensors"].values())
        kinds: dict[str, int] = {}
        for tensor in header["tensors"].values():
            kind = lab()["KINDS"][tensor["kind"]][0]
            kinds[kind] = kinds.get(kind, 0) + tensor["bytes"]
        counts = {"tensors": len(header["tensors"]), "entries": len(header["metadata"]), "grown": grown}
        found[name] = {"bytes": len(data), "header": first, "kinds": kinds, **counts}
    return found


def memory(hollow: Path) -> list[dict[str, Any]]:
    """Planned and measured bytes, the cache full at the end of each run."""
    found = []
    for name, path, context, kv in (
        ("pocket", source().path, 512, "f16"),
        ("pocket", source().path, 2048, "f16"),
        ("pocket", source().path, 4096, "q8"),
        ("hollow 7B", hollow, 192, "f16"),
        ("hollow 7B", hollow, 192, "q8"),
    ):
        report = run(path, context, context - 8, kv)
        plan = plan_file(path, context, kv, baseline=report["before"])
        parts = {key: getattr(plan, key) for key in ("weights", "kv_cache", "activations", "overhead", "total")}
        found.append({"model": name, "context": context, "kv": kv, "measured": report["peak"], **parts})
    return found


def read_rate() -> float:
    """Bytes that one core reads in a second of its own time: the best of a few passes over a gigabyte."""
    one, other, best = torch.ones(2**27), torch.ones(2**27), 0.0
    for _ in range(6):
        start = time.thread_time()
        torch.dot(one, other)
        best = max(best, 2 * 4 * 2**27 / (time.thread_time() - start))
    return best


def speed(hollow: Path) -> dict[str, Any]:
    """Decoding of the hollow 7B and the read roof, in turns, by the time that one core worked.

    Best of several, those of earlier runs of this script included, and no clock on the wall: whatever else runs on the
    machine only slows both down. (Delete the entry to begin anew, on another machine or after a change of the kernels.)
    """
    known = json.loads(TARGET.read_text(encoding="utf-8")).get("speed", {}) if TARGET.exists() else {}
    context, prompt, roof, best = 96, 64, known.get("roof", 0.0), known.get("core", 0.0)
    for _ in range(5):
        roof = max(roof, read_rate(), Reader(1).best(1).bandwidth)
        report = run(hollow, context, prompt)
        steps = len(report["clocks"]) - 1
        best = max(best, steps / (report["clocks"][-1] - report["clocks"][0]))
    bytes_read = plan_file(hollow, context).per_token + (prompt + steps / 2) * 2**19
    return {"roof": roof, "core": best, "isa": report["isa"], "bytes": bytes_read}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--hollow", type=Path)
    asked = parser.parse_args()
    results = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    results["checkpoint"] = find("smollm2").files[0].sha256
    with tempfile.TemporaryDirectory() as folder:
        hollow = asked.hollow or Path(folder) / "hollow.gguf"
        parts = asked.parts or ["anatomy", "caches", "conversions", "positions", "memory", "speed"]
        if not hollow.exists() and set(HOLLOW) & set(parts):
            write_hollow(LLAMA_2_7B, hollow, "Q4_0", title="Llama-2-7B")
        for part in parts:
            start = time.process_time()
            results[part] = globals()[part](hollow) if part in HOLLOW else globals()[part]()
            print(f"{part}: {time.process_time() - start:.0f} s")
            versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
            results["versions"] = versions
            TARGET.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
