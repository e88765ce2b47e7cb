"""Sharded pairs: layout arithmetic, what may be written, what verification finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import part_name
from tasks.stores.io.filesystem import open_array, sha256
from tasks.stores.layout import Layout, shard_object
from tasks.stores.patch_store import PatchStore
from tasks.stores.reader import PartsReader
from tasks.stores.records import ShardsRecord
from tasks.stores.shard_file import assemble, index_size, read_index
from tasks.stores.writer import ShardWriter

LAYOUT = Layout(5, 2, 1, 8, 8, "uint16")
PADDED = Layout(5, 3, 1, 8, 8, "uint16", filled=(3, 1, 1))
COMMIT = "done.json"


def fill(writer: ShardWriter, index: int) -> None:
    rows, codec = writer.layout.rows(index), writer.layout.codec
    clean = [np.full((1, 8, 8), 100 * r, np.uint16) for r in rows]
    chunks = {"clean": [codec.encode(c) for c in clean], "noisy": [codec.encode(c + np.uint16(1)) for c in clean]}
    writer.write(index, chunks, pa.table({"row": list(rows)}))


def commit(writer: ShardWriter) -> None:
    record = {"licence": "CC0", "parts": writer.list_parts(writer.layout.shards)}
    writer.commit_images(COMMIT, ShardsRecord, record)


def made(url: str, layout: Layout = LAYOUT) -> str:
    writer = ShardWriter(url, "test store", layout, {"colour": "none"})
    writer.prepare()
    for index in (2, 0, 1):
        fill(writer, index)
    commit(writer)
    return url


def opened(url: str, **options: Any) -> PartsReader[ShardsRecord]:
    return PartsReader(url, COMMIT, ShardsRecord, **options)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A committed store of five pairs in three shards."""
    return made(str(tmp_path / "store"))


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_shards_share_out_all_pairs_once(pairs: int, shard: int) -> None:
    layout = Layout(pairs, shard, 3, 8, 8, "uint8")
    rows = [r for i in range(layout.shards) for r in layout.rows(i)]
    assert rows == list(range(pairs))
    assert all(0 < len(layout.rows(i)) <= shard for i in range(layout.shards))
    assert all(len(layout.rows(i)) == shard for i in range(layout.shards - 1))
    assert all(layout.slot(pair) == pair for pair in (0, pairs // 2, pairs - 1))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=30))
def test_padded_shards_hold_what_they_say(filled: list[int]) -> None:
    layout = Layout(sum(filled), 7, 3, 8, 8, "uint8", filled=tuple(filled))
    assert layout.problem() is None
    assert (layout.shards, layout.length) == (len(filled), 7 * len(filled))
    locations = [layout.location(pair) for pair in range(layout.pairs)]
    assert locations == [(k, position) for k, n in enumerate(filled) for position in range(n)]
    assert [layout.slot(pair) for pair in range(layout.pairs)] == [7 * k + position for k, position in locations]
    assert [r for k in range(layout.shards) for r in layout.rows(k)] == list(range(layout.pairs))


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(5, 2, 1, 8, 8, "uint8", filled=(2, 2)), "do not match 'filled'"),
        (Layout(3, 2, 1, 8, 8, "uint8", filled=(3,)), "do not match 'filled'"),
        (Layout(2, 2, 1, 8, 8, "uint8", filled=(2, 0)), "do not match 'filled'"),
        (Layout(0, 2, 1, 8, 8, "uint8"), "below 1"),
        (Layout(2, 2, 1, 8, 8, "uint8", arrays=("clean", "dirty")), "dirty"),
    ],
)
def test_impossible_layouts_are_refused(tmp_path: Path, layout: Layout, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ShardWriter(str(tmp_path / "s"), "test store", layout, {})


def test_raw_bytes() -> None:
    assert Layout(1, 1, 3, 10, 20, "uint16").raw_bytes == 2 * 3 * 10 * 20 * 2
    assert Layout(8, 1, 3, 10, 20, "uint8", repeats=4).raw_bytes == (2 + 8) * 3 * 10 * 20
    assert Layout(8, 1, 3, 10, 20, "uint8", ("noisy",), repeats=4).raw_bytes == 8 * 3 * 10 * 20


@pytest.mark.parametrize("kept_shards", [0, 1])
@pytest.mark.parametrize("layout", [LAYOUT, PADDED])
def test_what_was_written_is_read(tmp_path: Path, layout: Layout, kept_shards: int) -> None:
    reader = opened(made(str(tmp_path / "s"), layout), kept_shards=kept_shards)
    assert len(reader) == 5
    assert reader.table.column("row").to_pylist() == [0, 1, 2, 3, 4]
    for row in range(5):
        clean, noisy = reader.read(row)
        assert clean.dtype == np.uint16
        assert np.unique(clean).tolist() == [100 * row]
        assert np.unique(noisy).tolist() == [100 * row + 1]
    found = reader.read_many([4, 0, 4], ("noisy",))["noisy"]
    assert [int(image[0, 0, 0]) for image in found] == [401, 1, 401]
    assert list(reader.verify()) == []


@pytest.mark.parametrize("layout", [LAYOUT, PADDED])
def test_zarr_opens_the_store(tmp_path: Path, layout: Layout) -> None:
    url = made(str(tmp_path / "s"), layout)
    array = open_array(f"{url}/noisy")
    assert array.shape == (layout.length, 1, 8, 8)
    for pair in range(5):
        assert np.unique(np.asarray(array[layout.slot(pair)])).tolist() == [100 * pair + 1]


@pytest.mark.parametrize(
    ("clean", "noisy", "rows"),
    [(1, 1, 1), (2, 1, 2), (2, 2, 3), (3, 3, 3), (2, None, 2)],  # half a shard, ..., one array only
)
def test_anything_but_a_whole_shard_is_an_assertion(tmp_path: Path, clean: int, noisy: int | None, rows: int) -> None:
    writer = ShardWriter(str(tmp_path / "s"), "test store", LAYOUT, {})
    writer.prepare()
    chunk = LAYOUT.codec.encode(np.zeros((1, 8, 8), np.uint16))
    chunks = {"clean": [chunk] * clean} | ({} if noisy is None else {"noisy": [chunk] * noisy})
    with pytest.raises(AssertionError):
        writer.write(0, chunks, pa.table({"row": list(range(rows))}))
    assert not writer.done(0)


def test_a_store_with_missing_shards_is_not_committed(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path / "s"), "test store", LAYOUT, {})
    writer.prepare()
    fill(writer, 1)
    with pytest.raises(UserError, match=r"2 of 3 parts are missing.*parts/00000\.parquet, parts/00002\.parquet"):
        commit(writer)
    assert not (tmp_path / "s" / COMMIT).exists()


