"""Location of a dataset: a folder, an archive that is read in place, or a prefix on object storage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.formats.archives import Member, members
from tasks.datasets.formats.image_file import EXTENSIONS
from tasks.stores.io.filesystem import exists, is_file, join, local_path
from tasks.stores.io.listing import list_files
from tasks.stores.io.urls import LEAVES

_ARCHIVES = (".zip", ".tar")
_WEB = ("http://", "https://")
_SINGLE = (*EXTENSIONS, ".mat")
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


@dataclass(frozen=True)
class Listing:
    """Files of a source (sorted relative paths), and names that are not used."""

    files: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # printable name, reason
    hidden: list[str] = field(default_factory=list)  # files of operating systems: .DS_Store, __MACOSX
    stored: dict[str, str] = field(default_factory=dict)  # original name in the archive by path


@dataclass(frozen=True)
class Source:
    """A folder, a ``.zip`` or ``.tar``, one image or MATLAB file, or an fsspec URL of any of these."""

    url: str

    @classmethod
    def of(cls, url: str) -> Source:
        """Open the source at ``url``. Local paths become absolute, so that catalogues can be used from any directory.

        Raises:
            UserError: There is no such source, or it is an archive that cannot be read in place.
        """
        if url.lower().endswith(_COMPRESSED_TARS):
            raise UserError(
                f"{url}: compressed tar files cannot be read in place; unpack the file, or convert it to .zip or .tar"
            )
        path = local_path(url)
        location = str(path.resolve()) if path is not None else url.rstrip("/")
        if location.startswith(_WEB) and not location.lower().endswith((*_ARCHIVES, *_SINGLE)):
            raise UserError(
                f"{url}: web pages cannot be listed as folders; use the URL of a file "
                f"({', '.join((*_ARCHIVES, *_SINGLE))}), s3://bucket/folder, or a local folder"
            )
        if not exists(location):
            raise UserError(f"{url}: does not exist; use a folder, a .zip or .tar file, or the URL of one")
        source = cls(location)
        if source.archive is None and source.single is None and is_file(location):
            raise UserError(
                f"{url}: this kind of file is not supported; use its folder, or a file of type "
                f"{', '.join((*_ARCHIVES, *_SINGLE))}"
            )
        return source

    @cached_property
    def archive(self) -> str | None:
        """``zip`` or ``tar`` if the source is such a file, else None."""
        suffix = PurePosixPath(self.url).suffix.lower()
        return suffix[1:] if suffix in _ARCHIVES and is_file(self.url) else None

    @cached_property
    def single(self) -> str | None:
        """Name of the file if the source is a single image or MATLAB file, else None."""
        path = PurePosixPath(self.url)
        return path.name if path.suffix.lower() in _SINGLE and is_file(self.url) else None

    def uri(self, path: str) -> str:
        """Return the URL of a file in the source."""
        if self.single is not None:
            return self.url
        if self.archive is None:
            return join(self.url, path)
        return f"{self.archive}://{self.listing.stored.get(path, path)}::{self.url}"

    @cached_property
    def listing(self) -> Listing:
        """All files, listed once. Names in archives are untrusted and are never used as paths on disk."""
        listing, closed, outside = Listing(), list[str](), list[str]()
        found = members(self.archive, self.url) if self.archive is not None else {}
        for name in sorted(self._names(found, closed, outside)):
            path = name.removeprefix("./")
            if self.archive == "zip":
                path = path.replace("\\", "/")  # zip files written on Windows may have backslashes
            if _is_hidden(path):
                listing.hidden.append(_printable(path))
                continue
            reason = _refusal(name) or (found[name].problem if name in found else None)
            if path in listing.stored:
                reason = reason or f"the archive has this file twice, also as {listing.stored[path]!r}"
            if reason is not None:
                listing.refused.append((_printable(name), reason))
                continue
            listing.files.append(path)
            listing.stored[path] = name
        listing.files.sort()
        listing.refused.extend((_printable(name), LEAVES) for name in sorted(outside) if not _is_hidden(name))
        for name in map(_printable, sorted(closed)):
            if _is_hidden(name):
                listing.hidden.append(name)
            else:
                listing.refused.append((name, "no permission to list this folder; check its owner"))
        return listing

    def _names(self, found: dict[str, Member], closed: list[str], outside: list[str]) -> Iterable[str]:
        if self.archive is not None:
            return found
        return list_files(self.url, closed, outside) if self.single is None else [self.single]

    @property
    def files(self) -> list[str]:
        """Relative paths of usable files."""
        return self.listing.files

    @cached_property
    def top(self) -> str:
        """Top folder of an archive, with a trailing slash, if it has all files; else an empty string."""
        heads = {path.partition("/")[0] for path in self.files if self.archive is not None}
        only = heads.pop() if len(heads) == 1 else ""
        return f"{only}/" if only and all("/" in path for path in self.files) else ""


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _is_hidden(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    if ".." in parts:
        return False
    return (
        any(part.startswith(".") for part in parts)
        or "__MACOSX" in parts
        or parts[-1].lower() in ("thumbs.db", "desktop.ini")
    )


def _refusal(name: str) -> str | None:
    """Return the reason why a name is not used, or None."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "the file name is not UTF-8; rename the file"
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 2 and name[1] == ":" and name[2] in "\\/"
    if path.is_absolute() or ".." in path.parts or drive:
        return "the name points outside of the archive; the file is not read"
    if "::" in name or "\n" in name:
        return "the file name contains '::' or a line break, which URLs do not support; rename the file"
    return None
