"""What a student uses runs on macOS and Windows too: nothing that only Linux has is imported or relied upon."""

import subprocess
import sys
import textwrap

IMPORT_ALL = """
    import builtins, importlib, pkgutil

    NOT_EVERYWHERE = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "autograder"}
    real_import = builtins.__import__

    def guarded(name, globals=None, *rest, **named):
        if (globals or {}).get("__name__", "").startswith("fourbit") and name.split(".")[0] in NOT_EVERYWHERE:
            raise ImportError(f"{globals['__name__']} imports {name}")
        return real_import(name, globals, *rest, **named)

    builtins.__import__ = guarded
    import fourbit
    for module in pkgutil.walk_packages(fourbit.__path__, "fourbit."):
        if module.name != "fourbit.__main__":
            importlib.import_module(module.name)
    print("imported")
"""

WITHOUT_ALARM = """
    import signal, time
    del signal.setitimer, signal.SIGALRM
    from fourbit.exam.call import call
    inputs = {"args": (), "kwargs": {}, "seed": 1}

    def loops():
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass

    print(call(loops, "loops", inputs, 0.3).status, call(lambda: 3, "three", inputs, 5.0).value)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_of_the_toolkit_imports_without_linux_modules():
    assert run(IMPORT_ALL) == "imported"


def test_an_endless_loop_is_stopped_without_interval_timers():
    assert run(WITHOUT_ALARM) == "timeout 3"
