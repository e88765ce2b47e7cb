"""MATLAB files by slice: version 5 (own reader) and version 7.3 (HDF5).

SciPy reads whole variables into memory; the owners of SIDD publish 250 MB each, a quarter of what a worker may use.
MATLAB stores the first index fastest, so a block of (I, J, H, W, C) lies scattered over the whole variable: the
blocks that are wanted are gathered in one pass through the file (a pass for every 128 MB of them).

Source: MATLAB, "MAT-File Format", level 5.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

import h5py
import numpy as np

from pngmodel.errors import UserError
from tasks.datasets.formats.archives import opened
from tasks.datasets.formats.limits import MAX_BYTES, DamagedFileError, check_size
from tasks.stores.shard_file import Pixels

_HEADER = 128
_HDF5, _USER_BLOCK = b"\x89HDF\r\n\x1a\n", 512  # where MATLAB's own header ends
_COMPRESSED, _MATRIX = 15, 14
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"}
_SLAB = 8 << 20
_BATCH = 128 << 20  # bytes of blocks that are held at once
MAX_BLOCKS = 1 << 16
_MAX_BOXES = 100_000
_PART = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+(?:,\d+)*)\]|\[(?P<box>\d+:\d+,\d+:\d+)\])?")
_DAMAGED = (
    struct.error,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)


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


def variables(url: str, wanted: Iterable[str] = ()) -> dict[str, Variable]:
    """Numeric arrays of a MATLAB file, by name, without reading them.

    Raises:
        UserError: not a MATLAB file, or truncated before all that is ``wanted`` was found.
    """
    with opened(url) as file, _explained(url):
        if _is_hdf5(file, url):
            with h5py.File(file, "r") as hdf:
                sets = {k: v for k in hdf if (v := _own(hdf, k)) is not None}
                return {k: Variable(k, tuple(reversed(v.shape)), str(v.dtype)) for k, v in sets.items()}
        found: dict[str, Variable] = {}
        try:
            for matrix in _matrices(file, url):
                found[matrix.variable.name] = matrix.variable
        except EOFError:
            if not found or set(wanted) - set(found):
                raise
        return found


def boxes(url: str, group: str, name: str) -> list[list[tuple[int, int, int, int]]]:
    """A MATLAB struct array's field of (n, 4) matrices in an HDF5 file: per element its rows as whole numbers.

    Raises:
        UserError: no such field.
    """
    with opened(url) as file, _explained(url), h5py.File(file, "r") as hdf:
        inside = isinstance(hdf.get(group, getlink=True), h5py.HardLink) and isinstance(hdf[group], h5py.Group)
        found = (_stored(hdf[group], name) if inside else None) or _stored(hdf, name)
        if found is None:
            raise UserError(f"{url}: holds no {group}/{name}")
        _check_boxes(found.size, name, url)
        if found.dtype != h5py.ref_dtype:
            return _rows_of_four(np.asarray(found), name, url)
        elements: list[list[tuple[int, int, int, int]]] = []
        for reference in np.asarray(found).reshape(-1):
            element = hdf[reference]
            if not _is_own(element) or element.ndim != 2:
                raise UserError(f"{url}: {name} holds no matrix of its own for each element; fetch it again")
            _check_boxes(element.size + 4 * sum(map(len, elements)), name, url)
            elements += _rows_of_four(np.asarray(element), name, url)
        return elements


def _check_boxes(values: int, name: str, url: str) -> None:
    if values > 4 * _MAX_BOXES:
        raise UserError(f"{url}: {name} holds more than {_MAX_BOXES} boxes, more than is read here; fetch it again")


def _rows_of_four(found: Pixels, name: str, url: str) -> list[list[tuple[int, int, int, int]]]:
    """Rows of every element of an array as HDF5 shapes it: (4, n, elements), (elements, n, 4), (4, n) or (n, 4)."""
    told = f"{url}: {name} is {found.shape} in the file"
    rows = found.T if found.shape[0] == 4 else found
    rows = rows[None] if rows.ndim == 2 else rows
    if found.shape.count(4) != 1 or rows.ndim != 3 or rows.shape[-1] != 4:
        raise UserError(f"{told}; which axis holds y0, x0, y1, x1 cannot be told, store (n, 4) for each image")
    if rows.dtype.kind not in "uif" or not (np.isfinite(rows).all() and np.array_equal(rows, np.round(rows))):
        raise UserError(f"{told} and holds values that are no whole numbers; fetch it again")
    return [[(int(r[0]), int(r[1]), int(r[2]), int(r[3])) for r in element] for element in rows]


def read_parts(url: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield parts of a MATLAB file (see :mod:`tasks.datasets.formats.pixels`), each (H, W[, C]).

    Raises:
        UserError: not a MATLAB file, truncated, or no such variable or block; names the file.
    """
    wanted = [_parse(part, url) for part in parts]
    with opened(url) as file, _explained(url):
        if _is_hdf5(file, url):
            with h5py.File(file, "r") as hdf:
                for (name, _), run in groupby(wanted, key=_family):
                    yield from _from_hdf5(hdf, name, list(run), url)
            return
        for (name, depth), run in groupby(wanted, key=_family):
            members = list(run)
            while members:
                matrix = next((m for m in _matrices(file, url) if m.variable.name == name), None)
                if matrix is None:
                    raise UserError(f"{url}: holds no variable {name!r}")
                count = _batch(matrix.variable.shape, depth, matrix.stored.itemsize, members, url)
                yield from _gather(matrix, members[:count], url)
                members = members[count:]


