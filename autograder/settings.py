"""The settings of `fourbit grade` in a course's nbgrader_config.py, and limits as people write them.

    c.FourbitGrade.memory_bytes = "2G"
    c.FourbitGrade.cell_seconds = 30

A flag on the command line wins over the course's setting, which wins over nbgrader's time for a cell
(``c.Execute.timeout``, where the course sets it), which wins over the default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import traitlets
from traitlets.config import Config, Configurable

from autograder.jail import JailMode, Limits
from autograder.results import GradingError, plain

if TYPE_CHECKING:
    from autograder.nbgrader_course import NbgraderCourse

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def size(value: object) -> int:
    """The bytes that a number, or a text such as "512M" or "1.5 GiB" (powers of 1024), stands for.

    Raises:
        ValueError: when it stands for none.
    """
    found = _SIZE.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if found is None or (number := int(float(found[1]) * _UNITS[found[2].upper()])) < 1:
        raise ValueError("a size above 0 in bytes, or with K, M or G (powers of 1024), such as 512M")
    return number


def seconds(value: object) -> float:
    """A time above 0 in seconds. Raises ValueError for anything else."""
    try:
        number = float(value) if not isinstance(value, bool) else 0.0  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < math.inf:
        raise ValueError("a number of seconds above 0, such as 30")
    return number


def count(value: object) -> int:
    """A whole number above 0. Raises ValueError for anything else."""
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number above 0, such as 64")
    return int(text)


def _whole_seconds(value: object) -> int:
    return math.ceil(seconds(value))


# How a value of each limit is read.
READERS = {
    "cell_seconds": seconds,
    "notebook_seconds": seconds,
    "cpu_seconds": _whole_seconds,
    "memory_bytes": size,
    "processes": count,
    "open_files": count,
    "disk_bytes": size,
    "output_bytes": size,
}


class _Read(traitlets.TraitType[Any, Any]):
    """A trait whose value is read like the flag of the same name."""

    def validate(self, obj: Any, value: Any) -> Any:
        assert self.name is not None
        try:
            return READERS[self.name](value)
        except ValueError as allowed:
            raise traitlets.TraitError(f"c.FourbitGrade.{self.name} is {plain(value, 80)!r}; give {allowed}") from None


_DEFAULTS = Limits()


class FourbitGrade(Configurable):
    """What `fourbit grade` reads from nbgrader_config.py. Sizes take K, M and G; times are in seconds."""

    cell_seconds = _Read(
        _DEFAULTS.cell_seconds, help="Wall time of one cell; unset: c.Execute.timeout, where the course sets that."
    ).tag(config=True)
    notebook_seconds = _Read(_DEFAULTS.notebook_seconds, help="Wall time of one notebook.").tag(config=True)
    cpu_seconds = _Read(_DEFAULTS.cpu_seconds, help="CPU time of one process.").tag(config=True)
    memory_bytes = _Read(_DEFAULTS.memory_bytes, help="Memory of a submission's processes together.").tag(config=True)
    processes = _Read(_DEFAULTS.processes, help="Processes and threads at the same time.").tag(config=True)
    open_files = _Read(_DEFAULTS.open_files, help="Open files of one process.").tag(config=True)
    disk_bytes = _Read(_DEFAULTS.disk_bytes, help="Bytes written to the work folder and /tmp.").tag(config=True)
    output_bytes = _Read(_DEFAULTS.output_bytes, help="Output kept of one cell.").tag(config=True)

    jail = traitlets.Enum(
        ["", *map(str, JailMode)],
        default_value="",
        help="The isolation; empty for the strongest that this machine enforces.",
    ).tag(config=True)
    jobs = traitlets.Int(0, min=0, help="Submissions graded at the same time; 0 for what cores and memory allow.").tag(
        config=True
    )
    cluster = traitlets.Unicode(
        "", help="Address of a Dask scheduler, tcp://HOST:PORT, or its file; empty for this machine."
    ).tag(config=True)
    timestamps = traitlets.Enum(
        ["nbgrader", "receipts"],
        default_value="nbgrader",
        help="Where the time of a submission comes from when it has no receipt: its timestamp.txt, or nowhere.",
    ).tag(config=True)
    cluster_patience = traitlets.Float(300.0, min=0.0, help="Seconds to wait while a cluster has no worker.").tag(
        config=True
    )
    database_patience = traitlets.Float(
        300.0, min=0.0, help="Seconds to wait for a gradebook whose server has gone away."
    ).tag(config=True)

    @property
    def limits(self) -> Limits:
        """The caps for one submission."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})


def settings_of(course: NbgraderCourse) -> FourbitGrade:
    """The settings that a course's ``nbgrader_config.py`` makes.

    Raises:
        GradingError: for a setting that does not exist or has a value that is not allowed; the message names it.
    """
    place = course.root / "nbgrader_config.py"
    section = dict(course.config.get("FourbitGrade", {}))
    known = sorted(FourbitGrade.class_trait_names(config=True))
    for name in section:
        if name not in known:
            close = get_close_matches(name, known, 1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise GradingError(f"{place}: c.FourbitGrade has no setting {plain(name, 80)}; {hint}")
    try:
        settings = FourbitGrade(config=Config({"FourbitGrade": section}))
        if "cell_seconds" not in section:
            _take_nbgraders_time(settings, course.config, section)
    except traitlets.TraitError as error:
        raise GradingError(f"{place}: {plain(error, 500)}") from None
    return settings


def _take_nbgraders_time(settings: FourbitGrade, config: Config, given: Iterable[str]) -> None:
    """Give a cell the time that the course gives it under nbgrader, if it says so.

    A limit of the whole run that is shorter, and that the course does not give itself, would cut a cell short: it is
    raised as well. Without any time (None, 0 or less, as nbclient reads them) only the notebook's limit is left.
    """
    from nbgrader.preprocessors import Execute

    if not any("timeout" in config.get(name, {}) for name in Execute.section_names()):
        return
    timeout = Execute(config=config).timeout
    if timeout is None or timeout <= 0:
        settings.cell_seconds = settings.notebook_seconds
        return
    settings.cell_seconds = timeout
    for name in {"notebook_seconds", "cpu_seconds"}.difference(given):
        setattr(settings, name, max(getattr(settings, name), timeout))


def with_flags(limits: Limits, flags: Iterable[str]) -> Limits:
    """Return `limits` with what `flags` say, each NAME=VALUE as in ``memory=2G`` or ``cell-seconds=30``.

    Raises:
        GradingError: for a name that is no limit or a value that is not allowed.
    """
    names = {flag_name(name): name for name in asdict(limits)}
    changes: dict[str, Any] = {}
    for flag in flags:
        said, equals, value = flag.partition("=")
        name = said.strip().replace("_", "-").removesuffix("-bytes")
        if name not in names or not equals:
            close = get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close and equals else f"give NAME=VALUE with {', '.join(names)}"
            raise GradingError(f"--limit {plain(flag, 80)} names no limit; {hint}")
        try:
            changes[names[name]] = READERS[names[name]](value)
        except ValueError as allowed:
            raise GradingError(f"--limit {name} is {plain(value, 80)!r}; give {allowed}") from None
    return replace(limits, **changes)


def flag_name(limit: str) -> str:
    """What a limit is called on the command line: ``memory_bytes`` is ``memory``."""
    return limit.removesuffix("_bytes").replace("_", "-")
