"""Where a dataset lies: a folder, an archive that is read in place, or a prefix on object storage."""

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
    """Files of a source (paths relative to it, sorted), and names in it that nothing may be done with."""

    files: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name as it can be printed, reason
    hidden: list[str] = field(default_factory=list)  # what systems leave beside files: .DS_Store, __MACOSX
    stored: dict[str, str] = field(default_factory=dict)  # names as the archive has them, where they differ


@dataclass(frozen=True)
class Source:
    """A folder, a ``.zip`` or ``.tar``, one image or MATLAB file, or an fsspec URL of any of these."""

    url: str

    @classmethod
    def of(cls, url: str) -> Source:
        """The source at ``url``; local paths become absolute, so that catalogues do not depend on where one stands.

        Raises:
            UserError: nothing is there, or it is an archive that cannot be read in place.
        """
        if url.lower().endswith(_COMPRESSED_TARS):
            raise UserError(
                f"{url}: a compressed tar can only be read from start to end; unpack it, or pack it as .zip or .tar"
            )
        path = local_path(url)
        location = str(path.resolve()) if path is not None else url.rstrip("/")
        if location.startswith(_WEB) and not location.lower().endswith((*_ARCHIVES, *_SINGLE)):
            raise UserError(
                f"{url}: pages of links are not read as folders; give the URL of one file "
                f"({', '.join((*_ARCHIVES, *_SINGLE))}), s3://bucket/folder, or a folder on disk"
            )
        if not exists(location):
            raise UserError(f"{url}: there is nothing; give a folder, a .zip or .tar, or a URL of one")
        source = cls(location)
        if source.archive is None and source.single is None and is_file(location):
            raise UserError(
                f"{url}: is one file; give the folder it lies in, or one of {', '.join((*_ARCHIVES, *_SINGLE))}"
            )
        return source

    @cached_property
    def archive(self) -> str | None:
        """``zip`` or ``tar`` when the source is one file of that kind."""
        suffix = PurePosixPath(self.url).suffix.lower()
        return suffix[1:] if suffix in _ARCHIVES and is_file(self.url) else None

    @cached_property
    def single(self) -> str | None:
        """The file's name when the source is one image or MATLAB file."""
        path = PurePosixPath(self.url)
        return path.name if path.suffix.lower() in _SINGLE and is_file(self.url) else None

    def uri(self, path: str) -> str:
        """The URI of a file in the source."""
        if self.single is not None:
            return self.url
        if self.archive is None:
            return join(self.url, path)
        return f"{self.archive}://{self.listing.stored.get(path, path)}::{self.url}"

    @cached_property
    def listing(self) -> Listing:
        """All files, listed once; the names in an archive are data from strangers and never become paths on disk."""
        listing, closed, outside = Listing(), list[str](), list[str]()
        found = members(self.archive, self.url) if self.archive is not None else {}
        for name in sorted(self._names(found, closed, outside)):
            path = name.removeprefix("./")
            if self.archive == "zip":
                path = path.replace("\\", "/")  # the separators of the system that packed it
            if _is_hidden(path):
                listing.hidden.append(_printable(path))
                continue
            reason = _refusal(name) or (found[name].problem if name in found else None)
            if path in listing.stored:
                reason = reason or f"the archive holds it twice, as {listing.stored[path]!r} too"
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
        """Relative paths of the usable files."""
        return self.listing.files

    @cached_property
    def top(self) -> str:
        """The folder (with its slash) that an archive was packed from, when everything in it lies in that one."""
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
    """Why a listed name is not used."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "the file name is not UTF-8; rename the file"
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 2 and name[1] == ":" and name[2] in "\\/"
    if path.is_absolute() or ".." in path.parts or drive:
        return "the name leaves the archive it is in; it is not read"
    if "::" in name or "\n" in name:
        return "the file name holds '::' or a line break, which no URI can tell; rename the file"
    return None
