"""Ingestion: read and verify every pair of a dataset, write a catalogue of what is usable and a list of what is not.

catalogue.parquet   one row per usable pair
rejected.json       one entry per unusable thing, with its reason
catalogue.json      counts and digests, written last
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from pngmodel.errors import IntegrityError, UserError
from tasks.clusters import ClusterConfig, run_each
from tasks.datasets import adapter
from tasks.datasets.imagefile import decode
from tasks.datasets.records import PAIR_COLUMNS, PairRecord, Unpaired
from tasks.provenance import content_key, packages
from tasks.stores.filesystem import exists, join, local_path, read_bytes, read_json, sha256, write_bytes, write_json

COMMIT = "catalogue.json"
_TABLE, _REJECTED = "catalogue.parquet", "rejected.json"

SCHEMA = pa.schema(
    [
        *PAIR_COLUMNS,
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int8()),
        ("dtype", pa.string()),
        ("noisy", pa.string()),
        ("clean", pa.string()),
        ("noisy_sha256", pa.string()),
        ("clean_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Checked:
    """A pair that was read: its table row, or why it cannot be used."""

    row: dict[str, Any] | None
    reason: str | None = None


def check_pair(record: PairRecord) -> Checked:
    """Read both images of a pair; they must decode and agree in size, channels and dtype."""
    try:
        contents = {side: read_bytes(uri) for side, uri in (("noisy", record.noisy), ("clean", record.clean))}
        noisy, clean = decode(contents["noisy"], record.noisy), decode(contents["clean"], record.clean)
    except UserError as error:
        return Checked(None, str(error))
    if noisy.shape != clean.shape:
        return Checked(None, f"noisy {record.noisy} is {noisy.shape} but clean {record.clean} is {clean.shape}")
    if noisy.dtype != clean.dtype:
        return Checked(None, f"noisy {record.noisy} is {noisy.dtype} but clean {record.clean} is {clean.dtype}")
    height, width, channels = noisy.shape
    row = {name: getattr(record, name) for name in SCHEMA.names if hasattr(record, name)}
    row |= {"height": height, "width": width, "channels": channels, "dtype": str(noisy.dtype)}
    row |= {f"{side}_sha256": sha256(content) for side, content in contents.items()}
    return Checked(row)


def ingest(
    source: str,
    adapter_name: str,
    output: str,
    *,
    validation_scenes: tuple[str, ...] = (),
    cluster: ClusterConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the catalogue of ``source`` to ``output``; returns pairs, rejected and digest.

    Pairs of ``validation_scenes`` get the split ``validation`` whatever the adapter says.

    Raises:
        UserError: the source does not hold that dataset, no pair is usable, or the output is something else.
    """
    for other in ("plan.json", "digest.json"):
        if exists(join(output, other)):
            raise UserError(f"{output}: holds something else than a catalogue (it has {other}); choose another output")
    path = local_path(source)
    source = str(path.resolve()) if path is not None else source
    found = adapter(adapter_name).find(source)
    records = [replace(r, split="validation") if r.scene in validation_scenes else r for r in found.records]
    unknown = set(validation_scenes) - {r.scene for r in records}
    if unknown:
        scenes = sorted({r.scene for r in records})
        raise UserError(f"validation scenes {sorted(unknown)} are not in {source}; scenes there: {', '.join(scenes)}")
    rows, rejected = [], list(found.rejected)
    for done, (record, checked) in enumerate(run_each(cluster or ClusterConfig(kind="inline"), check_pair, records)):
        if checked.row is not None:
            rows.append(checked.row)
        else:
            rejected.append(Unpaired(record.pair, str(checked.reason)))
        progress(done + 1, len(records))
    rejections = [{"id": r.id, "reason": r.reason} for r in sorted(rejected, key=lambda r: (r.id, r.reason))]
    if not rows:
        first = f"; first reason: {rejections[0]['reason']}" if rejections else ""
        raise UserError(f"{source}: no usable pair ({len(rejections)} rejected){first}")
    rows.sort(key=lambda row: row["pair"])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer, compression="zstd")
    write_bytes(join(output, _TABLE), buffer.getvalue())
    write_json(join(output, _REJECTED), {"rejected": rejections})
    # Where the files lie does not make another dataset: the digest covers facts and pixels.
    facts = [{k: v for k, v in row.items() if k not in ("noisy", "clean")} for row in rows]
    commit = {
        "format": "pngnoise-catalogue",
        "format_version": 1,
        "source": source,
        "adapter": adapter_name,
        "pairs": len(rows),
        "rejected": len(rejections),
        "table_sha256": sha256(buffer.getvalue()),
        "digest": content_key(facts),
        "packages": packages(),
    }
    write_json(join(output, COMMIT), commit)
    return {"pairs": len(rows), "rejected": rejections, "digest": commit["digest"], "catalogue": output}


def load_catalogue(url: str) -> tuple[pa.Table, str]:
    """The table of a committed catalogue and its digest.

    Raises:
        UserError: no catalogue there. IntegrityError: the table does not fit the record.
    """
    place = join(url, COMMIT)
    if not exists(place):
        raise UserError(f"{place}: missing; {url} is not a (finished) catalogue, make one with `pngnoise ingest`")
    record = read_json(place)
    content = read_bytes(join(url, _TABLE))
    if sha256(content) != record.get("table_sha256"):
        raise IntegrityError(f"{join(url, _TABLE)}: sha256 differs from {COMMIT}; run `pngnoise ingest` again")
    return pq.read_table(io.BytesIO(content)), str(record["digest"])


def read_catalogued(row: dict[str, Any], side: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The ``noisy`` or ``clean`` image of a catalogue's row, (H, W, C).

    Raises:
        IntegrityError: the file is not the one that was catalogued.
    """
    content = read_bytes(row[side])
    if sha256(content) != row[f"{side}_sha256"]:
        raise IntegrityError(f"{row[side]}: changed since it was catalogued; run `pngnoise ingest` again")
    return decode(content, row[side])


task_ingest = task(cache_policy=NO_CACHE, name="ingest")(ingest)
