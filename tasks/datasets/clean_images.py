"""Sources of the clean images of a corpus: listing in the planning run, and reading single images on workers.

A source is ``shipped`` (the samples in the package), or the URL of a patch store, a catalogue, a Zarr array of images,
or a folder or prefix of image files.
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
_FILES_PER_TASK = 32
_INLINE = ClusterConfig(kind="inline")
_CHANGED = "has changed since the corpus was planned; restore it, or generate a new corpus"


@dataclass(frozen=True)
class CleanImage:
    """A clean image of a source before cropping: its metadata, and how to read it."""

    id: str
    height: int
    width: int
    channels: int
    dtype: str
    content: str  # digest of the pixels or of the file
    licence: str
    row: int  # index in the table, array or file list of the source
    camera: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A clean image that is not used, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class CleanSource:
    """All clean images of a source, and the rejected ones."""

    url: str
    images: tuple[CleanImage, ...]
    rejected: tuple[Rejected, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of names and contents, independent of the location."""
        return content_key([[i.id, i.content] for i in self.images])

    def read(self, k: int) -> Pixels:
        """Read usable image ``k``, (H, W, C)."""
        return read_clean(self.url, self.digest, self.images[k])


def read_clean(url: str, digest: str, image: CleanImage) -> Pixels:
    """Read an image of a source that was listed before, possibly by another process; returns (H, W, C).

    Args:
        url: Source.
        digest: Digest of the source; part of the cache key.
        image: The listed image.

    Raises:
        IntegrityError: The image has changed since it was listed.
    """
    return _reader(url, digest)(image)


@dataclass(frozen=True)
class _DescribeTask:
    """Task of a worker: decode and describe some files of a folder, or images of an array."""

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
    """List the clean images of a source. Unusable files are listed as rejected, with a reason.

    Args:
        url: Source, see this module.
        split: Only images of this split of a store or catalogue.
        licence: Licence of images whose source states none.
        min_jpeg_quality: Reject JPEG files below this quality, 1 to 100; requires a folder of files.
        cluster: Cluster that decodes files. Images of stores and catalogues were verified before and are not read.

    Raises:
        UserError: There are no usable images.
    """
    table = _table(url)
    if table is not None:
        if min_jpeg_quality is not None:
            raise UserError(
                f"{url}: min_jpeg_quality is {min_jpeg_quality}, but stores do not record the quality of their files; "
                "use a folder of files, or remove min_jpeg_quality"
            )
        selected = tuple(image for image, of in table if split in (None, of))
        if not selected:
            raise UserError(f"{url}: no clean images of split {split!r}; available splits: {_splits(url)}")
        return CleanSource(url, selected, ())
    if split is not None:
        raise UserError(
            f"{url}: clean_split is {split!r}, but only patch stores and catalogues have splits; remove clean_split"
        )
    outside: list[str] = []
    names, licence = _names(url, outside), SAMPLE_LICENCE if url == SHIPPED else licence or UNKNOWN_LICENCE
    tasks = [
        _DescribeTask(url, tuple(names[k : k + _FILES_PER_TASK]), k, licence, min_jpeg_quality)
        for k in range(0, len(names), _FILES_PER_TASK)
    ]
    found = {task.first: described for task, described in run_each(cluster, _describe, tasks)}
    everything = [item for first in sorted(found) for item in found[first]]
    images = tuple(item for item in everything if isinstance(item, CleanImage))
    rejected = tuple(item for item in everything if isinstance(item, Rejected))
    rejected += tuple(Rejected(name, LEAVES) for name in sorted(outside))
    if not images:
        raise UserError(f"{url}: no usable clean images; first reason: {rejected[0].reason}")
    return CleanSource(url, images, rejected)


def listing(url: str) -> str:
    """Return a digest that changes if files of a source change: of names, sizes and times, or of a commit record.

    It does not read the files. Times depend on the location, so the digest is not part of any identity.
    """
    kind = None if url == SHIPPED else find_kind(url)
    if kind in _TABLES:
        return sha256(read_bytes(join(url, COMMITS[kind])))
    return content_key(file_stamps(_root(url)))


