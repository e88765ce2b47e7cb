"""Export a published corpus to the files that other people's trainers read, share by share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pngmodel.errors import UserError
from tasks.corpus.exports import FORMATS
from tasks.corpus.exports.images import refuse_codec
from tasks.corpus.exports.pairs import CorpusPairs, planned_pairs
from tasks.corpus.exports.protocol import FORMAT_VERSION, ExportTask, Settings, Written, export_writer
from tasks.corpus.exports.records import ExportPart, ExportRecord
from tasks.corpus.parameters import ExportParameters
from tasks.runtime.clusters import run_each
from tasks.runtime.steps import step
from tasks.stores.commits import (
    PartWriter,
    commit_problems,
    decode_part,
    object_problem,
    open_commit,
    parts_digest,
    stored_plan_key,
)
from tasks.stores.io.filesystem import join, read_bytes, remove, sha256
from tasks.stores.kinds import COMMITS, EXPORT_FOLDER

COMMIT = COMMITS["export"]


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
    writer = export_writer(parameters.output, settings, pairs.digest)
    writer.begin()
    tasks = list(_tasks(parameters, settings, pairs))
    todo = [task for task in tasks if not writer.done(task.index)]
    if todo:
        remove(join(parameters.output, COMMIT))  # an export that is being repaired is not published
    total = sum(_images(task) for task in tasks)
    finished = total - sum(_images(task) for task in todo)
    progress(finished, total)
    for task, _ in run_each(parameters.cluster, write_share, todo):
        finished += _images(task)
        progress(finished, total)
    record = _commit(writer, settings, pairs, len(tasks))
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
    """Publish the files of one share, then its part; returns its index. Keeps a share that is done."""
    if not task.writer.done(task.index):
        written = FORMATS[task.settings.format].write(task, planned_pairs(task.corpus, task.digest))
        task.writer.write_part(task.index, pa.table({"pairs": [written.pairs]}), written.files)
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


def _tasks(parameters: ExportParameters, settings: Settings, pairs: CorpusPairs) -> Iterator[ExportTask]:
    for index, share in enumerate(FORMATS[settings.format].shares(settings, pairs)):
        yield ExportTask(parameters.corpus, pairs.digest, parameters.output, settings, index, share)


def _images(task: ExportTask) -> int:
    return (task.share.stop - task.share.start) * len(task.share.arrays)


def _commit(writer: PartWriter, settings: Settings, pairs: CorpusPairs, count: int) -> ExportRecord:
    """Write the files that belong to no share, then export.json."""
    writer.require_parts(count)
    closing = FORMATS[settings.format].closing(writer.url, settings, pairs, _written(writer, count))
    files = writer.write_objects(dict(sorted(closing.items())))
    parts = []
    for index in range(count):
        content, table, facts = writer.part(index)
        parts.append(
            ExportPart(
                part=writer.part_path(index),
                sha256=sha256(content),
                pairs=table["pairs"][0].as_py(),
                bytes=sum(fact.bytes for fact in facts.objects.values()),
            )
        )
    exported = pairs.accepted if settings.accepted_only else len(pairs)
    record = {
        "format": settings.format,
        "settings": asdict(settings),
        "corpus": pairs.digest,
        "licence": pairs.licence,
        "arrays": list(pairs.arrays),
        "shape": list(pairs.shape),
        "dtype": pairs.dtype,
        "pairs": exported,
        "skipped": len(pairs) - exported,
        "bytes": sum(part.bytes for part in parts) + sum(fact.bytes for fact in files.values()),
        "parts": parts,
        "files": {path: fact.model_dump() for path, fact in files.items()},
    }
    return writer.commit(COMMIT, ExportRecord, record)


def _written(writer: PartWriter, count: int) -> Iterator[Written]:
    for index in range(count):
        _, table, facts = writer.part(index)
        yield Written(table["pairs"][0].as_py(), facts.objects)


def open_export(url: str) -> ExportRecord:
    """The commit record of an export.

    Raises:
        UserError: it is missing or of another version. IntegrityError: it is damaged.
    """
    return open_commit(
        url,
        COMMIT,
        ExportRecord,
        FORMAT_VERSION,
        absent="there is no export, or it is not finished; run `pngnoise export` again",
        remedy="export again in another location",
    )


def verify_export(url: str) -> Iterator[str]:
    """Check every file of an export; yields one line per problem."""
    record = open_export(url)
    yield from commit_problems(url, COMMIT, record, parts_digest(stored_plan_key(url, EXPORT_FOLDER), record.parts))
    for path, fact in record.files.items():
        yield from object_problem(join(url, path), fact.sha256)
    for part in record.parts:
        location = join(url, part.part)
        problems = list(object_problem(location, part.sha256))
        yield from problems
        if not problems:
            for path, fact in decode_part(read_bytes(location), location)[1].objects.items():
                yield from object_problem(join(url, path), fact.sha256)


task_export_corpus = step("export_corpus")(export_corpus)
