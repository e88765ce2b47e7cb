"""Encodes and decodes the shard objects of a Zarr v3 array: chunks, then an index of their offsets.

zarr-python writes the array's metadata and reads these objects. It is not used for writing them, because it is three
times slower and reads the index again for every chunk. docs/formats/patch-store.md specifies the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec
from zarr.storage import MemoryStore

Pixels = NDArray[Any]
"""Image levels: uint8, uint16 or float32."""

DTYPES = ("uint8", "uint16", "float32")
_ABSENT = 2**64 - 1
_LEVEL = 1
_CHECKSUM_BYTES = 4
_BLOSC_HEADER, _BLOSC_ZSTD, _BLOSC_COPIED = 16, 4, 2  # bytes; a number in three bits of the flags; a bit of the flags
_ENTRY = np.dtype("<u8")


class DamagedShard(ValueError):  # noqa: N818 - describes the damage; the reader adds the file
    """The bytes of a shard are damaged. The caller knows the file."""


@dataclass(frozen=True)
class ChunkCodec:
    """The codec pipeline of one array: Blosc with zstd, then crc32c. A chunk is one image (C, H, W).

    Zarr libraries in other languages read both codecs.
    """

    channels: int
    height: int
    width: int
    dtype: str

    @property
    def _little(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def _bytes(self) -> int:
        return self.channels * self.height * self.width * self._little.itemsize

    def encode(self, image: Pixels) -> bytes:
        """The chunk of one image. Asserts shape and dtype: anything else would be stored as another image."""
        assert image.shape == (self.channels, self.height, self.width), image.shape
        assert image.dtype == self.dtype, image.dtype
        packed = _blosc(np.ascontiguousarray(image).astype(self._little, copy=False).tobytes(), self._little.itemsize)
        return packed + _checksum(packed)

    def decode(self, chunk: bytes) -> Pixels:
        """The image of a chunk.

        Raises:
            DamagedShard: the checksum or the size is wrong.
        """
        packed = chunk[:-_CHECKSUM_BYTES]
        if chunk[-_CHECKSUM_BYTES:] != _checksum(packed):
            raise DamagedShard("a chunk does not match its checksum")
        if (size := int.from_bytes(packed[4:8], "little")) != self._bytes:
            raise DamagedShard(f"a chunk has {size} bytes, expected {self._bytes}")
        if not _is_framed(packed):
            raise DamagedShard("the header of a chunk contradicts its size")
        try:
            content = imagecodecs.blosc_decode(packed, numthreads=1)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"a chunk cannot be decoded ({error})") from None
        if len(content) != self._bytes:
            raise DamagedShard(f"a chunk has {len(content)} bytes, expected {self._bytes}")
        values = np.frombuffer(bytearray(content), self._little).astype(self.dtype, copy=False)
        return values.reshape(self.channels, self.height, self.width)

    def array_document(self, leading: tuple[int, ...], slots: int) -> bytes:
        """zarr.json of an array (\\*leading, C, H, W) with ``slots`` images of its last leading axis per shard."""
        memory: dict[str, Any] = {}
        image, ones = (self.channels, self.height, self.width), (1,) * (len(leading) - 1)
        size = self._little.itemsize
        shuffle = BloscShuffle.shuffle if size > 1 else BloscShuffle.noshuffle
        zarr.create_array(
            MemoryStore(memory),
            shape=(*leading, *image),
            dtype=self.dtype,
            chunks=(*ones, 1, *image),
            shards=(*ones, slots, *image),
            filters=[],
            compressors=[BloscCodec(typesize=size, cname="zstd", clevel=_LEVEL, shuffle=shuffle), Crc32cCodec()],
            fill_value=0,
        )
        return bytes(memory["zarr.json"].to_bytes())


def _blosc(content: bytes, size: int) -> bytes:
    return bytes(
        imagecodecs.blosc_encode(
            content, level=_LEVEL, compressor="zstd", shuffle=int(size > 1), typesize=size, numthreads=1
        )
    )


def _is_framed(packed: bytes) -> bool:
    """Whether a Blosc chunk (version 1 format, zstd) lies where its header says: the decoder believes the header, and
    reads wherever a stranger's leads it."""
    if len(packed) < _BLOSC_HEADER or packed[2] >> 5 != _BLOSC_ZSTD:
        return False
    size, block, length = (int.from_bytes(packed[k : k + 4], "little") for k in (4, 8, 12))
    if length != len(packed) or not 0 < block <= size:
        return False
    if packed[2] & _BLOSC_COPIED:
        return length == size + _BLOSC_HEADER
    first = _BLOSC_HEADER + 4 * -(-size // block)
    if first > length:
        return False
    starts = np.frombuffer(packed[_BLOSC_HEADER:first], "<u4")
    return bool(((starts >= first) & (starts.astype(np.int64) + 4 <= length)).all())


def _checksum(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(_CHECKSUM_BYTES, "little")


def index_size(slots: int) -> int:
    """Bytes of the index at the end of a shard."""
    return slots * 2 * _ENTRY.itemsize + _CHECKSUM_BYTES


def assemble(chunks: Sequence[bytes], slots: int) -> bytes:
    """A whole shard object: the chunks in order; the slots after them are absent."""
    assert 0 < len(chunks) <= slots, (len(chunks), slots)
    index = np.full((slots, 2), _ABSENT, _ENTRY)
    sizes = np.array([len(chunk) for chunk in chunks], np.uint64)
    index[: len(chunks), 0] = np.cumsum(sizes) - sizes
    index[: len(chunks), 1] = sizes
    entries = index.tobytes()
    return b"".join([*chunks, entries, _checksum(entries)])


def read_index(content: bytes, slots: int, payload: int) -> list[tuple[int, int] | None]:
    """Start and end of every slot's chunk, None where it is absent. ``payload``: bytes before the index.

    Raises:
        DamagedShard: wrong size or checksum, or a chunk that does not lie in the object.
    """
    if len(content) != index_size(slots):
        raise DamagedShard(f"the index has {len(content)} bytes where {index_size(slots)} belong")
    entries, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if _checksum(entries) != checksum:
        raise DamagedShard("the index does not fit its checksum")
    found: list[tuple[int, int] | None] = []
    for offset, size in np.frombuffer(entries, _ENTRY).reshape(slots, 2).tolist():
        if offset == size == _ABSENT:
            found.append(None)
        elif offset + size > payload:
            raise DamagedShard("the index names a chunk that is not in the object")
        else:
            found.append((offset, offset + size))
    return found
