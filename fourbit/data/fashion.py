"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747): 70,000 gray images 28x28 of ten kinds of clothing.

Two sizes share their splits. ``fashion-20k`` comes with Fourbit: of the first 20,000 training images the first
18,000 are `train` and the last 2,000 are `val`; all 10,000 test images are `test`. ``fashion-60k`` is the full set:
the same `val` and `test`, and the other 58,000 training images as `train`, of which the first 18,000 are those of
fashion-20k. So a network trained on either has never seen either's `val`.
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fourbit.data.assets import find_asset, read_asset
from fourbit.data.cache import cache_folder, cached_bytes
from fourbit.data.download import ChecksumError, Remote, fetch, mirrored
from fourbit.data.idx import read_idx
from fourbit.data.splits import Dataset, Split
from fourbit.errors import DataError

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
EMBEDDED = 20_000
VAL = slice(18_000, 20_000)

# Size and SHA-256 of each decompressed file; distributors compress them again, so the .gz files differ.
PARTS: dict[str, tuple[int, str]] = {
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist

Images = npt.NDArray[np.uint8]


def load_fashion_20k() -> Dataset:
    """Return fashion-20k from the file that comes with Fourbit; unpacked once (2 s), then kept in the cache."""
    asset = find_asset("fashion-20k")
    assert asset.unpacked_sha256 is not None
    data = memoryview(cached_bytes("fashion-20k.idx", asset.unpacked_sha256, _unpack))
    arrays = []
    for _ in range(4):
        array, used = read_idx(data, what="fashion-20k")
        arrays.append(array)
        data = data[used:]
    x, y, x_test, y_test = arrays
    train, val = _split(x[: VAL.start], y[: VAL.start]), _split(x[VAL], y[VAL])
    return Dataset("fashion-20k", train, val, _split(x_test, y_test), CLASSES)


def load_fashion_60k(
    *, mirror: str | None = None, progress: bool = True, parts: dict[str, tuple[int, str]] = PARTS
) -> Dataset:
    """Return fashion-60k from Debian's package dataset-fashion-mnist if it is installed, else by download (31 MB).

    Raises:
        ChecksumError: if a file's contents are not those of `parts` (name -> decompressed bytes, SHA-256).
        DataError: if a file can be neither found nor downloaded.
    """
    x, y, x_test, y_test = (
        read_idx(memoryview(bytearray(contents)), what=name)[0]
        for name, contents in read_originals(mirror=mirror, progress=progress, parts=parts).items()
    )
    rest = np.ones(len(y), dtype=bool)
    rest[VAL] = False
    train, val = _split(x[rest], y[rest]), _split(x[VAL], y[VAL])
    return Dataset("fashion-60k", train, val, _split(x_test, y_test), CLASSES)


def read_originals(
    *, mirror: str | None = None, progress: bool = True, parts: dict[str, tuple[int, str]] = PARTS
) -> dict[str, bytes]:
    """Return the verified contents of the four idx files, by name, in the order of :data:`PARTS`."""
    contents = {}
    for name, (size, sha256) in parts.items():
        path = DEBIAN / f"{name}.gz"
        if mirror is not None or not path.exists():
            verify = partial(decompress, size=size, sha256=sha256)
            remote = Remote(f"{name}.gz", tuple(f"{base}/{name}.gz" for base in ADDRESSES), size + 4096, verify)
            urls = mirrored(remote, "fashion-60k", mirror)
            path = fetch(remote, cache_folder() / "fashion-60k", urls, progress=progress)
        contents[name] = decompress(path, size=size, sha256=sha256)
    return contents


def decompress(path: Path, *, size: int, sha256: str) -> bytes:
    """Return the contents of the gzip file `path`, reading no more than `size` bytes out of it.

    Raises:
        ChecksumError: if it is not gzip, or the contents do not have this size and hash.
    """
    try:
        inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        data = inflate.decompress(path.read_bytes(), size + 1)
    except zlib.error as error:
        raise ChecksumError(f"{path} is not a gzip file ({error}); delete it and try again") from None
    found = hashlib.sha256(data).hexdigest()
    if len(data) != size or found != sha256:
        raise ChecksumError(
            f"{path} does not hold the expected data: SHA-256 {found[:16]}..., expected {sha256[:16]}...; "
            "delete it, or use another mirror"
        )
    return data


def _unpack() -> bytes:
    asset = find_asset("fashion-20k")
    data = lzma.decompress(read_asset("fashion-20k"))
    if hashlib.sha256(data).hexdigest() != asset.unpacked_sha256:
        raise DataError("fashion-20k unpacks to other data than the manifest says; reinstall Fourbit")
    return data


def _split(x: Images, y: Images) -> Split:
    return Split(torch.from_numpy(x)[:, None], torch.from_numpy(y).to(torch.int64))
