"""What an export knows of itself: plan first, a receipt for every share, the commit record last.

.export/plan.json      what is being exported, written first; another plan at the same place is refused
.export/00000.json     the files of share 0 with their digests, written after them
export.json            the commit record
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from pngmodel.errors import IntegrityError
from tasks.corpus.exports.protocol import FileFact, Settings, Written
from tasks.corpus.exports.records import ExportFile, ExportRecord, Receipt
from tasks.runtime.provenance import content_key
from tasks.stores.commits import open_commit
from tasks.stores.io.filesystem import encode_json, exists, file_size, join, read_bytes, read_json, sha256, write_inside
from tasks.stores.io.read_ranges import open_file

COMMIT = "export.json"
KIND = "export"
FORMAT_VERSION = 1
PLAN = ".export/plan.json"
_BLOCK = 4 << 20


def publish(output: str, name: str, content: bytes) -> FileFact:
    """Write one file whole; returns what its receipt says of it."""
    write_inside(output, name, content)
    return FileFact(sha256(content), len(content))


def receipt_name(index: int) -> str:
    """Path of a share's receipt."""
    return f".export/{index:05d}.json"


def plan_content(settings: Settings, corpus: str) -> dict[str, Any]:
    """plan.json without its key."""
    return {"kind": KIND, "format_version": FORMAT_VERSION, "corpus": corpus, **asdict(settings)}


def write_receipt(output: str, index: int, key: str, written: Written) -> None:
    """Say that a share's files are all there."""
    write_inside(output, receipt_name(index), encode_json({"key": key} | asdict(written)))


def read_receipt(output: str, index: int) -> Receipt:
    """Raises UserError when it is absent, IntegrityError when it is damaged."""
    return parse_receipt(read_bytes(join(output, receipt_name(index))), join(output, receipt_name(index)))


def parse_receipt(content: bytes, location: str) -> Receipt:
    """Raises IntegrityError when it is damaged; ``location`` is named."""
    try:
        return Receipt.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(
            f"{location}: is damaged ({error.errors()[0]['msg']}); run the same command again"
        ) from None


def done(output: str, index: int, key: str) -> bool:
    """Whether a share is published whole: its receipt is of this plan and its files have the recorded digests."""
    if not exists(join(output, receipt_name(index))):
        return False
    try:
        receipt = read_receipt(output, index)
    except IntegrityError:
        return False
    return receipt.key == key and next(damage(output, receipt.files), None) is None


def damage(output: str, files: dict[str, ExportFile]) -> Iterator[str]:
    """One line for every file that is missing or is not what was written."""
    for name, file in files.items():
        location = join(output, name)
        if not exists(location):
            yield f"{location}: missing"
        elif file_size(location) != file.bytes or _digest(location, file.bytes) != file.sha256:
            yield f"{location}: sha256 differs from its receipt"


def _digest(location: str, size: int) -> str:
    """sha256 of a file, however large."""
    if size <= _BLOCK:
        return sha256(read_bytes(location))
    found = hashlib.sha256()
    with open_file(location) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def verify_export(url: str) -> Iterator[str]:
    """Check every file of an export; yields one line per problem, none when all is well."""
    record = open_export(url)
    raw = read_json(join(url, COMMIT))
    if content_key({k: v for k, v in raw.items() if k != "record_sha256"}) != record.record_sha256:
        yield f"{join(url, COMMIT)}: does not fit its own digest; it was edited"
    others = dict(record.files)
    for part in record.parts:
        location = join(url, part.receipt)
        if not exists(location):
            yield f"{location}: missing"
            continue
        content = read_bytes(location)
        if sha256(content) != part.sha256:
            yield f"{location}: sha256 differs from {COMMIT}"
            continue
        receipt = parse_receipt(content, location)
        yield from damage(url, receipt.files)
        for name in receipt.files:
            others.pop(name, None)
    yield from damage(url, others)


def open_export(url: str) -> ExportRecord:
    """The commit record of an export.

    Raises:
        UserError: it is absent or of another version. IntegrityError: it is damaged.
    """
    return open_commit(
        url,
        COMMIT,
        ExportRecord,
        FORMAT_VERSION,
        absent="no export, or one that was not finished; run `pngnoise export` again",
        remedy="export again with this version, in another place",
    )
