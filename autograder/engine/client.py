"""The grader's side: a zygote, the runners forked from it, and the sessions forked from a runner.

All that a runner sends is untrusted. The grader keeps its own deadlines, later than those of the guard inside the jail, and
ends a runner by hanging up its lifeline, on which the warden outside the jail waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from autograder.engine.frames import DeadlineError, Frame, HungUp, ProtocolError, Wire, pair
from autograder.engine.outcome import STATUSES, CellOutcome, EngineError, OutputList, SessionReply, Status, checked_output
from autograder.jail import JailMode, Limits, detect, interpreter_paths
from autograder.jail.warden import IMAGE_PREFIX
from autograder.jail.policy import clean_environment, package_roots

_PATIENCE = 15.0  # seconds that the grader waits after the guard's own deadline
_READY_SECONDS = 60.0
_PREFIX_OUTPUT = 64 * 2**20
_CALL_OUTPUT = 64 * 2**10


class Zygote:
    """A preloaded process from which submissions are forked. Use as a context manager; not thread-safe.

    ``preload``: modules to import. ``prefix``: sources of trusted cells run once, with the lab folder's ``files`` (relative POSIX path ->
    content) in the current folder. ``handlers``: session handlers, ``"package.module:function"``, imported before any code of a
    submission runs. ``mode``: the jail; the strongest available when None. ``packages``: importable packages shown in the
    jail; ``readable``: more paths to show, read-only. ``start_seconds``: time for preload and prefix.
    """

    def __init__(
        self, preload: tuple[str, ...] = ("numpy", "torch", "matplotlib.pyplot"), prefix: tuple[str, ...] = (), *,
        files: Mapping[str, bytes] | None = None, handlers: tuple[str, ...] = (), mode: JailMode | None = None,
        packages: tuple[str, ...] = ("fourbit", "autograder"), readable: tuple[Path, ...] = (), start_seconds: float = 300.0,
    ) -> None:  # fmt: skip
        self.preload, self.prefix, self.handlers = tuple(preload), tuple(prefix), tuple(handlers)
        self.files, self.packages, self.start_seconds = dict(files or {}), tuple(packages), start_seconds
        self.mode = detect() if mode is None else JailMode(mode)
        if mode is None and self.mode is JailMode.PLAIN:
            raise EngineError(
                "This machine can build no walls around a submission (`fourbit doctor` says why). Grade elsewhere, or accept limits "
                "on time and size as the only protection by asking for the mode `plain`."
            )
        self.readable = interpreter_paths(self.packages, readable)
        self.prefix_outcomes: tuple[CellOutcome, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Wire | None = None
        self._errors: IO[bytes] | None = None
        self._ready = False

    def __enter__(self) -> Zygote:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The zygote's process id, or None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Zygote:
        """Start the process and wait until it has run the prefix. Raises :class:`EngineError` with the cause when it cannot."""
        self.close()
        ours, theirs = pair()
        roots = list(package_roots((*self.packages, "autograder")))
        program = (
            f"import sys; sys.path.extend({roots!r}); from autograder.engine.zygote import main; "
            f"main({theirs.fileno()}, {os.getpid()})"
        )
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", program], pass_fds=(theirs.fileno(),), env=clean_environment(),
            stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors, start_new_session=True, cwd="/",
        )  # fmt: skip
        theirs.close()
        self._control = ours
        ours.max_body = _PREFIX_OUTPUT
        folder = tempfile.mkdtemp(prefix=f"{IMAGE_PREFIX}{os.getpid()}-")
        try:
            self._configure(ours, folder)
            self._ready = True
        finally:
            if not self._ready:
                self.close()
            shutil.rmtree(folder, ignore_errors=True)  # what was made from it lives in the zygote's memory
        return self

    def _configure(self, control: Wire, folder: str) -> None:
        deadline = time.monotonic() + self.start_seconds
        settings = {
            "mode": str(self.mode), "preload": self.preload, "handlers": self.handlers, "readable": self.readable,
            "output_bytes": Limits().output_bytes, "folder": folder,
        }  # fmt: skip
        index, body = _pack({**self.files})
        try:
            control.send({**settings, "files": index, "prefix": len(self.prefix)}, body, deadline=deadline)
            for source in self.prefix:
                control.send({}, source.encode(), deadline=deadline)
            frame = control.receive(deadline)
        except DeadlineError:
            raise EngineError(f"The preload and the prefix took more than {self.start_seconds:g} s.{self._tail()}") from None
        except (HungUp, ProtocolError) as error:
            raise EngineError(f"The zygote ended while it started ({error}).{self._tail()}") from None
        if frame.header.get("say") != "ready":
            raise EngineError(str(frame.header.get("message")))
        # Its cells are the instructor's own, but the same checks make the same outputs.
        self.prefix_outcomes = tuple(_outcome(**item) for item in json.loads(frame.body))

    def _tail(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        text = self._errors.read().decode("utf-8", "replace").strip()
        return f" It wrote:\n{text}" if text else ""

    def spawn(self, limits: Limits | None = None, files: Mapping[str, bytes] | None = None, seed: int | None = None) -> Runner:
        """Fork a jailed copy of the prepared state, working in a folder that holds ``files``.

        ``seed`` seeds random, numpy and torch. A zygote that died is started again. Raises :class:`EngineError` when the jail
        cannot be built.
        """
        limits = limits or Limits()
        for attempt in (1, 2):
            if self.pid is None:
                self.start()
            try:
                return self._spawn(limits, files or {}, seed)
            except (HungUp, DeadlineError) as error:
                if attempt == 2 or self.pid is not None:
                    raise EngineError(f"The zygote does not answer: {error}.{self._tail()}") from error
        raise AssertionError

    def _spawn(self, limits: Limits, files: Mapping[str, bytes], seed: int | None) -> Runner:
        assert self._control is not None
        wire, inner_wire = pair()
        lifeline, inner_lifeline = pair()
        try:
            header = {"do": "spawn", "limits": asdict(limits)}
            descriptors = (inner_lifeline.fileno(), inner_wire.fileno())
            self._control.send(header, deadline=time.monotonic() + _READY_SECONDS, descriptors=descriptors)
        except BaseException:
            wire.close()
            lifeline.close()
            raise
        finally:
            inner_wire.close()
            inner_lifeline.close()
        runner = Runner(wire, lifeline, limits, self.mode)
        try:
            runner.wait_until_ready(files, seed)
        except BaseException:
            runner.close()
            raise
        return runner

    def close(self) -> None:
        """End the process; runners that still live are ended by their wardens."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5 if self._ready else 0)
            self._process.kill()
            self._process.wait()
        if self._errors is not None:
            self._errors.close()
        self._control = self._process = self._errors = None
        self._ready = False


