"""Folders and archives: the same dataset wherever it lies, and names that may not be used."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from pngmodel.errors import UserError
from tasks.datasets.formats.archives import opened, read_whole
from tasks.datasets.ingest import ingest
from tasks.datasets.source import Source

_NOBODY = 65534


def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("end", ["zip", "tar"])
@pytest.mark.parametrize("prefix", ["", "./", "SIDD_Small_sRGB_Only/", "./deep/er/"])
def test_an_archive_is_the_folder(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable, end: str, prefix: str
) -> None:
    folder = ingested(sidd_small, "sidd-small")
    archive = ingested(packed(sidd_small, tmp_path / f"set.{end}", prefix), "sidd-small")
    assert list(archive.rows) == list(folder.rows)
    for name, row in archive.rows.items():
        location = {"noisy", "clean"}
        assert {k: v for k, v in row.items() if k not in location} == {
            k: v for k, v in folder.rows[name].items() if k not in location
        }
        assert row["noisy"].startswith(f"{end}://")
    for (_, one), (_, other) in zip(folder.pixels("clean"), archive.pixels("clean"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (archive.reasons, archive.ignored) == ({}, folder.ignored)


@pytest.mark.parametrize("end", ["zip", "tar", "stored zip"])
def test_containers_in_archives_are_read_by_slice(
    tmp_path: Path, blocks: Callable, ingested: Callable, packed: Callable, end: str
) -> None:
    names = ("siddplus_valid_noisy_srgb", "siddplus_valid_gt_srgb")
    arrays = dict(zip(names, blocks(3), strict=True))
    (tmp_path / "mat").mkdir()
    scipy.io.savemat(tmp_path / "mat" / f"{names[0]}.mat", {names[0]: arrays[names[0]]}, do_compression=True)
    with h5py.File(tmp_path / "mat" / f"{names[1]}.mat", "w") as file:
        file[names[1]] = arrays[names[1]].T
    archive = tmp_path / f"set.{end[-3:]}"
    packed(tmp_path / "mat", archive)
    if end.startswith("stored"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for path in (tmp_path / "mat").iterdir():
                file.write(path, path.name)
    found = ingested(archive, "sidd-plus")
    for side, name in zip(("noisy", "clean"), names, strict=True):
        for pair, image in found.pixels(side):
            np.testing.assert_array_equal(image, arrays[name][int(pair)])


@pytest.mark.parametrize("end", ["zip", "tar"])
def test_tiff_stacks_in_archives(
    tmp_path: Path, pair: Callable, ingested: Callable, packed: Callable, end: str
) -> None:
    scene = pair(0, 40, 40, 1, "uint16")[1][..., 0]
    rng = np.random.default_rng(0)
    stack = np.stack([scene + rng.integers(0, 900, scene.shape, np.uint16) for _ in range(4)])
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "f.tif", stack, photometric="minisblack")
    found = ingested(packed(tmp_path / "set", tmp_path / f"x.{end}"), "tiff")
    for k, (_, image) in enumerate(found.pixels("noisy")):
        np.testing.assert_array_equal(image[..., 0], stack[k])


def test_names_that_leave_the_archive_and_links_are_refused(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable
) -> None:
    inside = next(sidd_small.rglob("GT*"))
    secret = tmp_path / "secret.png"
    shutil.copy(inside, secret)
    bad = ["../secret.png", "/etc/passwd", "..\\secret.png", "C:\\x.png", "a/../../secret.png", "x::y.png"]
    tar, zipped = packed(sidd_small, tmp_path / "set.tar"), packed(sidd_small, tmp_path / "set.zip")
    links = {"soft.png": (tarfile.SYMTYPE, str(secret)), "hard.png": (tarfile.LNKTYPE, "Data"), "fifo.png": (b"6", "")}
    with tarfile.open(tar, "a") as file, zipfile.ZipFile(zipped, "a") as other:
        for name in bad:
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"evil"))
            other.writestr(name, b"evil")
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
        link = zipfile.ZipInfo("soft.png")
        link.external_attr = 0o120777 << 16
        other.writestr(link, str(secret))
    for archive, names in ((tar, [*bad, *links]), (zipped, [*bad, "soft.png"])):
        found = ingested(archive, "sidd-small")
        assert len(found.rows) == 3
        assert sorted(found.reasons) == sorted(names)
        assert "points outside of the archive" in found.reasons["../secret.png"]
        assert "link" in found.reasons["soft.png"]


def test_a_member_that_is_stored_twice_is_told(sidd_small: Path, tmp_path: Path, ingested: Callable) -> None:
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as file:
        for prefix in ("", "./"):
            for path in sorted(sidd_small.rglob("*.PNG")):
                file.add(path, prefix + str(path.relative_to(sidd_small)))
    found = ingested(archive, "sidd-small")
    assert len(found.rows) == 3
    assert all("has this file twice" in reason for reason in found.reasons.values())
    assert len(found.reasons) == 6


def test_what_systems_leave_in_archives_is_ignored(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable
) -> None:
    names = [str(p.relative_to(sidd_small)) for p in sidd_small.rglob("*.PNG")]
    archive = packed(sidd_small, tmp_path / "set.zip")
    with zipfile.ZipFile(archive, "a") as file:
        for name in names:
            file.writestr(f"__MACOSX/{Path(name).parent}/._{Path(name).name}", b"\0\5\x16\7")
        file.writestr("Data/.DS_Store", b"x")
    found = ingested(archive, "sidd-small")
    assert (len(found.rows), found.reasons, found.ignored) == (3, {}, 1 + len(names) + 1)


@pytest.mark.parametrize("keep", [0, 30, 0.3, 0.9])
@pytest.mark.parametrize("end", ["zip", "tar"])
def test_torn_archives_are_told(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable, end: str, keep: float
) -> None:
    archive = packed(sidd_small, tmp_path / f"set.{end}")
    whole = content(archive)
    archive.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(UserError, match=rf"set\.{end}: is not a complete {end} archive"):
        ingested(archive, "sidd-small")


def test_a_tar_that_was_cut_between_two_members_is_told(sidd_small: Path, tmp_path: Path, packed: Callable) -> None:
    archive = packed(sidd_small, tmp_path / "set.tar")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    archive.write_bytes(content(archive)[: last.offset])
    with pytest.raises(UserError, match=r"set\.tar: is not a complete tar archive \(it has no end mark"):
        _ = Source.of(str(archive)).files


def test_a_damaged_member_is_told_and_the_others_go_on(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable
) -> None:
    archive = packed(sidd_small, tmp_path / "set.zip")
    damaged = bytearray(content(archive))
    with zipfile.ZipFile(archive) as file:
        infos = [i for i in file.infolist() if i.filename.endswith(".PNG")]
    damaged[infos[0].header_offset + 200] ^= 0xFF
    damaged[infos[2].header_offset] ^= 0xFF
    archive.write_bytes(damaged)
    found = ingested(archive, "sidd-small")
    assert len(found.rows) == 1
    assert len(found.reasons) == 2
    assert all("damaged" in reason and "set.zip" in reason for reason in found.reasons.values())


def lying(archive: Path, name: str, claimed: int) -> None:
    """Change what the directory of a zip says of a member's size."""
    data = bytearray(content(archive))
    location = data.rindex(name.encode()) - 46
    assert data[location : location + 4] == b"PK\x01\x02"
    data[location + 24 : location + 28] = struct.pack("<I", claimed)
    archive.write_bytes(data)


