"""A private PostgreSQL server for tests: a data folder that is gone afterwards, a password, a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USER, PASSWORD = "teacher", "hunter2"
_ACCOUNT = "nobody"  # the server refuses to run as root
_STOP_SECONDS, _START_SECONDS = 30, 60


def find_program(name: str) -> str | None:
    """A program of PostgreSQL's, on the PATH or where Debian puts it; None where there is none."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or next((str(p / name) for p in places if (p / name).is_file()), None)


@dataclass
class Server:
    """A running server; `kill` ends it as a power cut of its machine would, `start` brings it back."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _databases: int = field(default=0, init=False)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self, like: str = "template1") -> str:
        """Make a database, empty or a copy of another, and return its name."""
        self._databases += 1
        name = f"grades{self._databases}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
        return name

    def cut_connections(self) -> None:
        """End every connection but this one, as an administrator would."""
        with self._connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with open(self.folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    [_program("postgres"), "-D", str(self.folder / "data")],
                    stdout=log, stderr=log, stdin=subprocess.DEVNULL, **_as_account(),
                )  # fmt: skip
            if self._answers(deadline):
                return
            # Processes of a server that was killed hold on to its memory for a moment.
            if time.monotonic() > deadline:
                raise AssertionError("PostgreSQL does not start:\n" + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server; its children notice and end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server and whatever it started."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)  # disconnects clients and ends in order
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _answers(self, deadline: float) -> bool:
        assert self._process is not None
        import psycopg

        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._connect().close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.02)
        return False

    def _connect(self) -> "psycopg.Connection":  # noqa: F821, UP037 - the driver is imported where it is used
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        )


@contextmanager
def private_server() -> Iterator[Server]:
    """Yield a started server. Without PostgreSQL the test is skipped on a laptop, and fails in CI."""
    if find_program("initdb") is None or find_program("postgres") is None:
        reason = "the tests of PostgreSQL did not run: no initdb (Debian: apt install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="postgres-test-"))
    server = Server(folder, _free_port())
    try:
        _make_cluster(folder, server.port)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_cluster(folder: Path, port: int) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, _ACCOUNT)
    done = subprocess.run(
        [_program("initdb"), "-D", str(folder / "data"), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}",
         "--encoding=UTF8", "--locale=C", "--no-sync"],
        capture_output=True, text=True, check=False, **_as_account(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "data" / "postgresql.conf", "a") as stream:
        # Nobody pulls the plug of this machine: what a killed server wrote is still there without `fsync`.
        stream.write(
            f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\n"
            "fsync = off\nshared_buffers = 16MB\nmax_connections = 40\n"
        )


def _program(name: str) -> str:
    path = find_program(name)
    assert path is not None
    return path


def _as_account() -> dict[str, object]:
    """What lets `subprocess` run a program as an ordinary user, where this one is root."""
    home = {"cwd": "/"}
    return home | ({"user": _ACCOUNT, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
