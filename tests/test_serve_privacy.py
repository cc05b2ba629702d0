"""Nothing leaves this machine while chat and serve answer: shown by the kernel, and by Python's own audit.

The first test needs Linux with network namespaces, and sees every packet of any program or library in them. The second
runs anywhere, and sees every name that Python looks up and every address that it connects or sends to.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.talking import HELLO, PATIENCE, environment, serving, write_endless

COMPILERS = ("cc", "gcc", "clang", "python", "python3")  # of the kernels; Python is `python -m ziglang cc`
# Written to the file that the first argument names, a line for each use of the network; then the command runs.
AUDITED = """
import sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, args, log=log, write=log.write, repr=repr):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        write(f"{event} {args[0].family.name} {args[1]!r}\\n")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        write(f"{event} - {args[:1]!r}\\n")
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
        write(f"{event} - {args[0]!r}\\n")
sys.addaudithook(hook)
from fourbit.cli import main
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_endless(tmp_path_factory.mktemp("model") / "endless.gguf")


def sealed(root: Path, result: Path, what: str, model: Path) -> dict[str, Any]:
    """Talk in a namespace without a network; skipped, with the reason, where there can be none."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs Linux with unshare (util-linux) and ip (iproute2)")
    unshare = ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-rn"]
    allowed = subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    if allowed.returncode:
        reason = f"this system allows no network namespace ({allowed.stderr.strip()})"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; on Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0")
        pytest.skip(reason)
    command = [*unshare, sys.executable, "-m", "tests.sealed", str(result), what, str(model)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=2 * PATIENCE, env=environment())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(result.read_text())
    assert found["interfaces"] == ["lo"]
    assert found["missed"] == 0
    return found


@pytest.mark.linux
def test_a_packet_that_leaves_would_be_seen(root: Path, tmp_path: Path, model: Path) -> None:
    assert sealed(root, tmp_path / "found.json", "leak", model)["away"] == ["192.0.2.53", "198.51.100.1"]


@pytest.mark.linux
@pytest.mark.parametrize("what", ["chat", "serve"])
def test_no_packet_leaves_this_machine(root: Path, tmp_path: Path, model: Path, what: str) -> None:
    found = sealed(root, tmp_path / "found.json", what, model)
    assert len(found["came"]) > 15, "there was no answer"
    assert found["away"] == []
    if what == "serve":
        assert found["seen"] > 10, "what went between client and server was not seen"
        assert found["came"].startswith("<!doctype html>")


@pytest.mark.parametrize("what", ["chat", "serve"])
def test_no_name_is_looked_up_and_nobody_is_called(tmp_path: Path, model: Path, what: str) -> None:
    log = tmp_path / "audit.log"
    program = ("-c", AUDITED, str(log))
    if what == "chat":
        command = [sys.executable, *program, "chat", str(model), "--ask", "Hello", "--max-tokens", "20"]
        subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE, env=environment())
    else:
        with serving(model, program=program) as served:
            client = served.client()
            assert client.chat.completions.create(model="endless", messages=HELLO, max_tokens=20).usage is not None
    for line in log.read_text().splitlines():
        event, family, about = line.split(" ", 2)
        assert not is_away(event, family, about), line


def test_the_audit_would_tell(tmp_path: Path) -> None:
    """The same hook around a call of the toolkit that does use the network, to an address that nobody has."""
    log = tmp_path / "audit.log"
    mirror = {"HF_ENDPOINT": "http://192.0.2.1:9", "FOURBIT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", AUDITED, str(log), "models", "fetch", "qwen2.5-0.5b-instruct"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(**mirror))
    try:
        for _ in range(10 * PATIENCE):
            lines = log.read_text().splitlines() if log.exists() else []
            if any(is_away(*line.split(" ", 2)) for line in lines):
                break
            assert process.poll() is None, f"it ended unheard: {lines}"
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        else:
            pytest.fail("nothing was heard")
    finally:
        process.kill()
        process.wait()


def is_away(event: str, family: str, about: str) -> bool:
    """Tell whether an audited event concerns another machine, or may: a program is started that is no compiler."""
    if family == "AF_UNIX":
        return False
    if event.startswith("socket.get"):
        return about not in ("('127.0.0.1',)", "('localhost',)")
    if event.startswith("socket."):
        address = eval(about, {})
        return address is not None and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    return Path(about.strip("'")).name not in COMPILERS
