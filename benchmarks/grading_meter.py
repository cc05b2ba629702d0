"""A command, measured from outside: wall and processor time, memory of its processes, and when each line came.

Processor time is a control group's where one can be made (as root): it counts processes that the kernel reaps when a
sandbox's process table ends, which rusage misses. `by` says which of the two it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_SECONDS = 1.0
_VERSION_1, _VERSION_2 = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")


@dataclass
class Run:
    """What a command took.

    Attributes:
        settled: for each JSON line of stdout about a submission: seconds since the start, and processor seconds so far.
        own: resident bytes of the command's first process, sampled once a second; (seconds, bytes).
        peak: proportional bytes of all its other processes together, at the most.
        lines: the JSON lines.
    """

    wall: float = 0.0
    cpu: float = 0.0
    by: str = ""
    settled: list[tuple[float, float]] = field(default_factory=list)
    own: list[tuple[float, int]] = field(default_factory=list)
    peak: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def each(self) -> tuple[float, float]:
        """Wall and processor seconds of one submission, start-up left out: between the first and the last one."""
        if len(self.settled) < 2:
            return self.wall, self.cpu
        (first, first_cpu), (last, last_cpu) = self.settled[0], self.settled[-1]
        count = len(self.settled) - 1
        return (last - first) / count, (last_cpu - first_cpu) / count


def measured(command: list[str], folder: Path, tick: Callable[[int], None], done: Callable[[], int]) -> Run:
    """Run a command in `folder`; `tick` is told how many submissions are done, which `done` finds out.

    The JSON lines that it prints are kept. Leaves the program when the command fails.
    """
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    run = Run()
    with processor_time() as (enter, cpu), tempfile.TemporaryFile("w+") as errors:
        run.by = "control group" if enter else "rusage"
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=enter
        )
        watch = threading.Thread(target=_sample, args=(process, run, start, tick, done), daemon=True)
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                run.lines.append(item)
                if item.get("type") == "submission":
                    run.settled.append((time.perf_counter() - start, cpu()))
        process.stdout.close()
        status = process.wait()
        run.wall = time.perf_counter() - start
        watch.join()
        run.cpu = cpu()
        if status:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} ended with status {status}:\n{errors.read()[-4000:]}")
    return run


def _sample(
    process: subprocess.Popen[str], run: Run, start: float, tick: Callable[[int], None], done: Callable[[], int]
) -> None:
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(process.pid)
            run.own.append((time.perf_counter() - start, first.memory_info().rss))
            run.peak = max(run.peak, sum(map(_proportional, first.children(recursive=True))))
        tick(done())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_SECONDS)
    tick(done())


def _proportional(process: psutil.Process) -> int:
    """Bytes of a process, those that it shares divided by how many share them."""
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


@contextmanager
def processor_time() -> Iterator[tuple[Callable[[], None] | None, Callable[[], float]]]:
    """Yield what a new process calls to be counted (None: children are anyway), and the seconds counted so far."""
    for root, usage, unit in ((_VERSION_1, "cpuacct.usage", 1e9), (_VERSION_2, "cpu.stat", 1e6)):
        group = root / f"benchmark-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / usage).is_file() and (group / "cgroup.procs").is_file():

                def enter(group: Path = group) -> None:
                    (group / "cgroup.procs").write_text(str(os.getpid()))

                def spent(path: Path = group / usage, unit: float = unit) -> float:
                    words = path.read_text().split()
                    return int(words[1] if words[0] == "usage_usec" else words[0]) / unit

                yield enter, spent
                return
        finally:
            _remove(group)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def since() -> float:
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime

    yield None, since


def _remove(group: Path) -> None:
    for _ in range(50):  # a process that has just ended still counts as in it
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)