def test_order_and_processes_do_not_change_the_digest(
    store: str, tmp_path: Path, tree: Callable[[str], dict[str, bytes]]
) -> None:
    url = str(tmp_path / "other")
    for index in (0, 1, 2):
        writer = ShardWriter(url, "test store", LAYOUT, {"colour": "none"})
        writer.prepare()
        fill(writer, index)
    commit(writer)
    assert tree(url) == tree(store)


def test_a_shard_of_another_plan_is_not_done(store: str) -> None:
    other = ShardWriter(store, "test store", LAYOUT, {"colour": "red"})
    assert not other.done(0)
    with pytest.raises(UserError, match=r"recipe\.colour \('none' exists, 'red' requested\)"):
        other.prepare()


EVERY_FILE = [
    "plan.json",
    "zarr.json",
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
    problems = list(opened(store).verify())
    if name == "plan.json":
        assert problems == [
            f"{store}/{COMMIT}: its digest does not match plan and parts; one of them is missing or was edited"
        ]
    else:
        assert problems == [f"{store}/{name}: missing"]


@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_verify_names_the_damaged_file(store: str, name: str) -> None:
    path = Path(store) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    problems = list(opened(store).verify())
    assert [p for p in problems if name in p] == problems
    assert len(problems) == 1


def test_verify_tells_every_problem(store: str) -> None:
    for name in EVERY_FILE[4:7]:
        (Path(store) / name).unlink()
    assert len(list(opened(store).verify())) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("licence", "mine"),
        ("recipe", {}),
        ("digest", "0"),
        ("layout", LAYOUT.as_json() | {"pairs": 6}),
    ],
)
def test_an_edited_commit_record_is_found(store: str, key: str, value: Any) -> None:
    path = Path(store) / COMMIT
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert any("edited" in p for p in opened(store).verify())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 3}, r"format_version is 3, this release reads 4; make it again"),
        ({"format_version": 5}, r"format_version is 5.*update pngnoise"),
        ({"format_version": None}, "'format_version'"),
        ({"layout": LAYOUT.as_json() | {"pairs": 7}}, "does not list every object"),
        ({"layout": LAYOUT.as_json() | {"filled": [2, 2]}}, "impossible layout|does not list"),
        ({"parts": []}, "does not list every object"),
        ({"surprise": 1}, "'surprise'"),
    ],
)
def test_a_record_of_another_kind_is_not_opened(store: str, change: dict[str, Any], words: str) -> None:
    path = Path(store) / COMMIT
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        opened(store)


