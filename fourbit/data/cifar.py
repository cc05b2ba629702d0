"""CIFAR-10 (Krizhevsky 2009, "Learning multiple layers of features from tiny images"): 60,000 color images 32x32.

The set has no license that allows copies, so it is downloaded from its author (163 MiB). The archive holds pickles.
They are read only after the archive's SHA-256 is found right, only from plain files whose names are known, nothing
is extracted to disk, and the unpickler can build NumPy arrays and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from fourbit.data.cache import cache_folder
from fourbit.data.download import ChecksumError, Remote, fetch, mirrored
from fourbit.data.splits import Dataset, Split
from fourbit.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BYTES = 170_498_071

_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = "test_batch"
_MEMBER_LIMIT = 64 * 2**20  # the largest real member has 31 MB
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Archive:
    """Which archive to accept: its SHA-256, its size, and how many of its training images, the last, are `val`."""

    sha256: str = SHA256
    bytes: int = BYTES
    val: int = 5_000


ARCHIVE = Archive()


def load_cifar10(*, mirror: str | None = None, progress: bool = True, archive: Archive = ARCHIVE) -> Dataset:
    """Return CIFAR-10, downloaded once: 45,000 `train` images, the last 5,000 training images as `val`, 10,000 `test`.

    Raises:
        ChecksumError: if the downloaded archive is not `archive`; nothing in it has been read.
        DataError: if it cannot be downloaded or is not in CIFAR-10's format.
    """

    def verify(path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != archive.sha256:
            raise ChecksumError(
                f"{path} is not CIFAR-10: SHA-256 {found[:16]}..., "
                f"expected {archive.sha256[:16]}...; use another mirror"
            )

    remote = Remote("cifar-10-python.tar.gz", (URL,), archive.bytes, verify)
    path = fetch(remote, cache_folder() / "cifar-10", mirrored(remote, "cifar-10", mirror), progress=progress)
    batches = read_archive(path)
    train = _join([batches[name] for name in _TRAIN])
    if not 0 < archive.val < len(train):
        raise DataError(f"{path} holds {len(train)} training images, too few to keep {archive.val} for validation")
    cut = len(train) - archive.val
    return Dataset("cifar-10", train[:cut], train[cut:], batches[_TEST], CLASSES)


def read_archive(path: Path) -> dict[str, Split]:
    """Return the six batches of the tar archive at `path`, by name. Call it only on a file that has been verified.

    Raises:
        DataError: for links, devices, names outside the archive's one folder, members that are too large, missing
            or twice there, pickles of anything but arrays, and arrays of another form.
    """
    batches: dict[str, Split] = {}
    try:
        with gzip.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                name = _member_name(member)
                if name not in (*_TRAIN, _TEST):
                    continue
                if name in batches:
                    raise DataError(f"{path}: {member.name} is there twice")
                file = tar.extractfile(member)
                assert file is not None  # a plain file, as _member_name saw
                batches[name] = _read_batch(file.read(), f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a readable tar.gz archive ({error}); delete it and try again") from None
    missing = [name for name in (*_TRAIN, _TEST) if name not in batches]
    if missing:
        raise DataError(f"{path} is not CIFAR-10's Python version: {', '.join(missing)} missing")
    return batches


def _member_name(member: tarfile.TarInfo) -> str:
    """Return the member's name inside the archive's folder, "" for the folder itself; refuse all that is unusual."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != (_FOLDER,) or len(path.parts) > 2:
        raise DataError(f"the archive holds {member.name!r}, outside its folder {_FOLDER}; it is not used")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"the archive holds {member.name!r}, a link or device; it is not used")
    if member.size > _MEMBER_LIMIT:
        raise DataError(f"the archive holds {member.name!r} of {member.size:,} bytes, over {_MEMBER_LIMIT:,}")
    return "" if member.isdir() else path.name


def _read_batch(data: bytes, what: str) -> Split:
    try:
        batch: Any = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        x, y = batch[b"data"], np.asarray(batch[b"labels"])
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{what} is not a batch of images ({type(error).__name__}: {error})") from None
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != _PIXELS:
        raise DataError(f"{what}: images must be uint8 (N, {_PIXELS})")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu" or len(y) == 0 or y.min() < 0 or y.max() >= len(CLASSES):
        raise DataError(f"{what}: {len(x)} images need as many labels from 0 to {len(CLASSES) - 1}")
    images = torch.from_numpy(np.array(x, order="C").reshape(-1, 3, 32, 32))
    return Split(images, torch.from_numpy(y.astype(np.int64)))


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dicts, lists, numbers, byte strings and NumPy arrays; any other class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if re.fullmatch(r"numpy\._?core\.multiarray\._reconstruct", full):
            return np.zeros(0).__reduce__()[0]  # the function itself, wherever this NumPy keeps it
        if full == "numpy.ndarray":
            return np.ndarray
        if full == "numpy.dtype":
            return np.dtype
        raise DataError(f"a pickle that asks for {full} is refused; CIFAR-10 holds arrays and lists only")


def _join(batches: list[Split]) -> Split:
    return Split(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]))
