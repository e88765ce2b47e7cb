"""TIFF: one image, pages by slice, and the mean of noisy repeats.

A page is one image. Most writers give each a directory of its own; ImageJ (beyond 4 GB) and tifffile (when told so)
write the directory of the first alone and the others right behind its pixels, and tifffile writes a stack of 3 or 4 as
the planes of one colour image unless it is told what they are. Both leave a description that says so.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from pngmodel.errors import UserError
from tasks.datasets.formats.archives import opened
from tasks.datasets.formats.limits import DEFLATED, DamagedFileError, as_image, check_packed, check_size
from tasks.stores.shard_file import Pixels

MEAN = "mean"
_ORIENTATION = 274  # tag
_MAX_IMAGES = 1 << 20
_PACKED = {1: 1, 8: DEFLATED, 32946: DEFLATED, 5: 2800, 32773: 64}  # none, deflate twice, LZW, PackBits
"""By compression: how many bytes one byte can become at most."""
_COLOURS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)


def page_part(index: int) -> str:
    """The part of a TIFF page, from 0."""
    return f"page={index}"


def page_count(url: str) -> int:
    """Pages of a TIFF file.

    Raises:
        UserError: not a TIFF, or truncated.
    """
    with _opened(url) as stack:
        return stack.count


def single(content: bytes, name: str) -> Pixels:
    """The image of a TIFF with one page, from the file's bytes."""
    with _explained(name), tifffile.TiffFile(io.BytesIO(content)) as file:
        stack = _stack(file, name)
        if stack.count != 1 and not stack.planes:  # a colour image of three planes looks like three grey pages
            raise UserError(f"{name}: holds {stack.count} pages; the adapter `tiff` reads stacks, page by page")
        return _page(_Stack(file, 1), 0, name)


def read_parts(url: str, parts: Sequence[str]) -> Iterator[Pixels]:
    """Yield pages and means of one TIFF file, reading only those pages.

    Raises:
        UserError: truncated, or no such page; names the file.
    """
    with _opened(url) as stack:
        last: tuple[str, Pixels] | None = None
        for part in parts:
            if last is None or last[0] != part:  # the mean stands once for every repeat
                last = part, _mean(stack, url) if part == MEAN else _page(stack, _index(part, url), url)
            yield last[1]


def _index(part: str, url: str) -> int:
    key, _, number = part.partition("=")
    if key != "page" or not number.isdecimal():
        raise UserError(f"{url}: {part!r} is no part of a TIFF file; parts are page=<number> and {MEAN}")
    return int(number)


@contextmanager
def _opened(url: str) -> Iterator[_Stack]:
    with opened(url) as stream, _explained(url), tifffile.TiffFile(stream) as file:
        yield _stack(file, url)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the decoder raises whatever strangers' bytes lead it to
        raise UserError(f"{name}: is truncated or not a TIFF image ({error}); fetch it again") from None


@dataclass(frozen=True)
class _Stack:
    """An open file and how its images lie in it."""

    file: tifffile.TiffFile
    count: int
    behind: bool = False  # the first directory is of all images, one behind the other
    planes: bool = False  # images are the planes of the first page


def _stack(file: tifffile.TiffFile, name: str) -> _Stack:
    directories = len(file.pages)
    first: Any = file.pages[0]
    _check_chain(file, name)
    promised = _promised(file, directories)
    if promised > directories and directories == 1:
        end = first.dataoffsets[0] + promised * first.nbytes if first.is_final else math.inf
        if promised > _MAX_IMAGES or end > file.filehandle.size:
            raise UserError(
                f"{name}: its description promises {promised} images, the file holds one or is cut off; "
                "fetch it again, or save it with a directory for every image"
            )
        return _Stack(file, promised, behind=True)
    if promised > directories:
        raise UserError(
            f"{name}: its description promises {promised} images in {directories} directories; "
            "save it with a directory for every image"
        )
    shape = [n for n in _shaped(first)[0] if n != 1]
    if directories == 1 and _is_planar(first) and shape == list(first.shape):
        return _Stack(file, first.samplesperpixel, planes=True)
    return _Stack(file, directories)


