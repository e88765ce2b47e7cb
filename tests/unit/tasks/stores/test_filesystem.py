"""Files on any URL: whole or absent, errors in words."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.io import filesystem as files
from tasks.stores.io import listing
from tasks.stores.io.listing import list_files


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 KiB; where mounting is not allowed, one that finds out when it writes back."""
    location = tmp_path / "tiny"
    location.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", location], capture_output=True)
    if mounted.returncode:

        def fsync(descriptor: int) -> None:
            if os.fstat(descriptor).st_size > 1 << 16:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        yield location
        return
    yield location
    subprocess.run(["umount", location], check=True)


def test_write_read_list_remove(tmp_path: Path) -> None:
    root = str(tmp_path / "a")
    files.write_bytes(files.join(root, "b", "c.bin"), b"1")
    files.write_bytes(files.join(root, "a.bin"), b"2")
    assert list_files(root) == ["a.bin", "b/c.bin"]
    assert files.read_bytes(files.join(root, "b/c.bin")) == b"1"
    files.remove(files.join(root, "b"))
    files.remove(files.join(root, "never there"))
    assert list_files(root) == ["a.bin"]
    assert list_files(str(tmp_path / "nothing")) == []


def test_linked_folders_are_listed_and_loops_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "root" / "other"
    (root / "own").mkdir(parents=True)
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "x").write_bytes(b"1")
    for name in ("a", "own/b"):
        (root / name).symlink_to(other, target_is_directory=True)
    (other / "up").symlink_to(root, target_is_directory=True)
    (other / "itself").symlink_to(other / "itself")
    (root / "own" / "loop").symlink_to(root / "own")
    listed = list_files(str(root))
    assert [name for name in listed if name.endswith("x")] == ["a/deep/x", "other/deep/x", "own/b/deep/x"]
    assert {"a/itself", "a/up", "own/loop"} <= set(listed)
    monkeypatch.setattr(listing, "_MAX_LINKS", 1)
    with pytest.raises(UserError, match="more than 1 links to folders"):
        list_files(str(root))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_paths_and_file_urls_are_the_same_place(tmp_path: Path, scheme: str) -> None:
    files.write_bytes(f"{scheme}{tmp_path}/x", b"content")
    assert (tmp_path / "x").read_bytes() == b"content"
    assert files.exists(f"{scheme}{tmp_path}/x")
    assert files.local_path(f"{scheme}{tmp_path}/x") == tmp_path / "x"


def test_object_storage_has_no_local_path() -> None:
    assert files.local_path("memory://bucket/x") is None


def test_an_unknown_scheme_is_explained() -> None:
    with pytest.raises(UserError, match=r"nonsense://x.*s3://"):
        files.read_bytes("nonsense://x")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.json"
    files.write_bytes(str(target), b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match=r"x\.json: no space left.*free some.*same command again"):
        files.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_says_what_to_do(full_disk: Path) -> None:
    files.write_bytes(str(full_disk / "small"), b"1")
    with pytest.raises(UserError, match=r"large: no space left.*same command again"):
        files.write_bytes(str(full_disk / "large"), bytes(1 << 20))
    assert [p.name for p in full_disk.iterdir()] == ["small"]


def test_errors_name_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"missing: no such file"):
        files.read_bytes(str(tmp_path / "missing"))
    with pytest.raises(UserError, match=tmp_path.name):
        files.read_bytes(str(tmp_path))
    with pytest.raises(UserError, match=r"file/below"):
        files.write_bytes(str(tmp_path / "file" / "below"), b"")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_damaged_json_is_an_integrity_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"x\.json.*damaged"):
        files.read_json(str(tmp_path / "x.json"))


def test_equal_json_is_equal_bytes(tmp_path: Path) -> None:
    files.write_json(str(tmp_path / "a"), {"x": 1, "y": {"b": 1, "a": 2}})
    files.write_json(str(tmp_path / "b"), {"y": {"a": 2, "b": 1}, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_is_created_once_also_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for number in range(2):
        location = tmp_path / f"{number}.json"
        assert files.create_bytes(str(location), b"first")
        assert not files.create_bytes(str(location), b"second")
        assert location.read_bytes() == b"first"
        monkeypatch.setattr(os, "link", link)  # as exFAT and many network disks do
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.json", "1.json"]
