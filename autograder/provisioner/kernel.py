"""The jailed kernel's process: IPython's own kernel on sockets that were bound outside, without TCP and terminals.

It runs a stranger's code; nobody believes what comes from here.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Mapping
from typing import Any, NoReturn

import ipykernel.debugger
import zmq
from ipykernel.control import ControlThread
from ipykernel.heartbeat import Heartbeat
from ipykernel.iostream import IOPubThread
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.shellchannel import ShellChannelThread
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Dict, Type
from traitlets.config import Config
from zmq.eventloop.zmqstream import ZMQStream

from autograder.engine.shell import Shell
from autograder.jail.hits import in_bytes
from autograder.provisioner import CHANNELS

_GOODBYE_SECONDS = 0.5
_COUNTED = (b"stream.stdout", b"stream.stderr", b"display_data")

# The debugger listens on TCP. The kernel then says that it has none, and clients do not offer it.
ipykernel.debugger._is_debugpy_available = False


def _bind(channel: zmq.Socket[Any], descriptor: int) -> None:
    """Serve on a socket that listens already: in here its path does not exist, and may not be made."""
    channel.setsockopt(zmq.USE_FD, descriptor)
    channel.bind(f"ipc://kernel-{descriptor}")


class _JailedShell(ZMQInteractiveShell):
    """``!command`` through pipes: the jail has no terminals."""

    system = system_piped = system_raw = Shell.system
    getoutput = Shell.getoutput


class _JailedKernel(IPythonKernel):
    shell_class = Type(_JailedShell)


class _Outputs(IOPubThread):
    """Sends what a cell shows, up to ``most_bytes`` of text and displays: a loop that prints must not fill the client.

    Results and errors always go out, as they decide points. Processes that a notebook forks hand over what they print
    through a unix socket, not through TCP.
    """

    most_bytes = 2**22
    _sent = 0

    def _really_send(self, msg: list[Any], *positional: Any, **named: Any) -> None:
        topic = bytes(msg[0])
        if topic.endswith(b"execute_input"):
            self._sent = 0
        elif topic.endswith(_COUNTED):
            room = self.most_bytes - self._sent
            size = sum(len(part) for part in msg)
            self._sent += size
            if room < 0:
                return
            if size > room:
                msg = self._cut(msg, room if topic == b"stream.stdout" else 0)
        super()._really_send(msg, *positional, **named)

    def _cut(self, msg: list[Any], room: int) -> list[Any]:
        """The last output that is shown, and that no more follows; on stdout, as nbgrader takes stderr for an error."""
        _, (_, _, parent, _, content, *_) = self.session.feed_identities(msg)
        head = self.session.unpack(bytes(content)).get("text", "")[:room]
        text = f"{head}\n(the output was cut: it is more than {in_bytes(self.most_bytes)})\n"
        said = self.session.msg("stream", {"name": "stdout", "text": text}, parent=self.session.unpack(bytes(parent)))
        return list(self.session.serialize(said, ident=b"stream.stdout"))

    def _setup_pipe_in(self) -> None:
        self._pipe_uuid = os.urandom(16)
        self._pipe_address = f"ipc://{tempfile.gettempdir()}/.outputs-{uuid.uuid4().hex}"
        pipe = self.socket.context.socket(zmq.PULL)
        pipe.linger = 0
        pipe.bind(self._pipe_address)
        self._pipe_in = ZMQStream(pipe, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def _setup_pipe_out(self) -> tuple[zmq.Context[Any], zmq.Socket[Any]]:
        context: zmq.Context[Any] = zmq.Context()  # the parent's does not survive the fork
        pipe = context.socket(zmq.PUSH)
        pipe.linger = 3000
        pipe.connect(self._pipe_address)
        return context, pipe


class _Heartbeat(Heartbeat):
    def _try_bind_socket(self) -> None:
        _bind(self.socket, self.port)


class _App(IPKernelApp):
    """``channels``: channel name -> descriptor of its listening socket. ``piped``: whether unix sockets can be made.
    ``output_bytes``: what a cell may show."""

    kernel_class = Type(_JailedKernel)
    channels = Dict()
    piped = True
    output_bytes = _Outputs.most_bytes

    def init_connection_file(self) -> None:
        for name, descriptor in self.channels.items():
            setattr(self, f"{name}_port", descriptor)

    def write_connection_file(self, **options: Any) -> None:
        """There is none: what it holds came from the client."""

    def init_path(self) -> None:
        """Modules beside the notebook can be imported, and hide none of the standard library, as in every kernel."""
        named = (index for index, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages")))
        sys.path.insert(next(named, len(sys.path)), "")

    def _try_bind_socket(self, s: zmq.Socket[Any], port: int) -> int:
        _bind(s, port)
        return port

    def init_control(self, context: zmq.Context[Any]) -> None:
        self.control_socket = context.socket(zmq.ROUTER)
        self.control_socket.linger = 1000
        self.control_port = self._bind_socket(self.control_socket, self.control_port)
        self.control_socket.router_handover = 1
        self.debugpy_socket = context.socket(zmq.STREAM)  # never connected
        self.control_thread = ControlThread(daemon=True)
        self.shell_channel_thread = ShellChannelThread(context, daemon=True)

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = _Outputs(self.iopub_socket, pipe=self.piped, session=self.session)
        self.iopub_thread.most_bytes = self.output_bytes
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def init_heartbeat(self) -> None:
        self.heartbeat = _Heartbeat(zmq.Context(), (self.transport, self.ip, self.hb_port))
        self.heartbeat.start()


def run(kernel: Mapping[str, Any], descriptors: tuple[int, ...], *, piped: bool, output_bytes: int) -> NoReturn:
    """Be the kernel until it is shut down. ``kernel``: ``key``, ``scheme``, ``arguments`` and ``environment`` from the
    client; ``descriptors``: listening sockets in the order of ``CHANNELS``."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(kernel["environment"])
        sys.argv = ["ipykernel_launcher"]
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if (random := sys.modules.get("numpy.random")) is not None:
            random.seed()  # otherwise every kernel would draw what the zygote would have drawn
        app = _make_app(kernel, dict(zip(CHANNELS, descriptors, strict=True)))
        app.piped, app.output_bytes = piped, output_bytes
        app.initialize(list(kernel["arguments"]))
        app.start()
        # It is writing its last answer; without the thread that is stopped next it would wait for that in vain.
        app.control_thread.join(_GOODBYE_SECONDS)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        os._exit(code)


def _make_app(kernel: Mapping[str, Any], channels: dict[str, int]) -> _App:
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    # A parent, so that nothing is printed about how to connect; 1 is not watched, as the guard does that.
    app = _App.instance(config=config, channels=channels, transport="ipc", ip="kernel", parent_handle=1)
    app.session.key = kernel["key"].encode()
    app.session.signature_scheme = kernel["scheme"]
    return app
