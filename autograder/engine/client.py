"""The grader's side of a zygote: start it, fork jailed runners from it, replace it when it died."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

from autograder.engine.frames import DeadlineError, HungUp, ProtocolError, Wire, pair
from autograder.engine.outcome import CellOutcome, EngineError, Status, checked_output
from autograder.engine.runner import READY_SECONDS, Jailed, Runner, pack_files
from autograder.jail import JailMode, Limits, detect, interpreter_paths
from autograder.jail.policy import clean_environment, package_roots
from autograder.jail.warden import IMAGE_PREFIX

_PREFIX_OUTPUT = 64 * 2**20
_STARTS = 3


class _KilledError(EngineError):
    """The zygote was killed from outside while it started."""


_T = TypeVar("_T")
_J = TypeVar("_J", bound=Jailed)


class Zygote:
    """A preloaded process from which submissions are forked. Use as a context manager; not thread-safe.

    ``preload``: modules to import. ``prefix``: sources of trusted cells run once, with the lab folder's ``files``
    (relative POSIX path -> content) in the current folder. ``handlers``: session handlers,
    ``"package.module:function"``, imported before any code of a submission runs. ``mode``: the jail; the strongest
    available when None. ``packages``: importable packages shown in the jail; ``readable``: more paths to show,
    read-only. ``start_seconds``: time for preload and prefix.
    """

    module = "autograder.engine.zygote"  # whose ``main`` is the process

    def __init__(
        self, preload: tuple[str, ...] = ("numpy", "torch", "matplotlib.pyplot"), prefix: tuple[str, ...] = (), *,
        files: Mapping[str, bytes] | None = None, handlers: tuple[str, ...] = (), mode: JailMode | None = None,
        packages: tuple[str, ...] = ("fourbit", "autograder"), readable: tuple[Path, ...] = (),
        start_seconds: float = 300.0,
    ) -> None:  # fmt: skip
        self.preload, self.prefix, self.handlers = tuple(preload), tuple(prefix), tuple(handlers)
        self.files, self.packages, self.start_seconds = dict(files or {}), tuple(packages), start_seconds
        self.mode = detect() if mode is None else JailMode(mode)
        if mode is None and self.mode is JailMode.PLAIN:
            raise EngineError(
                "This machine can build no walls around a submission (`fourbit doctor` says why). Grade elsewhere, or "
                "accept limits on time and size as the only protection by asking for the mode `plain`."
            )
        self.readable = interpreter_paths(self.packages, readable)
        self.prefix_outcomes: tuple[CellOutcome, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Wire | None = None
        self._errors: IO[bytes] | None = None
        self._ready = False
        self._ahead: Runner | None = None  # a jail that stands and waits for its files
        self._leaving: Runner | None = None  # one that is being cleared away

    def __enter__(self) -> Zygote:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The zygote's process id, or None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Zygote:
        """Start the process and wait until it has run the prefix; one that is killed meanwhile is started again. Raises
        :class:`EngineError` with the cause when it cannot."""
        for _ in range(_STARTS - 1):
            with contextlib.suppress(_KilledError):
                return self._start()
        return self._start()

    def _start(self) -> Zygote:
        self.close()
        ours, theirs = pair()
        roots = list(package_roots((*self.packages, "autograder")))
        program = (
            f"import sys; sys.path.extend({roots!r}); from {self.module} import main; "
            f"main({theirs.fileno()}, {os.getpid()})"
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
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
        index, body = pack_files(self.files)
        settings = {**self._settings(folder), "files": index, "prefix": len(self.prefix)}
        try:
            control.send(settings, body, deadline=deadline)
            for source in self.prefix:
                control.send({}, source.encode(), deadline=deadline)
            frame = control.receive(deadline)
        except DeadlineError:
            raise EngineError(
                f"The preload and the prefix took more than {self.start_seconds:g} s.{self._tail()}"
            ) from None
        except (HungUp, ProtocolError) as error:
            assert self._process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            kind = _KilledError if self._process.returncode == -signal.SIGKILL else EngineError
            raise kind(f"The zygote ended while it started ({error}).{self._tail()}") from None
        if frame.header.get("say") != "ready":
            raise EngineError(str(frame.header.get("message")))
        # Its cells are the instructor's own, but the same checks make the same outputs.
        self.prefix_outcomes = tuple(_outcome(**item) for item in json.loads(frame.body))

    def _settings(self, folder: str) -> dict[str, Any]:
        return {
            "mode": str(self.mode), "preload": self.preload, "handlers": self.handlers, "readable": self.readable,
            "output_bytes": Limits().output_bytes, "folder": folder,
        }  # fmt: skip

    def _tail(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        text = self._errors.read().decode("utf-8", "replace").strip()
        return f" It wrote:\n{text}" if text else ""

    def spawn(
        self, limits: Limits | None = None, files: Mapping[str, bytes] | None = None, seed: int | None = None
    ) -> Runner:
        """Fork a jailed copy of the prepared state, working in a folder that holds ``files``.

        ``seed`` seeds random, numpy and torch. A zygote that died is started again. Raises :class:`EngineError` when
        the jail cannot be built.
        """
        limits = limits or Limits()

        return self._with_restart(lambda: self._settle(self._fork(limits), files or {}, seed))

    @contextlib.contextmanager
    def lend(self, limits: Limits, files: Mapping[str, bytes], seed: int | None = None) -> Iterator[Runner]:
        """As :meth:`spawn`, for one submission after the other: while this one runs, the jail of the next is built and
        that of the one before is cleared away. Where jails see each other's processes, all is done in turn."""
        if self.mode is not JailMode.NAMESPACES:
            with self.spawn(limits, files, seed) as runner:
                yield runner
            return
        runner = self._built_ahead(limits, files, seed) or self.spawn(limits, files, seed)
        try:
            with contextlib.suppress(HungUp, DeadlineError):  # the zygote is gone: to the next one that is told
                self._ahead = self._fork(limits)
            yield runner
        finally:
            runner.hang_up()
            before, self._leaving = self._leaving, runner
            if before is not None:
                before.close()

    def _fork(self, limits: Limits) -> Runner:
        """A jail that waits for its files."""
        return Runner(*self._ask_for_fork({"do": "spawn", "limits": asdict(limits)}), limits, self.mode)

    def _built_ahead(self, limits: Limits, files: Mapping[str, bytes], seed: int | None) -> Runner | None:
        """The jail that waits, if there is one and nobody ended it."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        if ahead.limits != limits:
            ahead.close()
            return None
        with contextlib.suppress(HungUp, DeadlineError, EngineError):
            return self._settle(ahead, files, seed)
        return None

    def _with_restart(self, spawn: Callable[[], _T]) -> _T:
        for attempt in (1, 2):
            if self.pid is None:
                self.start()
            try:
                return spawn()
            except (HungUp, DeadlineError) as error:
                with contextlib.suppress(subprocess.TimeoutExpired, AttributeError):
                    self._process.wait(1)  # type: ignore[union-attr]
                if attempt == 2 or self.pid is not None:
                    raise EngineError(f"The zygote does not answer: {error}.{self._tail()}") from error
        raise AssertionError

    def _ask_for_fork(self, header: dict[str, Any], descriptors: tuple[int, ...] = ()) -> tuple[Wire, Wire]:
        """Our ends of the new process's wire and lifeline; ``descriptors`` go into the jail with it."""
        assert self._control is not None
        wire, inner_wire = pair()
        lifeline, inner_lifeline = pair()
        try:
            descriptors = (inner_lifeline.fileno(), inner_wire.fileno(), *descriptors)
            self._control.send(header, deadline=time.monotonic() + READY_SECONDS, descriptors=descriptors)
        except BaseException:
            wire.close()
            lifeline.close()
            raise
        finally:
            inner_wire.close()
            inner_lifeline.close()
        return wire, lifeline

    @staticmethod
    def _settle(jailed: _J, files: Mapping[str, bytes], seed: int | None) -> _J:
        try:
            jailed.wait_until_ready(files, seed)
        except BaseException:
            jailed.close()
            raise
        return jailed

    def close(self) -> None:
        """End the process; runners that still live are ended by their wardens."""
        for jailed in filter(None, (self._ahead, self._leaving)):
            jailed.close()
        self._ahead = self._leaving = None
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


def _outcome(
    status: Status, outputs: list[dict[str, Any]], seconds: float, message: str, kept: bool, limit: str
) -> CellOutcome:
    checked = [output for item in outputs if (output := checked_output(item)) is not None]
    return CellOutcome(status, tuple(checked), seconds, message, kept, limit)
