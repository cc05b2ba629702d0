"""One question to a process that may be hostile, and what comes back before the deadline: reply, outputs, or its
end."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import os
import select
import signal
import time
from dataclasses import dataclass, field, replace
from typing import Any

from autograder.engine.frames import DeadlineError, Frame, HungUp, ProtocolError, Wire, readable
from autograder.engine.outcome import STATUSES, Status
from autograder.jail import Limits, hits, processes
from autograder.jail.watch import Watch

_GRACE_SECONDS = 1.5
_TICK_SECONDS = 0.25
_READ = 2**16
_NUMBERS = itertools.count(1)
_PIPE_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """A process that holds a notebook's state; ``handle`` is its pidfd, ``line`` the connection to it."""

    pid: int
    handle: int
    line: Wire

    def kill(self) -> None:
        """End the process, unless it has ended already (its number may then be another's)."""
        if not self.wait(0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, deadline: float) -> bool:
        """Wait until the process has ended; False when the deadline passes first."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(max(0, (deadline - time.monotonic()) * 1000)))

    def close(self) -> None:
        self.line.close()
        with contextlib.suppress(OSError):
            os.close(self.handle)


@dataclass
class Pipes:
    """The reading ends of what the jail's processes have as file descriptors 1 and 2."""

    descriptors: dict[int, str]
    _decoders: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def replacing_output(cls) -> Pipes:
        """Give this process and all it forks new pipes as standard output and error, and no input."""
        import fcntl  # POSIX only; the engine can be imported everywhere

        found = {}
        for target, name in ((1, "stdout"), (2, "stderr")):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            with contextlib.suppress(OSError):  # the user's share of pipe memory is used up
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            os.dup2(writing, target, inheritable=True)
            os.close(writing)
            found[reading] = name
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0, inheritable=True)
        os.close(nothing)
        return cls(found)

    def read(self, descriptor: int) -> tuple[str, str]:
        """(stream name, text) of what has arrived, at most 64 KiB; the text may be empty."""
        make = codecs.getincrementaldecoder("utf-8")
        decoder = self._decoders.setdefault(descriptor, make("replace"))
        try:
            return self.descriptors[descriptor], decoder.decode(os.read(descriptor, _READ))
        except BlockingIOError:
            return self.descriptors[descriptor], ""

    def drop(self, descriptor: int) -> bool:
        """Read and forget; False, as nothing of it is of use to anyone."""
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, _PIPE_BYTES)
        return False

    def drain_text(self) -> str:
        return "".join(self.read(descriptor)[1] for descriptor in self.descriptors)

    def wait_for(self, wire: Wire) -> None:
        """Wait for the grader; what background processes print meanwhile belongs to no cell and is dropped."""
        poll = select.poll()
        for descriptor in (wire.fileno(), *self.descriptors):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(1000)}
            for descriptor in ready & self.descriptors.keys():
                self.drop(descriptor)
            processes.reap()
            if wire.fileno() in ready:
                return

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclass(frozen=True)
class Ending:
    """``alive``: the process answered and goes on. ``cause`` is why it was ended, when the guard did that. ``limit``:
    the name of the limit that was hit, "" for none and for a deadline, which the grader knows the name of."""

    alive: bool
    status: Status
    message: str = ""
    payload: bytes = b""
    cause: str = ""
    limit: str = ""

    def with_code(self, code: int | None, limits: Limits, cpu_seconds: float = 0.0) -> Ending:
        """The same with the message made from the exit code, for a process that ended by itself."""
        if self.cause:
            return self
        # Who ignores the signal is killed a second later.
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_seconds >= limits.cpu_seconds):
            return replace(self, status="timeout", message=_stopped("cpu_seconds", limits), limit="cpu_seconds")
        if code is None:
            return self
        if code >= 0:
            return replace(self, message=f"the process ended itself with exit code {code} (os._exit or the like)")
        name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
        more = ": by the submission itself, or by the system for want of memory" if code == -signal.SIGKILL else ""
        return replace(self, message=f"the process was ended by {name}{more}")


