"""Honest answers, and below the first one code that wants out of the jail or secrets in. It must get neither, and the
answers keep their points."""

from __future__ import annotations

from autograder.jail.libc import machine
from autograder.jail.syscalls import numbers
from tests.attacks.model import Attack

_NUMBERS = numbers(machine())

_HELP = """
import os, sys, socket, ctypes, errno, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, *arguments):
    try:
        print("GOT", what(*arguments))
    except BaseException as error:
        pass
def read(path):
    return open(path, "rb").read(10**6).decode("utf-8", "replace")
"""


def reach(name: str, code: str, **more: object) -> Attack:
    more.setdefault("shows", f"tried {name}")
    return Attack(name, f"{_HELP}{code}\nprint('tried {name}')", **more)  # type: ignore[arg-type]


def call(name: str, expression: str) -> Attack:
    """A system call that must be refused: -1, or the attack says so."""
    return reach(
        name,
        f"""
ctypes.set_errno(0)
value = {expression}
print("ESCAPED" if value != -1 else "refused", value, ctypes.get_errno())
""",
    )


READS = [
    reach("reads-secrets", "for path in {canaries}:\n    attempt(read, path)"),
    reach("reads-environment", "print(dict(os.environ))\nattempt(read, '/proc/self/environ')"),
    reach(
        "reads-other-processes",
        """
try:
    pids = [*filter(str.isdigit, os.listdir("/proc"))]
except OSError:
    pids = ["1", str(os.getppid()), {grader}]
for pid in pids:
    for name in ("environ", "cmdline", "maps", "cwd/gradebook.db", "root/etc/shadow"):
        attempt(read, f"/proc/{pid}/{name}")
""",
    ),
    reach(
        "walks-the-disk",
        """
end = time.monotonic() + 1.5
for top in ("/home", "/root", "/tmp", "/dev/shm", "/var", "/srv", "/mnt", "/run", "/etc", "/", "../../../.."):
    for folder, _, names in os.walk(top):
        if time.monotonic() > end or folder.startswith(("/usr", "/proc", "/lib", "/sys")):
            break
        for name in names:
            path = os.path.join(folder, name)
            attempt(read, path) if os.path.isfile(path) and os.path.getsize(path) < 10**5 and "canary" in read(path) else 0
""",
    ),
    reach(
        "reads-passwords",
        "for path in ('/etc/shadow', '/root/.bash_history', '/etc/sudoers'):\n    attempt(read, path)",
    ),
    reach(
        "reads-memory-of-parents",
        """
for pid in (os.getppid(), 1, {grader}):
    attempt(read, f"/proc/{pid}/mem")
    attempt(read, f"/proc/{pid}/environ")
    print(libc.ptrace(16, pid, 0, 0), libc.process_vm_readv(pid, 0, 0, 0, 0, 0))
""",
    ),
    reach(
        "reads-descriptors",
        """
for number in range(3, 256):
    try:
        os.lseek(number, 0, 0)
        print("GOT", os.read(number, 10**5))
    except OSError:
        pass
""",
    ),
    reach("lists-the-course", "for path in {canaries}:\n    attempt(os.listdir, os.path.dirname(path))"),
]

WRITES = [
    reach(
        "writes-outside",
        """
for path in [*{canaries}, {outside} + "/written", "/usr/written", "/etc/written", "/var/tmp/written", "/written"]:
    try:
        open(path, "a").write("canary-written")
        print("WROTE", path)
    except OSError:
        pass
""",
    ),
    reach("deletes-others-work", "for path in {canaries}:\n    attempt(os.remove, path)\n    attempt(os.rename, path, path + '.x')"),
    reach(
        "links-out-of-its-folder",
        """
for number, path in enumerate({canaries}):
    os.symlink(path, f"link{number}")
    attempt(read, f"link{number}")
    attempt(os.link, path, f"hard{number}")
    attempt(lambda: open(f"link{number}", "a").write("canary-written"))
os.symlink({outside}, "helpers")
os.symlink("/", "root")
""",
    ),
    reach(
        "swaps-links-in-a-race",
        """
import threading
stop = time.monotonic() + 0.5
def swap():
    while time.monotonic() < stop:
        for target in ({outside}, "."):
            try:
                os.symlink(target, "racing.new")
                os.replace("racing.new", "racing")
            except OSError:
                pass
thread = threading.Thread(target=swap)
thread.start()
while time.monotonic() < stop:
    try:
        open("racing/raced", "w").write("canary-written")
    except OSError:
        pass
thread.join()
""",
    ),
    reach("makes-devices", "attempt(os.mknod, 'disk', 0o60666, os.makedev(8, 0))\nattempt(os.mknod, 'mem', 0o20666, os.makedev(1, 1))\nos.mkfifo('pipe')"),
    reach("leaves-a-note", "for place in ('/tmp', '/dev/shm', '/var/tmp'):\n    attempt(lambda: open(place + '/shared-note', 'w').write('canary-note'))"),
    reach("reads-the-note", "for place in ('/tmp', '/dev/shm', '/var/tmp'):\n    attempt(read, place + '/shared-note')"),
    reach("odd-names", r"open('a\nb\x1b[31m\u202egnp', 'w').write('x')" + "\nos.makedirs('/'.join(['d'] * 200))"),
]  # fmt: skip

