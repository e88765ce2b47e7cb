"""TIFF: one image, pages by slice, and the mean of noisy repeats."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tifffile

from pngmodel.errors import UserError
from tasks.datasets.archives import opened
from tasks.datasets.limits import DamagedFileError, Pixels, as_image, check_size

MEAN = "mean"
_ORIENTATION = 274  # tag
_COLOURS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)


def page_part(index: int) -> str:
    """The part of a TIFF page, from 0."""
    return f"page={index}"


def page_count(url: str) -> int:
    """Pages of a TIFF file.

    Raises:
        UserError: not a TIFF, or truncated.
    """
    with _opened(url) as file:
        return len(file.pages)


def single(content: bytes, name: str) -> Pixels:
    """The image of a TIFF with one page, from the file's bytes."""
    with _explained(name), tifffile.TiffFile(io.BytesIO(content)) as file:
        if len(file.pages) != 1:
            raise UserError(f"{name}: holds {len(file.pages)} pages; the adapter `tiff` reads stacks, page by page")
        return _page(file, 0, name)


def read_parts(url: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield pages and means of one TIFF file, reading only those pages.

    Raises:
        UserError: truncated, or no such page; names the file.
    """
    with _opened(url) as file:
        last: tuple[str, Pixels] | None = None
        for part in parts:
            if last is None or last[0] != part:  # the mean stands once for every repeat
                last = part, _mean(file, url) if part == MEAN else _page(file, _index(part, url), url)
            yield last[1]


def _index(part: str, url: str) -> int:
    key, _, number = part.partition("=")
    if key != "page" or not number.isdecimal():
        raise UserError(f"{url}: {part!r} is no part of a TIFF file; parts are page=<number> and {MEAN}")
    return int(number)


@contextmanager
def _opened(url: str) -> Iterator[tifffile.TiffFile]:
    with opened(url) as stream, _explained(url), tifffile.TiffFile(stream) as file:
        yield file


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the decoder raises whatever strangers' bytes lead it to
        raise UserError(f"{name}: is truncated or not a TIFF image ({error}); fetch it again") from None


def _page(file: tifffile.TiffFile, index: int, name: str) -> Pixels:
    if index >= len(file.pages):
        raise UserError(f"{name}: there is no page {index}; the file holds {len(file.pages)}")
    page: Any = file.pages[index]
    if page.photometric not in _COLOURS:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UserError(f"{name}: TIFF of kind {kind} is not supported; convert it to grey or RGB first")
    if (orientation := getattr(page.tags.get(_ORIENTATION), "value", 1)) != 1:
        raise UserError(f"{name}: its orientation is {orientation}, so its pixels are not upright; rotate them")
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        pixels = np.moveaxis(_asarray(page, name), 0, -1)
    else:
        pixels = _asarray(page, name)
    return as_image(pixels, name)


def _asarray(page: Any, name: str) -> Pixels:
    itemsize = page.dtype.itemsize if page.dtype is not None else 1
    check_size(name, page.shape, itemsize)
    if page.is_tiled:  # a tile is unpacked whole, however little of it the picture needs
        check_size(name, (page.tilelength, page.tilewidth, page.samplesperpixel), itemsize)
    pixels: Pixels = page.asarray()
    return pixels


def _mean(file: tifffile.TiffFile, name: str) -> Pixels:
    try:
        first = _page(file, 0, name)
        total = first.astype(np.float64)
        for index in range(1, len(file.pages)):
            page = _page(file, index, name)
            if page.shape != first.shape or page.dtype != first.dtype:
                raise UserError(f"page {index} is {page.shape} {page.dtype}, page 0 {first.shape} {first.dtype}")
            total += page
    except Exception as error:
        raise DamagedFileError(f"{name}: its pages have no mean: {error}") from None
    total /= len(file.pages)
    return total.round().astype(first.dtype) if first.dtype.kind == "u" else total.astype(first.dtype)
