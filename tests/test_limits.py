"""Each limit in each jail mode: the cell that hits it says which it was, and the next cell runs."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from autograder.engine import CellOutcome, Runner, Zygote
from autograder.jail import JailMode, Limits, describe

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

LIMITS = Limits(
    cell_seconds=30, notebook_seconds=120, cpu_seconds=60, memory_bytes=256 * 2**20, processes=16, open_files=100,
    disk_bytes=16 * 2**20, output_bytes=2**16,
)  # fmt: skip


@dataclass(frozen=True)
class Excess:
    """A cell that takes too much: which limit it must be told of, and what the message says."""

    limit: str
    source: str
    says: str
    status: str = "error"
    but: tuple[JailMode, ...] = ()


EXCESSES = {
    "cell time": Excess("cell_seconds", "while True: pass", "ran longer than 1 s", "timeout"),
    "waiting": Excess("cell_seconds", "import time\ntime.sleep(100)", "ran longer than 1 s", "timeout"),
    "cpu": Excess("cpu_seconds", "while True: pass", "used more than 1 s of CPU time", "timeout"),
    "cpu, signal ignored": Excess(
        "cpu_seconds", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "used more than 1 s of CPU time", "timeout",
    ),
    "memory": Excess(
        "memory_bytes", "x = bytearray(2**30)", r"used more than 256 MiB of memory \(MemoryError", "out of memory"
    ),
    "memory of a shared mapping": Excess(
        "memory_bytes",
        "import mmap, time\nx = mmap.mmap(-1, 2**29)\nx.write(b'x' * 2**29)\ntime.sleep(60)",
        "used more than 256 MiB of memory", "out of memory",
    ),
    "memory, hidden by another error": Excess(
        "memory_bytes", "try:\n    x = bytearray(2**30)\nexcept MemoryError as e:\n    raise ValueError('no') from e",
        "used more than 256 MiB", "out of memory",
    ),
    "disk": Excess(
        "disk_bytes", "with open('x', 'wb') as f:\n    while True:\n        f.write(b'x' * 2**20)",
        "wrote more than 16 MiB",
    ),
    "disk, by a program": Excess(
        "disk_bytes", "!i=0; while true; do i=$((i+1)); head -c 1M /dev/zero > $i; done",
        "wrote more than 16 MiB", "error", (JailMode.NAMESPACES,),  # there the program is told that the disk is full
    ),
    "disk in small files": Excess(
        "disk_bytes",
        "n = 0\nwhile True:\n    n += 1\n    with open(f'{n}.x', 'wb') as f:\n        f.write(b'x' * 2**20)",
        "wrote more than 16 MiB",
    ),
    "files without content": Excess(
        "disk_bytes", "import os\nn = 0\nwhile True:\n    n += 1\n    os.mkdir(str(n))", "or 32,768 files",
    ),
    "open files": Excess("open_files", "held = [open('/dev/null') for _ in range(1000)]", "more than 100 files open"),
    "open pipes": Excess(
        "open_files", "import os\nheld = [os.pipe() for _ in range(1000)]", "more than 100 files open"
    ),
    "threads": Excess(
        "processes",
        "from threading import Event, Thread\nstop = Event()\n"
        "for _ in range(500): Thread(target=stop.wait, daemon=True).start()",
        "had more than 16 processes and threads",
    ),
    "forks": Excess(
        "processes", "import os, time\nfor _ in range(500):\n    if os.fork() == 0:\n        time.sleep(600)",
        "had more than 16 processes and threads",
    ),
    "programs": Excess(
        "processes", "import subprocess\nheld = [subprocess.Popen(['sleep', '600']) for _ in range(500)]",
        "had more than 16 processes and threads",
    ),
    "output": Excess("output_bytes", "print('x' * 2**20)", "the output was cut after 65536 bytes", "output limit"),
    "output of a program": Excess("output_bytes", "!head -c 1M /dev/zero", "the output was cut", "output limit"),
}  # fmt: skip


def modes() -> list[JailMode]:
    report = describe()
    works = {JailMode.NAMESPACES: not report.namespaces, JailMode.LANDLOCK: not report.landlock, JailMode.PLAIN: True}
    return [mode for mode in JailMode if works[mode]]


@pytest.fixture(scope="module", params=modes(), ids=str)
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    with Zygote((), mode=request.param, packages=()) as made:
        yield made


def run(zygote: Zygote, excess: Excess) -> tuple[Runner, CellOutcome]:
    changes = {excess.limit: 1} if excess.limit in ("cell_seconds", "cpu_seconds") else {}
    runner = zygote.spawn(replace(LIMITS, **changes))
    return runner, runner.run_cell(textwrap.dedent(excess.source), checkpoint=True)


@pytest.mark.parametrize("excess", EXCESSES.values(), ids=EXCESSES.keys())
def test_a_limit_is_named_and_costs_one_cell(zygote: Zygote, excess: Excess) -> None:
    if zygote.mode in excess.but:
        pytest.skip("is told to the program itself in this mode")
    runner, outcome = run(zygote, excess)
    with runner:
        assert (outcome.limit, outcome.status.replace("crashed", "error")) == (excess.limit, excess.status), outcome
        assert re.search(excess.says, outcome.message)
        after = runner.run_cell("print('on')", checkpoint=True)
        assert [output["text"] for output in after.outputs] == ["on\n"]


def test_the_notebooks_time_is_named(zygote: Zygote) -> None:
    with zygote.spawn(replace(LIMITS, notebook_seconds=1)) as runner:
        outcome = runner.run_cell("while True: pass", checkpoint=True)
        assert (outcome.status, outcome.limit) == ("timeout", "notebook_seconds")
        assert outcome.message == "stopped: the notebook ran longer than 1 s"
        after = runner.run_cell("1")
        assert (after.status, after.limit) == ("timeout", "notebook_seconds")
        assert after.message == "not run: the notebook ran longer than 1 s"


@pytest.mark.parametrize(
    "source",
    [
        "raise BlockingIOError(11, 'nothing in the pipe')",
        "import os\nr, w = os.pipe()\nos.set_blocking(r, False)\nos.read(r, 1)",
        "open('missing')",
        "raise OSError('out of order')",
        "1 / 0",
        "class Hostile(Exception):\n    def __getattribute__(self, name): raise SystemExit\nraise Hostile",
    ],
)
def test_an_error_that_is_no_limit_is_called_none(zygote: Zygote, source: str) -> None:
    with zygote.spawn(LIMITS) as runner:
        outcome = runner.run_cell(source, checkpoint=True)
        assert (outcome.status, outcome.limit) == ("error", "")
        assert not outcome.message.startswith("stopped")


def test_what_a_cell_starts_beside_itself_makes_way_for_others(zygote: Zygote) -> None:
    source = """
        import os, time
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        end = time.monotonic() + 20
        while time.monotonic() < end and os.getpriority(os.PRIO_PROCESS, pid) < 10:
            time.sleep(0.05)
        print(os.getpriority(os.PRIO_PROCESS, pid), os.getpriority(os.PRIO_PROCESS, 0))
        os.kill(pid, 9)
    """
    with zygote.spawn(LIMITS) as runner:
        outcome = runner.run_cell(textwrap.dedent(source), checkpoint=True)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert "".join(output["text"] for output in outcome.outputs) == f"10 {own}\n", outcome


def test_an_interrupted_output_leaves_the_notebook_alive(zygote: Zygote) -> None:
    """Half an output on its way would be the end of the process, and of what the notebook held."""
    source = (
        "from IPython.display import clear_output, display\nwhile True:\n    clear_output()\n    display('x' * 10**6)"
    )
    with zygote.spawn(replace(LIMITS, output_bytes=2**28)) as runner:
        for number in range(8):
            outcome = runner.run_cell(source, seconds=0.1 + number / 50)
            assert (outcome.status, outcome.kept) == ("timeout", True)
