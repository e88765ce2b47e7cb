"""Clean sources: looked through once, taken up while nothing changed; licences, arrays, files that change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.generate import begin, make_corpus_shards
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets import clean_images as cleansources
from tasks.stores.corpus_store import Corpus

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded, as they are."""
    names: list[str] = []
    decode = cleansources.decode

    def watched(content: bytes, name: str) -> Any:
        names.append(name)
        return decode(content, name)

    monkeypatch.setattr(cleansources, "decode", watched)
    return names


def test_an_unchanged_folder_is_not_looked_through_again(parameters: Make, tmp_path: Path, decoded: list[str]) -> None:
    first = plan_corpus(parameters(tmp_path / "c", min_clean_std=0.01))
    assert len(set(decoded)) == 4
    begin(first)
    decoded.clear()
    again = plan_corpus(parameters(tmp_path / "c", min_clean_std=0.01, scale=3, parts="1/2"))
    assert decoded == []
    assert again.clean_index.source == first.clean_index.source
    assert again.clean_index.windows == first.clean_index.windows
    assert again.recipe == first.recipe
    plan_corpus(parameters(tmp_path / "c", min_clean_std=0.02))
    assert len(set(decoded)) == 4


@pytest.mark.parametrize("change", ["other pixels", "new file", "file gone", "clean.parquet"])
def test_what_changed_is_noticed(
    parameters: Make, folders: tuple[Path, Path], tmp_path: Path, decoded: list[str], change: str
) -> None:
    root = folders[0] / "clean"
    before = plan_corpus(parameters(tmp_path / "c"))
    begin(before)
    file = root / "wall_100_1.png"
    if change == "other pixels":
        # of the same name and size: only the time tells, by however little
        content, stat = bytearray(file.read_bytes()), file.stat()
        content[-1] ^= 1  # in the checksum of the last chunk, which readers pass over
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
        assert file.stat().st_size == stat.st_size
    elif change == "new file":
        (root / "a_torn.png").write_bytes(b"torn")
    elif change == "file gone":
        file.unlink()
    else:
        table = tmp_path / "c" / "clean.parquet"
        table.write_bytes(table.read_bytes()[:-1])
    decoded.clear()
    after = plan_corpus(parameters(tmp_path / "c"))
    assert decoded
    assert (after.clean_index.source.digest == before.clean_index.source.digest) == (
        change in ("new file", "clean.parquet")
    )
    assert len(after.clean_index.source.rejected) == (change == "new file") + (
        change == "other pixels" and len(after.clean_index.source.images) == 3
    )


def test_images_that_change_between_plan_and_work_are_named(
    parameters: Make, folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    plan = plan_corpus(parameters(tmp_path / "c"))
    save(folders[0] / "clean" / "street_800_2.png", pair(77)[1])
    with pytest.raises(IntegrityError, match=r"street_800_2\.png: has changed since the corpus was planned"):
        make_corpus_shards(plan)
    (folders[0] / "clean" / "street_800_2.png").unlink()
    with pytest.raises(UserError, match=r"street_800_2\.png: no such file"):
        make_corpus_shards(plan)


def test_licences_come_into_the_manifest(parameters: Make, made: Made, tmp_path: Path, patches: str) -> None:
    published, _ = made(parameters(tmp_path / "a", clean_licence="CC-BY-4.0"))
    rows = Corpus.open(published.url).table.to_pylist()
    assert {(r["clean_licence"], r["reference_licence"]) for r in rows} == {("CC-BY-4.0", "CC0")}
    assert Corpus.open(published.url).licence == "CC-BY-4.0; CC0"
    assert "CC-BY-4.0; CC0" in (tmp_path / "a" / "README.md").read_text()
    published, _ = made(parameters(tmp_path / "b"))
    assert {r["clean_licence"] for r in Corpus.open(published.url).table.to_pylist()} == {
        "unknown (a folder of images carries none)"
    }
    published, _ = made(parameters(tmp_path / "c", clean=patches))  # says it itself
    assert Corpus.open(published.url).licence == "CC0"


@pytest.mark.parametrize("axes", ["NHWC", "NCHW", "NHW"])
def test_an_array_of_images_is_a_source(
    parameters: Make, made: Made, tmp_path: Path, pair: Callable, axes: str
) -> None:
    images = np.stack([pair(k, 64, 48, 1 if axes == "NHW" else 3)[1] for k in range(3)])
    stored = {"NHWC": images, "NCHW": np.moveaxis(images, -1, 1), "NHW": images[..., 0]}[axes]
    zarr.create_array(str(tmp_path / "array"), data=np.ascontiguousarray(stored), chunks=(1, *stored.shape[1:]))
    published, _ = made(parameters(tmp_path / "c", clean=str(tmp_path / "array"), clean_licence="CC0"))
    corpus = Corpus.open(published.url)
    assert corpus.layout.channels == (1 if axes == "NHW" else 3)
    rows = corpus.table.to_pylist()
    assert len(rows) == 3 * 2 * 2
    for k, row in enumerate(rows):
        whole = images[int(row["clean"].removeprefix("row="))]
        window = whole[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
        np.testing.assert_array_equal(np.moveaxis(corpus.read(k)[0], 0, -1), window)
    changed = stored.copy()
    changed[1] = 255 - changed[1]
    plan = plan_corpus(parameters(tmp_path / "d", clean=str(tmp_path / "array")))
    zarr.open_array(str(tmp_path / "array"), mode="r+")[1] = changed[1]
    assert (
        plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "array"))).recipe["clean"] != plan.recipe["clean"]
    )
    with pytest.raises(IntegrityError, match="row=1: has changed"):
        make_corpus_shards(plan)


def test_quality_of_jpeg_files_needs_files(parameters: Make, tmp_path: Path, patches: str) -> None:
    with pytest.raises(UserError, match="stores do not record the quality of their files; use a folder of files"):
        plan_corpus(parameters(tmp_path / "c", clean=patches, min_jpeg_quality=50))


def test_a_storage_that_fails_for_a_while_rejects_no_image(
    parameters: Callable[..., CorpusParameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is left out is another corpus, for good: only what its bytes say may do that."""
    from pngmodel.errors import TransientError

    def fails(url: str) -> bytes:
        raise TransientError(f"{url}: reading failed (timed out)")

    monkeypatch.setattr("tasks.datasets.clean_images.read_bytes", fails)
    with pytest.raises(TransientError, match="timed out"):
        plan_corpus(parameters(tmp_path / "c"))
