"""Kernels in the jail, as Jupyter's own clients see them: what a notebook shows, what it cannot reach, how it ends.

The same tests run as an ordinary user and in Landlock mode: see test_provisioner_user.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("nbgrader")

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager
from nbclient import NotebookClient
from traitlets.config import Config

from autograder.books.gradebook import read_standings
from autograder.engine import EngineError
from autograder.jail import JailError, JailMode, describe, detect
from autograder.nbgrader_course import open_course
from autograder.provisioner import files, kernelspec
from autograder.provisioner.provisioner import ProvisionError
from tests.plain_course import GOOD, make_course, nbgrader, released, submit

if sys.platform != "linux":
    pytest.skip("the jail needs the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

MODE = JailMode(os.environ.get("FOURBIT_TEST_JAIL") or detect())
if MODE is JailMode.PLAIN:
    pytest.skip("no jail works here: " + " ".join(describe().details), allow_module_level=True)
PRIVATE = MODE is JailMode.NAMESPACES
CANARY = "canary-51c3e8"
SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kernelspec among the kernels of a user whose Jupyter folders are empty; a zygote that preloads little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(tmp_path_factory.mktemp("jupyter")))
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("FOURBIT_KERNEL_PRELOAD", "numpy")
        patch.setenv("FOURBIT_SECRET", CANARY)
        patch.delenv("MPLBACKEND", raising=False)  # which the stock kernel would take over
        yield kernelspec.install(user=True).folder


class Session:
    """A kernel and a client of it."""

    def __init__(self, folder: Path, own: dict[str, Any] | None = None, **settings: Any) -> None:
        config = Config(FourbitGrade={"jail": str(MODE), **settings}, JailProvisioner=own or {})
        self.manager = KernelManager(kernel_name=kernelspec.NAME, config=config, log=logging.getLogger("provisioner"))
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=SECONDS)
        except BaseException:
            self.__exit__()  # with open channels the test process would never end
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, source: str) -> str:
        """What a cell prints, with the names of its errors."""
        shown: list[str] = []

        def show(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("ename") or content.get("data", {}).get("text/plain", ""))

        self.client.execute_interactive(textwrap.dedent(source), timeout=SECONDS, output_hook=show, allow_stdin=False)
        return "".join(shown)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(tmp_path_factory.mktemp("work")) as made:
        yield made


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


CELLS = [
    "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
    "from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))\nHTML('<i>y</i>')",
    "import asyncio\nawait asyncio.sleep(0.01)\n'awaited'",
    "!echo hello\n_exit_code",
    "lines = !printf 'a\\nb\\n'\nlines",
    "%%bash\necho from bash",
    "def f():\n    raise ValueError('deep')\nf()",
    "input('name? ')",
    "import os\nos.system('echo from the system')",
    "import sys\nprint('to stderr', file=sys.stderr)\nprint('x', end='')",
    "%%writefile beside.py\nX = 5",
    "import beside\nbeside.X",
    "handle = display(1, display_id='d')\nhandle.update(2)",
    "print('a')\nfrom IPython.display import clear_output\nclear_output()\nprint('b')",
    "import threading\nthread = threading.Thread(target=lambda: print('thread'))\nthread.start()\nthread.join()",
    "%history -n 1",
    "raise SystemExit('bye')",
    "import random\nrandom.seed(0)\nrandom.random(), _ih[-1], Out[2] is not None",
    "import getpass\ngetpass.getpass()",
]
if PRIVATE:  # without a private /dev/shm there are no locks between processes
    CELLS.append(
        "import multiprocessing as mp\ndef work(x):\n    print('child', x, flush=True)\n    return x * x\n"
        "with mp.get_context('fork').Pool(1) as pool:\n    print(pool.map(work, [1, 2]))"
    )


def executed(kernel: str, folder: Path, cells: list[str]) -> list[list[Any]]:
    """The outputs of cells, cell by cell; texts of a stream together."""
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    config = Config(FourbitGrade={"jail": str(MODE)})
    client = NotebookClient(notebook, timeout=SECONDS, allow_errors=True, kernel_name=kernel, config=config,
                            resources={"metadata": {"path": str(folder)}})  # fmt: skip
    client.execute()
    found: list[list[Any]] = []
    for cell in notebook.cells:
        merged: list[Any] = []
        for output in cell.outputs:
            if merged and output.output_type == "stream" and merged[-1].get("name") == output.name:
                merged[-1].text += output.text
            else:
                merged.append(output)
        found.append(merged)
    return found


def test_a_notebook_shows_what_it_shows_in_the_stock_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it the stock kernel does not show what commands print
    ours, theirs = (executed(name, tmp_path / name, CELLS) for name in (kernelspec.NAME, "python3"))
    for source, mine, stock in zip(CELLS, ours, theirs, strict=True):
        # The stock kernel relays what other programs write from a thread, before or after the cell's value.
        order = partial(sorted, key=json.dumps) if "os.system" in source else list
        # A terminal ends lines with both characters, and the home folder in the jail is /tmp.
        text, wanted = (json.dumps(order(o)).replace("\\r\\n", "\\n").replace("~/", "/tmp/") for o in (mine, stock))
        assert text == wanted, source
    assert ours[0][0].data["image/png"]
    assert ours[7][0].ename == "StdinNotImplementedError"
    assert not list((tmp_path / kernelspec.NAME).iterdir())
    assert (tmp_path / "python3" / "beside.py").exists()


def test_a_widget_opens_its_comm(session: Session) -> None:
    opened: list[str] = []
    session.client.execute_interactive(
        "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider",
        timeout=SECONDS,
        output_hook=lambda message: opened.append(message["header"]["msg_type"]),
    )
    assert "comm_open" in opened
    assert "display_data" in opened or "execute_result" in opened


def test_the_kernel_says_what_it_is_and_offers_no_debugger(session: Session) -> None:
    session.client.kernel_info()
    reply = session.client.get_shell_msg(timeout=SECONDS)["content"]
    assert reply["implementation"] == "ipython"
    assert "debugger" not in reply["supported_features"]


def test_the_connection_is_private_and_not_tcp(session: Session) -> None:
    info = session.manager.get_connection_info()
    assert info["transport"] == "ipc"
    folder = Path(str(info["ip"])).parent
    assert folder.stat().st_mode & 0o077 == 0
    assert json.loads(Path(session.manager.connection_file).read_text())["ip"] == info["ip"]


def test_two_kernels_at_the_same_time_share_nothing(session: Session, tmp_path: Path) -> None:
    with Session(tmp_path) as other:
        session.run("name = 'first'; open('mine.txt', 'w').write(name); import os; os.environ['SEEN'] = '1'")
        assert other.run("import os\nprint('name' in globals(), os.listdir('.'), 'SEEN' in os.environ)").split() == [
            "False", "[]" if PRIVATE else "['.ipython']", "False",
        ]  # fmt: skip
        assert session.run("name") == "'first'"
        draws = [kernel.run("import numpy as np\nnp.random.rand()") for kernel in (session, other)]
        assert draws[0] != draws[1]


def test_files_beside_the_notebook_are_copied_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "submitted" / "me" / "ps1"
    (folder / "data").mkdir(parents=True)
    (folder / "neighbor" / "ps1").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text(CANARY)
    written = {"helper.py": "Y = 7", "data/x.csv": "1,2", "ps1.ipynb": CANARY, ".hidden": CANARY,
               "neighbor/ps1/ps1.ipynb": "{}", "neighbor/ps1/answers.txt": CANARY}  # fmt: skip
    for name, text in written.items():
        (folder / name).write_text(text)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(folder / "pipe")
    assert files.files_beside(folder, 10**6) == {"helper.py": b"Y = 7", "data/x.csv": b"1,2"}
    with Session(folder) as made:
        assert made.run("import helper\nprint(helper.Y, open('data/x.csv').read())") == "7 1,2\n"
        made.run("open('helper.py', 'w').write('Y = 8')")
    assert (folder / "helper.py").read_text() == "Y = 7"


def test_a_course_folder_and_a_home_show_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    course, _ = make_course(tmp_path / "plain")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "notes").mkdir(parents=True)
    assert "home directory" in files.why_not(tmp_path)
    assert "home directory" in files.why_not(tmp_path / "home")
    assert files.why_not(tmp_path / "home" / "notes") == ""
    with Session(course.root) as made:
        assert made.run("import os\nlen([name for name in os.listdir('.') if name != '.ipython'])") == "0"
    assert "is a course folder" in caplog.text


def test_too_much_beside_the_notebook_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(2 * 2**20))
    with pytest.raises(JailError, match=r"holds more than 1 MiB .*disk_bytes"):
        Session(tmp_path, disk_bytes="1M")


def spy(port: int, places: list[str]) -> str:
    """An answer that looks around before it is right."""
    return f"""
