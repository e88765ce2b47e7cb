"""Ingestion: reads and verifies all pairs of a dataset, and writes a catalogue.

catalogue.parquet   one row per usable pair
rejected.json       one entry per rejected pair or file, with the reason
report.html         report with examples
catalogue.json      commit record with counts and digests, written last
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.adapters.naming import NOT_STATED
from tasks.datasets.catalogue import (
    COMMIT,
    FORMAT_VERSION,
    REJECTED,
    REPORT,
    SCHEMA,
    TABLE,
    CatalogueRecord,
    load_catalogue,
    read_catalogued,
)
from tasks.datasets.catalogue_report import catalogue_markdown, catalogue_page
from tasks.datasets.duplicates import near_duplicates
from tasks.datasets.parameters import IngestSettings
from tasks.datasets.records import SIDES, PairRecord, Unpaired
from tasks.datasets.source import Source
from tasks.datasets.verification import Checked, check_group, grouped
from tasks.runtime.clusters import run_each
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.provenance import content_key, packages
from tasks.runtime.run_metrics import REJECTS, count
from tasks.runtime.steps import step
from tasks.stores.commits import PLAN
from tasks.stores.io.filesystem import exists, join, read_json, remove, sha256, write_bytes, write_json
from tasks.stores.io.tables import encode_table
from tasks.stores.kinds import COMMITS

_FAILED = "failed.json"
_DATA_RANGES = (1.0, 255.0, 4095.0, 16383.0, 65535.0)  # of float images: unit range, or counts of 8, 12, 14, 16 bits
_TOLERANCE = 1.1


class RejectedError(UserError):
    """All or too many pairs were rejected, so no catalogue was written. ``rejected`` lists ids and reasons."""

    def __init__(self, message: str, rejected: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.rejected = rejected


def ingest(
    source: str,
    adapter_name: str,
    output: str,
    settings: IngestSettings | None = None,
    *,
    cluster: ClusterConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the catalogue of a dataset.

    Args:
        source: Folder, archive or URL of the dataset.
        adapter_name: Name of an adapter, or path of a YAML rule file.
        output: Folder or URL of the catalogue.
        settings: Settings of the ingestion.
        cluster: Cluster that reads images.
        progress: Called with (done, total) pairs.

    Returns:
        Number of pairs, rejected pairs, digest, and locations of catalogue and report.

    Raises:
        UserError: The source is not that dataset, no pair is usable, too many pairs are rejected, or the output has
            other content.
    """
    settings = settings or IngestSettings()
    for other in (PLAN, COMMITS["model bundle"]):
        if exists(join(output, other)):
            raise UserError(f"{output}: contains another store (it has {other}); choose another output")
    location = Source.of(source)
    found = adapter(adapter_name).find(location)
    records = _assigned(found.records, settings, source)
    rejected = [*found.rejected, *(Unpaired(name, reason) for name, reason in location.listing.refused)]
    unique: dict[str, PairRecord] = {}
    for record in records:
        if record.pair in unique:
            rejected.append(Unpaired(record.pair, f"duplicate id of {record.noisy or record.clean}"))
        else:
            unique[record.pair] = record
    checked = _checked(list(unique.values()), settings, cluster, progress)
    rows = _rows(unique, checked, rejected, settings.data_range)
    rejections = [{"id": r.id, "reason": r.reason} for r in sorted(rejected, key=lambda r: (r.id, r.reason))]
    count(REJECTS, len(rejections))
    share = len(rejections) / max(1, len(rows) + len(rejections))
    if not rows or share > settings.max_rejected:
        write_json(join(output, _FAILED), {"source": location.url, "rejected": rejections})
        raise RejectedError(_refusal(source, output, rejections, len(rows), share, settings), rejections)
    return _publish(output, location.url, adapter_name, rows, rejections, [*found.ignored, *location.listing.hidden])


def _refusal(
    source: str, output: str, rejections: list[dict[str, str]], usable: int, share: float, settings: IngestSettings
) -> str:
    first = "; ".join(f"{r['id']}: {r['reason']}" for r in rejections[:3])
    if not usable:
        return f"{source}: no usable pairs ({len(rejections)} rejected, see {join(output, _FAILED)}): {first}"
    return (
        f"{source}: {len(rejections)} pairs rejected and {usable} usable, so the rejected share is {share:.1%}, but "
        f"max_rejected is {settings.max_rejected:.1%}; no catalogue was written. All reasons are in "
        f"{join(output, _FAILED)}: {first}"
    )


def _assigned(records: list[PairRecord], settings: IngestSettings, source: str) -> list[PairRecord]:
    """Set splits and licences according to the settings."""
    scenes = sorted({r.scene for r in records})
    if unknown := set(settings.validation_scenes) - set(scenes):
        raise UserError(
            f"validation_scenes: {sorted(unknown)} are not in {source}; available scenes: {', '.join(scenes)}"
        )
    validation = set(settings.validation_scenes)
    sizes = Counter(r.scene for r in records if r.split == "train" and r.scene not in validation)
    remaining = settings.validation_share * sizes.total()
    for scene in sorted(sizes, key=lambda s: hashlib.sha256(s.encode()).digest()):
        if remaining >= sizes[scene] / 2:  # whole scenes, as close to the share as possible
            validation.add(scene)
            remaining -= sizes[scene]
    out = []
    for record in records:
        split = "validation" if record.scene in validation else record.split
        known = settings.licence is None or record.licence != NOT_STATED
        out.append(replace(record, split=split, licence=record.licence if known else str(settings.licence)))
    return out


