"""Secrets planted where a submission must not look, and sockets that count who calls."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

CANARIES = {
    name: f"canary-{name}-5b1c9e"
    for name in ("source", "hidden", "gradebook", "environment", "neighbor", "home", "tmp", "shm", "exam")
}
VARIABLE = "FOURBIT_SECRET"


@dataclass
class Planted:
    """What was planted: paths that hold secrets, listening sockets, and how often somebody called."""

    paths: list[str] = field(default_factory=list)
    port: int = 0
    vsock_port: int = 0
    abstract: str = ""
    socket_path: str = ""
    calls: int = 0
    outside: str = ""

    def fill(self, code: str) -> str:
        """Tell an attack what a well-informed attacker would know."""
        known: dict[str, Any] = {
            "canaries": self.paths, "port": self.port, "vsock_port": self.vsock_port, "abstract": self.abstract,
            "socket_path": self.socket_path, "outside": self.outside, "grader": os.getpid(),
        }  # fmt: skip
        for name, value in known.items():
            code = code.replace("{" + name + "}", repr(value))
        return code


def leaks(text: str, *, but: str = "") -> list[str]:
    """The names of the canaries that `text` holds."""
    return [name for name, canary in CANARIES.items() if name != but and canary in text]


def add_hidden_tests(source: Path) -> None:
    """Plant a canary among the hidden tests of the source notebook."""
    notebook = json.loads(source.read_text())
    cell = next(c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == "test_mean")
    text = "".join(cell["source"]).replace(
        "### END HIDDEN TESTS", f'assert close(mean([5]), 5), "one"  # {CANARIES["hidden"]}\n### END HIDDEN TESTS'
    )
    assert CANARIES["hidden"] in text
    cell["source"] = text.splitlines(keepends=True)
    source.write_text(json.dumps(notebook))


@contextlib.contextmanager
def planted(course: Path) -> Iterator[Planted]:
    """Plant every canary around the course in `course`, and listen; all of it is gone afterwards."""
    found = Planted()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-home-"))
        shm = stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-", dir="/dev/shm"))
        tmp = stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-"))
        places = {
            "home": Path(home, ".ssh", "id_ed25519"),
            "shm": Path(shm, "note.txt"),
            "tmp": Path(tmp, "note.txt"),
            "source": course / "source" / "ps2" / "solution.txt",
            "exam": course / "exams" / "ps1" / "pack.safetensors",
            "neighbor": course / "submitted" / "neighbor" / "ps1" / "mine.csv",
        }
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(CANARIES[name])
            place.chmod(0o644)
        for folder in (home, shm, tmp, Path(home, ".ssh")):
            os.chmod(folder, 0o755)
        found.paths = [*map(str, places.values()), str(course / "gradebook.db"), str(course / "source/ps1/ps1.ipynb")]
        found.outside = tmp
        stack.enter_context(mock.patch.dict(os.environ, {"HOME": home, VARIABLE: CANARIES["environment"]}))
        stack.enter_context(_listening(found, tmp))
        yield found


@contextlib.contextmanager
def _listening(found: Planted, folder: str) -> Iterator[None]:
    """Count connections to a TCP port, an abstract and a named unix socket, and a vsock port where there is one."""
    servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    found.port = servers[0].getsockname()[1]
    found.abstract = f"\0attack-{os.getpid()}"
    found.socket_path = os.path.join(folder, "engine.sock")
    for server, place in zip(servers[1:], (found.abstract, found.socket_path), strict=True):
        server.bind(place)
        server.listen()
    os.chmod(found.socket_path, 0o777)
    with contextlib.suppress(OSError):
        vsock = socket.socket(socket.AF_VSOCK)
        servers.append(vsock)
        vsock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        vsock.listen()
        found.vsock_port = vsock.getsockname()[1]
    done, told = os.pipe()

    def count() -> None:
        with selectors.DefaultSelector() as watch:
            watch.register(done, selectors.EVENT_READ)
            for server in servers:
                with contextlib.suppress(OSError):
                    watch.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in watch.select():
                    if key.fd == done:
                        return
                    key.fileobj.accept()[0].close()  # type: ignore[union-attr]
                    found.calls += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        os.write(told, b"x")
        thread.join()
        for server in servers:
            server.close()
        os.close(done)
        os.close(told)
