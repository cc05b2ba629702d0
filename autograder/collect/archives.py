"""Lists of files that have not been read yet: of a folder, of a zip, of a tar.

Nothing is unpacked to disk here, no link is followed, and no entry is read further than it may be. One broken or
hostile entry is named and left out; the rest goes on.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from autograder.collect.paths import RefusedError, is_junk, safe_parts, shown
from autograder.reading.untrusted import read_file

MAX_ENTRIES = 20_000  # of one student's archive; a class's may hold ten times as many
_MAX_RATIO = 500  # a notebook of nothing but repeated output reaches 200
_BOMB = 2**20  # bytes; below this a high ratio harms nobody
_ENTRY_MARK = b"PK\x01\x02"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can ask for gigabytes of memory to be opened
_BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, tarfile.TarError, EOFError, OSError,
    NotImplementedError, RuntimeError, ValueError, OverflowError, IndexError, KeyError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file that can be read.

    Attributes:
        parts: its path, already safe.
        seen: the time its folder or archive gives it, which anybody can have set; it can only order attempts.
        changed, owner: when the kernel last changed a file of somebody else's, and whose; None and "" for one's own.
        read: called with the most bytes that are wanted; raises RefusedError.
    """

    parts: tuple[str, ...]
    read: Callable[[int], bytes]
    seen: datetime | None = None
    changed: datetime | None = None
    owner: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.parts)

    def below(self, depth: int = 1) -> Member:
        """Return the same file as seen from inside its first `depth` folders."""
        return replace(self, parts=self.parts[depth:])


@dataclass(frozen=True)
class Refusal:
    """What was left out, and why ("because ...")."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.name)}: left out, because {self.reason}"


@dataclass(frozen=True)
class Listing:
    """The files of a folder or archive, in its order, and what was refused."""

    members: tuple[Member, ...]
    refused: tuple[Refusal, ...] = ()


def is_archive(name: str) -> bool:
    """Whether a file called `name` is an archive that can be opened here."""
    return name.casefold().endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def list_folder(folder: Path) -> Listing:
    """List a folder without following a link inside it (`folder` itself may be one)."""
    members: list[Member] = []
    refused: list[Refusal] = []
    stack: list[tuple[Path, tuple[str, ...]]] = [(Path(os.path.realpath(folder)), ())]
    while stack:
        where, above = stack.pop()
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            refused.append(Refusal("/".join(above) or str(where), f"it cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            name = "/".join((*above, entry.name))
            if is_junk((entry.name,)):
                continue
            try:
                parts = safe_parts(name)
                if entry.is_symlink():
                    raise RefusedError("it is a link")
            except RefusedError as error:
                refused.append(Refusal(name, str(error)))
                continue
            if entry.is_dir(follow_symlinks=False):
                stack.append((Path(entry.path), parts))
            else:
                members.append(_on_disk(parts, Path(entry.path)))
    return Listing(tuple(sorted(members, key=lambda member: member.parts)), tuple(refused))


def list_file(path: Path) -> Member:
    """Return a single file as a member under its own name."""
    return _on_disk((path.name,), path)


def list_zip(source: Path | bytes, entries: int = MAX_ENTRIES) -> tuple[Listing, zipfile.ZipFile]:
    """List a zip; the archive has to stay open while its members are read.

    Raises:
        RefusedError: when it is not a zip, or made to exhaust whoever opens it.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
        # Counted before it is opened: opening builds an object for each entry.
        if _count(stream, _ENTRY_MARK, entries) > entries:
            raise RefusedError(f"it holds more than {entries:,} entries")
    try:
        archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except _BROKEN as error:
        raise RefusedError(f"it is not a zip that can be opened ({shown(str(error))})") from None
    members: list[Member] = []
    refused: list[Refusal] = []
    for info in archive.infolist():
        name = _entry_name(info)
        try:
            parts = safe_parts(name)
            if info.is_dir() or is_junk(parts):
                continue
            _check_entry(info)
        except RefusedError as error:
            refused.append(Refusal(name, str(error)))
        else:
            members.append(Member(parts, _zip_reader(archive, info), _moment(info.date_time)))
    return Listing(tuple(members), tuple(refused)), archive


