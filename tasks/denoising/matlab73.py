"""Files as MATLAB writes them with ``-v7.3``: HDF5 behind a header of 512 bytes, classes as attributes, axes reversed.

MATLAB counts its first axis fastest, HDF5 its last one, so that an array of (H, W, C) lies in the file as (C, W, H). A
cell is an array of references into the group ``#refs#``.

Source: files that MATLAB wrote; HDF5 user guide (user block).
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
# The date decides nothing, and equal contents are to be equal bytes.
_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan 01 00:00:00 1970 HDF5 schema 1.00 ."
_VERSION = b"\x00\x02IM"
_REFERENCES = "#refs#"
_CHARACTERS, _LOGICAL = 2, 1  # MATLAB_int_decode: what the stored whole numbers stand for
_CLASSES = {"float64": "double", "float32": "single", "uint8": "uint8", "uint16": "uint16"}

Array = NDArray[Any]


class Matlab73:
    """One file that is being written; see :func:`matlab73`."""

    def __init__(self, file: h5py.File) -> None:
        self._file, self._count = file, 0

    def number(self, name: str, value: float) -> None:
        """A double, 1 x 1."""
        self._array(self._file, name, np.array([[value]], np.float64))

    def logical(self, name: str, value: bool) -> None:
        """true or false, 1 x 1."""
        found = self._dataset(self._file, name, np.array([[value]], np.uint8), "logical")
        found.attrs["MATLAB_int_decode"] = np.int32(_LOGICAL)

    def text(self, name: str, value: str) -> None:
        """A row of characters."""
        self._text(self._file, name, value)

    def struct(self, name: str, fields: dict[str, str]) -> None:
        """A 1 x 1 struct whose fields are texts."""
        group = self._file.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, value in fields.items():
            self._text(group, field, value)

    def cell(self, name: str, rows: int, columns: int, elements: Iterable[Array], *, packed: bool = False) -> None:
        """A cell of rows x columns.

        Args:
            name: of the variable.
            rows: first axis in MATLAB.
            columns: second axis.
            elements: numeric arrays of any shape, row by row (the order of NumPy, not of MATLAB).
            packed: whether elements are deflated, as MATLAB does by default.
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
        if not len(units):  # MATLAB keeps the size of what is empty in the place of its values
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
    """Write a file whole or not at all: under a temporary name, renamed when the block ends well.

    Raises:
        UserError: it cannot be written.
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
        raise UserError(f"{path}: cannot be written ({error}); free some space or choose another output") from error
    finally:
        working.unlink(missing_ok=True)
