"""Decoding and prefill of a language model: ours, llama.cpp's, and the roof of this machine's memory.

    python -m benchmarks.decode smollm2                       the pocket model
    python -m benchmarks.decode hollow-7b-Q4_0.gguf           any GGUF file; `fourbit models hollow` makes one
    python -m benchmarks.decode FILE --json results.json

With one thread and with all cores, contestants take turns on the same file in one process, and each figure is a median
over the rounds. With one thread the clock is the processor's (what others do on the machine costs less); with all cores
it is the wall's. Peak memory is that of a process of its own that fills the whole context. llama.cpp comes as
`pip install llama-cpp-python`, which compiles it for this machine; onnxruntime and bitsandbytes, which have no such
engine on a CPU, multiply the matrices of one layer, as ours do beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.layers import layer_of
from fourbit import kernels
from fourbit.llm.engine import Engine
from fourbit.measure import probe_machine

CONTEXT = 2048
PROMPT = 256


@dataclass(frozen=True)
class Row:
    """A contestant: seconds (processor or wall) for a token, a prompt's token, and bytes read for each second."""

    name: str
    threads: int
    decode: float
    prefill: float
    gigabytes_per_second: float
    share_of_roof: float


class Ours:
    def __init__(self, path: Path, threads: int) -> None:
        kernels.use_threads(threads)
        self.name, self._threads = f"fourbit, {kernels.describe().name}", threads
        self._engine = Engine.open(path, context=CONTEXT)

    def prefill(self, tokens: list[int]) -> None:
        kernels.use_threads(self._threads)
        self._engine.truncate(0)
        self._engine.prefill(tokens)

    def decode(self, count: int) -> None:
        kernels.use_threads(self._threads)
        for token in range(100, 100 + count):
            self._engine.step(token)


class LlamaCpp:
    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self.name = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        self._model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT, n_batch=PROMPT, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def prefill(self, tokens: list[int]) -> None:
        self._model.reset()
        self._model.eval(tokens)

    def decode(self, count: int) -> None:
        for token in range(100, 100 + count):
            self._model.eval([token])


def race(path: Path, threads: int, rounds: int, count: int) -> list[Row]:
    """Let the contestants take turns, `rounds` times a prompt and then `count` tokens each."""
    clock = time.process_time if threads == 1 else time.perf_counter
    runners: list[Any] = [Ours(path, threads)]
    try:
        runners.append(LlamaCpp(path, threads))
    except ImportError:
        print("llama.cpp is left out: pip install llama-cpp-python compiles it", file=sys.stderr)
    prompt = list(range(100, 100 + PROMPT))
    spent: dict[str, tuple[list[float], list[float]]] = {runner.name: ([], []) for runner in runners}
    for turn in range(rounds + 1):
        for runner in runners:
            begun = clock()
            runner.prefill(prompt)
            read = clock()
            runner.decode(count)
            done = clock()
            if turn:  # the first touches the pages
                spent[runner.name][0].append((read - begun) / PROMPT)
                spent[runner.name][1].append((done - read) / count)
    roof = probe_machine(threads).peak_bandwidth
    weights = runners[0]._engine.weight_bytes
    return [_row(name, threads, *times, weights, roof) for name, times in spent.items()]


def _row(name: str, threads: int, prefill: list[float], decode: list[float], weights: int, roof: float) -> Row:
    token = statistics.median(decode)
    return Row(name, threads, token, statistics.median(prefill), weights / token / 1e9, weights / token / roof)


def layers(path: Path, threads: int, rounds: int) -> dict[str, float]:
    """Return the median seconds in which each contestant multiplies the matrices of one layer with one token."""
    torch.set_num_threads(threads)
    kernels.use_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    contestants: Mapping[str, Callable[[], object]] = layer_of(path, threads)
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = clock()
            run()
            if turn:
                spent[name].append(clock() - begun)
    torch.set_num_threads(1)
    return {name: statistics.median(times) for name, times in spent.items()}


def peak(path: Path) -> dict[str, int]:
    """Return the bytes that a process holds at most when it fills the whole context, and before it opens the model."""
    command = [sys.executable, "-m", "benchmarks.decode", str(path), "--fill"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _fill(path: Path) -> None:
    before = _resident()
    engine = Engine.open(path, context=CONTEXT)
    engine.prefill(np.random.default_rng(0).integers(3, engine.config.vocabulary, engine.context - 8).tolist())
    for _ in range(8):
        engine.step(5)
    plan = {"weights": engine.weight_bytes, "cache": engine.cache_bytes}
    print(json.dumps({"before": before, "peak": _resident("VmHWM"), **plan}))


def _resident(what: str = "VmRSS") -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(what)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file, or the registry's name of a model that has been fetched")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16, help="decoded in each round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    from fourbit.llm.weights import open_weights

    path = open_weights(options.model).path
    if options.fill:
        _fill(path)
        return
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, "rows": [], "layer": {}}
    for threads in sorted({1, cores}):
        rows = race(path, threads, options.rounds, options.tokens)
        found["rows"] += [asdict(row) for row in rows]
        found["layer"][threads] = layers(path, threads, 4 * options.rounds)
        _show(rows, found["layer"][threads])
    found["memory"] = peak(path)
    held = found["memory"]
    print(f"peak memory at {CONTEXT} tokens: {held['peak'] / 2**30:.2f} GiB, {held['before'] / 2**30:.2f} before opening")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _show(rows: list[Row], layer: Mapping[str, float]) -> None:
    for row in rows:
        print(
            f"{row.threads} thread(s)  {row.name:45s} decode {1 / row.decode:7.2f} tok/s  {row.share_of_roof:4.0%} of the "
            f"roof  prefill {1 / row.prefill:7.1f} tok/s"
        )
    if len(rows) > 1:
        ours, other = rows[:2]
        print(f"ours / llama.cpp: decode {other.decode / ours.decode:.2f}x, prefill {other.prefill / ours.prefill:.2f}x")
    for name, seconds in layer.items():
        print(f"  one layer, {name:30s} {seconds * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
