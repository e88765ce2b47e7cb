"""Where a corpus takes its clean images from, and how one of them is read on any worker.

``shipped`` (the samples in the package), or the URL of a patch store, a catalogue, a Zarr array of images, or a folder
or prefix of image files. A source is listed once, by the run that plans; workers get what they need of single images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from pngmodel.errors import IntegrityError, TransientError, UserError
from tasks.datasets.catalogue import load_catalogue, read_one
from tasks.datasets.formats.image_file import EXTENSIONS, decode
from tasks.datasets.formats.jpeg_quality import jpeg_quality
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.formats.zarr_array import DOCUMENT, image_count, is_group, row_part
from tasks.datasets.reference_pairs import SAMPLE_LICENCE, SAMPLES, SHIPPED, hwc, patch_content, patch_id, unit_floats
from tasks.datasets.verification import pixel_digest
from tasks.runtime.clusters import run_each
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.provenance import content_key
from tasks.stores.io.filesystem import exists, is_local, join, read_bytes, sha256
from tasks.stores.io.listing import file_stamps, list_files
from tasks.stores.io.urls import LEAVES
from tasks.stores.kinds import COMMITS, find_kind
from tasks.stores.layout import CLEAN
from tasks.stores.patch_store import PatchStore
from tasks.stores.shard_file import Pixels

UNKNOWN_LICENCE = "unknown (a folder of images carries none)"
_AT_ONCE = 32  # files that one task decodes
_INLINE = ClusterConfig(kind="inline")


@dataclass(frozen=True)
class CleanImage:
    """One clean image of a source, before it is cut: what a plan needs to know, and what reads it."""

    id: str
    height: int
    width: int
    channels: int
    dtype: str
    content: str  # a digest that is another when the pixels are
    licence: str
    row: int  # in the source: of its table, array or list of files
    camera: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A clean image that is not used."""

    id: str
    reason: str


