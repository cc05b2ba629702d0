"""Make the texts by Jane Austen from Debian's package: python -m fourbit.recipes.austen PACKAGE.deb [--out FOLDER]

The package is r-cran-janeaustenr 1.0.0-1 (`apt-get download r-cran-janeaustenr`), whose texts come from Project
Gutenberg and are in the public domain. It keeps each novel as an R object, a vector of lines: a block of the database
`Rdata.rdb` (four bytes of length, then zlib), found by the index `Rdata.rdx`, in R's XDR serialization.

Lines are joined to paragraphs, underscores of emphasis go, headings ("CHAPTER 1") and title pages are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

from fourbit.data.assets import FOLDER, Asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.llm.texts import NOVELS

RECIPE = "python -m fourbit.recipes.austen"
DATA = "usr/lib/R/site-library/janeaustenr/data"
_PAIR = re.compile(rb"\x00\x00\x00\x0d\x00\x00\x00\x02(.{8})", re.DOTALL)  # an integer vector of two: offset, length
_HEADING = re.compile(r"(chapter|volume|finis|the end)\b.*|.*\bby jane austen\b.*|\(\d{4}.*\)", re.IGNORECASE)


def extract(package: Path) -> dict[str, list[str]]:
    """Return {R's name of a novel: its lines}."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        data = (Path(folder) / DATA / "Rdata.rdb").read_bytes()
        index = zlib.decompress((Path(folder) / DATA / "Rdata.rdx").read_bytes(), wbits=31)
    names = [name.decode() for name in re.findall(rb"[a-z]{4,}", index[: index.index(b"variables")])][-6:]
    places = [struct.unpack(">2i", pair) for pair in _PAIR.findall(index)][: len(names)]
    blocks = (zlib.decompress(data[at + 4 : at + size]) for at, size in places)
    return {name: _strings(block) for name, block in zip(names, blocks, strict=True)}


def _strings(block: bytes) -> list[str]:
    """Read an R character vector in XDR format, version 3: a header with the encoding's name, then the strings."""
    (encoding,) = struct.unpack_from(">i", block, 14)
    at = 18 + encoding
    _, count = struct.unpack_from(">2i", block, at)
    at, lines = at + 8, []
    for _ in range(count):
        _, size = struct.unpack_from(">2i", block, at)
        lines.append(block[at + 8 : at + 8 + size].decode("utf-8"))
        at += 8 + size
    return lines


def prose(lines: list[str]) -> str:
    """Return the paragraphs, one to a line, an empty line between two."""
    start = next(i for i, line in enumerate(lines) if re.fullmatch(r"chapter (1|i)\.?", line.strip(), re.IGNORECASE))
    end = next((i for i, line in enumerate(lines) if "A NOTE ON THE TEXT" in line), len(lines))
    paragraphs = " ".join(line.strip() or "\n" for line in lines[start:end]).split("\n")
    found = (re.sub(r"\s+", " ", paragraph).strip().replace("_", "") for paragraph in paragraphs)
    return "\n\n".join(paragraph for paragraph in found if paragraph and not _HEADING.fullmatch(paragraph)) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Write the compressed texts and their entries in the manifest."""
    parser = argparse.ArgumentParser(description="Make the texts by Jane Austen from Debian's r-cran-janeaustenr.")
    parser.add_argument("package", type=Path, help="the .deb file")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    novels = extract(chosen.package)
    for name, (source, title) in NOVELS.items():
        text = prose(novels[source]).encode()
        packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
        file = f"texts/{name}.txt.xz"
        (chosen.out / file).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(chosen.out / file, packed)
        digests = hashlib.sha256(packed).hexdigest(), hashlib.sha256(text).hexdigest()
        about = f"{title} by Jane Austen, {len(text):,} bytes of text"
        license = ("public domain", "LICENSE-austen.txt")
        record_asset(Asset(name, file, len(packed), digests[0], *license, RECIPE, about, digests[1]), chosen.out)
        print(f"{file}: {len(packed):,} bytes")


if __name__ == "__main__":
    main()
