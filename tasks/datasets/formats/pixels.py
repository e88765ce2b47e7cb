"""Pixels of catalogued places, whatever they lie in: one way to read an image, a TIFF page or a block of an array.

A *part* says which piece of a file is meant:

    ""                  the file is one image
    "page=3"            that page of a TIFF, from 0
    "mean"              the mean of all pages of a TIFF, rounded to its dtype: the clean image of noisy repeats
    "row=3"             an image of a Zarr array, from 0
    "NAME"              a variable of a MATLAB file, (H, W[, C])
    "NAME[3,5]"         its block with these leading indices, from 0: (I, J, H, W, C) -> (H, W, C)
    "NAME[0:512,8:520]" a window of its first two axes, from 0, end excluded
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.formats import image_file as imagefile
from tasks.datasets.formats import mat_file as matfile
from tasks.datasets.formats import tiff_pages as tiffpages
from tasks.datasets.formats import zarr_array as zarrarray
from tasks.datasets.formats.limits import as_image
from tasks.stores.shard_file import Pixels


def read_pixels(uri: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield each part of a file as (H, W, C), C 1 or 3, uint8, uint16 or float32. The file is walked through once.

    Raises:
        UserError: truncated, not an image, a kind that is not supported, or no such part; names the file.
    """
    if all(part == "" for part in parts):
        found: Iterator[NDArray[np.generic]] = iter([imagefile.read_image(uri)] * len(parts))
    elif uri.split("::")[0].lower().endswith(".mat"):
        found = matfile.read_parts(uri, parts)
    elif all(map(zarrarray.is_part, parts)):
        found = zarrarray.read_parts(uri, parts)
    else:
        found = tiffpages.read_parts(uri, parts)
    for part, pixels in zip(parts, found, strict=True):
        yield as_image(pixels, f"{uri} {part}".rstrip())