@pytest.mark.parametrize("claimed", [1000, (2 << 30) - 1])
def test_a_member_that_inflates_hugely_is_not_unpacked(tmp_path: Path, claimed: int) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("big.png", bytes(3 << 20))
    lying(archive, "big.png", claimed)
    with pytest.raises(UserError, match=r"big\.png.*(more than is read here|is damaged in the archive)"):
        read_whole(f"zip://big.png::{archive}")


def test_packings_that_are_not_read_are_named(sidd_small: Path, tmp_path: Path, ingested: Callable) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for k, path in enumerate(sorted(sidd_small.rglob("*.PNG"))):
            file.write(path, str(path.relative_to(sidd_small)), zipfile.ZIP_LZMA if k == 0 else zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(archive) as file:
        encrypted = file.infolist()[2].filename
    data = bytearray(content(archive))
    location = data.rindex(encrypted.encode()) - 46
    data[location + 8] |= 1
    archive.write_bytes(data)
    found = ingested(archive, "sidd-small")
    assert len(found.rows) == 1
    assert any("compression method 14" in r for r in found.reasons.values())
    assert any("encrypted" in r for r in found.reasons.values())


@pytest.mark.parametrize("end", ["tar.gz", "tgz", "tar.bz2", "tar.xz", "TAR.ZST"])
def test_compressed_tars_are_refused_in_words(tmp_path: Path, end: str) -> None:
    (tmp_path / f"x.{end}").write_bytes(b"x")
    with pytest.raises(UserError, match="compressed tar files cannot be read in place; unpack the file"):
        Source.of(str(tmp_path / f"x.{end}"))
    (tmp_path / "renamed.tar").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    with pytest.raises(UserError, match=r"renamed\.tar: is not a complete tar archive"):
        _ = Source.of(str(tmp_path / "renamed.tar")).files


@pytest.mark.parametrize("form", ["path", "url"])
def test_one_image_or_matlab_file_is_a_source(
    tmp_path: Path, pair: Callable, blocks: Callable, save: Callable, ingested: Callable, form: str
) -> None:
    prefix = "file://" if form == "url" else ""
    save(tmp_path / "A.PNG", pair(0, 40, 40)[1])
    assert list(ingested(f"{prefix}{tmp_path}/A.PNG", "clean").rows) == ["A"]
    scene = pair(0, 40, 40, 1, "uint16")[1][..., 0]
    stack = np.stack([scene + np.random.default_rng(k).integers(0, 900, scene.shape, np.uint16) for k in range(3)])
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    found = ingested(f"{prefix}{tmp_path}/s.tif", "tiff")
    for k, (_, image) in enumerate(found.pixels("noisy")):
        np.testing.assert_array_equal(image[..., 0], stack[k])
    name = "BenchmarkNoisyBlocksSrgb"
    scipy.io.savemat(tmp_path / f"{name}.mat", {name: blocks(2, 1)[0]})
    assert len(ingested(f"{prefix}{tmp_path}/{name}.mat", "sidd-benchmark").rows) == 2


def test_folders_named_like_files_are_folders(sidd_small: Path, ingested: Callable, tmp_path: Path) -> None:
    for name in ("set.zip", "set.TAR", "set.png", "set.mat"):
        folder = shutil.copytree(sidd_small, tmp_path / name)
        found = ingested(folder, "sidd-small")
        assert len(found.rows) == 3
        assert len(list(found.pixels("noisy"))) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/data/", "https://127.0.0.1:9/data"])
def test_pages_of_links_are_refused_with_what_is_meant(url: str) -> None:
    with pytest.raises(UserError, match=rf"{url}: web pages cannot be listed.*\.zip.*s3://bucket/folder"):
        Source.of(url)


def test_names_with_the_separators_of_another_system(sidd_small: Path, tmp_path: Path, ingested: Callable) -> None:
    archive = tmp_path / "set.zip"
    bad = ["..\\up.png", "C:\\x.png", "\\root.png", "a\\..\\..\\up.png"]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Data\\", b"")
        for path in sorted(sidd_small.rglob("*.PNG")):
            file.writestr(str(path.relative_to(sidd_small)).replace("/", "\\"), path.read_bytes())
        for name in bad:
            file.writestr(name, b"evil")
    assert b"Data\\0001_001" in archive.read_bytes()
    found = ingested(archive, "sidd-small")
    assert len(found.rows) == 3
    assert len(list(found.pixels("clean"))) == 3
    assert set(found.reasons) == set(bad)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("end", ["zip", "tar"])
def test_two_members_of_one_name_are_refused(
    sidd_small: Path, tmp_path: Path, ingested: Callable, packed: Callable, end: str
) -> None:
    archive = packed(sidd_small, tmp_path / f"set.{end}")
    path = next(sidd_small.rglob("GT*"))
    name = str(path.relative_to(sidd_small))
    if end == "zip":
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, b"other")
    else:
        with tarfile.open(archive, "a") as tar:
            tar.add(path, name)
    found = ingested(archive, "sidd-small")
    assert len(found.rows) == 2
    assert "two members of this name" in found.reasons[name]


