"""The published list of instances of SIDD's validation blocks: scene, camera and ISO of each image or block."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace

from pngmodel.errors import UserError
from tasks.datasets.adapters.sidd import INSTANCE
from tasks.datasets.formats.archives import read_whole
from tasks.datasets.records import PairRecord

Instance = re.Match[str]


def labelled(records: Sequence[PairRecord], uri: str) -> list[PairRecord]:
    """Add the metadata of a list to records; the list has one row per image, or one per block.

    Images and rows may count from 0 or from 1, but their numbers must be equal, because otherwise the assignment is
    ambiguous.

    Raises:
        UserError: The list is invalid or does not match the images.
    """
    rows = _rows(uri)
    by_index = dict(rows)
    if any(by_index[index][0] != instance[0] for index, instance in rows):
        raise UserError(f"{uri}: has two instances for one index; download it again or remove it")
    facts = _by_image(records, by_index) or _by_block(records, by_index)
    if facts is None:
        images = {_image(record) for record in records}
        raise UserError(
            f"{uri}: lists {len(by_index)} indices from {min(by_index)} to {max(by_index)}, but there are "
            f"{len(images)} images from {min(images, default=0)} to {max(images, default=0)} "
            f"with {len(records)} blocks; add the missing images or rows, or remove the list"
        )
    return [
        replace(record, scene=fact["scene"], camera=fact["camera"], iso=int(fact["iso"]))
        for record, fact in zip(records, facts, strict=True)
    ]


def _rows(uri: str) -> list[tuple[int, Instance]]:
    """Return (index, instance) of every row that has both."""
    found = []
    try:
        for row in csv.reader(io.StringIO(read_whole(uri).decode("utf-8", "replace"))):
            index = next((int(cell) for cell in row if cell.strip().isdecimal()), None)
            instance = next((m for cell in row if (m := INSTANCE.search(cell))), None)
            if index is not None and instance is not None:
                found.append((index, instance))
    except (csv.Error, ValueError) as error:
        raise UserError(f"{uri}: is not a list of instances ({error}); download it again or remove it") from None
    if not found:
        raise UserError(
            f"{uri}: has no row with an index and an instance name such as 0001_001_S6_00100_00060_3200_L; download it "
            "again or remove it"
        )
    return found


def _image(record: PairRecord) -> int:
    return int(record.pair.split("-")[0])


def _by_image(records: Sequence[PairRecord], rows: dict[int, Instance]) -> list[Instance] | None:
    images = {_image(record) for record in records}
    shift = min(rows) - min(images, default=0)
    if abs(shift) > 1 or {image + shift for image in images} != set(rows):
        return None
    return [rows[_image(record) + shift] for record in records]


def _by_block(records: Sequence[PairRecord], rows: dict[int, Instance]) -> list[Instance] | None:
    """Match rows that number all blocks consecutively, image by image."""
    first = min(rows)
    if first > 1 or set(rows) != set(range(first, first + len(records))):
        return None
    order = {pair: k for k, pair in enumerate(sorted(record.pair for record in records))}
    return [rows[first + order[record.pair]] for record in records]
