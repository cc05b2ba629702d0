"""A hollow 7B in NF4 on this machine's GPU: memory against the plan, tokens per second, and the same with fewer layers.

    python -m benchmarks.gpu_nf4

Needs a CUDA GPU of 6 GB, torch, transformers, accelerate and bitsandbytes; no network, and nothing is downloaded: the
weights of Llama-2-7B's shape are drawn on the GPU and quantized there. Takes about two minutes. Writes
benchmarks/results/gpu-nf4.json, with the GPU's name.

The memory that is compared with the plan is the GPU's own count (nvidia-smi) after the whole context was read, less
what it was before CUDA began in this process.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fourbit.errors import FourbitError
from fourbit.llm.config import LlmConfig
from fourbit.llm.cuda import find_device, used_bytes
from fourbit.llm.gpu import GpuEngine
from fourbit.llm.nf4 import HollowSource, assemble, hf_config

LLAMA_7B = LlmConfig(
    architecture="llama", layers=32, width=4096, ff=11_008, heads=32, kv_heads=32, head_width=128, vocabulary=32_000,
    rope_theta=1e4, norm_eps=1e-5, tied=False, qkv_bias=False, context=4096,
)  # fmt: skip
SMALL = LlmConfig(
    architecture="llama", layers=4, width=512, ff=1024, heads=8, kv_heads=4, head_width=64, vocabulary=2048,
    rope_theta=1e4, norm_eps=1e-5, tied=False, qkv_bias=False, context=1024,
)  # fmt: skip
RESULTS = Path(__file__).parent / "results" / "gpu-nf4.json"
PACKAGES = ("torch", "transformers", "accelerate", "bitsandbytes")
TOLERANCE = 0.03
_COPY = 2**28


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try this program with a small model")
    options = parser.parse_args()
    try:
        found = measure(options.device, options.context)
    except FourbitError as error:
        print(f"gpu_nf4: {error}", file=sys.stderr)
        return 1
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {options.json}")
    return 0 if found["memory"]["within"] and found["split"]["same_tokens"] else 2


def measure(name: str, context: int) -> dict[str, Any]:
    """Run all parts; on a CPU with the small shape, where memory counts the model's tensors only."""
    # Counted before anything else: to ask a GPU what it can begins with CUDA, which takes memory.
    on_gpu = name.startswith("cuda") and torch.cuda.is_available()
    before = used_bytes(torch.device(name).index or 0) if on_gpu else 0
    device = find_device(name)
    config = LLAMA_7B if on_gpu else SMALL
    context = min(context, config.context)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "CPU",
        "packages": {package: version(package) for package in PACKAGES},
        "shape": {"name": "Llama-2-7B" if on_gpu else "small", **asdict(config)},
        "context": context,
    }
    say(f"{found['device']}: agreement of a small model with the CPU")
    found["agreement"] = agreement(name)
    release(device)
    say("filling the whole model")
    began = time.perf_counter()
    engine = GpuEngine.open(config, context=context, device=name, progress=bar)
    found["load_seconds"] = time.perf_counter() - began
    found["speed"] = speed(engine, config, device)
    found["memory"] = memory(engine, device, before)
    found["first_tokens"] = greedy(engine, 16)
    found["bandwidth"] = copy_bandwidth(device) if on_gpu else None
    if found["bandwidth"]:
        read = engine.plan.per_token * found["speed"]["decode"]["tokens_per_second"]
        found["share_of_copy_bandwidth"] = read / found["bandwidth"]
    del engine
    release(device)
    say("the same model with half of its layers in the computer's memory")
    found["split"] = split(config, context, name, device, found["first_tokens"])
    for key in ("memory", "speed", "split"):
        say(f"{key}: {json.dumps(found[key])}")
    return found


def agreement(name: str) -> dict[str, float]:
    """Return how far a small model's logits on the device lie from the CPU's, as a share of the largest one."""
    prompt, cpu = torch.tensor([prompt_of(SMALL, 64)]), torch.device("cpu")
    logits = []
    for device in (cpu, find_device(name)):
        source = HollowSource(SMALL, cpu, torch.bfloat16)  # drawn on the CPU: a GPU's random numbers are others
        model = assemble(hf_config(SMALL), source, device, torch.bfloat16)
        with torch.inference_mode():
            logits.append(model(input_ids=prompt.to(device)).logits[0].float().cpu())
    a, b = logits
    same = float((a.argmax(-1) == b.argmax(-1)).float().mean())
    return {"largest_difference": float((a - b).abs().max() / a.abs().max()), "same_best_token": same}


