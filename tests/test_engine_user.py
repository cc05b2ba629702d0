"""The tests of the engine and the jail once more: as an ordinary user, and in Landlock mode.

As root this process takes the rights of user 1001 in a mount namespace of its own, where the interpreter can be
reached even when it lies in root's home.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.jail import JailMode, describe, libc

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

USER = 1001

BECOME = f'''
import os, sys
from pathlib import Path
from autograder.jail import libc

def closed_folder(place):
    """The first folder above a place that only its owner may pass, or None."""
    return next((str(above) for above in reversed(Path(place).parents) if not above.stat().st_mode & 1), None)

libc.unshare(libc.CLONE_NEWNS)
libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
libc.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755")
places = {{place: closed_folder(place) for place in (sys.base_prefix, sys.prefix, os.getcwd())}}
for number, place in enumerate(places):
    os.mkdir(f"/mnt/{{number}}")
    libc.mount(place, f"/mnt/{{number}}", "", libc.MS_BIND | libc.MS_REC)
for folder in set(places.values()) - {{None}}:
    libc.mount("tmpfs", folder, "tmpfs", 0, "mode=755")
for number, (place, folder) in enumerate(places.items()):
    if folder:
        os.makedirs(place, exist_ok=True)
        libc.mount(f"/mnt/{{number}}", place, "", libc.MS_BIND | libc.MS_REC)
os.chdir(os.getcwd())
os.mkdir("/mnt/tmp")  # not on /tmp: the checkout may lie there
os.chmod("/mnt/tmp", 0o1777)
os.setgroups([])
os.setresgid({USER}, {USER}, {USER})
os.setresuid({USER}, {USER}, {USER})
os.environ.update(HOME="/mnt/tmp", TMPDIR="/mnt/tmp", PYTHONDONTWRITEBYTECODE="1")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
'''


def run_tests(root: Path, files: list[str], **environment: str) -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    prefix = [sys.executable, "-c", BECOME] if os.geteuid() == 0 else [sys.executable]
    done = subprocess.run(
        [*prefix, *command],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "no tests ran" not in done.stdout


def may_mount() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            libc.unshare(libc.CLONE_NEWNS)
        except libc.JailError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs test_engine.py and test_jail.py itself")
def test_as_an_ordinary_user(root: Path) -> None:
    if not may_mount():
        pytest.skip("root may not mount here")
    run_tests(root, ["tests/test_engine.py", "tests/test_jail.py", "tests/test_limits.py", "tests/test_kills.py"])


@pytest.mark.slow
def test_in_landlock_mode(root: Path) -> None:
    if describe().landlock_abi == 0 or (os.geteuid() == 0 and not may_mount()):
        pytest.skip("no Landlock here: " + describe().landlock)
    run_tests(root, ["tests/test_engine.py", "tests/test_jail.py"], FOURBIT_TEST_JAIL=str(JailMode.LANDLOCK))
