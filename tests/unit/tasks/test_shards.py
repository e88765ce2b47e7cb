"""Sharded pairs: layout arithmetic, what may be written, what verification finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.patches import PatchStore
from tasks.stores.shards import Layout, ShardReader, ShardWriter, part_name, shard_object

LAYOUT = Layout(5, 2, 1, 8, 8, "uint16")
COMMIT = "done.json"


def fill(writer: ShardWriter, index: int) -> None:
    rows = writer.layout.rows(index)
    clean = np.stack([np.full((1, 8, 8), 100 * r, np.uint16) for r in rows])
    digests = [sha256(c.tobytes() + (c + 1).tobytes()).hexdigest() for c in clean]
    writer.write(index, clean, clean + 1, pa.table({"row": list(rows), "sha256": digests}))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A committed store of five pairs in three shards."""
    url = str(tmp_path / "store")
    writer = ShardWriter(url, "test store", LAYOUT, {"colour": "none"})
    writer.prepare()
    for index in (2, 0, 1):
        fill(writer, index)
    writer.commit(COMMIT, {"licence": "CC0", "recipe": {"colour": "none"}})
    return url


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_shards_share_out_all_pairs_once(pairs: int, shard: int) -> None:
    layout = Layout(pairs, shard, 3, 8, 8, "uint8")
    rows = [r for i in range(layout.shards) for r in layout.rows(i)]
    assert rows == list(range(pairs))
    assert all(0 < len(layout.rows(i)) <= shard for i in range(layout.shards))
    assert all(len(layout.rows(i)) == shard for i in range(layout.shards - 1))


def test_bytes_per_pair() -> None:
    assert Layout(1, 1, 3, 10, 20, "uint16").bytes_per_pair == 2 * 3 * 10 * 20 * 2


def test_what_was_written_is_read(store: str) -> None:
    reader = ShardReader(store, COMMIT)
    assert len(reader) == 5
    assert reader.table.column("row").to_pylist() == [0, 1, 2, 3, 4]
    for row in range(5):
        clean, noisy = reader.read(row)
        assert clean.dtype == np.uint16
        assert np.unique(clean).tolist() == [100 * row]
        assert np.unique(noisy).tolist() == [100 * row + 1]
    assert list(reader.verify()) == []


@pytest.mark.parametrize(
    ("clean", "noisy", "rows"),
    [
        (np.zeros((1, 1, 8, 8), np.uint16), np.zeros((1, 1, 8, 8), np.uint16), 1),  # half a shard
        (np.zeros((2, 1, 8, 8), np.uint16), np.zeros((1, 1, 8, 8), np.uint16), 2),
        (np.zeros((2, 8, 8, 1), np.uint16), np.zeros((2, 8, 8, 1), np.uint16), 2),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.uint8), 2),
        (np.zeros((2, 1, 8, 8), np.uint16), np.zeros((2, 1, 8, 8), np.uint16), 3),
    ],
)
def test_anything_but_a_whole_shard_is_an_assertion(tmp_path: Path, clean: Any, noisy: Any, rows: int) -> None:
    writer = ShardWriter(str(tmp_path / "s"), "test store", LAYOUT, {})
    writer.prepare()
    with pytest.raises(AssertionError):
        writer.write(0, clean, noisy, pa.table({"row": list(range(rows))}))
    assert not writer.done(0)


def test_a_store_with_missing_shards_is_not_committed(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path / "s"), "test store", LAYOUT, {})
    writer.prepare()
    fill(writer, 1)
    with pytest.raises(UserError, match=r"shards \[0, 2\] are missing"):
        writer.commit(COMMIT, {})
    assert not (tmp_path / "s" / COMMIT).exists()


def test_order_and_processes_do_not_change_the_digest(
    store: str, tmp_path: Path, tree: Callable[[str], dict[str, bytes]]
) -> None:
    url = str(tmp_path / "other")
    for index in (0, 1, 2):
        writer = ShardWriter(url, "test store", LAYOUT, {"colour": "none"})
        writer.prepare()
        fill(writer, index)
    writer.commit(COMMIT, {"licence": "CC0", "recipe": {"colour": "none"}})
    assert tree(url) == tree(store)


def test_a_shard_of_another_plan_is_not_done(store: str) -> None:
    other = ShardWriter(store, "test store", LAYOUT, {"colour": "red"})
    assert not other.done(0)
    with pytest.raises(UserError, match=r"recipe\.colour \('none' there, 'red' asked for\)"):
        other.prepare()


EVERY_FILE = [
    "plan.json",
    "clean/zarr.json",
    "noisy/zarr.json",
    *(part_name(i) for i in range(3)),
    *(shard_object(name, i) for name in ("clean", "noisy") for i in range(3)),
]


def test_these_are_all_files(store: str, tree: Callable[[str], dict[str, bytes]]) -> None:
    assert sorted(tree(store)) == sorted([*EVERY_FILE, COMMIT])


@pytest.mark.parametrize("name", EVERY_FILE)
def test_verify_names_the_missing_file(store: str, name: str) -> None:
    (Path(store) / name).unlink()
    problems = list(ShardReader(store, COMMIT).verify())
    assert problems == [f"{store}/{name}: missing"]


@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_verify_names_the_damaged_file(store: str, name: str) -> None:
    path = Path(store) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    problems = list(ShardReader(store, COMMIT).verify())
    assert [p for p in problems if name in p] == problems
    assert len(problems) == 1


def test_verify_tells_every_problem(store: str) -> None:
    for name in EVERY_FILE[3:6]:
        (Path(store) / name).unlink()
    assert len(list(ShardReader(store, COMMIT).verify())) == 3


@pytest.mark.parametrize("key", ["licence", "recipe", "layout", "digest"])
def test_an_edited_commit_record_is_found(store: str, key: str) -> None:
    path = Path(store) / COMMIT
    record = json.loads(path.read_text())
    record[key] = LAYOUT.__dict__ | {"shard": 3} if key == "layout" else "something else"
    path.write_text(json.dumps(record))
    assert any("edited" in p for p in ShardReader(store, COMMIT).verify())


def test_an_edited_plan_is_found(store: str) -> None:
    path = Path(store) / "plan.json"
    plan = json.loads(path.read_text())
    plan["recipe"]["colour"] = "blue"
    path.write_text(json.dumps(plan))
    assert any("plan.json" in p and "edited" in p for p in ShardReader(store, COMMIT).verify())


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"layout": {}}'])
def test_a_commit_record_without_content_is_damaged(store: str, content: str) -> None:
    (Path(store) / COMMIT).write_text(content)
    with pytest.raises(IntegrityError, match=r"done\.json"):
        ShardReader(store, COMMIT)


def test_a_damaged_part_is_not_read(store: str) -> None:
    path = Path(store) / part_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"00001\.parquet"):
        _ = ShardReader(store, COMMIT).table


def test_patch_stores_verify_whole(patches: str) -> None:
    store = PatchStore.open(patches)
    assert list(store.verify()) == []
    assert store.layout.shards == 5
