"""A Dask scheduler and workers as processes of their own, for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


class Dask:
    """One scheduler on this machine's loopback, and what was started for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self.scheduler, self.address = self._start(
            ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"], r"Scheduler at:\s+(tcp://\S+)"
        )

    def worker(self, *options: str, under: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        """Start a worker (one thread and no nanny, unless `options` say other), and wait until it has joined."""
        arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", *options]
        process, _ = self._start(
            ["worker", self.address, "--local-directory", str(self._folder), *arguments],
            r"Registered to:\s+(\S+)",
            under,
            **environment,
        )
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill a process and its children, as a machine's death would."""
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()

    def close(self) -> None:
        for process in reversed(self._processes):
            self.end(process)
            assert process.stderr is not None
            process.stderr.close()

    def _start(
        self, arguments: list[str], sign: str, under: Sequence[str] = (), **environment: str
    ) -> tuple[subprocess.Popen[str], str]:
        """Start a program of Dask's and wait for what it says when it is ready."""
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "dask", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(sign, line):
                threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never fills
                return process, found[1]
        raise AssertionError("it ended: " + "".join(said)[-3000:])


@contextmanager
def dask(folder: Path) -> Iterator[Dask]:
    """A scheduler without workers; everything started for it ends."""
    made = Dask(folder)
    try:
        yield made
    finally:
        made.close()