def test_single_files_and_missing_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"a\.txt: this kind of file is not supported; use its folder, or a file of type .*\.mat"
    ):
        Source.of(str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match=r"nowhere: does not exist"):
        Source.of(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"gone\.png.*no such file"):
        read_whole(str(tmp_path / "gone.png"))


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    for text in (b"one", b"two, longer", b"six"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.png", text)
        assert read_whole(f"zip://a.png::{archive}") == text
        with opened(f"zip://a.png::{archive}") as member:
            member.seek(1)
            assert member.read() == text[1:]
    with pytest.raises(UserError, match="has no such file"):
        read_whole(f"zip://b.png::{archive}")


def test_odd_names_on_disk(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    names = ["with space", "[1]*?", "ümlaut-日本", "a#b%20c", "c:d", "~tilde", "UPPER"]
    for seed, name in enumerate(names):
        for side, image in zip(("noisy", "clean"), pair(seed, 40, 40), strict=True):
            save(tmp_path / "set" / side / f"{name}.PNG", image)
    bad = os.fsencode(tmp_path / "set" / "noisy") + b"/\xff\xfe.png"
    Path(os.fsdecode(bad)).write_bytes(b"x")
    (tmp_path / "set" / "noisy" / "x::y.png").write_bytes(b"x")
    found = ingested(tmp_path / "set", "folders")
    assert sorted(found.rows) == sorted(names)
    assert "not UTF-8" in found.reasons["noisy/\\udcff\\udcfe.png"]
    assert "'::'" in found.reasons["noisy/x::y.png"]
    assert len(list(found.pixels("noisy"))) == len(names)


def test_links_and_folders_in_place_of_files(
    tmp_path: Path, pair: Callable, save: Callable, ingested: Callable
) -> None:
    root = tmp_path / "set"
    for name in ("good", "folder", "broken"):
        for side, image in zip(("noisy", "clean"), pair(len(name), 40, 40), strict=True):
            save(root / side / f"{name}.png", image)
    (root / "clean" / "folder.png").unlink()
    (root / "clean" / "folder.png").mkdir()
    (root / "clean" / "broken.png").unlink()
    (root / "clean" / "broken.png").symlink_to(tmp_path / "nothing.png")
    (root / "noisy" / "loop").symlink_to(root, target_is_directory=True)
    found = ingested(root, "folders")
    assert list(found.rows) == ["good"]
    assert set(found.reasons) == {"folder", "broken"}


def test_linked_folders_are_followed_where_it_is_asked_for(
    sidd_small: Path, tmp_path: Path, ingested: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PNGNOISE_FOLLOW_LINKS", "1")
    first, second, _ = sorted((sidd_small / "Data").iterdir())
    for folder in (first, second):
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
    (tmp_path / first.name / "loop").symlink_to(sidd_small, target_is_directory=True)
    found = ingested(sidd_small, "sidd-small")
    assert (len(found.rows), found.reasons) == (3, {})


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """As a user who owns ``folder`` and may not read everything: oneself, or nobody where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, _NOBODY, -1)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission_is_told(sidd_small: Path, tmp_path: Path) -> None:
    ingest(str(sidd_small), "sidd-small", str(tmp_path / "c"))  # imports what nobody may not
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        data = shutil.copytree(sidd_small, Path(name) / "data")
        next(data.rglob("GT*")).chmod(0)
        with unprivileged(Path(name)):
            result = ingest(str(data), "sidd-small", str(Path(name) / "c"))
    assert result["pairs"] == 2
    assert ["permission denied" in r["reason"] for r in result["rejected"]] == [True]


def test_a_folder_without_permission_is_told_and_the_rest_goes_on(sidd_small: Path, tmp_path: Path) -> None:
    ingest(str(sidd_small), "sidd-small", str(tmp_path / "c"))
    with tempfile.TemporaryDirectory() as name:
        data = shutil.copytree(sidd_small, Path(name) / "data")
        (data / "lost+found").mkdir()
        (data / "lost+found" / "x.png").write_bytes(b"")
        (data / "lost+found").chmod(0)
        with unprivileged(Path(name)):
            result = ingest(str(data), "sidd-small", str(Path(name) / "c"))
            (data / "lost+found").chmod(0o700)
            data.chmod(0)
            with pytest.raises(UserError, match="permission denied"):
                ingest(str(data), "sidd-small", str(Path(name) / "c2"))
            data.chmod(0o700)
    assert result["pairs"] == 3
    assert result["rejected"] == [{"id": "lost+found", "reason": "no permission to list this folder; check its owner"}]


def test_links_that_leave_the_folder_are_rejected(sidd_small: Path, tmp_path: Path, ingested: Callable) -> None:
    first, second, third = sorted((sidd_small / "Data").iterdir())
    first.rename(tmp_path / first.name)
    first.symlink_to(tmp_path / first.name)  # a folder
    image = next(second.glob("GT*"))
    image.rename(tmp_path / "image.png")
    image.symlink_to(tmp_path / "image.png")  # a file
    (sidd_small / "Data" / "again").symlink_to(third)  # stays inside
    found = ingested(sidd_small, "sidd-small")
    assert len(found.rows) == 1
    for name in (f"Data/{first.name}", f"Data/{second.name}/{image.name}"):
        assert "is a symbolic link out of its folder" in found.reasons[name]
        assert "PNGNOISE_FOLLOW_LINKS=1" in found.reasons[name]
