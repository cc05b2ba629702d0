"""What else lies in a submission's folder: files that want to be imported, run, followed or put in another's place."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path

from tests.attacks.model import Attack, cheat

# Runs when it is imported, by whom it should not be.
_PRINTS = b"import os, sys\nprint('canary-shadow', os.getcwd())\nsys.modules[__name__].close = lambda *a: True\n"
_STARTS = b"import os\nos.environ['SHADOWED'] = 'yes'\nopen('shadowed.txt', 'w').write('x')\n"


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo canary-shadow; touch /tmp/canary-pickle",)


def _links(folder: Path, course: Path) -> None:
    (folder / "book.txt").symlink_to(course / "gradebook.db")
    (folder / "passwords").symlink_to("/etc/shadow")
    (folder / "disk").symlink_to("/")
    (folder / "loop").symlink_to(folder)
    (folder / "source").symlink_to(course / "source")


def _no_files(folder: Path, course: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.ipynb")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may be 100 characters long
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)


def _odd_names(folder: Path, course: Path) -> None:
    for name in (
        "a\nb.txt",
        "-rf",
        "\x1b[31mred.txt",
        "\u202etxt.exe",
        "=cmd|' -c calc'!A1",
        "x" * 250,
        " ",
        "%(s)s{0}",
    ):
        (folder / name).write_text("x")
    (folder / os.fsdecode(b"\xff\xfe.txt")).write_text("x")


def _many(folder: Path, course: Path) -> None:
    (folder / "many").mkdir()
    for number in range(3000):
        (folder / "many" / f"{number}.txt").write_text("x")


def _large(folder: Path, course: Path) -> None:
    with open(folder / "large.bin", "wb") as file:
        file.truncate(2**40)  # a hole: takes no room here


def _deep(folder: Path, course: Path) -> None:
    place = folder.joinpath(*["d"] * 100)
    place.mkdir(parents=True)
    (place / "file.txt").write_text("x")


def _shut(folder: Path, course: Path) -> None:
    (folder / "shut").mkdir()
    (folder / "shut" / "in.txt").write_text("x")
    (folder / "shut").chmod(0)


ATTACKS = [
    Attack("links", "for name in ('book.txt', 'passwords', 'disk', 'loop', 'source'):\n    print(__import__('os').path.lexists(name))", prepare=_links, notes="a link", shows="False"),
    Attack("pipes-and-sockets", prepare=_no_files, notes="pipe, device or socket"),
    Attack("odd-file-names", prepare=_odd_names),
    Attack("many-files", prepare=_many, notes="only the first 500 files"),
    Attack("a-terabyte", prepare=_large, notes="too large"),
    Attack("deep-folders", prepare=_deep, notes="deep"),
    Attack("a-shut-folder", prepare=_shut),
    cheat("own-helper", files={"helpers.py": b"def close(a, b):\n    return True\n"}, notes="helpers.py"),
    cheat("helper-package", files={"helpers/__init__.py": b"def close(a, b):\n    return True\n"}),
    cheat("helper-in-machine-code", files={"helpers.cpython-311-x86_64-linux-gnu.so": b"\x7fELF", "helpers.pyc": b"x"}),
    cheat("own-data", files={"cities.csv": b"name,population\nx,-1\n"}, answers={"population": "def population(path):\n    return sum(int(r['population']) for r in csv.DictReader(open(path))) or 1215542"}, points=(0, 3, 0), notes="cities.csv"),
    Attack("shadows-the-standard-library", files={f"{name}.py": _PRINTS for name in ("csv", "math", "random", "re", "json", "struct", "typing", "asyncio")}),
    Attack("shadows-the-tools", files={f"{name}.py": _PRINTS for name in ("ipykernel_launcher", "ipykernel", "IPython", "traitlets", "nbgrader", "autograder", "fourbit", "tests")}),
    Attack("shadows-packages", files={f"{name}/__init__.py": _PRINTS for name in ("numpy", "torch", "autograder", "fourbit", "IPython", "encodings")}),
    Attack(
        "starts-with-python",
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import os; print(os.environ.get(\"SHADOWED\"))'], capture_output=True, text=True).stdout)",
        files={"sitecustomize.py": _STARTS, "usercustomize.py": _STARTS, "x.pth": b"import os; os.environ['SHADOWED'] = 'pth'", "pyvenv.cfg": b"home = .", ".pythonrc.py": _STARTS, "conftest.py": _STARTS},
        shows="None",
    ),
    Attack(
        "starts-with-ipython",
        "import os\nprint('SHADOWED' in os.environ)",
        files={".ipython/profile_default/startup/00.py": _STARTS, "profile_default/startup/00.py": _STARTS, "ipython_config.py": _STARTS, ".jupyter/jupyter_config.py": _STARTS, "nbgrader_config.py": _STARTS},
        shows="False",
    ),
    Attack(
        "preloads-a-library",
        "import os, subprocess\nos.environ['LD_PRELOAD'] = os.path.abspath('evil.so')\nos.environ['LD_LIBRARY_PATH'] = os.getcwd()\nprint(subprocess.run(['id'], capture_output=True, text=True))",
        files={"evil.so": b"\x7fELF" + bytes(100), "libc.so.6": b"\x7fELF", "libm.so.6": b"x"},
    ),
    Attack("pickles-as-data", "import pickle\nprint(pickle.load(open('data.pkl', 'rb')))", files={"data.pkl": pickle.dumps(_Runs()), "model.pt": pickle.dumps(_Runs())}, shows="0"),
    cheat("own-verdicts", files={"autograded/ps1.ipynb": b"{}", ".autograder/ps1/journal.jsonl": b'{"student": "own-verdicts", "points": 9}', "feedback/ps1.html": b"<h1>9 / 9</h1>", "gradebook.db": b"SQLite format 3", "timestamp.txt": b"1999-01-01 00:00:00 UTC"}),
    Attack("forged-timestamp", files={"timestamp.txt": b"\x00\xff" * 1000 + b"never"}),
    Attack("two-notebooks", files={"other.ipynb": b"{}", "ps1 (1).ipynb": b"not JSON", "ps1.ipynb.txt": b"{}"}),
]  # fmt: skip
