"""One engine in a process of its own that does what it is told over pipes: `python -m benchmarks.contestants NAME ...`.

Each line on standard input is a request, {"do": ..., ...}; each line on standard output its answer. So engines can take
turns on one machine while their memory and threads stay apart. Times are of this process: wall and processor seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourbit.errors import FourbitError

ROOT = Path(__file__).resolve().parent.parent
INSTALL = "pip install 'fourbit[race]' compiles llama-cpp-python for this machine; it takes some minutes"


class Ours:
    """This repository's engine, opened anew for each number of threads: two would count the file's pages twice."""

    def __init__(self, path: str, context: int) -> None:
        from fourbit.llm.engine import Engine

        self._open: Callable[[int], Any] = lambda threads: Engine.open(path, context=context, threads=threads)
        self._engine: Any = None

    def use(self, threads: int) -> None:
        if self._engine is None or self._engine.kernel.threads != threads:
            self._engine = None
            self._engine = self._open(threads)

    def read(self, tokens: list[int], again: bool) -> None:
        if again:
            self._engine.truncate(0)
        self._engine.forward(tokens)

    def about(self) -> str:
        from importlib.metadata import version

        return f"fourbit {version('fourbit')}, {self._engine.kernel.isa}"


class LlamaCpp:
    """llama.cpp through llama-cpp-python; its own copy of the weights, in the order that its kernels like best."""

    def __init__(self, path: str, context: int) -> None:
        try:
            import llama_cpp
        except ImportError:
            raise FourbitError(f"llama.cpp is not there: {INSTALL}") from None
        self._library = llama_cpp
        self._model = llama_cpp.Llama(path, n_ctx=context, n_batch=512, n_threads=1, use_mmap=False, verbose=False)

    def use(self, threads: int) -> None:
        self._library.llama_set_n_threads(self._model._ctx.ctx, threads, threads)

    def read(self, tokens: list[int], again: bool) -> None:
        if again:
            self._model.reset()
        self._model.eval(tokens)

    def about(self) -> str:
        return f"llama.cpp in llama-cpp-python {self._library.__version__}"


class Layers:
    """Products of a model's layers only: see :mod:`benchmarks.layers`."""

    def __init__(self, name: str, path: str) -> None:
        from benchmarks.layers import STACKS, stack
        from fourbit.llm.gguf_file import GgufFile

        self._config = GgufFile(path).config
        self._make = STACKS[name]
        self._runs: dict[int, Callable[[], object]] = {}
        self.share = self._config.layers / stack(self._config)[0]

    def use(self, threads: int) -> None:
        if threads not in self._runs:
            self._runs = {threads: self._make(self._config, threads)}
        self._run = self._runs[threads]

    def once(self) -> None:
        self._run()


def clocked(run: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def answer(engine: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks for."""
    what = request["do"]
    if what == "use":
        engine.use(request["threads"])
        return {}
    if what == "prefill":
        return clocked(lambda: engine.read(request["tokens"], True))
    if what == "decode":
        laps = [clocked(lambda token=token: engine.read([token], False)) for token in request["tokens"]]  # type: ignore[misc]
        return {clock: statistics.median(lap[clock] for lap in laps) for clock in ("wall", "cpu")}
    if what == "layers":
        laps = [clocked(engine.once) for _ in range(request["count"])]
        return {clock: engine.share * statistics.median(lap[clock] for lap in laps) for clock in ("wall", "cpu")}
    if what == "memory":
        from fourbit.measure.memory import peak_resident

        return {"peak": peak_resident()}
    if what == "about":
        return {"about": engine.about()}
    raise FourbitError(f"no request is called {what!r}")


def serve(name: str, path: str, context: int) -> None:
    """Answer requests until standard input ends."""
    if name.endswith(" layers"):
        engine: Any = Layers(name.removesuffix(" layers"), path)
    else:
        engine = {"fourbit": Ours, "llama.cpp": LlamaCpp}[name](path, context)
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line))), flush=True)


class Contestant:
    """The other end of the pipes. `missing` says why an engine is not there; then nothing can be asked of it."""

    def __init__(self, name: str, path: Path, context: int) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.contestants", name, str(path), str(context)]
        own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it goes with the process)
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=own, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words
        )
        self.missing = ""

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            FourbitError: when the process has ended, with its last words.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **options}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._words.seek(0)
            words = self._words.read().strip().splitlines()
            self.missing = words[-1] if words else f"{self.name} has ended without a word"
            raise FourbitError(self.missing)
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """Let the process leave, and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a request that it did not live to read
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._words.close()


def main() -> int:
    name, path, context = sys.argv[1:]
    try:
        serve(name, path, int(context))
    except FourbitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
