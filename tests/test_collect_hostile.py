"""Hostile and broken archives: what is wrong is named and left out, the rest goes on, nothing leaves the course."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import stat
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.collect.archives import Member, list_folder, list_tar, list_zip
from autograder.collect.paths import RefusedError, safe_parts, valid_id
from autograder.collect.unpack import unpack
from autograder.nbgrader_course import NbgraderCourse, open_course
from autograder.reading.template import Template
from autograder.reading.untrusted import Caps
from tests.downloads import collected, counting, notebook, submitted, tree, zip_bytes, zipped
from tests.plain_course import make_course

Course = tuple[NbgraderCourse, Template]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return make_course(tmp_path_factory.mktemp("courses") / "plain")


@pytest.fixture
def course(original: Course, tmp_path: Path) -> NbgraderCourse:
    shutil.copytree(original[0].root, tmp_path / "course")
    return open_course(tmp_path / "course")


@pytest.fixture(scope="module")
def good(original: Course) -> bytes:
    return notebook(original[1])


def entry(name: str, mode: int = stat.S_IFREG | 0o644, **fields: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w") as made,
        warnings.catch_warnings(action="ignore"),
    ):  # of duplicates, which are meant
        for info, data in entries:
            made.writestr(info, data)
    return stream.getvalue()


def unpacked(data: bytes, name: str = "work.zip", **caps: int) -> tuple[dict[str, bytes], str]:
    found = unpack([Member((name,), lambda limit: data)], ["ps1"], "ps1", Caps(**caps))
    return found.files, "\n".join(found.notes)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../evil.txt", "leaves the folder"),
        ("a/../../evil.txt", "leaves the folder"),
        ("..\\..\\evil.txt", "leaves the folder"),
        ("/etc/evil.txt", "absolute"),
        ("\\\\server\\share\\evil.txt", "absolute"),
        ("C:\\evil.txt", "absolute"),
        ("c:evil.txt", "absolute"),
        ("ps1.ipynb:stream", "Windows"),
        ("NUL", "Windows"),
        ("com1.txt", "Windows"),
        ("a\nb", "control characters"),
        ("\x1b[31mred", "control characters"),
        ("\u202egnp.exe", "control characters"),
        ("x" * 250, "too long"),
        ("ü" * 120, "too long"),
        ("/".join("abcdefghijk"), "folders deep"),
    ],
)
def test_names_that_lead_elsewhere_are_refused_and_the_rest_is_taken(good: bytes, name: str, why: str) -> None:
    files, told = unpacked(archive((entry(name), b"evil"), (entry("ps1.ipynb"), good)))
    assert files == {"ps1.ipynb": good}
    assert why in told
    assert "\x1b" not in told


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (entry("link", stat.S_IFLNK | 0o777), "a link"),
        (entry("pipe", stat.S_IFIFO | 0o644), "a pipe or a device"),
        (entry("sda", stat.S_IFBLK | 0o644), "a pipe or a device"),
    ],
)
def test_only_files_are_taken_from_a_zip(good: bytes, info: zipfile.ZipInfo, why: str) -> None:
    files, told = unpacked(archive((info, b"/etc/passwd"), (entry("ps1.ipynb"), good)))
    assert files == {"ps1.ipynb": good}
    assert why in told


def with_bytes(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_encrypted_damaged_and_oddly_compressed_entries_are_named(good: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr(entry("ps1.ipynb"), good)
        made.writestr(entry("damaged.bin"), b"abcdefgh" * 100)
        made.writestr(entry("secret.bin"), b"x")
        made.writestr(entry("lzma.bin", compress_type=zipfile.ZIP_LZMA), b"x" * 100)
    data = stream.getvalue()
    data = data.replace(b"abcdefgh", b"abcdefgX", 1)
    central = data.index(b"secret.bin", data.index(b"PK\x01\x02"))
    data = with_bytes(data, central - 46 + 8, b"\x01\x00")
    files, told = unpacked(data)
    assert files == {"ps1.ipynb": good}
    for word in (
        "damaged.bin: left out, because it is damaged",
        "secret.bin: left out, because it is encrypted",
        "method 14",
    ):
        assert word in told


def test_bombs_cost_nothing_but_themselves(good: bytes) -> None:
    zeros = b"\0" * (20 * 2**20)
    files, told = unpacked(zip_bytes({"zeros.bin": zeros, "ps1.ipynb": good}))
    assert files == {"ps1.ipynb": good}
    assert "as zip bombs do" in told
    many = zip_bytes({f"{i}.bin": os.urandom(1000) for i in range(50)} | {"ps1.ipynb": good})
    files, told = unpacked(many, total=30_000 + len(good), file=2000)
    assert files.keys() > {"ps1.ipynb"}
    assert sum(map(len, files.values())) <= 30_000 + len(good)
    assert "too large" in told
    files, told = unpacked(many, files=5)
    assert len(files) == 4  # and a time stamp
    assert "ps1.ipynb" in files


def test_a_size_that_is_a_lie_is_not_believed(good: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("lie.bin", os.urandom(500) * 20)
        made.writestr("ps1.ipynb", good)
    data = stream.getvalue()
    at = data.index(b"PK\x01\x02") + 24
    files, told = unpacked(with_bytes(data, at, struct.pack("<L", 10)), file=5000)
    assert files == {"ps1.ipynb": good}
    assert "lie.bin: left out" in told


def test_entries_are_counted_before_they_are_opened(good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.collect.archives.MAX_ENTRIES", 20_000)
    data = archive((entry("ps1.ipynb"), good)) + b"PK\x01\x02" * 20_001
    assert unpacked(data) == ({}, "work.zip: left out, because it holds more than 20,000 entries")


def test_archives_in_archives_are_opened_to_a_depth(good: bytes) -> None:
    data = zip_bytes({"ps1.ipynb": good})
    for depth in range(5):
        files, told = unpacked(data)
        if depth < 3:
            assert files == {"ps1.ipynb": good}
        else:
            assert "3 deep" in told
            assert not any(name.endswith(".ipynb") for name in files)
        data = zip_bytes({"inner.zip": data})


def test_many_archives_share_one_budget() -> None:
    inner = archive((entry("a.bin"), b"abcdefgh" * 5000))
    files, told = unpacked(zip_bytes({f"{i}.zip": inner for i in range(100)}), total=1_000_000)
    assert len(files) < 30
    assert ".zip: left out, because it is too large" in told
    assert "more of the kind" in told


def test_an_archive_beside_a_notebook_is_data(good: bytes) -> None:
    inner = zip_bytes({"a.txt": b"1"})
    assert unpacked(zip_bytes({"ps1.ipynb": good, "data.zip": inner}))[0] == {"ps1.ipynb": good, "data.zip": inner}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"not a zip",
        b"PK\x05\x06" + b"\xff" * 18,
        os.urandom(3000),
        b"Rar!\x1a\x07\x00" + b"x" * 100,
    ],
)
def test_what_is_no_archive_is_told(course: NbgraderCourse, tmp_path: Path, good: bytes, data: bytes) -> None:
    assert "not a zip" in unpacked(data)[1]
    assert "not a tar" in unpacked(data, "work.tar.gz")[1]
    (tmp_path / "class.zip").write_bytes(data)
    other = zipped(tmp_path / "other.zip", {"ada.ipynb": good, "bob.zip": data, "cy/ps1.ipynb": good})
    found = collected(course, tmp_path / "class.zip", other)
    assert set(counting(found)) == {"ada", "cy"}
    assert {left.origin for left in found.left} == {"class.zip", "other.zip: bob.zip"}


def test_a_truncated_zip_of_the_class_loses_nobody_else(course: NbgraderCourse, tmp_path: Path, good: bytes) -> None:
    data = zip_bytes({f"s{i}/ps1.ipynb": good for i in range(9)})
    (tmp_path / "half.zip").write_bytes(data[: len(data) // 2])
    zipped(tmp_path / "whole.zip", {"ada/ps1.ipynb": good})
    found = collected(course, tmp_path / "half.zip", tmp_path / "whole.zip")
    assert set(counting(found)) == {"ada"}
    assert "not a zip that can be opened" in found.left[0].reason


def test_names_of_other_encodings_are_read(good: bytes) -> None:
    data = zip_bytes({"ps1.ipynb": good, "données.csv": b"1"})
    assert unpacked(data)[0].keys() == {"ps1.ipynb", "données.csv"}
    unmarked = zip_bytes({"ps1.ipynb": good, "d0nn33s0.csv": b"1"}).replace(
        b"d0nn33s0.csv", "données.csv".encode()[:12]
    )
    assert unpacked(unmarked)[0].keys() == {"ps1.ipynb", "données.csv"}
    decomposed = zip_bytes({"ps1.ipynb": good, "donne\u0301es.csv": b"1"})
    assert unpacked(decomposed)[0].keys() == {"ps1.ipynb", "données.csv"}


def test_duplicates_and_names_that_differ_in_case(good: bytes) -> None:
    twice = archive(
        (entry("ps1.ipynb"), b"{}"), (entry("a.txt"), b"old"), (entry("ps1.ipynb"), good), (entry("A.txt"), b"new")
    )
    files, told = unpacked(twice)
    assert files == {"ps1.ipynb": good, "A.txt": b"new"}
    assert "ps1.ipynb is there twice" in told
    assert "a.txt and A.txt differ in case only" in told
    files, _ = unpacked(archive((entry("ps1.ipynb"), good), (entry("PS1.IPYNB"), b"{}")))
    assert files == {"ps1.ipynb": good}
    files, told = unpacked(archive((entry("ps1.ipynb"), good), (entry("x"), b"1"), (entry("x/y"), b"2")))
    assert files == {"ps1.ipynb": good, "x/y": b"2"}
    assert "a folder has the same name" in told


def tar(*infos: tarfile.TarInfo, data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for info in infos:
            if info.isreg():
                info.size = len(data)
            made.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return stream.getvalue()


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_tars_are_no_way_out(good: bytes) -> None:
    data = tar(
        tar_info("ps1.ipynb"),
        tar_info("../evil"),
        tar_info("/etc/evil"),
        tar_info("link", tarfile.SYMTYPE, "/etc/passwd"),
        tar_info("hard", tarfile.LNKTYPE, "/etc/passwd"),
        tar_info("pipe", tarfile.FIFOTYPE),
        tar_info("disk", tarfile.BLKTYPE),
        data=good,
    )
    for name, packed in (("work.tar", data), ("work.tgz", gzip.compress(data))):
        files, told = unpacked(packed, name)
        assert files == {"ps1.ipynb": good}
        assert told.count("left out") == 6
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert "unfolds to more" in unpacked(bomb, "work.tar.gz", total=1_000_000)[1]
    with pytest.raises(RefusedError):
        list_tar(os.urandom(100), 1000)


def test_links_and_pipes_in_a_folder_are_not_followed(course: NbgraderCourse, tmp_path: Path, good: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    work = tmp_path / "all" / "ada"
    work.mkdir(parents=True)
    (work / "ps1.ipynb").write_bytes(good)
    (work / "a.txt").symlink_to(secret)
    (work / "dir").symlink_to(tmp_path)
    os.mkfifo(work / "pipe")
    (tmp_path / "all" / "bob.ipynb").symlink_to(secret)
    found = collected(course, tmp_path / "all")
    assert submitted(course, "ada") == {"ps1.ipynb": good}
    told = "\n".join([left.reason for left in found.left] + [note for taken in found.taken for note in taken.notes])
    assert told.count("a link") == 3
    assert "pipe" in told
    assert not any(data == b"canary" for data in tree(course.root).values())


def test_a_link_in_the_place_of_a_submission_is_not_written_through(
    course: NbgraderCourse, tmp_path: Path, good: bytes
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = course.path("submitted", "ada", "ps1")
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    (place.parent.parent / "bob").symlink_to(outside)
    found = collected(course, zipped(tmp_path / "x.zip", {f"{s}/ps1.ipynb": good for s in ("ada", "bob", "cy")}))
    assert set(counting(found)) == {"cy"}
    assert sum("is a link" in left.reason for left in found.left) == 2
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "student", ["..", ".", ".git", "a/b", "-rf", "a\nb", "x" * 130, "NUL", "ü" * 100, "a+b", " a", ""]
)
def test_ids_that_are_no_names_of_folders_are_refused(student: str) -> None:
    assert not valid_id(student)


PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "C:", "ps1.ipynb", "ps1", "ada", "NUL", "~", "-rf", ".ssh", "submitted", "\\", "a\\..\\..", "*"]
    ),
    st.text(max_size=12),
)
CLIMBS = st.builds(
    lambda up, sep, name: sep.join([".."] * up + [name]), st.integers(1, 9), st.sampled_from("/\\"), PARTS
)
NAMES = st.one_of(
    st.builds(lambda sep, parts: sep.join(parts), st.sampled_from("/\\"), st.lists(PARTS, min_size=1, max_size=5)),
    CLIMBS,
    CLIMBS.map(lambda climb: f"ada/{climb}"),
)
PLACES = re.compile(
    r"box/course/(submitted/[^/]+/ps1/.+|\.autograder/ps1/(attempts/[^/]+/\d{3}/.+|receipts\.jsonl|collect\.lock))"
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, max_size=6), inside=st.lists(NAMES, max_size=4))
def test_whatever_an_archive_holds_nothing_appears_outside_the_course(
    original: Course, tmp_path: Path, good: bytes, names: list[str], inside: list[str]
) -> None:
    box = tmp_path / "box"
    shutil.rmtree(box, ignore_errors=True)
    shutil.copytree(original[0].root, box / "course")
    inner = archive(*((entry_of(name), good) for name in inside))
    export = tmp_path / "x.zip"
    export.write_bytes(archive(*((entry_of(name), good) for name in names), (entry("ada.zip"), inner)))
    before = tree(tmp_path)
    collected(open_course(box / "course"), export)
    appeared = [name for name in tree(tmp_path) if name not in before]
    assert [name for name in appeared if not PLACES.fullmatch(name)] == []
    assert all(not path.is_symlink() for path in box.rglob("*"))
    assert {name: data for name, data in tree(tmp_path).items() if name in before} == before


def entry_of(name: str) -> zipfile.ZipInfo:
    """An entry whose stored name is `name` itself: what zipfile's writer would have mended."""
    info = entry("x")
    info.filename = name.encode("utf-8", "replace").decode() or "x"
    return info


@given(name=st.one_of(NAMES, st.text(max_size=80)))
def test_a_name_that_is_accepted_stays_below_its_folder(name: str) -> None:
    try:
        parts = safe_parts(name)
    except RefusedError:
        return
    path = os.path.normpath(os.path.join("/base", *parts))
    assert path.startswith("/base/")
    assert not {"", ".", ".."} & set(parts)


def test_listing_keeps_what_it_refuses_apart(tmp_path: Path) -> None:
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok" / "a").write_text("1")
    (tmp_path / "b").symlink_to("ok")
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\xff", os.O_CREAT))
    listing = list_folder(tmp_path)
    assert [member.name for member in listing.members] == ["ok/a"]
    assert sorted(refusal.reason for refusal in listing.refused) == [
        "it is a link",
        "its name holds control characters",
    ]
    with pytest.raises(RefusedError, match="not a zip"):
        list_zip(tmp_path / "ok" / "a")
