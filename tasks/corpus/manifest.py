"""Compacts the parts of a corpus into its manifest, applying the quality gate to every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pngmodel.errors import UserError
from tasks.corpus.gate import GateRules, reasons
from tasks.corpus.plan import CorpusPlan, Job
from tasks.runtime.clusters import Cluster
from tasks.stores.corpus_store import (
    MANIFEST_SCHEMA,
    SHARD_SCHEMA,
    manifest_name,
    manifest_shards,
    published_corpus,
    shard_row,
    shards_name,
    writer,
)
from tasks.stores.io.filesystem import join, read_bytes, read_if_there, sha256, write_inside
from tasks.stores.io.tables import decode_table, encode_table
from tasks.stores.layout import ARRAYS

_EXAMPLES = 1000  # rejected samples that the gate's evidence lists; the manifest has all
_RATIO_EDGES = np.linspace(0, 4, 4001)
_HEX = 16  # digits of a digest in 64 bits


@dataclass(frozen=True)
class CompactTask:
    """One file of the manifest, and the table of its shards."""

    job: Job
    number: int
    shards: range
    rules: GateRules
    published: Mapping[str, str]
    """sha256 of these two files in the published record, if any."""


@dataclass
class Compacted:
    """Summary of some or all rows of the manifest."""

    samples: int = 0
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of files of the manifest and of tables of shards."""
    parts: list[str] = field(default_factory=list)
    """Digests of the parts in order, one string per file of the manifest: there may be millions."""
    stored_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejected samples by rule."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """The first rejected samples: sample, reason."""
    cameras: Counter[str] = field(default_factory=Counter)
    references: set[str] = field(default_factory=set)
    noise_std: float = 0.0
    """Sum over samples, as a fraction of the data range."""
    ratios: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_RATIO_EDGES) - 1, np.int64))
    digests: list[NDArray[np.uint64]] = field(default_factory=list)
    """The first 64 bits of each noise's digest, an array per file."""

    def add(self, other: Compacted) -> None:
        """Add the rows that follow."""
        self.samples += other.samples
        self.files |= other.files
        self.parts += other.parts
        self.stored_bytes += other.stored_bytes
        self.reasons += other.reasons
        self.rejected = (self.rejected + other.rejected)[:_EXAMPLES]
        self.cameras += other.cameras
        self.references |= other.references
        self.noise_std += other.noise_std
        self.ratios += other.ratios
        self.digests += other.digests

    def evidence(self) -> dict[str, Any]:
        """For gate.json."""
        return {
            "samples": self.samples,
            "reasons": dict(sorted(self.reasons.items())),
            "rejected": self.rejected,
            "std_ratio": self._quantiles(),
            "by_camera": dict(sorted(self.cameras.items())),
        }

    def _quantiles(self) -> dict[str, float]:
        """Quantiles of noise std over expected std, rounded to 0.001."""
        reached = np.searchsorted(np.cumsum(self.ratios), np.array([0.01, 0.5, 0.99]) * self.ratios.sum())
        return {name: round(float(_RATIO_EDGES[k]), 3) for name, k in zip(("p01", "p50", "p99"), reached, strict=True)}


def compact(task: CompactTask) -> Compacted:
    """Read the parts of some shards, apply the gate, and write one file of the manifest with its table of shards.

    Raises:
        UserError: a part is missing. IntegrityError: a part is damaged or belongs to another corpus.
    """
    url = task.job.parameters.output
    store = writer(url, task.job.layout, task.job.recipe)
    tables, shards = [], []
    for index in task.shards:
        content, table, facts = store.part(index)
        tables.append(table)
        shards.append(shard_row(task.job.layout, index, sha256(content), facts))
    rows = pa.concat_tables(tables)
    found = reasons(rows, task.rules)
    files = {manifest_name(task.number): _write(url, task.number, rows, found, task.published)}
    name = shards_name(task.number)
    files[name] = _written(url, name, pa.Table.from_pylist(shards, SHARD_SCHEMA), task.published)
    std, expected = (rows.column(name).to_numpy() for name in ("noise_std", "expected_std"))
    return Compacted(
        samples=rows.num_rows,
        files=files,
        parts=["".join(row["part_sha256"] for row in shards)],
        stored_bytes=sum(row.get(f"{array}_bytes", 0) for row in shards for array in ARRAYS),
        reasons=_by_rule(found.values()),
        rejected=_examples(rows, found),
        cameras=Counter(str(camera) for camera in rows.column("reference_camera").to_pylist()),
        references=set(rows.column("reference").to_pylist()),
        noise_std=float(std.sum(dtype=np.float64)),
        ratios=np.histogram(np.clip(std / np.maximum(expected, 1e-9), 0, 4), _RATIO_EDGES)[0].astype(np.int64),
        digests=[np.array([int(d[:_HEX], 16) for d in rows.column("noise_sha256").to_pylist()], np.uint64)],
    )


