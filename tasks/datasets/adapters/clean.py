"""Clean images only: a folder, archive or prefix of image files, and Zarr arrays of images."""

from __future__ import annotations

from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import unstated
from tasks.datasets.formats.image_file import EXTENSIONS
from tasks.datasets.formats.zarr_array import DOCUMENT, image_count, is_group, row_part
from tasks.datasets.records import Found, Unpaired
from tasks.datasets.source import Source

_OURS = ("plan.json", "store.json", "corpus.json")  # docs/formats/; stores import this package, not the reverse


class Clean:
    """Sources of clean images for corpora; there is no noisy side."""

    def find(self, source: Source) -> Found:
        """List the images; see :class:`tasks.datasets.records.Adapter`."""
        if made := [name for name in _OURS if f"{source.top}{name}" in source.files]:
            raise UserError(
                f"{source.url}: is a store that pngnoise made (it has {made[0]}), its arrays are no new images; give "
                "it directly where a source is asked for, e.g. as --clean"
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
                found.rejected.append(Unpaired(path, f"a second image with the id {key!r}; {taken[key]} is used"))
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
            raise UserError(f"{source.url}: no image ({', '.join(EXTENSIONS)}) and no Zarr v3 array there")
        return found


def _arrays(source: Source) -> tuple[list[str], list[Unpaired]]:
    """Folders that are Zarr arrays (the folder itself: ""); groups only hold arrays."""
    documents = [p for p in source.files if PurePosixPath(p).name == DOCUMENT]
    if documents and source.archive is not None:
        return [], [Unpaired(p, "a Zarr array in an archive is not read; unpack the archive") for p in documents]
    return [p.removesuffix(DOCUMENT).rstrip("/") for p in documents if not is_group(source.uri(p))], []