def _checked(
    records: list[PairRecord],
    settings: IngestSettings,
    cluster: ClusterConfig | None,
    progress: Callable[[int, int], None],
) -> dict[str, Checked]:
    done: dict[str, Checked] = {}
    groups = grouped(records, settings.max_shift)
    for group, results in run_each(cluster or ClusterConfig(kind="inline"), check_group, groups):
        done |= {record.pair: result for record, result in zip(group.records, results, strict=True)}
        progress(len(done), len(records))
    return done


def _rows(
    records: dict[str, PairRecord], checked: dict[str, Checked], rejected: list[Unpaired], data_range: float | None
) -> list[dict[str, Any]]:
    """Return the table rows of usable pairs, sorted by pair; append the others to ``rejected``."""
    usable: dict[str, dict[str, Any]] = {}
    pixels: dict[str, str] = {}
    for pair in sorted(records):
        result, record = checked[pair], records[pair]
        if result.facts is None:
            rejected.append(Unpaired(pair, str(result.reason)))
            continue
        digest = result.facts.get("noisy_sha256") or result.facts["clean_sha256"]
        if (original := pixels.setdefault(digest, pair)) != pair:
            rejected.append(Unpaired(pair, f"has the same pixels as {original!r}"))
            continue
        usable[pair] = {name: getattr(record, name) for name in SCHEMA.names if hasattr(record, name)} | result.facts
    pairs = list(usable)
    for later, (earlier, correlation) in near_duplicates([checked[p].fingerprint for p in pairs]).items():
        what = "noise" if usable[pairs[later]]["noisy"] else "image"
        reason = f"duplicate shot: has the same {what} as {pairs[earlier]!r} (correlation {correlation:.2f})"
        rejected.append(Unpaired(pairs[later], reason))
        del usable[pairs[later]]
    return _scaled(list(usable.values()), data_range)


def _scaled(rows: list[dict[str, Any]], data_range: float | None) -> list[dict[str, Any]]:
    """Set the data range, and convert statistics to fractions of it.

    All float images of a dataset share the smallest usual data range that fits the clean (or only) images. A tolerance
    of 10 % allows values slightly above white.
    """
    highest = max((row["top"] for row in rows if row["dtype"] == "float32"), default=1.0)
    float_range = data_range or next((scale for scale in _DATA_RANGES if highest <= _TOLERANCE * scale), highest)
    for row in rows:
        scale = float_range if row["dtype"] == "float32" else float(np.iinfo(row["dtype"]).max)
        row["data_range"] = scale
        del row["top"]  # not a column of the table
        for name in ("mean", "noise_mean", "noise_std"):
            if name in row:
                row[name] = [value / scale for value in row[name]]
        row |= {"low": row["low"] / scale, "high": row["high"] / scale}
    return rows


def _publish(
    output: str,
    source: str,
    adapter_name: str,
    rows: list[dict[str, Any]],
    rejections: list[dict[str, str]],
    ignored: list[str],
) -> dict[str, Any]:
    table = pa.Table.from_pylist(rows, SCHEMA)
    content = encode_table(table)
    remove(join(output, COMMIT))  # invalidates an older catalogue before its files are replaced
    write_bytes(join(output, TABLE), content)
    write_json(join(output, REJECTED), {"rejected": rejections, "ignored": ignored})
    remove(join(output, _FAILED))
    # The digest covers metadata and pixels, but not file locations.
    locations = {name for side in SIDES for name in (side, f"{side}_part")}
    facts = [{k: v for k, v in row.items() if k not in locations} for row in table.to_pylist()]
    commit: dict[str, Any] = {
        "format": "pngnoise-catalogue",
        "format_version": FORMAT_VERSION,
        "source": source,
        "adapter": adapter_name,
        "pairs": len(rows),
        "rejected": len(rejections),
        "ignored": len(ignored),
        "table_sha256": sha256(content),
        "digest": content_key(facts),
        "packages": packages(),
    }
    CatalogueRecord.model_validate(commit)  # ensures that the documented schema matches
    page = catalogue_page(commit, table.to_pylist(), rejections, read_catalogued)
    write_bytes(join(output, REPORT), page.encode())
    write_json(join(output, COMMIT), commit)
    return {
        "pairs": len(rows),
        "rejected": rejections,
        "ignored": len(ignored),
        "digest": commit["digest"],
        "catalogue": output,
        "report": join(output, REPORT),
    }


def describe(url: str) -> str:
    """Format a catalogue as Markdown with a small image, for an artifact of the run."""
    rows = load_catalogue(url)[0].to_pylist()
    return catalogue_markdown(rows, read_json(join(url, REJECTED))["rejected"], read_catalogued)


task_ingest = step("ingest")(ingest)
