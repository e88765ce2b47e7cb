"""Listings of folders and prefixes, and stamps that change when a file does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from pngmodel.errors import UserError
from tasks.stores.io.filesystem import explained, filesystem, join
from tasks.stores.io.urls import leaves

_MAX_LINKS = 10_000  # links to folders can multiply


def list_files(url: str, closed: list[str] | None = None, outside: list[str] | None = None) -> list[str]:
    """Paths of all files below ``url``: relative, sorted, recursive. Empty if there are none.

    Links to local folders are followed, except to a parent folder or out of ``url``: those are listed as files.

    Args:
        url: folder or prefix.
        closed: receives the names of unreadable folders, which are an error otherwise.
        outside: receives the names of links that leave ``url``, which are not listed then.
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
    """Files below a local folder, following links that stay in it."""
    linked = 0
    waiting = [("", frozenset({os.path.realpath(root)}))]  # with the real paths of its parent folders
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
                    raise UserError(
                        f"{url}: contains more than {_MAX_LINKS} links to folders; remove those in {folder}"
                    )
                waiting.append((f"{name}/", above | {real}))


def file_stamp(url: str) -> str:
    """A stamp that changes when the file changes: size and time, or the ETag on object storage."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        info = fs.info(path)
        return f"{info['size']} {info.get('mtime')} {info.get('ETag')} {info.get('ino')}"


def file_stamps(url: str) -> dict[str, str]:
    """Stamps of all files below ``url``, by path, from a listing."""
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