class Runner:
    """One submission's process. Its methods raise nothing for what a submission does: they report it."""

    def __init__(self, wire: Wire, lifeline: Wire, limits: Limits, mode: JailMode) -> None:
        self._wire, self._lifeline, self.limits, self.mode = wire, lifeline, limits, mode
        self._ends = time.monotonic() + limits.notebook_seconds
        self._sessions = 0
        self._why = ""
        self._state_lost = False

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether cells can still be run."""
        return not self._why and not self._state_lost

    def wait_until_ready(self, files: Mapping[str, bytes], seed: int | None) -> None:
        """Hand over the work files and wait for the jail to stand. Raises :class:`EngineError` when it does not."""
        deadline = time.monotonic() + _READY_SECONDS
        index, body = _pack(files)
        try:
            self._wire.send({"files": index, "seed": seed}, body, deadline=deadline)
            frame = self._wire.receive(deadline)
        except (HungUp, DeadlineError, ProtocolError) as error:
            why = self._last_report()
            if not why:
                raise HungUp(f"the jail was not built: {error}") from None
            raise EngineError(f"The jail ({self.mode}) cannot be built: {why}. `fourbit doctor` says what works here.") from None
        if frame.header.get("say") != "ready":
            raise EngineError(f"The submission's process did not start: {frame.header.get('message')}")

    def _last_report(self) -> str:
        """What the warden said last, e.g. why a wall could not be built."""
        channel = self._lifeline.socket
        channel.settimeout(2.0)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            message = json.loads(channel.recv(65536).splitlines()[-1])
            return str(message.get("refused") or "")
        return ""

    def run_cell(self, source: str, *, seconds: float | None = None, checkpoint: bool = False) -> CellOutcome:
        """Run one cell. ``seconds``: its wall time (default: the limits'). ``checkpoint``: fork before it, so that a crash,
        a kill, a lack of memory or a timeout that ignores the interrupt costs this cell and nothing else."""
        granted, why = self._grant(self.limits.cell_seconds if seconds is None else seconds)
        if why:
            return CellOutcome("timeout" if not self._why else "crashed", (), 0.0, why, kept=False)
        outputs = OutputList(self.limits.output_bytes)
        start = time.monotonic()
        reply = self._ask({"do": "cell", "seconds": granted, "checkpoint": checkpoint}, source.encode("utf-8", "replace"), granted, outputs)
        seconds_used = time.monotonic() - start
        if isinstance(reply, str):
            return CellOutcome("crashed", tuple(outputs.items), seconds_used, reply, kept=False)
        status, message = _verdict(reply)
        self._state_lost = reply.header.get("live") is not True
        return CellOutcome(status, tuple(outputs.items), seconds_used, message, reply.header.get("kept") is True)

    def session(self, handler: str, argument: dict[str, Any], seconds: float = 5.0) -> Session:
        """Fork the state of this moment into a process that answers calls with ``handler``, "package.module:function":
        ``handler(user_namespace, argument, payload) -> bytes``. ``seconds``: the limit of a call that names none."""
        self._sessions += 1
        session = Session(self, self._sessions, seconds)
        granted, why = self._grant(max(seconds, 30.0))
        if not why:
            header = {"do": "session", "session": self._sessions, "handler": handler, "seconds": granted}
            reply = self._ask(header, json.dumps(argument).encode(), granted, OutputList(0))
            status, why = ("crashed", reply) if isinstance(reply, str) else _verdict(reply)
            if status == "error":
                raise EngineError(f"The session handler cannot be used: {why}")
        session.why = why
        return session

    def call(self, number: int, payload: bytes, seconds: float) -> SessionReply:
        """One call of session ``number``; see :meth:`Session.call`."""
        granted, why = self._grant(seconds)
        if why:
            return SessionReply("timeout" if not self._why else "crashed", message=why)
        outputs = OutputList(_CALL_OUTPUT)
        start = time.monotonic()
        reply = self._ask({"do": "call", "session": number, "seconds": granted}, payload, granted, outputs)
        seconds_used = time.monotonic() - start
        printed = "".join(item["text"] for item in outputs.items if item["output_type"] == "stream")[:_CALL_OUTPUT]
        if isinstance(reply, str):
            return SessionReply("crashed", b"", seconds_used, reply, printed)
        status, message = _verdict(reply)
        return SessionReply(status, reply.body if status == "ok" else b"", seconds_used, message, printed)

    def end_session(self, number: int) -> None:
        if not self._why:
            self._ask({"do": "close", "session": number}, b"", 5.0, OutputList(0))

    def close(self) -> None:
        """End everything in the jail and wait until nothing of it is left."""
        self._why = self._why or "the runner is closed"
        self._wire.close()
        channel = self._lifeline.socket
        with contextlib.suppress(OSError):
            channel.settimeout(_PATIENCE)
            channel.shutdown(1)  # the warden reads the end, cleans up, and closes its side
            while channel.recv(65536):
                pass
        self._lifeline.close()

    def _grant(self, seconds: float) -> tuple[float, str]:
        left = self._ends - time.monotonic()
        if self._why:
            return 0.0, self._why
        if left <= 0:
            return 0.0, f"stopped: the notebook used more than {self.limits.notebook_seconds:g} s"
        return min(seconds, left), ""

    def _ask(self, header: dict[str, Any], body: bytes, seconds: float, outputs: OutputList) -> Frame | str:
        """The guard's final answer, or the reason why there will never be one again."""
        deadline = time.monotonic() + seconds + _PATIENCE
        try:
            self._wire.send(header, body, deadline=deadline)
            while True:
                frame = self._wire.receive(deadline)
                if frame.header.get("say") == "done":
                    return frame
                if frame.header.get("say") == "refused":
                    raise ProtocolError(str(frame.header.get("message"))[:2000])
                outputs.add(frame.body)
        except DeadlineError:
            why = f"stopped: no answer {_PATIENCE:g} s after the time limit"
        except HungUp:
            why = "all processes of the submission ended"
        except ProtocolError as error:
            why = f"stopped: {error}"
        except BaseException:
            self.close()
            raise
        self._why = why
        self.close()
        return why


class Session:
    """A fork of a runner's state that answers calls; a call that loops or crashes costs that call only."""

    def __init__(self, runner: Runner, number: int, seconds: float) -> None:
        self._runner, self._number, self._seconds = runner, number, seconds
        self.why = ""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def call(self, payload: bytes, seconds: float | None = None) -> SessionReply:
        """Pass ``payload`` (at most 64 MiB) to the handler and return its reply. Never raises for what a submission does."""
        if self.why:
            return SessionReply("crashed", message=self.why)
        return self._runner.call(self._number, payload, self._seconds if seconds is None else seconds)

    def close(self) -> None:
        if not self.why:
            self._runner.end_session(self._number)
            self.why = "the session is closed"


def _verdict(frame: Frame) -> tuple[Status, str]:
    status = frame.header.get("status")
    known: Status = status if isinstance(status, str) and status in STATUSES else "crashed"  # type: ignore[assignment]
    message = frame.header.get("message")
    return known, message if isinstance(message, str) else ""


def _outcome(status: Status, outputs: list[dict[str, Any]], seconds: float, message: str, kept: bool) -> CellOutcome:
    checked = [output for item in outputs if (output := checked_output(item)) is not None]
    return CellOutcome(status, tuple(checked), seconds, message, kept)


def _pack(files: Mapping[str, bytes]) -> tuple[list[tuple[str, int]], bytes]:
    return [(name, len(data)) for name, data in files.items()], b"".join(files.values())
