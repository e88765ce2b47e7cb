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
        pairing, found, stacks = Pairing(), Found(), []
        for path in source.files:
            if not path.lower().endswith(_EXTENSIONS):
                found.ignored.append(path)
            elif (named := by_convention(path)) is not None:
                pairing.add(named[0], named[1], path)
            else:
                stacks.append(path)
        if not pairing and not stacks:
            raise UserError(f"{source.url}: no TIFF file (.tif, .tiff)")
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
