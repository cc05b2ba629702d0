"""Data sets that are downloaded: a local server cuts connections, lies about ranges and sends other files."""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from fourbit.data import Dataset, cifar, fashion, load
from fourbit.data.cifar import Archive, load_cifar10, read_archive
from fourbit.data.download import ChecksumError, Remote, fetch, mirrored
from fourbit.data.fashion import load_fashion_60k
from fourbit.data.idx import write_idx
from fourbit.errors import DataError


@dataclass
class Server:
    """A web server: `files` by path, and how it misbehaves."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # bytes to send before each of the first answers breaks off
    ranges: bool = True
    wrong_range: bool = False
    tell_length: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(data) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            said = 0 if self.wrong_range else start
            handler.send_header("Content-Range", f"bytes {said}-{len(data) - 1}/{len(data)}")
        if self.tell_length:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        count = self.cut_after.pop(0) if self.cut_after else len(data)
        handler.wfile.write(data[start : start + count])


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        state.address = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror and no Debian package, so that nothing but the test's own server is there."""
    for variable in ("FOURBIT_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    return tmp_path / "cache"


CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes


def remote(content: bytes = CONTENT, max_bytes: int = 2_000_000) -> Remote:
    def verify(path: Path) -> None:
        if path.read_bytes() != content:
            raise ChecksumError("the contents are others")

    return Remote("file.bin", (), max_bytes, verify)


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., bytes]:
    """Fetch file.bin from the server and return its bytes."""

    def run(what: Remote | None = None, paths: tuple[str, ...] = ("/file.bin",)) -> bytes:
        urls = tuple(server.address + path for path in paths)
        return fetch(what or remote(), tmp_path / "got", urls, progress=False).read_bytes()

    server.files["/file.bin"] = CONTENT
    return run


# -- downloads ----------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_then_used(get: Callable[..., bytes], server: Server, tmp_path: Path) -> None:
    assert get() == get() == CONTENT
    assert server.requests == [("/file.bin", None)]
    assert not list(tmp_path.glob("got/*.part"))


def test_a_cut_connection_is_resumed_where_it_stopped(get: Callable[..., bytes], server: Server) -> None:
    server.cut_after = [300_000, 200_000]
    assert get() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_with_an_unfinished_file(
    get: Callable[..., bytes], server: Server, tmp_path: Path
) -> None:
    server.cut_after = [400_000, 0]
    with pytest.raises(DataError, match="cut off after 400,000 of 1,024,000 bytes"):
        get()
    assert (tmp_path / "got" / "file.bin.part").stat().st_size == 400_000
    assert get() == CONTENT
    assert server.requests[-1] == ("/file.bin", "bytes=400000-")


def test_a_server_without_ranges_starts_again(get: Callable[..., bytes], server: Server) -> None:
    server.ranges, server.cut_after = False, [300_000]
    assert get() == CONTENT


def test_an_answer_with_another_range_is_not_appended(
    get: Callable[..., bytes], server: Server, tmp_path: Path
) -> None:
    server.cut_after, server.wrong_range = [300_000], True
    with pytest.raises(DataError, match="another range"):
        get()
    assert (tmp_path / "got" / "file.bin.part").read_bytes() == CONTENT[:300_000]


def test_a_server_that_does_not_tell_the_length_is_believed_only_by_checksum(
    get: Callable[..., bytes], server: Server
) -> None:
    server.tell_length = False
    assert get() == CONTENT


def test_an_unfinished_file_that_is_wrong_or_too_long_is_dropped(
    get: Callable[..., bytes], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "got").mkdir()
    for old in (b"other bytes than the file begins with", CONTENT + b"!"):
        (tmp_path / "got" / "file.bin.part").write_bytes(old)
        assert get() == CONTENT
        (tmp_path / "got" / "file.bin").unlink()


def test_a_damaged_file_in_the_cache_is_fetched_again(
    get: Callable[..., bytes], server: Server, tmp_path: Path
) -> None:
    get()
    (tmp_path / "got" / "file.bin").write_bytes(b"damaged")
    assert get() == CONTENT


def test_a_wrong_file_is_refused_deleted_and_the_next_address_tried(
    get: Callable[..., bytes], server: Server, tmp_path: Path
) -> None:
    server.files["/portal"] = b"<html>Please sign in</html>"
    with pytest.raises(ChecksumError, match="the contents are others"):
        get(paths=("/portal",))
    assert not [path for path in (tmp_path / "got").iterdir() if path.suffix != ".lock"]
    assert get(paths=("/portal", "/gone", "/file.bin")) == CONTENT


