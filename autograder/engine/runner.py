"""The grader's side of one submission: its cells, and the sessions that answer an examiner's calls.

All that a runner sends is untrusted. The grader keeps its own deadlines, later than those of the guard inside the
jail, and ends a runner by hanging up its lifeline, on which the warden outside the jail waits.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from autograder.engine.frames import DeadlineError, Frame, HungUp, ProtocolError, Wire
from autograder.engine.outcome import STATUSES, CellOutcome, EngineError, OutputList, SessionReply, Status
from autograder.jail import JailMode, Limits, hits

READY_SECONDS = 60.0
_PATIENCE = 45.0  # seconds that the grader waits after the guard's own deadline: a busy machine, a fork bomb
_CALL_OUTPUT = 64 * 2**10
Back = Callable[[bytes], bytes]


class Jailed:
    """A process in a jail: how it is handed its files, and how it ends."""

    def __init__(self, wire: Wire, lifeline: Wire, limits: Limits, mode: JailMode) -> None:
        self._wire, self._lifeline, self.limits, self.mode = wire, lifeline, limits, mode
        self._why = ""

    def wait_until_ready(self, files: Mapping[str, bytes], seed: int | None) -> None:
        """Hand over the work files and wait for the jail to stand. Raises :class:`EngineError` when it does not."""
        deadline = time.monotonic() + READY_SECONDS
        index, body = pack_files(files)
        if len(body) > self.limits.disk_bytes:
            raise EngineError(
                f"The work files hold {len(body)} bytes, more than the limit on disk use of {self.limits.disk_bytes}. "
                "Raise `disk_bytes` or leave files out."
            )
        try:
            self._wire.send({"files": index, "seed": seed}, body, deadline=deadline)
            frame = self._wire.receive(deadline)
        except (HungUp, DeadlineError, ProtocolError) as error:
            why = self._last_report()
            if not why:
                raise HungUp(f"the jail was not built: {error}") from None
            raise EngineError(
                f"The jail ({self.mode}) cannot be built: {why}. `fourbit doctor` says what works here."
            ) from None
        if frame.header.get("say") != "ready":
            raise EngineError(f"The submission's process did not start: {frame.header.get('message')}")

    def _last_report(self) -> str:
        """What the warden said last, e.g. why a wall could not be built."""
        channel = self._lifeline.socket
        channel.settimeout(2.0)
        with contextlib.suppress(OSError, ValueError, AttributeError, IndexError):
            message = json.loads(channel.recv(65536).splitlines()[-1])
            return str(message.get("refused") or "")
        return ""

    def hang_up(self) -> None:
        """Let everything in the jail be ended, without waiting for it."""
        self._why = self._why or "the runner is closed"
        self._wire.close()
        with contextlib.suppress(OSError):
            self._lifeline.socket.shutdown(1)  # the warden reads the end, cleans up, and closes its side

    def close(self) -> None:
        """End everything in the jail and wait until nothing of it is left."""
        self.hang_up()
        channel = self._lifeline.socket
        with contextlib.suppress(OSError):
            channel.settimeout(_PATIENCE)
            while channel.recv(65536):
                pass
        self._lifeline.close()


class Runner(Jailed):
    """One submission's process. Its methods raise nothing for what a submission does: they report it."""

    def __init__(self, wire: Wire, lifeline: Wire, limits: Limits, mode: JailMode) -> None:
        super().__init__(wire, lifeline, limits, mode)
        self._ends = time.monotonic() + limits.notebook_seconds
        self._sessions = 0
        self._state_lost = False
        self._outputs, self._deadline = OutputList(0), 0.0  # of the question that is being answered

    def wait_until_ready(self, files: Mapping[str, bytes], seed: int | None) -> None:
        super().wait_until_ready(files, seed)
        self._ends = time.monotonic() + self.limits.notebook_seconds

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether cells can still be run."""
        return not self._why and not self._state_lost

    def run_cell(
        self, source: str, *, seconds: float | None = None, checkpoint: bool = False, back: Back | None = None
    ) -> CellOutcome:
        """Run one cell. ``seconds``: its wall time (default: the limits'). ``checkpoint``: fork before it, so that a
        crash, a kill, a lack of memory or a timeout that ignores the interrupt costs this cell and nothing else.
        ``back``: answers what the process asks in the middle of the cell (:class:`Talk`)."""
        wanted = self.limits.cell_seconds if seconds is None else seconds
        granted, why = self._grant(wanted)
        if why:
            status, limit = self._not_asked()
            return CellOutcome(status, (), 0.0, why, kept=False, limit=limit)
        outputs = OutputList(self.limits.output_bytes)
        start = time.monotonic()
        reply = self._ask(
            {"do": "cell", "seconds": granted, "checkpoint": checkpoint},
            source.encode("utf-8", "replace"),
            granted,
            outputs,
            back,
        )
        seconds_used = time.monotonic() - start
        if isinstance(reply, str):
            return CellOutcome("crashed", tuple(outputs.items), seconds_used, reply, kept=False)
        deadline = "notebook_seconds" if granted < wanted else "cell_seconds" if seconds is None else ""
        status, message, limit = self._verdict(reply, deadline)
        self._state_lost = reply.header.get("live") is not True
        kept = reply.header.get("kept") is True
        return CellOutcome(status, tuple(outputs.items), seconds_used, message, kept, limit)

    def ask(
        self, handler: str, payload: bytes, *, seconds: float, checkpoint: bool = False, back: Back | None = None
    ) -> SessionReply:
        """Ask the live process itself: ``handler(user_namespace, talk, payload) -> bytes``; what that changes stays.
        ``checkpoint``: fork before it; the restore point holds for the questions that follow, too."""
        granted, why = self._grant(seconds)
        if why:
            status, limit = self._not_asked()
            return SessionReply(status, message=why, limit=limit)
        outputs = OutputList(_CALL_OUTPUT)
        start = time.monotonic()
        header = {"do": "ask", "handler": handler, "seconds": granted, "checkpoint": checkpoint}
        reply = self._ask(header, payload, granted, outputs, back)
        used = time.monotonic() - start
        if isinstance(reply, str):
            return SessionReply("crashed", b"", used, reply, outputs=tuple(outputs.items))
        status, message, limit = self._verdict(reply, "notebook_seconds" if granted < seconds else "cell_seconds")
        self._state_lost = reply.header.get("live") is not True
        body = reply.body if status == "ok" else b""
        return SessionReply(status, body, used, message, limit=limit, outputs=tuple(outputs.items))

    def renew(self, files: Mapping[str, bytes]) -> bool:
        """Begin again with the state in which this was called first, these work files and all of the time; False when
        the jail is gone. For trusted text: what runs must not have harmed the jail itself."""
        if self._why:
            return False
        index, body = pack_files(files)
        self._ends, self._state_lost = time.monotonic() + self.limits.notebook_seconds, False
        reply = self._ask({"do": "renew", "files": index}, body, READY_SECONDS, OutputList(0))
        return not isinstance(reply, str) and reply.header.get("live") is True

    def callback(self, payload: bytes, back: Back | None = None) -> bytes:
        """Ask a process that waits for the reply to a question of its own. Raises :class:`HungUp`,
        :class:`DeadlineError` or :class:`ProtocolError`, which end what runs there."""
        outputs, deadline = self._outputs, self._deadline
        self._wire.send({"do": "callback"}, payload, deadline=deadline)
        return self._listen("called", deadline, outputs, back).body

    def session(self, handler: str, argument: dict[str, Any], seconds: float = 5.0) -> Session:
        """Fork the state of this moment into a process that answers calls with ``handler``, "package.module:function":
        ``handler(user_namespace, argument, payload) -> bytes``. ``seconds``: the limit of a call that names none."""
        self._sessions += 1
        session = Session(self, self._sessions, seconds)
        granted, why = self._grant(max(seconds, 30.0))
        if not why:
            header = {"do": "session", "session": self._sessions, "handler": handler, "seconds": granted}
            reply = self._ask(header, json.dumps(argument).encode(), granted, OutputList(0))
            status, why, _ = ("crashed", reply, "") if isinstance(reply, str) else self._verdict(reply)
            if status == "error":
                raise EngineError(f"The session handler cannot be used: {why}")
        session.why = why
        return session

    def call(self, number: int, payload: bytes, seconds: float) -> SessionReply:
        """One call of session ``number``; see :meth:`Session.call`."""
        granted, why = self._grant(seconds)
        if why:
            status, limit = self._not_asked()
            return SessionReply(status, message=why, limit=limit)
        outputs = OutputList(_CALL_OUTPUT)
        start = time.monotonic()
        reply = self._ask({"do": "call", "session": number, "seconds": granted}, payload, granted, outputs)
        seconds_used = time.monotonic() - start
        printed = "".join(item["text"] for item in outputs.items if item["output_type"] == "stream")[:_CALL_OUTPUT]
        if isinstance(reply, str):
            return SessionReply("crashed", b"", seconds_used, reply, printed)
        status, message, limit = self._verdict(reply, "notebook_seconds" if granted < seconds else "")
        return SessionReply(status, reply.body if status == "ok" else b"", seconds_used, message, printed, limit)

    def end_session(self, number: int) -> None:
        if not self._why:
            self._ask({"do": "close", "session": number}, b"", 5.0, OutputList(0))

    def _grant(self, seconds: float) -> tuple[float, str]:
        left = self._ends - time.monotonic()
        if self._why:
            return 0.0, self._why
        if left <= 0:
            return 0.0, f"not run: {hits.exceeded('notebook_seconds', self.limits)}"
        return min(seconds, left), ""

    def _not_asked(self) -> tuple[Status, str]:
        """The status and the limit of a cell or a call that :meth:`_grant` gave no time."""
        return ("crashed", "") if self._why else ("timeout", "notebook_seconds")

    def _verdict(self, frame: Frame, deadline: str = "") -> tuple[Status, str, str]:
        """Status, message and limit of the guard's answer; ``deadline``: the limit that a passed deadline is."""
        said, message, limit = (frame.header.get(name) for name in ("status", "message", "limit"))
        status: Status = said if isinstance(said, str) and said in STATUSES else "crashed"  # type: ignore[assignment]
        text = message if isinstance(message, str) else ""
        known = limit if isinstance(limit, str) and limit in hits.LIMITS else ""
        if status == "timeout" and not known:
            text, known = f"stopped: {hits.exceeded(deadline, self.limits)}" if deadline else text, deadline
        elif status in ("error", "out of memory") and known and not text.startswith("stopped:"):
            text = f"stopped: {hits.exceeded(known, self.limits)} ({text})"
        return status, text, known

    def _listen(self, wanted: str, deadline: float, outputs: OutputList, back: Back | None) -> Frame:
        """The frame that says ``wanted``; outputs before it are collected, questions answered."""
        while True:
            frame = self._wire.receive(deadline)
            said = frame.header.get("say")
            if said == wanted:
                return frame
            if said in ("refused", "done"):
                raise ProtocolError(str(frame.header.get("message"))[:2000])
            if said == "back":
                reply = back(frame.body) if back else b""
                self._wire.send({"do": "reply"}, reply, deadline=deadline)
            elif said == "output":
                outputs.add(frame.body)

    def _ask(
        self, header: dict[str, Any], body: bytes, seconds: float, outputs: OutputList, back: Back | None = None
    ) -> Frame | str:
        """The guard's final answer, or the reason why there will never be one again."""
        deadline = time.monotonic() + seconds + _PATIENCE
        self._outputs, self._deadline = outputs, deadline
        try:
            self._wire.send(header, body, deadline=deadline)
            return self._listen("done", deadline, outputs, back)
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
        """Pass ``payload`` (at most 64 MiB) to the handler and return its reply. Never raises for what a submission
        does."""
        if self.why:
            return SessionReply("crashed", message=self.why)
        return self._runner.call(self._number, payload, self._seconds if seconds is None else seconds)

    def close(self) -> None:
        if not self.why:
            self._runner.end_session(self._number)
            self.why = "the session is closed"


def pack_files(files: Mapping[str, bytes]) -> tuple[list[tuple[str, int]], bytes]:
    """The index of a frame of files, and its body."""
    return [(name, len(data)) for name, data in files.items()], b"".join(files.values())
