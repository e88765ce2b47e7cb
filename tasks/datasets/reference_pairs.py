"""Sources of reference pairs: ``shipped`` (sample pairs in the package), or the URL of a patch store, a catalogue or a
prompt bank. For clean images see :mod:`tasks.datasets.clean_images`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import pngmodel
from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.catalogue import load_catalogue, read_one
from tasks.datasets.formats.image_file import read_image
from tasks.runtime.provenance import content_key
from tasks.stores.io.filesystem import read_bytes, sha256
from tasks.stores.kinds import find_kind
from tasks.stores.layout import CLEAN, NOISY
from tasks.stores.patch_store import PatchStore
from tasks.stores.prompt_bank import Entry, PromptBank
from tasks.stores.shard_file import Pixels

SHIPPED = "shipped"
SAMPLES = Path(pngmodel.__file__).parent / "samples"
SAMPLE_LICENCE = "MIT (SIDD)"


@dataclass(frozen=True)
class Reference:
    """A real pair that serves as a noise reference, or is evaluated."""

    id: str
    camera: str | None
    iso: int | None
    licence: str
    content: str  # digest of the pixels
    split: str
    dataset: str
    scene: str
    image: str  # id of the whole pair from which this one was cropped
    height: int
    width: int
    y: int = 0  # corner in the whole image, pixels
    x: int = 0


@dataclass(frozen=True)
class ReferenceSource:
    """All references of a source. ``read(k)`` returns (noisy, clean) of reference k, (H, W, C) each.

    A prompt bank has no images; ``kept(k)`` returns the prompts that the model with digest ``model`` extracted.
    """

    references: tuple[Reference, ...]
    read: Callable[[int], tuple[Pixels, Pixels]]
    kept: Callable[[int], Entry] | None = None
    model: str | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of names and contents, independent of the location."""
        return content_key([[r.id, r.content] for r in self.references])

    def of_split(self, split: str | None) -> list[int]:
        """Return the indices of the references of a split, or of all.

        Raises:
            UserError: There are no references of that split.
        """
        found = [k for k, r in enumerate(self.references) if split in (None, r.split)]
        if not found:
            splits = sorted({r.split for r in self.references})
            raise UserError(f"split: no references of split {split!r}; available splits: {', '.join(splits)}")
        return found


def hwc(image: Pixels) -> Pixels:
    """Convert a stored image (C, H, W) to (H, W, C)."""
    moved: Pixels = np.moveaxis(image, 0, -1)
    return moved


def patch_id(row: dict[str, Any]) -> str:
    """Return the id of a patch: its pair and its corner in it."""
    return f"{row['pair']}/{row['y']},{row['x']}"


def patch_content(store: PatchStore, row: dict[str, Any]) -> str:
    """Return a digest of the content of a patch: its verified image and its position, independent of shards.

    It includes the estimate of the clean image if there is one, see :mod:`tasks.denoising.unpaired`.
    """
    recipe = store.record.recipe
    estimated = [recipe["estimated_clean"]] if "estimated_clean" in recipe else []
    return content_key([recipe["catalogue"], recipe["size"], row["pair"], row["y"], row["x"], *estimated])


def unit_floats(image: Pixels, data_range: float) -> Pixels:
    """Convert floats to [0, 1]; integers are returned unchanged."""
    return image / np.float32(data_range) if image.dtype.kind == "f" else image


_CACHE_SIZE = 4
_cache: dict[tuple[str, str], ReferenceSource] = {}


def planned_references(url: str, digest: str) -> ReferenceSource:
    """Open the source of a plan; cached per process.

    Raises:
        IntegrityError: The source has changed since planning, e.g. because a worker outlives it.
    """
    source = _cache.get((url, digest)) or open_references(url)
    if source.digest != digest:
        raise IntegrityError(f"{url}: has changed since this run was planned; run the same command again")
    return source


