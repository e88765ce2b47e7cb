"""What lies below a folder or prefix, and what it is known by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from pngmodel.errors import UserError
from tasks.stores.io.filesystem import explained, filesystem, join
from tasks.stores.io.urls import leaves

_MAX_LINKS = 10_000  # links to links multiply


def list_files(url: str, closed: list[str] | None = None, outside: list[str] | None = None) -> list[str]:
    """Paths below ``url`` (relative, sorted, all depths); empty when nothing is there.

    Links to local folders are followed; one to a folder that it lies in, or to a place outside of ``url``, is listed as
    a file. ``closed`` takes the names of folders that may not be listed, without it they are an error; ``outside``
    those of links that leave ``url``, which are not listed then.
    """
    fs, path = filesystem(url)
    with explained(url, "listing"):
        fs.invalidate_cache()
        root, local = path.rstrip("/") + "/", isinstance(fs, LocalFileSystem)
        if local and not fs.exists(path):
            return []
        if local and fs.isdir(path):
            return sorted(_walk(path, url, closed, outside))
        return sorted(str(found).removeprefix(root) for found in fs.find(path))


def _walk(root: str, url: str, closed: list[str] | None, outside: list[str] | None) -> Iterator[str]:
    """Files below a local folder, through links too that stay in it."""
    linked = 0
    waiting = [("", frozenset({os.path.realpath(root)}))]  # and the folders that it lies in, as they are on disk
    while waiting:
        folder, above = waiting.pop()
        try:
            listed = os.scandir(Path(root, folder))
        except PermissionError:
            if closed is None or not folder:
                raise
            closed.append(folder.rstrip("/"))
            continue
        with listed as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_symlink() and Path(entry.path).exists() and leaves(entry.path, root):
                    if outside is None:
                        yield name
                    else:
                        outside.append(name)
                    continue
                if not (Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()):
                    yield name
                    continue
                real = os.path.realpath(entry.path)
                if real in above:
                    yield name
                    continue
                linked += entry.is_symlink()
                if linked > _MAX_LINKS:
                    raise UserError(f"{url}: holds more than {_MAX_LINKS} links to folders; remove those in {folder}")
                waiting.append((f"{name}/", above | {real}))


def file_stamp(url: str) -> str:
    """What changes when the file does: size and time, or the tag that object storage gives."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        info = fs.info(path)
        return f"{info['size']} {info.get('mtime')} {info.get('ETag')} {info.get('ino')}"


def file_stamps(url: str) -> dict[str, str]:
    """As :func:`file_stamp`, of every file below ``url``, by path; by listing, without asking for each."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return {name: file_stamp(join(url, name)) for name in list_files(url)}
    with explained(url, "listing"):
        fs.invalidate_cache()
        root = path.rstrip("/") + "/"
        found = fs.find(path, detail=True)
    return {
        str(name).removeprefix(root): f"{info['size']} {info.get('ETag') or info.get('mtime')}"
        for name, info in sorted(found.items())
    }