@dataclass(frozen=True)
class CleanSource:
    """All clean images of a source."""

    url: str
    images: tuple[CleanImage, ...]
    rejected: tuple[Rejected, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of names and contents, not of the place."""
        return content_key([[i.id, i.content] for i in self.images])

    def read(self, k: int) -> Pixels:
        """Image k of the usable ones, (H, W, C)."""
        return read_clean(self.url, self.digest, self.images[k])


def read_clean(url: str, digest: str, image: CleanImage) -> Pixels:
    """An image of a source that was listed before, perhaps by another process, (H, W, C).

    ``digest``: of the source; what was opened for another one is not used.

    Raises:
        IntegrityError: it is not the one that was listed.
    """
    return _reader(url, digest)(image)


@dataclass(frozen=True)
class _Look:
    """Some files of a folder, or images of an array, to be decoded and described on a worker."""

    url: str
    names: tuple[str, ...]
    first: int
    licence: str
    min_quality: int | None


def open_clean(
    url: str,
    *,
    split: str | None = None,
    licence: str | None = None,
    min_jpeg_quality: int | None = None,
    cluster: ClusterConfig = _INLINE,
) -> CleanSource:
    """List a source; unusable files are rejected with a reason, they do not vanish.

    Args:
        url: see the module.
        split: only images of this split of a store or catalogue.
        licence: of images whose source does not say it.
        min_jpeg_quality: JPEG files below this quality (1 to 100) are rejected; needs a folder.
        cluster: where files are decoded; a store or catalogue was verified when it was made and is not read.

    Raises:
        UserError: nothing usable is there.
    """
    table = _table(url)
    if table is not None:
        if min_jpeg_quality is not None:
            raise UserError(f"{url}: min_jpeg_quality needs a folder of files; a store does not know what they were")
        chosen = tuple(image for image, of in table if split in (None, of))
        if not chosen:
            raise UserError(f"{url}: no clean image has the split {split!r}; splits there: {_splits(url)}")
        return CleanSource(url, chosen, ())
    if split is not None:
        raise UserError(f"{url}: clean_split is {split!r}, but only patch stores and catalogues have splits")
    outside: list[str] = []
    names, licence = _names(url, outside), SAMPLE_LICENCE if url == SHIPPED else licence or UNKNOWN_LICENCE
    looks = [
        _Look(url, tuple(names[k : k + _AT_ONCE]), k, licence, min_jpeg_quality) for k in range(0, len(names), _AT_ONCE)
    ]
    found = {look.first: described for look, described in run_each(cluster, _described, looks)}
    everything = [item for first in sorted(found) for item in found[first]]
    images = tuple(item for item in everything if isinstance(item, CleanImage))
    rejected = tuple(item for item in everything if isinstance(item, Rejected))
    rejected += tuple(Rejected(name, LEAVES) for name in sorted(outside))
    if not images:
        raise UserError(f"{url}: no usable clean image; first reason: {rejected[0].reason}")
    return CleanSource(url, images, rejected)


def listing(url: str) -> str:
    """What changes when files of a source do, without reading them: a digest of names, sizes and times, or of a record.

    Other places have other times: it says that nothing has happened here, and is no part of any identity.
    """
    kind = None if url == SHIPPED else find_kind(url)
    if kind in _TABLES:
        return sha256(read_bytes(join(url, COMMITS[kind])))
    return content_key(file_stamps(_root(url)))


def _splits(url: str) -> str:
    return ", ".join(sorted({of for _, of in _table(url) or ()}))


def _table(url: str) -> Iterator[tuple[CleanImage, str]] | None:
    """The images, each with its split, of a source that has a table of them."""
    kind = None if url == SHIPPED else find_kind(url)
    return _TABLES[kind](url) if kind in _TABLES else None


def _patches(url: str) -> Iterator[tuple[CleanImage, str]]:
    store = PatchStore.open(url)
    store.require(CLEAN)
    layout = store.layout
    size = (layout.height, layout.width, layout.channels, layout.dtype)
    for k, r in enumerate(store.table.to_pylist()):
        yield CleanImage(patch_id(r), *size, patch_content(store, r), r["licence"], k, r["camera"]), r["split"]


def _catalogued(url: str) -> Iterator[tuple[CleanImage, str]]:
    for k, r in enumerate(load_catalogue(url)[0].to_pylist()):
        size = (r["height"], r["width"], r["channels"], r["dtype"])
        yield CleanImage(r["pair"], *size, r["clean_sha256"], r["licence"], k, r["camera"]), r["split"]


_TABLES = {"patch store": _patches, "catalogue": _catalogued}
"""Sources that have a table of their images, by kind."""


def _root(url: str) -> str:
    return str(SAMPLES) if url == SHIPPED else url


def _is_array(url: str) -> bool:
    return url != SHIPPED and exists(join(url, DOCUMENT)) and not is_group(join(url, DOCUMENT))


def _names(url: str, outside: list[str]) -> list[str]:
    """Files of a folder that may be images, or the parts of an array; ``outside`` takes links that leave the folder."""
    if _is_array(url):
        return [row_part(k) for k in range(image_count(url))]
    wanted = ("_clean.png",) if url == SHIPPED else EXTENSIONS
    names = [name for name in list_files(_root(url), outside=outside) if name.lower().endswith(wanted)]
    if not names and outside:
        raise UserError(f"{join(url, outside[0])}: {LEAVES}; there are no other images")
    if not names:
        raise UserError(
            f"{url}: no clean images there; give 'shipped', a folder with {', '.join(EXTENSIONS)} files, a Zarr v3 "
            "array of images, a patch store or a catalogue"
        )
    return names


def _described(look: _Look) -> list[CleanImage | Rejected]:
    """Decode files whole, so that a truncated one cannot stop a run half-way, and describe them."""
    found: list[CleanImage | Rejected] = []
    array = _is_array(look.url)
    for row, name in enumerate(look.names, start=look.first):
        try:
            pixels, content = _array_image(look.url, name) if array else _file_image(look, name)
        except TransientError:
            raise  # of storage, not of this image: it must not be left out for good
        except UserError as error:
            found.append(Rejected(name, str(error).replace(join(_root(look.url), ""), "")))
            continue
        height, width, channels = pixels.shape
        found.append(CleanImage(name, height, width, channels, str(pixels.dtype), content, look.licence, row))
    return found


def _array_image(url: str, part: str) -> tuple[Pixels, str]:
    try:
        pixels = next(read_pixels(url, [part]))
    except TransientError:
        raise
    except UserError:
        if is_local(url):
            raise
        pixels = next(read_pixels(url, [part]))  # parts of objects may arrive damaged unnoticed
    return pixels, pixel_digest(pixels)


def _file_image(look: _Look, name: str) -> tuple[Pixels, str]:
    content = read_bytes(join(_root(look.url), name))
    pixels = decode(content, name)
    if look.min_quality is not None and (quality := jpeg_quality(content)) is not None and quality < look.min_quality:
        raise UserError(f"{name}: JPEG quality {quality}, less than {look.min_quality}")
    return pixels, sha256(content)


@lru_cache(maxsize=8)
def _reader(url: str, digest: str) -> Callable[[CleanImage], Pixels]:
    """What reads the images of a source; opened once per process."""
    kind = None if url == SHIPPED else find_kind(url)
    if kind == "patch store":
        return _patch_reader(url)
    if kind == "catalogue":
        rows = load_catalogue(url)[0].to_pylist()
        return lambda image: _same(read_one(_row(rows, image, url), "clean"), image, url)
    root, array = _root(url), _is_array(url)

    def read(image: CleanImage) -> Pixels:
        if array:
            pixels, content = _array_image(url, image.id)
        else:
            file = read_bytes(join(root, image.id))
            content = sha256(file)
            pixels = decode(file, image.id) if content == image.content else file  # type: ignore[assignment]
        if content != image.content:
            raise IntegrityError(f"{join(root, image.id)}: changed while the corpus was being made; start again")
        return pixels

    return read


def _patch_reader(url: str) -> Callable[[CleanImage], Pixels]:
    store = PatchStore.open(url)
    rows = store.table.select(["pair", "y", "x", "data_range"]).to_pylist()

    def read(image: CleanImage) -> Pixels:
        row = _row(rows, image, url)
        if patch_content(store, row) != image.content:
            raise IntegrityError(f"{url}: changed while the corpus was being made; start again")
        return hwc(unit_floats(store.read_image(image.row, CLEAN), row["data_range"]))

    return read


def _row(rows: Sequence[dict[str, Any]], image: CleanImage, url: str) -> dict[str, Any]:
    if image.row >= len(rows):
        raise IntegrityError(f"{url}: changed while the corpus was being made; start again")
    return rows[image.row]


def _same(pixels: Pixels, image: CleanImage, url: str) -> Pixels:
    if pixel_digest(pixels) != image.content:
        raise IntegrityError(f"{url}: image {image.id} changed while the corpus was being made; start again")
    return pixels
