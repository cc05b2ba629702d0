"""Inside the jail, between the grader and a submission: keeps deadlines, restore points and budgets.

The guard is the first process in the jail (nothing in there can signal or trace it) and never runs a line of a
submission. A *member* is a process that holds a notebook's state: the live one, the one before it while a cell is on
trial (the restore point), and for every session the process that answers its calls.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from autograder.engine.exchange import Ending, Exchange, Member, Pipes
from autograder.engine.executor import THREADS, Executor
from autograder.engine.frames import DeadlineError, Frame, HungUp, ProtocolError, Wire, pair, readable
from autograder.jail import JailMode, JailPolicy, Limits, confine, processes
from autograder.jail.warden import remove_tree
from autograder.jail.watch import Watch

_FORK_SECONDS = 20.0
_NOTEBOOK_OUTPUTS = 8
_CALL_OUTPUT = 64 * 2**10


@dataclass
class _Session:
    """``worker`` answers the calls; ``template`` is the state it was forked from, once the live process has gone on."""

    handler: str
    argument: bytes
    worker: Member | None = None
    template: Member | None = None


@dataclass
class Guard:
    """The guard's loop; see :func:`run`. ``furniture``: what /tmp held from the start, such as a Python shown there."""

    wire: Wire
    limits: Limits
    mode: JailMode
    pipes: Pipes
    live: Member | None
    sessions: dict[int, _Session] = field(default_factory=dict)
    spare: Member | None = None
    base: Member | None = None
    furniture: frozenset[str] = frozenset()
    _left: int = 0

    def serve(self) -> NoReturn:
        """Answer the grader until it hangs up."""
        self._left = _NOTEBOOK_OUTPUTS * self.limits.output_bytes
        answers: dict[Any, Callable[[Frame], None]] = {
            "cell": self._cell, "session": self._open, "call": self._call, "close": self._close, "ask": self._ask,
            "renew": self._renew,
        }  # fmt: skip
        while True:
            self.pipes.wait_for(self.wire)
            for frame in self.wire.receive_ready():
                if frame.header["do"] in answers:  # a late reply to a question of a process that is gone is none
                    answers[frame.header["do"]](frame)
            processes.reap()

    def _cell(self, frame: Frame) -> None:
        deadline = time.monotonic() + frame.header["seconds"]
        if self.live is None:
            self._done("crashed", "the notebook's process had ended in an earlier cell", kept=False)
            return
        self._keep_moment()
        self._release_spare()
        self._try_out(frame.header["checkpoint"])
        budget = min(self.limits.output_bytes, self._left)
        exchange = self._exchange(self.live, deadline, budget, interrupt=True)
        ending = exchange.run({"do": "cell", "budget": budget}, frame.body)
        self._left -= min(self._left, exchange.sent)
        if ending.alive:
            self._release_spare()
        else:
            ending = self._restore(ending)
        self._done(ending.status, ending.message, kept=ending.alive, limit=ending.limit)

    def _ask(self, frame: Frame) -> None:
        """A question to the live process; a restore point stays until a later question or cell makes another."""
        if self.live is None:
            self._done("crashed", "the notebook's process had ended in an earlier cell", kept=False)
            return
        self._keep_moment()
        if frame.header["checkpoint"]:
            self._release_spare()
            self._try_out(True)
        deadline = time.monotonic() + frame.header["seconds"]
        exchange = self._exchange(self.live, deadline, _CALL_OUTPUT, interrupt=True)
        ending = exchange.run({"do": "ask", "handler": frame.header["handler"], "budget": _CALL_OUTPUT}, frame.body)
        if not ending.alive:
            ending = self._restore(ending)
        self._done(ending.status, ending.message, kept=ending.alive, body=ending.payload, limit=ending.limit)

    def _renew(self, frame: Frame) -> None:
        """Go back to the state of the first time, in a work folder with these files and nothing else."""
        self._release_spare()
        if self.base is None:
            self.base = self.live
        elif self.live is not None:
            self._remove(self.live, self.base, Ending(False, "ok", cause="renewed"))
        self._empty_folders()
        write_files(frame)
        self._left = _NOTEBOOK_OUTPUTS * self.limits.output_bytes
        self.live = self._fork(self.base, always=True) if self.base else None
        self._done("ok" if self.live else "crashed", "", kept=self.live is not None)

    def _empty_folders(self) -> None:
        places = [os.path.join(os.getcwd(), name) for name in os.listdir()]
        if self.mode is JailMode.NAMESPACES:  # elsewhere they are everybody's
            places += [os.path.join("/dev/shm", name) for name in os.listdir("/dev/shm")]
            places += [os.path.join("/tmp", name) for name in set(os.listdir("/tmp")) - self.furniture]
        for place in places:
            if os.path.isdir(place) and not os.path.islink(place):
                remove_tree(place)
            else:
                os.unlink(place)

    def _try_out(self, checkpoint: bool) -> None:
        """Go on in a copy of the live process, which stays behind as the restore point."""
        before = self.live
        trial = self._fork(before) if checkpoint and before else None
        self.spare, self.live = (before, trial) if trial else (None, before)

    def _exchange(self, member: Member, deadline: float, budget: int, *, interrupt: bool) -> Exchange:
        watch = Watch(self.limits, self.mode, [m.pid for m in self._members()])
        return Exchange(member, self.wire, self.pipes, self.limits, deadline, budget, interrupt, watch)

    def _release_spare(self) -> None:
        if self.spare is not None:
            with contextlib.suppress(HungUp, DeadlineError, ProtocolError):
                self.spare.line.send({"do": "exit"}, deadline=time.monotonic() + 1)
            self.spare.close()
            self.spare = None

    def _restore(self, ending: Ending) -> Ending:
        """The live member is to go: bring back the one before it, if there is one."""
        assert self.live is not None
        ending = self._remove(self.live, self.spare, ending)
        self.live, self.spare = self.spare, None
        return ending

    def _remove(self, member: Member, parent: Member | None, ending: Ending) -> Ending:
        """End a member and all strays; say more of its end by its exit code, where that can be known."""
        member.kill()
        member.wait(time.monotonic() + 5)
        cpu_seconds = processes.cpu_seconds_of(member.pid)  # a process that has ended is there until it is waited for
        code = self._code(member, parent)
        kept = [m.pid for m in self._members() if m is not member]
        processes.kill_descendants(os.getpid(), spare=kept)
        member.close()
        return ending.with_code(code, self.limits, cpu_seconds)

    def _code(self, member: Member, parent: Member | None) -> int | None:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(member.pid, os.WNOHANG)[1])
        except ChildProcessError:
            pass
        if parent is None:
            return None
        try:
            deadline = time.monotonic() + 2
            parent.line.send({"do": "status", "pid": member.pid}, deadline=deadline)
            code = parent.line.receive(deadline).header.get("code")
            return code if type(code) is int else None
        except (HungUp, DeadlineError, ProtocolError):
            return None

    def _members(self) -> list[Member]:
        members = [self.live, self.spare, self.base]
        for session in self.sessions.values():
            members += [session.template, session.worker]
        return [member for member in members if member is not None]

    def _fork(self, parent: Member, *, always: bool = False) -> Member | None:
        """A copy of ``parent``, or None where it cannot fork (threads of the notebook are running, no room)."""
        answer = self._ask_fork(parent, always)
        if isinstance(answer, str) and answer != THREADS:
            # Strays that an earlier cell left behind may have used up the process limit.
            processes.kill_descendants(os.getpid(), spare=[member.pid for member in self._members()])
            answer = self._ask_fork(parent, always)
        return None if isinstance(answer, str) else answer

    def _ask_fork(self, parent: Member, always: bool) -> Member | str:
        ours, theirs = pair()
        ours.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        shield = [os.getpid(), *(member.pid for member in self._members())]
        deadline = time.monotonic() + _FORK_SECONDS
        try:
            request = {"do": "fork", "always": always, "shield": shield}
            parent.line.send(request, deadline=deadline, descriptors=(theirs.fileno(),))
        except (HungUp, DeadlineError) as error:
            ours.close()
            return str(error)
        finally:
            theirs.close()
        return meet(ours, parent, deadline)

    def _open(self, frame: Frame) -> None:
        """Fork the process that answers the calls of a session; the live one, which stands still, is its restore
        point."""
        if self.live is None:
            self._done("crashed", "the notebook's process has ended", kept=False)
            return
        session = self.sessions[frame.header["session"]] = _Session(frame.header["handler"], frame.body)
        ending = self._man(session, time.monotonic() + frame.header["seconds"])
        if ending.status != "ok":
            self._close(frame, answer=False)
        self._done(ending.status, ending.message, kept=False, limit=ending.limit)

    def _man(self, session: _Session, deadline: float) -> Ending:
        """Give a session a process that answers its calls."""
        parent = session.template or self.live
        session.worker = self._fork(parent, always=True) if parent else None
        if session.worker is None:
            return Ending(False, "crashed", "no process could be forked for it", limit="processes")
        exchange = self._exchange(session.worker, deadline, 0, interrupt=False)
        return exchange.run({"do": "handler", "handler": session.handler}, session.argument)

    def _keep_moment(self) -> None:
        """Before the live process goes on: copy it for the open sessions, whose calls are to see it as it was."""
        for session in self.sessions.values():
            if session.template is None and self.live is not None:
                session.template = self._fork(self.live, always=True)

    def _call(self, frame: Frame) -> None:
        deadline = time.monotonic() + frame.header["seconds"]
        session = self.sessions.get(frame.header["session"])
        if session is None:
            self._done("crashed", "the session could not be opened", kept=False)
            return
        ending = Ending(True, "ok") if session.worker else self._man(session, deadline)
        if ending.status == "ok" and session.worker:
            exchange = self._exchange(session.worker, deadline, _CALL_OUTPUT, interrupt=False)
            ending = exchange.run({"do": "call", "budget": _CALL_OUTPUT}, frame.body)
        if not ending.alive and session.worker:
            ending = self._remove(session.worker, session.template or self.live, ending)
            session.worker = None
        self._done(ending.status, ending.message, kept=ending.alive, body=ending.payload, limit=ending.limit)

    def _close(self, frame: Frame, *, answer: bool = True) -> None:
        session = self.sessions.pop(frame.header["session"], None)
        for member in (session.worker, session.template) if session else ():
            if member is not None:
                member.kill()
                member.close()
        if answer:
            self._done("ok", "", kept=True)

    def _done(self, status: str, message: str, *, kept: bool, body: bytes = b"", limit: str = "") -> None:
        live = self.live is not None
        self.wire.send(
            {"say": "done", "status": status, "message": message, "kept": kept, "live": live, "limit": limit}, body
        )


