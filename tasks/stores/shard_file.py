"""One shard object of a Zarr v3 array, encoded and decoded here: chunks, then an index of where they lie.

zarr-python gives the array's metadata and reads what is written here, but it writes a third as fast and fetches the
index again for every chunk. docs/formats/patch-store.md describes the bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import imagecodecs
import numpy as np
import zarr
from numcodecs.shuffle import Shuffle
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta as ZarrDelta
from zarr.codecs.numcodecs import Shuffle as ZarrShuffle
from zarr.storage import MemoryStore

Pixels = NDArray[Any]
"""Image levels: uint8, uint16 or float32."""

DTYPES = ("uint8", "uint16", "float32")
_ABSENT = 2**64 - 1
_LEVEL = 1
_CHECKSUM_BYTES = 4
_BLOSC_HEADER, _BLOSC_ZSTD, _BLOSC_COPIED = 16, 4, 2  # bytes; a number in three bits of the flags; a bit of the flags
_ZSTD = b"\x28\xb5\x2f\xfd"
_ENTRY = np.dtype("<u8")


class DamagedShard(ValueError):  # noqa: N818 - it says what is the matter, the reader says where
    """A shard's bytes are not what a writer wrote; the caller knows the file's name."""


Encoding = Literal["delta", "registered"]
"""How images become chunks.

delta: wrapping difference to the previous value (integers), bytes shuffled by significance where a value has more than
one, zstd with its checksum. The smaller one, but only zarr-python reads it.
registered: Blosc with zstd, shuffled likewise, then a crc32c: codecs that Zarr libraries in other languages know.
"""


@dataclass(frozen=True)
class ChunkCodec:
    """The codec pipeline of one array: a chunk is one image (C, H, W)."""

    channels: int
    height: int
    width: int
    dtype: str
    encoding: Encoding = "delta"

    @property
    def _little(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def _bytes(self) -> int:
        """Of an image."""
        return self.channels * self.height * self.width * self._little.itemsize

    def encode(self, image: Pixels) -> bytes:
        """The chunk of one image; asserts that the image fits, as what does not would be stored as something else."""
        assert image.shape == (self.channels, self.height, self.width), image.shape
        assert image.dtype == self.dtype, image.dtype
        flat = np.ascontiguousarray(image).reshape(-1)
        size = flat.dtype.itemsize
        if self.encoding == "registered":
            packed = _blosc(flat.astype(self._little, copy=False).tobytes(), size)
            return packed + _checksum(packed)
        if flat.dtype.kind == "u":
            difference = np.empty_like(flat)
            difference[0] = flat[0]
            np.subtract(flat[1:], flat[:-1], out=difference[1:])
            flat = difference
        flat = flat.astype(self._little, copy=False)
        return bytes(compress(Shuffle(size).encode(flat) if size > 1 else flat, _LEVEL, True))

    def decode(self, chunk: bytes) -> Pixels:
        """The image of a chunk.

        Raises:
            DamagedShard: the checksum does not hold, or the size is another.
        """
        content = self._unblosced(chunk) if self.encoding == "registered" else self._unzstded(chunk)
        if len(content) != self._bytes:
            raise DamagedShard(f"a chunk has {len(content)} bytes where {self._bytes} belong")
        size = self._little.itemsize
        if self.encoding == "delta" and size > 1:
            content = Shuffle(size).decode(content)
        values = np.frombuffer(content, self._little).astype(self.dtype, copy=False)
        if self.encoding == "delta" and values.dtype.kind == "u":
            # imagecodecs adds up several times as fast as NumPy's cumsum
            values = imagecodecs.delta_decode(values)
        image: Pixels = (values if values.flags.writeable else np.array(values)).reshape(
            self.channels, self.height, self.width
        )
        return image

    def _unblosced(self, chunk: bytes) -> Any:
        packed = chunk[:-_CHECKSUM_BYTES]
        if chunk[-_CHECKSUM_BYTES:] != _checksum(packed):
            raise DamagedShard("a chunk does not fit its checksum")
        if (size := int.from_bytes(packed[4:8], "little")) != self._bytes:
            raise DamagedShard(f"a chunk has {size} bytes where {self._bytes} belong")
        if not _is_framed(packed):
            raise DamagedShard("a chunk's header contradicts its size")
        try:
            return imagecodecs.blosc_decode(packed, numthreads=1)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"a chunk does not decode ({error})") from None

    def _unzstded(self, chunk: bytes) -> Any:
        # It is given the memory that a chunk asks for, which may be any amount.
        if (size := _zstd_size(chunk)) is not None and size != self._bytes:
            raise DamagedShard(f"a chunk has {size} bytes where {self._bytes} belong")
        try:
            return decompress(chunk)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"a chunk does not decode ({error})") from None

    def array_document(self, leading: tuple[int, ...], slots: int) -> bytes:
        """The metadata (zarr.json), by zarr, of an array (\\*leading, C, H, W) with ``slots`` of its last leading axis
        in a shard."""
        memory: dict[str, Any] = {}
        image, ones = (self.channels, self.height, self.width), (1,) * (len(leading) - 1)
        with warnings.catch_warnings():
            # zarr warns that its own wrappers of numcodecs are no part of the specification: docs/design.md says why
            warnings.simplefilter("ignore")
            filters, compressors = self._zarr_codecs()
            zarr.create_array(
                MemoryStore(memory),
                shape=(*leading, *image),
                dtype=self.dtype,
                chunks=(*ones, 1, *image),
                shards=(*ones, slots, *image),
                filters=filters,
                compressors=compressors,
                fill_value=0,
            )
        return bytes(memory["zarr.json"].to_bytes())

    def _zarr_codecs(self) -> tuple[list[Any], list[Any]]:
        """Filters and compressors as zarr calls them."""
        size = self._little.itemsize
        if self.encoding == "registered":
            shuffle = BloscShuffle.shuffle if size > 1 else BloscShuffle.noshuffle
            return [], [BloscCodec(typesize=size, cname="zstd", clevel=_LEVEL, shuffle=shuffle), Crc32cCodec()]
        filters = [ZarrDelta(dtype=self._little.str)] if np.dtype(self.dtype).kind == "u" else []
        shuffles = [ZarrShuffle(elementsize=size)] if size > 1 else []
        return filters, [*shuffles, ZstdCodec(level=_LEVEL, checksum=True)]


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


def _zstd_size(chunk: bytes) -> int | None:
    """What a zstd frame says that it unpacks to (RFC 8878, 3.1.1.1); None where it is no frame.

    A frame that does not say it may unpack to anything: 0, which no image has.
    """
    if chunk[:4] != _ZSTD or len(chunk) < 6:
        return None
    descriptor = chunk[4]
    single = descriptor >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    width = (single, 2, 4, 8)[descriptor >> 6]
    return int.from_bytes(chunk[start : start + width], "little") + (256 if width == 2 else 0)


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
