"""Compiling the kernels: once, atomically, with any compiler there is; and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fourbit import kernels
from fourbit.errors import KernelError
from fourbit.kernels import build
from tests.kernel_matrices import SETS

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the compilers of these tests are shell scripts"),
    pytest.mark.skipif(not SETS, reason="no C compiler here"),
]

# Says what it is, counts the libraries it makes, and makes them by copying one that is already there.
FAKE = """#!/bin/sh
if [ "$1" = "--version" ]; then echo "fake compiler ${FAKE_VERSION:-1}"; exit 0; fi
case " $* " in *" -shared "*) echo called >> "$FAKE_CALLS";; esac
while [ "$1" != "-o" ]; do shift; done
sleep "${FAKE_SECONDS:-0}"
cp "$FAKE_LIBRARY" "$2"
"""
BROKEN = "#!/bin/sh\necho 'the sky is falling' >&2\nexit 1\n"
LOAD = "from fourbit import kernels; k = kernels.load(); kernels.load(); print(k.backend, k.isa)"


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler, an empty cache, and the file in which its calls are counted."""
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("FAKE_LIBRARY", str(build.library()))
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    monkeypatch.setenv("CC", str(script(tmp_path / "fakecc", FAKE)))
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path / "cache"))
    return calls


def python(root: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=os.environ | variables, capture_output=True, text=True, timeout=120
    )


def test_it_is_compiled_once_and_kept(fake: Path, root: Path) -> None:
    done = python(root, LOAD)
    assert done.stdout.startswith("c "), done.stderr
    assert build.library() == next((fake.parent / "cache").iterdir())
    assert fake.read_text() == "called\n"
    assert len(list((fake.parent / "cache").iterdir())) == 1


def test_another_version_of_the_compiler_compiles_anew(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1", "2"):
        monkeypatch.setenv("FAKE_VERSION", version)
        build.version.cache_clear()
        build.library()
    assert fake.read_text() == "called\n" * 2
    assert len(list((fake.parent / "cache").iterdir())) == 2


def test_other_sources_compile_anew(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library()
    shutil.copytree(build.SOURCES, tmp_path / "c")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "c")
    assert build.library() == first
    with (tmp_path / "c" / "half.h").open("a") as file:
        file.write("/* changed */\n")
    assert build.library() != first


def test_processes_that_start_together_do_not_disturb_each_other(fake: Path, root: Path) -> None:
    environment = os.environ | {"FAKE_SECONDS": "0.5"}
    command = [sys.executable, "-c", LOAD]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, cwd=root, env=environment, **pipes) for _ in range(3)]
    assert all(process.communicate(timeout=120)[0].startswith("c ") for process in started)
    left = list((fake.parent / "cache").iterdir())
    assert len(left) == 1
    assert left[0].stat().st_size == Path(os.environ["FAKE_LIBRARY"]).stat().st_size


def test_a_compiler_that_fails_leaves_nothing_and_the_next_one_is_tried(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(build, "compilers", lambda: [(str(folder / "bad"),), (str(folder / "good"),)])
    script(folder / "bad", BROKEN)
    with pytest.raises(KernelError, match="the sky is falling"):
        build.library()
    assert not list((tmp_path / "cache").glob("*"))
    script(folder / "good", FAKE)
    assert build.library().exists()


def test_without_a_compiler_numba_computes_and_says_so_once(root: Path, tmp_path: Path) -> None:
    missing = {"PATH": str(tmp_path), "CC": "", "FOURBIT_CACHE": str(tmp_path / "cache")}
    done = python(root, LOAD, **missing)
    assert done.stdout == "numba numba\n"
    assert done.stderr.count("there is no C compiler on this machine's PATH; install one (Debian:") == 1
    assert not (tmp_path / "cache").exists()


def test_the_c_backend_is_not_replaced_when_it_was_asked_for(root: Path, tmp_path: Path) -> None:
    missing = {"PATH": str(tmp_path), "CC": "", "FOURBIT_CACHE": str(tmp_path / "cache")}
    done = python(root, LOAD, **missing, FOURBIT_KERNELS="c")
    assert "KernelError: there is no C compiler" in done.stderr


def test_the_environment_chooses_backend_and_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURBIT_KERNELS", "numba")
    assert kernels.load().backend == "numba"
    monkeypatch.setenv("FOURBIT_KERNELS", "c")
    monkeypatch.setenv("FOURBIT_ISA", "scalar")
    assert kernels.load().isa == "scalar"
    monkeypatch.delenv("FOURBIT_KERNELS")
    monkeypatch.setenv("FOURBIT_ISA", "mmx")
    with pytest.raises(KernelError, match="no instruction set 'mmx' here"):
        kernels.load()


def test_a_cache_that_cannot_be_written_is_no_silent_failure(root: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    done = python(root, "from fourbit import kernels; kernels.load(1, 'c')", FOURBIT_CACHE=str(blocked))
    assert "KernelError" in done.stderr
    assert str(blocked) in done.stderr


@pytest.mark.skipif(not shutil.which("x86_64-w64-mingw32-gcc"), reason="no x86_64-w64-mingw32-gcc on the PATH")
def test_it_compiles_for_windows_without_a_warning(tmp_path: Path) -> None:
    target = tmp_path / "kernels.dll"
    options = (*build.flags("win32"), "-Wall", "-Wextra", "-Werror", "-O1")
    build.compile_library(("x86_64-w64-mingw32-gcc",), target, options)
    assert target.read_bytes()[:2] == b"MZ"