import os, socket
found = [place for place in {places!r} if os.access(os.path.expanduser(place), os.R_OK)]
found += [name for name, value in os.environ.items() if {CANARY!r} in value]
found += [name for name in os.listdir() if name.endswith(".ipynb") and "the mean of nothing" in open(name).read()]
try:
    socket.create_connection(("127.0.0.1", {port}), 5).close()
    found.append("network")
except OSError:
    pass
open("left.txt", "w").write("behind")
print("FOUND", len(found), found, os.environ.get("NBGRADER_EXECUTION"))
{GOOD["mean"]}"""


@pytest.mark.slow
def test_stock_autograde_and_validate_run_in_the_jail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same class through `nbgrader autograde` twice: in its own kernel, where the spy finds all, and in ours."""
    stock, template = make_course(tmp_path / "stock")
    config = stock.root / "nbgrader_config.py"
    config.write_text(f"{config.read_text()}\nc.FourbitGrade.jail = {str(MODE)!r}\n")
    nbgrader(stock.root, "generate_assignment", "ps1")
    ours = open_course(shutil.copytree(stock.root, tmp_path / "ours"))
    (tmp_path / "secret").write_text(CANARY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for course in (stock, ours):
            places = [str(course.root / name) for name in ("gradebook.db", "source/ps1/ps1.ipynb", "../secret",
                      "submitted/good/ps1/ps1.ipynb", "nbgrader_config.py")]  # fmt: skip
            answers = {
                "good": GOOD,
                "partly": {**GOOD, "primes": "def primes(n):\n    return [2, 3, 5, 7] if n == 10 else []"},
                "raises": {**GOOD, "population": "def population(path):\n    raise KeyError(path)"},
                "spy": {**GOOD, "mean": spy(server.getsockname()[1], places)},
            }
            for student, given in answers.items():
                submit(course, student, released(template, given))
        nbgrader(stock.root, "autograde", "ps1")
        monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "fourbit-jail")
        nbgrader(ours.root, "autograde", "ps1")
    scores = [
        {student: {name: question.auto_score for name, question in standing.questions.items()}
         for student, standing in read_standings(course, "ps1").items()} for course in (stock, ours)
    ]  # fmt: skip
    assert scores[0] == scores[1]
    assert len(scores[1]) == 4
    assert "FOUND 8 " in printed(stock.root / "autograded/spy/ps1")
    assert "FOUND 0 [] autograde" in printed(ours.root / "autograded/spy/ps1")
    assert not (ours.root / "autograded/spy/ps1/left.txt").exists()
    worked_in = Path(shutil.copytree(ours.root / "source" / "ps1", tmp_path / "worked_in"))
    writes = {**GOOD, "mean": f"open('left.txt', 'w').close()\n{GOOD['mean']}"}
    (worked_in / "ps1.ipynb").write_text(json.dumps(released(template, writes)))
    command = [sys.executable, "-m", "nbgrader", "validate", "--Validator.ignore_checksums=True", "ps1.ipynb"]
    done = subprocess.run(command, cwd=worked_in, capture_output=True, text=True, check=False)
    assert "Success" in done.stdout, done.stderr
    assert not (worked_in / "left.txt").exists()