def list_tar(data: bytes, limit: int) -> tuple[Listing, int]:
    """List a tar, compressed by gzip or not, and say how many bytes it unfolds to: at most `limit`.

    Raises:
        RefusedError: when it is not a tar, or unfolds to more.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(limit + 1)
        if len(data) > limit:
            raise RefusedError(f"it unfolds to more than {limit:,} bytes")
        with closing(tarfile.open(fileobj=io.BytesIO(data), mode="r:")) as archive:
            return _tar_members(archive), len(data)
    except _BROKEN as error:
        raise RefusedError(f"it is not a tar that can be opened ({shown(str(error))})") from None


def _tar_members(archive: tarfile.TarFile) -> Listing:
    members: list[Member] = []
    refused: list[Refusal] = []
    for count, info in enumerate(archive):
        if count >= MAX_ENTRIES:
            raise RefusedError(f"it holds more than {MAX_ENTRIES:,} entries")
        try:
            parts = safe_parts(info.name)
            if info.isdir() or is_junk(parts):
                continue
            if not info.isreg() or info.issparse():  # a sparse file unfolds to any size
                raise RefusedError("it is a link, a pipe, a device or a sparse file")
            stream = archive.extractfile(info)
            data = stream.read() if stream is not None else b""
        except RefusedError as error:
            refused.append(Refusal(info.name, str(error)))
        else:
            seen = datetime.fromtimestamp(info.mtime, UTC) if 0 < info.mtime < 2**32 else None
            members.append(Member(parts, _held(data), seen))
    return Listing(tuple(members), tuple(refused))


def _on_disk(parts: tuple[str, ...], path: Path) -> Member:
    def read(limit: int) -> bytes:
        data, problem = read_file(path, limit)
        if data is None:
            raise RefusedError(f"it is {problem}")
        return data

    try:
        info = path.lstat()
    except OSError:
        return Member(parts, read)
    seen = datetime.fromtimestamp(info.st_mtime, UTC)
    if not hasattr(os, "geteuid") or info.st_uid == os.geteuid():
        return Member(parts, read, seen)
    return Member(parts, read, seen, datetime.fromtimestamp(info.st_ctime, UTC), _user(info.st_uid))


def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"


def _held(data: bytes) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        if len(data) > limit:
            raise RefusedError(f"it is too large ({len(data):,} bytes; {max(limit, 0):,} were left)")
        return data

    return read


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        if info.file_size > limit:
            raise RefusedError(f"it is too large ({info.file_size:,} bytes; {max(limit, 0):,} were left)")
        try:
            with archive.open(info) as stream:
                data = stream.read(limit + 1)
        except _BROKEN as error:
            raise RefusedError(f"it is damaged ({shown(str(error))})") from None
        if len(data) > limit:
            raise RefusedError("it is larger than its archive says")
        return data

    return read


def _check_entry(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RefusedError("it is a link" if kind == stat.S_IFLNK else "it is a pipe or a device")
    if info.flag_bits & 0x1:
        raise RefusedError("it is encrypted; ask for an archive without a password")
    if info.compress_type not in _METHODS:
        raise RefusedError(f"it is compressed by method {info.compress_type}; ask for an ordinary zip")
    if info.file_size > _BOMB and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
        raise RefusedError(f"it would grow from {info.compress_size:,} to {info.file_size:,} bytes, as zip bombs do")


def _entry_name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry; many programs write UTF-8 without saying so, which then reads as cp437."""
    name = info.orig_filename  # `filename` is cut at a null byte
    if info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _moment(date: tuple[int, int, int, int, int, int]) -> datetime | None:
    try:
        return datetime(*date, tzinfo=UTC) if date[0] > 1980 else None
    except ValueError:
        return None


def _count(stream: BinaryIO, mark: bytes, enough: int) -> int:
    """Return how often `mark` occurs, counting no further than just above `enough`."""
    count, tail = 0, b""
    for block in _blocks(stream):
        count += (tail + block).count(mark)
        tail = block[-len(mark) + 1 :]
        if count > enough:
            break
    return count


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(2**20):
        yield block
