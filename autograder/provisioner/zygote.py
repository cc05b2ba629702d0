"""The zygote of kernels: IPython's kernel and the preload imported once, for all kernels of one Jupyter client."""

from __future__ import annotations

import gc
import sys
from typing import Any, NoReturn

from autograder.engine import zygote
from autograder.engine.frames import Frame, Wire
from autograder.jail import JailMode, JailPolicy
from autograder.jail.warden import remove_tree


def main(descriptor: int, client: int) -> NoReturn:
    """Serve the client at the other end of the socket ``descriptor``; ``client`` is its process id."""
    zygote.main(descriptor, client, _KernelZygote)


class _KernelZygote(zygote.ZygoteProcess):
    def load(self) -> list[dict[str, Any]]:
        """Import, and leave no trace of it: what a kernel draws at random must not depend on the warm-up."""
        sys.path.remove("")  # a kernel puts the current folder behind the standard library
        zygote.import_modules([*self.settings["preload"], "autograder.provisioner.guard"])
        if (torch := sys.modules.get("torch")) is not None:
            torch.manual_seed(torch.initial_seed())
        gc.enable()
        if self.mode is JailMode.NAMESPACES:
            self.work = "/tmp/work"  # inside
        return []

    def serve(self) -> NoReturn:
        """As in every zygote; the client's sockets go with it, as the client may have been killed."""
        try:
            super().serve()
        finally:
            remove_tree(self.settings["sockets"])

    def run(self, wire: Wire, policy: JailPolicy, guards: tuple[int, ...], frame: Frame) -> NoReturn:
        """In the jail's first process."""
        from autograder.provisioner import guard

        guard.run(wire, policy, guards, frame)
