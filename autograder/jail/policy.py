"""What a jailed process may see and use: the three modes, the readable paths, the clean environment."""

from __future__ import annotations

import enum
import importlib.util
import os
import site
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autograder.jail.libc import JailError
from autograder.jail.limits import Limits


class JailMode(enum.StrEnum):
    """How strong the walls are, strongest first.

    ``namespaces``: a private file system, process table and network, plus Landlock where the kernel has it, plus the
    system call filter. ``landlock``: the machine's file system by allow-list, plus the filter. ``plain``: limits on
    time and size only; the submission runs with the rights of the grader, so it must be asked for by name.
    """

    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    PLAIN = "plain"


@dataclass(frozen=True)
class JailPolicy:
    """One jail. ``work`` is the folder in which the submission works: in ``namespaces`` mode its path inside the jail;
    otherwise it is made afresh. ``readable`` are absolute paths (see :func:`interpreter_paths`)."""

    mode: JailMode
    work: str
    readable: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SYSTEM_FILES = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/nsswitch.conf", "/etc/os-release", "/etc/mime.types",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

# A prefix may be a course folder in which somebody made a virtual environment, so only these of it are shown.
_PARTS_OF_A_PREFIX = ("bin", "lib", "lib64", "include", "share", "ssl", "pyvenv.cfg")


def interpreter_paths(packages: Iterable[str], extra: Iterable[str | os.PathLike[str]] = ()) -> tuple[str, ...]:
    """Absolute paths that running Python and importing ``packages`` needs, and ``extra``; sorted, none inside another.

    Packages of a source tree (an editable install) are shown as the package folder alone, never the tree around it.
    Raises :class:`JailError` when a package cannot be found or an extra path does not exist.
    """
    found: list[Path] = []
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        found += [Path(prefix) / part for part in _PARTS_OF_A_PREFIX]
    found += [Path(entry) for entry in package_roots(()) if Path(entry).exists()]
    for name in packages:
        found += _folders_of(name)
    for path in extra:
        if not Path(path).exists():
            raise JailError(f"The path {path}, which the jail should show, does not exist.")
        found.append(Path(path).absolute())
    shown = {str(path) for path in found if path.exists()} | {str(path.resolve()) for path in found if path.exists()}
    return _outermost(shown)


def package_roots(packages: Iterable[str]) -> tuple[str, ...]:
    """Entries that ``sys.path`` of a fresh isolated interpreter lacks: the user's own site folder, the packages'
    parents."""
    roots = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    roots = [root for root in roots if root in sys.path]
    for name in packages:
        roots += [str(folder.parent) for folder in _folders_of(name)]
    return tuple(dict.fromkeys(roots))


def _folders_of(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise JailError(f"The package {package}, which submissions should see, is not installed here.")
    if spec.submodule_search_locations:
        return [Path(place).absolute() for place in spec.submodule_search_locations]
    return [Path(spec.origin).absolute()] if spec.origin else []


def _outermost(paths: set[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for path in sorted(paths):
        inside = (*kept, *SYSTEM_FOLDERS)
        if path != "/" and not any(path == other or path.startswith(other + "/") for other in inside):
            kept.append(path)
    return tuple(kept)


# Of the grader's environment nothing else reaches a submission.
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")


def clean_environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of every jailed process: an allow-list of ``own``, one thread, no prompts, no byte code."""
    kept = {name: own[name] for name in _KEPT if name in own}
    one_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
    )
    return {
        "LANG": "C.UTF-8",
        **kept,
        **one_thread,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": "/tmp",
        "USER": "student",
        "LOGNAME": "student",
        "TERM": "dumb",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
