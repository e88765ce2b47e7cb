"""Clean images without noisy images: a folder, archive or prefix of image files, and Zarr arrays of images."""

from __future__ import annotations

from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import unstated
from tasks.datasets.formats.image_file import EXTENSIONS
from tasks.datasets.formats.zarr_array import DOCUMENT, image_count, is_group, row_part
from tasks.datasets.records import Found, Unpaired
from tasks.datasets.source import Source

_STORE_FILES = ("plan.json", "store.json", "corpus.json")  # records of our own stores, see docs/formats/


class Clean:
    """Adapter of clean images for corpora."""

    def find(self, source: Source) -> Found:
        """List the images; see :class:`tasks.datasets.records.Adapter`."""
        if records := [name for name in _STORE_FILES if f"{source.top}{name}" in source.files]:
            raise UserError(
                f"{source.url}: is a store written by pngnoise (it has {records[0]}) and cannot be ingested; use it "
                "directly as a source, e.g. with --clean"
            )
        found = Found()
        arrays, found.rejected[:] = _arrays(source)
        inside = tuple(f"{array}/" if array else "" for array in arrays)
        taken: dict[str, str] = {}
        for path in source.files:
            if path.startswith(inside) or PurePosixPath(path).name == DOCUMENT:
                continue
            if not path.lower().endswith(EXTENSIONS):
                found.ignored.append(path)
                continue
            key = str(PurePosixPath(path).with_suffix(""))
            if key in taken:
                found.rejected.append(Unpaired(path, f"duplicate id {key!r}; {taken[key]} is used"))
                continue
            taken[key] = path
            found.records.append(unstated(source, key, None, source.uri(path)))
        for array in arrays:
            uri = source.uri(array) if array else source.url
            key = array or PurePosixPath(source.url).name
            try:
                count = image_count(uri)
            except UserError as error:
                found.rejected.append(Unpaired(key, str(error)))
                continue
            for k in range(count):
                found.records.append(unstated(source, f"{key}:{k:06d}", None, uri, parts=("", row_part(k))))
        if not found.records and not found.rejected:
            raise UserError(f"{source.url}: has no image files ({', '.join(EXTENSIONS)}) and no Zarr v3 arrays")
        return found


def _arrays(source: Source) -> tuple[list[str], list[Unpaired]]:
    """Return the folders that are Zarr arrays ("" for the source itself), without groups, and rejected arrays."""
    documents = [p for p in source.files if PurePosixPath(p).name == DOCUMENT]
    if documents and source.archive is not None:
        reason = "Zarr arrays in archives are not supported; unpack the archive"
        return [], [Unpaired(p, reason) for p in documents]
    return [p.removesuffix(DOCUMENT).rstrip("/") for p in documents if not is_group(source.uri(p))], []
