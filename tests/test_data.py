"""The embedded data set: splits, formats, and what happens when a file or the cache is not as it should be."""

import hashlib
import json
import lzma
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fourbit.data import EMBEDDED, ONLINE, Dataset, Split, load, to_float
from fourbit.data import cache as cache_module
from fourbit.data.assets import FOLDER, Asset, find_asset, list_assets, read_asset, record_asset
from fourbit.data.cache import cache_folder, cached_bytes, write_atomically
from fourbit.data.fashion import PARTS
from fourbit.data.idx import read_idx, write_idx
from fourbit.errors import DataError
from fourbit.recipes import fashion20k


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    return load("fashion-20k")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- the splits ---------------------------------------------------------------------------------------------------


def test_fashion_20k_has_its_documented_splits_shapes_and_dtypes(fashion: Dataset) -> None:
    assert [len(split) for split in (fashion.train, fashion.val, fashion.test)] == [18_000, 2_000, 10_000]
    for split in (fashion.train, fashion.val, fashion.test):
        assert split.x.shape[1:] == (1, 28, 28)
        assert (split.x.dtype, split.y.dtype) == (torch.uint8, torch.int64)
        assert split.y.unique().tolist() == list(range(10))
    assert len(fashion.classes) == 10


def test_the_test_split_is_the_published_one(fashion: Dataset) -> None:
    images, labels = fashion.test.x[:, 0].numpy(), fashion.test.y.to(torch.uint8).numpy()
    assert sha256(write_idx(images)) == PARTS["t10k-images-idx3-ubyte"][1]
    assert sha256(write_idx(labels)) == PARTS["t10k-labels-idx1-ubyte"][1]


def test_no_image_of_val_or_test_is_in_train(fashion: Dataset) -> None:
    train = {row.tobytes() for row in fashion.train.x.numpy()}
    assert not [row for row in fashion.val.x.numpy() if row.tobytes() in train]
    assert not [row for row in fashion.test.x.numpy() if row.tobytes() in train]


def test_each_load_is_the_callers_own(fashion: Dataset) -> None:
    first = load("fashion-20k")
    first.val.x.zero_()
    assert torch.equal(load("fashion-20k").val.x, fashion.val.x)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="fashion-20k, fashion-60k, cifar-10"):
        load("imagenet")
    assert EMBEDDED + ONLINE == ("fashion-20k", "fashion-60k", "cifar-10")


def test_a_split_can_be_cut_by_slice_index_and_mask(fashion: Dataset) -> None:
    assert torch.equal(fashion.val[10:12].x, fashion.val.x[10:12])
    assert fashion.val[torch.tensor([5, 3])].y.tolist() == fashion.val.y[[5, 3]].tolist()
    assert set(fashion.val[fashion.val.y == 7].y.tolist()) == {7}


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)),
    ],
)
def test_a_split_of_another_form_is_refused(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(DataError, match="must be"):
        Split(x, y)


def test_to_float_divides_by_255_keeps_the_layout_and_refuses_a_second_time() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(4, 4, 4, 4).contiguous(memory_format=torch.channels_last)
    converted = to_float(x)
    assert converted.dtype == torch.float32
    assert torch.equal((converted.double() * 255).round().to(torch.uint8), x)
    assert (converted.min(), converted.max()) == (0.0, 1.0)
    assert converted.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(DataError, match="converted already"):
        to_float(converted)


# -- the idx format -----------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=5, min_side=0)), st.binary(max_size=8))
def test_idx_reads_back_what_it_wrote_and_leaves_what_follows(array: np.ndarray, rest: bytes) -> None:
    data = write_idx(array)
    again, used = read_idx(data + rest)
    assert np.array_equal(again, array)
    assert used == len(data)


def test_idx_has_the_published_header() -> None:
    assert write_idx(np.zeros((3, 2), np.uint8)).hex() == "00000802" + "00000003" + "00000002" + "00" * 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x1f\x8b\x08\x00", "1f 8b 08 00"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "cut short"),
        (b"\0\0\x08\x03\0\0\0\x05", "cut short"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "not an idx file"),
    ],
)
def test_damaged_idx_data_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(data, what="labels")


# -- assets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", list_assets(), ids=lambda asset: asset.name)
def test_every_asset_is_what_the_manifest_says(asset: Asset) -> None:
    assert len(read_asset(asset.name)) == asset.bytes
    assert (FOLDER / asset.license_file).read_text(encoding="utf-8").strip()
    assert asset.recipe.startswith("python -m fourbit.recipes.")
    assert asset.license


def test_every_shipped_file_is_in_the_manifest_and_all_stay_small() -> None:
    listed = {asset.file for asset in list_assets()}
    shipped = [path for path in FOLDER.rglob("*") if path.is_file()]
    stored = {path for path in shipped if path.suffix in {".xz", ".safetensors"} or path.parent.name == "fronts"}
    assert {path.relative_to(FOLDER).as_posix() for path in stored} == listed
    assert sum(path.stat().st_size for path in shipped) < 18_000_000