def _splits(url: str) -> str:
    return ", ".join(sorted({of for _, of in _table(url) or ()}))


def _table(url: str) -> Iterator[tuple[CleanImage, str]] | None:
    """Return images with their splits if the source is a patch store or catalogue, else None."""
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
"""Store kind -> reader of its table of images."""


def _root(url: str) -> str:
    return str(SAMPLES) if url == SHIPPED else url


def _is_array(url: str) -> bool:
    return url != SHIPPED and exists(join(url, DOCUMENT)) and not is_group(join(url, DOCUMENT))


def _names(url: str, outside: list[str]) -> list[str]:
    """List possible image files of a folder, or the parts of an array; append links that leave it to ``outside``."""
    if _is_array(url):
        return [row_part(k) for k in range(image_count(url))]
    wanted = ("_clean.png",) if url == SHIPPED else EXTENSIONS
    names = [name for name in list_files(_root(url), outside=outside) if name.lower().endswith(wanted)]
    if not names and outside:
        raise UserError(f"{join(url, outside[0])}: {LEAVES}; there are no other images")
    if not names:
        raise UserError(
            f"{url}: no clean images found; use 'shipped', a folder with {', '.join(EXTENSIONS)} files, a Zarr v3 "
            "array of images, a patch store or a catalogue"
        )
    return names


def _describe(task: _DescribeTask) -> list[CleanImage | Rejected]:
    """Decode files completely, so that a truncated file cannot stop a run later, and describe them."""
    found: list[CleanImage | Rejected] = []
    array = _is_array(task.url)
    for row, name in enumerate(task.names, start=task.first):
        try:
            pixels, content = _array_image(task.url, name) if array else _file_image(task, name)
        except TransientError:
            raise  # an error of the storage: do not reject the image
        except UserError as error:
            found.append(Rejected(name, str(error).replace(join(_root(task.url), ""), "")))
            continue
        height, width, channels = pixels.shape
        found.append(CleanImage(name, height, width, channels, str(pixels.dtype), content, task.licence, row))
    return found


def _array_image(url: str, part: str) -> tuple[Pixels, str]:
    try:
        pixels = next(read_pixels(url, [part]))
    except TransientError:
        raise
    except UserError:
        if is_local(url):
            raise
        pixels = next(read_pixels(url, [part]))  # retry: range reads of objects have no checksum
    return pixels, pixel_digest(pixels)


def _file_image(task: _DescribeTask, name: str) -> tuple[Pixels, str]:
    content = read_bytes(join(_root(task.url), name))
    pixels = decode(content, name)
    if task.min_quality is not None and (quality := jpeg_quality(content)) is not None and quality < task.min_quality:
        raise UserError(f"{name}: the JPEG quality is {quality}, less than {task.min_quality}")
    return pixels, sha256(content)


@lru_cache(maxsize=8)
def _reader(url: str, digest: str) -> Callable[[CleanImage], Pixels]:
    """Return a function that reads images of a source; cached per process."""
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
            raise IntegrityError(f"{join(root, image.id)}: {_CHANGED}")
        return pixels

    return read


def _patch_reader(url: str) -> Callable[[CleanImage], Pixels]:
    store = PatchStore.open(url)
    rows = store.table.select(["pair", "y", "x", "data_range"]).to_pylist()

    def read(image: CleanImage) -> Pixels:
        row = _row(rows, image, url)
        if patch_content(store, row) != image.content:
            raise IntegrityError(f"{url}: {_CHANGED}")
        return hwc(unit_floats(store.read_image(image.row, CLEAN), row["data_range"]))

    return read


def _row(rows: Sequence[dict[str, Any]], image: CleanImage, url: str) -> dict[str, Any]:
    if image.row >= len(rows):
        raise IntegrityError(f"{url}: {_CHANGED}")
    return rows[image.row]


def _same(pixels: Pixels, image: CleanImage, url: str) -> Pixels:
    if pixel_digest(pixels) != image.content:
        raise IntegrityError(f"{url}: image {image.id} {_CHANGED}")
    return pixels
