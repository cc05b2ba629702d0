"""Submissions that take more than their share, or end their own process: each costs its own question at most."""

from __future__ import annotations

from tests.attacks.model import Attack
from tests.plain_course import GOOD

LOST = (0.0, 3.0, 4.0)  # the first question is lost, and nothing else


def instead(name: str, code: str, **outcome: object) -> Attack:
    """A submission whose first answer is `code`."""
    outcome.setdefault("points", LOST)
    return Attack(name, answers=GOOD | {"mean": code}, **outcome)  # type: ignore[arg-type]


TIME = [
    instead(
        "loop", "while True:\n    pass", status="timeout", limit="cell_seconds", says="ran longer than 4 s in cell"
    ),
    instead(
        "loop-in-the-function",
        "def mean(numbers):\n    while True:\n        pass",
        status="timeout",
        says="cell|running",
    ),
    instead("await-forever", "import asyncio\nawait asyncio.sleep(1e9)", status="timeout", limit="cell_seconds"),
    instead(
        "blocking-call",  # a wait that no interrupt reaches
        "import select, signal\nsignal.pthread_sigmask(signal.SIG_SETMASK, range(1, 32))\nselect.select([], [], [])",
        status="timeout",
        limit="cell_seconds",
    ),
    instead(
        "signal-handlers",
        """
        import signal, time
        for number in range(1, 32):
            try:
                signal.signal(number, lambda *_: None)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(1)
        """,
        status="timeout",
        limit="cell_seconds",
    ),
    instead(
        "swallows-everything",
        "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass",
        status="timeout",
        limit="cell_seconds",
    ),
    Attack("repr-hangs", "class R:\n    def __repr__(self):\n        while True: pass\nR()"),
    Attack("del-hangs", "class D:\n    def __del__(self):\n        while True: pass\nD(); None"),
    instead("huge-power", "x = 10**10**9", status="timeout|out of memory", says="in cell"),
]

