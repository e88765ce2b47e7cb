"""Where a dataset lies: a folder, an archive that is read in place, or a prefix on object storage."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.stores.filesystem import exists, join, list_files, local_path, open_file

_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Listing:
    """Files of a source (paths relative to it, sorted), and names in it that nothing may be done with."""

    files: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name as it can be printed, reason


@dataclass(frozen=True)
class Source:
    """A folder, a ``.zip`` or ``.tar``, or an fsspec URL of either."""

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
        place = str(path.resolve()) if path is not None else url
        if not exists(place):
            raise UserError(f"{url}: there is nothing; give a folder, a .zip or .tar, or a URL of one")
        return cls(place)

    @property
    def archive(self) -> str | None:
        """``zip`` or ``tar`` when the source is one file of that kind."""
        suffix = PurePosixPath(self.url).suffix.lower()
        return suffix[1:] if suffix in (".zip", ".tar") else None

    def uri(self, path: str) -> str:
        """The URI of a file in the source."""
        return join(self.url, path) if self.archive is None else f"{self.archive}://{path}::{self.url}"

    @cached_property
    def listing(self) -> Listing:
        """All files, listed once; the names in an archive are data from strangers and never become paths on disk."""
        names = self._members() if self.archive is not None else list_files(self.url)
        listing = Listing()
        for name in sorted(set(names)):
            reason = _refusal(name)
            if reason is None:
                listing.files.append(name)
            else:
                listing.refused.append((name.encode("utf-8", "backslashreplace").decode(), reason))
        return listing

    @property
    def files(self) -> list[str]:
        """Relative paths of the usable files."""
        return self.listing.files

    def _members(self) -> list[str]:
        with open_file(self.url) as file:
            try:
                if self.archive == "zip":
                    with zipfile.ZipFile(file) as archive:
                        return [i.filename for i in archive.infolist() if not i.is_dir()]
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    return [m.name for m in tar if not m.isdir()]
            except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise UserError(f"{self.url}: is no whole {self.archive} archive ({error}); fetch it again") from None


def _refusal(name: str) -> str | None:
    """Why a listed name is not used."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "the file name is not UTF-8; rename the file"
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":"):
        return "the name in the archive leaves the archive; it is not read"
    return None