NETWORK = [
    reach(
        "tcp",
        """
for family, place in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET6, ("::1", {port}))):
    attempt(lambda: socket.socket(family).connect(place))
attempt(socket.getaddrinfo, "example.com", 80)
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"canary", ("127.0.0.1", {port})))
attempt(lambda: socket.create_server(("127.0.0.1", 0)))
""",
    ),
    reach(
        "unix-sockets",
        """
for path in ({abstract}, {socket_path}, "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"):
    attempt(lambda: socket.socket(socket.AF_UNIX).connect(path))
    attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"canary", path))
""",
    ),
    reach("vsock", "for cid in (0, 1, 2, 3):\n    attempt(lambda: socket.socket(40, socket.SOCK_STREAM).connect((cid, {vsock_port} or 22)))"),
    reach("other-families", "for family in (16, 17, 29, 31, 38, 40):\n    for kind in (1, 2, 3):\n        attempt(socket.socket, family, kind)"),
]  # fmt: skip

KERNEL = [
    call("mount", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    call("chroot", "libc.chroot(b'/tmp')"),
    call("unshare", "libc.unshare(0x10000000)"),
    call("unshare-network", "libc.unshare(0x40000000)"),
    call("setns", "libc.setns(0, 0)"),
    call("clone-namespace", f"libc.syscall({_NUMBERS['clone']}, 0x10000011, 0, 0, 0, 0)"),
    call("bpf", f"libc.syscall({_NUMBERS['bpf']}, 0, 0, 0)"),
    call("keyctl", f"libc.syscall({_NUMBERS['keyctl']}, 0, -3, 0)"),
    call("io-uring", "libc.syscall(425, 1, 0)"),
    call("userfaultfd", f"libc.syscall({_NUMBERS['userfaultfd']}, 0)"),
    call("memfd", "libc.memfd_create(b'x', 0)"),
    call("perf", f"libc.syscall({_NUMBERS['perf_event_open']}, 0, 0, 0, 0, 0)"),
    call("pidfd-getfd", "libc.syscall(438, 3, 0, 0)"),
    call("open-by-handle", f"libc.syscall({_NUMBERS['open_by_handle_at']}, 0, 0, 0)"),
    call("quotactl", f"libc.syscall({_NUMBERS['quotactl']}, 0, 0, 0, 0)"),
    call("swapon", "libc.swapon(b'/dev/zero', 0)"),
    call("sethostname", "libc.sethostname(b'x', 1)"),
    call("reboot", "libc.reboot(0)"),
    call("old-numbers", f"libc.syscall(0x40000000 + {_NUMBERS['socket']}, 2, 1, 0)"),  # another way to a TCP socket
    call("raises-its-limits", "libc.prlimit(os.getppid(), 7, (ctypes.c_ulong * 2)(9999, 9999), None)"),
    call("regains-rights", "libc.setresuid(0, 0, 0)"),
    reach("lifts-its-limits", "import resource\nfor kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_NPROC):\n    attempt(resource.setrlimit, kind, (2**31, 2**31))"),
    reach("types-into-the-terminal", "import fcntl\nfor number in (0, 1, 2):\n    attempt(fcntl.ioctl, number, 0x5412, b'x')\nattempt(read, '/dev/tty')"),
    reach("runs-set-uid-programs", "import subprocess\nfor program in ('su', 'sudo', 'mount', 'passwd'):\n    attempt(subprocess.run, [program, '-c', 'id'])"),
    reach("runs-code-from-memory", "import mmap\npage = mmap.mmap(-1, 4096, prot=7)\npage.write(b'\\xc3')\nattempt(ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page))))"),
]  # fmt: skip

ATTACKS = [*READS, *WRITES, *NETWORK, *KERNEL]