@dataclass
class Exchange:
    """One request to ``member`` and the relay of its outputs to ``wire`` within ``budget`` bytes.

    ``deadline`` is a ``time.monotonic()`` value. ``interrupt``: a KeyboardInterrupt is tried first.
    ``watch`` says when all processes together have taken too much.
    """

    member: Member
    wire: Wire
    pipes: Pipes
    limits: Limits
    deadline: float
    budget: int
    interrupt: bool
    watch: Watch
    sent: int = 0
    _number: int = field(default_factory=lambda: next(_NUMBERS))
    _cut: bool = False
    _interrupted: bool = False
    _start: float = field(default_factory=time.monotonic)

    def run(self, header: dict[str, Any], body: bytes) -> Ending:
        """Ask, relay, and return how it ended; the member is not killed here."""
        try:
            self.member.line.send({**header, "n": self._number}, body, deadline=self.deadline)
            return self._answer()
        except DeadlineError:
            return Ending(False, "timeout", self._late(), cause="deadline")
        except HungUp:
            self._last_words()
            return Ending(False, "crashed", "the process ended")
        except ProtocolError as error:
            if self._interrupted:  # what the interrupt hit was a frame half sent
                return Ending(False, "timeout", self._late(), cause="deadline")
            return Ending(False, "crashed", f"stopped: the process sent what is no answer ({error})", cause="protocol")

    def _answer(self) -> Ending:
        poll = select.poll()
        for descriptor in (self.member.line.fileno(), self.member.handle, *self.pipes.descriptors):
            poll.register(descriptor, select.POLLIN)
        poll.register(self.wire.fileno(), select.POLLIN)
        while True:
            now = time.monotonic()
            if now >= self.deadline and not self._give_notice():
                raise DeadlineError
            wait = max(0.0, min(self.deadline - now, _TICK_SECONDS))
            ready = {descriptor for descriptor, _ in poll.poll(wait * 1000 + 1)}
            for descriptor in ready & self.pipes.descriptors.keys():
                self._relay_text(descriptor)
            if self.wire.fileno() in ready:
                self._pass_on()
            if self.member.line.fileno() in ready and (reply := self._take_frames()):
                over = self.watch.exceeded_at_the_end()
                return self._stopped(over) if over else self._ending(reply)
            elif self.member.handle in ready:
                raise HungUp
            if over := self.watch.exceeded():
                return self._stopped(over)

    def _pass_on(self) -> None:
        """Hand the member what the grader answers to its questions, or asks it in the middle of its work."""
        try:
            frames = self.wire.receive_ready()
        except HungUp:
            raise SystemExit from None  # the grader is gone, not the member
        for frame in frames:
            self.member.line.send(frame.header, frame.body, deadline=self.deadline)

    def _take_frames(self) -> Frame | None:
        for frame in self.member.line.receive_ready():
            if frame.header.get("say") == "done":
                if frame.header.get("n") == self._number:  # else it is none of this question, but left over or forged
                    return frame
                continue
            if frame.header.get("say") == "cut":
                self._cut = True
            elif frame.header.get("say") in ("back", "called"):
                self.wire.send({"say": frame.header["say"]}, frame.body)
            elif frame.header.get("say") == "output":
                if frame.header.get("clear") is True:
                    self.sent = 0
                for descriptor in self.pipes.descriptors:
                    self._relay_text(descriptor)
                self._relay(frame.body)
        return None

    def _ending(self, reply: Frame) -> Ending:
        for descriptor in self.pipes.descriptors:
            while self._relay_text(descriptor):
                pass
        said = reply.header.get("status")
        status: Status = said if isinstance(said, str) and said in STATUSES else "error"  # type: ignore[assignment]
        message = str(reply.header.get("message", ""))[:4000]
        if self._interrupted:
            return Ending(True, "timeout", self._late())
        if self._cut and status == "ok" and self.interrupt and not reply.body:
            return Ending(True, "output limit", self._cut_message(), limit="output_bytes")
        limit = reply.header.get("limit")
        known = limit if isinstance(limit, str) and limit in hits.LIMITS else ""
        return Ending(True, status, message, reply.body if status == "ok" else b"", limit=known)

    def _give_notice(self) -> bool:
        """At the deadline: interrupt once and allow a little more time."""
        if not self.interrupt or self._interrupted:
            return False
        self._interrupted = True
        self.deadline = time.monotonic() + _GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.member.pid, signal.SIGINT)
        return True

    def _late(self) -> str:
        seconds = time.monotonic() - self._start
        return f"stopped: still running after {seconds:.3g} s"

    def _cut_message(self) -> str:
        whole = self.budget >= self.limits.output_bytes
        why = f"after {self.budget} bytes" if whole else "because the notebook's outputs together are above the limit"
        return f"the output was cut {why}; the cell ran to its end"

    def _last_words(self) -> None:
        with contextlib.suppress(HungUp, ProtocolError):
            while readable(self.member.line.socket, 0) and self._take_frames() is None:
                pass
        for descriptor in self.pipes.descriptors:
            while self._relay_text(descriptor):
                pass

    def _relay_text(self, descriptor: int) -> bool:
        if self._cut:
            return self.pipes.drop(descriptor)
        name, text = self.pipes.read(descriptor)
        if text:
            self._relay(json.dumps({"output_type": "stream", "name": name, "text": text}).encode())
        return bool(text)

    def _relay(self, data: bytes) -> None:
        if self.sent + len(data) > self.budget:
            self._cut = True
            return
        self.sent += len(data)
        self.wire.send({"say": "output"}, data)

    def _stopped(self, limit: str) -> Ending:
        status: Status = "out of memory" if limit == "memory_bytes" else "crashed"
        return Ending(False, status, _stopped(limit, self.limits), cause=limit, limit=limit)


def _stopped(limit: str, limits: Limits) -> str:
    return f"stopped: {hits.exceeded(limit, limits)}"