def _by_rule(found: Iterable[str]) -> Counter[str]:
    return Counter(reason.split(":")[0] for reason in found)


def _examples(rows: pa.Table, found: dict[int, str]) -> list[dict[str, Any]]:
    samples = rows.column("sample")
    return [{"sample": samples[row].as_py(), "reason": found[row]} for row in list(found)[:_EXAMPLES]]


def _write(url: str, number: int, rows: pa.Table, found: dict[int, str], published: Mapping[str, str]) -> str:
    """Write a file of the manifest; returns its sha256."""
    column = [found.get(row) for row in range(rows.num_rows)]
    accepted = pa.array([reason is None for reason in column], pa.bool_())
    judged = rows.append_column("accepted", accepted).append_column("reason", pa.array(column, pa.string()))
    return _written(url, manifest_name(number), judged.cast(MANIFEST_SCHEMA), published)


def _written(url: str, name: str, table: pa.Table, published: Mapping[str, str]) -> str:
    """Write a table; returns the sha256 of the file. A published file with the same rows is kept.

    The published record has its digest, and another version of pyarrow would encode the same rows differently.
    """
    existing = read_if_there(join(url, name))
    if existing is not None and sha256(existing) == published.get(name) and decode_table(existing, name) == table:
        return published[name]
    content = encode_table(table)
    write_inside(url, name, content)
    return sha256(content)


def compact_all(
    plan: CorpusPlan,
    rules: GateRules,
    cluster: Cluster,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compacted:
    """Write the manifest and the tables of shards. Files of published repeats are kept.

    Raises:
        UserError: parts are missing; names them.
    """
    url = plan.parameters.output
    writer(url, plan.layout, plan.recipe).require_parts(plan.layout.shards)
    record = published_corpus(url)
    files = record.record.files if record is not None else {}
    tasks = []
    for k, shards in enumerate(manifest_shards(plan.layout)):
        published = {name: files[name] for name in (manifest_name(k), shards_name(k)) if name in files}
        tasks.append(CompactTask(plan.job, k, shards, rules, published))
    parts: dict[int, Compacted] = {}
    for task, part in cluster.run_each(compact, tasks):
        parts[task.number] = part
        progress(len(parts), len(tasks))
    whole = Compacted()
    for task in tasks:
        whole.add(parts[task.number])
    if not rules.duplicates:
        _reject_duplicates(url, whole, [(task.number, parts[task.number].samples) for task in tasks])
    return whole


def _reject_duplicates(url: str, whole: Compacted, files: list[tuple[int, int]]) -> None:
    """Reject samples with the same noise as an earlier sample. Duplicates indicate a bug, so this is rare."""
    digests = np.concatenate(whole.digests)
    order = np.argsort(digests, kind="stable")
    same = np.flatnonzero(np.diff(digests[order]) == 0)
    if not len(same):
        return
    suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
    seen: dict[str, int] = {}
    start = 0
    for number, samples in files:
        local = suspects[(suspects >= start) & (suspects < start + samples)] - start
        if len(local):
            _judge_again(url, number, [int(row) for row in local], seen, whole)
        start += samples


def _judge_again(url: str, number: int, suspects: list[int], seen: dict[str, int], whole: Compacted) -> None:
    location = join(url, manifest_name(number))
    rows = decode_table(read_bytes(location), location)
    digests, samples = rows.column("noise_sha256"), rows.column("sample")
    found = {row: reason for row, reason in enumerate(rows.column("reason").to_pylist()) if reason is not None}
    again = {}
    for row in suspects:
        first = seen.setdefault(digests[row].as_py(), samples[row].as_py())
        if first != samples[row].as_py() and row not in found:
            again[row] = f"duplicate: same noise as sample {first}"
    whole.reasons += _by_rule(again.values())
    whole.rejected = sorted([*whole.rejected, *_examples(rows, again)], key=lambda r: int(r["sample"]))[:_EXAMPLES]
    plain = rows.drop_columns(["accepted", "reason"])
    whole.files[manifest_name(number)] = _write(url, number, plain, dict(sorted((found | again).items())), {})


def require_whole(evidence: Compacted, plan: CorpusPlan) -> None:
    """Raise a UserError if the manifest does not have every sample."""
    if evidence.samples != plan.layout.pairs:
        raise UserError(
            f"{plan.parameters.output}: the manifest has {evidence.samples} of {plan.layout.pairs} samples; run the "
            "same command again"
        )