def test_more_bytes_than_allowed_are_not_stored(get: Callable[..., bytes], server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="1,024,000 bytes there, more than 1,000"):
        get(remote(max_bytes=1_000))
    server.tell_length = False
    with pytest.raises(ChecksumError, match="more than 1,000 bytes"):
        get(remote(max_bytes=1_000))
    assert not list(tmp_path.glob("got/*.part"))


def test_every_address_that_failed_is_named_with_its_reason(get: Callable[..., bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/a: the server answers 404 Not Found; .*/b: the server answers 404"):
        get(paths=("/a", "/b"))
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/file\.bin: Connection refused"):
        fetch(remote(), tmp_path, ("http://127.0.0.1:9/file.bin",), progress=False)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to.*FOURBIT_CACHE"):
        fetch(remote(), tmp_path / "file" / "folder", (), progress=False)


def test_callers_at_the_same_time_download_once(get: Callable[..., bytes], server: Server) -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 3
    assert len(server.requests) == 1


def test_a_mirror_takes_the_place_of_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Remote("file.bin", ("http://origin/file.bin",), 1, lambda path: None)
    assert mirrored(own, "set", None) == ("http://origin/file.bin",)
    monkeypatch.setenv("FOURBIT_MIRROR", "http://class/")
    assert mirrored(own, "set", None) == ("http://class/set/file.bin",)
    assert mirrored(own, "set", "http://other") == ("http://other/set/file.bin",)


def test_progress_is_drawn_on_stderr_only(get: Callable[..., bytes], capfd: pytest.CaptureFixture[str]) -> None:
    get()
    assert capfd.readouterr() == ("", "")


# -- Fashion-MNIST ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_fashion(server: Server) -> dict[str, tuple[int, str]]:
    """Four small idx.gz files on the server; returns what to expect of them."""
    rng = np.random.default_rng(0)
    shapes = [(20_100, 2, 2), (20_100,), (30, 2, 2), (30,)]
    parts = {}
    for name, shape in zip(fashion.PARTS, shapes, strict=True):
        contents = write_idx(rng.integers(0, 10, shape, np.uint8))
        server.files[f"/fashion-60k/{name}.gz"] = gzip.compress(contents)
        parts[name] = (len(contents), hashlib.sha256(contents).hexdigest())
    return parts


def test_fashion_60k_is_downloaded_and_split(server: Server, small_fashion: dict[str, tuple[int, str]]) -> None:
    full = load_fashion_60k(mirror=server.address, progress=False, parts=small_fashion)
    assert [len(split) for split in (full.train, full.val, full.test)] == [18_100, 2_000, 30]
    load_fashion_60k(mirror=server.address, progress=False, parts=small_fashion)
    assert len(server.requests) == 4


def test_fashion_60k_is_read_from_debians_folder(
    server: Server, small_fashion: dict[str, tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "debian").mkdir()
    for path, data in server.files.items():
        (tmp_path / "debian" / path.rsplit("/", 1)[1]).write_bytes(data)
    assert len(load_fashion_60k(parts=small_fashion).test) == 30
    assert server.requests == []


@pytest.mark.parametrize(
    "sent",
    [gzip.compress(b"other contents"), b"<html>not gzip</html>", gzip.compress(bytes(50_000_000))],
    ids=["another file", "a page", "a bomb"],
)
def test_other_contents_than_fashion_mnists_are_refused(
    server: Server, small_fashion: dict[str, tuple[int, str]], sent: bytes
) -> None:
    server.files["/fashion-60k/train-labels-idx1-ubyte.gz"] = sent
    with pytest.raises(ChecksumError):
        load_fashion_60k(mirror=server.address, progress=False, parts=small_fashion)


def test_a_failure_says_what_works_offline(server: Server) -> None:
    for name in ("fashion-60k", "cifar-10"):
        with pytest.raises(DataError, match=r"404.*load\(\"fashion-20k\"\) comes with Fourbit and works offline"):
            load(name, mirror=server.address, progress=False)


# -- CIFAR-10 -----------------------------------------------------------------------------------------------------


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes what Python 2 wrote into the archive: byte strings as BINSTRING, NumPy under its old name."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def pickle_batch(batch: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(batch)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(seed: int, count: int = 20) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "batch_label": f"batch {seed}",
        "labels": rng.integers(0, 10, count).tolist(),
        "data": rng.integers(0, 256, (count, 3072), np.uint8),
        "filenames": [f"image_{i}.png" for i in range(count)],
    }


NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def members() -> dict[str, bytes]:
    files = {f"cifar-10-batches-py/{name}": pickle_batch(batch(seed)) for seed, name in enumerate(NAMES)}
    files["cifar-10-batches-py/batches.meta"] = pickle_batch({"num_vis": 3072})
    files["cifar-10-batches-py/readme.html"] = b"<html></html>"
    return files


def archive(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("cifar-10-batches-py/")
        folder.type = tarfile.DIRTYPE
        for info in (folder, *special):
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def load_small(server: Server, data: bytes, **change: Any) -> Dataset:
    server.files["/cifar-10/cifar-10-python.tar.gz"] = data
    expected = Archive(**{"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "val": 10, **change})
    return load_cifar10(mirror=server.address, progress=False, archive=expected)


def read(tmp_path: Path, data: bytes) -> dict[str, Any]:
    (tmp_path / "archive.tar.gz").write_bytes(data)
    return dict(read_archive(tmp_path / "archive.tar.gz"))


def test_cifar_10_is_downloaded_resumed_and_split_in_the_archives_order(server: Server) -> None:
    server.cut_after = [100_000]
    data = load_small(server, archive(members()))
    assert [len(split) for split in (data.train, data.val, data.test)] == [90, 10, 20]
    assert server.requests[1][1] == "bytes=100000-"
    first, last, test = batch(0), batch(4), batch(5)
    # Each row holds 1024 red, 1024 green, 1024 blue values, each row by row.
    assert torch.equal(data.train.x[3], torch.from_numpy(first["data"][3]).view(3, 32, 32))
    assert torch.equal(data.val.x, torch.from_numpy(last["data"][10:]).view(10, 3, 32, 32))
    assert data.test.y.tolist() == test["labels"]
    assert data.classes[3] == "cat"


def test_cifar_10_with_another_checksum_is_refused_before_it_is_unpickled(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise AssertionError("the archive was read")

    monkeypatch.setattr(cifar, "read_archive", fail)
    with pytest.raises(ChecksumError, match="is not CIFAR-10"):
        load_small(server, archive(members()), sha256="0" * 64)
    assert not list(cache.rglob("*.gz"))


def test_the_real_archives_size_and_hash_are_the_default() -> None:
    assert Archive() == Archive("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 170_498_071, 5_000)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def test_a_pickle_that_calls_a_function_is_refused(tmp_path: Path) -> None:
    files = members()
    files["cifar-10-batches-py/data_batch_2"] = pickle.dumps(Evil(), 2)
    with pytest.raises(DataError, match=r"data_batch_2: a pickle that asks for __builtin__\.exec is refused"):
        read(tmp_path, archive(files))


@pytest.mark.parametrize("name", ["../evil", "cifar-10-batches-py/../../evil", "/etc/evil", "other/data_batch_1"])
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="outside its folder"):
        read(tmp_path, archive({**members(), name: b"evil"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="a link or device"):
        read(tmp_path, archive(members(), info))


def test_an_oversized_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = 10**9
    with gzip.open(tmp_path / "archive.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(DataError, match="1,000,000,000 bytes, over"):
        read_archive(tmp_path / "archive.tar.gz")


def test_missing_double_and_cut_batches_are_named(tmp_path: Path) -> None:
    files = members()
    del files["cifar-10-batches-py/test_batch"]
    with pytest.raises(DataError, match="test_batch missing"):
        read(tmp_path, archive(files))
    double = archive({**files, "cifar-10-batches-py/./data_batch_1": files["cifar-10-batches-py/data_batch_1"]})
    with pytest.raises(DataError, match="there twice"):
        read(tmp_path, double)
    for damaged in (double[:50_000], b"not gzip"):
        with pytest.raises(DataError, match="not a readable"):
            read(tmp_path, damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((20, 3072), np.float32)}, "must be uint8"),
        ({"data": np.zeros((20, 100), np.uint8)}, "must be uint8"),
        ({"data": [1, 2, 3]}, "must be uint8"),
        ({"labels": [0] * 19}, "as many labels"),
        ({"labels": [10] * 20}, "as many labels"),
        ({"labels": ["cat"] * 20}, "as many labels"),
    ],
)
def test_a_batch_of_another_form_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = members()
    files["cifar-10-batches-py/data_batch_3"] = pickle_batch({**batch(2), **change})
    with pytest.raises(DataError, match=message):
        read(tmp_path, archive(files))


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    files = members()
    files["cifar-10-batches-py/data_batch_3"] = b"\x80\x02}q\x01("
    with pytest.raises(DataError, match="data_batch_3 is not a batch of images"):
        read(tmp_path, archive(files))
