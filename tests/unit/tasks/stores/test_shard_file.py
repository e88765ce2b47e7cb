"""Shard objects: zarr-python reads what is written here and the other way round; damage is an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore

from tasks.stores.shard_file import DTYPES, ChunkCodec, DamagedShard, assemble, index_size, read_index

shapes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
images = st.tuples(st.sampled_from(DTYPES), shapes).flatmap(lambda k: hnp.arrays(np.dtype(k[0]), k[1]))
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def opened(memory: dict[str, Any], codec: ChunkCodec, length: int, slots: int) -> zarr.Array[Any]:
    from zarr.core.buffer import default_buffer_prototype

    document = codec.array_document((length,), slots)
    memory["zarr.json"] = default_buffer_prototype().buffer.from_bytes(document)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.open_array(MemoryStore(memory), mode="r+")


@quick
@given(images, st.integers(0, 3))
def test_zarr_reads_what_is_written_here(stack: np.ndarray, spare: int) -> None:
    from zarr.core.buffer import default_buffer_prototype

    codec, slots = ChunkCodec(*stack.shape[1:], str(stack.dtype)), len(stack) + spare
    memory: dict[str, Any] = {}
    array = opened(memory, codec, slots, slots)
    whole = assemble([codec.encode(image) for image in stack], slots)
    memory["c/0/0/0/0"] = default_buffer_prototype().buffer.from_bytes(whole)
    found = np.asarray(array[:])
    assert found[: len(stack)].tobytes() == stack.tobytes()
    assert not found[len(stack) :].any()  # absent chunks are the fill value to zarr; readers here refuse them


@quick
@given(images, st.integers(0, 3))
def test_what_zarr_writes_is_read_here(stack: np.ndarray, spare: int) -> None:
    codec, slots = ChunkCodec(*stack.shape[1:], str(stack.dtype)), len(stack) + spare
    memory: dict[str, Any] = {}
    array = opened(memory, codec, len(stack), slots)
    array.with_config({"write_empty_chunks": True})[:] = stack
    content = bytes(memory["c/0/0/0/0"].to_bytes())
    payload = len(content) - index_size(slots)
    index = read_index(content[payload:], slots, payload)
    assert [entry is None for entry in index] == [k >= len(stack) for k in range(slots)]
    for image, entry in zip(stack, index, strict=False):
        assert entry is not None
        assert codec.decode(content[slice(*entry)]).tobytes() == image.tobytes()


@quick
@given(images)
def test_an_image_survives_and_may_be_written_to(stack: np.ndarray) -> None:
    codec = ChunkCodec(*stack.shape[1:], str(stack.dtype))
    for image in (stack[0], stack[-1][:, ::-1][:, ::-1]):
        found = codec.decode(codec.encode(image))
        assert found.tobytes() == np.ascontiguousarray(image).tobytes()
        assert found.dtype == image.dtype
        assert found.flags.writeable
        assert found.flags.c_contiguous


@pytest.mark.parametrize("image", [np.zeros((1, 4, 5), np.uint8), np.zeros((1, 5, 4), np.uint16)])
def test_an_image_of_another_kind_is_an_assertion(image: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        ChunkCodec(1, 5, 4, "uint8").encode(image)


@pytest.fixture
def shard() -> tuple[ChunkCodec, bytes, int]:
    codec = ChunkCodec(3, 8, 8, "uint8")
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    return codec, assemble([codec.encode(image) for image in noise], 5), 5


def test_no_changed_bit_changes_pixels_in_silence(shard: tuple[ChunkCodec, bytes, int]) -> None:
    codec, whole, slots = shard
    payload = len(whole) - index_size(slots)
    for location in range(len(whole)):
        damaged = bytearray(whole)
        damaged[location] ^= 1 << location % 8
        try:
            index = read_index(bytes(damaged[payload:]), slots, payload)
            found = [codec.decode(bytes(damaged[slice(*e)])) for e in index if e is not None]
        except DamagedShard:
            continue
        raise AssertionError(f"a flipped bit of byte {location} was not noticed: {len(found)} images")


def test_cut_and_foreign_indices_are_damage(shard: tuple[ChunkCodec, bytes, int]) -> None:
    _, whole, slots = shard
    payload = len(whole) - index_size(slots)
    with pytest.raises(DamagedShard, match="bytes where"):
        read_index(whole[payload + 1 :], slots, payload)
    with pytest.raises(DamagedShard, match="not in the object"):
        read_index(whole[payload:], slots, payload - 1)
    assert read_index(whole[payload:], slots, payload)[3:] == [None, None]


def test_a_chunk_of_another_size_is_damage() -> None:
    chunk = ChunkCodec(1, 8, 8, "uint8").encode(np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(DamagedShard, match="64 bytes, expected 81"):
        ChunkCodec(1, 9, 9, "uint8").decode(chunk)


def test_zarr_opens_the_folder(tmp_path: Path) -> None:
    codec = ChunkCodec(3, 16, 16, "uint16")
    stack = np.random.default_rng(1).integers(0, 65536, (4, 3, 16, 16)).astype(np.uint16)
    (tmp_path / "zarr.json").write_bytes(codec.array_document((6,), 3))
    for k in range(2):
        location = tmp_path / f"c/{k}/0/0/0"
        location.parent.mkdir(parents=True)
        location.write_bytes(assemble([codec.encode(image) for image in stack[2 * k : 2 * k + 2]], 3))
    found = np.asarray(zarr.open_array(tmp_path, mode="r")[:])
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], stack)
