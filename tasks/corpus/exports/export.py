"""Export a published corpus to the files that other people's trainers read, share by share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from pngmodel.errors import UserError
from tasks.corpus.exports import FORMATS
from tasks.corpus.exports.images import refuse_codec
from tasks.corpus.exports.pairs import CorpusPairs, planned_pairs
from tasks.corpus.exports.protocol import ExportTask, Settings, Written
from tasks.corpus.exports.receipts import (
    COMMIT,
    FORMAT_VERSION,
    KIND,
    PLAN,
    done,
    parse_receipt,
    plan_content,
    publish,
    receipt_name,
    write_receipt,
)
from tasks.corpus.exports.records import ExportPart, ExportRecord
from tasks.corpus.parameters import ExportParameters
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import content_key, packages
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import join, read_bytes, remove, sha256, sweep, write_json
from tasks.stores.plans import begin


def export_corpus(
    parameters: ExportParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the files that are not there yet, then the commit record; ``progress`` counts images.

    Killed at any moment and run again it makes the same bytes. Returns place, pairs, files, bytes, shares, digest.

    Raises:
        UserError: the corpus cannot be exported so, or the output holds something else.
    """
    pairs = CorpusPairs(parameters.corpus)
    settings = _settings(parameters, pairs)
    content = plan_content(settings, pairs.digest)
    key = content_key(content)
    begin(parameters.output, PLAN, content, key)
    tasks = list(_works(parameters, settings, pairs, key))
    todo = [task for task in tasks if not done(task.output, task.index, task.key)]
    if todo:
        remove(join(parameters.output, COMMIT))  # an export that is being mended is not published
    total = sum(_images(task) for task in tasks)
    finished = total - sum(_images(task) for task in todo)
    progress(finished, total)
    for task, _ in run_each(parameters.cluster, write_share, todo):
        finished += _images(task)
        progress(finished, total)
    record = _commit(parameters.output, settings, pairs, tasks)
    return {
        "export": parameters.output,
        "format": record.format,
        "pairs": record.pairs,
        "skipped": record.skipped,
        "bytes": record.bytes,
        "shares": {"made": len(todo), "kept": len(tasks) - len(todo)},
        "licence": record.licence,
        "corpus": record.corpus,
        "digest": record.digest,
    }


def write_share(task: ExportTask) -> int:
    """Publish the files of one share and its receipt; returns its index. Nothing happens when somebody has done it."""
    if not done(task.output, task.index, task.key):
        pairs = planned_pairs(task.corpus, task.digest)
        written = FORMATS[task.settings.format].write(task, pairs)
        write_receipt(task.output, task.index, task.key, written)
    return task.index


def _settings(parameters: ExportParameters, pairs: CorpusPairs) -> Settings:
    """What decides the bytes, checked against the corpus and the format."""
    chosen = FORMATS[parameters.format]
    if parameters.layout is not None and parameters.layout not in chosen.layouts:
        known = f"it knows {', '.join(chosen.layouts)}" if chosen.layouts else "it has no folder layouts"
        raise UserError(f"--layout {parameters.layout}: not for --format {parameters.format}; {known}")
    if parameters.codec not in chosen.codecs:
        raise UserError(
            f"--codec {parameters.codec}: --format {parameters.format} holds {', '.join(chosen.codecs)}; "
            "take --format folders for other image files"
        )
    refuse_codec(parameters.codec, pairs.dtype, pairs.shape[0], pairs.url)
    settings = Settings(
        format=parameters.format,
        layout=parameters.layout or next(iter(chosen.layouts), None),
        codec=parameters.codec,
        accepted_only=parameters.accepted_only,
        pairs_per_file=parameters.pairs_per_file,
    )
    chosen.refuse(parameters.output, settings, pairs)
    if parameters.accepted_only and not pairs.accepted:
        raise UserError(
            f"{pairs.url}: the quality gate accepted none of its {len(pairs)} pairs; see gate.json there, or export "
            "the rejected pairs too"
        )
    return settings


def _works(parameters: ExportParameters, settings: Settings, pairs: CorpusPairs, key: str) -> Iterator[ExportTask]:
    for index, share in enumerate(FORMATS[settings.format].shares(settings, pairs)):
        yield ExportTask(parameters.corpus, pairs.digest, parameters.output, key, settings, index, share)


def _images(task: ExportTask) -> int:
    return (task.share.stop - task.share.start) * len(task.share.arrays)


def _commit(output: str, settings: Settings, pairs: CorpusPairs, tasks: list[ExportTask]) -> ExportRecord:
    """Files over the whole export, then export.json."""
    chosen = FORMATS[settings.format]

    def written() -> Iterator[Written]:
        for task in tasks:
            location = join(output, receipt_name(task.index))
            yield parse_receipt(read_bytes(location), location).written()

    sweep(output)
    closing = chosen.closing(output, settings, pairs, written())
    beside = {name: publish(output, name, content) for name, content in closing.items()}
    listed = dict(beside)
    parts: list[ExportPart] = []
    for task, share in zip(tasks, written(), strict=True):
        name = receipt_name(task.index)
        size = sum(file.bytes for file in share.files.values())
        digest = sha256(read_bytes(join(output, name)))
        parts.append(ExportPart(receipt=name, sha256=digest, pairs=share.pairs, bytes=size))
        if not chosen.file_per_image:
            listed |= share.files
    listed_parts = [part.model_dump() for part in parts]
    exported = pairs.accepted if settings.accepted_only else len(pairs)
    whole: dict[str, Any] = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "format": settings.format,
        "settings": asdict(settings),
        "corpus": pairs.digest,
        "licence": pairs.licence,
        "arrays": list(pairs.arrays),
        "shape": list(pairs.shape),
        "dtype": pairs.dtype,
        "pairs": exported,
        "skipped": len(pairs) - exported,
        "bytes": sum(part.bytes for part in parts) + sum(fact.bytes for fact in beside.values()),
        "packages": {name: packages()[name] for name in ("pngnoise", "imagecodecs", "tifffile", "pyarrow")},
        "parts": listed_parts,
        "files": {name: asdict(fact) for name, fact in sorted(listed.items())},
        "digest": content_key([plan_content(settings, pairs.digest), listed_parts]),
    }
    whole["record_sha256"] = content_key(whole)
    record = ExportRecord.model_validate(whole)
    write_json(join(output, COMMIT), whole)
    return record


task_export_corpus = step("export_corpus")(export_corpus)