def speed(engine: GpuEngine, config: LlmConfig, device: torch.device) -> dict[str, Any]:
    """Time a prompt and decoding, early and late in the context; the last run fills the context to its end."""
    for _ in range(2):  # what kernels need once
        engine.truncate(0)
        engine.forward(prompt_of(config, 64))
        decode(engine, 4)
    room = engine.context
    short, whole = room // 16, room - 40
    engine.truncate(0)
    first = timed(lambda: engine.forward(prompt_of(config, short)))
    early = decode(engine, 32)
    engine.truncate(0)
    prefill = timed(lambda: engine.forward(prompt_of(config, whole)))
    late = decode(engine, 32)
    return {
        "first_token_seconds": first,
        "prompt_tokens": short,
        "prefill": {"tokens": whole, "tokens_per_second": whole / prefill},
        "decode": early,
        "decode_at_the_end": late,
        "host": platform.processor() or platform.machine(),
    }


def decode(engine: GpuEngine, count: int) -> dict[str, float]:
    """Return the median, fastest and slowest seconds for a token; each waits for its logits on the CPU."""
    seconds = [timed(lambda i=i: engine.forward([3 + i])) for i in range(count)]  # type: ignore[misc]
    middle = statistics.median(seconds)
    return {"tokens_per_second": 1 / middle, "median": middle, "fastest": min(seconds), "slowest": max(seconds)}


def memory(engine: GpuEngine, device: torch.device, before: int) -> dict[str, Any]:
    """Compare what is used now, the context being full, with the plan, part by part and in sum."""
    plan = engine.plan
    parts = {"weights": [plan.weights, engine.weight_bytes], "kv_cache": [plan.kv_cache, engine.cache_bytes]}
    if device.type != "cuda":
        ratio = engine.weight_bytes / plan.weights
        return {"planned_and_held": parts, "ratio": ratio, "within": abs(ratio - 1) <= TOLERANCE}
    used = used_bytes(device.index or 0) - before
    parts["total"] = [plan.total, used]
    ratio = used / plan.total
    return {
        "planned_and_held": parts,
        "planned_activations": plan.activations,
        "measured_context": plan.overhead,
        "most_allocated": torch.cuda.max_memory_allocated(device),
        "most_reserved": torch.cuda.max_memory_reserved(device),
        "before": before,
        "ratio": ratio,
        "within": abs(ratio - 1) <= TOLERANCE,
    }


def split(config: LlmConfig, context: int, name: str, device: torch.device, wanted: list[int]) -> dict[str, Any]:
    """Open with half of the layers on the device: the tokens are the same, what is held there is half, time is more."""
    engine = GpuEngine.open(config, context=context, device=name, layers=config.layers // 2, progress=bar)
    tokens = greedy(engine, 16)
    found: dict[str, Any] = {
        "layers_on_device": engine.layers_on_gpu,
        "on_device": engine.bytes_on_gpu,
        "in_memory": engine.bytes_in_memory,
    }
    if device.type == "cuda":
        found["most_reserved"] = torch.cuda.max_memory_reserved(device)
    return found | {"same_tokens": tokens == wanted, "decode": decode(engine, 8)}


def greedy(engine: GpuEngine, count: int) -> list[int]:
    engine.truncate(0)
    tokens = [int(engine.forward(prompt_of(engine.config, 32)).argmax())]
    while len(tokens) < count:
        tokens.append(int(engine.forward(tokens[-1:]).argmax()))
    return tokens


def prompt_of(config: LlmConfig, count: int) -> list[int]:
    random = torch.Generator().manual_seed(1)
    found: list[int] = torch.randint(3, config.vocabulary, (count,), generator=random).tolist()
    return found


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes that a copy within the GPU moves in a second, reads and writes counted."""
    source = torch.ones(_COPY, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize(device)

    copy()
    return 2 * _COPY / min(timed(copy) for _ in range(20))


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def release(device: torch.device) -> None:
    """Give back what the last model held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def bar(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {done}/{total} tensors", end="\n" if done == total else "", file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
