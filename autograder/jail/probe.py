"""What this machine can enforce: found out by building a jail in a small process of its own, not by reading
versions."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autograder.jail import landlock
from autograder.jail.libc import JailError
from autograder.jail.policy import JailMode, JailPolicy, interpreter_paths
from autograder.jail.warden import confine, enter

_SECONDS = 60.0


@dataclass(frozen=True)
class JailReport:
    """What ``fourbit doctor`` shows. ``namespaces`` and ``landlock`` are empty when that mode works, otherwise the
    reason why not; ``landlock_abi`` is 0 where there is none; ``details`` are finished sentences."""

    mode: JailMode
    namespaces: str
    landlock: str
    landlock_abi: int
    details: tuple[str, ...]


def detect() -> JailMode:
    """The strongest mode that works here; ``plain`` when neither of the others does (and it must then be asked for)."""
    return describe().mode


@functools.lru_cache(maxsize=1)
def describe() -> JailReport:
    """Try the modes, strongest first (about 0.2 s, once per process)."""
    if sys.platform != "linux":
        reason = f"grading with walls needs the Linux kernel, and this is {sys.platform}"
        return JailReport(JailMode.PLAIN, reason, reason, 0, _details(JailMode.PLAIN, reason, reason, 0))
    reasons = {mode: _try(mode) for mode in (JailMode.NAMESPACES, JailMode.LANDLOCK)}
    mode = next((mode for mode, reason in reasons.items() if not reason), JailMode.PLAIN)
    abi = landlock.abi()
    both = reasons[JailMode.NAMESPACES], reasons[JailMode.LANDLOCK]
    return JailReport(mode, *both, abi, _details(mode, *both, abi))


def _details(mode: JailMode, namespaces: str, landlocked: str, abi: int) -> tuple[str, ...]:
    lines = {
        JailMode.NAMESPACES: "Submissions run in a private file system, process table and network.",
        JailMode.LANDLOCK: "Submissions run on this machine's file system, and see only Python, its libraries "
        "and their own work folder.",
        JailMode.PLAIN: "Only limits on time and size protect you here: a submission can read and change what you can. "
        "Grade unknown code elsewhere, or ask for this mode by name.",
    }
    found = [lines[mode]]
    if namespaces:
        found.append(f"Namespaces do not work here: {namespaces}.{_advice(namespaces)}")
    if landlocked:
        found.append(f"Landlock does not work here: {landlocked}.")
    elif mode is JailMode.LANDLOCK and abi < 6:
        found.append(
            f"Landlock {abi} (before Linux 6.12) keeps no signals in; the system call filter covers the grader's own "
            "processes."
        )
    return tuple(found)


def _advice(reason: str) -> str:
    switches = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
    }
    for place, (off, command) in switches.items():
        if os.path.exists(place) and Path(place).read_text().strip() == off:
            return f" An administrator can allow them: {command}"
    return " In a container, ask for one that may create user namespaces."


def _try(mode: JailMode) -> str:
    """Empty when a jail of this mode can be built and holds, otherwise the reason."""
    root = str(Path(__file__).resolve().parents[2])
    program = f"import sys; sys.path.insert(0, {root!r}); from autograder.jail.probe import main; main({str(mode)!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        verdict = json.loads(done.stdout.splitlines()[-1])
        return str(verdict.get("refused", "") or verdict.get("leak", ""))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return f"the probe failed ({error})"


def main(mode: str) -> None:
    """The probe process: build the jail, look for leaks from inside, print one JSON line."""
    readable = interpreter_paths(())
    with tempfile.NamedTemporaryFile(prefix="fourbit-canary-") as canary:
        os.chmod(canary.name, 0o644)
        _probe(JailMode(mode), readable, canary.name)


def _probe(mode: JailMode, readable: tuple[str, ...], canary: str) -> None:
    ours, lifeline = socket.socketpair()
    verdict_in, verdict_out = os.pipe()
    if os.fork() == 0:
        ours.close()
        policy = JailPolicy(mode, "/tmp/fourbit-probe", readable)
        enter(policy, lifeline, (verdict_out,))
        try:
            confine(policy, (1,) if policy.mode is JailMode.NAMESPACES else (os.getppid(),))
            message = {"leak": _leak(canary)}
        except JailError as error:
            message = {"refused": str(error)}
        os.write(verdict_out, json.dumps(message).encode())
        os._exit(0)
    lifeline.close()
    os.close(verdict_out)
    inside = os.read(verdict_in, 65536)
    outside = ours.makefile().readline()
    print((inside.decode() or outside).strip())


def _leak(canary: str) -> str:
    for family in (socket.AF_INET, socket.AF_VSOCK):
        try:
            socket.socket(family, socket.SOCK_STREAM).close()
            return "the network stayed within reach"
        except OSError:
            continue
    for place in (canary, "/etc/shadow"):
        try:
            Path(place).read_bytes()
        except OSError:
            continue
        return f"{place} stayed readable"
    Path("allowed").write_text("the work folder can be written")
    return ""
