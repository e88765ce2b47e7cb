"""TIFF files: pairs of images or stacks, and stacks of noisy repeats whose mean is the clean image (microscopy)."""

from __future__ import annotations

from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import unstated
from tasks.datasets.adapters.pairing import CONVENTIONS, Pairing, by_convention
from tasks.datasets.formats.tiff_pages import MEAN, page_count, page_part
from tasks.datasets.records import Found, Unpaired
from tasks.datasets.source import Source

_EXTENSIONS = (".tif", ".tiff")


class Tiffs:
    """Adapter of TIFF files.

    Files named as noisy and clean are paired page by page, or every page with a single clean page. Other files with
    several pages are stacks of repeats: each page is paired with the mean of all pages.
    """

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        files = [p for p in source.files if p.lower().endswith(_EXTENSIONS)]
        if not files:
            raise UserError(f"{source.url}: has no TIFF files (.tif, .tiff); use another adapter")
        found = Found(ignored=[p for p in source.files if not p.lower().endswith(_EXTENSIONS)])
        pairing, stacks = by_convention(files)
        if not pairing.has("clean"):  # without clean images, names such as raw.tif do not indicate a side
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
            found.rejected.append(Unpaired(key, f"{noisy} has {pages} pages, but {clean} has {cleans}"))
            return
        for k in range(pages):
            parts = (page_part(k), page_part(k if cleans > 1 else 0))
            pair = f"{key}:{k:04d}" if pages > 1 else key
            uris = source.uri(noisy), source.uri(clean)
            found.records.append(unstated(source, pair, *uris, scene=key, parts=parts))

    def _stack(self, found: Found, source: Source, path: str) -> None:
        try:
            pages = page_count(source.uri(path))
        except UserError as error:
            found.rejected.append(Unpaired(path, str(error)))
            return
        if pages < 2:
            reason = (
                f"has a single page and no counterpart; expected several pages of repeats, or pairs in {CONVENTIONS}"
            )
            found.rejected.append(Unpaired(path, reason))
            return
        key = str(PurePosixPath(path).with_suffix(""))
        for k in range(pages):
            uri, parts = source.uri(path), (page_part(k), MEAN)
            found.records.append(unstated(source, f"{key}:{k:04d}", uri, uri, scene=key, parts=parts))