def open_references(url: str) -> ReferenceSource:
    """Open a source of references.

    Raises:
        UserError: ``url`` is neither ``shipped`` nor a finished patch store, catalogue or prompt bank.
    """
    source = _references(url)
    _cache[url, source.digest] = source
    while len(_cache) > _CACHE_SIZE:
        del _cache[next(iter(_cache))]
    return source


def open_pairs(url: str) -> ReferenceSource:
    """Like :func:`open_references`, but require images: prompt banks raise :class:`UserError`."""
    source = open_references(url)
    if source.kept:
        source.read(0)
    return source


def _references(url: str) -> ReferenceSource:
    if url == SHIPPED:
        return _shipped_references()
    kind = find_kind(url)
    if kind == "patch store":
        store = PatchStore.open(url)
        store.require(CLEAN, NOISY)
        rows = store.table.to_pylist()
        found = tuple(
            _reference(r, patch_id(r), patch_content(store, r), store.layout.height, store.layout.width) for r in rows
        )

        def from_store(k: int) -> tuple[Pixels, Pixels]:
            clean, noisy = (unit_floats(image, rows[k]["data_range"]) for image in store.read(k))
            return hwc(noisy), hwc(clean)

        return ReferenceSource(found, from_store)
    if kind == "catalogue":
        rows = load_catalogue(url)[0].to_pylist()
        found = tuple(
            _reference(r, r["pair"], content_key([r["noisy_sha256"], r["clean_sha256"]]), r["height"], r["width"])
            for r in rows
        )
        return ReferenceSource(found, lambda k: (read_one(rows[k], "noisy"), read_one(rows[k], "clean")))
    if kind == "prompt bank":
        return _bank_references(url)
    raise UserError(
        f"{url}: is not a source of references; use 'shipped', a patch store, a catalogue "
        "(create one with `pngnoise ingest`) or a prompt bank"
    )


def _bank_references(url: str) -> ReferenceSource:
    bank = PromptBank(url)
    names = {field.name for field in fields(Reference)}
    # For a prompt bank the digest covers the prompts, because they determine the corpus.
    found = tuple(Reference(**({name: row[name] for name in names} | {"content": row["sha256"]})) for row in bank.rows)

    def no_images(k: int) -> tuple[Pixels, Pixels]:
        raise UserError(
            f"{url}: is a prompt bank, which has no images; use the patch store or catalogue from which it was built"
        )

    return ReferenceSource(found, no_images, bank.read, bank.record.model)


def _reference(row: dict[str, Any], name: str, content: str, height: int, width: int) -> Reference:
    """Create a reference from a row of a catalogue or patch store."""
    facts = {key: row[key] for key in ("camera", "iso", "licence", "split", "dataset", "scene")}
    corner = {"y": row["y"], "x": row["x"]} if "y" in row else {}
    return Reference(id=name, content=content, image=row["pair"], height=height, width=width, **facts, **corner)


def _shipped_references() -> ReferenceSource:
    names = sorted(p.name.removesuffix("_noisy.png") for p in SAMPLES.glob("*_noisy.png"))
    files = [tuple(str(SAMPLES / f"{name}_{side}.png") for side in ("noisy", "clean")) for name in names]

    def facts(name: str, pair: tuple[str, ...]) -> Reference:
        camera, iso = ("S6", 800) if name < "val_0020" else ("GP", 10000)
        height, width = read_image(pair[0]).shape[:2]
        return Reference(
            id=name,
            camera=camera,
            iso=iso,
            licence=SAMPLE_LICENCE,
            content=sha256(b"".join(map(read_bytes, pair))),
            split="validation",
            dataset="sidd_native",
            scene=f"val-{camera}-{iso}",
            image=name,
            height=height,
            width=width,
        )

    found = tuple(facts(name, pair) for name, pair in zip(names, files, strict=True))
    return ReferenceSource(found, lambda k: (read_image(files[k][0]), read_image(files[k][1])))
