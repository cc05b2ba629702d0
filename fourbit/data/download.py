"""Downloads that resume, show their progress, and are refused when the checksum is not the expected one.

A cut transfer goes on where it stopped (HTTP Range, RFC 9110 section 14), within one call and across calls: the
unfinished file stays in the cache with the suffix ``.part``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fourbit.errors import DataError

MIRROR_VARIABLE = "FOURBIT_MIRROR"
TIMEOUT = 30.0
_CHUNK = 1 << 18
_MOST_TRIES = 100
_FAILURES = (OSError, http.client.HTTPException)  # URLError, timeouts and cut connections are among these


class ChecksumError(DataError):
    """A file whose contents are not the expected ones; nothing in it has been used."""


@dataclass(frozen=True)
class Remote:
    """A file to download: its name, where it is (tried in order), and no more than how many bytes to accept.

    `verify` raises :class:`ChecksumError` when the finished file is not the right one.
    """

    file: str
    urls: tuple[str, ...]
    max_bytes: int
    verify: Callable[[Path], object]


def mirrored(remote: Remote, dataset: str, mirror: str | None) -> tuple[str, ...]:
    """Return the addresses to try: ``<mirror>/<dataset>/<file>`` alone if there is a mirror, else the file's own.

    The mirror is the argument, or the environment variable FOURBIT_MIRROR, for instance a class's own web server.
    """
    base = mirror or os.environ.get(MIRROR_VARIABLE)
    return (f"{base.rstrip('/')}/{dataset}/{remote.file}",) if base else remote.urls


def fetch(remote: Remote, folder: Path, urls: tuple[str, ...], *, progress: bool = True) -> Path:
    """Return the path of `remote` in `folder`, downloading it from the first of `urls` that has it.

    A file that is already there is verified and used. Only one process downloads a file at a time.

    Raises:
        ChecksumError: if no address has the right file and one answers with a wrong one; that is deleted.
        DataError: if no address can be reached or `folder` cannot be written to, with each reason.
    """
    target = folder / remote.file
    with _locked(target):
        if target.exists():
            with contextlib.suppress(ChecksumError):
                remote.verify(target)
                return target
            target.unlink()
        kind, reasons = DataError, []
        for url in urls:
            try:
                return _fetch_from(url, remote, target, progress)
            except ChecksumError as error:
                kind = ChecksumError
                reasons.append(f"{url}: {error}")
            except _FAILURES as error:
                reasons.append(f"{url}: {_reason(error)}")
    raise kind(f"{remote.file} could not be downloaded ({'; '.join(reasons)})")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"{target.parent} cannot be written to ({error.strerror}); set FOURBIT_CACHE to a folder of yours"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    inner = getattr(error, "reason", None) or error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _fetch_from(url: str, remote: Remote, target: Path, progress: bool) -> Path:
    part = target.with_name(target.name + ".part")
    resumed = _size(part) > 0
    try:
        _transfer(url, remote, part, progress)
        remote.verify(part)
    except ChecksumError:
        part.unlink(missing_ok=True)
        if not resumed:
            raise
        # The beginning may come from another address or an older run: once more, from nothing.
        return _fetch_from(url, remote, target, progress)
    os.replace(part, target)
    return target


def _transfer(url: str, remote: Remote, part: Path, progress: bool) -> None:
    """Fill `part` from `url`, resuming after cut connections as long as each try brings new bytes."""
    for _ in range(_MOST_TRIES):
        before = _size(part)
        try:
            return _append(url, remote, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not before:
                raise
            part.unlink()  # the rest was asked for of a file that has no more: start again
        except _FAILURES:
            if _size(part) <= before:
                raise
    raise http.client.HTTPException(f"the connection broke {_MOST_TRIES} times")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, remote: Remote, part: Path, progress: bool) -> None:
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "fourbit", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        start, total = _extent(response, start)
        if max(start, total or 0) > remote.max_bytes:
            raise ChecksumError(f"it has {total or start:,} bytes there, more than {remote.max_bytes:,}")
        with part.open("r+b" if start else "wb") as file, _bar(remote.file, start, total, progress) as advance:
            file.seek(start)
            while chunk := response.read(_CHUNK):
                if file.tell() + len(chunk) > remote.max_bytes:
                    raise ChecksumError(f"more than {remote.max_bytes:,} bytes came from there")
                file.write(chunk)
                advance(len(chunk))
            file.truncate()
            if total is not None and file.tell() < total:
                raise http.client.HTTPException(f"cut off after {file.tell():,} of {total:,} bytes")


def _extent(response: http.client.HTTPResponse, start: int) -> tuple[int, int | None]:
    """Return where the answer's bytes begin and how long the whole file is, if the server says."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == 206 and match and int(match[1]) == start:
        return start, None if match[2] == "*" else int(match[2])
    if response.status == 206:
        raise http.client.HTTPException("the server answered with another range than the one asked for")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


@contextlib.contextmanager
def _bar(name: str, start: int, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(f"Downloading {name}", total=total, completed=start)
        yield lambda count: bar.advance(task, count)