def meet(line: Wire, parent: Member | None, deadline: float) -> Member | str:
    """Wait for a forked process to say hello on ``line``, or for ``parent`` to say why there is none.

    The process id comes from the kernel, not from the process.
    """
    reason = "the process did not start in time"
    while time.monotonic() < deadline:
        if readable(line.socket, min(deadline, time.monotonic() + 0.1)):
            data, ancillary, _, _ = line.socket.recvmsg(8, socket.CMSG_SPACE(12))
            if data and ancillary:
                line.keep(data)
                line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
                with contextlib.suppress(ProcessLookupError, HungUp, DeadlineError, ProtocolError):
                    line.receive(deadline)
                    pid = struct.unpack("3i", ancillary[0][2])[0]
                    return Member(pid, os.pidfd_open(pid), line)
            reason = "the process ended at once"
        elif parent is None or not readable(parent.line.socket, 0):
            continue
        # The parent's own word is only worth something while no hello came.
        with contextlib.suppress(HungUp, ProtocolError):
            said = [frame.header.get("why") for frame in parent.line.receive_ready()] if parent else []
            reason = str(said[0])[:200] if said else reason
        break
    line.close()
    return reason


def run(wire: Wire, policy: JailPolicy, executor: Executor, guards: tuple[int, ...]) -> NoReturn:
    """In the jail's first process: put the files in place, fork the notebook's process, serve. Never returns.

    ``guards``: process ids outside that the submission could otherwise reach (without a process table of its own).
    """
    try:
        frame = wire.receive()
        write_files(frame)
        pipes = Pipes.replacing_output()
        ours, theirs = pair()
        ours.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("800")  # when the machine runs out of memory, a submission goes before the grader
        guard_pid = os.getpid()
        if os.fork() == 0:
            wire.close()
            ours.close()
            pipes.close()
            confine(policy, (guard_pid, *guards))
            executor.serve(theirs, frame.header["seed"])
        theirs.close()
        live = meet(ours, None, time.monotonic() + _FORK_SECONDS)
        if isinstance(live, str):
            wire.send({"say": "refused", "message": f"{live} {pipes.drain_text()}".strip()})
            os._exit(1)
        wire.send({"say": "ready"})
        furniture = frozenset(os.listdir("/tmp") if policy.mode is JailMode.NAMESPACES else ())
        Guard(wire, policy.limits, policy.mode, pipes, live, furniture=furniture).serve()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            wire.send({"say": "refused", "message": f"{type(error).__name__}: {error}"}, deadline=time.monotonic() + 1)
        os._exit(0 if isinstance(error, HungUp) else 1)


def write_files(frame: Frame, folder: str = ".") -> None:
    """Write the files of a frame (``header["files"]`` = [[relative path, size], ...], contents joined in the body)."""
    start = 0
    for name, size in frame.header["files"]:
        parts = name.split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise ProtocolError(f"{name!r} is no relative path of a file")
        place = os.path.join(folder, *parts)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(frame.body[start : start + size])
        start += size
