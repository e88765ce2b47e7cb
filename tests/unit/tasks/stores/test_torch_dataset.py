"""Patch stores for PyTorch: items, views, real workers, an order that can be taken up anywhere."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.stores import reader
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.layout import shard_object
from tasks.stores.patch_store import PatchStore
from tasks.stores.torch_dataset import PatchDataset, ShardBatches, ShuffledOrder


def test_items_are_the_stored_patches(patches: str) -> None:
    data, store = PatchDataset(patches), PatchStore.open(patches)
    assert len(data) == 36
    for item, index in zip(data.__getitems__([35, 0, 9]), (35, 0, 9), strict=True):
        clean, noisy = store.read(index)
        assert item["clean"].dtype == torch.uint8
        assert item["index"] == index
        np.testing.assert_array_equal(item["clean"], clean)
        np.testing.assert_array_equal(item["noisy"], noisy)


def test_views_by_split_and_camera(patches: str) -> None:
    rows = PatchStore.open(patches).table.to_pylist()
    for split, camera in (("train", None), ("validation", None), (None, "GP"), ("train", "GP")):
        data = PatchDataset(patches, split=split, camera=camera)
        expected = [
            r["patch"] for r in rows if split in (None, r["split"]) and (camera is None or r["camera"] == camera)
        ]
        assert [int(data[k]["index"]) for k in range(len(data))] == expected
    with pytest.raises(UserError, match=r"no patch of split 'test'.*\['train', 'validation'\]"):
        PatchDataset(patches, split="test")
    with pytest.raises(UserError, match="no patch of camera 'S6'"):
        PatchDataset(patches, camera="S6")


@pytest.mark.parametrize("whole_shards", [False, True])
def test_spawned_workers_read_the_same(patches: str, whole_shards: bool) -> None:
    data = PatchDataset(patches, whole_shards=whole_shards)
    data[0]  # an open store stays behind
    order = ShuffledOrder(data, 3, by_shard=whole_shards)
    loader = DataLoader(data, 5, sampler=order, num_workers=2, multiprocessing_context="spawn")
    store, seen = PatchStore.open(patches), []
    for batch in loader:
        for clean, noisy, index in zip(batch["clean"], batch["noisy"], batch["index"], strict=True):
            np.testing.assert_array_equal(clean, store.read(int(index))[0])
            np.testing.assert_array_equal(noisy, store.read(int(index))[1])
            seen.append(int(index))
    assert seen == list(order)
    assert sorted(seen) == list(range(36))


def test_what_travels_is_small_and_a_changed_store_is_noticed(catalogue: str, patches: str, tmp_path: Path) -> None:
    data = PatchDataset(patches, whole_shards=True)
    data[0]
    sent = pickle.dumps(data)
    assert len(sent) < 3000
    assert pickle.loads(sent)[7]["index"] == 7
    moved = Path(patches).rename(tmp_path / "moved")
    extract_patches(catalogue, patches, geometry=Geometry(size=48))
    with pytest.raises(IntegrityError, match="changed since it was opened"):
        pickle.loads(sent)[7]
    assert moved.is_dir()


def test_both_sides_of_a_shard_are_fetched_at_once_and_once(patches: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PatchDataset(patches, whole_shards=True)
    requests: list[list[str]] = []

    def counted(ranges: list[ByteRange], use: Callable[[int, bytes], Any]) -> list[Any]:
        requests.append([span.url for span in ranges if "/c/" in span.url])
        return read_ranges(ranges, use)

    monkeypatch.setattr(reader, "read_ranges", counted)
    batch = [35, 0, 9, 1, 0, 20, 30]  # more shards than are kept
    found = data.__getitems__(batch)
    assert [int(item["index"]) for item in found] == batch
    shards = sorted({int(data.shards[k]) for k in batch})
    assert requests == [[f"{patches}/{shard_object(name, k)}" for name in ("clean", "noisy")] for k in shards]
    data.__getitems__([35, 34])
    assert [r for r in requests[len(shards) :] if r] == []


@pytest.mark.parametrize("whole_shards", [False, True])
def test_damage_stops_the_training(patches: str, whole_shards: bool) -> None:
    path = Path(patches) / shard_object("clean", 2)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="clean/c/2"):
        PatchDataset(patches, whole_shards=whole_shards).__getitems__(list(range(36)))


@pytest.mark.parametrize("by_shard", [False, True])
def test_the_order_can_be_taken_up_at_any_sample(patches: str, by_shard: bool) -> None:
    data = PatchDataset(patches, split="train")
    whole = list(ShuffledOrder(data, 5, samples=60, by_shard=by_shard))
    for start in (0, 1, 17, 18, 35, 59):
        again = ShuffledOrder(data, 5, start=start, samples=60 - start, by_shard=by_shard)
        assert len(again) == 60 - start
        assert list(again) == whole[start:]
    epochs = [whole[k : k + 18] for k in (0, 18, 36)]
    assert all(sorted(epoch) == list(range(18)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(ShuffledOrder(data, 6, samples=60, by_shard=by_shard)) != whole


def test_by_shard_finishes_a_shard_before_the_next(patches: str) -> None:
    data = PatchDataset(patches)
    shards = [int(data.shards[k]) for k in ShuffledOrder(data, 1, by_shard=True)]
    changes = sum(a != b for a, b in itertools.pairwise(shards))
    assert changes == len(set(shards)) - 1 == 7
    assert Counter(shards) == Counter(data.shards.tolist())


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 4, 7, 50])
def test_batches_are_dealt_by_shards(patches: str, workers: int, size: int) -> None:
    data = PatchDataset(patches)
    whole = list(ShardBatches(data, size, seed=3, workers=workers, batches=3 * -(-36 // size)))
    epoch = len(ShardBatches(data, size, seed=3, workers=workers))
    for k in range(3):
        batches = whole[k * epoch : (k + 1) * epoch]
        assert sorted(p for batch in batches for p in batch) == list(range(36))
        assert sorted(map(len, batches))[1:] == [min(size, 36)] * (epoch - 1)
        runs = [batches[w :: max(1, workers)] for w in range(max(1, workers))]
        fetched = sum(len({int(data.shards[p]) for batch in run for p in batch}) for run in runs)
        assert fetched <= 8 + max(1, workers) - 1
    assert whole[:epoch] != whole[epoch : 2 * epoch]
    for start in (0, 1, epoch - 1, epoch, 2 * epoch + 1):
        again = ShardBatches(data, size, seed=3, workers=workers, start=start, batches=len(whole) - start)
        assert list(again) == whole[start:]


def test_workers_fetch_shards_of_their_own(patches: str) -> None:
    data = PatchDataset(patches, whole_shards=True)
    batches = ShardBatches(data, 5, seed=3, workers=2, start=1, batches=16)
    loader = DataLoader(data, batch_sampler=batches, num_workers=2, multiprocessing_context="spawn")
    assert [batch["index"].tolist() for batch in loader] == list(batches)
    for wrong in ({"size": 0}, {"workers": -1}, {"start": -1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ShardBatches(data, **({"size": 5, "seed": 3, "workers": 2} | wrong))


def test_the_order_is_the_same_with_every_numpy(patches: str) -> None:
    """Written down once: a training that is resumed after an update goes on with the same data."""
    assert list(ShuffledOrder(PatchDataset(patches), 0, samples=6)) == [31, 28, 35, 9, 20, 16]


def test_sixteen_bits(pair: Callable, save: Callable, tmp_path: Path) -> None:
    from tasks.datasets.ingest import ingest

    for side, image in zip(("noisy", "clean"), pair(1, dtype="uint16"), strict=True):
        save(tmp_path / "pairs" / side / "a.tif", image)
    rules = "dataset: d\nlicence: CC0\nnoisy: noisy/(?P<pair>.+)\\.tif\nclean: clean/(?P<pair>.+)\\.tif\n"
    (tmp_path / "r.yaml").write_text(rules)
    ingest(str(tmp_path / "pairs"), str(tmp_path / "r.yaml"), str(tmp_path / "c"))
    extract_patches(str(tmp_path / "c"), str(tmp_path / "p"), geometry=Geometry(size=32))
    batch = next(iter(DataLoader(PatchDataset(str(tmp_path / "p")), 4)))
    assert batch["noisy"].dtype == torch.uint16
    assert batch["noisy"].shape == (4, 3, 32, 32)
