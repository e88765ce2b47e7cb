"""Images in a Zarr v3 array: (N, H, W), (N, C, H, W) or (N, H, W, C)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import zarr

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.formats.limits import check_size
from tasks.stores.io.filesystem import open_array, read_json
from tasks.stores.shard_file import Pixels

_DAMAGED = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    OSError,
    EOFError,
    AttributeError,
    MemoryError,
    ArithmeticError,
    zlib.error,
)
DOCUMENT = "zarr.json"
_PREFIX = "row="
_MAX_IMAGES = 1 << 20


def row_part(index: int) -> str:
    """The part of one image, from 0."""
    return f"{_PREFIX}{index}"


def is_group(document: str) -> bool:
    """Whether a ``zarr.json`` describes a group, which holds arrays and no images itself."""
    try:
        return read_json(document).get("node_type") == "group"
    except IntegrityError:
        return False


def image_count(url: str) -> int:
    """Images in the array.

    Raises:
        UserError: it is no array of images.
    """
    count = int(_opened(url).shape[0])
    if count > _MAX_IMAGES:
        raise UserError(f"{url}: an array of {count} images, more than one catalogue can list; split it")
    return count


def read_parts(url: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield images of the array as (H, W[, C]).

    Raises:
        UserError: no array, damaged, or no such image.
    """
    array = _opened(url)
    for part in parts:
        index = int(part.removeprefix(_PREFIX))
        if index >= array.shape[0]:
            raise UserError(f"{url}: there is no image {index}; the array holds {array.shape[0]}")
        try:
            image: Pixels = np.asarray(array[index])
        except _DAMAGED as error:  # what zarr and its codecs raise
            raise UserError(f"{url}: image {index} is damaged ({error}); fetch it again") from None
        first = image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3)
        yield np.moveaxis(image, 0, -1) if first else image


def is_part(part: str) -> bool:
    """Whether a part means an image of an array."""
    return part.startswith(_PREFIX) and part.removeprefix(_PREFIX).isdecimal()


def _opened(url: str) -> zarr.Array[Any]:
    try:
        array = open_array(url)
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(f"{url}: is no Zarr array ({error})") from None
    if array.ndim not in (3, 4):
        raise UserError(f"{url}: an array of shape {array.shape} is no set of images; (N, H, W) and (N, C, H, W) are")
    for shape in (array.shape[1:], array.chunks, array.shards or ()):  # a chunk is unpacked whole
        check_size(url, shape, array.dtype.itemsize)
    return array