def printed(folder: Path) -> str:
    notebook = nbformat.read(folder / "ps1.ipynb", as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))


def test_the_network_is_closed_in_every_way(session: Session) -> None:
    source = """
        import socket
        opened = []
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_VSOCK):
            try:
                socket.socket(family, socket.SOCK_STREAM).close()
                opened.append(family)
            except OSError:
                pass
        opened
    """
    assert session.run(source) == "[]"


def test_neither_the_guard_nor_the_client_can_be_signalled(session: Session) -> None:
    source = f"""
        import os
        reached = []
        for pid in (1, -1, os.getppid(), -os.getppid(), {os.getpid()}):
            for number in (0, 9):
                try:
                    os.kill(pid, number)
                    reached.append((pid, number))
                except OSError:
                    pass
        reached
    """
    assert session.run(source) == "[]"


def test_an_interrupt_reaches_the_cell_and_the_command_that_it_runs(session: Session) -> None:
    for source in ("import time\nwhile True:\n    time.sleep(0.01)", "!sleep 600"):
        message = session.client.execute(source)
        until(lambda m=message: busy_with(session, m), "the cell")
        time.sleep(0.3)
        session.manager.interrupt_kernel()
        reply = session.client.get_shell_msg(timeout=SECONDS)
        assert reply["parent_header"]["msg_id"] == message
        assert reply["content"].get("ename", "KeyboardInterrupt") == "KeyboardInterrupt"
    # For a moment after an error a kernel aborts what it is sent, as it would the cells below in "run all".
    until(lambda: session.run("'alive'") == "'alive'", "the kernel to go on")


