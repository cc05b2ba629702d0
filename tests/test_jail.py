"""What code in the jail can see and do, asked from inside by real cells; and what a machine says it can enforce."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.engine import Runner, Zygote
from autograder.jail import JailError, JailMode, Limits, describe, detect, interpreter_paths, probe

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

MODE = JailMode(os.environ.get("FOURBIT_TEST_JAIL") or detect())
if MODE is JailMode.PLAIN:
    pytest.skip("no jail works here: " + " ".join(describe().details), allow_module_level=True)

CANARY = "canary-7d1f0c"
LIMITS = Limits(disk_bytes=32 * 2**20, open_files=128)


# What the engine sets, and what the imported libraries add by themselves.
ENVIRONMENT = {
    *("HOME", "IPYTHONDIR", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "MPLBACKEND", "PATH"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS"),
    *("OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "PYTORCH_NVML_BASED_CUDA_CHECK", "TERM", "TMPDIR", "TZ", "USER"),
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYDEVD_USE_FRAME_EVAL"),
}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grader's folder with a gradebook, a neighbor's work and hidden tests, all world-readable."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("gradebook.db", "submitted/neighbor/01/01.ipynb", "source/01/01.ipynb", "exams/01/pack.safetensors"):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(CANARY)
    return folder


@pytest.fixture(scope="module")
def runner(course: Path) -> Iterator[Runner]:
    os.environ["FOURBIT_SECRET"] = CANARY
    try:
        with (
            Zygote((), ("import os, sys, socket, ctypes, errno",), mode=MODE) as zygote,
            zygote.spawn(LIMITS, {"own.txt": b"own"}) as made,
        ):
            yield made
    finally:
        del os.environ["FOURBIT_SECRET"]


def printed(runner: Runner, source: str) -> str:
    outcome = runner.run_cell(textwrap.dedent(source), checkpoint=True)
    assert outcome.status == "ok", outcome
    return "".join(output.get("text", "") for output in outcome.outputs)


def test_the_graders_files_are_out_of_sight(runner: Runner, course: Path, root: Path) -> None:
    places = [str(place) for place in course.rglob("*") if place.is_file()]
    places += [
        "/etc/shadow",
        str(Path.home() / ".ssh"),
        str(root / "pyproject.toml"),
        str(root / "solutions"),
        str(root / "build"),
        "/var/log",
        "/boot",
    ]
    source = f"""
        for place in {places!r}:
            try:
                os.listdir(place) if os.path.isdir(place) else open(place).read()
                print("READ", place)
            except OSError:
                pass
        print("own", open("own.txt").read())
    """
    assert printed(runner, source) == "own own\n"


def test_the_packages_are_there_and_the_tree_around_them_is_not(runner: Runner, root: Path) -> None:
    source = f"""
        import fourbit, autograder
        try:
            print(sorted(os.listdir({str(root)!r})))
        except OSError:
            print("closed")
    """
    shown = printed(runner, source)
    assert shown.strip() == "closed" or {"solutions", "build", "labs", "tests", "pyproject.toml"}.isdisjoint(
        eval(shown)
    )


def test_no_secret_of_the_environment_or_of_other_processes(runner: Runner) -> None:
    source = f"""
        found = [name for name, value in os.environ.items() if {CANARY!r} in value]
        try:
            pids = [*filter(str.isdigit, os.listdir("/proc"))]
        except OSError:
            pids = ["1", str(os.getppid()), "self"]
        for pid in pids:
            for name in ("environ", "cmdline", "maps"):
                try:
                    found += [pid] if {CANARY!r} in open(f"/proc/{{pid}}/{{name}}", errors="replace").read() else []
                except OSError:
                    pass
        print(found, sorted(set(os.environ) - {{"SHELL", "COLUMNS", "LINES"}}))
    """
    found, names = printed(runner, source).split("] ", 1)
    assert found == "["
    assert set(eval(names)) <= ENVIRONMENT


def test_no_network_of_any_family(runner: Runner) -> None:
    source = """
        netlink, packet, can, bluetooth, alg, vsock = 16, 17, 29, 31, 38, 40
        for family in (socket.AF_INET, socket.AF_INET6, netlink, packet, can, bluetooth, alg, vsock):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                try:
                    socket.socket(family, kind)
                    print("OPEN", family, kind)
                except OSError:
                    pass
        left, right = socket.socketpair()
        left.send(b"pair")
        print(right.recv(4))
    """
    assert printed(runner, source) == "b'pair'\n"


def test_unix_sockets_lead_nowhere_outside(runner: Runner, tmp_path: Path) -> None:
    import socket

    place = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        os.chmod(place, 0o777)
        server.listen()
        source = f"""
            for attempt in (lambda s: s.connect({place!r}), lambda s: s.connect("\\0fourbit-abstract")):
                try:
                    with socket.socket(socket.AF_UNIX) as s:
                        attempt(s)
                    print("CONNECTED")
                except OSError:
                    pass
        """
        assert printed(runner, source) == ""


def test_writing_ends_at_the_work_folder(runner: Runner, tmp_path: Path) -> None:
    outside = [
        str(tmp_path / "x"),
        "/usr/x",
        "/etc/x",
        "/x",
        "/home/x",
        "/var/tmp/x",
        "/dev/x",
        "/proc/sys/kernel/hostname",
        f"{sys.prefix}/bin/x",
    ]
    if not sys.prefix.startswith("/tmp/"):  # there, what lies around the bound folders is the submission's own /tmp
        outside.append(f"{sys.prefix}/x")
    source = f"""
        for place in {outside!r}:
            try:
                open(place, "w").write("x")
                print("WROTE", place)
            except OSError:
                pass
        import tempfile
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
        open("note.txt", "w").write("x")
        os.makedirs("a/b")
    """
    assert printed(runner, source) == ""


def test_disk_is_bounded(runner: Runner) -> None:
    source = """
        written = 0
        import signal
        try:
            with open("big.bin", "wb") as file:
                for _ in range(100):
                    written += file.write(b"x" * 2**20)
                    file.flush()
        except OSError as error:
            print(error.errno in (errno.ENOSPC, errno.EFBIG), written <= 33 * 2**20)
        os.remove("big.bin")
    """
    assert printed(runner, source) == "True True\n"


CALLS = {
    "unshare user": "libc.unshare(0x10000000)",
    "unshare net": "libc.unshare(0x40000000)",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "umount": "libc.umount2(b'/tmp', 2)",
    "chroot": "libc.chroot(b'/tmp')",
    "ptrace": "libc.ptrace(16, os.getppid(), 0, 0)",
    "clone new user": "libc.syscall({clone}, 0x10000011, 0, 0, 0, 0)",
    "clone3": "libc.syscall(435, 0, 0)",
    "io_uring": "libc.syscall(425, 1, 0)",
    "bpf": "libc.syscall({bpf}, 0, 0, 0)",
    "keyctl": "libc.syscall({keyctl}, 0, -3, 0)",
    "perf": "libc.syscall({perf}, 0, 0, 0, 0, 0)",
    "userfaultfd": "libc.syscall({userfaultfd}, 0)",
    "pidfd_send_signal": "libc.syscall(424, 3, 0, 0, 0)",
    "process_vm_readv": "libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)",
    "prlimit of the guard": "libc.prlimit(os.getppid(), 7, None, None)",
}


def test_calls_that_widen_the_world_are_refused(runner: Runner) -> None:
    from autograder.jail.libc import machine
    from autograder.jail.syscalls import numbers

    known = numbers(machine())
    known["perf"] = known["perf_event_open"]
    calls = {name: call.format(**known) for name, call in CALLS.items()}
    source = f"""
        libc = ctypes.CDLL(None, use_errno=True)
        for name, call in {calls!r}.items():
            ctypes.set_errno(0)
            if eval(call) != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
                print("ALLOWED", name, ctypes.get_errno())
    """
    assert printed(runner, source) == ""


def test_no_rights_can_be_regained(runner: Runner) -> None:
    source = """
        for regain in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                regain()
                print("REGAINED")
            except OSError:
                pass
        if PRIVATE:
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            print({int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0})
            print(status["NoNewPrivs"].strip(), status["Seccomp"].strip())
    """
    source = source.replace("PRIVATE", str(MODE is JailMode.NAMESPACES))
    assert printed(runner, source) == ("True\n1 2\n" if MODE is JailMode.NAMESPACES else "")


@pytest.mark.skipif(MODE is not JailMode.NAMESPACES, reason="only namespaces give a private process table")
def test_only_its_own_processes_are_visible(runner: Runner) -> None:
    source = """
        pids = sorted(map(int, filter(str.isdigit, os.listdir("/proc"))))
        print(pids[0], len(pids) < 12)
    """
    assert printed(runner, source) == "1 True\n"


def test_open_files_are_bounded(runner: Runner) -> None:
    source = """
        held = []
        try:
            while len(held) < 1000:
                held.append(open("own.txt"))
        except OSError as error:
            print(error.errno == errno.EMFILE)
        del held
    """
    assert printed(runner, source) == "True\n"


def test_ordinary_library_features_still_work(runner: Runner) -> None:
    source = """
        import subprocess, multiprocessing, getpass, pathlib, tempfile, sqlite3, concurrent.futures
        print(subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout.strip())
        print(getpass.getuser(), tempfile.gettempdir() == os.environ["TMPDIR"])
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            print(list(pool.map(abs, [-3])))
        sqlite3.connect("a.db").execute("create table t (x)")
    """
    if MODE is JailMode.LANDLOCK:
        source = source.replace(
            'with multiprocessing.get_context("fork").Pool(2) as pool:\n            print(pool.map(abs, [-1, -2]))',
            "print([1, 2])",
        )
    assert printed(runner, source) == "42\nstudent True\n[1, 2]\n[3]\n"


# What the grader's side says


def test_the_machine_reports_what_it_enforces() -> None:
    report = describe()
    assert report.mode is detect()
    assert (report.mode is JailMode.NAMESPACES) == (report.namespaces == "")
    assert report.details
    assert all(sentence.endswith((".", "1", "0")) for sentence in report.details)


def test_a_refusing_machine_gets_a_reason_and_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_try", lambda mode: "unshare(0x10000000) failed: Operation not permitted (errno 1)")
    report = probe.describe.__wrapped__()
    assert report.mode is JailMode.PLAIN
    assert "Only limits on time and size protect you here" in report.details[0]
    assert "Namespaces do not work here: unshare" in report.details[1]


def test_paths_never_show_the_tree_around_a_package(root: Path) -> None:
    paths = interpreter_paths(("fourbit", "autograder"))
    assert str(root) not in paths
    assert not any(
        str(root / name).startswith(path + "/") or path == str(root / name)
        for name in ("solutions", "build")
        for path in paths
    )
    with pytest.raises(JailError, match="no_such_package, which submissions should see, is not installed"):
        interpreter_paths(("no_such_package",))
    with pytest.raises(JailError, match="does not exist"):
        interpreter_paths((), ["/no/such/place"])


def test_limits_must_be_above_zero() -> None:
    with pytest.raises(JailError, match="memory_bytes"):
        Limits(memory_bytes=0)


def test_a_grader_whose_files_are_private_isolates_as_well() -> None:
    before = os.umask(0o077)
    try:
        assert probe.describe.__wrapped__().mode == describe().mode
    finally:
        os.umask(before)
