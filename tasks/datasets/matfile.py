"""MATLAB files by slice: version 5 (own reader) and version 7.3 (HDF5).

SciPy reads whole variables into memory; the owners of SIDD publish 250 MB each, a quarter of what a worker may use.
MATLAB stores the first index fastest, so a block of (I, J, H, W, C) lies scattered over the whole variable: all
blocks that are wanted are gathered in one pass through the file.

Source: MATLAB, "MAT-File Format", level 5.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import h5py
import numpy as np

from pngmodel.errors import UserError
from tasks.datasets.limits import Pixels, check_size
from tasks.stores.filesystem import open_file

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"}
_SLAB = 8 << 20
_PART = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+(?:,\d+)*)\]|\[(?P<box>\d+:\d+,\d+:\d+)\])?")
_DAMAGED = (struct.error, zlib.error, EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Variable:
    """An array of a MATLAB file, as MATLAB shapes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Part:
    name: str
    index: tuple[int, ...] = ()
    box: tuple[slice, ...] = ()


def block_part(name: str, *index: int) -> str:
    """The part of a block with these leading indices, from 0."""
    return f"{name}[{','.join(map(str, index))}]"


def box_part(name: str, y0: int, y1: int, x0: int, x1: int) -> str:
    """The part of a window, from 0, end excluded."""
    return f"{name}[{y0}:{y1},{x0}:{x1}]"


def variables(url: str) -> dict[str, Variable]:
    """Numeric arrays of a MATLAB file, by name, without reading them.

    Raises:
        UserError: not a MATLAB file, or truncated.
    """
    with open_file(url) as file, _explained(url):
        if _is_hdf5(file, url):
            with h5py.File(file, "r") as hdf:
                sets = {k: v for k, v in hdf.items() if isinstance(v, h5py.Dataset)}
                return {k: Variable(k, tuple(reversed(v.shape)), str(v.dtype)) for k, v in sets.items()}
        return {m.variable.name: m.variable for m in _matrices(file, url)}


def boxes(url: str, group: str, name: str) -> list[list[tuple[int, int, int, int]]]:
    """A MATLAB struct array's field of (n, 4) matrices in an HDF5 file: per element its rows as whole numbers.

    Raises:
        UserError: no such field.
    """
    with open_file(url) as file, _explained(url), h5py.File(file, "r") as hdf:
        place = f"{group}/{name}" if f"{group}/{name}" in hdf else name
        if place not in hdf:
            raise UserError(f"{url}: holds no {group}/{name}")
        found = hdf[place]
        if found.dtype == h5py.ref_dtype:
            matrices = [np.asarray(hdf[reference]) for reference in np.asarray(found).reshape(-1)]
        else:
            matrices = list(np.asarray(found).reshape(*found.shape[:2], -1).transpose(2, 0, 1))
        return [[(int(r[0]), int(r[1]), int(r[2]), int(r[3])) for r in m.T] for m in matrices]