def busy_with(session: Session, message: str) -> bool:
    while True:
        got = session.client.get_iopub_msg(timeout=SECONDS)
        if got["parent_header"].get("msg_id") == message and got["header"]["msg_type"] == "execute_input":
            return True


def test_a_loop_that_prints_is_cut_and_its_result_and_error_still_count(tmp_path: Path) -> None:
    with Session(tmp_path, output_bytes="64K") as made:
        text = made.run("for _ in range(20000):\n    print('x' * 100)\n1 / 0")
        assert 2**14 < len(text) < 2**18
        assert "the output was cut: it is more than 64 KiB" in text
        assert text.endswith("ZeroDivisionError")
        assert made.run("print('next')") == "next\n"
        assert made.run("for _ in range(20000):\n    print('x' * 100)\n42").endswith("42")


def test_memory_is_bounded_for_one_process_and_for_all_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(tmp_path, memory_bytes="256M") as made:
        assert made.run("x = bytearray(2**30)") == "MemoryError"
        assert made.run("'alive'") == "'alive'"
        made.client.execute(
            "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
            "        x = bytearray(os.urandom(1)) * (100 * 2**20)\n        time.sleep(60)\n        os._exit(0)\n"
            "time.sleep(60)"
        )
        until(lambda: not made.manager.is_alive(), "the end of the kernel")
    assert "used more than 256 MiB of memory" in caplog.text


def test_the_death_of_a_kernel_is_noticed_and_a_restart_goes_on_where_clients_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(tmp_path) as made:
        made.run("state = 1")
        made.client.execute("import os\nos.write(2, b'last words')\nos._exit(3)")
        until(lambda: not made.manager.is_alive(), "the end of the kernel")
        assert "exit code 3" in caplog.text
        before = made.manager.get_connection_info()
        made.manager.restart_kernel(now=True)
        made.client.wait_for_ready(timeout=SECONDS)
        assert made.manager.get_connection_info() == before
        assert made.run("'state' in globals()") == "False"
        made.manager.restart_kernel()
        made.client.wait_for_ready(timeout=SECONDS)
        assert made.run("1 + 1") == "2"


def test_a_kernel_that_will_not_end_is_ended(tmp_path: Path) -> None:
    with Session(tmp_path) as made:
        made.run("import signal, os\nfor number in (2, 15):\n    signal.signal(number, signal.SIG_IGN)")
        made.run("import subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)")
        inside = psutil.Process().children(recursive=True)
        sleeper = next(p for p in inside if p.cmdline()[:1] == ["sleep"])
        made.client.execute("import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException:\n"
                            "        pass")  # fmt: skip
        made.manager.shutdown_kernel()
        assert not made.manager.is_alive()
        until(lambda: not sleeper.is_running(), "the end of what the kernel had started")


def test_a_zygote_that_died_is_replaced(tmp_path: Path) -> None:
    with Session(tmp_path) as made:
        provisioner: Any = made.manager.provisioner
        os.kill(provisioner._zygote.pid, signal.SIGKILL)
        until(lambda: not made.manager.is_alive(), "the end of the kernel")
        made.manager.restart_kernel(now=True)
        made.client.wait_for_ready(timeout=SECONDS)
        assert made.run("1 + 1") == "2"


