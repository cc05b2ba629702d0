"""Decoding and reading a prompt at 4 bits: this engine, llama.cpp, and what else multiplies 4-bit matrices on a CPU.

    python -m benchmarks.decode                     the pocket model in Q4_1 and Q4_0 and a hollow 7B, seven minutes
    python -m benchmarks.decode --quick pocket      the pocket model alone, one round

Each engine is a process of its own; they take turns, one thread first and then all cores, on the same files and tokens.
In each round all read a prompt, and then take several turns of decoding behind it. The read roof (best of several
loops) is measured after each turn, and an engine's share is that turn's: what others take, they take from both.
llama.cpp is an extra that compiles on your machine: pip install 'fourbit[race]'. The hollow 7B (Llama-2-7B's shape,
Q4_0, 3.8 GB) is made on first use. onnxruntime and bitsandbytes multiply the layers' matrices only, and where the model
is large only some layers, from which all are extrapolated. Peak memory is that of a process that fills 2,048 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.contestants import ROOT, Contestant
from benchmarks.gpu_nf4 import LLAMA_7B
from benchmarks.report import show, targets
from fourbit import kernels
from fourbit.doctor import usable_cores
from fourbit.errors import FourbitError
from fourbit.llm.card import processor
from fourbit.llm.gguf_file import GgufFile, encoded, write_gguf
from fourbit.llm.hollow import write_hollow
from fourbit.llm.plan import plan_file
from fourbit.llm.registry import locate
from fourbit.measure.reading import Reader

RESULTS = ROOT / "benchmarks" / "results" / "decode.json"
CONTEXT = 2048
ENGINES = ("fourbit", "llama.cpp")
MODELS = ("pocket", "pocket-q4_0", "hollow")
TURNS = 4  # of decoding, in each round
LAYERS = ("fourbit layers", "onnxruntime layers", "bitsandbytes layers")
PACKAGES = ("torch", "onnxruntime", "bitsandbytes", "llama-cpp-python")


@dataclass(frozen=True)
class Task:
    """A model and what is asked of it in one turn; `long` is a prompt that is read once, after the rounds."""

    name: str
    path: Path
    prompt: int
    tokens: int
    rounds: int
    long: int
    kv: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--hollow", type=Path, default=ROOT / "build" / "hollow-7b-q4_0.gguf", help="made if missing")
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--threads", type=int, nargs="*", help="default: 1 and all cores")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--no-layers", action="store_true", help="leave onnxruntime and bitsandbytes out")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    try:
        found = run(options)
    except FourbitError as error:
        print(f"decode: {error}", file=sys.stderr)
        return 1
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    print(f"written: {options.json}")
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    threads = options.threads or sorted({1, usable_cores()})
    found: dict[str, Any] = {"machine": machine(), "threads": threads, "context": CONTEXT, "models": {}}
    readers = {count: Reader(count) for count in threads}
    for name in options.models:
        task = task_of(name, options.hollow, options.quick)
        found["models"][name] = race(task, threads, readers, [] if options.no_layers else list(LAYERS))
        if not options.no_memory:
            say(f"{name}: filling {CONTEXT} tokens, for the peak memory")
            found["models"][name]["memory"] |= filled(task, max(threads))
    found["roof"] = {str(count): {"bytes_per_second": reader.roof.bandwidth, "loop": reader.roof.loop}
                     for count, reader in readers.items()}  # fmt: skip
    found["seconds"] = time.perf_counter() - began
    found["targets"] = targets(found)
    return found


def task_of(name: str, hollow: Path, quick: bool) -> Task:
    """Return what is asked of a model, whose file is made where it can be."""
    rounds = 1 if quick else 3
    if name == "pocket":
        return Task(name, locate("smollm2"), 128, 24, rounds, 512, "f16")
    if name == "pocket-q4_0":
        return Task(name, pocket_q4_0(), 128, 24, rounds, 512, "f16")
    if name != "hollow":
        raise FourbitError(f"no model of this benchmark is called {name!r}; there are {', '.join(MODELS)}")
    if not hollow.exists():
        write_hollow(LLAMA_7B, hollow, "Q4_0", title="Llama-2-7B")
    return Task(name, hollow, 128, 8, rounds, 512, "q8")


def pocket_q4_0() -> Path:
    """Return the pocket model with its layers in Q4_0, which both engines have their fastest kernels for."""
    path = ROOT / "build" / "smollm2-q4_0.gguf"
    if not path.exists():
        file = GgufFile(locate("smollm2"))
        linears = {f"{name}.weight" for name in file.config.linears()}
        tensors = {
            name: encoded(file.tensor(name), "Q4_0") if name in linears else file.packed(name) for name in file.names()
        }
        path.parent.mkdir(exist_ok=True)
        write_gguf(path, file.config, tensors, file.metadata)
    return path


def race(task: Task, threads: list[int], readers: dict[int, Reader], layers: list[str]) -> dict[str, Any]:
    """Let the engines take turns; return medians and ranges of what they took, by number of threads and name."""
    context = CONTEXT + 8
    contestants = [Contestant(name, task.path, context) for name in (*ENGINES, *layers)]
    laps: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {str(n): {} for n in threads}
    roofs: dict[str, list[float]] = {str(n): [] for n in threads}
    steps = len(threads) * (task.rounds + 2) * len(contestants)
    with progress(task.name, steps) as advance:
        for count in threads:
            here = laps[str(count)]
            for turn in range(task.rounds + 1):  # the first warms up, with little to do
                for contestant in contestants:
                    take_turn(contestant, task, count, "prefill", turn == 0, here)
                    advance(f"{contestant.name}, {count} thread(s), round {turn}")
                for _ in range(TURNS if turn else 1):
                    for contestant in contestants:
                        take_turn(contestant, task, count, "decode", turn == 0, here)
                    if turn:
                        roofs[str(count)].append(readers[count].best(1).bandwidth)
            for contestant in contestants[: len(ENGINES)]:
                if not contestant.missing:
                    lap = contestant.ask("prefill", tokens=prompt(task, task.long))
                    here[contestant.name][f"prefill {task.long}"] = [lap]
                advance(f"{contestant.name}, {count} thread(s), a prompt of {task.long} tokens")
    about = {c.name: c.missing or c.ask("about")["about"] for c in contestants[: len(ENGINES)]}
    memory = {f"{c.name} peak": c.ask("memory")["peak"] for c in contestants[: len(ENGINES)] if not c.missing}
    missing = {c.name: c.missing for c in contestants if c.missing}
    for contestant in contestants:
        contestant.end()
    planned = plan_file(task.path, CONTEXT, task.kv, baseline=0)
    return {
        "file": task.path.name, "bytes": task.path.stat().st_size, "read_for_each_token": planned.per_token,
        "about": about, "missing": missing, "laps": laps, "roofs": roofs, "memory": memory,
        "prompt": task.prompt, "long": task.long, "decoded": task.tokens,
    }  # fmt: skip


def take_turn(contestant: Contestant, task: Task, threads: int, what: str, warm: bool, laps: dict[str, Any]) -> None:
    """Ask for one lap; a contestant that is not there says so once, and the race goes on without it."""
    layers = contestant.name.endswith(" layers")
    if contestant.missing or (layers and what == "prefill"):
        return
    try:
        contestant.ask("use", threads=threads)
        if layers:
            lap = contestant.ask("layers", count=1 if warm else 2)
        elif what == "prefill":
            lap = contestant.ask("prefill", tokens=prompt(task, 16 if warm else task.prompt))
        else:
            lap = contestant.ask("decode", tokens=prompt(task, 2 if warm else task.tokens))
    except FourbitError as error:
        if contestant.name == "fourbit":
            raise
        say(f"{contestant.name} takes no part: {error}")
        return
    if not warm:
        name = f"prefill {task.prompt}" if what == "prefill" else what
        laps.setdefault(contestant.name, {}).setdefault(name, []).append(lap)


def prompt(task: Task, count: int) -> list[int]:
    random = torch.Generator().manual_seed(count)
    found: list[int] = torch.randint(3, 30_000, (count,), generator=random).tolist()
    return found


def filled(task: Task, threads: int) -> dict[str, Any]:
    """Return the peak memory of a process in which our engine fills the context, beside its plan."""
    command = [sys.executable, "-m", "benchmarks.fill", str(task.path), str(CONTEXT), task.kv, str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise FourbitError(f"filling the context failed: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"fourbit, context full": found}


def machine() -> dict[str, Any]:
    return {
        "cpu": processor(), "kernels": kernels.load().isa,
        "cores": usable_cores(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(), "packages": {name: _version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@contextmanager
def progress(name: str, steps: int) -> Iterator[Callable[[str], None]]:
    columns = (TextColumn(f"[bold]{name}[/]"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=steps)

        def advance(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield advance


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