MEMORY = [
    instead(
        "memory", "held = []\nwhile True:\n    held.append(bytearray(2**24))", status="out of memory",
        limit="memory_bytes", says=r"used more than 512 MiB of memory in cell \d",
    ),
    instead("memory-at-once", "x = bytearray(2**40)", status="out of memory", limit="memory_bytes"),
    instead(
        "memory-shared",
        """
        import mmap, time
        held = []
        for _ in range(10):
            held.append(mmap.mmap(-1, 2**27))
            held[-1].write(b"x" * 2**27)
        time.sleep(60)
        """,
        status="out of memory|error", limit="memory_bytes",
    ),
    instead(
        "memory-of-many",
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                held = bytearray(b"x") * (120 * 2**20)
                time.sleep(60)
                os._exit(0)
        time.sleep(60)
        """,
        status="out of memory", limit="memory_bytes", says="used more than 512 MiB",
    ),
    instead("recursion", "import sys\nsys.setrecursionlimit(200)\ndef f():\n    return f()\nf()", status="error", says="RecursionError"),
    instead("deep-literal", "x = " + "[" * 5000 + "]" * 5000, status="error|out of memory|crashed"),
]  # fmt: skip

DISK = [
    instead(
        "disk", "with open('big.bin', 'wb') as file:\n    while True:\n        file.write(b'x' * 2**20)",
        status="error|crashed", limit="disk_bytes", says=r"wrote more than 32 MiB .*in cell \d",
    ),
    instead(
        "disk-many-files",
        """
        for number in range(10**6):
            with open(f'{number}.bin', 'wb') as file:
                file.write(b'x' * 2**20)
        """,
        status="error|crashed", limit="disk_bytes",
    ),
    instead(
        "shared-memory-folder",
        "with open('/dev/shm/big.bin', 'wb') as file:\n    while True:\n        file.write(b'x' * 2**20)",
        status="error",
    ),
    instead(
        "inodes", "import os\nfor number in range(10**6):\n    os.mkdir(str(number))",
        status="error|crashed|timeout", says="in cell",
    ),
    instead(
        "open-files", "held = [open('/dev/null') for _ in range(10**5)]", status="error", limit="open_files",
        says="had more than 128 files open at the same time in cell",
    ),
]  # fmt: skip

PROCESSES = [
    instead(
        "threads",
        """
        import threading
        stop = threading.Event()
        for _ in range(2000):
            threading.Thread(target=stop.wait, daemon=True).start()
        """,
        status="error|timeout", says="in cell",
    ),
    instead(
        "forks",
        """
        import os, time
        for _ in range(2000):
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        """,
        status="error|timeout", says="in cell",
    ),
    instead(
        "fork-bomb",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        status="timeout", limit="cell_seconds",
    ),
    instead(
        "shell-bomb", "import subprocess\nsubprocess.run(['sh', '-c', ': () { : | : & }; :; sleep 600'])\nwhile True: pass",
        status="timeout|error",
    ),
    Attack(
        "daemons",  # would go on after the cell, write into outputs and files, and use up the process limit
        """
        import os, time
        for _ in range(20):
            if os.fork() == 0:
                os.setsid()
                while True:
                    try:
                        os.write(1, b"daemon\\n" * 1000)
                        open("noise.txt", "a").write("x")
                    except OSError:
                        pass
        """,
    ),
    Attack("thread-left-behind", "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"),
]  # fmt: skip

OUTPUT = [
    Attack(
        "prints", "for _ in range(100):\n    print('x' * 2**20)", notes=r"showed|output was cut", shows="xxxx",
    ),
    Attack("displays", "from IPython.display import HTML, display\ndisplay(HTML('z' * (20 * 2**20)))", notes="output"),
    Attack("writes-to-descriptors", "import os\nfor _ in range(100):\n    os.write(1, b'y' * 2**20)", notes="output"),
    Attack("floods-from-a-program", "!head -c 100M /dev/zero", notes="output"),
    Attack(
        "prints-while-it-is-asked",
        answers=GOOD | {
            "mean": "def mean(numbers):\n    for _ in range(50):\n        print('x' * 2**20)\n"
            "    return sum(numbers) / len(numbers) if numbers else 0.0",
        },
    ),
    instead("input", "name = input()", status="error", says="nobody is there to answer"),
    Attack("clears", "from IPython.display import clear_output\nfor _ in range(5000): clear_output()"),
]  # fmt: skip

ENDS = [
    instead("exits", "import os\nos._exit(0)", status="crashed", says="ended itself with exit code 0"),
    instead("kills-itself", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", status="crashed", says="SIGKILL"),
    instead("segfault", "import ctypes\nctypes.string_at(0)", status="crashed", says="SIGSEGV"),
    instead("aborts", "import os\nos.abort()", status="crashed", says="SIGABRT"),
    instead("stops-itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", status="timeout"),
    instead(
        "kills-its-parents",
        """
        import os, signal
        for pid in (os.getppid(), 1, -1, -os.getppid(), 0, {grader}, -{grader}):
            for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        """.replace("{grader}", "2"),
        status="crashed|error|timeout",
    ),
    instead("sys-exit", "import sys\nsys.exit(3)", status="error", says="SystemExit"),
    instead("raises-interrupt", "raise KeyboardInterrupt", status="error", says="KeyboardInterrupt"),
    Attack("exit-by-name", "exit()"),
    instead("closes-everything", "import os\nos.closerange(0, 1024)", status="crashed"),
    instead("exits-when-asked", "import os\ndef mean(numbers):\n    os._exit(0)", status="crashed|error"),
    instead("exit-handler", "import atexit, os\natexit.register(os.abort)\nos.kill(os.getpid(), 15)", status="crashed"),
    instead(
        "exec", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'])",
        status="crashed|timeout",
    ),
    Attack("ends-threads-with-exit-handler", "import atexit\natexit.register(lambda: open('late.txt', 'w').write('x'))"),
]  # fmt: skip

ATTACKS = [*TIME, *MEMORY, *DISK, *PROCESSES, *OUTPUT, *ENDS]