CLIENT = """
import atexit, os, sys, time
from jupyter_client.manager import KernelManager
from traitlets.config import Config
started = []
for _ in range(2):
    manager = KernelManager(kernel_name="python3-jailed", config=Config(FourbitGrade={"jail": sys.argv[1]}))
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive("import subprocess; child = subprocess.Popen(['sleep', '600'])", timeout=60)
    started.append((manager, client))
def goodbye():
    for manager, client in started:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
atexit.register(goodbye)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """A folder for sockets, whose names have to be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "interrupted", "done"])
def test_nothing_survives_the_client(tmp_path: Path, short: Path, how: signal.Signals | None) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, str(MODE)]
    with (tmp_path / "errors.txt").open("w") as errors:
        client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(short)},
        )  # fmt: skip
    assert client.stdin
    assert client.stdout
    assert client.stdout.readline() == b"ready\n", (tmp_path / "errors.txt").read_text()
    family = psutil.Process(client.pid).children(recursive=True)
    assert sum(process.name() == "sleep" for process in family) == 2
    assert list(short.glob("fourbit-kernel-*/k*"))
    if how is not None:
        client.send_signal(how)
    client.stdin.close()
    client.wait()
    client.stdout.close()
    until(lambda: not any(process.is_running() for process in family), "the end of all processes")
    until(lambda: not list(short.glob("fourbit-*")), "the removal of all folders")
    assert how is not None or (tmp_path / "errors.txt").read_text() == ""


def test_a_manager_of_many_kernels_starts_restarts_and_ends_them(tmp_path: Path) -> None:
    """What a Jupyter server does, on one event loop that goes on meanwhile."""

    async def main() -> tuple[int, int]:
        managers = AsyncMultiKernelManager(
            default_kernel_name=kernelspec.NAME, connection_dir=str(tmp_path), log=logging.getLogger("provisioner"),
            config=Config(FourbitGrade={"jail": str(MODE)}),
        )  # fmt: skip
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.005)

        turning = asyncio.create_task(turn())
        names = await asyncio.gather(*(managers.start_kernel(cwd=str(tmp_path)) for _ in range(3)))
        await managers.restart_kernel(names[0])
        alive = 0
        for name in names:
            client = managers.get_kernel(name).client()
            client.start_channels()
            await client.wait_for_ready(timeout=SECONDS)
            alive += bool(await managers.is_alive(name))
            client.stop_channels()
        turning.cancel()
        await managers.shutdown_all(now=True)
        return alive, turns

    alive, turns = asyncio.run(main())
    assert alive == 3
    assert turns > 20


def test_only_the_own_python_with_ipykernel_is_run(tmp_path: Path) -> None:
    metadata = {"kernel_provisioner": {"provisioner_name": "fourbit-jail"}}
    other = [str(tmp_path / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (tmp_path / "bin").mkdir()
    Path(other[0]).write_text("")
    Path(other[0]).chmod(0o755)
    specs = {
        "is not IPython's": KernelSpec(argv=["R", "--slave"], display_name="R", language="R", metadata=metadata),
        "the jail runs the one that starts it": KernelSpec(argv=other, display_name="Other", language="python",
                                                           metadata=metadata),
    }  # fmt: skip
    for message, spec in specs.items():
        manager = KernelManager(log=logging.getLogger("provisioner"))
        manager._kernel_spec = spec
        with pytest.raises(ProvisionError, match=message):
            manager.start_kernel()


def test_a_preload_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="preload of no_such_module failed"):
        Session(tmp_path, {"preload": ["no_such_module"]})


def test_more_folders_can_be_shown(tmp_path: Path) -> None:
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "numbers.txt").write_text("12")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # pytest keeps them from all other users, of whom the kernel is one
    with Session(tmp_path / "work", {"readable": [str(tmp_path / "data")]}) as made:
        assert made.run(f"open('{tmp_path}/data/numbers.txt').read()") == "'12'"
        assert made.run(f"open('{tmp_path}/data/numbers.txt', 'a')") in ("PermissionError", "OSError")


def test_the_kernelspec_is_written_once_and_never_over_anothers(installed: Path) -> None:
    assert kernelspec.install(user=True) == kernelspec.Installed(installed, "unchanged")
    file = installed / "kernel.json"
    ours = json.loads(file.read_text())
    file.write_text(json.dumps({**ours, "display_name": "renamed"}))
    assert kernelspec.install(user=True).action == "updated"
    file.write_text(json.dumps({**ours, "metadata": {}}))
    for change in (kernelspec.install, kernelspec.uninstall):
        with pytest.raises(kernelspec.KernelspecError, match="not Fourbit's"):
            change(user=True)
    assert json.loads(file.read_text())["metadata"] == {}
    file.write_text(json.dumps(ours))
    assert kernelspec.uninstall(user=True) == installed
    assert kernelspec.uninstall(user=True) is None
    assert kernelspec.install(user=True).action == "created"
