"""One shard object of a Zarr v3 array, encoded and decoded here: chunks, then an index of where they lie.

zarr-python gives the array's metadata and reads what is written here, but it writes a third as fast and fetches the
index again for every chunk. docs/formats/patch-store.md describes the bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import zarr
from numcodecs.shuffle import Shuffle
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.codecs.numcodecs import Delta as ZarrDelta
from zarr.codecs.numcodecs import Shuffle as ZarrShuffle
from zarr.storage import MemoryStore

Pixels = NDArray[Any]
"""Image levels: uint8, uint16 or float32."""

DTYPES = ("uint8", "uint16", "float32")
_ABSENT = 2**64 - 1
_LEVEL = 1
_CHECKSUM_BYTES = 4
_ENTRY = np.dtype("<u8")


class DamagedShard(ValueError):  # noqa: N818 - it says what is the matter, the reader says where
    """A shard's bytes are not what a writer wrote; the caller knows the file's name."""


@dataclass(frozen=True)
class ChunkCodec:
    """The codec pipeline of one array: a chunk is one image (C, H, W).

    Unsigned integers: wrapping difference to the previous value. More than one byte a value: bytes shuffled by
    significance. Always: zstd with its checksum.
    """

    channels: int
    height: int
    width: int
    dtype: str

    @property
    def _little(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    def encode(self, image: Pixels) -> bytes:
        """The chunk of one image; asserts that the image fits, as what does not would be stored as something else."""
        assert image.shape == (self.channels, self.height, self.width), image.shape
        assert image.dtype == self.dtype, image.dtype
        flat = np.ascontiguousarray(image).reshape(-1)
        if flat.dtype.kind == "u":
            difference = np.empty_like(flat)
            difference[0] = flat[0]
            np.subtract(flat[1:], flat[:-1], out=difference[1:])
            flat = difference
        flat = flat.astype(self._little, copy=False)
        size = flat.dtype.itemsize
        return bytes(compress(Shuffle(size).encode(flat) if size > 1 else flat, _LEVEL, True))

    def decode(self, chunk: bytes) -> Pixels:
        """The image of a chunk.

        Raises:
            DamagedShard: the checksum does not hold, or the size is another.
        """
        try:
            content = decompress(chunk)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"a chunk does not decode ({error})") from None
        little = self._little
        expected = self.channels * self.height * self.width * little.itemsize
        if len(content) != expected:
            raise DamagedShard(f"a chunk has {len(content)} bytes where {expected} belong")
        if little.itemsize > 1:
            content = Shuffle(little.itemsize).decode(content)
        values = np.frombuffer(content, little).astype(self.dtype, copy=False)
        # imagecodecs adds up several times as fast as NumPy's cumsum
        flat = imagecodecs.delta_decode(values) if values.dtype.kind == "u" else np.array(values)
        image: Pixels = flat.reshape(self.channels, self.height, self.width)
        return image

    def array_document(self, length: int, slots: int) -> bytes:
        """The metadata (zarr.json) of an array of ``length`` images with ``slots`` of them in a shard, by zarr."""
        memory: dict[str, Any] = {}
        size = np.dtype(self.dtype).itemsize
        with warnings.catch_warnings():
            # zarr warns that its own wrappers of numcodecs are no part of the specification: docs/design.md says why
            warnings.simplefilter("ignore")
            filters = [ZarrDelta(dtype=self._little.str)] if np.dtype(self.dtype).kind == "u" else []
            shuffle = [ZarrShuffle(elementsize=size)] if size > 1 else []
            zarr.create_array(
                MemoryStore(memory),
                shape=(length, self.channels, self.height, self.width),
                dtype=self.dtype,
                chunks=(1, self.channels, self.height, self.width),
                shards=(slots, self.channels, self.height, self.width),
                filters=filters,
                compressors=[*shuffle, ZstdCodec(level=_LEVEL, checksum=True)],
                fill_value=0,
            )
        return bytes(memory["zarr.json"].to_bytes())


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
    return b"".join([*chunks, entries, google_crc32c.value(entries).to_bytes(_CHECKSUM_BYTES, "little")])


def read_index(content: bytes, slots: int, payload: int) -> list[tuple[int, int] | None]:
    """Start and end of every slot's chunk, None where it is absent. ``payload``: bytes before the index.

    Raises:
        DamagedShard: wrong size or checksum, or a chunk that does not lie in the object.
    """
    if len(content) != index_size(slots):
        raise DamagedShard(f"the index has {len(content)} bytes where {index_size(slots)} belong")
    entries, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if google_crc32c.value(entries) != int.from_bytes(checksum, "little"):
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
