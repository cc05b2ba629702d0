"""The C library: compiled once on this machine, kept in the cache folder under the hash of all that went into it.

The library chooses its instruction set when it runs, so a cache folder that moves to another machine stays right. A
compiler is sought as $CC, cc, gcc, clang, and as the wheel `ziglang`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fourbit.data.cache import cache_folder
from fourbit.errors import KernelError

SOURCES = Path(__file__).parent / "c"
UNITS = ("library.c", "target_avx2.c", "target_avx512.c", "tiles_avx512.c", "target_neon.c")
FLAGS = ("-O3", "-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi")
_SECONDS = 300  # zig builds its C library first, on a slow machine for minutes
_NEXT = "install one (Debian: sudo apt install gcc; macOS: xcode-select --install; anywhere: pip install ziglang)"


def flags(platform: str = sys.platform) -> tuple[str, ...]:
    """Return the compiler's flags on a platform, as `sys.platform` names it."""
    return FLAGS if platform == "win32" else (*FLAGS, "-fPIC", "-pthread")


def compilers() -> list[tuple[str, ...]]:
    """Return the commands that may be C compilers here, the preferred first."""
    named = os.environ.get("CC")
    found = [tuple(shlex.split(named))] if named else []
    found += [(path,) for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang"):
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return found


def library() -> Path:
    """Return the path of the compiled library, compiling it if need be.

    Raises:
        KernelError: when there is no compiler, none of them succeeds, or the library cannot be kept.
    """
    candidates = compilers()
    if not candidates:
        raise KernelError(f"there is no C compiler on this machine's PATH; {_NEXT}")
    failures = []
    for compiler in candidates:
        try:
            return _built(compiler)
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", None) or str(error)
            failures.append(f"{shlex.join(compiler)}: {told.strip()[-2000:]}")
    raise KernelError("no C compiler could build the kernels; " + _NEXT + "\n" + "\n".join(failures))


def _built(compiler: tuple[str, ...]) -> Path:
    target = cache_folder() / f"kernels-{_fingerprint(compiler)}{'.dll' if sys.platform == 'win32' else '.so'}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{secrets.token_hex(8)}{target.suffix}")
    try:
        compile_library(compiler, part, flags())
        os.replace(part, target)
    except PermissionError:
        if not target.exists():  # Windows: another process has the same library open
            raise
    finally:
        part.unlink(missing_ok=True)
    return target


def compile_library(compiler: Sequence[str], target: Path, options: Sequence[str]) -> None:
    """Compile the sources to `target`, all units at once.

    Raises:
        OSError, subprocess.SubprocessError: when that fails; `stderr` has the compiler's words.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(UNITS)) as pool:
        objects = [str(Path(folder) / f"{unit}.o") for unit in UNITS]
        commands = [
            [*compiler, *options, "-c", str(SOURCES / unit), "-o", object_]
            for unit, object_ in zip(UNITS, objects, strict=True)
        ]
        list(pool.map(_run, commands))
        _run([*compiler, *options, "-shared", *objects, "-o", str(target), "-lm"])


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout


def _fingerprint(compiler: tuple[str, ...]) -> str:
    digest = hashlib.sha256(_sources())
    digest.update("\0".join((*compiler, *flags(), version(compiler))).encode())
    return digest.hexdigest()[:20]


@functools.cache
def version(compiler: tuple[str, ...]) -> str:
    """Return what a compiler says about itself."""
    return _run([*compiler, "--version"])


def _sources() -> bytes:
    files = sorted(SOURCES.glob("*.[ch]"))
    return b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)
