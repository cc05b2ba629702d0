"""The kernel provisioner ``fourbit-jail``: what Jupyter's kernel managers ask when they start, signal and end kernels.

Reference: jupyter_client's documentation, "Kernel provisioning".
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import List, Unicode, default

from autograder.jail import JailMode
from autograder.provisioner import CHANNELS
from autograder.provisioner.client import KernelProcess, KernelZygote, zygote_for
from autograder.provisioner.files import files_beside, why_not
from autograder.results import plain
from autograder.settings import FourbitGrade
from fourbit.errors import FourbitError

PRELOAD = ("numpy", "torch", "matplotlib.pyplot")
PRELOAD_VARIABLE = "FOURBIT_KERNEL_PRELOAD"
# nbgrader tells notebooks in this way that they are being graded; nothing else of the environment goes in.
_PASSED_ON = ("NBGRADER_EXECUTION", "NBGRADER_VALIDATING")
_POLL_SECONDS = 0.02
_LONGEST_WORDS = 1000


class ProvisionError(FourbitError):
    """A kernel that cannot be run in the jail, and why."""


class JailProvisioner(KernelProvisionerBase, FourbitGrade):  # type: ignore[metaclass]
    """Kernels forked from a preloaded process into the jail. Its limits are those of ``c.FourbitGrade``; the client
    keeps the time of a cell."""

    preload = List(Unicode(), help="Modules imported once, before the first kernel.").tag(config=True)
    readable = List(Unicode(), help="More files and folders that kernels may read, such as data sets.").tag(config=True)

    _kernel: KernelProcess | None = None
    _zygote: KernelZygote | None = None
    _address = ""
    _expected = False  # that the kernel ends

    @default("preload")
    def _default_preload(self) -> list[str]:
        named = os.environ.get(PRELOAD_VARIABLE)
        names = PRELOAD if named is None else named.replace(",", " ").split()
        return [name for name in names if named is not None or importlib.util.find_spec(name.split(".")[0])]

    @property
    def has_process(self) -> bool:
        """Whether a kernel was launched and has not been waited for."""
        return self._kernel is not None

    async def pre_launch(self, **options: Any) -> dict[str, Any]:
        """Choose unix sockets instead of TCP, whatever the manager was set to, and write the connection file."""
        manager = self.parent
        if manager is None:
            raise ProvisionError("The jail starts kernels for a Jupyter kernel manager; this provisioner has none.")
        encryption = options.pop("transport_encryption", None) or getattr(manager, "transport_encryption", "disabled")
        if encryption == "required":
            raise ProvisionError("Kernels in the jail talk through private unix sockets, which are not encrypted.")
        command = manager.format_kernel_cmd(extra_arguments=options.pop("extra_arguments", []))
        self._require_ipykernel(command)
        await _in_thread(self._choose_address)
        manager.transport, manager.ip = "ipc", self._address
        for number, name in enumerate(CHANNELS, 1):
            setattr(manager, f"{name}_port", number)
        if not manager.connection_file:
            manager.connection_file = f"{self._address}.json"
        session_name = options.get("env", {}).get("JPY_SESSION_NAME", "")
        manager.write_connection_file(jupyter_session=session_name)
        self.connection_info = manager.get_connection_info()
        return await super().pre_launch(cmd=command, **options)

    def _require_ipykernel(self, command: Sequence[str]) -> None:
        """The jail forks this process's own Python, so it can stand for no other kernel."""
        name = self.kernel_spec.display_name
        if not {"ipykernel_launcher", "ipykernel"} & set(command):
            raise ProvisionError(f"The kernel {name!r} is not IPython's, and the jail runs no other.")
        program = shutil.which(command[0]) or command[0]
        if not os.path.exists(program) or not os.path.samefile(
            os.path.dirname(program), os.path.dirname(sys.executable)
        ):
            raise ProvisionError(
                f"The kernel {name!r} is of the Python in {program}, and the jail runs the one that starts it, "
                f"{sys.executable}. Start Jupyter or nbgrader from that Python's environment."
            )

    def _choose_address(self) -> None:
        mode = JailMode(self.jail) if self.jail else None
        readable = tuple(Path(path).expanduser().absolute() for path in self.readable)
        self._zygote = zygote_for(tuple(self.preload), readable, mode)
        self._address = self._address or self._zygote.address()

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        """Fork a kernel whose current folder is a copy of the client's."""
        folder = Path(options.get("cwd") or os.getcwd())
        environment = options.get("env") or os.environ
        kernel = {
            "key": self.connection_info["key"].decode(),  # type: ignore[attr-defined]
            "scheme": self.connection_info["signature_scheme"],
            "arguments": _own_arguments(cmd),
            "environment": {name: environment[name] for name in _PASSED_ON if name in environment},
        }
        self._expected = False
        await _in_thread(lambda: self._launch(folder, kernel))
        return self.connection_info

    def _launch(self, folder: Path, kernel: dict[str, Any]) -> None:
        assert self._zygote is not None
        if reason := why_not(folder):
            self.log.warning("The kernel gets no files: %s, which the jail shows to no notebook.", reason)
        files = {} if reason else files_beside(folder, self.disk_bytes)
        self._kernel = self._zygote.launch(self.limits, files, kernel, self._paths())

    def _paths(self) -> list[str]:
        return [f"{self._address}-{number}" for number in range(1, len(CHANNELS) + 1)]

    async def poll(self) -> int | None:
        """None while the kernel runs, then its exit code; the first time the log says why it ended unasked."""
        if self._kernel is None:
            return 0
        known = self._kernel.code is not None
        code = self._kernel.poll()
        if code is not None and not known and not self._expected:
            self.log.warning("%s", _epitaph(code, self._kernel))
        return code

    async def wait(self) -> int | None:
        """Wait until the kernel and all its processes have ended."""
        code: int | None = 0
        while self._kernel is not None and (code := await self.poll()) is None:
            await asyncio.sleep(_POLL_SECONDS)
        await self._end()
        return code

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and the commands that it runs."""
        if self._kernel is not None and signum != 0:
            self._kernel.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and all its processes now."""
        self._expected = True
        if self._kernel is not None:
            await _in_thread(self._kernel.close)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel's process to end."""
        self._expected = True
        await self.send_signal(15)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The client has asked the kernel to end."""
        self._expected = True

    async def cleanup(self, restart: bool = False) -> None:
        """End what still runs; remove the sockets' files unless the kernel is to come back on them."""
        await self._end()
        if not restart and self._address:
            for path in self._paths():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    async def _end(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            self._expected = True
            await _in_thread(kernel.close)


async def _in_thread(wait: Callable[[], None]) -> None:
    """Let the client's event loop go on meanwhile."""
    try:
        done = asyncio.get_running_loop().run_in_executor(None, wait)
    except RuntimeError:  # the client is on its way out, when no threads are had any more
        wait()
    else:
        await done


def _own_arguments(command: Sequence[str]) -> list[str]:
    """What a command line says to the kernel besides where its connection file is."""
    start = max(index for index, word in enumerate(command) if word in ("ipykernel_launcher", "ipykernel"))
    words = list(command[start + 1 :])
    if "-f" in words:
        place = words.index("-f")
        del words[place : place + 2]
    return words


def _epitaph(code: int, kernel: KernelProcess) -> str:
    how = kernel.why or (f"ended by signal {-code}" if code < 0 else f"exit code {code}")
    words = f" It wrote: {plain(kernel.words, _LONGEST_WORDS)}" if kernel.words else ""
    return f"The jailed kernel ended: {how}.{words}"
