"""Datasets on object storage, in folders and archives, against an S3-speaking server."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import s3fs
import scipy.io
import tifffile

from pngmodel.errors import UserError
from tasks.datasets.catalogue import load_catalogue, read_catalogued
from tasks.datasets.ingest import ingest
from tasks.datasets.source import Source

BUCKET = "s3://noise"


def pack(folder: Path, archive: Path) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                packed.write(path, f"{folder.name}/{path.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, folder.name)
    return archive


@pytest.fixture
def layouts(
    tmp_path: Path, sidd_small: Path, pair: Callable, folders: tuple[Path, Path]
) -> dict[str, tuple[Path, str]]:
    """Folders with the adapters that read them: image files, MATLAB arrays, TIFF stacks, clean images."""
    blocks = [np.stack([pair(seed, 40, 40)[side] for seed in range(6)]) for side in range(2)]
    (tmp_path / "plus").mkdir()
    for name, array, packed in zip(("noisy", "gt"), blocks, (True, False), strict=True):
        stem = f"siddplus_valid_{name}_srgb"
        scipy.io.savemat(tmp_path / "plus" / f"{stem}.mat", {stem: array}, do_compression=packed)
    rng = np.random.default_rng(0)
    scene = pair(0, 40, 40, 1, "uint16")[1][..., 0]
    stack = np.stack([scene + rng.integers(0, 900, scene.shape, np.uint16) for _ in range(4)])
    (tmp_path / "repeats").mkdir()
    tifffile.imwrite(tmp_path / "repeats" / "field.tif", stack, photometric="minisblack")
    return {
        "sidd-small": (sidd_small, "sidd-small"),
        "rules": (folders[0], str(folders[1])),
        "sidd-plus": (tmp_path / "plus", "sidd-plus"),
        "tiff": (tmp_path / "repeats", "tiff"),
        "clean": (folders[0] / "clean", "clean"),
    }


@pytest.mark.parametrize("layout", ["sidd-small", "rules", "sidd-plus", "tiff", "clean"])
def test_a_dataset_is_the_same_wherever_it_lies(
    bucket: s3fs.S3FileSystem, layouts: dict[str, tuple[Path, str]], tmp_path: Path, layout: str
) -> None:
    folder, adapter = layouts[layout]
    bucket.put(str(folder), f"noise/{folder.name}", recursive=True)
    locations = [str(folder), f"{BUCKET}/{folder.name}/"]
    for end in ("zip", "tar"):
        archive = pack(folder, tmp_path / f"{folder.name}.{end}")
        bucket.put(str(archive), f"noise/{archive.name}")
        locations.append(f"{BUCKET}/{archive.name}")
    results = [ingest(location, adapter, str(tmp_path / f"c{k}")) for k, location in enumerate(locations)]
    assert [r["rejected"] for r in results] == [[]] * 4
    assert len({r["pairs"] for r in results}) == 1
    if layout in ("sidd-small", "rules", "sidd-plus"):  # elsewhere an archive's own folder is part of the ids
        assert len({r["digest"] for r in results}) == 1
    side = "clean" if layout == "clean" else "noisy"
    local, *others = (load_catalogue(str(tmp_path / f"c{k}"))[0].to_pylist() for k in range(4))
    for rows in others:
        for one, other in zip(read_catalogued(local, side), read_catalogued(rows, side), strict=True):
            np.testing.assert_array_equal(one, other)


def test_problems_on_object_storage_are_told(bucket: s3fs.S3FileSystem, sidd_small: Path, tmp_path: Path) -> None:
    bucket.put(str(sidd_small), "noise/raw", recursive=True)
    first = sorted(bucket.find("noise/raw"))[0]
    bucket.pipe_file(first, b"")
    result = ingest(f"{BUCKET}/raw", "sidd-small", str(tmp_path / "c"))
    assert result["pairs"] == 2
    assert f"s3://{first}: is empty" in result["rejected"][0]["reason"]
    with pytest.raises(UserError, match=r"s3://noise/none: does not exist"):
        Source.of(f"{BUCKET}/none")
    assert Source.of(f"s3://{first}").files == [first.rpartition("/")[2]]
    bucket.pipe_file("noise/notes.txt", b"x")
    with pytest.raises(UserError, match="this kind of file is not supported; use its folder"):
        Source.of(f"{BUCKET}/notes.txt")
    bucket.pipe_file("noise/torn.zip", pack(sidd_small, tmp_path / "x.zip").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"s3://noise/torn\.zip: is not a complete zip archive"):
        ingest(f"{BUCKET}/torn.zip", "sidd-small", str(tmp_path / "d"))
    with pytest.raises(UserError, match="compressed tar"):
        Source.of(f"{BUCKET}/x.tar.gz")
