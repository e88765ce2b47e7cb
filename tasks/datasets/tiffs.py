"""TIFF: pairs of images or stacks, and stacks of noisy repeats whose mean is the clean image (microscopy)."""

from __future__ import annotations

from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.naming import NOT_STATED, dataset_name
from tasks.datasets.pairing import CONVENTIONS, Pairing, by_convention
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.datasets.source import Source
from tasks.datasets.tiffpages import MEAN, page_count, page_part

_EXTENSIONS = (".tif", ".tiff")


class Tiffs:
    """Files named as noisy and clean are paired page by page (or every page with one clean page).

    Any other file with several pages is a stack of repeats: each page against the mean of all.
    """

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        files = [p for p in source.files if p.lower().endswith(_EXTENSIONS)]
        if not files:
            raise UserError(f"{source.url}: no TIFF file (.tif, .tiff)")
        found = Found(ignored=[p for p in source.files if not p.lower().endswith(_EXTENSIONS)])
        pairing, stacks = by_convention(files)
        if not pairing.has("clean"):  # raw.tif beside no clean image is a name like any other
            pairing, stacks = Pairing(), files
        for key, noisy, clean in pairing.complete():
            self._pair(found, source, key, noisy, clean)
        for path in stacks:
            self._stack(found, source, path)
        found.rejected.extend(pairing.rejected)
        return found

    def _pair(self, found: Found, source: Source, key: str, noisy: str, clean: str) -> None:
        try:
            pages, cleans = page_count(source.uri(noisy)), page_count(source.uri(clean))
        except UserError as error:
            found.rejected.append(Unpaired(key, str(error)))
            return
        if cleans not in (1, pages):
            found.rejected.append(Unpaired(key, f"{noisy} holds {pages} pages but {clean} holds {cleans}"))
            return
        for k in range(pages):
            parts = (page_part(k), page_part(k if cleans > 1 else 0))
            found.records.append(_record(source, key, k if pages > 1 else None, noisy, clean, *parts))

    def _stack(self, found: Found, source: Source, path: str) -> None:
        try:
            pages = page_count(source.uri(path))
        except UserError as error:
            found.rejected.append(Unpaired(path, str(error)))
            return
        if pages < 2:
            found.rejected.append(Unpaired(path, f"one page and no partner; repeats need pages, pairs {CONVENTIONS}"))
            return
        key = str(PurePosixPath(path).with_suffix(""))
        for k in range(pages):
            found.records.append(_record(source, key, k, path, path, page_part(k), MEAN))


def _record(
    source: Source, key: str, page: int | None, noisy: str, clean: str, noisy_part: str, clean_part: str
) -> PairRecord:
    return PairRecord(
        pair=key if page is None else f"{key}:{page:04d}",
        dataset=dataset_name(source),
        scene=key,
        camera=None,
        iso=None,
        noisy=source.uri(noisy),
        clean=source.uri(clean),
        noisy_part=noisy_part,
        clean_part=clean_part,
        licence=NOT_STATED,
    )
