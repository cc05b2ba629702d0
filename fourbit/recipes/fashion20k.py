"""Make ``fashion-20k.idx.xz``: python -m fourbit.recipes.fashion20k [--out FOLDER] [--mirror URL]

Four idx files one after the other (20,000 images, their labels, 10,000 test images, their labels), compressed by
xz with fixed settings. The originals are verified first, so the same bytes come out everywhere; the compressed
bytes could change only with a new encoder in liblzma, and then the unpacked bytes and their hash stay.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
from pathlib import Path

from fourbit.data.assets import FOLDER, Asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.data.fashion import EMBEDDED, read_originals
from fourbit.data.idx import read_idx, write_idx

FILE = "fashion-20k.idx.xz"


def unpacked(originals: dict[str, bytes]) -> bytes:
    """Return the four idx files of fashion-20k in one, from the contents of the four original files."""
    x, y, x_test, y_test = (read_idx(contents, what=name)[0] for name, contents in originals.items())
    return b"".join(write_idx(array) for array in (x[:EMBEDDED], y[:EMBEDDED], x_test, y_test))


def compress(data: bytes) -> bytes:
    """Return `data` as one xz stream; a dictionary as long as the data lets it find every repetition."""
    options = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 25}
    return lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=[options])


def main(arguments: list[str] | None = None) -> None:
    """Make the file and its entry in the manifest."""
    parser = argparse.ArgumentParser(description="Make the embedded data set fashion-20k (about a minute).")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    parser.add_argument("--mirror", help="base address to download the originals from")
    options = parser.parse_args(arguments)
    data = unpacked(read_originals(mirror=options.mirror))
    packed = compress(data)
    write_atomically(options.out / FILE, packed)
    asset = Asset(
        name="fashion-20k",
        file=FILE,
        bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        license="MIT (Expat), Copyright 2017 Zalando SE",
        license_file="LICENSE-fashion-mnist.txt",
        recipe="python -m fourbit.recipes.fashion20k",
        about="Fashion-MNIST: the first 20,000 training images and all 10,000 test images, as four idx files",
        unpacked_sha256=hashlib.sha256(data).hexdigest(),
    )
    record_asset(asset, options.out)
    print(f"{options.out / FILE}: {asset.bytes:,} bytes, SHA-256 {asset.sha256}")


if __name__ == "__main__":
    main()
