"""Datasets written by independent writers, and what ingestion makes of them."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tasks.datasets.catalogue import load_catalogue, read_catalogued
from tasks.datasets.ingest import IngestSettings, ingest

Blocks = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Ingested:
    """A catalogue that was just made."""

    rows: dict[str, dict[str, Any]]
    reasons: dict[str, str]
    ignored: int

    def pixels(self, side: str) -> Iterator[tuple[str, np.ndarray]]:
        """(pair, image) as anything downstream reads them: verified against the catalogue."""
        rows = [self.rows[pair] for pair in sorted(self.rows)]
        yield from zip((r["pair"] for r in rows), read_catalogued(rows, side), strict=True)


@pytest.fixture
def ingested(tmp_path: Path) -> Callable[..., Ingested]:
    """Ingest a source; keywords are :class:`IngestSettings`."""

    def run(source: str | Path, adapter: str, **settings: Any) -> Ingested:
        output = str(tmp_path / f"catalogue{len(list(tmp_path.glob('catalogue*')))}")
        result = ingest(str(source), adapter, output, IngestSettings(**settings))
        rows = {row["pair"]: row for row in load_catalogue(output)[0].to_pylist()}
        return Ingested(rows, {r["id"]: r["reason"] for r in result["rejected"]}, result["ignored"])

    return run


def write_matlab73(path: Path, arrays: dict[str, np.ndarray], **options: Any) -> None:
    """What MATLAB writes with -v7.3: HDF5 behind a header of 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            found = file.create_dataset(name, data=np.ascontiguousarray(array.T), **options)
            found.attrs["MATLAB_class"] = np.bytes_(array.dtype.name)
    with path.open("r+b") as raw:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2018 HDF5 schema 1.00 ."
        raw.write(text.ljust(124) + b"\x00\x02IM")


@pytest.fixture(scope="session")
def matlab73() -> Callable[..., None]:
    """:func:`write_matlab73` as a fixture."""
    return write_matlab73


@pytest.fixture(scope="session")
def blocks(pair: Callable[..., Blocks]) -> Callable[..., Blocks]:
    """(noisy, clean) arrays of pairs with these leading axes, as SIDD ships its blocks."""

    def make(*leading: int, side: int = 40) -> Blocks:
        pairs = [pair(seed, side, side) for seed in range(int(np.prod(leading)))]
        noisy, clean = (np.stack([p[k] for p in pairs]).reshape(*leading, side, side, 3) for k in range(2))
        return noisy, clean

    return make


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    """All files of a folder as .zip or .tar, by the name's end."""
    members = sorted(p for p in folder.rglob("*") if p.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in members:
                packed.write(path, f"{prefix}{path.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w") as tar:
            for path in members:
                tar.add(path, f"{prefix}{path.relative_to(folder)}")
    return archive


@pytest.fixture(scope="session")
def packed() -> Callable[..., Path]:
    """:func:`pack` as a fixture."""
    return pack