def _family(part: _Part) -> tuple[str, int]:
    """Parts that one pass through a variable gives: its name, and how many leading indices are given."""
    return part.name, len(part.index)


def _batch(shape: tuple[int, ...], depth: int, itemsize: int, parts: Sequence[_Part], url: str) -> int:
    """How many of ``parts`` one pass gathers; all are checked against the variable first."""
    for part in parts:
        _check_part(part, shape, url)
    check_size(url, shape[depth:], itemsize)
    if math.prod(shape[:depth]) > MAX_BLOCKS:
        raise UserError(f"{url}: {parts[0].name} is {shape}, more blocks than are read here ({MAX_BLOCKS})")
    return max(1, _BATCH // (math.prod(shape[depth:]) * itemsize)) if depth else len(parts)


def _parse(part: str, url: str) -> _Part:
    match = _PART.fullmatch(part)
    if match is None:
        raise UserError(f"{url}: {part!r} is no part of a MATLAB file; parts are NAME, NAME[i,j] or NAME[y0:y1,x0:x1]")
    if match["box"]:
        ends = [tuple(map(int, axis.split(":"))) for axis in match["box"].split(",")]
        return _Part(match["name"], box=tuple(slice(*e) for e in ends))
    return _Part(match["name"], tuple(map(int, match["index"].split(","))) if match["index"] else ())


@contextmanager
def _explained(url: str, kind: type[UserError] = DamagedFileError) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _DAMAGED as error:
        raise kind(f"{url}: is truncated or not a MATLAB file ({error}); fetch it again") from None


def _is_hdf5(file: BinaryIO, url: str) -> bool:
    file.seek(0)
    start = file.read(_HEADER)
    file.seek(_USER_BLOCK)
    behind = file.read(len(_HDF5))
    if not start:
        raise UserError(f"{url}: is empty; fetch it again")
    if start.startswith((_HDF5, b"MATLAB 7.3")) or behind == _HDF5:
        file.seek(0)
        return True
    if len(start) < _HEADER or start[126:128] not in (b"IM", b"MI"):
        raise UserError(f"{url}: is no MATLAB file of version 5 or 7.3; fetch it again")
    return False


def _own(hdf: h5py.File, name: str) -> h5py.Dataset | None:
    """A variable whose numbers lie in this file: links to other files are not followed."""
    found = _stored(hdf, name)
    return found if found is not None and found.dtype.kind in "uifb" else None


def _stored(group: h5py.Group, name: str) -> h5py.Dataset | None:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    found = group[name]
    return found if _is_own(found) else None


def _is_own(found: Any) -> bool:
    return isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external


def _from_hdf5(hdf: h5py.File, name: str, parts: list[_Part], url: str) -> Iterator[Pixels]:
    found = _own(hdf, name)
    if found is None:
        raise UserError(f"{url}: holds no variable {name!r}")
    shape, depth = tuple(reversed(found.shape)), len(parts[0].index)  # MATLAB's order
    count = _batch(shape, depth, found.dtype.itemsize, parts, url)
    if found.chunks is not None and math.prod(found.chunks) * found.dtype.itemsize > MAX_BYTES:
        raise UserError(f"{url}: {name} is packed in chunks of {found.chunks}, more than is read here at once")
    if depth:
        for start in range(0, len(parts), count):
            yield from _gather_hdf5(found, parts[start : start + count])
        return
    for part in parts:
        window = (*part.box, *([slice(None)] * (len(shape) - len(part.box))))
        with _explained(url, UserError):  # other windows may be whole
            pixels = np.ascontiguousarray(np.asarray(found[tuple(reversed(window))]).T)
        yield pixels


def _gather_hdf5(found: h5py.Dataset, parts: Sequence[_Part]) -> Iterator[Pixels]:
    """The wanted blocks of one variable in one pass: every chunk holds some of every block, and is unpacked once."""
    depth = len(parts[0].index)
    inner, blocks = found.shape[:-depth], found.shape[-depth:]  # reversed: (C, W, H) and (J, I)
    columns, where = _columns(parts, tuple(reversed(blocks)))
    out = np.empty((len(columns), *inner), found.dtype)
    chunk = found.chunks or (1,) * len(found.shape)
    row = math.prod(found.shape[2:]) * found.dtype.itemsize * chunk[0]
    step = chunk[1] * max(1, _SLAB // (row * chunk[1]))
    for y in range(0, inner[0], chunk[0]):
        for x in range(0, inner[1], step):
            slab: Any = found[y : y + chunk[0], x : x + step]
            flat = slab.reshape(*slab.shape[: len(inner)], -1)[..., columns]
            out[:, y : y + chunk[0], x : x + step] = np.moveaxis(flat, -1, 0)
    for k in where:
        yield np.ascontiguousarray(out[k].T)


def _columns(parts: Sequence[_Part], blocks: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Places of the wanted blocks among all, each once, and for every part which of them it is."""
    locations = [int(np.ravel_multi_index(p.index, blocks, order="F")) if blocks else 0 for p in parts]
    unique = sorted(set(locations))
    order = {location: k for k, location in enumerate(unique)}
    return unique, [order[location] for location in locations]


def _check_part(part: _Part, shape: tuple[int, ...], url: str) -> None:
    beyond = any(i >= n for i, n in zip(part.index, shape, strict=False))
    outside = any(s.stop > n or s.start >= s.stop for s, n in zip(part.box, shape, strict=False))
    if beyond or outside or len(shape) - len(part.index) not in (2, 3):
        location = ",".join([*map(str, part.index), *(f"{s.start}:{s.stop}" for s in part.box)]) or "its top"
        raise UserError(f"{url}: {part.name} is {shape}; it has no image at {location}")


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

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises EOFError when the file ends before."""
        if self._inflate is None:
            content = self._file.read(count)
        else:
            pieces, have = [], 0
            while have < count:
                packed = self._inflate.unconsumed_tail
                if not packed:
                    packed = self._file.read(min(1 << 20, self._left))
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
    location, end = _HEADER, file.seek(0, io.SEEK_END)
    while True:
        if location > end:
            raise EOFError("the file ends in the middle of a variable")
        file.seek(location)
        tag = file.read(8)
        if not tag:
            return
        if len(tag) < 8:
            raise EOFError("the file ends in the middle of a tag")
        kind, size = struct.unpack(order + "II", tag)
        location += 8 + size
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
    if min(shape, default=0) < 1 or size != math.prod(shape) * stored.itemsize or inline is not None:
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


def _gather(matrix: _Matrix, parts: Sequence[_Part], url: str) -> Iterator[Pixels]:
    """The wanted blocks of one variable, in one pass of bounded memory."""
    depth, shape, itemsize = len(parts[0].index), matrix.variable.shape, matrix.stored.itemsize
    blocks, image = shape[:depth], shape[depth:]
    stride, values = math.prod(blocks), math.prod(image)
    columns, where = _columns(parts, blocks)
    out = np.empty((len(columns), values), matrix.stored)
    step = max(1, _SLAB // (stride * itemsize))
    for start in range(0, values, step):
        count = min(step, values - start)
        slab = np.frombuffer(matrix.stream.read(count * stride * itemsize), matrix.stored)
        out[:, start : start + count] = slab.reshape(count, stride)[:, columns].T
    dtype = np.dtype(matrix.variable.dtype)
    for part, k in zip(parts, where, strict=True):
        found = out[k].reshape(image, order="F")
        yield np.ascontiguousarray(found[part.box] if part.box else found).astype(dtype, copy=False)