@pytest.fixture
def one_asset(tmp_path: Path) -> Path:
    """A folder with the asset "small", and its manifest."""
    data = b"0123456789"
    (tmp_path / "small.bin").write_bytes(data)
    asset = Asset("small", "small.bin", len(data), sha256(data), "MIT", "LICENSE.txt", "python -m recipe", "digits")
    record_asset(asset, tmp_path)
    return tmp_path


def test_a_recorded_asset_is_read_back_and_a_new_record_replaces_the_old(one_asset: Path) -> None:
    assert read_asset("small", one_asset) == b"0123456789"
    old = find_asset("small", one_asset)
    record_asset(Asset(**{**vars(old), "about": "ten digits"}), one_asset)
    assert [asset.about for asset in list_assets(one_asset)] == ["ten digits"]


def test_a_damaged_asset_is_refused_with_both_hashes_and_the_next_step(one_asset: Path) -> None:
    (one_asset / "small.bin").write_bytes(b"012345678X")
    with pytest.raises(DataError, match=r"small\.bin is damaged.*the manifest says.*reinstall") as caught:
        read_asset("small", one_asset)
    assert sha256(b"012345678X")[:16] in str(caught.value)
    assert sha256(b"0123456789")[:16] in str(caught.value)


def test_a_cut_or_missing_asset_is_refused(one_asset: Path) -> None:
    (one_asset / "small.bin").write_bytes(b"0123")
    with pytest.raises(DataError, match="4 bytes"):
        read_asset("small", one_asset)
    (one_asset / "small.bin").unlink()
    with pytest.raises(DataError, match="No such file"):
        read_asset("small", one_asset)


def test_unknown_assets_and_unreadable_manifests_are_named(one_asset: Path) -> None:
    with pytest.raises(DataError, match=r"no asset is called 'large'; the assets are small"):
        read_asset("large", one_asset)
    for text in ("", "[]", json.dumps({"assets": [{"name": "small"}]})):
        (one_asset / "MANIFEST.json").write_text(text)
        with pytest.raises(DataError, match=r"MANIFEST\.json cannot be read"):
            list_assets(one_asset)


# -- the cache ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path / "cache"))
    return cache_folder()


class Maker:
    """Makes the same bytes again and counts how often."""

    def __init__(self, data: bytes) -> None:
        self.data, self.calls = data, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.data


def test_the_cache_makes_a_file_once_and_returns_writable_copies(own_cache: Path) -> None:
    make = Maker(b"unpacked")
    first = cached_bytes("file", sha256(b"unpacked"), make)
    first[0] = 0
    assert cached_bytes("file", sha256(b"unpacked"), make) == b"unpacked"
    assert make.calls == 1
    assert [path.name for path in own_cache.iterdir()] == ["file"]


@pytest.mark.parametrize("damaged", [b"unpackeX", b"unp", b"", b"unpacked and more"])
def test_a_damaged_cache_file_is_replaced(own_cache: Path, damaged: bytes) -> None:
    make = Maker(b"unpacked")
    write_atomically(own_cache / "file", damaged)
    assert cached_bytes("file", sha256(b"unpacked"), make) == b"unpacked"
    assert (own_cache / "file").read_bytes() == b"unpacked"
    assert make.calls == 1


def test_without_a_writable_cache_the_data_are_made_each_time(own_cache: Path) -> None:
    own_cache.write_bytes(b"a file where the folder should be")
    make = Maker(b"unpacked")
    for calls in (1, 2):
        assert cached_bytes("file", sha256(b"unpacked"), make) == b"unpacked"
        assert make.calls == calls


def test_a_write_that_fails_leaves_nothing_behind(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(own_cache / "file", b"data")
    assert list(own_cache.iterdir()) == []


def test_fashion_20k_loads_without_a_cache_and_equals_the_cached_one(own_cache: Path, fashion: Dataset) -> None:
    own_cache.write_bytes(b"a file where the folder should be")
    assert torch.equal(load("fashion-20k").test.x, fashion.test.x)


# -- the recipe ---------------------------------------------------------------------------------------------------


def test_the_recipe_keeps_the_first_images_and_packs_them_reproducibly() -> None:
    rng = np.random.default_rng(0)
    shapes = [(20_003, 2, 2), (20_003,), (7, 2, 2), (7,)]
    arrays = [rng.integers(0, 10, shape, np.uint8) for shape in shapes]
    originals = {name: write_idx(array) for name, array in zip(PARTS, arrays, strict=True)}
    data = fashion20k.unpacked(originals)
    kept, used = read_idx(data)
    assert np.array_equal(kept, arrays[0][:20_000])
    assert np.array_equal(read_idx(data[used:])[0], arrays[1][:20_000])
    assert fashion20k.compress(data) == fashion20k.compress(data)
    assert lzma.decompress(fashion20k.compress(data)) == data


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("FOURBIT_SLOW"), reason="set FOURBIT_SLOW=1 to compress fashion-20k again (20 s)"
)
def test_the_recipe_makes_the_shipped_file_byte_for_byte(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "MANIFEST.json", tmp_path)
    fashion20k.main(["--out", str(tmp_path)])
    assert (tmp_path / fashion20k.FILE).read_bytes() == (FOLDER / fashion20k.FILE).read_bytes()
    assert (tmp_path / "MANIFEST.json").read_text() == (FOLDER / "MANIFEST.json").read_text()
