"""The clean images and windows of a corpus: indexed once, stored with the corpus, read again on resume.

Indexing decodes every image, which for a large folder takes as long as generating part of the corpus.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pngmodel.errors import IntegrityError, UserError
from pngmodel.jsontext import decode_json
from tasks.corpus.crops import Windows, count, textured
from tasks.corpus.parameters import CropSettings
from tasks.datasets.clean_images import CleanImage, CleanSource, Rejected, listing, open_clean
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.corpus_store import CLEAN_IMAGES, INDEXED, SOURCES
from tasks.stores.io.filesystem import join, read_if_there, sha256
from tasks.stores.io.tables import decode_table, encode_table

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int8()),
        ("dtype", pa.string()),
        ("content", pa.string()),
        ("licence", pa.string()),
        ("row", pa.int64()),
        ("camera", pa.string()),
        ("kept", pa.list_(pa.field("element", pa.int32()))),
    ]
)
"""One row per clean image: used ones with the numbers of their ``kept`` windows (null: all), rejected ones with a
``reason``."""


@dataclass(frozen=True)
class CleanQuery:
    """Everything that an index depends on."""

    clean: str
    cropping: CropSettings
    seed: int
    split: str | None
    licence: str | None
    min_jpeg_quality: int | None

    def stamp(self) -> dict[str, Any]:
        """Changes if the index must be built again."""
        settings = self.cropping.model_dump(mode="json")
        kept = {name: getattr(self, name) for name in ("seed", "split", "licence", "min_jpeg_quality")}
        return {"listing": listing(self.clean)} | kept | settings


@dataclass(frozen=True)
class CleanIndex:
    """Used and rejected clean images of a corpus, and the windows of the used ones."""

    source: CleanSource
    """Used images, all of one kind and large enough, and rejected ones."""
    windows: Windows
    stamp: dict[str, Any]

    def encoded(self) -> bytes:
        """As a Parquet file, clean.parquet of a corpus."""
        kept = self.windows.kept or (None,) * len(self.source.images)
        rows: list[dict[str, Any]] = [
            asdict(image) | {"kept": None if numbers is None else list(numbers)}
            for image, numbers in zip(self.source.images, kept, strict=True)
        ]
        rows += [asdict(rejected) for rejected in self.source.rejected]
        return encode_table(pa.Table.from_pylist(rows, _SCHEMA))


def index_clean(query: CleanQuery, output: str, cluster: ClusterConfig) -> CleanIndex:
    """The index stored at ``output`` if it has the same source and settings; otherwise a new one.

    Raises:
        UserError: no clean image is large enough for a patch.
    """
    stamp = query.stamp()
    return _stored(query, stamp, output) or _build(query, stamp, cluster)


def _stored(query: CleanQuery, stamp: dict[str, Any], output: str) -> CleanIndex | None:
    locations, content = (read_if_there(join(output, name)) for name in (SOURCES, CLEAN_IMAGES))
    try:
        if (
            locations is None
            or content is None
            or decode_json(locations)[INDEXED] != stamp | {"sha256": sha256(content)}
        ):
            return None
        table = decode_table(content, join(output, CLEAN_IMAGES), _SCHEMA)
    except (IntegrityError, ValueError, KeyError, TypeError):
        return None  # damaged: built again
    images, rejected, kept = [], [], []
    for row in table.to_pylist():
        reason, numbers = row.pop("reason"), row.pop("kept")
        if reason is None:
            images.append(CleanImage(**row))
            kept.append(None if numbers is None else tuple(numbers))
        else:
            rejected.append(Rejected(row["id"], reason))
    filtered = None if None in kept else tuple(numbers for numbers in kept if numbers is not None)
    source = CleanSource(query.clean, tuple(images), tuple(rejected))
    return CleanIndex(source, Windows(source.images, query.cropping, query.seed, filtered), stamp)


def _build(query: CleanQuery, stamp: dict[str, Any], cluster: ClusterConfig) -> CleanIndex:
    whole = open_clean(
        query.clean,
        split=query.split,
        licence=query.licence,
        min_jpeg_quality=query.min_jpeg_quality,
        cluster=cluster,
    )
    images, rejected = _fitting(whole, query.cropping)
    kept = textured(query.clean, whole.digest, images, query.cropping, query.seed, cluster)
    if kept is not None:
        reason = f"all windows are flatter than {query.cropping.min_clean_std:g}"
        rejected += [Rejected(image.id, reason) for image, numbers in zip(images, kept, strict=True) if not numbers]
        images = [image for image, numbers in zip(images, kept, strict=True) if numbers]
        kept = tuple(numbers for numbers in kept if numbers)
    if not images:
        crop = query.cropping.crop
        reason = f"; first reason: {rejected[0].reason}" if rejected else ""
        raise UserError(f"{query.clean}: no clean image is large enough for a patch of {crop} pixels{reason}")
    source = CleanSource(query.clean, tuple(images), tuple(rejected))
    if listing(query.clean) != stamp["listing"]:
        raise IntegrityError(f"{query.clean}: changed while it was indexed; run the same command again")
    return CleanIndex(source, Windows(source.images, query.cropping, query.seed, kept), stamp)


def _fitting(source: CleanSource, cropping: CropSettings) -> tuple[list[CleanImage], list[Rejected]]:
    """Images that are large enough and have channels and dtype of the first such image."""
    images: list[CleanImage] = []
    rejected = list(source.rejected)
    for image in source.images:
        if not count(cropping, image.height, image.width):
            reason = f"{image.height} x {image.width} pixels is smaller than {cropping.crop}"
        elif images and (image.channels, image.dtype) != (images[0].channels, images[0].dtype):
            kind = f"{images[0].channels} of {images[0].dtype}"
            reason = f"{image.channels} channels of {image.dtype}; this corpus holds {kind}"
        else:
            images.append(image)
            continue
        rejected.append(Rejected(image.id, reason))
    return images, rejected