def read_parts(url: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield parts of a MATLAB file (see :mod:`tasks.datasets.pixels`), each (H, W[, C]).

    Raises:
        UserError: not a MATLAB file, truncated, or no such variable or block; names the file.
    """
    wanted = [_parse(part, url) for part in parts]
    with open_file(url) as file, _explained(url):
        if _is_hdf5(file, url):
            with h5py.File(file, "r") as hdf:
                for part in wanted:
                    yield _from_hdf5(hdf, part, url)
            return
        found: dict[_Part, Pixels] = {}
        for matrix in _matrices(file, url):
            mine = list(dict.fromkeys(p for p in wanted if p.name == matrix.variable.name))
            if mine:
                found |= zip(mine, _gather(matrix, mine, url), strict=True)
        for part in wanted:
            if part not in found:
                raise UserError(f"{url}: holds no variable {part.name!r}")
            yield found[part]


def _parse(part: str, url: str) -> _Part:
    match = _PART.fullmatch(part)
    if match is None:
        raise UserError(f"{url}: {part!r} is no part of a MATLAB file; parts are NAME, NAME[i,j] or NAME[y0:y1,x0:x1]")
    if match["box"]:
        ends = [tuple(map(int, axis.split(":"))) for axis in match["box"].split(",")]
        return _Part(match["name"], box=tuple(slice(*e) for e in ends))
    return _Part(match["name"], tuple(map(int, match["index"].split(","))) if match["index"] else ())


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (*_DAMAGED, OSError) as error:
        raise UserError(f"{url}: is truncated or not a MATLAB file ({error}); fetch it again") from None


def _is_hdf5(file: BinaryIO, url: str) -> bool:
    file.seek(0)
    start = file.read(_HEADER)
    if not start:
        raise UserError(f"{url}: is empty; fetch it again")
    if start.startswith(b"\x89HDF\r\n\x1a\n") or start.startswith(b"MATLAB 7.3"):
        file.seek(0)
        return True
    if len(start) < _HEADER or start[126:128] not in (b"IM", b"MI"):
        raise UserError(f"{url}: is no MATLAB file of version 5 or 7.3; fetch it again")
    return False


def _from_hdf5(hdf: h5py.File, part: _Part, url: str) -> Pixels:
    if part.name not in hdf:
        raise UserError(f"{url}: holds no variable {part.name!r}")
    found = hdf[part.name]
    shape = tuple(reversed(found.shape))  # MATLAB's order
    _check_part(part, shape, url)
    at: tuple[int | slice, ...] = (*part.index, *part.box)
    whole = (*at, *([slice(None)] * (len(shape) - len(at))))
    check_size(url, shape[len(part.index) :], found.dtype.itemsize)
    return np.ascontiguousarray(np.asarray(found[tuple(reversed(whole))]).T)


def _check_part(part: _Part, shape: tuple[int, ...], url: str) -> None:
    beyond = any(i >= n for i, n in zip(part.index, shape, strict=False))
    outside = any(s.stop > n or s.start >= s.stop for s, n in zip(part.box, shape, strict=False))
    if beyond or outside or len(shape) - len(part.index) not in (2, 3):
        raise UserError(f"{url}: {part.name} is {shape}; it has no image at {part.index or part.box or 'its top'}")


@dataclass(frozen=True)
class _Matrix:
    """A numeric array whose data follow in ``stream``."""

    variable: Variable
    stored: np.dtype[np.generic]  # MATLAB stores small whole numbers of any class in fewer bytes
    stream: _Stream


class _Stream:
    """Bytes of one data element, inflated on the way when they are compressed."""

    def __init__(self, file: BinaryIO, size: int, *, compressed: bool) -> None:
        self._file, self._left = file, size
        self._inflate = zlib.decompressobj() if compressed else None
        self._ready = b""

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises EOFError when the file ends before."""
        if self._inflate is None:
            content = self._file.read(count)
        else:
            pieces, have = [self._ready[:count]], min(count, len(self._ready))
            self._ready = self._ready[count:]
            while have < count:
                packed = self._inflate.unconsumed_tail or self._file.read(min(1 << 20, self._left))
                if not self._inflate.unconsumed_tail:
                    self._left -= len(packed)
                piece = self._inflate.decompress(packed, count - have)  # may still hold output without new input
                if not packed and not piece:
                    break
                pieces.append(piece)
                have += len(piece)
            content = b"".join(pieces)
        if len(content) != count:
            raise EOFError("the file ends in the middle of a variable")
        return content


def _matrices(file: BinaryIO, url: str) -> Iterator[_Matrix]:
    """Numeric arrays in file order; each must be used before the next is asked for."""
    file.seek(124)
    order = "<" if file.read(4)[2:] == b"IM" else ">"
    place = _HEADER
    while True:
        file.seek(place)
        tag = file.read(8)
        if not tag:
            return
        if len(tag) < 8:
            raise EOFError("the file ends in the middle of a tag")
        kind, size = struct.unpack(order + "II", tag)
        place += 8 + size
        if kind not in (_COMPRESSED, _MATRIX):
            continue
        stream = _Stream(file, size, compressed=kind == _COMPRESSED)
        if kind == _COMPRESSED:
            kind = struct.unpack(order + "II", stream.read(8))[0]
        matrix = _matrix(stream, order) if kind == _MATRIX else None
        if matrix is not None:
            yield matrix


def _matrix(stream: _Stream, order: str) -> _Matrix | None:
    flags = _element(stream, order)[1]
    cls = struct.unpack(order + "I", flags[:4])[0]
    if cls & 0xFF not in _CLASSES or cls & 0x0800:  # structs, cells, characters; complex numbers
        return None
    dims = _element(stream, order)[1]
    shape = tuple(int(n) for n in np.frombuffer(dims, order + "i4"))
    name = _element(stream, order)[1].decode("ascii")
    kind, size, inline = _tag(stream, order)
    stored = np.dtype(order + _STORED[kind])
    if size != int(np.prod(shape, dtype=np.int64)) * stored.itemsize or inline is not None:
        return None  # a handful of values in the tag itself is no image
    return _Matrix(Variable(name, shape, _CLASSES[cls & 0xFF]), stored, stream)


def _tag(stream: _Stream, order: str) -> tuple[int, int, bytes | None]:
    """(type, bytes, the bytes themselves when they lie in the tag)."""
    first, second = struct.unpack(order + "II", raw := stream.read(8))
    if first >> 16:
        return first & 0xFFFF, first >> 16, raw[4 : 4 + (first >> 16)]
    return first, second, None


def _element(stream: _Stream, order: str) -> tuple[int, bytes]:
    """(type, content) of a small element."""
    kind, size, inline = _tag(stream, order)
    if inline is not None:
        return kind, inline
    if size > 1 << 16:
        raise ValueError("a header of more than 64 kB")
    content = stream.read(size)
    stream.read(-size % 8)
    return kind, content


def _gather(matrix: _Matrix, parts: Sequence[_Part], url: str) -> list[Pixels]:
    """The wanted blocks of one variable, in one pass of bounded memory."""
    shape = matrix.variable.shape
    leading = {len(p.index) for p in parts}
    if len(leading) != 1:
        raise UserError(f"{url}: parts of {matrix.variable.name} with and without indices are asked for at once")
    for part in parts:
        _check_part(part, shape, url)
    (depth,) = leading
    blocks, image = shape[:depth], shape[depth:]
    check_size(url, image, matrix.stored.itemsize)
    stride, values = int(np.prod(blocks, dtype=np.int64)), int(np.prod(image, dtype=np.int64))
    columns = [int(np.ravel_multi_index(p.index, blocks, order="F")) if depth else 0 for p in parts]
    out = np.empty((values, len(parts)), matrix.stored)
    step = max(1, _SLAB // (stride * matrix.stored.itemsize))
    for start in range(0, values, step):
        count = min(step, values - start)
        slab = np.frombuffer(matrix.stream.read(count * stride * matrix.stored.itemsize), matrix.stored)
        out[start : start + count] = slab.reshape(count, stride)[:, columns]
    dtype = np.dtype(matrix.variable.dtype)
    found = [out[:, k].reshape(image, order="F").astype(dtype, order="C", copy=False) for k in range(len(parts))]
    return [np.ascontiguousarray(f[p.box] if p.box else f) for f, p in zip(found, parts, strict=True)]
