"""One shard object of a Zarr v3 array, encoded and decoded here: chunks, then an index of where they lie.

zarr-python gives the array's metadata and reads what is written here, but it writes a third as fast and fetches the
index again for every chunk. docs/formats/patch-store.md describes the bytes.
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
_SHUFFLES = (BloscShuffle.noshuffle, BloscShuffle.shuffle)
_CHECKSUM_BYTES = 4
_ENTRY = np.dtype("<u8")


class DamagedShard(ValueError):  # noqa: N818 - it says what is the matter, the reader says where
    """A shard's bytes are not what a writer wrote; the caller knows the file's name."""


@dataclass(frozen=True)
class ChunkCodec:
    """The codec pipeline of one array: a chunk is one image (C, H, W).

    Blosc with zstd (bytes shuffled by significance where a value has more than one), then a crc32c. Only codecs of
    the Zarr v3 registry, so that libraries in other languages read the arrays too.
    """

    channels: int
    height: int
    width: int
    dtype: str

    @property
    def _little(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def _shuffle(self) -> int:
        return int(np.dtype(self.dtype).itemsize > 1)

    def encode(self, image: Pixels) -> bytes:
        """The chunk of one image; asserts that the image fits, as what does not would be stored as something else."""
        assert image.shape == (self.channels, self.height, self.width), image.shape
        assert image.dtype == self.dtype, image.dtype
        values = np.ascontiguousarray(image).astype(self._little, copy=False)
        packed = bytes(
            imagecodecs.blosc_encode(
                values.tobytes(),
                level=_LEVEL,
                compressor="zstd",
                shuffle=self._shuffle,
                typesize=values.dtype.itemsize,
                numthreads=1,
            )
        )
        return packed + _checksum(packed)

    def decode(self, chunk: bytes) -> Pixels:
        """The image of a chunk.

        Raises:
            DamagedShard: the checksum does not hold, or the size is another.
        """
        packed = chunk[:-_CHECKSUM_BYTES]
        if chunk[-_CHECKSUM_BYTES:] != _checksum(packed):
            raise DamagedShard("a chunk does not fit its checksum")
        expected = self.channels * self.height * self.width * self._little.itemsize
        try:
            content = imagecodecs.blosc_decode(packed, numthreads=1)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"a chunk does not decode ({error})") from None
        if len(content) != expected:
            raise DamagedShard(f"a chunk has {len(content)} bytes where {expected} belong")
        values = np.frombuffer(bytearray(content), self._little).astype(self.dtype, copy=False)
        image: Pixels = values.reshape(self.channels, self.height, self.width)
        return image

    def array_document(self, leading: tuple[int, ...], slots: int) -> bytes:
        """The metadata (zarr.json), by zarr, of an array (\*leading, C, H, W) with ``slots`` of its last leading axis
        in a shard."""
        memory: dict[str, Any] = {}
        size = np.dtype(self.dtype).itemsize
        image = (self.channels, self.height, self.width)
        ones = (1,) * (len(leading) - 1)
        zarr.create_array(
            MemoryStore(memory),
            shape=(*leading, *image),
            dtype=self.dtype,
            chunks=(*ones, 1, *image),
            shards=(*ones, slots, *image),
            compressors=[
                BloscCodec(typesize=size, cname="zstd", clevel=_LEVEL, shuffle=_SHUFFLES[self._shuffle]),
                Crc32cCodec(),
            ],
            fill_value=0,
        )
        return bytes(memory["zarr.json"].to_bytes())


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
