"""Image files of exports: always lossless, and the same pixels always give the same bytes."""

from __future__ import annotations

import io
from typing import Literal

import imagecodecs
import numpy as np
import tifffile

from pngmodel.errors import UserError
from tasks.stores.shard_file import Pixels

PNG, TIFF = CODECS = ("png", "tiff")
PNG_LEVEL = 1
# Measured on noisy and clean photographs: run lengths instead of matches make PNGs smaller than level 6 (noise repeats
# nothing) in a third to a tenth of its time; the average filter alone is within .3 % of trying all filters.
_RUN_LENGTHS, _AVERAGE = 3, 0x40


def refuse_codec(codec: str, dtype: str, channels: int, location: str) -> None:
    """Raise a UserError when images of that kind cannot go into that codec without loss."""
    if codec == PNG and dtype not in ("uint8", "uint16"):
        raise UserError(f"{location}: holds {dtype} images and PNG has no floats; export folders with --codec tiff")
    if codec == PNG and channels not in (1, 3):
        raise UserError(f"{location}: holds {channels} channels and PNG takes grey or RGB here; use --codec tiff")


def encode_image(pixels: Pixels, codec: str) -> bytes:
    """A PNG (8 or 16 bits a value) or an uncompressed TIFF of (C, H, W) levels, channels in their order."""
    flat = np.ascontiguousarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    if codec == PNG:
        return bytes(imagecodecs.png_encode(flat, level=PNG_LEVEL, strategy=_RUN_LENGTHS, filter=_AVERAGE))
    sink = io.BytesIO()  # without metadata: no date, no name of a program
    photometric = "rgb" if len(pixels) == 3 else "minisblack"
    planes: Literal["contig"] | None = None if flat.ndim == 2 else "contig"
    tifffile.imwrite(sink, flat, photometric=photometric, planarconfig=planes, metadata=None, software=False)
    return sink.getvalue()
