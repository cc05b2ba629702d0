"""The zygote: one process with one thread that has imported everything and run the prefix, and forks for every
submission.

It is started afresh (exec), with a clean environment and nothing in its arguments, and reads what to do from the socket
that its client passes as a file descriptor. It ends when the client hangs up or is gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

from autograder.engine import guard
from autograder.engine.executor import Executor, Handler, resolve, seed_all
from autograder.engine.frames import Frame, HungUp, Wire, readable
from autograder.engine.shell import Shell, know_modules, make_shell
from autograder.jail import JailMode, JailPolicy, Limits, enter, libc, processes
from autograder.jail.libc import use_huge_pages
from autograder.jail.warden import remove_leftovers

_LOOK_SECONDS = 2.0


class StartError(Exception):
    """The message goes to the client as it is."""


def main(descriptor: int, client: int, make: type[ZygoteProcess] | None = None) -> NoReturn:
    """Serve the client at the other end of the socket ``descriptor``; ``client`` is its process id. ``make``: what is
    forked, submissions by default."""
    control = Wire(socket.socket(fileno=descriptor), max_body=2**31)
    sys.modules.pop("rfc3987_syntax", None)  # the grader does without it; a submission may not
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda number, frame: _end_without(client))
    try:
        frame = control.receive()
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)  # a prefix may run for ever
        zygote = (make or ZygoteProcess)(control, client, frame.header)
        zygote.prepare(frame)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        zygote.serve()
    except HungUp:
        pass
    except StartError as error:
        _tell(control, {"say": "failed", "message": str(error)})
    except BaseException:
        _tell(control, {"say": "failed", "message": traceback.format_exc()[-6000:]})
    finally:
        os._exit(0)


def _end_without(client: int) -> None:
    if os.getppid() != client:
        remove_leftovers()
        os._exit(1)


def _tell(control: Wire, header: dict[str, Any]) -> None:
    with contextlib.suppress(HungUp):
        control.send(header)


class ZygoteProcess:
    """The zygote's own side. A subclass may hold another state (``load``) and fork another process (``run``)."""

    def __init__(self, control: Wire, client: int, settings: dict[str, Any]) -> None:
        self.control, self.client, self.settings = control, client, settings
        self.work = os.path.join(os.path.realpath(settings["folder"]), "work")
        self.mode = JailMode(settings["mode"])
        self.executor: Executor
        self._wardens: set[int] = set()

    def prepare(self, frame: Frame) -> None:
        """Import, warm up, run the prefix; then report the prefix's outcomes to the client."""
        remove_leftovers()
        os.mkdir(self.work)
        guard.write_files(frame, self.work)
        os.chdir(self.work)
        sys.path.insert(0, "")  # as in a notebook: modules beside it can be imported
        outcomes = self.load()
        threads = os.listdir("/proc/self/task")
        if len(threads) != 1:
            raise StartError(
                f"After the preload {', '.join(self.settings['preload'])} and the prefix {len(threads)} threads run. "
                "A process with threads cannot be forked safely: start them in a cell that is not part of the prefix."
            )
        know_modules()
        gc.collect()
        gc.freeze()  # the collector would otherwise touch, and so copy, every page in every fork
        use_huge_pages()
        self.control.send({"say": "ready"}, json.dumps(outcomes).encode())

    def load(self) -> list[dict[str, Any]]:
        """Make the state that is forked; what the prefix's cells showed."""
        # Before the preload: matplotlib looks for the shell when its inline backend is imported.
        shell = make_shell(os.path.join(self.settings["folder"], "ipython"))
        _preload(self.settings["preload"])
        handlers = {name: _handler(name) for name in self.settings["handlers"]}
        _warm_up_shell(shell)
        self.executor = Executor(shell, handlers, shielded=self.mode is not JailMode.PLAIN)
        outcomes = []
        sources = [self.control.receive().body.decode() for _ in range(self.settings["prefix"])]
        for number, source in enumerate(sources, 1):
            outcome = self.executor.run_prefix(source, self.settings["output_bytes"])
            if outcome.status != "ok":
                raise StartError(f"Cell {number} of the prefix (locked cells at the top) ended with {outcome.message}")
            outcomes.append(asdict(outcome))
        return outcomes

    def serve(self) -> NoReturn:
        """Fork on request, until the client hangs up or is gone."""
        libc.set_subreaper()  # what a warden leaves that is killed becomes this process's
        own = processes.children_of(os.getpid())  # of the prefix
        while True:
            # No death signal: that would go off when the client's thread ends, not its process.
            arrived = readable(self.control.socket, time.monotonic() + _LOOK_SECONDS)
            if self._lost_a_warden():
                processes.kill_trees(os.getpid(), spare=own | self._wardens)
                remove_leftovers()
            if os.getppid() != self.client:
                raise HungUp("the client is gone")
            if arrived:
                self._spawn(self.control.receive_with_descriptors())

    def _lost_a_warden(self) -> bool:
        """Collect what has ended; whether a warden is among it that was killed, and so could not clean up."""
        lost = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                lost |= ended[0] in self._wardens and os.WIFSIGNALED(ended[1])
                self._wardens.discard(ended[0])
        return lost

    def _spawn(self, frame: Frame) -> None:
        lifeline, *inside = frame.descriptors
        above = (os.getpid(), self.client)
        if pid := os.fork():
            self._wardens.add(pid)
            for descriptor in frame.descriptors:
                os.close(descriptor)
            return
        self.control.close()
        limits = Limits(**frame.header["limits"])
        policy = JailPolicy(self.mode, self.work, tuple(self.settings["readable"]), limits)
        warden = os.getpid()
        enter(policy, socket.socket(fileno=lifeline), inside)
        private = self.mode is JailMode.NAMESPACES
        connection = Wire(socket.socket(fileno=inside[0]), max_body=max(limits.disk_bytes, 2**27))
        self.run(connection, policy, () if private else (warden, *above), replace(frame, descriptors=tuple(inside[1:])))

    def run(self, wire: Wire, policy: JailPolicy, guards: tuple[int, ...], frame: Frame) -> NoReturn:
        """In the jail's first process: serve what was asked for with ``frame``, which may bring descriptors along."""
        guard.run(wire, policy, self.executor, guards)


