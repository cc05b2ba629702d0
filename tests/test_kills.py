"""Whichever process of the grader's is killed while a notebook runs: the rest ends, nothing is left, and the next
submission is graded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from autograder.engine import CellOutcome, Zygote
from autograder.jail import JailMode, Limits, describe
from autograder.jail.processes import descendants

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

# Strays of their own session, which outlive whoever started them.
STRAYS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(f"stray-{os.getpid()}.txt", "w").write("x")
            time.sleep(300)
        os._exit(0)
"""
VICTIMS = ("zygote", "warden", "guard", "restore point", "notebook")
PROCESSES = 8  # zygote, warden, guard, restore point, notebook, three strays


def modes() -> list[JailMode]:
    report = describe()
    works = {JailMode.NAMESPACES: not report.namespaces, JailMode.LANDLOCK: not report.landlock, JailMode.PLAIN: True}
    return [mode for mode in JailMode if works[mode]]


def children(pid: int) -> list[int]:
    found = descendants(pid)
    return sorted(child for child in found if _parent(child) == pid)


def _parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_bytes()
    return int(text[text.rindex(b")") + 2 :].split()[1])


def cast(zygote: int) -> dict[str, int]:
    """The processes of a running cell by what they are, once all are there."""
    for _ in range(1500):
        found = descendants(zygote)
        if len(found) + 1 >= PROCESSES:
            (warden,) = children(zygote)
            (guard,) = children(warden)
            for first in children(guard):
                below = children(first)
                if len(below) == 1:
                    return dict(zip(VICTIMS, (zygote, warden, guard, first, *below), strict=True))
        time.sleep(0.01)
    raise AssertionError(f"only {found} run")


def leftovers(warden: int) -> list[Path]:
    """The work folders that a warden keeps, if they are still there after a while."""
    for _ in range(1500):
        if not (left := list(Path("/tmp").glob(f"fourbit-run-{warden}-*"))):
            return []
        time.sleep(0.01)
    return left


def gone(pids: set[int]) -> set[int]:
    """Those of ``pids`` that still live after a while."""
    left = pids
    for _ in range(1500):
        left = {pid for pid in left if os.path.exists(f"/proc/{pid}") and not _is_zombie(pid)}
        if not left:
            break
        time.sleep(0.01)
    return left


def _is_zombie(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return text[text.rindex(b")") + 2 :].split()[0] in (b"Z", b"X")


@pytest.mark.parametrize("mode", modes(), ids=str)
@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_is_killed_nothing_is_left(
    victim: str, mode: JailMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    outcomes: list[CellOutcome] = []
    with Zygote((), mode=mode, packages=()) as zygote:
        runner = zygote.spawn(Limits(cell_seconds=6))
        assert runner.run_cell(STRAYS).status == "ok"
        thread = threading.Thread(target=lambda: outcomes.append(runner.run_cell("while True: pass", checkpoint=True)))
        thread.start()
        roles = cast(zygote.pid or 0)
        alive = descendants(roles["zygote"])
        os.kill(roles[victim], signal.SIGKILL)
        thread.join()
        lives = victim in ("restore point", "notebook")
        assert outcomes[0].status == ("timeout" if victim == "restore point" else "crashed")
        assert (runner.run_cell("print('on')").status == "ok") == lives
        runner.close()
        assert gone(alive) == set()
        assert leftovers(roles["warden"]) == []
        with zygote.spawn(Limits()) as another:
            assert another.run_cell("print('next')").outputs[0]["text"] == "next\n"
    assert [place.name for place in tmp_path.iterdir() if place.name.startswith("fourbit-")] == []
