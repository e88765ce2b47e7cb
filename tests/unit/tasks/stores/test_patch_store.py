"""Padded stores: packing, parts, one side only, every dtype, statistics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.inspection import inspect, record_schema, verify
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets.catalogue import load_catalogue, read_one
from tasks.datasets.clean_images import open_clean
from tasks.datasets.extraction import PRESETS, extract_patches, finalise, pack, resolved, share
from tasks.datasets.ingest import ingest
from tasks.datasets.parameters import Geometry, Selection
from tasks.datasets.reference_pairs import open_references
from tasks.runtime.clusters import ClusterConfig
from tasks.stores.commits import part_name
from tasks.stores.layout import shard_object
from tasks.stores.patch_store import PatchStore
from tasks.stores.records import PatchStoreRecord

Tree = Callable[[Any], dict[str, bytes]]
SMALL = Geometry(size=32)
SHARED_RULES = (
    "dataset: d\nlicence: CC0\nnoisy: noisy/(?P<pair>.+)\\.(png|tif)\nclean: clean/(?P<pair>.+)\\.(png|tif)\n"
)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 100))
def test_units_share_no_row_and_no_shard(counts: list[int], shard: int) -> None:
    units, filled = pack(counts, shard)
    assert [u.rows[0] for u in units[1:]] == [u.rows[1] for u in units[:-1]]
    assert [u.shards[0] for u in units[1:]] == [u.shards[1] for u in units[:-1]]
    assert (units[0].rows[0], units[-1].rows[1]) == (0, len(counts))
    assert (units[0].shards[0], units[-1].shards[1]) == (0, len(filled))
    for unit in units:
        held = sum(counts[slice(*unit.rows)])
        assert sum(filled[slice(*unit.shards)]) == held
        assert all(n == shard for n in filled[slice(*unit.shards)][:-1])
        assert len(range(*unit.rows)) == 1 or held <= shard  # only a single image takes several shards


def test_large_images_take_several_shards_and_small_ones_share() -> None:
    assert pack([112, 112], 64)[1] == (64, 48, 64, 48)
    units, filled = pack([1] * 130, 64)
    assert filled == (64, 64, 2)
    assert [u.rows for u in units] == [(0, 64), (64, 128), (128, 130)]


@given(st.integers(0, 50), st.integers(1, 12))
def test_parts_are_all_units_once(count: int, n: int) -> None:
    units = pack([1] * count, 1)[0] if count else []
    assert [u for i in range(n) for u in share(units, f"{i + 1}/{n}")] == units


@pytest.mark.parametrize("parts", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_parts_that_make_no_sense_are_refused(parts: str) -> None:
    with pytest.raises(UserError, match="--parts: "):
        share([], parts)


def test_presets_and_sizes() -> None:
    assert resolved(Geometry()) == (256, 256)
    assert resolved(Geometry(size=64)) == (64, 64)
    assert resolved(Geometry(preset="sidd-512")) == PRESETS["sidd-512"] == (512, 384)
    for geometry, words in (
        (Geometry(preset="sid"), "choose one of"),
        (Geometry(preset="sidd-256", size=3**4), "either"),
    ):
        with pytest.raises(UserError, match=words):
            resolved(geometry)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_make_the_same_bytes(
    catalogue: str, patches: str, tmp_path: Path, tree: Tree, order: tuple[int, ...]
) -> None:
    url, made = str(tmp_path / "p"), []
    with pytest.raises(UserError, match=r"plan\.json: missing"):
        finalise(url)
    for part in order:
        result = extract_patches(catalogue, url, geometry=SMALL, shard=8, parts=f"{part}/3")
        made.append((result["patches"], result["shards"]))
        assert "digest" not in result
        if part != order[-1]:
            with pytest.raises(UserError, match=r"of 8 parts are missing or damaged: parts/0000"):
                finalise(url)
            with pytest.raises(UserError, match=r"not finished.*finalise"):
                PatchStore.open(url)
    assert sum(n for n, _ in made) == 36
    assert sum(n for _, n in made) == 8
    first = finalise(url)
    assert (first["patches"], first["shards"]) == (36, 8)
    assert tree(url) == tree(patches)
    assert finalise(url) == first
    assert extract_patches(catalogue, url, geometry=SMALL, shard=8, parts="2/3")["made"] == 0
    assert tree(url) == tree(patches)


def test_finalise_checks_every_byte(catalogue: str, patches: str, tree: Tree) -> None:
    before = tree(patches)
    path = Path(patches) / shard_object("noisy", 3)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"1 of 8 parts are missing or damaged: parts/00003\.parquet"):
        finalise(patches, cluster=ClusterConfig(kind="inline"))
    assert extract_patches(catalogue, patches, geometry=SMALL, shard=8)["made"] == 1
    assert tree(patches) == before


def test_only_patch_stores_are_finalised(patches: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    clean = str(folders[0] / "clean")
    parameters = {"model": "heteroscedastic", "references": patches, "clean": clean, "crop": 32, "shard": 8}
    make_corpus_shards(plan_corpus(CorpusParameters(output=str(tmp_path / "c"), **parameters)))
    with pytest.raises(UserError, match="holds a corpus"):
        finalise(str(tmp_path / "c"))


def test_a_shard_is_cut_alone_when_its_neighbours_are_whole(catalogue: str, patches: str, tree: Tree) -> None:
    before = tree(patches)
    for index in (1, 4):
        (Path(patches) / part_name(index)).unlink()
    assert extract_patches(catalogue, patches, geometry=SMALL, shard=8)["made"] == 2
    assert tree(patches) == before


def test_shard_sizes_change_no_pixel_and_no_identity(catalogue: str, patches: str, tmp_path: Path) -> None:
    extract_patches(catalogue, str(tmp_path / "q"), geometry=SMALL, shard=20)
    one, other = PatchStore.open(patches), PatchStore.open(str(tmp_path / "q"))
    assert other.layout.filled == (18, 18)
    for k in (0, 8, 9, 17, 18, 35):
        for a, b in zip(one.read(k), other.read(k), strict=True):
            np.testing.assert_array_equal(a, b)
    dropped = ["slot"]
    assert one.table.drop_columns(dropped) == other.table.drop_columns(dropped)
    assert open_references(patches).digest == open_references(str(tmp_path / "q")).digest
    assert one.record.statistics.levels == other.record.statistics.levels


def test_statistics_are_those_of_the_pixels(patches: str) -> None:
    store = PatchStore.open(patches)
    found = store.record.statistics
    clean, noisy = (np.stack([store.read(k)[side] for k in range(36)]).astype(np.float64) for side in (0, 1))
    for kind, values in (("clean", clean), ("noise", noisy - clean)):
        np.testing.assert_allclose(found.levels[kind].mean, values.mean((0, 2, 3)) / 255, rtol=1e-9)
        np.testing.assert_allclose(found.levels[kind].std, values.std((0, 2, 3)) / 255, rtol=1e-9)
    assert found.saturated == pytest.approx(((noisy == 0) | (noisy == 255)).mean())
    assert found.patches["dataset"] == {"tiny_pairs": 36}
    assert found.patches["iso"] == {"100": 27, "800": 9}
    assert found.raw_bytes == 2 * 36 * 3 * 32 * 32
    objects = [p for p in Path(patches).glob("*/c/**/0") if p.is_file()]
    assert found.stored_bytes == sum(p.stat().st_size for p in objects)
    for k, row in enumerate(store.table.to_pylist()):
        np.testing.assert_allclose(row["noise_std"], (noisy[k] - clean[k]).std((1, 2)) / 255, rtol=1e-6)
        assert row["data_range"] == 255


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_single_images_make_a_store_of_one_array(folders: tuple[Path, Path], tmp_path: Path, side: str) -> None:
    url = one_sided(folders[0], tmp_path, side)
    store = PatchStore.open(url)
    assert store.layout.arrays == (side,)
    rows = load_catalogue(str(tmp_path / "single"))[0].to_pylist()
    whole = np.moveaxis(read_one(rows[1], side), -1, 0)
    row = store.table.to_pylist()[9]
    np.testing.assert_array_equal(store.read_image(9, side), whole[:, :32, :32])
    np.testing.assert_allclose(row["image_mean"], whole[:, :32, :32].mean((1, 2)) / 255, rtol=1e-6)
    assert "noise_std" not in row
    assert set(inspect(url)) >= {"image", "saturated", "stored_bytes"}
    assert verify(url)["verified"]
    assert not list(Path(url).glob("noisy" if side == "clean" else "clean"))
    for needs_pairs in (lambda: store.read(0), lambda: open_references(url)):
        with pytest.raises(UserError, match=f"contains only {side} images"):
            needs_pairs()
    if side == "noisy":
        with pytest.raises(UserError, match="contains only noisy images"):
            open_clean(url)
        return
    parameters = CorpusParameters(
        output=str(tmp_path / "corpus"), model="awgn", references="shipped", clean=url, crop=32, shard=8
    )
    assert make_corpus_shards(plan_corpus(parameters))["made"] == 5


def one_sided(root: Path, tmp_path: Path, side: str) -> str:
    """A store of a catalogue that has only one side: as an adapter for benchmarks or clean sets yields it."""
    import pyarrow as pa

    from tasks.datasets.catalogue import COMMIT, SCHEMA
    from tasks.stores.io.filesystem import sha256
    from tasks.stores.io.tables import encode_table

    rules, both, single = tmp_path / "r.yaml", tmp_path / "both", tmp_path / "single"
    rules.write_text(SHARED_RULES)
    ingest(str(root), str(rules), str(both))
    other = "clean" if side == "noisy" else "noisy"
    rows = load_catalogue(str(both))[0].to_pylist()
    rows = [row | {other: None, f"{other}_part": None, f"{other}_sha256": None} for row in rows]
    content = encode_table(pa.Table.from_pylist(rows, SCHEMA))
    single.mkdir()
    (single / "catalogue.parquet").write_bytes(content)
    record = json.loads((both / COMMIT).read_text())
    (single / COMMIT).write_text(json.dumps(record | {"table_sha256": sha256(content), "digest": side}))
    extract_patches(str(single), str(tmp_path / "p1"), geometry=SMALL, shard=8)
    return str(tmp_path / "p1")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_and_float_images(tmp_path: Path, pair: Callable, dtype: str, channels: int) -> None:
    root, rules = tmp_path / "pairs", tmp_path / "r.yaml"
    rules.write_text(SHARED_RULES)
    for name in ("a", "b"):
        for side, image in zip(("noisy", "clean"), pair(ord(name), 80, 70, channels, "uint16"), strict=True):
            (root / side).mkdir(parents=True, exist_ok=True)
            pixels = image.astype(dtype) if dtype == "uint16" else (image / np.float32(65535)).astype(np.float32)
            flat = pixels[..., 0] if channels == 1 else pixels
            tifffile.imwrite(root / side / f"{name}.tif", flat, photometric="minisblack" if channels == 1 else "rgb")
    ingest(str(root), str(rules), str(tmp_path / "c"))
    url = str(tmp_path / "p")
    extract_patches(str(tmp_path / "c"), url, geometry=SMALL, shard=5)
    store = PatchStore.open(url)
    assert (store.layout.dtype, store.layout.channels, len(store)) == (dtype, channels, 18)
    rows = {r["pair"]: r for r in load_catalogue(str(tmp_path / "c"))[0].to_pylist()}
    for k, row in enumerate(store.table.to_pylist()):
        for side, patch in zip(("clean", "noisy"), store.read(k), strict=True):
            whole = np.moveaxis(read_one(rows[row["pair"]], side), -1, 0)
            np.testing.assert_array_equal(patch, whole[:, row["y"] : row["y"] + 32, row["x"] : row["x"] + 32])
        assert 0.001 < np.mean(row["noise_std"]) < 0.2
        assert row["data_range"] == (65535 if dtype == "uint16" else rows[row["pair"]]["data_range"])
    assert verify(url)["verified"]


def test_catalogues_of_several_kinds_are_cut_by_filters(
    folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    root, rules = folders
    for side, image in zip(("noisy", "clean"), pair(7, channels=1), strict=True):
        save(root / side / "street_100_9.png", image)
    ingest(str(root), str(rules), str(tmp_path / "c"))
    url = itertools.count()

    def cut(**select: Any) -> dict[str, Any]:
        location = str(tmp_path / f"p{next(url)}")
        return extract_patches(str(tmp_path / "c"), location, geometry=SMALL, shard=8, select=Selection(**select))

    with pytest.raises(UserError, match=r"1 of 1 x uint8 \(clean and noisy\); 4 of 3 x uint8.*--channels"):
        cut()
    assert cut(channels=1)["patches"] == 9
    assert cut(channels=3)["patches"] == 36
    assert cut(channels=3, split="validation")["patches"] == 18
    assert cut(channels=3, camera="GP", dtype="uint8")["patches"] == 18
    with pytest.raises(UserError, match=r"no image has camera 'S7'; available values: camera: \['GP', 'None'\]"):
        cut(camera="S7")


def test_a_store_of_the_first_format_version_says_what_to_do(patches: str) -> None:
    path = Path(patches) / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    with pytest.raises(UserError, match=r"store\.json: format_version is 1.*make it again"):
        PatchStore.open(patches)


def test_the_printed_schema_is_that_of_the_record(patches: str) -> None:
    found = record_schema("patch-store")
    record = json.loads((Path(patches) / "store.json").read_text())
    assert set(found["required"]) == set(record)
    assert set(found["properties"]) == set(record)
    PatchStoreRecord.model_validate(record)
    assert record_schema("corpus")["properties"]["format_version"] == {
        "const": 4,
        "title": "Format Version",
        "type": "integer",
    }
    catalogue = record_schema("catalogue")
    assert catalogue["properties"]["format_version"]["const"] == 3
    assert set(catalogue["required"]) >= {"source", "adapter", "pairs", "digest"}
    with pytest.raises(UserError, match="choose one of catalogue, patch-store, corpus"):
        record_schema("patches")


def test_damage_in_a_part_is_named(patches: str) -> None:
    path = Path(patches) / part_name(2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"00002\.parquet"):
        _ = PatchStore.open(patches).table
