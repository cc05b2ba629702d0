"""The files that come with Fourbit, each with its size, SHA-256, license and recipe in ``assets/MANIFEST.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fourbit.data.cache import write_atomically
from fourbit.errors import DataError

FOLDER = Path(__file__).resolve().parent.parent / "assets"
MANIFEST = "MANIFEST.json"
_REPAIR = "reinstall Fourbit, or run `git checkout -- fourbit/assets` in a clone"


@dataclass(frozen=True)
class Asset:
    """One shipped file: `file` in the assets folder has `bytes` bytes and the hash `sha256`.

    `license_file` stands beside it; `recipe` is the command that makes it. `unpacked_sha256` is the hash of the
    contents of a compressed file, None for others.
    """

    name: str
    file: str
    bytes: int
    sha256: str
    license: str
    license_file: str
    recipe: str
    about: str
    unpacked_sha256: str | None = None


def list_assets(folder: Path = FOLDER) -> tuple[Asset, ...]:
    """Return every asset of the manifest in `folder`.

    Raises:
        DataError: if the manifest is missing or unreadable.
    """
    path = folder / MANIFEST
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["assets"]
        return tuple(Asset(**entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); {_REPAIR}") from None


def find_asset(name: str, folder: Path = FOLDER) -> Asset:
    """Return the manifest's entry for `name`.

    Raises:
        DataError: if there is none.
    """
    assets = {asset.name: asset for asset in list_assets(folder)}
    if name not in assets:
        raise DataError(f"no asset is called {name!r}; the assets are {', '.join(sorted(assets))}")
    return assets[name]


def read_asset(name: str, folder: Path = FOLDER) -> bytes:
    """Return the contents of the asset `name`, after comparing them with the manifest.

    Raises:
        DataError: if the file is missing, or its size or SHA-256 is not what the manifest says.
    """
    asset = find_asset(name, folder)
    path = folder / asset.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_REPAIR}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != asset.sha256:
        raise DataError(
            f"{path} is damaged: {len(data):,} bytes with SHA-256 {found[:16]}..., "
            f"where the manifest says {asset.bytes:,} bytes with {asset.sha256[:16]}...; {_REPAIR}"
        )
    return data


def record_asset(asset: Asset, folder: Path = FOLDER) -> None:
    """Put `asset` into the manifest in `folder`, in place of an older entry of that name; used by recipes."""
    known = {entry.name: entry for entry in list_assets(folder)} if (folder / MANIFEST).exists() else {}
    known[asset.name] = asset
    entries = [{key: value for key, value in vars(known[name]).items() if value is not None} for name in sorted(known)]
    text = json.dumps({"assets": entries}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
