"""Make the environment in .venv, with Python's standard library alone.

    python3 fourbit/bootstrap.py                  what a student needs
    python3 fourbit/bootstrap.py grade site dev   and the named extras of pyproject.toml

Runs before anything is installed, so it imports nothing of this package, and it must parse under a Python that is
too old in order to say so. A second run with the same pyproject.toml answers at once: a stamp in .venv records what
was installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "fourbit.json"
LOG = VENV / "pip.log"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST = (3, 11)
NEEDED_BYTES = 3 * 2**30  # CPU build of PyTorch, JupyterLab and all extras, with room for pip's unpacked copies

# What pip prints, and what it means to the person who waits for it. The first that matches is shown.
DIAGNOSES = (
    (
        ("No space left on device", "[Errno 28]"),
        "The disk is full. Free some space and run the same command again.",
    ),
    (
        (
            "Temporary failure in name resolution",
            "Name or service not known",
            "nodename nor servname",
            "getaddrinfo failed",
            "Failed to establish a new connection",
            "Network is unreachable",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "NewConnectionError",
            "Read timed out",
        ),
        "The package index cannot be reached. Connect to the network, or tell pip about your proxy or mirror "
        "(`python3 -m pip config set global.index-url ...`), and run the same command again.",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "SSLError"),
        "The package index's certificate is not trusted here. Behind a proxy that inspects traffic, set "
        "`pip config set global.cert FILE` to your organization's certificate.",
    ),
    (
        ("No matching distribution found for torch",),
        "There is no build of PyTorch 2.13.0 for this Python and this machine. Python 3.11 to 3.13 on 64-bit Linux, "
        "macOS on Apple silicon and Windows have one; name another with `make PYTHON=python3.12 ...`.",
    ),
    (
        ("Permission denied", "[Errno 13]"),
        "A file in .venv may not be written. Remove .venv (it holds nothing of yours) and run the same command again.",
    ),
)


class SetupError(Exception):
    """The environment cannot be made; the message says what is missing and what to do."""


def check_python() -> None:
    """Refuse an interpreter that is too old or cannot make an environment."""
    if sys.version_info < OLDEST:
        raise SetupError(
            "Python {}.{} or newer is needed; this is {} at {}.".format(*OLDEST, sys.version.split()[0], sys.executable)
        )
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            raise SetupError(
                f"Python at {sys.executable} lacks its module `{module}`, without which no environment can be made.\n"
                f"On Debian or Ubuntu: sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            ) from None


def check_disk() -> None:
    """Refuse to begin a download that will not fit."""
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"The disk that holds {ROOT} has {free / 2**30:.1f} GiB free; the environment needs about "
            f"{NEEDED_BYTES / 2**30:.0f} GiB. Free some space and run the same command again."
        )


def wanted_state(extras: set[str]) -> dict[str, object]:
    """What the stamp must say for the environment to be up to date."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"pyproject": digest, "root": str(ROOT), "extras": sorted(extras)}


def installed_state() -> dict[str, object]:
    """What the stamp says, or nothing where there is no stamp or no working interpreter."""
    try:
        state = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and PYTHON.exists() else {}


def make_venv() -> None:
    """Create .venv, or make it anew where its interpreter no longer runs (a removed or upgraded Python)."""
    if PYTHON.exists():
        probe = subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True)
        if probe.returncode == 0:
            return
    print(f"Making the environment in .venv with Python {sys.version.split()[0]} ({sys.executable})", flush=True)
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"Python could not make .venv:\n{(done.stderr or done.stdout).strip()[-800:]}")


def explain(output: str) -> str:
    """Pip's failure in plain words, with its own last error line."""
    errors = [line.strip() for line in output.splitlines() if line.startswith("ERROR")]
    what = next((text for marks, text in DIAGNOSES if any(mark in output for mark in marks)), "")
    shown = errors[-1] if errors else output.strip()[-300:]
    return f"{what}\npip said: {shown}\nAll of pip's output is in {LOG}".strip()


def install(extras: set[str]) -> None:
    """Install this checkout, editable, with the extras; show one line per package on a terminal."""
    target = "." + (f"[{','.join(sorted(extras))}]" if extras else "")
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--editable", target]
    terminal, output = sys.stdout.isatty(), []
    with (
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as pip,
        LOG.open("w", encoding="utf-8") as log,
    ):
        assert pip.stdout is not None
        for line in pip.stdout:
            log.write(line)
            output.append(line)
            if terminal and line.lstrip().startswith(("Collecting", "Downloading", "Installing", "Building")):
                print("\r\033[K  " + line.strip()[:100], end="", flush=True)
    if terminal:
        print("\r\033[K", end="", flush=True)
    if pip.returncode != 0:
        raise SetupError("The packages could not be installed. " + explain("".join(output)))


def bootstrap(extras: set[str]) -> None:
    """Bring .venv up to date for ``extras``, and for all that was installed into it before."""
    state = installed_state()
    have = {str(extra) for extra in state.get("extras", [])} if state else set()  # type: ignore[attr-defined]
    everything = wanted_state(extras | have)
    if state == everything:
        return
    check_python()
    started = time.monotonic()
    new = not PYTHON.exists()
    if new:
        check_disk()
    make_venv()
    names = ", ".join(sorted(extras)) or "the student's packages only"
    print(f"Installing PyTorch, JupyterLab and the rest into .venv (extras: {names}).", flush=True)
    if new:
        print("The first time, this downloads several hundred megabytes and takes minutes.", flush=True)
    install(extras | have)
    STAMP.write_text(json.dumps(everything), encoding="utf-8")
    print(f"Environment ready after {time.monotonic() - started:.0f} s.", flush=True)


def main() -> int:
    """Entry point: 0 when the environment is ready, 1 with the reason on stderr."""
    try:
        bootstrap(set(sys.argv[1:]))
    except SetupError as problem:
        print(f"Cannot go on: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
