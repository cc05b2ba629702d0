"""The jail's first process when a kernel runs in it: passes signals on, watches memory, says how the kernel ended.

It never runs a line of a notebook, and nothing in the jail can signal or trace it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any, NoReturn

from autograder.engine.exchange import Pipes
from autograder.engine.frames import Frame, HungUp, Wire
from autograder.engine.guard import write_files
from autograder.jail import JailMode, JailPolicy, confine, hits, processes
from autograder.provisioner import kernel

_FILES_SECONDS = 20.0
_TICK_SECONDS = 0.25
_LAST_WORDS = 4000


def run(wire: Wire, policy: JailPolicy, guards: tuple[int, ...], frame: Frame) -> NoReturn:
    """Put the files in place, fork the kernel that ``frame`` describes, and stay until it has ended.

    ``guards``: process ids outside that the kernel could otherwise reach.
    """
    try:
        write_files(wire.receive(time.monotonic() + _FILES_SECONDS))
        pipes = Pipes.replacing_output()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("800")  # when the machine runs out of memory, a notebook goes before its client
        guard_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            wire.close()
            pipes.close()
            os.setsid()  # an interrupt reaches the commands that it started, too
            confine(policy, (guard_pid, *guards))
            piped = policy.mode is not JailMode.LANDLOCK  # which lets nobody make sockets
            wanted, channels = frame.header["kernel"], frame.descriptors
            kernel.run(wanted, channels, piped=piped, output_bytes=policy.limits.output_bytes)
        for descriptor in frame.descriptors:
            os.close(descriptor)
        wire.send({"say": "ready"})
        _Watch(wire, policy, pipes, pid).until_the_end()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            wire.send({"say": "refused", "message": f"{type(error).__name__}: {error}"}, deadline=time.monotonic() + 1)
    finally:
        os._exit(1)  # and with it goes everything else in the jail


class _Watch:
    def __init__(self, wire: Wire, policy: JailPolicy, pipes: Pipes, pid: int) -> None:
        self.wire, self.limits, self.pipes, self.pid = wire, policy.limits, pipes, pid
        self.handle = os.pidfd_open(pid)
        self.words = self.why = self.limit = ""

    def until_the_end(self) -> None:
        """Return when the kernel has ended and the client knows how, or when the client has hung up."""
        poll = select.poll()
        for descriptor in (self.wire.fileno(), self.handle, *self.pipes.descriptors):
            poll.register(descriptor, select.POLLIN)
        look = time.monotonic() + _TICK_SECONDS
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(_TICK_SECONDS * 1000)}
            for descriptor in ready & self.pipes.descriptors.keys():
                self.words = (self.words + self.pipes.read(descriptor)[1])[-_LAST_WORDS:]
            if self.wire.fileno() in ready:
                for frame in self.wire.receive_ready():
                    self._signal(int(frame.header["signal"]))
            if self.handle in ready:
                self.wire.send(self._ending(), deadline=time.monotonic() + 1)
                return
            if time.monotonic() >= look:
                look = time.monotonic() + _TICK_SECONDS
                self._look_at_memory()
            processes.reap(spare=(self.pid,))

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # not yet the leader of its group, or gone
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _look_at_memory(self) -> None:
        if not self.limit and processes.hold_more_than(self.limits.memory_bytes):
            self.limit = "memory_bytes"
            self._signal(signal.SIGKILL)

    def _ending(self) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code == -signal.SIGXCPU:
            self.limit = "cpu_seconds"
        why = f"it {hits.exceeded(self.limit, self.limits)}" if self.limit else ""
        for descriptor in self.pipes.descriptors:
            with contextlib.suppress(OSError, HungUp):
                self.words = (self.words + self.pipes.read(descriptor)[1])[-_LAST_WORDS:]
        return {"say": "ended", "code": code, "why": why, "words": self.words}