def _check_chain(file: tifffile.TiffFile, name: str) -> None:
    """Refuse a file that was cut off between two pages: tifffile takes the pages before the cut for all there are.

    Raises:
        UserError: the last directory names a next one beyond the end of the file.
    """
    last: Any = file.pages[-1]
    form, handle = file.tiff, file.filehandle
    handle.seek(last.offset)
    tags = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))[0]
    handle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    following = handle.read(form.offsetsize)
    if len(following) == form.offsetsize:  # some writers leave out the zero that ends the chain
        following = struct.unpack(form.offsetformat, following)[0]
        if following >= handle.size:
            raise UserError(
                f"{name}: is truncated (page {len(file.pages)} should lie at byte {following}, the file has "
                f"{handle.size}); fetch it again"
            )


def _promised(file: tifffile.TiffFile, directories: int) -> int:
    """How many images the file's own descriptions speak of, where that may be more than it has directories."""
    if file.is_imagej:
        images = int((file.imagej_metadata or {}).get("images", 1))
        first: Any = file.pages[0]
        samples = first.samplesperpixel if images == first.samplesperpixel * directories else 1  # counted as images
        return images // samples
    promised = index = 0
    while index < directories:  # from array to array: reading every directory of a large stack takes long
        page: Any = file.pages[index]
        shape, truncated = _shaped(page)
        if not shape:
            return promised + directories - index  # another writer's
        images = max(1, math.prod(shape) // max(1, math.prod(page.shape)))
        promised += images if truncated else min(images, directories - index)
        index += 1 if truncated else images
    return promised


def _shaped(page: Any) -> tuple[list[int], bool]:
    """What tifffile writes into the first page of an array: its shape, and whether the other pages lack directories."""
    text = page.shaped_description
    if text is None or not text.startswith("{"):
        return [], False
    facts = json.loads(text)
    return [int(n) for n in facts["shape"]], bool(facts.get("truncated"))


def _is_planar(page: Any) -> bool:
    return bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1)


def _page(stack: _Stack, index: int, name: str) -> Pixels:
    if index >= stack.count:
        raise UserError(f"{name}: there is no page {index}; the file holds {stack.count}")
    page: Any = stack.file.pages[0 if stack.behind or stack.planes else index]
    if page.photometric not in _COLOURS:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UserError(f"{name}: TIFF of kind {kind} is not supported; convert it to grey or RGB first")
    if (orientation := getattr(page.tags.get(_ORIENTATION), "value", 1)) != 1:
        raise UserError(f"{name}: its orientation is {orientation}, so its pixels are not upright; rotate them")
    pixels = _behind(stack.file, page, index, name) if stack.behind else _asarray(page, name)
    if stack.planes:
        pixels = pixels[index]
    elif _is_planar(page):
        pixels = np.moveaxis(pixels, 0, -1)
    return as_image(pixels, name)


def _behind(file: tifffile.TiffFile, page: Any, index: int, name: str) -> Pixels:
    check_size(name, page.shape, page.dtype.itemsize)
    file.filehandle.seek(page.dataoffsets[0] + index * page.nbytes)
    content = file.filehandle.read(page.nbytes)
    return np.frombuffer(content, page.dtype.newbyteorder(file.byteorder)).reshape(page.shape)


def _asarray(page: Any, name: str) -> Pixels:
    itemsize = page.dtype.itemsize if page.dtype is not None else 1
    check_size(name, page.shape, itemsize)
    if page.is_tiled:  # a tile is unpacked whole, however little of it the picture needs
        check_size(name, (page.tilelength, page.tilewidth, page.samplesperpixel), itemsize)
    if not page.is_contiguous and math.prod(page.chunked) > len(page.dataoffsets):
        raise UserError(
            f"{name}: is truncated (its header promises {math.prod(page.chunked)} pieces and names "
            f"{len(page.dataoffsets)}); fetch it again"
        )
    check_packed(name, page.nbytes, page.parent.filehandle.size, _PACKED.get(page.compression))
    pixels: Pixels = page.asarray()
    return pixels


def _mean(stack: _Stack, name: str) -> Pixels:
    try:
        first = _page(stack, 0, name)
        total = first.astype(np.float64)
        for index in range(1, stack.count):
            page = _page(stack, index, name)
            if page.shape != first.shape or page.dtype != first.dtype:
                raise UserError(f"page {index} is {page.shape} {page.dtype}, page 0 {first.shape} {first.dtype}")
            total += page
    except Exception as error:
        raise DamagedFileError(f"{name}: its pages have no mean: {error}") from None
    total /= stack.count
    return total.round().astype(first.dtype) if first.dtype.kind == "u" else total.astype(first.dtype)
