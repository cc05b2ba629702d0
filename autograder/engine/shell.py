"""An IPython shell without a terminal, a kernel or a thread: what a cell shows becomes notebook outputs, one by one.

The shell and its streams are made once, in the zygote; a forked process only changes where the outputs go.
"""

from __future__ import annotations

import base64
import builtins
import getpass
import inspect
import io
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell, InteractiveShellABC
from traitlets import Type
from traitlets.config import Config

from autograder.engine.outcome import Output

Emit = Callable[[Output], None]


class Stage:
    """Where outputs go. The prefix image collects them in a list, a runner sends them to its guard."""

    def __init__(self) -> None:
        self.emit: Emit = lambda output: None
        self.streams: tuple[Stream, ...] = ()

    def show(self, output: Output) -> None:
        """Send one output, after all text that was printed before it."""
        self.flush()
        self.emit(output)

    def begin(self) -> None:
        """A new cell: what it prints first goes out at once."""
        for stream in self.streams:
            stream.sent = time.monotonic() - stream._HELD_SECONDS

    def flush(self, besides: Stream | None = None) -> None:
        for stream in self.streams:
            if stream is not besides:
                stream.flush()


class Stream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr``: text becomes stream outputs, in order with what is displayed."""

    _HELD_CHARACTERS = 8192
    _HELD_SECONDS = 0.02

    def __init__(self, stage: Stage, name: str, descriptor: int) -> None:
        self._stage, self._descriptor, self._held, self._size, self.sent = stage, descriptor, [""], 0, 0.0
        self.name = f"<{name}>"
        self._kind = name
        self.buffer = _Bytes(self, descriptor)

    encoding = "utf-8"
    errors = "replace"

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._stage.flush(besides=self)
        for start in range(0, len(text), 2**16):
            self._held.append(text[start : start + 2**16])
            self._size += len(self._held[-1])
            # What is printed rarely goes out at once: a process that is killed next has still said it.
            patience = self._HELD_SECONDS if text.endswith("\n") else 10 * self._HELD_SECONDS
            if self._size >= self._HELD_CHARACTERS or time.monotonic() - self.sent > patience:
                self.flush()
        return len(text)

    def forget(self) -> None:
        """Drop what is held: a forked copy's share of it is the original's to send."""
        self._held, self._size = [], 0

    def flush(self) -> None:
        if self._size:
            text = "".join(self._held)
            self.forget()
            self.sent = time.monotonic()
            self._stage.emit({"output_type": "stream", "name": self._kind, "text": text})


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``."""

    def __init__(self, stream: Stream, descriptor: int) -> None:
        self._stream, self._descriptor = stream, descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._stream.write(content.decode("utf-8", "replace"))
        return len(content)


def _stage() -> Stage:
    shell: Shell = Shell.instance()
    return shell.stage


class _Hook(DisplayHook):
    """A cell's value becomes an ``execute_result``."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        output = {"output_type": "execute_result", "execution_count": self.prompt_count}
        _stage().show({**output, "data": _as_text(format_dict), "metadata": md_dict or {}})

    def finish_displayhook(self) -> None:
        self._is_active = False


class _Publisher(DisplayPublisher):
    """``display(...)`` and figures become ``display_data``."""

    def publish(
        self, data: dict[str, Any], metadata: dict[str, Any] | None = None, *positional: object,
        transient: dict[str, Any] | None = None, update: bool = False, **others: object,
    ) -> None:  # fmt: skip
        kind = "update_display_data" if update else "display_data"
        output: Output = {"output_type": kind, "data": _as_text(data), "metadata": metadata or {}}
        if transient and "display_id" in transient:
            output["display_id"] = str(transient["display_id"])
        _stage().show(output)

    def clear_output(self, wait: bool = False) -> None:
        _stage().show({"output_type": "clear", "wait": bool(wait)})


def _as_text(bundle: dict[str, Any]) -> dict[str, Any]:
    """Images as base64 text, as notebooks hold them."""
    return {
        str(mime): base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for mime, value in bundle.items()
    }


def belongs_to_no_module(file: str) -> None:
    """Tell ``inspect`` that code of this name is no module's.

    For each frame of a traceback it would look through all modules for the one that a cell is: a tenth of a second with
    torch imported, more than most cells take.
    """
    for name in (file, os.path.normcase(os.path.abspath(file))):
        inspect.modulesbyfile[name] = ""


def know_modules() -> None:
    """Have ``inspect`` go through the modules that are there now, once for all forks."""
    inspect.getmodule(sys._getframe(), "<no file>")


class _Compiler(CachingCompiler):
    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        name: str = super().get_code_name(raw_code, transformed_code, number)
        belongs_to_no_module(name)
        return name


class Shell(InteractiveShell):
    """The shell in which cells run; ``stage`` receives the outputs."""

    stage: Stage
    compiler_class = Type(_Compiler)
    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        try:
            value = str(evalue)
        except BaseException:
            value = "(its message cannot be shown)"
        name = str(getattr(etype, "__name__", etype))
        self.stage.show(
            {"output_type": "error", "ename": name, "evalue": value, "traceback": [str(line) for line in stb]}
        )

    def system(self, cmd: str) -> None:
        """``!command``: its output goes where the cell's output goes."""
        command = self.var_expand(cmd, depth=1)
        pipes: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, shell=True, **pipes)  # type: ignore[call-overload]
        try:
            for data in _arriving(process):
                sys.stdout.write(data.decode("utf-8", "replace"))
        finally:
            process.kill()
            self.user_ns["_exit_code"] = process.wait()
            process.stdout.close()

    system_piped = system_raw = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """``lines = !command``."""
        from IPython.utils.text import LSString, SList

        command = self.var_expand(cmd, depth=depth + 1)
        done = subprocess.run(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return SList(done.stdout.splitlines()) if split else LSString(done.stdout.rstrip("\n"))

    def ask_exit(self) -> None:
        print("exit() ends nothing here: the notebook goes on with its next cell.", file=sys.stderr)

    def enable_gui(self, gui: str | None = None) -> None:
        pass

    def init_display_formatter(self) -> None:
        super().init_display_formatter()
        formatter: Any = self.display_formatter
        formatter.active_types = formatter.format_types


def _arriving(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a command prints, as it comes, until it ends (not until what it left in the background ends)."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    while True:
        ended = process.poll() is not None
        if select.select([descriptor], [], [], 0 if ended else 0.05)[0]:
            data = os.read(descriptor, 2**16)
            if not data:
                process.wait()
                return
            yield data
        elif ended:
            return


InteractiveShellABC.register(Shell)


def make_shell(folder: str) -> Shell:
    """The one shell of this process; replaces ``sys.stdout``, ``sys.stderr`` and ``input``. ``folder`` holds its
    profile."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.show_rewritten_input = False
    config.InteractiveShell.ast_node_interactivity = "last_expr"
    os.environ["IPYTHONDIR"] = folder
    shell: Shell = Shell.instance(config=config, ipython_dir=folder)
    shell.db = {}  # what magics remember (%cd, %store) lives as long as the process
    stage = Stage()
    stage.streams = (Stream(stage, "stdout", 1), Stream(stage, "stderr", 2))
    for stream in stage.streams:
        os.register_at_fork(after_in_child=stream.forget)
    shell.stage = stage
    sys.stdout, sys.stderr = stage.streams
    builtins.input = _no_input
    getpass.getpass = _no_input
    return shell


def _no_input(prompt: object = "", stream: object = None) -> NoReturn:
    raise StdinNotImplementedError(
        "input() was called, but nobody is there to answer while a notebook is graded. "
        "Assign the value in the cell instead."
    )
