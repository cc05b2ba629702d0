"""The process that holds a notebook's state: runs cells and session calls, and forks itself when the guard asks.

After the first cell its interpreter may be in any condition a submission likes to leave it in, so the guard and the
grader believe nothing that comes from here; it can harm only its own score.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from autograder.engine.frames import MAX_PAYLOAD, Frame, HungUp, Wire
from autograder.engine.outcome import CellOutcome, Output, OutputList, Status
from autograder.engine.shell import Shell
from autograder.jail import hits, seccomp

Handler = Callable[[dict[str, Any], dict[str, Any], bytes], bytes]
Asked = Callable[[dict[str, Any], "Talk", bytes], bytes]

THREADS = "threads of the notebook are running"
_MESSAGE_CHARACTERS = 2000


class Talk:
    """What a handler of :meth:`Runner.ask` has to speak with the grader, also from within later cells.

    ``answer``: set by the handler, for questions that the grader asks while this process waits for a reply.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.answer: Callable[[bytes], bytes] = lambda payload: b""

    def back(self, payload: bytes) -> bytes:
        """Ask the grader in the middle of a cell or a call, and wait for its reply."""
        return self._executor.back(payload, self.answer)


class Executor:
    """One notebook's state. ``handlers``: session handlers imported before any code of a submission ran."""

    def __init__(self, shell: Shell, handlers: dict[str, Handler], *, shielded: bool = True) -> None:
        self.shell, self.handlers, self.shielded = shell, handlers, shielded
        self._codes: dict[int, int | None] = {}  # of the processes forked from here
        self._handler: tuple[Handler, dict[str, Any]] | None = None
        self._budget = self._left = 0
        self._asked: int | None = None
        self._talk = Talk(self)
        self._line: Wire
        self._pid = os.getpid()

    def run_prefix(self, source: str, budget: int) -> CellOutcome:
        """Run a trusted cell in this very process and collect its outputs."""
        collected = OutputList(budget)
        self.shell.stage.emit = lambda output: collected.add(_encode(output))
        start = time.monotonic()
        status, message, limit = self._execute(source)
        return CellOutcome(status, tuple(collected.items), time.monotonic() - start, message, limit=limit)

    def serve(self, line: Wire, seed: int | None = None) -> None:
        """Answer the guard for ever; never returns."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._attach(line)
            if seed is not None:
                seed_all(seed)
            while True:
                frame = self._line.receive_with_descriptors()
                self._asked = frame.header.get("n")
                self._reap()
                getattr(self, f"_do_{frame.header['do']}")(frame)
        except (HungUp, OSError):
            os._exit(0)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)

    def _attach(self, line: Wire) -> None:
        self._line, self._pid = line, os.getpid()
        self.shell.stage.emit = self._emit
        os.setsid()
        line.send({"hello": os.getpid()})

    def _emit(self, output: Output) -> None:
        """Send one output, unless the cell has sent more than its share: the guard would drop it anyway."""
        if os.getpid() != self._pid:
            _write_text(output)
            return
        if output.get("output_type") == "clear":
            self._left = self._budget
            self._say({"say": "output", "clear": True}, _encode(output))
            return
        if self._left <= 0:
            return
        data = _encode(output)
        if len(data) > self._left and output["output_type"] == "stream":
            data = _encode(output | {"text": output["text"][: max(0, self._left - 200) // 2]})
            self._left = 0
        self._left -= len(data)
        if self._left >= 0:
            self._say({"say": "output"}, data)
        if self._left <= 0:
            self._say({"say": "cut"})

    def _say(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a frame from the middle of a student's code: an interrupt waits, or half of it would be on the wire."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            self._line.send(header, body)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _begin(self, frame: Frame) -> None:
        self._budget = self._left = int(frame.header["budget"])
        self.shell.stage.begin()

    def _do_cell(self, frame: Frame) -> None:
        self._begin(frame)
        status, message, limit = self._execute(frame.body.decode())
        self._done(status, message, limit)

    def _done(self, status: Status, message: str, limit: str = "", body: bytes = b"") -> None:
        """Answer the guard's question, by its number."""
        head = {"say": "done", "n": self._asked, "status": status, "limit": limit}
        self._line.send({**head, "message": message[:_MESSAGE_CHARACTERS]}, body)

    def _execute(self, source: str) -> tuple[Status, str, str]:
        error: BaseException | None = None
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            result = self.shell.run_cell(source, store_history=True)
            error = result.error_before_exec or result.error_in_exec
            self.shell.stage.flush()
        except BaseException as raised:
            error = raised
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._end_copy()
        return _verdict(error)

    def _end_copy(self) -> None:
        """End this process if it is a copy that a cell or a call forked and did not end: it has no say here."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _do_fork(self, frame: Frame) -> None:
        (descriptor,) = frame.descriptors
        if not frame.header["always"] and _threads() > 1:
            os.close(descriptor)
            self._line.send({"say": "no fork", "why": THREADS})
            return
        self.shell.stage.flush()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            self._line.send({"say": "no fork", "why": str(error)})
            return
        if pid:
            os.close(descriptor)
            self._codes[pid] = None
            return
        self._line.close()
        self._codes = {}
        if self.shielded:
            seccomp.shield(frame.header["shield"])
        self._attach(Wire(socket.socket(fileno=descriptor)))

    def _do_status(self, frame: Frame) -> None:
        """How a process that this one forked ended (the guard asks when it is gone)."""
        self._line.send({"say": "status", "code": self._codes.pop(frame.header["pid"], None)})

    def _reap(self) -> None:
        for pid in [pid for pid, code in self._codes.items() if code is None]:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._codes[pid] = os.waitstatus_to_exitcode(status)

    def _do_handler(self, frame: Frame) -> None:
        name = frame.header["handler"]
        try:
            handler = self.handlers.get(name) or resolve(name)
            self._handler = handler, json.loads(frame.body)
            self._done("ok", "")
        except BaseException as error:
            self._done("error", f"{name}: {_describe(error)}")

    def _do_call(self, frame: Frame) -> None:
        self._begin(frame)
        status: Status
        reply, limit = b"", ""
        try:
            assert self._handler is not None
            handler, argument = self._handler
            reply = handler(self.shell.user_ns, argument, frame.body)
            status, message = "ok", ""
            if not isinstance(reply, bytes):
                raise TypeError(f"the handler returned {type(reply).__name__} instead of bytes")
            if len(reply) > MAX_PAYLOAD:
                status, message = "output limit", f"the reply of {len(reply)} bytes is above {MAX_PAYLOAD // 2**20} MiB"
        except BaseException as error:
            status, message, limit = _verdict(error)
        self._end_copy()
        with contextlib.suppress(HungUp):
            self.shell.stage.flush()
        self._done(status, message, limit, reply if status == "ok" else b"")

    def _do_ask(self, frame: Frame) -> None:
        """A question to this very process, whose state the answer may change."""
        self._begin(frame)
        status: Status
        reply, limit = b"", ""
        try:
            name = frame.header["handler"]
            handler: Any = self.handlers.get(name) or resolve(name)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            reply = handler(self.shell.user_ns, self._talk, frame.body)
            self.shell.stage.flush()
            status, message = "ok", ""
        except BaseException as error:
            status, message, limit = _verdict(error)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._end_copy()
        self._done(status, message, limit, reply if status == "ok" else b"")

    def back(self, payload: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        """See :meth:`Talk.back`."""
        self.shell.stage.flush()
        self._say({"say": "back"}, payload)
        while True:
            frame = self._line.receive()
            if frame.header["do"] != "callback":
                return frame.body
            reply = answer(frame.body)
            self.shell.stage.flush()
            self._say({"say": "called"}, reply)

    def _do_reply(self, frame: Frame) -> None:
        """A reply that came after what asked for it was stopped."""

    _do_callback = _do_reply

    def _do_exit(self, frame: Frame) -> None:
        os._exit(0)


def resolve(name: str) -> Handler:
    """The function that ``"package.module:function"`` names. Raises ImportError or AttributeError."""
    module, _, function = name.partition(":")
    handler: Handler = getattr(importlib.import_module(module), function)
    return handler


def _verdict(error: BaseException | None) -> tuple[Status, str, str]:
    """How a cell or a call ended, in a word and a sentence, and which limit that was."""
    if error is None:
        return "ok", "", ""
    limit = ""
    with contextlib.suppress(BaseException):
        limit = hits.limit_of(error)
    return ("out of memory" if limit == "memory_bytes" else "error"), _describe(error), limit


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except BaseException:
        return f"{type(error).__name__}: (its message cannot be shown)"


def _write_text(output: Output) -> None:
    """Show an output of a copy that a cell forked, whose frames on the shared line would mix with the notebook's."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    descriptor = 2 if output.get("name") == "stderr" else 1
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode("utf-8", "replace"))


def _encode(output: Output) -> bytes:
    try:
        return json.dumps(output, default=str, allow_nan=False).encode()
    except (ValueError, RecursionError, TypeError):
        note = "(an output of this cell cannot be written as JSON)\n"
        return json.dumps({"output_type": "stream", "name": "stderr", "text": note}).encode()


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # landlock mode shows no processes
        return threading.active_count()


def seed_all(seed: int) -> None:
    """Seed random, and numpy and torch if they are imported."""
    random.seed(seed)
    # torch.manual_seed would also note the callers' source lines for every kind of accelerator: milliseconds.
    modules: Sequence[tuple[str, str]] = (("numpy", "random.seed"), ("torch", "random.default_generator.manual_seed"))
    for name, function in modules:
        if name in sys.modules:
            target: Any = sys.modules[name]
            for part in function.split("."):
                target = getattr(target, part)
            target(seed % 2**32)
