"""Machines that share nothing but a network, on one: a network namespace and a mount namespace for each.

    unshare --net --mount python -m tests.apart COURSE

runs a scheduler, two workers and a coordinator as four such machines, which reach the scheduler's and not each other;
the workers see neither the course nor the /tmp of the others. One worker is killed in the middle. Prints what happened
as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PORT = 8786

COORDINATOR = """
import json, sys
from autograder.grade import grade_assignment
def told(progress):
    print(progress.record.student, flush=True)
def main():
    result = grade_assignment(sys.argv[1], "ps1", cluster=sys.argv[2], on_progress=told)
    print(json.dumps({"jail": result.jail, "graded": result.graded}), flush=True)
if __name__ == "__main__":
    main()
"""

# Reports, then waits: whether this machine sees the course, and whether it reaches another than the scheduler's.
LOOK = """
import json, os, socket, sys
def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError as error:
        return type(error).__name__ == "ConnectionRefusedError"
    return True
print(json.dumps({
    "course": os.path.exists(sys.argv[1] + "/nbgrader_config.py"), "tmp": os.path.exists(sys.argv[2]),
    "scheduler": reaches(sys.argv[3], 8786), "other": reaches(sys.argv[4], 8786),
}))
"""


def new_namespaces() -> list[str]:
    """The command that gives a program a network and mounts of its own, for root and for an ordinary user."""
    become = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *become, "--net", "--mount"]


class Network:
    """A star: each machine has a line to the place where this process runs, and no route to any other."""

    def __init__(self) -> None:
        self.machines: list[subprocess.Popen[str]] = []
        run("ip", "link", "set", "lo", "up")

    def start(self, command: Sequence[str], *, hidden: Path | None = None, **pipes: Any) -> subprocess.Popen[str]:
        """Run `command` on a new machine, on which the folder `hidden` and /tmp are empty."""
        number = len(self.machines) + 1
        # The interface comes from outside, when the namespace is there; its arrival starts the machine.
        hide = []
        if hidden is not None:
            hide = [f"mount -t tmpfs none {hidden}", f"mkdir {hidden}/tmp", f"export TMPDIR={hidden}/tmp HOME={hidden}"]
            hide += [] if lies_in_tmp() else ["mount -t tmpfs none /tmp"]
        script = " && ".join([
            "until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done",
            f"ip addr add 10.99.{number}.2/24 dev eth0", "ip link set eth0 up", "ip link set lo up",
            *hide, 'exec "$@"',
        ])  # fmt: skip
        machine = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *command], cwd=ROOT, text=True, **pipes
        )
        self.machines.append(machine)
        until(lambda: os.readlink(f"/proc/{machine.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        line = f"hub{number}"
        run("ip", "link", "add", "name", line, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        run("ip", "addr", "add", f"{hub(number)}/24", "dev", line)
        run("ip", "link", "set", line, "up")
        return machine

    def end(self) -> None:
        for machine in self.machines:
            machine.kill()
            machine.wait()


def hub(number: int) -> str:
    """The address of this place as machine `number` (from 1) sees it."""
    return f"10.99.{number}.1"


def main(course: Path) -> None:
    network = Network()
    python = [sys.executable, "-W", "error::ResourceWarning"]
    private = course.parent
    marker = tempfile.NamedTemporaryFile(prefix="fourbit-marker-", dir="/tmp")  # noqa: SIM115 - closed with the process
    scheduler = subprocess.Popen([*python, "-m", "dask", "scheduler", "--port", str(PORT), "--no-dashboard"], cwd=ROOT)
    network.machines.append(scheduler)  # machine 1 is this place
    try:
        looks = []
        for _ in range(2):
            number = len(network.machines) + 1
            arguments = [str(course), marker.name, hub(number), f"10.99.{5 - number}.2"]
            look = network.start([*python, "-c", LOOK, *arguments], hidden=private, stdout=subprocess.PIPE)
            looks.append(json.loads(look.communicate(timeout=120)[0]))
        workers = []
        for _ in range(2):
            address = f"tcp://{hub(len(network.machines) + 1)}:{PORT}"
            options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--death-timeout", "60"]
            workers.append(network.start([*python, "-m", "dask", "worker", address, *options], hidden=private))
        both_there(f"tcp://127.0.0.1:{PORT}")
        address = f"tcp://{hub(len(network.machines) + 1)}:{PORT}"
        coordinator = network.start(
            [*python, "-c", COORDINATOR, str(course), address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert coordinator.stdout is not None
        lines = []
        for line in coordinator.stdout:
            lines.append(line.strip())
            if len(lines) == 4:
                workers[0].kill()
        last = lines.pop() if lines else ""
        found = {
            "looks": looks,
            "settled": lines,
            "last": last,
            "code": coordinator.wait(),
            "killed": workers[0].wait(),
        }
        print(json.dumps(found), flush=True)
    finally:
        network.end()


def both_there(address: str) -> None:
    from distributed import Client

    with Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=120)


def lies_in_tmp() -> bool:
    """Whether Python, its packages or the checkout lie in /tmp, which can then not be hidden."""
    return any(Path("/tmp") in Path(place).resolve().parents for place in (sys.prefix, sys.base_prefix, ROOT))


def until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise TimeoutError


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    assert shutil.which("ip")
    main(Path(sys.argv[1]))