def _handler(name: str) -> Handler:
    try:
        return resolve(name)
    except Exception as error:
        raise StartError(f"The session handler {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def import_modules(names: Sequence[str]) -> None:
    """Import the preload. Raises :class:`StartError` naming the module that cannot be."""
    gc.disable()  # imports make much that lives on, through which the collector would go again and again
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise StartError(f"The preload of {name} failed: {type(error).__name__}: {error}") from error
    gc.enable()
    if "torch" in sys.modules:
        _warm_up_torch(sys.modules["torch"])


def _preload(modules: Sequence[str]) -> None:
    import_modules(modules)
    if "matplotlib" in sys.modules:
        importlib.import_module("matplotlib_inline.backend_inline")
    seed_all(0)  # the first time imports numpy.random, and torch reads the source of every caller


def _warm_up_torch(torch: Any) -> None:
    """One backward pass, and a training step if the preload holds ``torch._dynamo``, which the first step imports."""
    torch.set_num_threads(1)
    layer = torch.nn.Linear(2, 2)
    layer(torch.zeros(1, 2)).sum().backward()
    if "torch._dynamo" in sys.modules:
        torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9).step()


def _warm_up_shell(shell: Shell) -> None:
    """Load what IPython imports late (tracebacks, top-level await), without leaving a trace in the notebook."""
    shell.stage.emit = lambda output: None
    for source in ("raise RuntimeError", "import asyncio; await asyncio.sleep(0)"):
        shell.run_cell(source, store_history=False, silent=True)
    shell.user_ns.pop("asyncio", None)
    for name in ("last_type", "last_value", "last_traceback"):
        if hasattr(sys, name):
            delattr(sys, name)
