"""Writer of MATLAB ``-v7.3`` files: HDF5 with a user block of 512 bytes, MATLAB classes as attributes, reversed axes.

MATLAB stores arrays in column-major order and HDF5 in row-major order, so that an array of shape (H, W, C) is stored as
(C, W, H). A cell array is an array of references into the group ``#refs#``.

Source: files written by MATLAB; HDF5 user guide, section on the user block.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pngmodel.errors import UserError

_USER_BLOCK = 512
# A fixed date, so that equal contents give equal bytes; MATLAB ignores it.
_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan 01 00:00:00 1970 HDF5 schema 1.00 ."
_VERSION = b"\x00\x02IM"
_REFERENCES = "#refs#"
_CHARACTERS, _LOGICAL = 2, 1  # MATLAB_int_decode: meaning of the stored integers
_CLASSES = {"float64": "double", "float32": "single", "uint8": "uint8", "uint16": "uint16"}

Array = NDArray[Any]


class Matlab73:
    """A file open for writing; see :func:`matlab73`."""

    def __init__(self, file: h5py.File) -> None:
        self._file, self._count = file, 0

    def number(self, name: str, value: float) -> None:
        """Write a 1 x 1 double."""
        self._array(self._file, name, np.array([[value]], np.float64))

    def logical(self, name: str, value: bool) -> None:
        """Write a 1 x 1 logical."""
        found = self._dataset(self._file, name, np.array([[value]], np.uint8), "logical")
        found.attrs["MATLAB_int_decode"] = np.int32(_LOGICAL)

    def text(self, name: str, value: str) -> None:
        """Write a character row vector."""
        self._text(self._file, name, value)

    def struct(self, name: str, fields: dict[str, str]) -> None:
        """Write a 1 x 1 struct of character row vectors."""
        group = self._file.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, value in fields.items():
            self._text(group, field, value)

    def cell(self, name: str, rows: int, columns: int, elements: Iterable[Array], *, packed: bool = False) -> None:
        """Write a cell array of rows x columns.

        Args:
            name: Name of the variable.
            rows: Length of the first axis in MATLAB.
            columns: Length of the second axis.
            elements: Numeric arrays of any shape in row-major order (as in NumPy, not as in MATLAB).
            packed: Whether to compress elements with deflate, as MATLAB does by default.
        """
        references = np.empty((columns, rows), h5py.ref_dtype)
        locations = self._file.require_group(_REFERENCES)
        count = 0
        for element in elements:
            row, column = divmod(count, columns)
            found = self._array(locations, f"e{self._count}", element, packed=packed)
            found.attrs["H5PATH"] = np.bytes_(f"/{_REFERENCES}")
            references[column, row] = found.ref
            self._count += 1
            count += 1
        assert count == rows * columns, (name, count, rows, columns)
        self._dataset(self._file, name, references, "cell")

    def _array(self, group: h5py.Group, name: str, value: Array, *, packed: bool = False) -> h5py.Dataset:
        return self._dataset(group, name, np.ascontiguousarray(value.T), _CLASSES[value.dtype.name], packed=packed)

    def _text(self, group: h5py.Group, name: str, value: str) -> None:
        units = np.frombuffer(value.encode("utf-16-le"), np.uint16)
        if not len(units):  # MATLAB stores the shape of an empty array instead of its values
            found = self._dataset(group, name, np.zeros(2, np.uint64), "char")
            found.attrs["MATLAB_empty"] = np.uint8(1)
        else:
            found = self._dataset(group, name, units[:, None], "char")
        found.attrs["MATLAB_int_decode"] = np.int32(_CHARACTERS)

    @staticmethod
    def _dataset(group: h5py.Group, name: str, value: Array, kind: str, *, packed: bool = False) -> h5py.Dataset:
        layout = {"chunks": value.shape, "compression": "gzip", "compression_opts": 3} if packed else {}
        dtype = h5py.ref_dtype if value.dtype.kind == "O" else value.dtype
        found = group.create_dataset(name, data=value, dtype=dtype, track_times=False, **layout)
        found.attrs["MATLAB_class"] = np.bytes_(kind)
        return found


@contextmanager
def matlab73(path: Path) -> Iterator[Matlab73]:
    """Write a file atomically: to a temporary name, renamed if the block ends without an error.

    Raises:
        UserError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    working = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")
    try:
        with h5py.File(working, "w", userblock_size=_USER_BLOCK) as file:
            yield Matlab73(file)
        with working.open("r+b") as raw:
            raw.write(_HEADER.ljust(116) + bytes(8) + _VERSION)
        working.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); free disk space or choose another output") from error
    finally:
        working.unlink(missing_ok=True)
