"""A cache of unpacked and downloaded files in the user's cache folder, or in the folder that FOURBIT_CACHE names.

Everything here can be deleted at any time. Files appear by an atomic rename, so a reader never sees half a file,
and are compared with their hash whenever they are read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import platformdirs

VARIABLE = "FOURBIT_CACHE"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the cache folder, which need not exist: $FOURBIT_CACHE, or ``fourbit`` where this system keeps caches."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("fourbit")


def write_atomically(path: Path, data: bytes | bytearray) -> None:
    """Write `data` to `path`, whose folder is made if needed; other processes see all of it or nothing.

    Raises:
        OSError: if the folder cannot be written to; no temporary file stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cached_bytes(file: str, sha256: str, make: Callable[[], bytes]) -> bytearray:
    """Return the bytes whose hash is `sha256`: from the cache, or else from `make`, which are then kept.

    A damaged cache file is replaced; where the cache cannot be read or written, `make` is called each time and
    the reason is logged at level INFO. The bytes are the caller's own and writable.
    """
    path = cache_folder() / file
    try:
        data = bytearray(path.stat().st_size)
        with path.open("rb") as stored:
            complete = stored.readinto(data) == len(data)
        if complete and hashlib.sha256(data).hexdigest() == sha256:
            return data
        _log.info("%s is damaged and will be made again", path)
    except OSError:
        pass
    fresh = make()
    try:
        write_atomically(path, fresh)
    except OSError as error:
        _log.info("%s cannot be kept (%s); it will be unpacked again next time", path, error)
    return bytearray(fresh)