def rewritten(store: str, change: Callable[[bytes], bytes], *, digests: bool) -> None:
    """Change a shard object, and with ``digests`` the record too: what a faulty writer would leave."""
    path, commit = Path(store) / shard_object("noisy", 0), Path(store) / COMMIT
    path.write_bytes(change(path.read_bytes()))
    if digests:
        record, content = json.loads(commit.read_text()), path.read_bytes()
        record["parts"][0]["objects"][shard_object("noisy", 0)] = {"sha256": sha256(content), "bytes": len(content)}
        commit.write_text(json.dumps(record))


@pytest.mark.parametrize("kept_shards", [0, 1])
def test_an_absent_chunk_is_an_error_and_not_zeros(store: str, kept_shards: int) -> None:
    def without_second(content: bytes) -> bytes:
        entry = read_index(content[-index_size(2) :], 2, len(content) - index_size(2))[0]
        assert entry is not None
        return assemble([content[slice(*entry)]], 2)

    rewritten(store, without_second, digests=True)
    reader = opened(store, kept_shards=kept_shards)
    assert reader.read_image(0, "noisy").min() == 1
    with pytest.raises(IntegrityError, match=r"noisy/c/0/0/0/0: is damaged \(slot 1 is absent"):
        reader.read(1)


@pytest.mark.parametrize("kept_shards", [0, 1])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:-5] + bytes([c[-5] ^ 1]) + c[-4:], "sha256|checksum"),  # the index
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "sha256|checksum"),
        (lambda c: c[:10] + bytes([c[10] ^ 255]) + c[11:], "sha256|chunk"),
        (lambda c: c[:-1], "shorter"),
        (lambda c: assemble([c[:40]] * 2, 2), "sha256|shorter"),
    ],
)
def test_a_damaged_object_is_an_error(store: str, kept_shards: int, change: Any, words: str) -> None:
    rewritten(store, change, digests=False)
    with pytest.raises(IntegrityError, match=rf"noisy/c/0/0/0/0: is damaged \(.*({words})"):
        opened(store, kept_shards=kept_shards).read(0)


def test_whole_shards_are_fetched_once_and_the_last_few_kept(store: str) -> None:
    reader = opened(store, kept_shards=1)
    reader.read(0)
    (Path(store) / shard_object("noisy", 0)).unlink()
    reader.read(1)  # in memory
    reader.read(4)
    with pytest.raises(IntegrityError, match=r"noisy/c/0/0/0/0: is missing"):
        reader.read(0)


def test_one_sided_stores_say_so(tmp_path: Path) -> None:
    layout = Layout(1, 2, 1, 8, 8, "uint16", arrays=("noisy",))
    writer = ShardWriter(str(tmp_path / "s"), "test store", layout, {})
    writer.prepare()
    writer.write(0, {"noisy": [layout.codec.encode(np.ones((1, 8, 8), np.uint16))]}, pa.table({"row": [0]}))
    commit(writer)
    reader = opened(str(tmp_path / "s"))
    assert reader.read_image(0, "noisy").all()
    for look in (lambda: reader.read(0), lambda: reader.read_image(0, "clean")):
        with pytest.raises(UserError, match="contains only noisy images, no clean"):
            look()
    assert list(reader.verify()) == []


def test_a_plan_is_taken_up_by_its_place_alone(store: str, tmp_path: Path) -> None:
    assert ShardWriter.planned(store).done(0)
    with pytest.raises(UserError, match=r"plan\.json: missing"):
        ShardWriter.planned(str(tmp_path / "nothing"))
    path = Path(store) / "plan.json"
    plan = json.loads(path.read_text())
    for change, words in (
        ({"format_version": 1}, "format_version is 1"),
        ({"recipe": {"colour": "blue"}}, "edited"),
        ({"layout": {}}, "damaged"),
    ):
        path.write_text(json.dumps(plan | change))
        with pytest.raises(UserError, match=words):
            ShardWriter.planned(store)


def test_an_edited_plan_is_found(store: str) -> None:
    path = Path(store) / "plan.json"
    plan = json.loads(path.read_text())
    plan["recipe"]["colour"] = "blue"
    path.write_text(json.dumps(plan))
    assert any("does not match plan and parts" in p for p in opened(store).verify())


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"layout": {}}'])
def test_a_commit_record_without_content_is_damaged(store: str, content: str) -> None:
    (Path(store) / COMMIT).write_text(content)
    with pytest.raises(IntegrityError, match=r"done\.json"):
        opened(store)


def test_a_damaged_part_is_not_read(store: str) -> None:
    path = Path(store) / part_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"00001\.parquet"):
        _ = opened(store).table


def test_patch_stores_verify_whole(patches: str) -> None:
    store = PatchStore.open(patches)
    assert list(store.verify()) == []
    assert store.layout.shards == 8
